package fleet

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
	"davit.dev/davit/internal/vault/survey"
)

// gate is a store of which each read may be made to wait or fail.
type gate struct {
	vault.Store
	gets  atomic.Int64
	get   func(ctx context.Context, n int64, key string) error
	lists func(ctx context.Context) error
}

func (g *gate) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if n := g.gets.Add(1); g.get != nil {
		if err := g.get(ctx, n, key); err != nil {
			return nil, err
		}
	}
	return g.Store.Get(ctx, key, offset, length)
}

func (g *gate) List(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	if g.lists != nil {
		if err := g.lists(ctx); err != nil {
			return err
		}
	}
	return g.Store.List(ctx, prefix, fn)
}

// full is a vault with so much.
func full(t *testing.T, size consoletest.Size) (*vault.Project, *gate) {
	t.Helper()
	g := &gate{Store: mem.New(func() time.Time { return now })}
	p, _, err := consoletest.New(t.Context(), g, "acme")
	if err == nil {
		err = consoletest.Crowd(t.Context(), p, now, size)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p, g
}

// surveyed is how many lists a round makes.
const surveyed = 8

// TestCalls: a round over what has not changed costs the same few lists however much there
// is, also after a restart, and what is new costs what is new.
func TestCalls(t *testing.T) {
	size := consoletest.Size{Applications: 12, Points: 5, Runs: 60, Sites: 3}
	p, _ := full(t, size)
	r := NewReader(p, survey.NewBudget(64<<20))
	calls := func(what string, want int64) {
		t.Helper()
		before := r.survey.Calls()
		if err := r.Round(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		if got := r.survey.Calls() - before; got != want {
			t.Errorf("%s: %d calls, want %d", what, got, want)
		}
	}
	// Of each application its points, its epoch and its document; of each run the summary;
	// of the newest runs of the plans their journals of two records; of each site its sign.
	const whole = 2 * mostWhole
	calls("all is new", int64(surveyed+size.Applications*(size.Points+2)+size.Runs+2*whole+size.Sites))
	calls("nothing is new", surveyed)
	if err := consoletest.AddPoint(t.Context(), p, consoletest.Name(3), now.Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	calls("a point is", surveyed+1)
	s := r.Snapshot()
	if a, _ := s.Application(consoletest.Name(3)); len(a.Points) != size.Points+1 || !a.Points[0].Instant.Equal(now.Add(-time.Second)) || !a.Points[0].Good {
		t.Errorf("%+v", a)
	}

	kept, err := r.book.unkept()
	if err != nil {
		t.Fatal(err)
	}
	b := newBook()
	if !b.restore(func(name string) []byte { return kept[name] }, now) {
		t.Fatal("nothing was kept")
	}
	r = newReader(p, survey.NewBudget(64<<20), b)
	calls("after a restart", surveyed)
	again, errA := json.Marshal(r.Snapshot())
	first, errB := json.Marshal(s)
	if errors.Join(errA, errB) != nil || strings.Replace(string(first), fmt.Sprintf(`"calls":%d`, s.Calls), fmt.Sprintf(`"calls":%d`, surveyed), 1) != string(again) {
		t.Errorf("after a restart it is\n%s\nand was\n%s", again, first)
	}
}

// TestCutRounds: each round is cut after a few reads, and what it had read is kept, so
// that at last all is known. That is not so where each begins anew.
func TestCutRounds(t *testing.T) {
	size := consoletest.Size{Applications: 10, Points: 8, Runs: 4, Sites: 2}
	p, g := full(t, size)
	const each = 30
	var cut context.CancelCauseFunc
	var begun int64
	g.get = func(_ context.Context, n int64, _ string) error {
		if n-begun > each {
			cut(errors.New("cut"))
			return vault.ErrUnavailable
		}
		return nil
	}
	rounds := func(r func() *Reader) (n, unread int) {
		for n = 1; n <= 8; n++ {
			ctx, cancel := context.WithCancelCause(t.Context())
			cut, begun = cancel, g.gets.Load()
			reader := r()
			err := reader.Round(ctx, now.Add(time.Duration(n)*time.Second))
			cancel(nil)
			if unread = reader.Snapshot().Unread; err == nil {
				break
			}
		}
		return n, unread
	}
	one := NewReader(p, survey.NewBudget(64<<20))
	if n, unread := rounds(func() *Reader { return one }); n < 3 || n > 6 || unread != 0 {
		t.Errorf("whole after %d rounds, %d unread", n, unread)
	}
	if n, unread := rounds(func() *Reader { return NewReader(p, survey.NewBudget(64<<20)) }); n <= 8 || unread == 0 {
		t.Errorf("without what was read before it is whole after %d rounds, %d unread: this shows nothing", n, unread)
	}
}

// TestOneSilentObject: one that never comes keeps nothing else from being read, and what
// was known of its application stays, as of when that was.
func TestOneSilentObject(t *testing.T) {
	p, g := full(t, consoletest.Size{Applications: 6, Points: 3, Sites: 1})
	r := NewReader(p, survey.NewBudget(0))
	if err := r.Round(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		if err := consoletest.AddPoint(t.Context(), p, consoletest.Name(i), now); err != nil {
			t.Fatal(err)
		}
	}
	bad := consoletest.Name(2)
	g.get = func(_ context.Context, _ int64, key string) error {
		if strings.Contains(key, "/manifests/"+bad+"/") {
			return fmt.Errorf("not now: %w", vault.ErrUnavailable)
		}
		return nil
	}
	later := now.Add(3 * time.Minute)
	for range 2 {
		if err := r.Round(t.Context(), later); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range r.Snapshot().Applications {
		want := 4
		if a.Name == bad {
			want = 3
		}
		if len(a.Points) != want || (a.Stale != "") != (a.Name == bad) || a.Read.Equal(later) == (a.Name == bad) || a.Fault != "" {
			t.Errorf("%s: %d points, as of %s, %q, %q", a.Name, len(a.Points), a.Read, a.Stale, a.Fault)
		}
	}
	g.get = nil
	if err := r.Round(t.Context(), later.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if a, _ := r.Snapshot().Application(bad); len(a.Points) != 4 || a.Stale != "" {
		t.Errorf("%+v", a)
	}
}

// TestDamageThatIsOver: what could not be opened is tried again, though the vault lists
// the same.
func TestDamageThatIsOver(t *testing.T) {
	p, g := full(t, consoletest.Size{Applications: 3, Points: 2, Sites: 1})
	bad := map[string]string{consoletest.Name(0): "/manifests/", consoletest.Name(1): "/epochs/"}
	g.get = func(_ context.Context, _ int64, key string) error {
		for app, what := range bad {
			if strings.Contains(key, what+app+"/") {
				return fmt.Errorf("no key for it: %w", vault.ErrDamaged)
			}
		}
		return nil
	}
	r := NewReader(p, survey.NewBudget(0))
	well := func(after time.Duration) string {
		t.Helper()
		if err := r.Round(t.Context(), now.Add(after)); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, a := range r.Snapshot().Applications {
			if a.State(now) == Protected {
				names = append(names, a.Name)
			}
		}
		return strings.Join(names, " ")
	}
	if got := well(0); got != consoletest.Name(2) {
		t.Errorf("with damage protected are %s", got)
	}
	g.get = nil
	for i := range 4 { // what is known is judged meanwhile
		if got := well(time.Duration(i+1) * judgeEvery); got != consoletest.Name(2) {
			t.Errorf("before it was read again protected are %s", got)
		}
	}
	if got := well(again); len(strings.Fields(got)) != 3 {
		t.Errorf("when it is over protected are %s", got)
	}
}

// TestSlowIsNotSilent: a vault that is slow is read to its end, however long that takes,
// and what is known already is shown meanwhile; of one that says nothing it is said.
func TestSlowIsNotSilent(t *testing.T) {
	p, g := full(t, consoletest.Size{Applications: 20, Points: 20, Sites: 1})
	synctest.Test(t, func(t *testing.T) {
		w := NewWatch(t.Context(), Options{
			Open: func(context.Context) (*vault.Project, error) { return p, nil }, Memory: &memory{}, Budget: survey.NewBudget(1 << 20),
			Every: 15 * time.Second, Limit: time.Minute, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		})
		wait := func(long time.Duration) func(ctx context.Context) error {
			return func(ctx context.Context) error {
				select {
				case <-time.After(long):
					return nil
				case <-ctx.Done():
					return fmt.Errorf("%w: %w", vault.ErrUnavailable, context.Cause(ctx))
				}
			}
		}
		slow := wait(20 * time.Second)
		g.lists = slow
		g.get = func(ctx context.Context, _ int64, _ string) error { // decoders are shared with tests that keep other time: it has nothing
			return cmp.Or(slow(ctx), vault.ErrNotFound)
		}
		done := make(chan struct{})
		begun := time.Now()
		go func() { w.look(t.Context()); close(done) }()
		var halves []int
		for over := false; !over; {
			time.Sleep(40 * time.Second) // the bubble's clock
			synctest.Wait()
			k := w.Known()
			if k.Fault != "" {
				t.Fatalf("after %s it says %q", time.Since(begun), k.Fault)
			}
			if k.Snapshot != nil {
				halves = append(halves, k.Snapshot.Unread)
			}
			select {
			case <-done:
				over = true
			default:
				if k.Old() == "" || k.Reading.IsZero() {
					t.Fatalf("nothing says that it is not whole: %+v", k)
				}
			}
		}
		if took := time.Since(begun); took < 10*time.Minute {
			t.Errorf("it took %s, which shows nothing", took)
		}
		if n := len(halves); n < 3 || !slices.IsSortedFunc(halves, func(a, b int) int { return b - a }) || halves[n/2] == 0 || halves[n/2] == 20 || halves[n-1] != 0 {
			t.Errorf("unread: %v", halves)
		}
		w.background.Wait()

		g.lists = wait(time.Hour)
		w.look(t.Context())
		if k := w.Known(); !strings.Contains(k.Fault, "did not answer within 1m0s") || k.Snapshot == nil || k.Snapshot.Unread != 0 {
			t.Errorf("of a silent vault: %q", k.Fault)
		}
	})
	g.get, g.lists = nil, nil
}

// TestRunsKept: the newest of each plan that are over are known with their steps, others
// in short, those that are not over all. A journal has the rest.
func TestRunsKept(t *testing.T) {
	p, _ := full(t, consoletest.Size{Applications: 1, Points: 1, Runs: 2 * (mostWhole + 5), Open: 7})
	r := NewReader(p, survey.NewBudget(1<<20))
	if err := r.Round(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	whole, brief, open := map[string]int{}, map[string]int{}, 0
	var last Run
	for _, run := range r.Snapshot().Runs {
		switch {
		case !run.Over:
			open++
		case run.Brief:
			brief[run.Plan]++
			last = run
		default:
			whole[run.Plan]++
			if brief[run.Plan] > 0 || len(run.Steps) == 0 {
				t.Errorf("%s: is older than one in short, or has no steps", run.Run)
			}
		}
	}
	if open != 7 || len(whole) != 2 || len(brief) != 2 {
		t.Errorf("%d open, %v whole, %v in short", open, whole, brief)
	}
	for of, n := range whole {
		if n != mostWhole || brief[of] != 5 {
			t.Errorf("of %s %d whole, %d in short", of, n, brief[of])
		}
	}
	all, err := Journaled(t.Context(), p, last.Run)
	if err != nil || all.Run != last.Run || len(all.Steps) == 0 || all.State != last.State || !all.Begun.Equal(last.Begun) {
		t.Errorf("%+v, %v; in short %+v", all, err, last)
	}
	if _, err := Journaled(t.Context(), p, "no-such-run"); !errors.Is(err, vault.ErrNotFound) {
		t.Error(err)
	}
}

// TestKeptParts: what has not changed is not written again.
func TestKeptParts(t *testing.T) {
	p, _ := full(t, consoletest.Size{Applications: 5, Points: 2, Runs: 3, Sites: 2})
	kept := &memory{}
	w := NewWatch(t.Context(), Options{
		Open: func(context.Context) (*vault.Project, error) { return p, nil }, Memory: kept, Budget: survey.NewBudget(1 << 20), Every: time.Hour, Limit: time.Minute,
		Now: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler),
	})
	look := func() string {
		w.look(t.Context())
		w.background.Wait()
		w.look(t.Context())
		return strings.Join(kept.names, " ")
	}
	if got := look(); got != headName {
		t.Errorf("when nothing is new it keeps %s", got)
	}
	if err := consoletest.AddPoint(t.Context(), p, consoletest.Name(1), now); err != nil {
		t.Fatal(err)
	}
	w.look(t.Context())
	if got, want := strings.Join(kept.names, " "), headName+" "+appsName+consoletest.Name(1); got != want {
		t.Errorf("of a new point it keeps %s, want %s", got, want)
	}
	for _, prefix := range []string{"manifests/", "marks/", "epochs/", "apps/"} {
		var keys []string
		err := p.Store().List(t.Context(), p.Root()+prefix+consoletest.Name(4)+"/", func(o vault.ObjectInfo) error { keys = append(keys, o.Key); return nil })
		for _, key := range keys {
			err = errors.Join(err, p.Store().Delete(t.Context(), key))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	w.look(t.Context())
	if got, want := strings.Join(kept.names, " "), headName+" "+appsName+consoletest.Name(4)+" "+namesName; got != want || kept.data[appsName+consoletest.Name(4)] != nil {
		t.Errorf("of one that is gone it keeps %s, want %s", got, want)
	}
}

// TestMemory bounds what a point and a run cost, and that rounds leave nothing behind.
func TestMemory(t *testing.T) {
	size := consoletest.Size{Applications: 100, Points: 50, Runs: 100}
	p, _ := full(t, size)
	before := heap()
	r := NewReader(p, survey.NewBudget(1<<20))
	look := func() {
		t.Helper()
		if err := r.Round(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		_ = r.Snapshot()
	}
	look()
	first := heap()
	// 1 MiB of objects, 1.5 KiB for each point and 20 KiB for each of the runs that are whole.
	if most := int64(1<<20 + size.Applications*size.Points*1536 + 2*mostWhole*20<<10); first-before > most {
		t.Errorf("it takes %d KiB, more than %d KiB", (first-before)>>10, most>>10)
	}
	for range 3 {
		look()
	}
	if grown := heap() - first; grown > 1<<20 {
		t.Errorf("three rounds left %d KiB behind", grown>>10)
	}
	t.Logf("%d KiB for %d points and %d runs", (first-before)>>10, size.Applications*size.Points, size.Runs)
	runtime.KeepAlive(r)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // it is not that much
}

// TestFaultStays: what is wrong with an application is over when it was read that it is, and
// not when it could not be read for a while; a clock that was ahead does not put that off.
func TestFaultStays(t *testing.T) {
	p, g := full(t, consoletest.Size{Applications: 1, Points: 2, Sites: 1})
	for _, what := range []string{"/epochs/", "/apps/"} {
		r := NewReader(p, survey.NewBudget(0))
		round := func(at time.Time, err error) Application {
			t.Helper()
			g.get = func(_ context.Context, _ int64, key string) error {
				if strings.Contains(key, what) {
					return err
				}
				return nil
			}
			if err := r.Round(t.Context(), at); err != nil {
				t.Fatal(err)
			}
			return r.Snapshot().Applications[0]
		}
		ahead := now.Add(240 * time.Hour)
		if a := round(ahead, vault.ErrDamaged); a.Fault == "" || a.State(now) != Unknown {
			t.Errorf("%s: the control: %+v", what, a)
		}
		for _, err := range []error{vault.ErrUnavailable, vault.ErrDamaged} { // the clock is right again
			if a := round(now, err); a.Fault == "" || (a.Stale != "") != errors.Is(err, vault.ErrUnavailable) {
				t.Errorf("%s: after %v it is %q, stale %q", what, err, a.Fault, a.Stale)
			}
		}
		if a := round(now.Add(again), nil); a.Fault != "" || a.State(now) != Protected {
			t.Errorf("%s: when it is over: %+v", what, a)
		}
	}
}

// TestCameDamaged: what came damaged is not remembered so for good, though the vault lists
// the same all the time.
func TestCameDamaged(t *testing.T) {
	p, g := full(t, consoletest.Size{Applications: 1, Points: 1, Runs: 1, Sites: 1})
	whole := map[string][]byte{}
	put := func(change func(data []byte)) {
		t.Helper()
		for key, data := range whole {
			data = slices.Clone(data)
			change(data)
			if err := g.Put(t.Context(), key, bytes.NewReader(data), int64(len(data))); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, prefix := range []string{"epochs/", "runs/", "manifests/"} {
		err := g.List(t.Context(), p.Root()+prefix, func(o vault.ObjectInfo) error {
			b, err := g.Get(t.Context(), o.Key, 0, -1)
			if err != nil {
				return err
			}
			whole[o.Key], err = io.ReadAll(b)
			return errors.Join(err, b.Close())
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	put(func(data []byte) { data[len(data)/2] ^= 1 })
	r := NewReader(p, survey.NewBudget(1<<20))
	look := func(at time.Time) (app, run string) {
		t.Helper()
		if err := r.Round(t.Context(), at); err != nil {
			t.Fatal(err)
		}
		s := r.Snapshot()
		return string(s.Applications[0].State(now)), s.Runs[0].Fault
	}
	if app, run := look(now); app == string(Protected) || run == "" {
		t.Errorf("the control: %s, %q", app, run)
	}
	put(func([]byte) {})
	if app, run := look(now.Add(again)); app != string(Protected) || run != "" {
		t.Errorf("it is remembered as %s, %q", app, run)
	}
}

// TestNothingIsLeftOut: a run and a site that are there and could not be read yet are shown
// as that.
func TestNothingIsLeftOut(t *testing.T) {
	p, g := full(t, consoletest.Size{Applications: 1, Points: 1, Open: 2, Sites: 2})
	g.get = func(_ context.Context, _ int64, key string) error {
		if strings.Contains(key, "/runs/plan-0-") || strings.HasSuffix(key, "/sites/site-001") {
			return vault.ErrUnavailable
		}
		return nil
	}
	r := NewReader(p, survey.NewBudget(1<<20))
	look := func() (faults []string) {
		t.Helper()
		if err := r.Round(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		s := r.Snapshot()
		if len(s.Runs) != 2 || len(s.Sites) != 2 {
			t.Errorf("%d runs, %d sites", len(s.Runs), len(s.Sites))
		}
		for _, run := range s.Runs {
			if run.Fault != "" {
				faults = append(faults, run.Run[:len("plan-0")])
			}
		}
		for _, site := range s.Sites {
			if site.Fault != "" {
				faults = append(faults, site.Name)
			}
		}
		return faults
	}
	for range 2 {
		if got := strings.Join(look(), " "); got != "plan-0 site-001" {
			t.Errorf("not read: %s", got)
		}
	}
	g.get = nil
	if got := look(); len(got) != 0 {
		t.Errorf("not read when they can be: %s", got)
	}
}
