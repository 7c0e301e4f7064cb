package promotion

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
)

// tries bounds how often a race with another site is looked at anew.
const tries = 20

// Promoter promotes one copy, as one site. It is for one goroutine.
type Promoter struct {
	store   vault.Store
	project *vault.Project // over the store itself, which it may write to
	self    lease.Identity
	holder  string
	now     func() time.Time
	margin  int64

	// Lost is asked right before the copy becomes the vault, after all that takes
	// long: an error leaves it a copy. Nil: nobody is asked.
	Lost func(context.Context) error
}

// New makes a Promoter. The store is the copy's; the project was opened in it.
// holder says who acts, for people.
func New(store vault.Store, project *vault.Project, self lease.Identity, holder string, now func() time.Time) *Promoter {
	over := project.Over(func(vault.Store) vault.Store { return store })
	return &Promoter{store: store, project: over, self: self, holder: holder, now: now, margin: Margin}
}

// State is how far a copy is on its way to be the vault.
type State struct {
	Of     string // the vault that it is or was a copy of
	Record Record // of its promotion, if Begun
	Begun  bool
	Done   bool // it is the vault
}

// Look tells how far a store is. vault.ErrNotFound says that it is no vault,
// ErrOther that it is one and was never a copy.
func Look(ctx context.Context, store vault.Store) (State, error) {
	marker, copied, err := vault.Identify(ctx, store)
	if err != nil {
		return State{}, err
	}
	record, err := Read(ctx, store)
	switch {
	case errors.Is(err, vault.ErrNotFound) && copied:
		return State{Of: marker.ID}, nil
	case errors.Is(err, vault.ErrNotFound):
		return State{}, fmt.Errorf("look at %s: %w", store, ErrOther)
	case err != nil:
		return State{}, err
	case copied && record.Of != marker.ID, !copied && record.ID != marker.ID:
		return State{}, fmt.Errorf("look at %s: %w: %s is of another vault", store, vault.ErrDamaged, Key)
	}
	return State{Of: record.Of, Record: record, Begun: true, Done: !copied}, nil
}

// ErrOther says that a store is a vault, and was never a second copy.
var ErrOther = errors.New("it is a vault, and no second copy of one")

// Promote makes the copy the vault: it decides on the id, begins new volume
// repositories with a new version of the data key, lays the floor of epochs for
// every application in the copy, and at last writes the marker. Given again, it
// goes on where it was.
func (p *Promoter) Promote(ctx context.Context) (Record, error) {
	record, err := p.promote(ctx)
	if err != nil {
		return record, fmt.Errorf("promote %s: %w", p.store, err)
	}
	return record, nil
}

func (p *Promoter) promote(ctx context.Context) (Record, error) {
	state, err := Look(ctx, p.store)
	if err != nil || state.Done {
		return state.Record, err
	}
	if err := p.project.Refresh(ctx); err != nil {
		return state.Record, err
	}
	next := p.project.NewestKey().Number + 1
	record, err := begin(ctx, p.store, Record{Of: state.Of, KeyVersion: next, Created: p.now(), Site: p.self.Site})
	if err != nil {
		return record, err
	}
	if err := p.rekey(ctx, record); err != nil {
		return record, err
	}
	apps, err := p.project.Apps(ctx)
	if err != nil {
		return record, err
	}
	for _, app := range apps {
		if _, err := p.settle(ctx, record, App{Name: app}); err != nil {
			return record, err
		}
	}
	if p.Lost != nil {
		if err := p.Lost(ctx); err != nil {
			return record, err
		}
	}
	marker, err := vault.InitAs(ctx, p.store, vault.Marker{FormatVersion: vault.FormatVersion, ID: record.ID, Created: record.Created})
	if err == nil && marker.ID != record.ID {
		err = fmt.Errorf("%w: its marker says %s, its promotion %s", vault.ErrDamaged, marker.ID, record.ID)
	}
	return record, err
}

