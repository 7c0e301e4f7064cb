package beacon

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newProject(t *testing.T, name string) (*vault.Project, *authority.Authority) {
	t.Helper()
	p, key, err := consoletest.New(t.Context(), mem.New(nil), name)
	if err != nil {
		t.Fatal(err)
	}
	a, err := authority.Ensure(t.Context(), p, key, now)
	if err != nil {
		t.Fatal(err)
	}
	return p, a
}

func record(epoch int64) Record {
	return Record{Console: "c", Project: "acme", Epoch: epoch, URL: "https://a.example.com:8443", At: now}
}

func put(t *testing.T, p *vault.Project, r Record, a *authority.Authority) {
	t.Helper()
	if err := Put(t.Context(), p, r, a, a.Certificate); err != nil {
		t.Fatal(err)
	}
}

// What an authority of the project has signed is gone by, and only the newest is kept.
func TestFind(t *testing.T) {
	ctx := t.Context()
	p, a := newProject(t, "acme")
	trusted := [][]byte{a.Certificate.Raw}
	if _, err := Find(ctx, p, "c", trusted, 0); !errors.Is(err, ErrNone) {
		t.Errorf("an empty vault: %v", err)
	}
	put(t, p, record(1), a)
	put(t, p, record(3), a)
	put(t, p, record(3), a) // again, as after an answer that was lost
	for _, least := range []int64{0, 3} {
		if r, err := Find(ctx, p, "c", trusted, least); err != nil || r != record(3) {
			t.Errorf("%+v, %v", r, err)
		}
	}
	if all, err := list(ctx, p, "c"); err != nil || len(all) != 1 {
		t.Errorf("%v are kept, %v", all, err)
	}
	// One that was stopped and writes its own late changes nothing.
	put(t, p, record(2), a)
	if r, err := Find(ctx, p, "c", trusted, 0); err != nil || r.Epoch != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := Find(ctx, p, "other", trusted, 0); !errors.Is(err, ErrNone) {
		t.Errorf("another console's is taken: %v", err)
	}
}

