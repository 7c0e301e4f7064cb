package dial

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"davit.dev/davit/internal/uplink"
)

// Hands do what a project's documents ask for at the site.
type Hands interface {
	// Take does it, and says how the document stands then. The same again changes
	// nothing.
	Take(ctx context.Context, d uplink.Document) uplink.Told
}

// Everywhere is the whole site, among what a link accepts documents for.
const Everywhere = "*"

// accepts says why a site does not take a document; "" when it does.
func accepts(accepted []string, d uplink.Document) string {
	switch {
	case len(accepted) == 0:
		return "the site takes no documents of this console: a new `davit enrol` with --documents says which it takes"
	case slices.Contains(accepted, Everywhere), d.Namespace != "" && slices.Contains(accepted, d.Namespace):
		return ""
	case d.Namespace == "":
		return fmt.Sprintf("the site takes documents of some namespaces only, and a %s is of the whole site", d.Kind)
	}
	return fmt.Sprintf("the site takes no documents of namespace %s", d.Namespace)
}

// How often it is tried again what could not be done, and looked after what was.
const (
	againEvery = 10 * time.Second
	careEvery  = 5 * time.Minute
)

// waitingMost is how many documents may wait to be taken: a console sends no more
// before they are answered.
const waitingMost = 256

// item is something that was handed over: a document, or the word that there
// are no more.
type item struct {
	uplink.Document
	held *uplink.Held
}

// paper is a document, and how it stands.
type paper struct {
	uplink.Document
	told uplink.Told
	// asked counts how often the console asked for it: each time it is answered.
	asked int
}

// desk is what a console handed over: what waits, and what is held. It stays
// while the console is away.
type desk struct {
	mu       sync.Mutex
	waits    []item
	papers   map[uplink.Key]paper
	upTo     int64
	accepted []string
	more     chan struct{} // something waits
	changed  chan struct{} // closed when how papers stand changes
}

func (d *desk) ready() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.papers == nil {
		d.papers, d.more, d.changed = map[uplink.Key]paper{}, make(chan struct{}, 1), make(chan struct{})
	}
}

// push hands something over.
func (d *desk) push(i item) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := len(d.waits); i.held != nil && n > 0 && d.waits[n-1].held != nil {
		// Nothing bounds how often a console says this; the last says it all.
		d.waits[n-1] = i
		return nil
	}
	if len(d.waits) >= waitingMost {
		return fmt.Errorf("%w: more documents than were answered", uplink.ErrFrame)
	}
	d.waits = append(d.waits, i)
	select {
	case d.more <- struct{}{}:
	default:
	}
	return nil
}

func (d *desk) next() (item, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.waits) == 0 {
		return item{}, false
	}
	i := d.waits[0]
	d.waits = d.waits[1:]
	return i, true
}

// forget drops what waits: the stream has ended, and the next begins with it.
func (d *desk) forget(accepted []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waits, d.accepted = nil, accepted
}

func (d *desk) holds() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.upTo
}

// look returns how papers stand, by revision, and what is closed when that changes.
func (d *desk) look() (all []paper, changed <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all = slices.SortedFunc(maps.Values(d.papers), func(a, b paper) int { return cmp.Compare(a.Revision, b.Revision) })
	return all, d.changed
}

// put keeps how a paper stands.
func (d *desk) put(p paper, asked bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.papers[p.Key]
	if old.told == p.told && !asked {
		return
	}
	p.asked = old.asked
	if asked {
		p.asked++
	}
	d.papers[p.Key] = p
	close(d.changed)
	d.changed = make(chan struct{})
}

// work takes what is handed over, and looks after it, until the context ends.
func (c *Client) work(ctx context.Context) {
	again, care := time.NewTicker(againEvery), time.NewTicker(careEvery)
	defer again.Stop()
	defer care.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.desk.more:
			c.takeAll(ctx)
		case <-again.C:
			c.lookAfter(ctx, func(s string) bool { return s != uplink.Applied && s != uplink.Gone })
		case <-care.C:
			c.lookAfter(ctx, func(s string) bool { return s == uplink.Applied })
		}
	}
}

func (c *Client) takeAll(ctx context.Context) {
	for ctx.Err() == nil {
		i, ok := c.desk.next()
		if !ok {
			return
		}
		if i.held != nil {
			c.desk.mu.Lock()
			c.desk.upTo = i.held.Revision
			c.desk.mu.Unlock()
			continue
		}
		c.take(ctx, i.Document, true)
	}
}

// take has one document be done. What the context's end broke off says nothing.
func (c *Client) take(ctx context.Context, d uplink.Document, asked bool) {
	c.desk.mu.Lock()
	why := accepts(c.desk.accepted, d)
	c.desk.mu.Unlock()
	told := uplink.Told{State: uplink.Refused, Why: why}
	if why == "" {
		told = c.Hands.Take(ctx, d)
	}
	if ctx.Err() != nil {
		return
	}
	told.Key, told.UID, told.Revision, told.Gone = d.Key, d.UID, d.Revision, d.Gone
	c.desk.put(paper{Document: d, told: told}, asked)
}

func (c *Client) lookAfter(ctx context.Context, which func(state string) bool) {
	all, _ := c.desk.look()
	for _, p := range all {
		if which(p.told.State) && ctx.Err() == nil {
			c.take(ctx, p.Document, false)
		}
	}
}

// Documents say how what the console handed over stands.
func (c *Client) Documents() []uplink.Told {
	papers, _ := c.desk.look()
	var all []uplink.Told
	for _, p := range papers {
		if p.told.State != uplink.Gone {
			all = append(all, p.told)
		}
	}
	return all
}

// spoken is what was said of a document.
type spoken struct {
	told  uplink.Told
	asked int
}

// papers says how papers stand, as far as this stream has not said it yet.
func (s *session) papers(to io.Writer, all []paper) error {
	for _, p := range all {
		said := spoken{p.told, p.asked}
		if s.saidOf[p.Key] == said {
			continue
		}
		if err := uplink.Write(to, uplink.Up{Told: &p.told}); err != nil {
			return err
		}
		s.saidOf[p.Key] = said
	}
	return nil
}

// handed takes what the console hands over, if it is a console of the epoch that
// may: one that was replaced commands nobody.
func (s *session) handed(ctx context.Context, i item, epoch int64) error {
	if s.Hands == nil {
		return fmt.Errorf("%w: documents for who takes none", uplink.ErrFrame)
	}
	if err := s.heed(uplink.Console{Epoch: epoch, Active: true}); err != nil {
		return err
	}
	if err := s.rise(ctx, epoch); err != nil {
		return err
	}
	return s.desk.push(i)
}
