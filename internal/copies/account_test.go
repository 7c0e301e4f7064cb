package copies

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
)

const eastVolumes = "projects/default/volumes/east"

// reclaim makes the first vault free blobs as maintenance does: it says so in
// an inventory, and removes them.
func (r *rig) reclaim(ids ...string) {
	r.t.Helper()
	inventory := []byte("davit volume inventory 1\n")
	for _, id := range ids {
		inventory = fmt.Appendf(inventory, "{\"op\":\"delete\",\"blob\":%q,\"time\":%d}\n", id, time.Now().Unix())
	}
	inventory = fmt.Appendf(inventory, "sha256 %x\n", sha256.Sum256(inventory))
	key := eastVolumes + "-inventory/" + time.Now().UTC().Format("20060102T150405.000Z") + "-abc-000001"
	sealed, err := r.p.Seal(key, inventory)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.first.Put(r.t.Context(), key, bytes.NewReader(sealed), int64(len(sealed))); err != nil {
		r.t.Fatal(err)
	}
	for _, id := range ids {
		if err := r.first.Delete(r.t.Context(), eastVolumes+"/"+id); err != nil {
			r.t.Fatal(err)
		}
	}
}

// packs are the packs of file data in the site's volumes that a store has.
func (r *rig) packs(store vault.Store) []string {
	r.t.Helper()
	var ids []string
	for _, key := range keys(r.t, store, eastVolumes+"/p") {
		ids = append(ids, strings.TrimPrefix(key, eastVolumes+"/"))
	}
	return ids
}

// shared is a repository with a point of each of two applications, both
// copied. It returns the packs that only the second one needs.
func shared(t *testing.T) (r *rig, packs []string) {
	t.Helper()
	r = newRig(t)
	r.publish("p1", 1, true)
	before := r.packs(r.first)
	r.publishOf("bank", "b1", 1, true)
	packs = slices.DeleteFunc(r.packs(r.first), func(id string) bool { return slices.Contains(before, id) })
	if len(packs) == 0 {
		t.Fatal("the second point has no packs of its own")
	}
	bank := app()
	bank.Name = "bank"
	r.pass(app(), bank)
	return r, packs
}

func (r *rig) has(packs []string) bool {
	copied := r.packs(r.second)
	return !slices.ContainsFunc(packs, func(id string) bool { return !slices.Contains(copied, id) })
}

// TestAPassKeepsWhatPointsOfOthersNeed: one application's pass brings over the
// repository that others share, and of theirs the copy has a point of which the
// first vault's inventories say that its packs were freed. The control is the
// copy without that point.
func TestAPassKeepsWhatPointsOfOthersNeed(t *testing.T) {
	for name, leave := range map[string]func(r *rig) error{
		"gone": func(r *rig) error { return r.p.DeletePoint(r.t.Context(), "bank", "b1") },
		"going": func(r *rig) error {
			return r.p.Mark(r.t.Context(), "bank", "b1", vault.Mark{Kind: vault.MarkDeleting})
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, packs := shared(t)
			if err := leave(r); err != nil {
				t.Fatal(err)
			}
			r.reclaim(packs...)
			r.publish("p2", 1, true)
			r.pass(app())
			if !r.has(packs) {
				t.Error("the copy lost packs of a point that it shows")
			}
			if ids := append(r.whole(), r.wholeOf("bank")...); !slices.Equal(ids, []string{"p1", "p2", "b1"}) {
				t.Errorf("the copy has %v", ids)
			}
			if err := r.copier(r.first, r.second).in.DeletePoint(t.Context(), "bank", "b1"); err != nil {
				t.Fatal(err)
			}
			r.publish("p3", 1, true)
			r.pass(app())
			if r.has(packs) {
				t.Error("control: nothing needs the packs, and they are still there")
			}
		})
	}
}

// mute is a store that does not list some keys.
type mute struct {
	vault.Store
	prefix string
}

func (m mute) List(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	if strings.HasPrefix(prefix, m.prefix) {
		return fmt.Errorf("list: %w", io.ErrUnexpectedEOF)
	}
	return m.Store.List(ctx, prefix, fn)
}

// TestWhatCannotBeReadDeletesNothing, and is waited for: nothing of the
// repository is copied before.
func TestWhatCannotBeReadDeletesNothing(t *testing.T) {
	for name, see := range map[string]func(r *rig) (first, second vault.Store){
		"first vault": func(r *rig) (vault.Store, vault.Store) {
			return mute{r.first, "projects/default/manifests/bank/"}, r.second
		},
		"copy": func(r *rig) (vault.Store, vault.Store) {
			return r.first, mute{r.second, "projects/default/manifests/bank/"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, packs := shared(t)
			if err := r.p.DeletePoint(t.Context(), "bank", "b1"); err != nil {
				t.Fatal(err)
			}
			r.reclaim(packs...)
			r.publish("p2", 1, true)
			report, err := r.copier(see(r)).Pass(t.Context(), []App{app()})
			if got := report.Apps["shop"]; err != nil || !errors.Is(got.Err, io.ErrUnexpectedEOF) || got.Pending != 1 {
				t.Fatalf("%v, %+v", err, report)
			}
			if !r.has(packs) {
				t.Error("packs were deleted although nobody knows who needs them")
			}
			if report := r.pass(app()); report.Apps["shop"].Err != nil {
				t.Fatalf("%+v", report)
			}
			if ids := r.whole(); !slices.Equal(ids, []string{"p1", "p2"}) {
				t.Errorf("the copy has %v", ids)
			}
		})
	}
}

