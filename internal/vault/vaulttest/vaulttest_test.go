package vaulttest_test

import (
	"testing"
	"time"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fault"
	"davit.dev/davit/internal/vault/fs"
	"davit.dev/davit/internal/vault/limit"
	"davit.dev/davit/internal/vault/mem"
	"davit.dev/davit/internal/vault/retry"
	"davit.dev/davit/internal/vault/vaulttest"
)

func TestMem(t *testing.T) {
	vaulttest.Run(t, func(*testing.T) vault.Store { return mem.New(nil) })
}

func TestFS(t *testing.T) {
	vaulttest.Run(t, func(t *testing.T) vault.Store {
		s, err := fs.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func TestLimit(t *testing.T) {
	vaulttest.Run(t, func(*testing.T) vault.Store {
		return limit.New(mem.New(nil), limit.Rates{RequestsPerSecond: 1e4, UploadPerSecond: 1 << 30, DownloadPerSecond: 1 << 30})
	})
}

// TestRetry runs the suite over a store that fails in a third of all
// operations and loses the answers of a third of the writes that happened:
// with retries nobody notices.
func TestRetry(t *testing.T) {
	vaulttest.Run(t, func(t *testing.T) vault.Store {
		faulty := fault.New(mem.New(nil), 7, fault.Faults{Refuse: 0.3, Lose: 0.3, Tear: 0.3})
		t.Cleanup(func() {
			if faulty.Count() == 0 && !t.Failed() {
				t.Error("no fault was injected")
			}
		})
		return retry.New(faulty, retry.Policy{Tries: 60, First: time.Microsecond, Max: 10 * time.Microsecond})
	})
}
