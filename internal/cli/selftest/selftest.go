// Package selftest asks a vault for everything Davit relies on.
package selftest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/history"
)

const (
	testSize  = 64 << 10 // bytes of the object that is written and read back
	testRaces = 5        // rounds of racing writers
	testRacer = 8        // writers in a round
)

// Run asks a store for everything Davit relies on, in a corner of its own
// that it cleans up. The vault must never be trusted to do what it says: the
// conditional write is what keeps two sites from writing.
func Run(ctx context.Context, store vault.Store, now func() time.Time) Report {
	t := tester{store: store, now: now}
	report := Report{Store: store.String()}
	var suffix [8]byte
	if _, err := rand.Read(suffix[:]); err != nil {
		report.errs = append(report.errs, err)
		return report
	}
	t.prefix = "selftest/" + hex.EncodeToString(suffix[:]) + "/"
	defer t.cleanUp(ctx)
	for _, check := range []struct {
		name string
		run  func(ctx context.Context) (string, error)
	}{
		{"write and read back", t.roundTrip},
		{"conditional write", t.conditional},
		{"racing conditional writes", t.races},
		{"list", t.list},
		{"clock", t.clock},
		{"delete", t.delete},
	} {
		report.Add(check.name, func() (string, error) { return check.run(ctx) })
		if len(report.errs) > 0 {
			break // the rest would say the same in other words
		}
	}
	return report
}

// tester carries out one self-test.
type tester struct {
	store  vault.Store
	now    func() time.Time
	prefix string
}

func (t tester) roundTrip(ctx context.Context) (string, error) {
	data := make([]byte, testSize)
	if _, err := rand.Read(data); err != nil {
		return "", err
	}
	start := t.now()
	if err := t.store.Put(ctx, t.prefix+"object", bytes.NewReader(data), int64(len(data))); err != nil {
		return "", err
	}
	wrote := t.now().Sub(start)
	r, err := t.store.Get(ctx, t.prefix+"object", 0, -1)
	if err != nil {
		return "", err
	}
	defer r.Close()
	got, err := io.ReadAll(io.LimitReader(r, testSize+1))
	if err != nil {
		return "", err
	}
	if !bytes.Equal(got, data) {
		return "", fmt.Errorf("%w: %d bytes came back that were not written", vault.ErrDamaged, len(got))
	}
	return "a write of 64 KiB takes " + output.Duration(wrote), nil
}

func (t tester) once(ctx context.Context, key, body string) error {
	return t.store.PutIfAbsent(ctx, t.prefix+key, bytes.NewReader([]byte(body)), int64(len(body)))
}

func (t tester) conditional(ctx context.Context) (string, error) {
	if err := t.once(ctx, "once", "first"); err != nil {
		return "", err
	}
	err := t.once(ctx, "once", "second")
	switch {
	case errors.Is(err, vault.ErrExists):
		return "the second writer is refused", nil
	case err != nil:
		return "", err
	default:
		return "", errors.New("a second writer was let through: this store cannot keep two sites from writing; use one with conditional writes (If-None-Match)")
	}
}

// races lets several writers create one object at the same moment.
func (t tester) races(ctx context.Context) (string, error) {
	for round := range testRaces {
		won, err := t.race(ctx, fmt.Sprintf("race-%d", round))
		if err != nil {
			return "", err
		}
		if won != 1 {
			return "", fmt.Errorf("%d of %d racing writers were told that they came first: this store cannot keep two sites from writing", won, testRacer)
		}
	}
	return fmt.Sprintf("one of %d wins, %d times", testRacer, testRaces), nil
}

func (t tester) race(ctx context.Context, key string) (won int, err error) {
	errs := make([]error, testRacer)
	var group sync.WaitGroup
	for i := range errs {
		group.Go(func() { errs[i] = t.once(ctx, key, fmt.Sprint(i)) })
	}
	group.Wait()
	for _, e := range errs {
		switch {
		case e == nil:
			won++
		case !errors.Is(e, vault.ErrExists):
			err = errors.Join(err, e)
		}
	}
	return won, err
}

func (t tester) list(ctx context.Context) (string, error) {
	// Byte order puts them so; a store that sorts by path element does not.
	want := []string{"list/a", "list/b-c/x", "list/b.c/x", "list/b/1", "list/b/10", "list/b/2", "list/b0"}
	for _, key := range slices.Backward(want) {
		if err := t.once(ctx, key, key); err != nil {
			return "", err
		}
	}
	var got []string
	err := t.store.List(ctx, t.prefix+"list/", func(o vault.ObjectInfo) error {
		got = append(got, strings.TrimPrefix(o.Key, t.prefix))
		return nil
	})
	if err != nil {
		return "", err
	}
	if !slices.Equal(got, want) {
		return "", fmt.Errorf("just written were %q, and %q are listed: use a store that lists at once, in byte order", want, got)
	}
	return "what is written is listed at once, in order", nil
}

func (t tester) clock(ctx context.Context) (string, error) {
	info, err := t.store.Stat(ctx, t.prefix+"object")
	if err != nil {
		return "", err
	}
	skew := info.Modified.Sub(t.now())
	if skew.Abs() > vault.SafeSkew {
		return fmt.Sprintf("the vault's clock differs by %s: mend time synchronisation", output.Duration(skew.Truncate(time.Second))), nil
	}
	return "agrees with this machine's", nil
}

func (t tester) delete(ctx context.Context) (string, error) {
	t.cleanUp(ctx)
	_, err := t.store.Stat(ctx, t.prefix+"object")
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return "", nil
	case err != nil:
		return "", err
	default:
		return "space cannot be freed here: object lock, or no right to delete", nil
	}
}

// cleanUp removes what the test wrote, as far as it can.
func (t tester) cleanUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	var keys []string
	_ = t.store.List(ctx, t.prefix, func(o vault.ObjectInfo) error {
		keys = append(keys, o.Key)
		return nil
	})
	for _, key := range keys {
		_ = t.store.Delete(ctx, key)
	}
}

// Report is the outcome of a vault's test.
type Report struct {
	Store  string  `json:"store"`
	Checks []Check `json:"checks"`
	errs   []error
}

// Check is the outcome of one check.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
}

// Add carries out one check.
func (r *Report) Add(name string, check func() (string, error)) {
	detail, err := check()
	if err != nil {
		detail = err.Error()
		r.errs = append(r.errs, fmt.Errorf("%s: %w", name, err))
	}
	r.Checks = append(r.Checks, Check{Name: name, OK: err == nil, Detail: detail})
}

// NoOverwrite asks besides that these credentials can destroy nothing in the store.
func (r *Report) NoOverwrite(ctx context.Context, store vault.Store) {
	r.Add("no overwrite", func() (string, error) { return history.Prove(ctx, store) })
}

// Err joins what went wrong; nil means that the vault is usable.
func (r *Report) Err() error { return errors.Join(r.errs...) }

// Text is a table of the checks.
func (r Report) Text(t *output.Text) {
	t.Line("%s", r.Store)
	var rows [][]string
	for _, c := range r.Checks {
		state := "ok"
		if !c.OK {
			state = "FAILED"
		}
		rows = append(rows, []string{c.Name, state, c.Detail})
	}
	t.Table("", output.Columns("CHECK", "RESULT", "DETAIL"), rows)
}

// Document is all of it.
func (r Report) Document() any { return r }
