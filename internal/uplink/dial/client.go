package dial

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/uplink/beacon"
	"davit.dev/davit/internal/uplink/outbox"
)

// Keeper keeps the link, so that the next agent goes on with it.
type Keeper interface {
	Load(ctx context.Context) (Link, error)
	// Save keeps it, unless another has changed it since it was loaded.
	Save(ctx context.Context, l Link) error
}

// Status is how well the console is reached.
type Status struct {
	URL       string
	Connected bool
	Since     time.Time // of Connected
	Ends      time.Time // the certificate
	Waiting   int       // events
	Lost      int64
	Fault     string // why it is not connected
}

// Client says what is to be said to the console of one project.
type Client struct {
	Site    string
	Version string
	Keep    Keeper
	Board   *Board
	Outbox  *outbox.Outbox
	// Left are outboxes of agents that are gone, which nobody else says. What is in them is
	// said before what is in Outbox, each in a stream of its own.
	Left []*outbox.Outbox
	// Hands do what documents ask for; nil: none are taken.
	Hands Hands
	// Vault says which console is the active one; nil: none is asked.
	Vault Vault
	// Begins make the Runs that the console asks for; nil: none are made.
	Begins Begins
	// Restores restore what the console asks for; nil: nothing is.
	Restores Restores
	// Tell is told how it stands, when that changes and now and then.
	Tell func(Status)
	Now  func() time.Time
	// Pause waits between two attempts; nil: as Pause does.
	Pause func(ctx context.Context, attempt int)

	route route
	// foreign are the authorities that the console trusts, if they are not those of the
	// link: a new certificate is asked for, once.
	foreign []string
	asked   []string
	desk    desk
	orders  orders
	call    func(ctx context.Context, l Link, base string) (welcomed bool, err error)
}

// Vault is asked when the console does not answer, or is not the active one.
type Vault interface {
	// Active returns what the project's vault says, signed by one of the link's
	// authorities, of the link's console and of no lower epoch.
	Active(ctx context.Context, l Link) (beacon.Record, error)
}

// Run goes on until the context ends.
func (c *Client) Run(ctx context.Context) {
	pause := c.Pause
	if pause == nil {
		pause = Pause
	}
	c.desk.ready()
	if c.Hands != nil {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			c.work(ctx)
		}()
		defer func() { <-ended }()
	}
	c.orders.ready()
	if c.Begins != nil {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			c.begin(ctx)
		}()
		defer func() { <-ended }()
	}
	if c.call == nil {
		c.call = c.visit
	}
	for {
		err := c.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errSaid) {
			continue
		}
		if err == nil {
			err = errors.New("the console ended the stream")
		}
		if fault := c.route.fault; fault != nil {
			err = fmt.Errorf("%w; the vault was asked: %w", err, fault)
		}
		s := c.status()
		s.Fault = err.Error()
		c.Tell(s)
		pause(ctx, c.route.wait())
		if ctx.Err() != nil {
			return
		}
	}
}

func (c *Client) status() Status {
	s := Status{Waiting: c.Outbox.Len(), Lost: c.Outbox.Lost()}
	for _, b := range c.Left {
		s.Waiting, s.Lost = s.Waiting+b.Len(), s.Lost+b.Lost()
	}
	return s
}

// box is the one whose events are to be said first.
func (c *Client) box() *outbox.Outbox {
	for _, b := range c.Left {
		if b.Len() > 0 {
			return b
		}
	}
	return c.Outbox
}

// session is one attempt, and the stream if that comes to be.
func (c *Client) session(ctx context.Context) error {
	link, err := c.Keep.Load(ctx)
	if err != nil {
		c.route.left = nil
		c.route.rounds++
		return err
	}
	base := c.next(ctx, link)
	welcomed, err := c.call(ctx, link, base)
	c.route.called(base, link.URLs, welcomed, errors.Is(err, errSilent) || errors.Is(err, ErrStale))
	return err
}

