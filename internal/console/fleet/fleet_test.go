package fleet

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/console/ahead"
	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/settlement"
	"davit.dev/davit/internal/settlement/settlementtest"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
	"davit.dev/davit/internal/vault/fault"
	"davit.dev/davit/internal/vault/mem"
	"davit.dev/davit/internal/vault/survey"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func filled(t *testing.T) (*vault.Project, *fault.Store) {
	t.Helper()
	store := fault.New(mem.New(func() time.Time { return now }), 1, fault.Faults{})
	p, _, err := consoletest.New(t.Context(), store, "acme")
	if err == nil {
		err = consoletest.Fill(t.Context(), p, now)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p, store
}

func TestRead(t *testing.T) {
	p, _ := filled(t)
	s, err := NewReader(p, survey.NewBudget(1<<20)).Read(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	if s.Project != "acme" || len(s.Sites) != 2 || len(s.Applications) != 2 || len(s.Runs) != 2 {
		t.Fatalf("%+v", s)
	}
	shop, _ := s.Application("shop")
	if lost, ok := shop.Lost(now); !ok || lost != 2*time.Minute || shop.State(now) != Protected || shop.Site != "east" || shop.Epoch != 1 || shop.RPO != 15*time.Minute || len(shop.Points) != 10 {
		t.Errorf("shop: lost %s, %+v", lost, shop)
	}
	if newest, oldest := shop.Points[0], shop.Points[9]; !newest.Kept || newest.Because != "newest good point" || oldest.Kept || oldest.Because == "" {
		t.Errorf("retention: %+v, %+v", newest, oldest)
	}
	wiki, _ := s.Application("wiki")
	if wiki.State(now) != Lagging || !wiki.Proven().Equal(wiki.Points[0].Verified) || wiki.Points[0].Consistency != "per-volume" {
		t.Errorf("wiki: %+v", wiki)
	}
	if got := s.Worst(now)[0].Name; got != "wiki" {
		t.Errorf("the worst is %s", got)
	}
	if r, _ := s.Run("drill-shop-2"); r.Over || r.Pause != "anna wants to look" || r.To != "west" {
		t.Errorf("%+v", r)
	}
	if r, _ := s.Run("drill-shop-1"); !r.Over {
		t.Errorf("%+v", r)
	}
	if n := s.Count(now); n[Protected] != 1 || n[Lagging] != 1 {
		t.Errorf("%v", n)
	}
}

// A run that is over is read once, but one that left something to people again when its journal grows.
func TestWhatIsSettledIsReadAgain(t *testing.T) {
	p, _ := filled(t)
	if err := journal.Create(p, "left", "e").Append(t.Context(), settlementtest.Left("left", "e", now)); err != nil {
		t.Fatal(err)
	}
	r := NewReader(p, survey.NewBudget(1<<20))
	settled := func() (names []string) {
		s, err := r.Read(t.Context(), now)
		if err != nil {
			t.Fatal(err)
		}
		run, _ := s.Run("left")
		if !run.Over || len(run.Remaining) != 2 {
			t.Fatalf("%+v", run)
		}
		for _, l := range run.Remaining {
			if l.Settled != nil {
				names = append(names, l.Step)
			}
		}
		return names
	}
	if got := settled(); len(got) > 0 {
		t.Errorf("settled: %v", got)
	}
	for _, step := range []string{"mail", "warm-up"} {
		w := settlement.Word{By: "ann", Reason: "done", Step: step}
		if _, why, err := settlement.Write(t.Context(), p, "left", "cli", w, time.Now); err != nil || why != "" {
			t.Fatal(why, err)
		}
		if got := settled(); !slices.Contains(got, step) {
			t.Errorf("settled %s: %v", step, got)
		}
	}
}

// What needs a person is named, with what to do; a fleet that is well asks for nothing.
func TestTasks(t *testing.T) {
	p, _ := filled(t)
	s, err := NewReader(p, survey.NewBudget(1<<20)).Read(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, task := range s.Tasks(now) {
		got = append(got, task.About+" "+task.Name)
		if task.What == "" || task.Do == "" {
			t.Errorf("%+v says nothing", task)
		}
	}
	if want := "application wiki, run drill-shop-2, application shop"; strings.Join(got, ", ") != want {
		t.Errorf("%s, want %s", strings.Join(got, ", "), want)
	}
	later := now.Add(time.Hour)
	if first := s.Tasks(later); len(first) < 4 || first[1].About != "site" {
		t.Errorf("silent sites are not named: %+v", first)
	}
	// Nothing but this says that a plan would not be declared before its source is lost.
	s.Ahead = &ahead.View{Plans: []ahead.Plan{
		{Name: "shop", Findings: []preflight.Finding{{Check: "declaration", Verdict: preflight.Warn, Reason: "site east has never given a sign of life", Remedy: "look there"}, {Check: "ttl", Verdict: preflight.Warn}}},
		{Name: "wiki", Findings: []preflight.Finding{{Check: "declaration", Verdict: preflight.OK}}},
	}}
	plans := slices.DeleteFunc(s.Tasks(now), func(task Task) bool { return task.About != "plan" })
	if len(plans) != 1 || plans[0].Name != "shop" || !strings.Contains(plans[0].What, "declared automatically, and site east has never") || plans[0].Do != "look there" {
		t.Errorf("%+v", plans)
	}
	s.Ahead, s.Runs, s.Applications = nil, nil, []Application{{Name: "shop", Points: []Point{{Good: true, Instant: now, Verified: now}}}}
	if all := s.Tasks(now); len(all) != 0 {
		t.Errorf("%+v", all)
	}
}

// What is damaged is a fault of its own, and the rest is shown.
func TestDamagedApplication(t *testing.T) {
	p, store := filled(t)
	var keys []string
	for _, prefix := range []string{p.Root() + "epochs/wiki/", p.Root() + "runs/drill-shop-2/"} {
		err := store.List(t.Context(), prefix, func(o vault.ObjectInfo) error {
			keys = append(keys, o.Key)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(keys) != 2 {
		t.Fatal(keys)
	}
	for _, key := range keys {
		if err := store.Put(t.Context(), key, strings.NewReader("spoiled"), 7); err != nil {
			t.Fatal(err)
		}
	}
	s, err := NewReader(p, survey.NewBudget(1<<20)).Read(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	wiki, _ := s.Application("wiki")
	shop, _ := s.Application("shop")
	run, _ := s.Run("drill-shop-2")
	if wiki.State(now) != Unknown || wiki.Fault == "" || shop.State(now) != Protected || run.Fault == "" {
		t.Errorf("wiki %q, shop %q, run %q", wiki.Fault, shop.Fault, run.Fault)
	}
}

// memory is a Memory for tests.
type memory struct {
	mu    sync.Mutex
	data  map[string][]byte
	names []string // that were kept last
}

func (m *memory) Kept(_ context.Context, name string) ([]byte, time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.data[name] == nil {
		return nil, time.Time{}, errors.New("nothing")
	}
	return m.data[name], now, nil
}

func (m *memory) Keep(_ context.Context, _ time.Time, all map[string][]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.data == nil {
		m.data = map[string][]byte{}
	}
	m.names = slices.Sorted(maps.Keys(all))
	for name, data := range all {
		if m.data[name] = data; len(data) == 0 {
			delete(m.data, name)
		}
	}
	return nil
}

// A vault that falls silent leaves what was known, and says so; so does a
// restart meanwhile; and when it answers again that is over.
func TestSilentVault(t *testing.T) {
	p, store := filled(t)
	kept := &memory{}
	watch := func() *Watch {
		return NewWatch(t.Context(), Options{
			Open: func(context.Context) (*vault.Project, error) { return p, nil }, Memory: kept, Budget: survey.NewBudget(1 << 20), Every: time.Hour, Limit: time.Minute,
			Now: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler),
		})
	}
	w := watch()
	if k := w.Known(); k.Snapshot != nil {
		t.Fatalf("%+v", k)
	}
	w.look(t.Context())
	if k := w.Known(); k.Silent() || k.Snapshot == nil || !k.Tried.Equal(now) {
		t.Fatalf("%+v", k)
	}
	store.Set(fault.Faults{Refuse: 1})
	again := watch()
	if k := again.Known(); k.Silent() || k.Old() == "" || k.Snapshot == nil || len(k.Snapshot.Applications) != 2 {
		t.Fatalf("after a restart: %+v", k)
	}
	for _, w := range []*Watch{w, again} {
		w.look(t.Context())
		if k := w.Known(); !k.Silent() || k.Snapshot == nil || !k.Snapshot.At.Equal(now) {
			t.Fatalf("%+v", k)
		}
	}
	store.Set(fault.Faults{})
	w.look(t.Context())
	if k := w.Known(); k.Silent() {
		t.Fatalf("%+v", k)
	}
}

// Run ends with its context, and a round can be waited for.
func TestRun(t *testing.T) {
	p, _ := filled(t)
	w := NewWatch(t.Context(), Options{
		Open: func(context.Context) (*vault.Project, error) { return p, nil }, Memory: &memory{}, Budget: survey.NewBudget(1 << 20), Every: time.Hour, Limit: time.Minute,
		Now: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler),
	})
	round := w.Round()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { w.Run(ctx); close(done) }()
	<-round
	if w.Known().Snapshot == nil {
		t.Error("a round ended without a snapshot")
	}
	cancel()
	<-done
}

// The way in opens the vault it was made for, and no other.
func TestBinding(t *testing.T) {
	p, store := filled(t)
	ring, err := vault.Admit(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	b := Binding{URL: "mem:", Keyring: ring.Secret()}
	open := func(s vault.Store) OpenStore {
		return func(context.Context, backend.Config) (vault.Store, error) { return s, nil }
	}
	q, _, err := b.Project(t.Context(), open(store))
	if err != nil {
		t.Fatal(err)
	}
	if s, err := NewReader(q, survey.NewBudget(1<<20)).Read(t.Context(), now); err != nil || len(s.Applications) != 2 {
		t.Error(s, err)
	}
	_, other := filled(t)
	if _, _, err := b.Project(t.Context(), open(other)); !errors.Is(err, vault.ErrKey) {
		t.Errorf("another vault: %v", err)
	}
}
