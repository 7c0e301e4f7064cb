package agents

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"davit.dev/davit/internal/console/placement"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/uplink"
)

// window is how many documents may be under way to an agent.
const window = 32

// hands is what one stream has handed over.
type hands struct {
	all bool // the agent holds nothing of what it answered before

	mu       sync.Mutex
	sent     map[store.Key]store.Handed // in this stream
	flight   map[store.Key]bool         // not answered yet
	answered chan struct{}
}

// settleAgain is how long it is waited when what the console holds does not count
// yet, over what the asking took.
const settleAgain = time.Second

// unsettled tells whether what the console holds may come to count later.
func unsettled(ctx context.Context, err error) bool {
	return errors.Is(err, store.ErrUnconfirmed) && !errors.Is(err, store.ErrPassive) && ctx.Err() == nil
}

// settle returns when all that the console holds of the project counts. While its
// vault is silent, the stream goes on without.
func (t *talk) settle(ctx context.Context) error {
	for {
		err := t.project.Settle(ctx)
		if !unsettled(ctx, err) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(settleAgain):
		}
	}
}

// handing hands documents over for as long as the stream goes on.
func (t *talk) handing(ctx context.Context) error {
	// What is here may be older than what the vault holds, until it was taken over.
	if err := t.settle(ctx); err != nil {
		return err
	}
	for {
		changed := t.project.Changed()
		if err := t.hand(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// hand hands over what the site is still to be asked for, once it counts.
func (t *talk) hand(ctx context.Context) error {
	index, err := t.room.placed(ctx)
	if err != nil {
		return err
	}
	handed, err := t.project.Handed(ctx, t.who.Site)
	if err != nil {
		return err
	}
	t.hands.all = t.hands.all || *t.hello.Documents > index.Revision
	tasks := t.hands.fresh(index.Tasks(t.who.Site, handed, t.hands.all))
	t.hands.all = false
	var note []store.Handed
	for _, task := range tasks {
		if !task.Known {
			note = append(note, task.Handed)
		}
	}
	if err := t.project.Hand(ctx, note); err != nil {
		return err
	}
	// What another console may never come to know is no command: neither the
	// documents nor the note of where they are.
	if err := t.settle(ctx); err != nil {
		return err
	}
	for _, task := range tasks {
		if err := t.handOne(ctx, task); err != nil {
			return err
		}
	}
	speaks := t.server.Speaks()
	return t.say(uplink.Down{Held: &uplink.Held{Epoch: speaks.Epoch, Revision: index.Revision}})
}

// fresh leaves out what is under way or was answered in this stream.
func (h *hands) fresh(all []placement.Task) (out []placement.Task) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, task := range all {
		if sent, ok := h.sent[task.Key]; !ok || !sent.Asks(task.Handed) {
			out = append(out, task)
		}
	}
	return out
}

// errNotActive ends a stream of a console that was replaced.
var errNotActive = errors.New("this console is not the active one any more")

func (t *talk) handOne(ctx context.Context, task placement.Task) error {
	if err := t.hands.room(ctx); err != nil {
		return err
	}
	speaks := t.server.Speaks()
	if !speaks.Active {
		return errNotActive
	}
	d := uplink.Document{
		Epoch: speaks.Epoch, Key: uplink.Key(task.Key), UID: task.UID, Revision: task.Revision, Generation: task.Generation, Gone: task.Gone, Body: task.Body,
	}
	t.hands.mu.Lock()
	t.hands.sent[task.Key], t.hands.flight[task.Key] = task.Handed, true
	t.hands.mu.Unlock()
	err := t.say(uplink.Down{Document: &d})
	if !errors.Is(err, uplink.ErrFrame) {
		return err
	}
	t.hands.arrived(task.Handed)
	task.State, task.Why = uplink.Refused, "it is too long to be handed over: make it shorter"
	return t.room.keep(ctx, store.Word{Site: t.who.Site, At: t.server.Now(), Version: t.hello.Version, Ends: t.cert.NotAfter, Told: []store.Handed{task.Handed}})
}

// room waits until fewer documents are under way than may be.
func (h *hands) room(ctx context.Context) error {
	for {
		h.mu.Lock()
		n := len(h.flight)
		h.mu.Unlock()
		if n < window {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-h.answered:
		}
	}
}

// arrived takes an answer.
func (h *hands) arrived(of store.Handed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if sent, ok := h.sent[of.Key]; ok && sent.Asks(of) {
		delete(h.flight, of.Key)
	}
	select {
	case h.answered <- struct{}{}:
	default:
	}
}

// answer takes what an agent says of a document. It is kept if it was asked for that.
func (t *talk) answer(told uplink.Told) error {
	switch told.State {
	case uplink.Applied, uplink.Waiting, uplink.Conflict, uplink.Refused, uplink.Gone:
	default:
		return fmt.Errorf("%w: a document's state cannot be %.32q", uplink.ErrFrame, told.State)
	}
	if told.State == uplink.Gone && !told.Gone {
		return fmt.Errorf("%w: a document is gone that was to be there", uplink.ErrFrame)
	}
	h := store.Handed{Site: t.who.Site, Key: store.Key(told.Key), UID: told.UID, Revision: told.Revision, Gone: told.Gone, State: told.State, Why: clip(told.Why)}
	t.told = append(t.told, h)
	return nil
}

// placed is which document is for which site, read again when one has changed.
func (r *room) placed(ctx context.Context) (*placement.Index, error) {
	revision, err := r.project.Revision(ctx)
	if err != nil {
		return nil, err
	}
	r.reading.Lock()
	defer r.reading.Unlock()
	if r.index != nil && r.index.Revision >= revision {
		return r.index, nil
	}
	index, err := placement.Read(ctx, r.project)
	if err == nil {
		r.index = index
	}
	return index, err
}

// Standings say how a project's documents stand at its sites.
func (s *Server) Standings(ctx context.Context, p *store.Project) ([]placement.Standing, error) {
	docs, revision, err := p.Documents(ctx, "", "")
	if err != nil {
		return nil, err
	}
	handed, err := p.Handed(ctx, "")
	if err != nil {
		return nil, err
	}
	silent := map[string]string{}
	for _, a := range s.Known(p) {
		switch {
		case !a.Connected && a.Seen.IsZero():
			silent[a.Site] = "its agent was let in, and never came"
		case !a.Connected:
			silent[a.Site] = "its agent is not connected; its last word was at " + a.Seen.UTC().Format(time.RFC3339)
		case !a.Takes:
			silent[a.Site] = "its agent is too old to take documents: upgrade Davit there"
		default:
			silent[a.Site] = ""
		}
	}
	return placement.New(docs, revision).Standings(docs, handed, func(site string) string {
		why, ok := silent[site]
		if !ok {
			return "no agent of that site is enrolled: `davit console enrol " + site + "`"
		}
		return why
	}), nil
}
