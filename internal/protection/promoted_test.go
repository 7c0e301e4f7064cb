package protection

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"davit.dev/davit/internal/promotion"
	"davit.dev/davit/internal/vault"
)

// touched counts changes of what is under a prefix.
type touched struct {
	vault.Store
	prefix string
	times  *atomic.Int64
}

func (s touched) note(key string) {
	if strings.HasPrefix(key, s.prefix) {
		s.times.Add(1)
	}
}

func (s touched) Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	s.note(key)
	return s.Store.Put(ctx, key, r, size)
}

func (s touched) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	s.note(key)
	return s.Store.PutIfAbsent(ctx, key, r, size)
}

func (s touched) Delete(ctx context.Context, key string) error {
	s.note(key)
	return s.Store.Delete(ctx, key)
}

// TestInheritedRepositoriesStay: in a vault that was a second copy, neither expiry
// nor reclaiming writes in the repositories that came with it: somebody may still copy
// into them. The control is the vault that they come from.
func TestInheritedRepositoriesStay(t *testing.T) {
	for _, promoted := range []bool{true, false} {
		r := newReal(t)
		store := vault.Store(r.store)
		if promoted {
			r.promote()
			store = r.second
		}
		counted := touched{Store: store, prefix: r.project.VolumePrefix("east"), times: &atomic.Int64{}}
		project, err := vault.OpenProject(t.Context(), counted, "default", r.key)
		if err != nil {
			t.Fatal(err)
		}
		east := New(Options{
			Project: project, Site: "east", OpenVolumes: ProjectVolumes(project, slog.New(slog.DiscardHandler)),
			Now: func() time.Time { r.now = r.now.Add(time.Second); return r.now },
		})
		if err := east.Delete(t.Context(), "shop", r.ids[0], DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := east.Reclaim(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if got := counted.times.Load(); (got == 0) != promoted {
			t.Errorf("promoted %v: %d changes in the repository", promoted, got)
		}
		infos, err := project.Points(t.Context(), "shop")
		if err != nil || len(infos) != 1 {
			t.Errorf("promoted %v: points %+v, %v", promoted, infos, err)
		}
	}
}

// promote makes the second copy the vault, in which east goes on.
func (r *real) promote() {
	r.t.Helper()
	in, err := vault.OpenProject(r.t.Context(), r.second, "default", r.key)
	if err != nil {
		r.t.Fatal(err)
	}
	p := promotion.New(r.second, in, r.east.Identity(), "a person", func() time.Time { return r.now })
	record, err := p.Promote(r.t.Context())
	if err == nil {
		_, err = p.Settle(r.t.Context(), record, []promotion.App{{Name: "shop", Seen: 1, Held: 1}})
	}
	if err != nil {
		r.t.Fatal(err)
	}
}
