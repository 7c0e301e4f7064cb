package agents

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/placement"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/uplink"
)

// room is where the agents of one project are.
type room struct {
	project *store.Project
	words   chan word
	// ctx ends when the console does, or its project is let go of.
	ctx     context.Context //nolint:containedctx // streams come and go meanwhile
	close   context.CancelFunc
	writing sync.Once

	reading sync.Mutex
	index   *placement.Index // of documents, as they were last read

	mu     sync.Mutex
	agents map[string]*present // by site
	sites  []string            // of agents, in order; nil: they are others since
}

// present is one site's agent: what it said last, also while it is away.
type present struct {
	seen    time.Time
	version string
	takes   bool // documents
	runs    string
	// restores is what the site lets the console restore.
	restores string
	cancels  bool
	ends     time.Time
	since    time.Time // of the stream; zero: it is not connected
	talk     *talk
	end      func()
	objects  heard
	// specs are what those objects say that the console did not make. It is never changed:
	// another one takes its place.
	specs map[uplink.Key]json.RawMessage
}

// word is something to be kept, and where to say that it is.
type word struct {
	store.Word
	done chan error
}

// room returns a project's, made when its first agent comes or someone looks.
func (s *Server) room(p *store.Project) *room {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.rooms[p.ID]; r != nil {
		return r
	}
	r := &room{project: p, words: make(chan word), agents: map[string]*present{}}
	r.ctx, r.close = context.WithCancel(s.ctx)
	r.remember(s)
	s.rooms[p.ID] = r
	return r
}

// remember takes up what agents said before the console was started.
func (r *room) remember(s *Server) {
	all, err := r.project.Agents(s.ctx)
	if err != nil {
		s.Log.Warn("what agents said before is not known", "project", r.project.Name, "err", err)
	}
	kept, err := r.project.KeptUnder(s.ctx, specsOf)
	if err != nil {
		s.Log.Warn("what objects at sites said before is not known", "project", r.project.Name, "err", err)
	}
	for _, a := range all {
		p := &present{seen: a.Seen, version: a.Version, ends: a.Ends}
		var objects []fleet.Heard
		if len(a.Said) > 0 && json.Unmarshal(a.Said, &objects) == nil {
			p.objects.replace(objects)
		}
		if p.specs, err = specs(kept[a.Site]); err != nil {
			s.Log.Warn("what objects at a site said before is not known", "project", r.project.Name, "site", a.Site, "err", err)
		}
		r.agents[a.Site] = p
	}
}

// most is how many words are kept in one transaction.
const most = 500

// write keeps what agents say, as much as there is at once: a disk takes many
// words in the time of one.
func (r *room) write(ctx context.Context) {
	for {
		var all []word
		select {
		case w := <-r.words:
			all = append(all, w)
		case <-ctx.Done():
			return
		}
	more:
		for len(all) < most {
			select {
			case w := <-r.words:
				all = append(all, w)
			default:
				break more
			}
		}
		words := make([]store.Word, 0, len(all))
		for _, w := range all {
			words = append(words, w.Word)
		}
		err := r.project.HearAgents(ctx, words)
		for _, w := range all {
			w.done <- err
		}
	}
}

// errLeft ends a stream whose project was let go of.
var errLeft = errors.New("its project is served no more")

// keep returns when the word is on the disk.
func (r *room) keep(ctx context.Context, w store.Word) error {
	done := make(chan error, 1)
	select {
	case r.words <- word{w, done}:
	case <-r.ctx.Done():
		return errLeft
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// enter lets a stream in. A site has one: the one before is ended.
func (r *room) enter(t *talk, end func()) (leave func(), err error) {
	now := t.server.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil { // nobody would end the stream
		return nil, fmt.Errorf("%w: %w", store.ErrPassive, errLeft)
	}
	r.writing.Do(func() { t.server.running.Go(func() { r.write(r.ctx) }) })
	p := r.agents[t.who.Site]
	if p == nil {
		p = &present{}
		r.agents[t.who.Site], r.sites = p, nil
	}
	if p.end != nil {
		p.end()
	}
	p.since, p.seen, p.version, p.ends, p.talk, p.end = now, now, t.hello.Version, t.cert.NotAfter, t, end
	p.takes, p.runs, p.restores, p.cancels = t.hello.Documents != nil, t.hello.Runs, t.hello.Restores, t.hello.Cancels
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if p.talk == t {
			p.since, p.talk, p.end = time.Time{}, nil, nil
		}
	}, nil
}

// forget takes a site out whose stream should not have been let in, unless another
// one has come meanwhile.
func (r *room) forget(t *talk) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.of(t); err == nil {
		delete(r.agents, t.who.Site)
		r.sites = nil
	}
}

