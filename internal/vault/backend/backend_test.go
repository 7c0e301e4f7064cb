package backend_test

import (
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
