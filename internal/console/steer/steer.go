// Package steer takes what people at a console want of a run to whoever carries it:
// it leaves requests in the project's vault, as `davit runs` does, and tells what became
// of them. It carries nothing, and asks no site.
package steer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/begin"
	"davit.dev/davit/internal/console/entry"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/mailbox"
	"davit.dev/davit/internal/settlement"
	"davit.dev/davit/internal/vault"
)

// ErrSilent says that the vault gave no answer: nobody knows whether what was wanted
// reached the run. The same again is safe.
var ErrSilent = errors.New("the vault does not answer: ask again, nothing is done twice")

// errSettled says that people have settled before what somebody wants to settle: nothing is
// asked, and the run tells who did.
var errSettled = errors.New("it is settled already")

// maxNote bounds what people write.
const maxNote = 1000

// limit is how long the vault may take, shown how many requests a page tells of,
// and look how often it is looked for an answer.
const (
	limit = 20 * time.Second
	shown = 5
	look  = 200 * time.Millisecond
)

// Desk is where requests are left.
type Desk struct {
	Door *entry.Door
	// Open opens a project's vault.
	Open func(ctx context.Context, p *store.Project) (*vault.Project, error)
	// Patience is how long an answer is waited for before it is said that there is
	// none yet.
	Patience time.Duration

	mu     sync.Mutex
	runs   map[string]*turn
	spoken []spoken
}

// turn keeps what is asked of one run at once apart.
type turn struct {
	free    chan struct{}
	waiting int
}

// Want is what somebody wants of a run.
type Want struct {
	// ID is the asker's own name for it: the same again is not asked twice.
	ID   string             `json:"id"`
	Kind failover.EventKind `json:"kind"`
	Step string             `json:"step,omitempty"`
	Site string             `json:"site,omitempty"`
	// Typed is the name of the site that a consent is about, or of the target if what
	// clients wrote there is to be lost.
	Typed  string `json:"typed,omitempty"`
	Note   string `json:"note,omitempty"`
	Failed bool   `json:"failed,omitempty"` // of an answer: it could not be done
}

// Asked is a request, and what became of it.
type Asked struct {
	Number int64              `json:"number"`
	Kind   failover.EventKind `json:"kind"`
	Step   string             `json:"step,omitempty"`
	Site   string             `json:"site,omitempty"`
	By     string             `json:"by"`
	At     time.Time          `json:"at"`
	// Answered says that it is known: the run does it, or Refused says why not.
	Answered bool   `json:"answered"`
	Refused  string `json:"refused,omitempty"`
}

// Standing is a run as its journal has it now.
type Standing struct {
	State *failover.State
	// Offers are what whoever looks may want of it.
	Offers []failover.Offer
	// Asked are the newest requests, the newest first.
	Asked []Asked
	// Said is what its steps said, for those who [Desk.MayHear].
	Said []journal.Words
}

// groups are those of a role: a cluster is asked about those of all consoles, and
// plans name those of their project's.
func groups(role account.Role, project string) (all []string) {
	for _, r := range account.Roles() {
		if r != account.Viewer && len(r.Permissions()) <= len(role.Permissions()) {
			all = append(all, string(r)+"@console/"+project, v1alpha1.ConsoleGroup+string(r))
		}
	}
	return all
}

// groups of somebody. A robot has the rights of its scope, and no role.
func (d *Desk) groups(ctx context.Context, who entry.Who, p *store.Project) ([]string, error) {
	if who.Token != nil {
		return []string{v1alpha1.ConsoleGroup + string(account.Recoverer)}, nil
	}
	role, err := d.Door.Role(ctx, who, p)
	return groups(role, p.Name), err
}

// may says whether somebody may want something of a run: it takes what beginning it
// takes, and to approve is never an operator's.
func (d *Desk) may(ctx context.Context, who entry.Who, p *store.Project, s *failover.State, o failover.Offer) error {
	need := begin.Need(who, s.Spec.Verb)
	if o.Approves {
		need = account.Recover
	}
	return d.Door.May(ctx, who, p, need)
}

// silent is the error of a vault that gives no answer.
func silent(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, vault.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return fmt.Errorf("%w (%w)", ErrSilent, err)
	}
	return err
}

// at is a run in its vault.
type at struct {
	project *vault.Project
	box     mailbox.Box
	state   *failover.State
	said    []journal.Words
}

