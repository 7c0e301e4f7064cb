package limit_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/limit"
	"davit.dev/davit/internal/vault/mem"
)

func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := limit.New(mem.New(nil), limit.Rates{RequestsPerSecond: 10, UploadPerSecond: 1 << 20, DownloadPerSecond: 2 << 20})
		timed := func(what string, want time.Duration, f func() error) {
			t.Helper()
			began := time.Now()
			if err := f(); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if took := time.Since(began); took < want*8/10 || took > want*12/10 {
				t.Errorf("%s took %v, want about %v", what, took, want)
			}
		}
		data := make([]byte, 8<<20)
		timed("upload of 8 MiB at 1 MiB/s", 8*time.Second, func() error {
			return s.Put(t.Context(), "key", bytes.NewReader(data), int64(len(data)))
		})
		timed("download of 8 MiB at 2 MiB/s", 4*time.Second, func() error {
			r, err := s.Get(t.Context(), "key", 0, -1)
			if err != nil {
				return err
			}
			defer r.Close()
			_, err = io.Copy(io.Discard, r)
			return err
		})
		timed("50 requests at 10/s", 5*time.Second, func() error {
			var errs []error
			for range 50 {
				_, err := s.Stat(t.Context(), "key")
				errs = append(errs, err)
			}
			return errors.Join(errs...)
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Put(ctx, "late", bytes.NewReader(data), int64(len(data))); !errors.Is(err, vault.ErrUnavailable) {
			t.Errorf("past its deadline: %v, want ErrUnavailable", err)
		}
	})
}

// TestUnwrap lets a backend read a body beforehand without using up the rate.
func TestUnwrap(t *testing.T) {
	spy := &spy{Store: mem.New(nil)}
	s := limit.New(spy, limit.Rates{UploadPerSecond: 1})
	_ = s.Put(t.Context(), "key", strings.NewReader("body"), 4)
	if spy.got != "body" {
		t.Errorf("Unwrap gave %q", spy.got)
	}
}

type spy struct {
	vault.Store
	got string
}

func (s *spy) Put(_ context.Context, _ string, r io.ReadSeeker, _ int64) error {
	data, err := io.ReadAll(r.(interface{ Unwrap() io.ReadSeeker }).Unwrap())
	s.got = string(data)
	return err
}