// Forged, old and foreign records are refused. Beside each the good one is found,
// so it is the fault that is refused.
func TestFindRefuses(t *testing.T) {
	good := func(t *testing.T) (*vault.Project, *authority.Authority) {
		p, a := newProject(t, "acme")
		put(t, p, record(4), a)
		return p, a
	}
	write := func(t *testing.T, p *vault.Project, n int64, data []byte, err error) {
		t.Helper()
		if err == nil {
			err = p.WriteSealedOnce(t.Context(), key(p, "c", n), data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, spoil := range map[string]func(t *testing.T, p *vault.Project, a *authority.Authority){
		"signed by another": func(t *testing.T, p *vault.Project, _ *authority.Authority) {
			_, other := newProject(t, "acme")
			data, err := Encode(record(5), other, other.Certificate)
			write(t, p, 5, data, err)
		},
		"signed by another in the name of the authority": func(t *testing.T, p *vault.Project, a *authority.Authority) {
			_, other := newProject(t, "acme")
			data, err := Encode(record(5), other, a.Certificate)
			write(t, p, 5, data, err)
		},
		"of another project": func(t *testing.T, p *vault.Project, a *authority.Authority) {
			r := record(5)
			r.Project = "other"
			data, err := Encode(r, a, a.Certificate)
			write(t, p, 5, data, err)
		},
		"of another console": func(t *testing.T, p *vault.Project, a *authority.Authority) {
			r := record(5)
			r.Console = "d"
			data, err := Encode(r, a, a.Certificate)
			write(t, p, 5, data, err)
		},
		"an older one under a higher number": func(t *testing.T, p *vault.Project, a *authority.Authority) {
			data, err := Encode(record(3), a, a.Certificate)
			write(t, p, 5, data, err)
		},
		"no record": func(t *testing.T, p *vault.Project, _ *authority.Authority) { write(t, p, 5, []byte("{"), nil) },
		"of a newer davit": func(t *testing.T, p *vault.Project, _ *authority.Authority) {
			write(t, p, 5, []byte(`{"formatVersion":2}`), nil)
		},
		"not sealed": func(t *testing.T, p *vault.Project, a *authority.Authority) {
			_, other := newProject(t, "acme")
			data, err := Encode(record(5), other, other.Certificate)
			if err == nil {
				err = vaultPut(t.Context(), p.Store(), key(p, "c", 5), data)
			}
			if err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, a := good(t)
			trusted := [][]byte{a.Certificate.Raw}
			spoil(t, p, a)
			if r, err := Find(t.Context(), p, "c", trusted, 0); err != nil || r != record(4) {
				t.Errorf("instead of the good one: %+v, %v", r, err)
			}
			if r, err := Find(t.Context(), p, "c", trusted, 5); err == nil {
				t.Errorf("it was taken: %+v", r)
			}
			put(t, p, record(6), a) // the control: a good one of a higher epoch is
			if r, err := Find(t.Context(), p, "c", trusted, 5); err != nil || r.Epoch != 6 {
				t.Errorf("a good one: %+v, %v", r, err)
			}
		})
	}
}

// What lies in the record's place, or hides it, is no success: it is said, and
// what was good stays.
func TestPutFindsItsPlaceTaken(t *testing.T) {
	for name, c := range map[string]struct {
		at   int64
		gone bool // the record of before
	}{"in its place": {5, false}, "above it": {9, true}} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			p, a := newProject(t, "acme")
			trusted := [][]byte{a.Certificate.Raw}
			put(t, p, record(4), a)
			_, other := newProject(t, "acme")
			forged := record(c.at)
			forged.URL = "https://elsewhere.example.com"
			data, err := Encode(forged, other, other.Certificate)
			if err == nil {
				err = p.WriteSealedOnce(ctx, key(p, "c", c.at), data)
			}
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // and again, as the console does
				err := Put(ctx, p, record(5), a, a.Certificate)
				if !errors.Is(err, ErrForged) || !strings.Contains(err.Error(), key(p, "c", c.at)) {
					t.Errorf("it was taken for success: %v", err)
				}
			}
			want := record(4)
			if c.gone {
				want = record(5)
			}
			if r, err := Find(ctx, p, "c", trusted, 0); err != nil || r != want {
				t.Errorf("%+v, %v", r, err)
			}
			if err := p.Store().Delete(ctx, key(p, "c", c.at)); err != nil {
				t.Fatal(err)
			}
			put(t, p, record(5), a) // the control
			if r, err := Find(ctx, p, "c", trusted, 0); err != nil || r != record(5) {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}

// A vault that lets nothing be deleted has the record all the same.
func TestPutWhereNothingIsDeleted(t *testing.T) {
	store := &keeping{Store: mem.New(nil)}
	p, ring, err := consoletest.New(t.Context(), store, "acme")
	if err != nil {
		t.Fatal(err)
	}
	a, err := authority.Ensure(t.Context(), p, ring, now)
	if err != nil {
		t.Fatal(err)
	}
	put(t, p, record(1), a)
	put(t, p, record(3), a)
	if store.kept == 0 {
		t.Error("nothing was to be deleted")
	}
	if r, err := Find(t.Context(), p, "c", [][]byte{a.Certificate.Raw}, 0); err != nil || r != record(3) {
		t.Errorf("%+v, %v", r, err)
	}
}

// keeping is a store that deletes nothing.
type keeping struct {
	vault.Store
	kept int
}

func (k *keeping) Delete(context.Context, string) error {
	k.kept++
	return errors.New("it is locked")
}

// Many false records end the look, and are no crash.
func TestFindEnds(t *testing.T) {
	p, a := newProject(t, "acme")
	for n := range int64(2 * most) {
		if err := p.WriteSealedOnce(t.Context(), key(p, "c", n+10), []byte("[]")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Find(t.Context(), p, "c", [][]byte{a.Certificate.Raw}, 0); !errors.Is(err, vault.ErrDamaged) {
		t.Error(err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"formatVersion":1,"record":"{}","pin":"00","signature":"AA=="}`))
	f.Add([]byte(`{"formatVersion":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := Decode(data, [][]byte{{1}}); err == nil {
			t.Errorf("%+v", r)
		}
	})
}

func vaultPut(ctx context.Context, s vault.Store, key string, data []byte) error {
	return s.Put(ctx, key, bytes.NewReader(data), int64(len(data)))
}