// TestMarksTakenBackAreTakenBackInTheCopy: words of a removal or an undeletion
// that gave way. What the first vault lost with its point stays.
func TestMarksTakenBackAreTakenBackInTheCopy(t *testing.T) {
	r := newRig(t)
	r.publish("p2", 1, false)
	p3 := r.publish("p3", 1, false).ID
	r.pass(app())
	r.mark("p2", vault.MarkDeleting)
	deletion := r.mark(p3, vault.MarkDeleting)
	r.pass(app())
	undeletion := r.mark(p3, vault.MarkUndeleted, deletion.Ordinal)
	r.copyShows(p3)
	r.unmark(p3, undeletion)
	r.copyShows()
	r.unmark(p3, deletion)
	r.copyShows(p3)
	if err := r.p.DeletePoint(t.Context(), "shop", "p2"); err != nil {
		t.Fatal(err)
	}
	r.copyShows(p3) // and not p2, whose marks went after its manifest
}

// late is a store in which something happens right before the nth list.
type late struct {
	vault.Store
	prefix string
	left   int
	then   func()
}

func (l *late) List(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	if prefix == l.prefix {
		if l.left--; l.left == 0 {
			l.then()
		}
	}
	return l.Store.List(ctx, prefix, fn)
}

// TestAPointThatGoesDuringAPassStaysDeleted, whenever it goes.
func TestAPointThatGoesDuringAPassStaysDeleted(t *testing.T) {
	for n := 1; ; n++ {
		r := newRig(t)
		r.publish("p1", 1, false)
		r.publish("p2", 1, false)
		r.pass(app())
		r.mark("p1", vault.MarkDeleting)
		r.pass(app())
		first := &late{Store: r.first, prefix: "projects/default/marks/shop/", left: n, then: func() {
			if err := r.p.DeletePoint(t.Context(), "shop", "p1"); err != nil {
				t.Fatal(err)
			}
		}}
		if _, err := r.copier(first, r.second).Pass(t.Context(), []App{app()}); err != nil {
			t.Fatal(err)
		}
		if first.left > 0 {
			if n < 3 {
				t.Error("a pass lists marks too seldom to test anything")
			}
			return
		}
		r.copyShows("p2")
	}
}

func (r *rig) mark(id string, kind vault.MarkKind, seen ...string) vault.Mark {
	r.t.Helper()
	if err := r.p.Mark(r.t.Context(), "shop", id, vault.Mark{Kind: kind, At: r.now, Seen: seen}); err != nil {
		r.t.Fatal(err)
	}
	marks, err := r.p.Marks(r.t.Context(), "shop", id)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, m := range marks {
		if m.Kind == kind {
			return m
		}
	}
	r.t.Fatalf("%s has no mark %s", id, kind)
	return vault.Mark{}
}

func (r *rig) unmark(id string, m vault.Mark) {
	r.t.Helper()
	if err := r.p.Unmark(r.t.Context(), "shop", id, m); err != nil {
		r.t.Fatal(err)
	}
}

// copyShows passes, and compares the points that the copy offers.
func (r *rig) copyShows(want ...string) {
	r.t.Helper()
	r.pass(app())
	infos, err := r.open().Points(r.t.Context(), "shop")
	if err != nil {
		r.t.Fatal(err)
	}
	var good []string
	for _, info := range infos {
		if info.Point().Good() {
			good = append(good, info.ID)
		}
	}
	if !slices.Equal(good, want) {
		r.t.Errorf("the copy offers %v, want %v", good, want)
	}
}

// TestACopyKeepsForAsLongAsTheDelay what was deleted by mistake, also when the
// first vault loses it meanwhile. The control is the end of the delay.
func TestACopyKeepsForAsLongAsTheDelay(t *testing.T) {
	const delay = 72 * time.Hour
	r := newRig(t)
	rules := app()
	rules.Rules, rules.Expire, rules.DeletionDelay = point.Retention{KeepLast: 1}, true, delay
	r.publish("p1", 1, false)
	r.pass(rules)
	r.publish("p2", 1, false)
	has := func(why string, want ...string) {
		t.Helper()
		r.pass(rules)
		if ids := r.whole(); !slices.Equal(ids, want) {
			t.Errorf("%s: the copy has %v, want %v", why, ids, want)
		}
	}
	has("retention has not marked the point in the first vault yet", "p1", "p2")
	r.mark("p1", vault.MarkDeleting)
	has("it waits there", "p1", "p2")
	for _, key := range keys(t, r.first, "projects/default/") {
		if strings.Contains(key, "/p1") {
			if err := r.first.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.now = r.now.Add(delay - time.Minute)
	has("the first vault lost it", "p1", "p2")
	r.now = r.now.Add(2 * time.Minute)
	has("the delay is over", "p2")
}