// errReplaced ends a stream whose site has another one, or was shut out: what it
// still has to say is old.
var errReplaced = errors.New("the site has another stream")

// of is what is known of a stream's site. r.mu is held.
func (r *room) of(t *talk) (*present, error) {
	if p := r.agents[t.who.Site]; p != nil && p.talk == t {
		return p, nil
	}
	return nil, errReplaced
}

func (r *room) seen(t *talk, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, err := r.of(t)
	if err != nil {
		return err
	}
	p.seen = now
	return nil
}

func (r *room) replace(t *talk, objects map[uplink.Key]uplink.Object, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, err := r.of(t)
	if err != nil {
		return err
	}
	all, says := make([]fleet.Heard, 0, len(objects)), map[uplink.Key]json.RawMessage{}
	for _, o := range objects {
		all = append(all, hears(o, says, now))
	}
	p.objects.replace(all)
	return p.mirror(t, says)
}

// hears is what was said of an object, and keeps apart from it what the object says.
func hears(o uplink.Object, says map[uplink.Key]json.RawMessage, now time.Time) fleet.Heard {
	delete(says, o.Key)
	if len(o.Spec) > 0 {
		says[o.Key] = o.Spec
	}
	o.Spec = nil
	return fleet.Heard{Object: o, Heard: now.UTC()}
}

func (r *room) update(t *talk, s uplink.State, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, err := r.of(t)
	if err != nil {
		return err
	}
	says := make(map[uplink.Key]json.RawMessage, len(p.specs))
	maps.Copy(says, p.specs)
	for _, k := range s.Gone {
		p.objects.drop(k)
		delete(says, k)
	}
	for _, o := range s.Objects {
		p.objects.put(hears(o, says, now))
	}
	if len(p.objects.all) > maxObjects {
		return fmt.Errorf("%w: more than %d objects", uplink.ErrFrame, maxObjects)
	}
	return p.mirror(t, says)
}

// said is a site's state, to be kept.
func (r *room) said(site string) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.agents[site]
	if p == nil {
		return nil
	}
	data, err := json.Marshal(p.objects.all)
	if err != nil { // texts and numbers only
		return nil
	}
	return data
}

// hangUp ends all streams.
func (r *room) hangUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.agents {
		if p.end != nil {
			p.end()
		}
	}
}

// Known is what the agents of a project say now, by site.
func (s *Server) Known(p *store.Project) []fleet.Agent {
	r := s.room(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sites == nil {
		r.sites = slices.Sorted(maps.Keys(r.agents))
	}
	all := make([]fleet.Agent, 0, len(r.agents))
	for _, site := range r.sites {
		a := r.agents[site]
		all = append(all, fleet.Agent{
			Site: site, Connected: a.talk != nil, Since: a.since.UTC(), Seen: a.seen.UTC(), Version: a.version, Takes: a.takes, Runs: a.runs, Restores: a.restores, Cancels: a.cancels, Ends: a.ends.UTC(), Objects: a.objects.lend(), Specs: a.specs,
		})
	}
	return all
}

// Foreign are the objects of a name that others than the project's console made, by site: what
// is known of all the others, which may be many, is not gone through.
func (s *Server) Foreign(p *store.Project, k uplink.Key) (all []fleet.Mirrored) {
	r := s.room(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	for site, a := range r.agents {
		if o, there := a.objects.of(k); there && o.Foreign {
			all = append(all, fleet.Mirrored{Site: site, Heard: o, Spec: a.specs[k]})
		}
	}
	slices.SortFunc(all, func(a, b fleet.Mirrored) int { return cmp.Compare(a.Site, b.Site) })
	return all
}

// Remove ends a site's stream after its agent was shut out.
func (s *Server) Remove(p *store.Project, site string) {
	r := s.room(p)
	r.mu.Lock()
	if a := r.agents[site]; a != nil {
		if a.end != nil {
			a.end()
		}
		delete(r.agents, site)
		r.sites = nil
	}
	r.mu.Unlock() // the disk takes its time, and the other agents go on
	if err := p.Keep(s.ctx, s.Now(), map[string][]byte{specsOf + site: nil}); err != nil && s.ctx.Err() == nil {
		s.Log.Warn("what objects at a site said is still kept", "project", p.Name, "site", site, "err", err)
	}
}
