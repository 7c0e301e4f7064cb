package backend_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
	"davit.dev/davit/internal/vault/limit"
	"davit.dev/davit/internal/vault/vaulttest"
)

func TestAddresses(t *testing.T) {
	dir := t.TempDir()
	good := map[string]string{
		"mem:":            "mem:",
		"file://" + dir:   "file://" + dir,
		"s3://b":          "s3://b/",
		"s3://b/a/prefix": "s3://b/a/prefix/",
		"s3://b/p/?endpoint=http://127.0.0.1:1&insecureHTTP=true&region=r&pathStyle=false": "s3://b/p/",
	}
	for address, want := range good {
		s, err := backend.Open(t.Context(), backend.Config{URL: address, AccessKey: "a", SecretKey: "s"})
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		if s.String() != want {
			t.Errorf("%s became %s, want %s", address, s, want)
		}
	}
	bad := map[string]string{
		"":                                 "want s3://",
		"s3://":                            "no bucket given",
		"gs://bucket":                      "want s3://",
		"file://relative/dir":              "want s3://",
		"file://" + dir + "/missing":       "create the directory",
		"file://" + dir + "?x=1":           "want s3://",
		"s3://b?endpiont=x":                `unknown option "endpiont"`,
		"s3://b?region=a&region=b":         "given 2 times",
		"s3://b?pathStyle=maybe":           "want true or false",
		"s3://key:topsecret@b":             "do not belong into the address",
		"s3://b?endpoint=http://127.0.0.1": "has no TLS",
		"s3://b?%zz":                       "want s3://",
		"s3://b\x7f:topsecret@c":           "want s3://",
	}
	for address, says := range bad {
		_, err := backend.Open(t.Context(), backend.Config{URL: address, AccessKey: "a", SecretKey: "s"})
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want it to say %q", address, err, says)
		}
		if err != nil && strings.Contains(err.Error(), "topsecret") {
			t.Errorf("the error shows a secret: %v", err)
		}
	}
}

func TestContract(t *testing.T) {
	vaulttest.Run(t, func(t *testing.T) vault.Store {
		s, err := backend.Open(t.Context(), backend.Config{URL: "file://" + t.TempDir(), Rates: limit.Rates{RequestsPerSecond: 1e5}})
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

// TestSelfTest runs on stores that conform and on one that does not.
func TestSelfTest(t *testing.T) {
	dir := t.TempDir()
	for _, address := range []string{"mem:", "file://" + dir} {
		s, err := backend.Open(t.Context(), backend.Config{URL: address})
		if err != nil {
			t.Fatal(err)
		}
		report, err := vault.SelfTest(t.Context(), s)
		if err != nil || len(report.Checks) != 5 || report.WriteLatency <= 0 {
			t.Errorf("%s: %+v, %v", address, report, err)
		}
		if _, err := vault.SelfTest(t.Context(), careless{s}); err == nil || !strings.Contains(err.Error(), "conditional put") {
			t.Errorf("a store that ignores If-None-Match: %v", err)
		}
	}
	err := os.Remove(filepath.Join(dir, ".davit-tmp")) // fails unless empty
	left, globErr := filepath.Glob(filepath.Join(dir, "*"))
	if err = errors.Join(err, globErr); err != nil || len(left) > 0 {
		t.Errorf("the self test left %q, %v", left, err)
	}
}

// careless puts whether or not the key is taken, as some old servers do.
type careless struct{ vault.Store }

func (c careless) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	return c.Put(ctx, key, r, size)
}
