package promotion

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/fence"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

var (
	noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	east = lease.Identity{Site: "east", Cluster: "a"}
	west = lease.Identity{Site: "west", Cluster: "b"}

	errDied = errors.New("killed")
)

// mortal dies before the write after those that are left.
type mortal struct {
	vault.Store
	lives int
}

func (m *mortal) lived() error {
	if m.lives == 0 {
		return errDied
	}
	m.lives--
	return nil
}

func (m *mortal) Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	if err := m.lived(); err != nil {
		return err
	}
	return m.Store.Put(ctx, key, r, size)
}

func (m *mortal) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	if err := m.lived(); err != nil {
		return err
	}
	return m.Store.PutIfAbsent(ctx, key, r, size)
}

func (m *mortal) Delete(ctx context.Context, key string) error {
	if err := m.lived(); err != nil {
		return err
	}
	return m.Store.Delete(ctx, key)
}

// scene is a second copy of a vault that is lost, with points of shop under the
// epochs 1 and 2, and one of crm under 1.
type scene struct {
	t     *testing.T
	store vault.Store
	key   vault.Identity
	of    string
	// margin is that of Margin, unless less will do.
	margin int64
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{t: t, store: mem.New(nil), margin: Margin}
	marker, err := vault.Init(t.Context(), mem.New(nil)) // the lost one's
	s.check(err)
	s.key, err = vault.NewRecoveryKey()
	s.check(err)
	s.check(vault.InitCopy(t.Context(), s.store, marker))
	s.of = marker.ID
	p, err := vault.CreateProject(t.Context(), s.store, "default", s.key.Recipient())
	s.check(err)
	s.publish(p, "shop", "shop-1", 1, "east")
	s.publish(p, "shop", "shop-2", 2, "east")
	s.publish(p, "crm", "crm-1", 1, "west")
	return s
}

// again is the scene anew, in a store of its own.
func (s *scene) again() *scene {
	s.t.Helper()
	fresh := *s
	fresh.store = mem.New(nil)
	s.check(s.store.List(s.t.Context(), "", func(o vault.ObjectInfo) error {
		r, err := s.store.Get(s.t.Context(), o.Key, 0, -1)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		return fresh.store.Put(s.t.Context(), o.Key, bytes.NewReader(data), int64(len(data)))
	}))
	return &fresh
}

func (s *scene) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) publish(p *vault.Project, app, id string, epoch int64, site string) {
	s.t.Helper()
	w, err := p.NewWriter(s.t.Context(), app, id)
	s.check(err)
	m := &point.Manifest{Site: site, Epoch: epoch, Trigger: "manual", Instant: noon, CutBy: noon, Consistency: point.Crash, Namespaces: []string{app}}
	s.check(w.Publish(s.t.Context(), m, nil))
}

func (s *scene) open() *vault.Project {
	s.t.Helper()
	p, err := vault.OpenProject(s.t.Context(), s.store, "default", s.key)
	s.check(err)
	return p
}

func (s *scene) promoter(store vault.Store, self lease.Identity) *Promoter {
	p := New(store, s.open(), self, "a person", func() time.Time { return noon })
	p.margin = s.margin
	return p
}

// move is all that a site does with the vault.
func (s *scene) move(store vault.Store, self lease.Identity, apps ...App) (map[string]Outcome, Record, error) {
	p := s.promoter(store, self)
	record, err := p.Promote(s.t.Context())
	if err != nil {
		return nil, record, err
	}
	got, err := p.Settle(s.t.Context(), record, apps)
	all := map[string]Outcome{}
	for _, o := range got {
		all[o.App] = o
	}
	return all, record, err
}

func (s *scene) current(app string) lease.Epoch {
	s.t.Helper()
	history, err := lease.New(s.open()).History(s.t.Context(), app) // refuses gaps
	s.check(err)
	if len(history) == 0 {
		return lease.Epoch{}
	}
	return history[len(history)-1]
}