// rekey begins new volume repositories: what still copies into the old ones, at
// a site that has heard of nothing, harms nothing that is written from now on.
func (p *Promoter) rekey(ctx context.Context, record Record) error {
	for range tries {
		if err := p.project.Refresh(ctx); err != nil {
			return err
		}
		begun := func(v vault.KeyVersion) bool { return v.Number >= record.KeyVersion && v.Volumes }
		if slices.ContainsFunc(p.project.KeyVersions(), begun) {
			return p.project.CompleteRotation(ctx)
		}
		if _, err := p.project.Rotate(ctx, vault.Rotation{Volumes: true}); err != nil && !errors.Is(err, vault.ErrExists) {
			return err
		}
	}
	return fmt.Errorf("begin new volume repositories: %w: others rotate the key at the same time: try again", vault.ErrExists)
}

// Outcome is what becomes of one application.
type Outcome struct {
	App     string  `json:"application"`
	Verdict Verdict `json:"verdict"`
	// Epoch is the newest in the vault then, Site who holds it.
	Epoch int64  `json:"epoch"`
	Site  string `json:"site"`
	// Points are those that are offered, Newest the instant of the newest.
	Points int       `json:"points"`
	Newest time.Time `json:"newest,omitzero"`
	// Last is the highest epoch of a point, LastSite where it was captured.
	Last     int64  `json:"lastEpoch,omitempty"`
	LastSite string `json:"lastSite,omitempty"`
	// From is the site that held it until now, and is stopped by this; Dropped are
	// the points that it captured since the copy is the vault, and are not offered.
	From    string `json:"from,omitempty"`
	Dropped int    `json:"dropped,omitempty"`
	// Leased says that the site's word does not count, for it ran under a lease.
	Leased bool `json:"leased,omitempty"`
	// Newer is an epoch of the lost vault that this site read, and by which the site
	// that holds it now had been superseded there; 0: none.
	Newer int64 `json:"newer,omitempty"`
	// Noted says that this site held it in the lost vault and claims nothing: it is a
	// former holder by name, and runs want its proof.
	Noted bool `json:"noted,omitempty"`
	// IDs are all points that the copy has.
	IDs []string `json:"-"`
}

// Foresee says what Site would do, and changes nothing. Applications of the copy
// that are not among those named count with nothing known of them here.
func (p *Promoter) Foresee(ctx context.Context, apps []App) ([]Outcome, error) {
	all, err := p.everything(ctx, apps)
	if err != nil {
		return nil, err
	}
	outcomes := make([]Outcome, 0, len(all))
	for _, app := range all {
		seen, err := p.look(ctx, app.Name)
		if err != nil {
			return nil, err
		}
		d := p.decide(app, seen)
		o := p.outcome(seen, app, d)
		o.Epoch = max(d.floor, d.above, seen.current.Number)
		if d.claim {
			o.Epoch++
		}
		o.Site = map[Verdict]string{Here: p.self.Site, NoOne: Nobody, Elsewhere: seen.current.Claim.Site}[d.verdict]
		outcomes = append(outcomes, o)
	}
	return outcomes, nil
}

// Settle brings this site's word over for the applications that it knows, and notes
// those that it held and does not go on with; those of the copy that it does not know
// are told as they are. The copy must be the vault by then, and this site must not
// follow it before.
func (p *Promoter) Settle(ctx context.Context, record Record, apps []App) ([]Outcome, error) {
	all, err := p.everything(ctx, apps)
	if err != nil {
		return nil, err
	}
	outcomes := make([]Outcome, 0, len(all))
	for _, app := range all {
		o, err := p.settle(ctx, record, app)
		if err != nil {
			return outcomes, fmt.Errorf("settle who may write %s: %w", app.Name, err)
		}
		outcomes = append(outcomes, o)
	}
	return outcomes, nil
}