// visit calls one console, and speaks to it.
func (c *Client) visit(ctx context.Context, link Link, base string) (welcomed bool, err error) {
	if link, err = c.ready(ctx, link, base); err != nil {
		return false, err
	}
	w, err := link.open(base, c.route.turn, c.Now)
	if err != nil {
		return false, err
	}
	defer w.close()
	cert, err := link.leaf()
	if err != nil {
		return false, err
	}
	c.desk.forget(link.Documents)
	c.orders.forget(link.Runs)
	s := &session{Client: c, link: link, wire: w, cert: cert, box: c.box(), saidOf: map[uplink.Key]spoken{}}
	return s.stream(ctx)
}

// ready has the link be one that may be used: enrolled, and with a certificate
// that has two thirds of its life before it.
func (c *Client) ready(ctx context.Context, l Link, base string) (Link, error) {
	cert, err := l.leaf()
	if err != nil {
		return l, err
	}
	if cert == nil || l.Token != "" {
		return c.enrol(ctx, l, base)
	}
	now := c.Now()
	if now.After(cert.NotAfter) {
		return l, fmt.Errorf("the certificate for the console ended at %s: %w", cert.NotAfter.UTC().Format(time.RFC3339), ErrEnrol)
	}
	if now.Sub(cert.NotBefore) < cert.NotAfter.Sub(cert.NotBefore)/3 && c.foreign == nil {
		return l, nil
	}
	fresh, err := c.renewed(ctx, l, base)
	if err == nil {
		c.foreign = nil
	}
	if errors.Is(err, ErrRefused) {
		return l, err
	}
	if err != nil { // the old one serves a while yet
		return l, nil //nolint:nilerr // the stream says what is wrong with the console
	}
	return fresh, nil
}

func (c *Client) enrol(ctx context.Context, l Link, base string) (Link, error) {
	if l.Token == "" {
		return l, ErrEnrol
	}
	fresh := Link{URLs: l.URLs, Token: l.Token, Key: l.Key, Documents: l.Documents, Runs: l.Runs, Restores: l.Restores}
	if len(l.Key) == 0 || len(l.Certificate) > 0 { // a new way in has a new key
		var err error
		if fresh.Key, err = newKey(); err != nil {
			return l, err
		}
		if err := c.Keep.Save(ctx, fresh); err != nil { // before anyone is asked
			return l, err
		}
	}
	w, err := fresh.open(base, c.route.turn, c.Now)
	if err != nil {
		return l, err
	}
	defer w.close()
	enrolled, err := fresh.enrol(ctx, w, c.Site, c.Version)
	if err == nil {
		err = c.lasts(enrolled)
	}
	if err != nil {
		return l, err
	}
	return enrolled, c.Keep.Save(ctx, enrolled)
}

func (c *Client) renewed(ctx context.Context, l Link, base string) (Link, error) {
	w, err := l.open(base, c.route.turn, c.Now)
	if err != nil {
		return l, err
	}
	defer w.close()
	fresh, err := l.renew(ctx, w, c.Version)
	if err == nil {
		err = c.lasts(fresh)
	}
	if err != nil {
		return l, err
	}
	return fresh, c.Keep.Save(ctx, fresh)
}

// lasts says whether a certificate that was given is over already, as of a console whose
// clock is far behind: in its place the former, or the token, serves until that is right.
func (c *Client) lasts(l Link) error {
	cert, err := l.leaf()
	if err == nil && c.Now().After(cert.NotAfter) {
		err = fmt.Errorf("the console gave a certificate that ended at %s: its clock is wrong, or this site's", cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return err
}

// Board is what there is to say of a cluster now. It is safe for use by several
// goroutines.
type Board struct {
	mu      sync.Mutex
	objects []uplink.Object
	set     bool
	changed chan struct{}
}

// NewBoard returns a board on which nothing was put yet.
func NewBoard() *Board { return &Board{changed: make(chan struct{})} }

// Put says what there is now. It does not wait.
func (b *Board) Put(objects []uplink.Object) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.objects, b.set = objects, true
	close(b.changed)
	b.changed = make(chan struct{})
}

// look returns what there is, and what is closed when it changes.
func (b *Board) look() (objects []uplink.Object, set bool, changed <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.objects, b.set, b.changed
}