func (d *Desk) open(ctx context.Context, p *store.Project, run string) (*at, error) {
	if vault.CheckName(run) != nil {
		return nil, fmt.Errorf("find run: %w", store.ErrNotFound)
	}
	in, err := d.Open(ctx, p)
	if err != nil {
		return nil, silent(ctx, err)
	}
	said, s, err := journal.Said(ctx, in, run)
	if errors.Is(err, vault.ErrNotFound) {
		return nil, fmt.Errorf("find run %s: %w", run, store.ErrNotFound)
	}
	if err != nil {
		return nil, silent(ctx, err)
	}
	return &at{in, mailbox.New(in), s, said}, nil
}

// Look shows a run, and what whoever looks may want of it now.
func (d *Desk) Look(ctx context.Context, who entry.Who, p *store.Project, run string) (*Standing, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	in, err := d.open(ctx, p, run)
	if err != nil {
		return nil, err
	}
	out := &Standing{State: in.state}
	switch err := d.MayHear(ctx, who, p); {
	case err == nil:
		out.Said = in.said
	case !errors.Is(err, entry.ErrForbidden):
		return nil, err
	}
	for _, o := range in.state.Offers() {
		switch err := d.may(ctx, who, p, in.state, o); {
		case err == nil:
			out.Offers = append(out.Offers, o)
		case !errors.Is(err, entry.ErrForbidden):
			return nil, err
		}
	}
	all, err := in.box.Newest(ctx, run, shown)
	if err != nil {
		return nil, silent(ctx, err)
	}
	for _, a := range all {
		out.Asked = append(out.Asked, in.asked(a))
	}
	return out, nil
}

// asked is a request as people see it. One that a run did not answer before it
// ended came too late.
func (in *at) asked(a mailbox.Asked) Asked {
	out := Asked{Number: a.Number, Kind: a.Kind, Step: a.Step, Site: a.Site, By: a.By, At: a.At.UTC()}
	switch {
	case a.Reply != nil:
		out.Answered, out.Refused = true, a.Reply.Refused
	case a.Kind == failover.Settle: // which is asked of runs that are over
		out.Answered = errors.Is(settles(in.state, Want{Step: a.Step, Note: a.Note}), errSettled)
	case in.state.Phase.Over():
		out.Answered, out.Refused = true, over(in.state)
	}
	return out
}

func over(s *failover.State) string {
	return strings.TrimSuffix(fmt.Sprintf("the run is over: %s: %s", s.Phase, s.Why), ": ")
}

// Request tells what became of a request.
func (d *Desk) Request(ctx context.Context, p *store.Project, run string, n int64) (Asked, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	in, err := d.open(ctx, p, run)
	if err != nil {
		return Asked{}, err
	}
	return in.request(ctx, run, n)
}

func (in *at) request(ctx context.Context, run string, n int64) (Asked, error) {
	a, err := in.box.Get(ctx, run, n)
	if errors.Is(err, vault.ErrNotFound) {
		return Asked{}, fmt.Errorf("find request %d of run %s: %w", n, run, store.ErrNotFound)
	}
	if err != nil {
		return Asked{}, silent(ctx, err)
	}
	return in.asked(*a), nil
}

// Ask leaves a request and waits for its answer, for a while. What cannot be now is
// refused at once; the same again, by its ID, has the answer of the first.
func (d *Desk) Ask(ctx context.Context, who entry.Who, p *store.Project, act audit.Act, run string, w Want) (Asked, error) {
	if err := w.check(); err != nil {
		return Asked{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	done, err := d.turn(ctx, p.ID+"/"+run)
	if err != nil {
		return Asked{}, silent(ctx, err)
	}
	in, n, err := d.leave(ctx, who, p, act, run, w)
	done()
	if errors.Is(err, errSettled) {
		return Asked{Kind: w.Kind, Step: w.Step, By: who.InRuns(p.Name), At: act.At.UTC(), Answered: true}, nil
	}
	if err != nil {
		return Asked{}, err
	}
	return d.wait(ctx, in, run, n)
}

func (w Want) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{store.ErrRefused}, args...)...)
	}
	switch {
	case !entry.ValidID(w.ID, 1):
		return bad("id is 1 to 64 letters, digits, dashes and underscores of your own making, so that nothing is asked twice")
	case len(w.Note) > maxNote || len(w.Step) > maxNote || len(w.Site) > maxNote || len(w.Typed) > maxNote:
		return bad("a text of more than %d bytes", maxNote)
	}
	return nil
}

// turn waits until nobody else asks of the run.
func (d *Desk) turn(ctx context.Context, key string) (done func(), err error) {
	d.mu.Lock()
	if d.runs == nil {
		d.runs = map[string]*turn{}
	}
	t := d.runs[key]
	if t == nil {
		t = &turn{free: make(chan struct{}, 1)}
		d.runs[key] = t
	}
	t.waiting++
	d.mu.Unlock()
	left := func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if t.waiting--; t.waiting == 0 {
			delete(d.runs, key)
		}
	}
	select {
	case t.free <- struct{}{}:
		return func() { <-t.free; left() }, nil
	case <-ctx.Done():
		left()
		return nil, ctx.Err()
	}
}

