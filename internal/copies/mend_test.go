package copies

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/promotion"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// aged loads a store whose objects came ten seconds one after the other,
// inventories last, and returns its clock. So what rots in it is, by its time,
// what came long ago.
func aged(t *testing.T, all map[string]string) (*mem.Store, *time.Time) {
	t.Helper()
	at := noon
	store := mem.New(func() time.Time { return at })
	sorted := make([]string, 0, len(all))
	for key := range all {
		sorted = append(sorted, key)
	}
	slices.SortFunc(sorted, func(a, b string) int {
		late := func(key string) int { return strings.Count(key, "-inventory/") }
		if d := late(a) - late(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	for _, key := range sorted {
		at = at.Add(10 * time.Second)
		if err := store.Put(t.Context(), key, strings.NewReader(all[key]), int64(len(all[key]))); err != nil {
			t.Fatal(err)
		}
	}
	return store, &at
}

// mendCopy mends p1 in the copy, of whose packs of data one may be known to be damaged.
func (r *rig) mendCopy(key string) (RepairReport, error) {
	p := r.p.Over(func(vault.Store) vault.Store { return r.first })
	opts := MendOptions{First: p, Store: r.second, Volumes: options, Held: 1}
	site := r.p.Repository("east")
	if pack, of := strings.CutPrefix(key, p.VolumePrefix(site)); of {
		opts.Packs = map[string][]string{site: {pack}}
	}
	return Mend(r.t.Context(), opts, "shop", "p1")
}

// TestEverySingleObjectOfACopyIsMended as one of the first vault is repaired.
// The controls: a pass of the copier mends no pack that rots, and the same
// damage in both stays as it is.
func TestEverySingleObjectOfACopyIsMended(t *testing.T) {
	r := newRig(t)
	r.publish("p1", 1, true)
	if err := r.p.Mark(t.Context(), "shop", "p1", vault.Mark{Kind: vault.MarkPinned}); err != nil {
		t.Fatal(err)
	}
	r.pass(app())
	good, copied := dump(t, r.first), dump(t, r.second)
	tried := 0
	for key := range copied {
		if !needed(key) {
			continue
		}
		tried++
		rot := func(store *mem.Store, at *time.Time) {
			o, err := store.Stat(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			*at = o.Modified // bits rot without a word
			corrupt(t, store, key)
		}
		var at *time.Time
		r.first = load(t, good)
		r.second, at = aged(t, copied)
		rot(r.second, at)
		if strings.Contains(key, "/objects/") || strings.Contains(key, "/volumes/"+r.p.Repository("east")+"/p") {
			r.pass(app())
			if dump(t, r.second)[key] == good[key] {
				t.Errorf("%s: a pass mends it: then this test shows nothing", key)
			}
		}
		report, err := r.mendCopy(key)
		if err != nil || len(report.Left) > 0 || !slices.Equal(report.Repaired, []string{key}) {
			t.Errorf("%s: %+v, %v", key, report, err)
		}
		if got := dump(t, r.second); got[key] != good[key] || len(got) != len(copied) {
			t.Errorf("%s: not as it was", key)
		}
		r.second, at = aged(t, copied)
		rot(r.second, at)
		corrupt(t, r.first, key)
		before := dump(t, r.second)
		if report, err = r.mendCopy(key); err != nil || len(report.Repaired) > 0 {
			t.Errorf("%s in both: %+v, %v", key, report, err)
		}
		if after := dump(t, r.second); after[key] != before[key] || len(after) != len(before) {
			t.Errorf("%s in both: something was written", key)
		}
	}
	if tried < 7 {
		t.Errorf("only %d kinds of objects were tried", tried)
	}
}

// TestOnlyWhoMayWritesIntoACopy: not a superseded site, and nobody once the copy is
// to be the vault, or is another vault's. The control is whoever may.
func TestOnlyWhoMayWritesIntoACopy(t *testing.T) {
	for name, test := range map[string]struct {
		change func(r *rig)
		want   error
	}{
		"may": {func(*rig) {}, nil},
		"superseded": {func(r *rig) {
			if _, err := lease.New(r.p).Claim(t.Context(), "shop", 2, lease.Claim{Site: "west", Request: "w"}); err != nil {
				t.Fatal(err)
			}
		}, lease.ErrSuperseded},
		"promoted": {func(r *rig) {
			if _, err := promotion.New(r.second, r.open(), lease.Identity{Site: "west"}, "test", time.Now).Promote(t.Context()); err != nil {
				t.Fatal(err)
			}
		}, promotion.ErrPromoting},
		"a vault of its own": {func(r *rig) { r.second = r.first }, vault.ErrKey},
	} {
		r := newRig(t)
		r.publish("p1", 1, false)
		r.pass(app())
		key := r.p.Root() + "objects/shop/p1/00000001"
		corrupt(t, r.second, key)
		test.change(r)
		before := dump(t, r.second)[key]
		_, err := r.mendCopy(key)
		if !errors.Is(err, test.want) || (dump(t, r.second)[key] != before) != (test.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}
