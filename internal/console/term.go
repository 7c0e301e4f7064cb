package console

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/console/journal"
	"davit.dev/davit/internal/console/lead"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/uplink/beacon"
	"davit.dev/davit/internal/vault"
)

// term is an epoch of this process: the journals of all databases go on in it.
type term struct {
	journal.Term
	duty    *duty
	own     *journal.Sender
	ctx     context.Context //nolint:containedctx // senders begin when their databases are opened
	stop    func()
	running sync.WaitGroup
	// ready is closed when all databases were taken over, or long enough was tried.
	ready chan struct{}

	mu      sync.Mutex
	senders map[string]*journal.Sender
	stops   map[string]func() // of those, and of what goes on beside them
}

func newTerm(d *duty, epoch int64) *term {
	t := &term{Term: journal.Term{Epoch: epoch, Holder: d.member.Holder, Now: d.Now}, duty: d, ready: make(chan struct{}), senders: map[string]*journal.Sender{}, stops: map[string]func(){}}
	t.ctx, t.stop = context.WithCancel(d.base)
	t.own = t.sender(nil)
	t.running.Go(func() { t.begin() })
	return t
}

// begin takes the projects over once the console's own database is: only that
// says which there are. One that cannot be opened keeps no other from it, and is
// tried again until it can.
func (t *term) begin() {
	select {
	case <-t.own.Taken():
	case <-t.ctx.Done():
		return
	}
	t.duty.console.Guards(func(p *store.Project) store.Guard { return t.sender(p) })
	all, err := t.duty.console.Projects(t.ctx)
	if err != nil && t.ctx.Err() == nil {
		t.duty.Log.Error("no project can be taken over", "err", err)
	}
	limited, cancel := context.WithTimeout(t.ctx, projectsLimit)
	defer cancel()
	var tried []<-chan struct{}
	for _, l := range all {
		first := make(chan struct{})
		tried = append(tried, first)
		t.running.Go(func() { t.open(l, sync.OnceFunc(func() { close(first) })) })
	}
	await(limited, tried)
	t.await(limited)
	close(t.ready)
}

// await returns when all of some things have happened, or the context ends.
func await(ctx context.Context, all []<-chan struct{}) {
	for _, one := range all {
		select {
		case <-one:
		case <-ctx.Done():
			return
		}
	}
}

