package register_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/register"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// faulty counts what is asked of a store, and answers for some keys with an error,
// or not at all.
type faulty struct {
	vault.Store
	asked   atomic.Int64
	broken  []string
	waiting []string
}

func has(parts []string, key string) bool {
	for _, part := range parts {
		if strings.Contains(key, part) {
			return true
		}
	}
	return false
}

func (f *faulty) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	f.asked.Add(1)
	if has(f.waiting, key) {
		<-ctx.Done()
		return nil, fmt.Errorf("%w: %w", vault.ErrUnavailable, ctx.Err())
	}
	if has(f.broken, key) {
		return nil, fmt.Errorf("%w: as the test says", vault.ErrUnavailable)
	}
	return f.Store.Get(ctx, key, offset, length)
}

func (f *faulty) List(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	f.asked.Add(1)
	return f.Store.List(ctx, prefix, fn)
}

// faultyProject is a project in a faulty store whose clock is set by hand.
func faultyProject(t *testing.T) (*vault.Project, *faulty, *time.Time) {
	t.Helper()
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 27, 4, 0, 0, 0, time.UTC)
	f := &faulty{Store: mem.New(func() time.Time { return now })}
	p, err := vault.CreateProject(t.Context(), f, "default", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	return p, f, &now
}

// sum keeps the summary of a run that was completed.
func sum(t *testing.T, p *vault.Project, run string) {
	t.Helper()
	data, err := json.Marshal(register.Summary{FormatVersion: 1, Run: run, Phase: failover.Completed})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.WriteSealed(t.Context(), p.Root()+"ended/"+run, data); err != nil {
		t.Fatal(err)
	}
}

// unnoted opens a run and takes its note away.
func unnoted(t *testing.T, p *vault.Project, run string) {
	t.Helper()
	begun(t, p, run)
	if err := register.New(p).Forget(t.Context(), run); err != nil {
		t.Fatal(err)
	}
}

func names(states []*failover.State) string {
	var all []string
	for _, s := range states {
		all = append(all, s.Spec.Run)
	}
	return strings.Join(all, " ")
}

// TestWhatEndedLongAgoIsNotRead: the start of a run asks no more of the vault for the
// hundreds that ended before, and still finds those that were hidden.
func TestWhatEndedLongAgoIsNotRead(t *testing.T) {
	p, f, now := faultyProject(t)
	for i := range 400 {
		run := fmt.Sprintf("%s-%03d", []string{"shop", "cash"}[i%2], i)
		plant(t, p, "runs/"+run+"/00000000000000000001") // reading it would be counted
		sum(t, p, run)
	}
	*now = now.Add(30 * 24 * time.Hour)
	sum(t, p, "shop-new")
	sum(t, p, "cash-new")
	ask := func(want string) int64 {
		t.Helper()
		before := f.asked.Load()
		states, err := register.New(p).States(t.Context(), "shop", "")
		if got := names(states); err != nil || got != want {
			t.Errorf("under way: %s, %v; want %s", got, err, want)
		}
		return f.asked.Load() - before
	}
	if asked := ask(""); asked > 20 {
		t.Errorf("%d requests", asked)
	}
	unnoted(t, p, "shop-1") // no summary
	unnoted(t, p, "cash-1")
	plant(t, p, "ended/cash-1")
	unnoted(t, p, "mine")
	plant(t, p, "ended/mine")
	if asked := ask("shop-1 cash-1 mine"); asked > 60 {
		t.Errorf("%d requests", asked)
	}
}

// TestAnothersSummaryEndsNoStart: a summary that the store does not give away, of
// another plan's run, is nothing to a plan; of its own the journal tells, and where
// that is not given away either, nobody knows whether the plan's run goes on.
func TestAnothersSummaryEndsNoStart(t *testing.T) {
	p, f, _ := faultyProject(t)
	for _, run := range []string{"cash-1", "shop-1"} {
		begun(t, p, run)
		if err := register.New(p).End(t.Context(), cancel(t, p, run)); err != nil {
			t.Fatal(err)
		}
	}
	unnoted(t, p, "cash-2")
	unnoted(t, p, "shop-2")
	for _, c := range []struct {
		broken []string
		want   string
		fails  bool
	}{
		{[]string{"ended/cash-1"}, "shop-2 cash-2", false},
		{[]string{"ended/cash-1", "runs/cash-1/"}, "shop-2 cash-2", false},
		{[]string{"ended/cash-1", "runs/cash-1/", "runs/cash-2/"}, "shop-2", false},
		{[]string{"ended/shop-1"}, "shop-2 cash-2", false},
		{[]string{"ended/shop-1", "runs/shop-1/"}, "", true},
		{[]string{"runs/shop-2/"}, "", true},
	} {
		f.broken = c.broken
		states, err := register.New(p).States(t.Context(), "shop", "")
		if got := names(states); got != c.want || (err != nil) != c.fails {
			t.Errorf("%v: %s, %v", c.broken, got, err)
		}
	}
}

// TestASlowSummaryDelaysNoStart: what is not answered of other plans is waited for only
// so long, and then passed over.
func TestASlowSummaryDelaysNoStart(t *testing.T) {
	t.Cleanup(register.LookFor(time.Millisecond))
	p, f, _ := faultyProject(t)
	for i := range 20 {
		sum(t, p, fmt.Sprintf("cash-%02d", i))
	}
	unnoted(t, p, "shop-1")
	plant(t, p, "ended/shop-1")
	f.waiting = []string{"ended/cash-"}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute) // if it does wait
	defer stop()
	states, err := register.New(p).States(ctx, "shop", "")
	if got := names(states); err != nil || got != "shop-1" {
		t.Errorf("under way: %s, %v", got, err)
	}
	stop()
	if _, err := register.New(p).States(ctx, "shop", ""); err == nil {
		t.Error("who was told to stop says what is under way")
	}
}
