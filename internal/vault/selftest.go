package vault

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of SelfTest.
const (
	selfTestRacers  = 8
	selfTestRounds  = 3
	maxSafeSkew     = 30 * time.Second
	selfTestPayload = 64 << 10 // bytes
)

// Report is what SelfTest found out about a store.
type Report struct {
	Checks []Check
	// Latency is how long a small object took to be written and to be read,
	// the slower of a few tries.
	WriteLatency, ReadLatency time.Duration
	// Skew is the store's clock minus ours. It is exact to a second or so.
	Skew time.Duration
}

// Check is the verdict on one property.
type Check struct {
	Name   string // for people: "conditional put", ...
	Err    error  // nil: passed
	Advice string // what to do when it failed
	Severe bool   // a vault that fails it must not be used
}

// Err returns what makes the store unfit for a vault, or nil.
func (r *Report) Err() error {
	var errs []error
	for _, c := range r.Checks {
		if c.Severe && c.Err != nil {
			errs = append(errs, fmt.Errorf("%s: %w: %s", c.Name, c.Err, c.Advice))
		}
	}
	return errors.Join(errs...)
}

// errConformance says that the store does not do what a vault relies on.
var errConformance = errors.New("store does not conform")

// SelfTest tries out, under a name of its own that it removes again, what a
// vault relies on. It is run when a vault is added. The error is that of
// Report.Err.
func SelfTest(ctx context.Context, store Store) (*Report, error) {
	t := selfTest{store: store, prefix: "self-test/" + strings.ToLower(rand.Text()) + "/", report: &Report{}}
	checks := []struct {
		check Check
		run   func(context.Context) error
	}{
		{Check{Name: "write and read back", Severe: true, Advice: "check address, keys and rights"}, t.readAfterWrite},
		{Check{Name: "conditional put", Severe: true, Advice: "without it two sites could both believe to be the writer: use a store that honours If-None-Match"}, t.conditionalPut},
		{Check{Name: "list order", Severe: true, Advice: "use a store that lists in byte order"}, t.listOrder},
		{Check{Name: "clock", Advice: "set this machine's clock or the store's right"}, t.clock},
		{Check{Name: "delete", Severe: true, Advice: "without it no space is ever reclaimed: grant the key the right to delete"}, t.cleanUp},
	}
	for _, c := range checks {
		c.check.Err = c.run(ctx)
		t.report.Checks = append(t.report.Checks, c.check)
		if c.check.Err != nil && len(t.report.Checks) == 1 {
			break // nothing else can be told
		}
	}
	return t.report, t.report.Err()
}

type selfTest struct {
	store  Store
	prefix string
	report *Report
}

func (t *selfTest) put(ctx context.Context, name, data string) error {
	return t.store.Put(ctx, t.prefix+name, strings.NewReader(data), int64(len(data)))
}

func (t *selfTest) get(ctx context.Context, name string) (string, error) {
	data, err := readAll(ctx, t.store, t.prefix+name, maxPlain)
	return string(data), err
}

// readAfterWrite replaces an object several times and reads each version at once.
func (t *selfTest) readAfterWrite(ctx context.Context) error {
	for round := range selfTestRounds {
		data := strings.Repeat(string(rune('a'+round)), selfTestPayload)
		began := time.Now()
		if err := t.put(ctx, "data", data); err != nil {
			return err
		}
		wrote := time.Now()
		got, err := t.get(ctx, "data")
		if err != nil {
			return err
		}
		t.report.WriteLatency = max(t.report.WriteLatency, wrote.Sub(began))
		t.report.ReadLatency = max(t.report.ReadLatency, time.Since(wrote))
		if got != data {
			return fmt.Errorf("%w: what was read is not what was just written", errConformance)
		}
	}
	return t.ranged(ctx)
}

func (t *selfTest) ranged(ctx context.Context) error {
	r, err := t.store.Get(ctx, t.prefix+"data", 10, 5)
	if err != nil {
		return err
	}
	defer r.Close()
	part, err := io.ReadAll(r)
	if err == nil && len(part) != 5 {
		err = fmt.Errorf("%w: asked for 5 bytes, got %d", errConformance, len(part))
	}
	return err
}

// conditionalPut lets callers race for free and for taken keys.
func (t *selfTest) conditionalPut(ctx context.Context) error {
	for round := range selfTestRounds {
		name := fmt.Sprintf("race-%d", round)
		won, err := t.race(ctx, name)
		if err != nil {
			return err
		}
		if len(won) != 1 {
			return fmt.Errorf("%w: of %d writers racing for one key %d won", errConformance, selfTestRacers, len(won))
		}
		got, err := t.get(ctx, name)
		if err != nil {
			return err
		}
		if got != won[0] {
			return fmt.Errorf("%w: the object is not the winner's", errConformance)
		}
	}
	return nil
}

// race returns what the winners wrote.
func (t *selfTest) race(ctx context.Context, name string) (won []string, err error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range selfTestRacers {
		wg.Go(func() {
			data := fmt.Sprintf("writer %d", i)
			putErr := t.store.PutIfAbsent(ctx, t.prefix+name, strings.NewReader(data), int64(len(data)))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case putErr == nil:
				won = append(won, data)
			case !errors.Is(putErr, ErrExists):
				err = errors.Join(err, putErr)
			}
		})
	}
	wg.Wait()
	return won, err
}

func (t *selfTest) listOrder(ctx context.Context) error {
	names := []string{"list/a", "list/b-c/x", "list/b.c/x", "list/b/1", "list/b/10", "list/b/2", "list/b0"}
	for _, name := range slices.Backward(names) {
		if err := t.put(ctx, name, name); err != nil {
			return err
		}
	}
	got, err := listKeys(ctx, t.store, t.prefix+"list/")
	if err != nil {
		return err
	}
	for i, name := range names {
		if len(got) != len(names) || "list/"+got[i] != name {
			return fmt.Errorf("%w: wrote %q, listed %q", errConformance, names, got)
		}
	}
	return nil
}

func (t *selfTest) clock(ctx context.Context) error {
	began := time.Now()
	if err := t.put(ctx, "clock", ""); err != nil {
		return err
	}
	ours := began.Add(time.Since(began) / 2)
	info, err := t.store.Stat(ctx, t.prefix+"clock")
	if err != nil {
		return err
	}
	t.report.Skew = info.Modified.Sub(ours)
	if t.report.Skew.Abs() > maxSafeSkew {
		return fmt.Errorf("%w: the store's clock is %v off ours", errConformance, t.report.Skew.Round(time.Second))
	}
	return nil
}

func (t *selfTest) cleanUp(ctx context.Context) error {
	if err := deleteAll(ctx, t.store, t.prefix, nil); err != nil {
		return err
	}
	left, err := listKeys(ctx, t.store, t.prefix)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%w: %d deleted objects are still listed", errConformance, len(left))
	}
	return err
}