// open opens a project, which its sender takes over then. tried is called after
// each try.
func (t *term) open(l store.Listing, tried func()) {
	for pause := sayFirst; ; pause = min(2*pause, sayMost) {
		ctx, cancel := context.WithTimeout(t.ctx, followLimit)
		_, err := t.duty.shelves.project(ctx, l)
		cancel()
		tried()
		if err == nil || t.ctx.Err() != nil || t.removed(l) {
			return
		}
		if pause == sayFirst || pause == sayMost {
			t.duty.Log.Error("a project cannot be taken over: the others go on", "project", l.Name, "err", err)
		}
		select {
		case <-t.ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// removed tells whether a project is none of the console's any more.
func (t *term) removed(l store.Listing) bool {
	all, err := t.duty.console.Projects(t.ctx)
	return err == nil && !slices.ContainsFunc(all, func(one store.Listing) bool { return one.ID == l.ID })
}

// projectsLimit is how long a console that takes over waits for projects whose
// vaults do not answer: they are taken over when they do.
const projectsLimit = 10 * time.Second

// await returns when each database was tried to be taken over.
func (t *term) await(ctx context.Context) {
	t.mu.Lock()
	var all []<-chan struct{}
	for _, s := range t.senders {
		all = append(all, s.Tried())
	}
	t.mu.Unlock()
	await(ctx, all)
}

// sender returns that of a project, or with nil of the console's own database.
func (t *term) sender(p *store.Project) *journal.Sender {
	t.mu.Lock()
	defer t.mu.Unlock()
	id, db := "", store.Journaled(t.duty.console)
	if p != nil {
		id, db = p.ID, p
	}
	if s := t.senders[id]; s != nil {
		return s
	}
	d := t.duty
	s := &journal.Sender{
		Term: t.Term, DB: db, Confirm: t.confirm, Allowed: d.allowed, Dir: d.Dir, Log: d.Log,
		Open: func(ctx context.Context, again bool) (journal.Book, error) { return d.shelves.book(ctx, p, again) },
	}
	if p != nil {
		s.Log = d.Log.With("project", p.Name)
	}
	if t.ctx.Err() != nil { // it has ended
		return s
	}
	t.senders[id] = s
	ctx, stop := context.WithCancel(t.ctx)
	t.stops[id] = stop
	t.running.Go(func() { s.Run(ctx) })
	if p != nil {
		t.running.Go(func() { t.announce(ctx, p, s) })
	}
	return s
}

// leave ends what goes on for a project that was removed.
func (t *term) leave(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if stop := t.stops[id]; stop != nil {
		stop()
	}
	delete(t.senders, id)
	delete(t.stops, id)
}

// How long it takes until it is said again in a vault who is active, and how long
// the vault may take.
const (
	sayFirst = time.Second
	sayMost  = time.Minute
	sayLimit = 30 * time.Second
)

// announce says in a project's vault that this process is the active console, for
// agents that do not find it. It goes on until that is there.
func (t *term) announce(ctx context.Context, p *store.Project, s *journal.Sender) {
	select {
	case <-s.Taken():
	case <-ctx.Done():
		return
	}
	var said []authority.Listing
	for ctx.Err() == nil {
		insist(ctx, s.Log, func() (err error) {
			said, err = t.say(ctx, p)
			return err
		})
		for ctx.Err() == nil && !t.rotated(ctx, p, said) {
			select {
			case <-ctx.Done():
			case <-time.After(t.duty.Every):
			}
		}
	}
}

// rotated tells whether a project's authorities are others than those. While its vault
// does not say, they are not.
func (t *term) rotated(ctx context.Context, p *store.Project, said []authority.Listing) bool {
	ctx, cancel := context.WithTimeout(ctx, sayLimit)
	defer cancel()
	b, err := t.duty.shelves.book(ctx, p, false)
	if err != nil {
		return false
	}
	now, err := authority.List(ctx, b.Project)
	return err == nil && !slices.Equal(now, said)
}

// insist has something said until it is, and warns at first and then each minute.
func insist(ctx context.Context, log *slog.Logger, say func() error) {
	for pause := sayFirst; ; pause = min(2*pause, sayMost) {
		err := say()
		if err == nil || ctx.Err() != nil {
			return
		}
		if pause == sayFirst || pause == sayMost {
			log.Warn("agents cannot read in the vault who is the active console", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// say takes up the authorities that a project has in its vault, and says there who is
// active. It returns which authorities those are.
func (t *term) say(ctx context.Context, p *store.Project) ([]authority.Listing, error) {
	ctx, cancel := context.WithTimeout(ctx, sayLimit)
	defer cancel()
	b, err := t.duty.shelves.book(ctx, p, false)
	if err != nil {
		return nil, err
	}
	listed, err := authority.List(ctx, b.Project)
	if err != nil {
		return nil, err
	}
	// Read after the list: what comes meanwhile is seen at the next look. What was
	// read before would be passed off as what is listed, and a retirement never be seen.
	if b, err = t.duty.shelves.book(ctx, p, true); err != nil {
		return nil, err
	}
	// The console's own database is in the vault of one of the projects: nothing may go
	// on to be written there by an authority that is about to be retired.
	if _, err = t.duty.shelves.book(ctx, nil, true); err != nil {
		return nil, err
	}
	trusted, err := t.adopt(ctx, p, b.Authority)
	if err != nil {
		return nil, err
	}
	var others []*x509.Certificate
	for _, a := range append(slices.Clone(b.Authority.Former), b.Authority) {
		others = append(others, a.Certificate)
	}
	by := trusted[len(trusted)-1] // agents may know that one alone
	r := beacon.Record{Console: b.Console, Project: p.Name, Epoch: t.Epoch, URL: t.duty.URL, At: t.duty.Now().UTC().Truncate(time.Second)}
	return listed, beacon.Put(ctx, b.Project, r, by, by.Certificate, others...)
}

// adopt has a project's authorities be those of its vault, of which it returns those that
// are trusted, the newest first. Each of its steps can be the last one: the next term goes
// on from there.
func (t *term) adopt(ctx context.Context, p *store.Project, vaults *authority.Authority) ([]*authority.Authority, error) {
	known, err := authorities(ctx, p)
	if err != nil {
		return nil, err
	}
	trusted, err := following(known, vaults)
	if err != nil {
		return nil, fmt.Errorf("take up the authorities of %s: %w", p.Name, err)
	}
	if known[0].Number > trusted[0].Number {
		return trusted, nil
	}
	same := func(a, b *authority.Authority) bool { return a.Number == b.Number }
	act := audit.Act{By: "console", At: t.duty.Now()}
	if !slices.EqualFunc(known, trusted, same) {
		if err := p.KeepSecret(ctx, act, formerSecret, trusted[1:]); err != nil {
			return nil, err
		}
		if err := p.KeepSecret(ctx, act, authority.Secret, trusted[0]); err != nil {
			return nil, err
		}
	}
	t.duty.now.Load().agents.Refresh(p)
	return trusted, nil
}

// following are the authorities to trust of those that a vault has, where others are known
// already. Whoever can write to the vault or delete there, as sites can, neither has a
// line of his own be taken up, nor one be trusted again that was retired.
func following(known []*authority.Authority, vaults *authority.Authority) ([]*authority.Authority, error) {
	trusted := vaults.Trusted()
	if known[0].Number > trusted[0].Number { // an older vault: agents know the newer one
		return trusted, nil
	}
	if known[0].Number < trusted[0].Number && !vaults.Follows(known[0]) {
		return nil, fmt.Errorf("%w: the vault's authority %d is not the one that this console knows", authority.ErrForged, known[0].Number)
	}
	oldest := known[len(known)-1].Number
	return slices.DeleteFunc(trusted, func(a *authority.Authority) bool { return a.Number < oldest }), nil
}

// confirm says that this term goes on.
func (t *term) confirm(ctx context.Context) error { return t.duty.member.ConfirmIn(ctx, t.Epoch) }

// behind is how many changes are not known to be in the vault.
func (t *term) behind(ctx context.Context) (n float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.senders {
		if waiting, err := s.Behind(ctx); err == nil {
			n += float64(waiting)
		}
	}
	return n
}

// lastLimit is how long what waits may take to be sent when a term ends.
const lastLimit = 3 * time.Second

// end sends what waits, if it still may, and ends the term.
func (t *term) end() {
	t.mu.Lock()
	t.stop()
	t.mu.Unlock()
	t.running.Wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), lastLimit)
	defer cancel()
	if t.duty.status().Role != lead.Active {
		return
	}
	for _, s := range t.senders {
		s.Round(ctx)
	}
}

// ledger is where the home's vault says who is active. It is opened when it is
// asked, and again after it has failed.
type ledger struct{ *shelves }

var _ lead.Ledger = ledger{}

func inVault[T any](ctx context.Context, l ledger, do func(lead.InVault) (T, error)) (T, error) {
	var out T
	b, err := l.book(ctx, nil, false)
	if err != nil {
		return out, err
	}
	out, err = do(lead.InVault{Project: b.Project, Authority: b.Authority, Console: b.Console})
	if errors.Is(err, authority.ErrUnread) { // the other console has taken up a newer one
		if b, err = l.book(ctx, nil, true); err != nil {
			return out, err
		}
		out, err = do(lead.InVault{Project: b.Project, Authority: b.Authority, Console: b.Console})
	}
	if err != nil && !errors.Is(err, vault.ErrNotFound) && !errors.Is(err, vault.ErrExists) {
		l.forget()
	}
	return out, err
}

func (s *shelves) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, "")
}

// Newest implements lead.Ledger.
func (l ledger) Newest(ctx context.Context) (lead.Claim, error) {
	return inVault(ctx, l, func(v lead.InVault) (lead.Claim, error) { return v.Newest(ctx) })
}

// Claim implements lead.Ledger.
func (l ledger) Claim(ctx context.Context, c lead.Claim) error {
	_, err := inVault(ctx, l, func(v lead.InVault) (struct{}, error) { return struct{}{}, v.Claim(ctx, c) })
	return err
}

// Beat implements lead.Ledger.
func (l ledger) Beat(ctx context.Context, b lead.Beat) error {
	_, err := inVault(ctx, l, func(v lead.InVault) (struct{}, error) { return struct{}{}, v.Beat(ctx, b) })
	return err
}

// ReadBeat implements lead.Ledger.
func (l ledger) ReadBeat(ctx context.Context, epoch int64) (lead.Beat, error) {
	return inVault(ctx, l, func(v lead.InVault) (lead.Beat, error) { return v.ReadBeat(ctx, epoch) })
}
