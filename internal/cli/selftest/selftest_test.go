package selftest

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fault"
	"davit.dev/davit/internal/vault/fs"
	"davit.dev/davit/internal/vault/mem"
)

// careless puts whether or not the key is taken, as some old servers do.
type careless struct{ vault.Store }

func (c careless) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	return c.Put(ctx, key, r, size)
}

// unsorted lists backwards.
type unsorted struct{ vault.Store }

func (u unsorted) List(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	var all []vault.ObjectInfo
	err := u.Store.List(ctx, prefix, func(o vault.ObjectInfo) error { all = append(all, o); return nil })
	for _, o := range slices.Backward(all) {
		err = errors.Join(err, fn(o))
	}
	return err
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	disk, err := fs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		store  vault.Store
		failed string // check
		says   string // by some check
	}{
		"memory":      {mem.New(nil), "", "in order"},
		"directory":   {disk, "", "one of 8 wins"},
		"careless":    {careless{mem.New(nil)}, "conditional write", "second writer was let through"},
		"unsorted":    {unsorted{mem.New(nil)}, "list", "byte order"},
		"silent":      {fault.New(mem.New(nil), 1, fault.Faults{Refuse: 1}), "write and read back", "injected"},
		"right clock": {fault.New(mem.New(nil), 1, fault.Faults{Skew: 20 * time.Second}), "", "agrees with this machine's"},
		"fast clock":  {fault.New(mem.New(nil), 1, fault.Faults{Skew: time.Hour}), "", "differs by"},
		"slow clock":  {fault.New(mem.New(nil), 1, fault.Faults{Skew: -time.Hour}), "", "differs by -"},
	} {
		report := Run(t.Context(), test.store, time.Now)
		var failed, said string
		for _, c := range report.Checks {
			said += c.Detail + "\n"
			if !c.OK {
				failed = c.Name
			}
		}
		if failed != test.failed || (report.Err() != nil) != (test.failed != "") || !strings.Contains(said, test.says) {
			t.Errorf("%s: failed %q, said %q; want %q, and %q said", name, failed, said, test.failed, test.says)
		}
	}
	_ = os.Remove(filepath.Join(dir, ".davit-tmp")) // stays, and fails the test, unless empty
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("the self-test left %v, %v", left, err)
	}
}