// everything adds the copy's applications to those that are known here.
func (p *Promoter) everything(ctx context.Context, known []App) ([]App, error) {
	names, err := p.project.Apps(ctx)
	if err != nil {
		return nil, err
	}
	// Nobody ever claimed what has no epoch here: it is protected for the first time.
	all := slices.DeleteFunc(slices.Clone(known), func(a App) bool { return a.Seen == 0 && !slices.Contains(names, a.Name) })
	for _, name := range names {
		if !slices.ContainsFunc(all, func(a App) bool { return a.Name == name }) {
			all = append(all, App{Name: name})
		}
	}
	slices.SortFunc(all, func(a, b App) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// settle carries out what decide says, and decides anew after each race.
func (p *Promoter) settle(ctx context.Context, record Record, app App) (Outcome, error) {
	for range tries {
		seen, err := p.look(ctx, app.Name)
		if err != nil {
			return Outcome{}, err
		}
		d := p.decide(app, seen)
		o := p.outcome(seen, app, d)
		if o.Noted { // first: what follows may already let others write
			if err := p.note(ctx, record, app); err != nil {
				return Outcome{}, err
			}
		}
		done, err := p.carryOut(ctx, record, app, seen, d)
		if errors.Is(err, lease.ErrLost) || errors.Is(err, lease.ErrSuperseded) {
			continue // another site was faster: look what it did
		}
		if err != nil {
			return Outcome{}, err
		}
		o.Epoch, o.Site = done.Number, done.Claim.Site
		return o, nil
	}
	return Outcome{}, fmt.Errorf("%w: others claim it at the same time: try again", lease.ErrLost)
}

// note says in the vault that this site held an application in the lost one and does
// not go on with it. What is noted stays, also where a later try claims after all.
func (p *Promoter) note(ctx context.Context, record Record, app App) error {
	return lease.Note(ctx, p.project, lease.Moved{
		Application: app.Name, Site: p.self.Site, Cluster: p.self.Cluster, Lost: record.Of, Request: request(record),
		Held: app.Held, Seen: max(app.Seen, app.Held), Leased: app.Leased, At: p.now(),
	})
}

// request names a promotion in its claims and facts.
func request(record Record) string { return "promotion-" + record.ID }

func (p *Promoter) carryOut(ctx context.Context, record Record, app App, seen *seen, d decision) (lease.Epoch, error) {
	current, err := seen.current, error(nil)
	for current.Number < d.floor {
		claim := p.claim(record, "its epochs are those of the lost vault "+record.Of+", and nobody's any more", 0)
		claim.Promotion.Known = max(app.Seen, seen.known)
		claim.Site, claim.Cluster = Nobody, record.Of
		if current, err = seen.claim(ctx, app.Name, current.Number+1, claim, d.floor); err != nil {
			return current, err
		}
	}
	if seen.overruled(d) { // what the other captured since is not accepted
		seen.dropSince()
	}
	for current.Number < d.above {
		claim := current.Claim
		claim.Request, claim.At, claim.Holder = request(record)+"-"+p.self.Site, p.now().UTC(), p.holder
		if current, err = seen.claim(ctx, app.Name, current.Number+1, claim, 0); err != nil {
			return current, err
		}
	}
	if d.claim {
		claim := p.claim(record, fmt.Sprintf("it held epoch %d of the lost vault %s", app.Held, record.Of), app.Held)
		return seen.claim(ctx, app.Name, current.Number+1, claim, 0)
	}
	return current, nil
}

func (p *Promoter) claim(record Record, reason string, held int64) lease.Claim {
	return lease.Claim{
		Site: p.self.Site, Cluster: p.self.Cluster, Holder: p.holder, Reason: reason, At: p.now().UTC(),
		Request: request(record), Promotion: &lease.Promotion{From: record.Of, Seen: held},
	}
}

// seen is one application in the store at one moment.
type seen struct {
	epochs  *lease.Epochs
	infos   []vault.PointInfo
	history []lease.Epoch
	current lease.Epoch
	base    int64
	known   int64
}

// overruled tells whether another site went on by an older word, and is stopped.
func (s *seen) overruled(d decision) bool {
	word := s.current.Claim.Promotion
	return d.claim && word != nil && word.Seen > 0
}

func (p *Promoter) decide(app App, s *seen) decision {
	return decide(app, s.current, s.base, s.known, p.margin, p.self)
}

func (p *Promoter) look(ctx context.Context, app string) (*seen, error) {
	s := &seen{epochs: lease.New(p.project)}
	var err error
	if s.infos, err = p.project.Points(ctx, app); err != nil {
		return nil, err
	}
	for _, info := range s.infos {
		if info.Manifest != nil {
			s.base = max(s.base, info.Manifest.Epoch)
		} else if !errors.Is(info.Err, vault.ErrDamaged) {
			return nil, fmt.Errorf("read point %s: %w", info.ID, info.Err)
		}
	}
	if s.history, err = s.epochs.History(ctx, app); err != nil { // after the manifests: see point.Quarantined
		return nil, err
	}
	if n := len(s.history); n > 0 {
		s.current = s.history[n-1]
	}
	for _, e := range s.history {
		if word := e.Claim.Promotion; word != nil {
			s.known = max(s.known, word.Known)
		}
	}
	return s, nil
}

// dropSince forgets the points that were captured since the copy is the vault.
func (s *seen) dropSince() {
	for _, e := range s.history {
		if word := e.Claim.Promotion; word != nil && word.Seen == 0 {
			continue
		}
		s.infos = slices.DeleteFunc(s.infos, func(i vault.PointInfo) bool { return i.Manifest == nil || i.Manifest.Epoch >= e.Number })
		return
	}
}

func (s *seen) points() []point.Point {
	all := make([]point.Point, 0, len(s.infos))
	for _, info := range s.infos {
		all = append(all, info.Point())
	}
	return all
}

// claim claims number n, which accepts all points that are good. Below the last
// number of a floor, those are enough that it is the next for.
func (s *seen) claim(ctx context.Context, app string, n int64, c lease.Claim, floor int64) (lease.Epoch, error) {
	points := s.points()
	if n < floor {
		points = slices.DeleteFunc(points, func(p point.Point) bool { return p.Epoch != n-1 })
	}
	c.Accepted = point.Accepted(points, lease.Summaries(s.history))
	epoch, err := s.epochs.Claim(ctx, app, n, c)
	if err == nil {
		s.history = append(s.history, epoch)
	}
	return epoch, err
}

// outcome is what carrying out d comes to, before it is.
func (p *Promoter) outcome(s *seen, app App, d decision) Outcome {
	o := Outcome{App: app.Name, Verdict: d.verdict, Noted: d.verdict != Here && app.Held > 0}
	if d.verdict == NoOne {
		o.Leased = app.Leased && app.Held > 0
	}
	if word := s.current.Claim.Promotion; d.verdict == Elsewhere && word != nil && word.Seen > 0 && app.Seen > word.Seen {
		o.Newer = app.Seen
	}
	good := s.good(&o)
	if s.overruled(d) {
		o.From = s.current.Claim.Site
		after := *s
		after.infos = slices.Clone(s.infos)
		after.dropSince()
		o.Dropped = good - after.good(&o)
	}
	for _, info := range s.infos {
		o.IDs = append(o.IDs, info.ID)
		if m := info.Manifest; m != nil && m.Epoch >= o.Last {
			o.Last, o.LastSite = m.Epoch, m.Site
		}
	}
	return o
}

// good counts the points that are offered.
func (s *seen) good(o *Outcome) int {
	o.Points, o.Newest = 0, time.Time{}
	for _, p := range point.Quarantine(s.points(), lease.Summaries(s.history)) {
		if !p.Good() {
			continue
		}
		o.Points++
		if p.Instant.After(o.Newest) {
			o.Newest = p.Instant
		}
	}
	return o.Points
}
