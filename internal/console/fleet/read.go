package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/console/ahead"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/shelf"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/survey"
)

// parallel is how many objects of a project are read at once.
const parallel = 8

// streak is how many reads in a row may fail until a round is given up: others may
// succeed where one does not.
const streak = 3 * parallel

// again is how soon it is tried again to read what is damaged, though nothing of it has
// changed, and what a site says beside that it lives.
const again = 5 * time.Minute

// Reader reads a project again and again: a few lists say what there is, and what is new
// is read, a bounded number of objects at once. What was read is kept when a round is
// cut, and the next goes on with what was not looked at for longest. One goroutine uses
// it at a time, but for Snapshot.
type Reader struct {
	project *vault.Project
	survey  *survey.Store
	book    *book
	places  chan struct{} // of those who read at once
}

// NewReader returns a reader of the project, which remembers small objects within the
// budget.
func NewReader(p *vault.Project, budget *survey.Budget) *Reader {
	return newReader(p, budget, newBook())
}

func newReader(p *vault.Project, budget *survey.Budget, b *book) *Reader {
	r := &Reader{book: b, places: make(chan struct{}, parallel)}
	r.project = p.Over(func(s vault.Store) vault.Store {
		r.survey = survey.New(s, budget)
		return r.survey
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.head.Project, b.head.Vault, b.head.Copy = p.Name(), p.Store().String(), p.IsCopy()
	return r
}

// Read reads the whole project, and what is known beforehand. One application or run
// that is damaged is a fault of its own, one that could not be read is named as old; a
// vault that does not answer is an error.
func (r *Reader) Read(ctx context.Context, now time.Time) (*Snapshot, error) {
	if err := r.Round(ctx, now); err != nil {
		return nil, err
	}
	if r.Due(ctx, now) {
		if err := r.Foretell(ctx, now); err != nil {
			return nil, err
		}
	}
	return r.Snapshot(), nil
}

// Snapshot is what is known by now. Nobody changes it any more.
func (r *Reader) Snapshot() *Snapshot { return r.book.snapshot() }

// Round looks once at all that there is. What it has read is known also when it fails.
func (r *Reader) Round(ctx context.Context, now time.Time) error {
	calls := r.survey.Calls()
	if err := r.stock(ctx); err != nil {
		return fmt.Errorf("read fleet: %w", err)
	}
	steps := []func(context.Context, time.Time) (int, error){r.sites, r.runs}
	failed := 0
	for _, step := range steps {
		n, err := step(ctx, now)
		if err != nil {
			return fmt.Errorf("read fleet: %w", err)
		}
		failed += n
	}
	r.with(func(b *book) { b.stocked, b.head.At = true, now.UTC() })
	n, err := r.applications(ctx, now)
	if err != nil {
		return fmt.Errorf("read fleet: %w", err)
	}
	r.with(func(b *book) {
		b.head.Calls = r.survey.Calls() - calls
		if failed+n == 0 {
			b.head.Whole = now.UTC()
		}
	})
	return nil
}

func (r *Reader) with(fn func(*book)) {
	r.book.mu.Lock()
	defer r.book.mu.Unlock()
	fn(r.book)
}

// stock surveys what there is.
func (r *Reader) stock(ctx context.Context) error {
	root := r.project.Root()
	if err := r.survey.Take(ctx, root+"manifests/"); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, prefix := range []string{"marks/", "epochs/", "apps/", "runs/", "ended/", "sites/", "plans/"} { // epochs after the manifests: see point.Quarantined
		g.Go(func() error { return r.survey.Take(ctx, root+prefix) })
	}
	return g.Wait()
}

// each calls fn so many times, a few at once, and goes on where one fails. It returns
// how many failed. When nothing but failures comes of it for long, or the time is up, it
// gives up with an error.
func (r *Reader) each(ctx context.Context, n int, fn func(ctx context.Context, i int) error) (failed int, err error) {
	var lost, inARow atomic.Int64
	g, limited := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i := range n {
		if limited.Err() != nil {
			break
		}
		g.Go(func() error {
			err := fn(limited, i)
			if err == nil {
				inARow.Store(0)
				return nil
			}
			lost.Add(1)
			if limited.Err() != nil || inARow.Add(1) >= streak {
				return err
			}
			return nil
		})
	}
	err = g.Wait()
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return int(lost.Load()), err
}

// read has fn read something when it is its turn.
func (r *Reader) read(ctx context.Context, fn func() error) error {
	select {
	case r.places <- struct{}{}:
		defer func() { <-r.places }()
		return fn()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ours tells whether an error says something of one object alone, and not that
// the vault, or the time, is at an end.
func ours(ctx context.Context, err error) bool {
	return ctx.Err() == nil && !errors.Is(err, vault.ErrUnavailable) && !errors.Is(err, vault.ErrDenied)
}

// past tells whether so long has gone by since then, or a clock that was ahead said when.
func past(now, then time.Time, long time.Duration) bool {
	return then.After(now) || now.Sub(then) >= long
}

// doubt has all of an application be read anew, and not as it is remembered.
func (r *Reader) doubt(app string) {
	for _, of := range []string{"manifests/", "marks/", "epochs/", "apps/"} {
		r.survey.Reread(r.project.Root() + of + app + "/")
	}
}

// sites notes which sites live. What they say beside that is read when it is old.
func (r *Reader) sites(ctx context.Context, now time.Time) (failed int, err error) {
	prefix := r.project.Root() + "sites/"
	all, _ := r.survey.Under(prefix)
	there := map[string]vault.ObjectInfo{}
	var old []string
	r.with(func(b *book) {
		for _, o := range all {
			name := strings.TrimPrefix(o.Key, prefix)
			there[name] = o
			p := b.sites[name]
			if p == nil || p.Mark != survey.MarkOf(o) && past(now, p.Read, again) {
				old = append(old, name)
			}
			if p != nil {
				next := *p
				next.Seen = o.Modified.UTC()
				b.sites[name] = &next
			}
		}
		for name := range b.sites {
			if _, found := there[name]; !found {
				delete(b.sites, name)
				b.changed[sitesName+name], b.changed[namesName] = true, true
			}
		}
	})
	return r.each(ctx, len(old), func(ctx context.Context, i int) error {
		name := old[i]
		next := &place{Site: Site{Name: name, Seen: there[name].Modified.UTC()}, Mark: survey.MarkOf(there[name]), Read: now}
		err := r.read(ctx, func() error {
			sign, err := r.project.Site(ctx, name)
			next.Cluster, next.Davit, next.Kube = sign.Cluster, sign.AgentVersion, sign.KubeVersion
			return err
		})
		unread := err != nil && !ours(ctx, err)
		if err != nil {
			next.Fault = err.Error()
		}
		if unread { // it is read again with the next round
			next.Mark, next.Read = 0, time.Time{}
		}
		r.with(func(b *book) {
			if unread && (ctx.Err() != nil || b.sites[name] != nil) {
				return
			}
			b.sites[name] = next
			b.changed[sitesName+name], b.changed[namesName] = true, true
		})
		if unread {
			return err
		}
		return nil
	})
}

// applications looks at all of them, those first that were not for longest.
func (r *Reader) applications(ctx context.Context, now time.Time) (failed int, err error) {
	all, err := r.project.Apps(ctx) // as they were surveyed
	if err != nil {
		return 0, err
	}
	tried := map[string]time.Time{}
	r.with(func(b *book) {
		for _, name := range all {
			if b.apps[name] == nil {
				b.apps[name] = &memo{Application: Application{Name: name, Unread: true}}
				b.changed[namesName] = true
			}
			tried[name] = b.apps[name].tried
		}
		for name := range b.apps {
			if _, found := tried[name]; !found {
				delete(b.apps, name)
				b.changed[appsName+name], b.changed[namesName] = true, true
			}
		}
	})
	slices.SortStableFunc(all, func(a, b string) int { return tried[a].Compare(tried[b]) })
	return r.each(ctx, len(all), func(ctx context.Context, i int) error { return r.application(ctx, all[i], now) })
}

// application looks at one. What is wrong with it alone is a fault that is shown; where
// it could not be read, what was known stays, as of when it was.
func (r *Reader) application(ctx context.Context, name string, now time.Time) error {
	var old *memo
	r.with(func(b *book) { old = b.apps[name] })
	root := r.project.Root()
	m := marks{Epochs: r.survey.Mark(root + "epochs/" + name + "/"), Documents: r.survey.Mark(root + "apps/" + name + "/")}
	points, _ := r.survey.Under(root + "manifests/" + name + "/")
	said, _ := r.survey.Under(root + "marks/" + name + "/")
	m.Points = survey.MarkOf(points...) ^ 3*survey.MarkOf(said...)
	next := *old
	next.tried = now
	same := m == old.Marks && !old.Unread && old.Stale == "" && (!old.doubtful() || !past(now, old.filled, again))
	var err error
	if !same {
		if old.doubtful() {
			r.doubt(name)
		}
		err = r.fill(ctx, &next, m)
		switch {
		case err == nil:
			next.Fault, next.Stale, next.filled = "", "", now
		case ours(ctx, err):
			next.Fault, next.Stale, next.filled, err = err.Error(), "", now, nil
		case ctx.Err() != nil: // it was not its turn any more; what was read of it is known
			next.tried = old.tried
		default: // a fault is none any more only when it was read that it is not
			next.Stale = err.Error()
		}
	}
	if err == nil {
		next.Read, next.Unread, next.Marks = now.UTC(), false, m
		if !same || past(now, next.judged, judgeEvery) {
			next.judge(now)
		}
	}
	r.with(func(b *book) {
		b.apps[name] = &next
		if !same {
			b.changed[appsName+name] = true
		}
	})
	return err
}

// fill reads what is new of an application.
func (r *Reader) fill(ctx context.Context, a *memo, m marks) error {
	var err error
	if a.Seen, err = r.points(ctx, a.Name, a.Seen); err != nil {
		return err
	}
	if a.Unread || a.Fault != "" || m.Epochs != a.Marks.Epochs {
		if err := r.epochs(ctx, a); err != nil {
			return err
		}
	}
	if a.Unread || a.Fault != "" || m.Documents != a.Marks.Documents {
		return r.policy(ctx, a)
	}
	return nil
}

func (r *Reader) epochs(ctx context.Context, a *memo) error {
	var history []lease.Epoch
	err := r.read(ctx, func() (err error) {
		history, err = lease.New(r.project).History(ctx, a.Name)
		return err
	})
	if err != nil {
		return err
	}
	a.Site, a.Epoch, a.Since, a.History = "", 0, time.Time{}, lease.Summaries(history)
	if n := len(history); n > 0 {
		newest := history[n-1]
		a.Site, a.Epoch, a.Since = newest.Claim.Site, newest.Number, newest.Claim.At.UTC()
	}
	return nil
}

// points reads the points that are new, or have other marks. Those that it has read are
// among what it returns with an error, too.
func (r *Reader) points(ctx context.Context, app string, known []*sighting) ([]*sighting, error) {
	root := r.project.Root()
	prefix := root + "manifests/" + app + "/"
	listed, _ := r.survey.Under(prefix)
	have := make(map[string]*sighting, len(known))
	for _, s := range known {
		have[s.Point.ID] = s
	}
	seen := make([]*sighting, len(listed))
	g, limited := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i, o := range listed {
		id := strings.TrimPrefix(o.Key, prefix)
		said, _ := r.survey.Under(root + "marks/" + app + "/" + id + "/")
		mark := survey.MarkOf(append([]vault.ObjectInfo{o}, said...)...)
		if old := have[id]; old != nil && old.Mark == mark && !old.Damaged {
			seen[i] = old
			continue
		}
		g.Go(func() error {
			return r.read(limited, func() (err error) {
				seen[i], err = r.point(limited, app, id)
				if err == nil && seen[i] != nil {
					seen[i].Mark = mark
				}
				return err
			})
		})
	}
	err := g.Wait()
	for i, o := range listed {
		if err != nil && seen[i] == nil { // as it was known
			seen[i] = have[strings.TrimPrefix(o.Key, prefix)]
		}
	}
	return slices.DeleteFunc(seen, func(s *sighting) bool { return s == nil }), err
}

// point reads one; nil: it is there no more.
func (r *Reader) point(ctx context.Context, app, id string) (*sighting, error) {
	info := vault.PointInfo{ID: id}
	manifest, err := r.project.Manifest(ctx, app, id)
	if errors.Is(err, vault.ErrNotFound) {
		return nil, nil //nolint:nilnil // as it says
	}
	marks, errMarks := r.project.Marks(ctx, app, id)
	if err = errors.Join(err, errMarks); err != nil && !ours(ctx, err) {
		return nil, err
	}
	info.Manifest, info.Marks, info.Err = manifest, marks, err
	return sight(info), nil
}

// sight is what is remembered of a recovery point.
func sight(info vault.PointInfo) *sighting {
	summary := info.Point()
	s := &sighting{Point: Point{ID: info.ID, Pinned: summary.Pinned}, Quarantined: summary.Quarantined, Deleting: summary.Deleting, Damaged: summary.Damaged}
	p := &s.Point
	if !summary.Verified.IsZero() {
		p.Verified = summary.Verified.UTC()
	}
	if m := info.Manifest; m != nil {
		p.Instant, p.Site, p.Epoch, p.Consistency = m.Instant.UTC(), strings.Clone(m.Site), m.Epoch, string(m.Consistency)
		p.Objects, p.Volumes, p.Bytes, p.Stored, p.Warnings = m.Objects, len(m.Volumes), m.Bytes, m.StoredBytes, len(m.Warnings)
	}
	if t := info.Tested(); t != nil {
		p.Tested, p.Passed, p.RTO = t.At.UTC(), t.Kind == vault.MarkVerified, t.RTO
	}
	for _, mark := range info.Quarantines() {
		s.Why = mark.Note
	}
	if s.Damaged && info.Err != nil {
		s.Why = info.Err.Error()
	}
	return s
}

// policy reads what the application's newest document says of it.
func (r *Reader) policy(ctx context.Context, a *memo) error {
	var d vault.Document
	err := r.read(ctx, func() (err error) {
		d, err = r.project.GetDocument(ctx, a.Name)
		return err
	})
	if err != nil && !errors.Is(err, vault.ErrNotFound) { // without one it was captured by hand alone
		return err
	}
	a.Spec, a.Policy, a.Suspended, a.Cron, a.RPO, a.RTO, a.Every = nil, "", false, "", 0, 0, 0
	for _, raw := range d.Objects {
		var policy v1alpha1.ProtectionPolicy
		if err := json.Unmarshal(raw, &policy); err != nil {
			return fmt.Errorf("read document of %s: %w: %w", a.Name, vault.ErrDamaged, err)
		}
		if policy.Kind != "ProtectionPolicy" {
			continue
		}
		spec := policy.Spec
		a.Spec, a.Policy, a.Suspended, a.Cron = &spec, policy.Name, spec.Suspend, spec.Schedule.Cron
		if d := spec.Objectives.RPO; d != nil {
			a.RPO = d.Duration
		}
		if d := spec.Objectives.RTO; d != nil {
			a.RTO = d.Duration
		}
		if d := spec.Schedule.Every; d != nil {
			a.Every = d.Duration
		}
		return nil
	}
	return nil
}

// How often plans are judged anew though nothing is known to have changed, and
// how long that may take.
const (
	aheadEvery = 5 * time.Minute
	aheadLimit = 5 * time.Minute
)

// Due tells whether what is known beforehand is to be judged anew: a plan has changed, a
// run is over, or it is old.
func (r *Reader) Due(ctx context.Context, now time.Time) bool {
	revisions, err := shelf.New(r.project).Revisions(ctx) // as they were surveyed
	if err != nil {
		return false
	}
	var a *ahead.View
	r.with(func(b *book) { a = b.ahead })
	return a == nil || a.Fault != "" || a.Runs != r.book.ended() || !maps.Equal(a.Revisions, revisions) || past(now, a.At, aheadEvery)
}

// Foretell judges what is known beforehand. That it cannot be is a fault in what is
// shown, unless the time is up.
func (r *Reader) Foretell(ctx context.Context, now time.Time) error {
	limited, cancel := context.WithTimeout(ctx, aheadLimit)
	defer cancel()
	var apps []string
	ended := r.book.ended()
	r.with(func(b *book) { apps = slices.Sorted(maps.Keys(b.apps)) })
	view, err := ahead.Read(limited, r.project, apps, func() time.Time { return now })
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("read fleet: %w", err)
		}
		old := ahead.View{Plans: []ahead.Plan{}, Rows: []ahead.Row{}}
		r.with(func(b *book) {
			if b.ahead != nil {
				old = *b.ahead
			}
		})
		old.Fault = err.Error()
		view = &old
	}
	view.Runs = ended
	r.with(func(b *book) { b.ahead, b.changed[aheadName] = view, true })
	return nil
}
