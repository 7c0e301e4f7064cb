package s3_test

import (
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/retry"
	"davit.dev/davit/internal/vault/s3"
	"davit.dev/davit/internal/vault/vaulttest"
)

// live returns the options of the real server named by DAVIT_TEST_S3, as
// http://ACCESS:SECRET@HOST:PORT/BUCKET[?region=R], or skips the test.
func live(t *testing.T) s3.Options {
	t.Helper()
	return serverAt(t, "DAVIT_TEST_S3", os.Getenv("DAVIT_TEST_S3"))
}

func serverAt(t *testing.T, variable, address string) s3.Options {
	t.Helper()
	if address == "" {
		t.Skip(variable + " names no S3 server")
	}
	u, err := url.Parse(address)
	if err != nil || u.User == nil {
		t.Fatal(variable + ": want http://ACCESS:SECRET@HOST:PORT/BUCKET")
	}
	secret, _ := u.User.Password()
	bucket, _, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "?")
	return s3.Options{
		Endpoint: u.Scheme + "://" + u.Host, Bucket: bucket, Region: u.Query().Get("region"), PathStyle: true,
		AccessKey: u.User.Username(), SecretKey: secret, InsecureHTTP: true,
		Prefix: "test/" + strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")) + "-" + randomName(),
	}
}

func openLive(t *testing.T, opt s3.Options) vault.Store {
	t.Helper()
	s, err := s3.Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	// A gateway to a file system answers 409, try again, when a directory that
	// is being emptied is written to.
	return retry.New(s, retry.Policy{Tries: 10, First: time.Millisecond, Max: 10 * time.Millisecond})
}

func TestLive(t *testing.T) {
	vaulttest.Run(t, func(t *testing.T) vault.Store { return openLive(t, live(t)) })
}