func (d *Desk) leave(ctx context.Context, who entry.Who, p *store.Project, act audit.Act, run string, w Want) (*at, int64, error) {
	in, err := d.open(ctx, p, run)
	if err != nil {
		return nil, 0, err
	}
	by := who.InRuns(p.Name)
	n, err := in.box.Find(ctx, run, by+" "+w.ID)
	if err != nil || n > 0 {
		return in, n, silent(ctx, err)
	}
	o, err := d.offered(ctx, who, p, in.state, w)
	if err != nil {
		return nil, 0, err
	}
	of, err := d.groups(ctx, who, p)
	if err != nil {
		return nil, 0, err
	}
	// The log is first: nothing is asked that it does not have, and one who is no
	// longer the active console asks nothing.
	detail := strings.TrimSpace(strings.Join([]string{w.Step + w.Site, w.Note}, " "))
	if w.Failed {
		detail = strings.TrimSpace(detail + " (could not be done)")
	}
	err = p.Witness(ctx, act, audit.Record{Action: "run." + strings.ReplaceAll(string(w.Kind), " ", ""), Object: run, Detail: detail})
	if err != nil {
		return nil, 0, err
	}
	r := execute.Request{ID: by + " " + w.ID, Kind: w.Kind, By: by, Groups: of, At: act.At.UTC(), Step: w.Step, Site: w.Site, Text: o.Type, Note: w.Note, Refused: w.Failed}
	n, err = in.box.Put(ctx, run, r)
	if err != nil {
		return nil, 0, silent(ctx, err)
	}
	return in, n, nil
}

// offered refuses what whoever asks may not want, and what the run does not take now.
func (d *Desk) offered(ctx context.Context, who entry.Who, p *store.Project, s *failover.State, w Want) (failover.Offer, error) {
	all := s.Offers()
	i := slices.IndexFunc(all, func(o failover.Offer) bool { return o.Kind == w.Kind && o.Step == w.Step && o.Site == w.Site })
	o := failover.Offer{Kind: w.Kind, Approves: w.Kind == failover.Approve || w.Kind == failover.Reject}
	if i >= 0 {
		o = all[i]
	}
	if err := d.may(ctx, who, p, s, o); err != nil {
		return o, err
	}
	switch {
	case s.Phase.Over() && w.Kind != failover.Settle:
		return o, fmt.Errorf("%w: %s", store.ErrRefused, over(s))
	case w.Kind == failover.Settle:
		return o, settles(s, w)
	case i < 0:
		return o, fmt.Errorf("%w: %s", store.ErrRefused, unoffered(s, all, w))
	case o.Type != w.Typed && o.Type != "":
		return o, fmt.Errorf("%w: type %s to say that you mean it: %s", store.ErrRefused, o.Type, o.About)
	}
	return o, nil
}

// settles says why the run would not take somebody's word of what it left; errSettled: it has one.
func settles(s *failover.State, w Want) error {
	entries, why := settlement.Word{Step: w.Step, Reason: w.Note}.Entries(s, time.Time{})
	switch {
	case why != "":
		return fmt.Errorf("%w: settle: %s", store.ErrRefused, why)
	case len(entries) == 0:
		return errSettled
	}
	return nil
}

func unoffered(s *failover.State, all []failover.Offer, w Want) string {
	var names []string
	for _, o := range all {
		names = append(names, strings.TrimSpace(string(o.Kind)+" "+o.Step+o.Site))
	}
	return fmt.Sprintf("the run is %s and does not take %q; now it takes: %s", s.Shown(), strings.TrimSpace(string(w.Kind)+" "+w.Step+w.Site), strings.Join(names, ", "))
}

// wait looks for the answer for a while.
func (d *Desk) wait(ctx context.Context, in *at, run string, n int64) (Asked, error) {
	patient, cancel := context.WithTimeout(ctx, d.Patience)
	defer cancel()
	for {
		reply, err := in.box.Answer(ctx, run, n)
		if err != nil {
			return Asked{}, silent(ctx, err)
		}
		if reply != nil {
			return in.request(ctx, run, n)
		}
		select {
		case <-patient.Done():
			if ctx.Err() != nil {
				return Asked{}, silent(ctx, ctx.Err())
			}
			return in.request(ctx, run, n)
		case <-time.After(look):
		}
	}
}