// good are the points that are offered.
func (s *scene) good(app string) []string {
	s.t.Helper()
	p := s.open()
	infos, err := p.Points(s.t.Context(), app)
	s.check(err)
	history, err := lease.New(p).History(s.t.Context(), app)
	s.check(err)
	var all []point.Point
	for _, info := range infos {
		all = append(all, info.Point())
	}
	var ids []string
	for _, q := range point.Quarantine(all, lease.Summaries(history)) {
		if q.Good() {
			ids = append(ids, q.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

func (s *scene) settled(when string) {
	s.t.Helper()
	state, err := Look(s.t.Context(), s.store)
	s.check(err)
	if !state.Done || state.Of != s.of || state.Record.ID == s.of {
		s.t.Errorf("%s: %+v", when, state)
	}
	p := s.open()
	if p.IsCopy() || !p.WasCopy() {
		s.t.Errorf("%s: copy %v, was one %v", when, p.IsCopy(), p.WasCopy())
	}
	if v := p.NewestKey(); v.Number != 2 || !v.Volumes {
		s.t.Errorf("%s: the newest key is %+v", when, v)
	}
	if c := s.current("shop"); !east.Made(c.Claim) || c.Number <= 3 {
		s.t.Errorf("%s: shop is of %+v", when, c)
	}
	if c := s.current("crm"); c.Claim.Site != Nobody || c.Number != 1+s.margin {
		s.t.Errorf("%s: crm is of %+v", when, c)
	}
	if c := s.current("fresh"); !east.Made(c.Claim) {
		s.t.Errorf("%s: what the copy never had is of %+v", when, c)
	}
	if got := s.good("shop"); !slices.Equal(got, []string{"shop-1", "shop-2"}) {
		s.t.Errorf("%s: points %v are offered", when, got)
	}
}

var known = []App{{Name: "shop", Seen: 3, Held: 3}, {Name: "fresh", Seen: 1, Held: 1}, {Name: "never"}}

// TestPromoteKilled at every write: until the marker is there the store is a copy, and
// given again everything ends the same, with one id.
func TestPromoteKilled(t *testing.T) {
	start := newScene(t)
	start.margin = 1
	for lives := 0; ; lives++ {
		s := start.again()
		_, first, err := s.move(&mortal{s.store, lives}, east, known...)
		if err != nil && !errors.Is(err, errDied) {
			t.Fatal(err)
		}
		state, lookErr := Look(t.Context(), s.store)
		s.check(lookErr)
		if !state.Done && !s.open().IsCopy() {
			t.Errorf("killed after %d writes, the store is neither copy nor vault", lives)
		}
		_, second, again := s.move(s.store, east, known...)
		s.check(again)
		if first.ID != "" && first.ID != second.ID {
			t.Errorf("killed after %d writes: it is vault %s, then %s", lives, first.ID, second.ID)
		}
		s.settled("killed")
		if err == nil {
			before := s.current("shop").Number
			if _, _, err := s.move(s.store, east, known...); err != nil || s.current("shop").Number != before {
				t.Errorf("given once more it claimed %d after %d, %v", s.current("shop").Number, before, err)
			}
			if lives < 10 {
				t.Fatalf("it wrote %d times: it proves nothing", lives)
			}
			return
		}
	}
}

// TestForesee says what then happens, and writes nothing.
func TestForesee(t *testing.T) {
	s := newScene(t)
	foreseen, err := s.promoter(&mortal{s.store, 0}, east).Foresee(t.Context(), known)
	s.check(err)
	got, _, err := s.move(s.store, east, known...)
	s.check(err)
	if len(foreseen) != 3 || len(got) != 3 {
		t.Fatalf("foreseen %+v, got %+v", foreseen, got)
	}
	for _, f := range foreseen {
		if o := got[f.App]; o.Verdict != f.Verdict || o.Epoch != f.Epoch || o.Site != f.Site || o.Points != f.Points {
			t.Errorf("foreseen %+v, was %+v", f, o)
		}
	}
}

// TestTwoSitesAtOnce end with one vault, in which each holds what it held.
func TestTwoSitesAtOnce(t *testing.T) {
	s := newScene(t)
	var records [2]Record
	var wg sync.WaitGroup
	for i, site := range []struct {
		self lease.Identity
		apps []App
	}{{east, known}, {west, []App{{Name: "crm", Seen: 1, Held: 1}, {Name: "shop", Seen: 3, Held: 1}}}} {
		p := s.promoter(s.store, site.self)
		wg.Go(func() {
			var err error
			if records[i], err = p.Promote(t.Context()); err == nil {
				_, err = p.Settle(t.Context(), records[i], site.apps)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if records[0] != records[1] {
		t.Errorf("two vaults: %+v, %+v", records[0], records[1])
	}
	if c := s.current("shop"); !east.Made(c.Claim) {
		t.Errorf("shop is of %+v", c)
	}
	if c := s.current("crm"); !west.Made(c.Claim) {
		t.Errorf("crm is of %+v", c)
	}
	if got := s.good("crm"); len(got) != 1 {
		t.Errorf("points %v of crm are offered", got)
	}
}

// careless lets the second of two writers win.
type careless struct{ vault.Store }

func (c careless) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	return c.Put(ctx, key, r, size)
}

// TestOneRecordDecides; the control: where the record is not put if absent, two
// people get two vaults.
func TestOneRecordDecides(t *testing.T) {
	for _, safe := range []bool{true, false} {
		s := newScene(t)
		store := s.store
		if !safe {
			store = careless{store}
		}
		a, err := begin(t.Context(), store, Record{Of: s.of, KeyVersion: 2, Created: noon, Site: "east"})
		s.check(err)
		b, err := begin(t.Context(), store, Record{Of: s.of, KeyVersion: 2, Created: noon, Site: "west"})
		s.check(err)
		if (a == b) != safe {
			t.Errorf("safe %v: %+v, %+v", safe, a, b)
		}
	}
}

// TestNewerWordWins: east had not heard that west took shop over with epoch 3. In
// whichever order they come over, west goes on, and what east captured between is
// not offered.
func TestNewerWordWins(t *testing.T) {
	stale, fresh := App{Name: "shop", Seen: 2, Held: 2}, App{Name: "shop", Seen: 3, Held: 3}
	s := newScene(t)
	got, _, err := s.move(s.store, east, stale)
	s.check(err)
	if got["shop"].Verdict != Here {
		t.Fatalf("%+v", got)
	}
	s.publish(s.open(), "shop", "shop-stale", got["shop"].Epoch, "east")
	if got, _, err = s.move(s.store, west, fresh); err != nil || got["shop"].Verdict != Here {
		t.Errorf("%+v, %v", got, err)
	}
	if c := s.current("shop"); !west.Made(c.Claim) {
		t.Errorf("shop is of %+v", c)
	}
	if ids := s.good("shop"); !slices.Equal(ids, []string{"shop-1", "shop-2"}) {
		t.Errorf("points %v are offered", ids)
	}
	// East, once more, with its old word.
	if got, _, err = s.move(s.store, east, stale); err != nil || got["shop"].Verdict != Elsewhere {
		t.Errorf("%+v, %v", got, err)
	}

	s = newScene(t)
	if _, _, err = s.move(s.store, west, fresh); err != nil {
		t.Fatal(err)
	}
	if got, _, err = s.move(s.store, east, stale); err != nil || got["shop"].Verdict != Elsewhere || got["shop"].Site != "west" {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestWordsThatDoNotCount: the copy has points of a higher epoch; the site was
// superseded; somebody took the application over since.
func TestWordsThatDoNotCount(t *testing.T) {
	for name, app := range map[string]App{
		"the copy knows better": {Name: "shop", Seen: 1, Held: 1}, "superseded": {Name: "shop", Seen: 3, Held: 2}, "never held": {Name: "shop", Seen: 3},
	} {
		s := newScene(t)
		if got, _, err := s.move(s.store, east, app); err != nil || got["shop"].Verdict != NoOne || s.current("shop").Claim.Site != Nobody {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	s := newScene(t)
	_, _, err := s.move(s.store, west)
	s.check(err)
	n := s.current("shop").Number + 1
	_, err = lease.New(s.open()).Claim(t.Context(), "shop", n, lease.Claim{Site: "west", Cluster: "b", Request: "run-1", Accepted: s.good("shop")})
	s.check(err)
	if got, _, err := s.move(s.store, east, App{Name: "shop", Seen: 9, Held: 9}); err != nil || got["shop"].Verdict != Elsewhere || !west.Made(s.current("shop").Claim) {
		t.Errorf("after a take-over: %+v, %v", got, err)
	}
	// Above all that a site has seen, also when that is more than the margin.
	if _, _, err := s.move(s.store, east, App{Name: "shop", Seen: 40, Held: 40}); err != nil || s.current("shop").Number <= 40 || !west.Made(s.current("shop").Claim) {
		t.Errorf("%+v, %v", s.current("shop"), err)
	}
	if got := s.good("shop"); len(got) != 2 {
		t.Errorf("points %v are offered", got)
	}
}

// TestStaleNodesAreFenced: a node of a site that was cut off knows epoch 3 of the
// lost vault as its own. The control: had the new vault begun to count anew, the
// node would not listen to it and run on.
func TestStaleNodesAreFenced(t *testing.T) {
	s := newScene(t)
	_, _, err := s.move(s.store, east, App{Name: "shop", Seen: 2, Held: 2})
	s.check(err)
	for number, fenced := range map[int64]bool{s.current("shop").Number: true, 2: false} {
		r := fence.Record{}
		r.Learn("shop", fence.Answer{Newest: 3, Held: 3}, fence.Leases{})
		r.Learn("shop", fence.Answer{Newest: number, Holder: "site east"}, fence.Leases{})
		if got := r.Find("shop").Below > 0; got != fenced {
			t.Errorf("epoch %d of another: fenced is %v", number, got)
		}
	}
}

// TestLeaseStaysOver: nodes stopped shop, for the lease of epoch 2 was over, and
// another site may have taken it over by that. The site's word frees it no more; the
// control: without a lease it does.
func TestLeaseStaysOver(t *testing.T) {
	for _, leased := range []bool{true, false} {
		s, leases, r := newScene(t), fence.Leases{}, fence.Record{}
		r.Learn("shop", fence.Answer{Newest: 2, Held: 2, Terms: &fence.Terms{Lease: 15 * time.Second}}, leases)
		if r.Find("shop").Why(leases, time.Hour) == "" {
			t.Fatal("the lease is not over: this proves nothing")
		}
		got, _, err := s.move(s.store, east, App{Name: "shop", Seen: 2, Held: 2, Leased: leased})
		s.check(err)
		c := s.current("shop")
		answer := fence.Answer{Newest: c.Number}
		if east.Made(c.Claim) {
			answer.Held = c.Number
		}
		r.Learn("shop", answer, leases)
		if stopped := r.Find("shop").Why(leases, time.Hour) != ""; stopped != leased || got["shop"].Leased != leased {
			t.Errorf("leased %v: stopped is %v, %+v", leased, stopped, got["shop"])
		}
	}
}

// TestOthersKnowledge: a third site read epoch 3 of the lost vault, and came over
// first. East, which held 2, is superseded; whoever held 3 is not.
func TestOthersKnowledge(t *testing.T) {
	third := lease.Identity{Site: "third", Cluster: "c"}
	for held, verdict := range map[int64]Verdict{2: NoOne, 3: Here} {
		for _, first := range [][]App{{{Name: "shop", Seen: 3}}, {{Name: "shop", Seen: 1}, {Name: "shop", Seen: 3}}} {
			s := newScene(t)
			for _, app := range first { // the second time, the floor was reached before
				_, _, err := s.move(s.store, third, app)
				s.check(err)
			}
			got, _, err := s.move(s.store, east, App{Name: "shop", Seen: held, Held: held})
			if err != nil || got["shop"].Verdict != verdict {
				t.Errorf("held %d: %+v, %v", held, got["shop"], err)
			}
		}
	}
	// The other way round, the person is told.
	s := newScene(t)
	_, _, err := s.move(s.store, east, App{Name: "shop", Seen: 2, Held: 2})
	s.check(err)
	got, _, err := s.move(s.store, third, App{Name: "shop", Seen: 3})
	if err != nil || got["shop"].Verdict != Elsewhere || got["shop"].Newer != 3 {
		t.Errorf("%+v, %v", got["shop"], err)
	}
}

// TestNoted: what a site held and does not go on with it notes, so that runs ask it; what it
// goes on with it has claimed. Foreseen, nothing is written.
func TestNoted(t *testing.T) {
	for name, c := range map[string]struct {
		app  App
		want bool
	}{
		"goes on":               {App{Name: "shop", Seen: 2, Held: 2}, false},
		"never held it":         {App{Name: "shop", Seen: 3}, false},
		"ran under a lease":     {App{Name: "shop", Seen: 2, Held: 2, Leased: true}, true},
		"superseded":            {App{Name: "shop", Seen: 3, Held: 2}, true},
		"the copy knows better": {App{Name: "shop", Seen: 1, Held: 1}, true},
		"more than it knew of":  {App{Name: "shop", Seen: 1, Held: 2, Leased: true}, true},
	} {
		s := newScene(t)
		foreseen, err := s.promoter(&mortal{s.store, 0}, east).Foresee(t.Context(), []App{c.app})
		s.check(err)
		i := slices.IndexFunc(foreseen, func(o Outcome) bool { return o.App == "shop" })
		got, record, err := s.move(s.store, east, c.app)
		s.check(err)
		movers, err := lease.Movers(t.Context(), s.open(), "")
		s.check(err)
		if foreseen[i].Noted != c.want || got["shop"].Noted != c.want || len(movers["shop"]) > 0 != c.want || len(movers["crm"]) > 0 {
			t.Errorf("%s: %+v, %v", name, got["shop"], movers)
		}
		if !c.want {
			continue
		}
		m, err := lease.ReadMoved(t.Context(), s.open(), "shop", lease.Mover(east))
		if err != nil || m.Lost != s.of || m.Request != "promotion-"+record.ID || m.Held != c.app.Held || m.Seen < m.Held || m.Leased != c.app.Leased {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
		s.check(lease.Verify(t.Context(), s.open(), nil))
	}
	s := newScene(t) // another has claimed it
	_, _, err := s.move(s.store, west, App{Name: "shop", Seen: 3, Held: 3})
	s.check(err)
	got, _, err := s.move(s.store, east, App{Name: "shop", Seen: 2, Held: 2})
	if movers, e := lease.Movers(t.Context(), s.open(), ""); err != nil || e != nil || !got["shop"].Noted || !slices.Equal(movers["shop"], []lease.Mover{lease.Mover(east)}) {
		t.Errorf("%+v, %v, %v, %v", got["shop"], movers, err, e)
	}
}

// TestNotedKilled at every write: whenever the command says that all is settled, it is
// noted; and what a try wrote that died, the next takes up, also one that claims after all.
func TestNotedKilled(t *testing.T) {
	leased := []App{{Name: "fresh", Seen: 1, Held: 1, Leased: true}, {Name: "shop", Seen: 2, Held: 2, Leased: true}}
	first := newScene(t)
	first.margin = 1
	for lives := 0; ; lives++ {
		for _, goOn := range []bool{false, true} {
			s := first.again()
			_, _, died := s.move(&mortal{s.store, lives}, east, leased...)
			apps := slices.Clone(leased)
			apps[1].Leased = !goOn
			got, _, err := s.move(s.store, east, apps...)
			s.check(err)
			movers, err := lease.Movers(t.Context(), s.open(), "")
			s.check(err)
			if len(movers["fresh"]) != 1 || !goOn && len(movers["shop"]) != 1 || (got["shop"].Verdict == Here) != goOn {
				t.Fatalf("killed at write %d, goes on %v: %v, %+v", lives, goOn, movers, got["shop"])
			}
			s.check(lease.Verify(t.Context(), s.open(), nil))
			if died == nil && goOn {
				return
			}
		}
	}
}

// TestForeseeOverruled says which site is stopped, and what of it is not offered.
func TestForeseeOverruled(t *testing.T) {
	s := newScene(t)
	got, _, err := s.move(s.store, east, App{Name: "shop", Seen: 2, Held: 2})
	s.check(err)
	s.publish(s.open(), "shop", "shop-new", got["shop"].Epoch, "east")
	app := App{Name: "shop", Seen: 3, Held: 3}
	foreseen, err := s.promoter(&mortal{s.store, 0}, west).Foresee(t.Context(), []App{app})
	s.check(err)
	i := slices.IndexFunc(foreseen, func(o Outcome) bool { return o.App == "shop" })
	got, _, err = s.move(s.store, west, app)
	s.check(err)
	for _, o := range []Outcome{foreseen[i], got["shop"]} {
		if o.From != "east" || o.Dropped != 1 || o.Points != 2 || len(s.good("shop")) != 2 {
			t.Errorf("%+v; %v are offered", o, s.good("shop"))
		}
	}
}

// TestAskedAtLast: what says no right before the marker leaves the store a copy.
func TestAskedAtLast(t *testing.T) {
	s := newScene(t)
	p := s.promoter(s.store, east)
	p.Lost = func(context.Context) error { return errDied }
	if _, err := p.Promote(t.Context()); !errors.Is(err, errDied) {
		t.Error(err)
	}
	if state, err := Look(t.Context(), s.store); err != nil || !state.Begun || state.Done {
		t.Errorf("%+v, %v", state, err)
	}
}

// TestLookRefuses what was never a copy.
func TestLookRefuses(t *testing.T) {
	store := mem.New(nil)
	if _, err := Look(t.Context(), store); !errors.Is(err, vault.ErrNotFound) {
		t.Error(err)
	}
	if _, err := vault.Init(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	if _, err := Look(t.Context(), store); !errors.Is(err, ErrOther) {
		t.Error(err)
	}
}

func FuzzRecord(f *testing.F) {
	good, err := Record{FormatVersion: 1, ID: "00112233445566778899aabbccddeeff", Of: "00112233445566778899aabbccddee00", KeyVersion: 2, Created: noon, Site: "east"}.encode()
	if err != nil {
		f.Fatal(err)
	}
	if _, err := parse(good); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"formatVersion":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parse(data)
		if err != nil {
			return
		}
		if again, err := r.encode(); err != nil || string(again) != string(data) {
			t.Errorf("%q is not the only text of %+v", data, r)
		}
	})
}
