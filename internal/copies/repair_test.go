package copies

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// dump is all that a store holds.
func dump(t *testing.T, store vault.Store) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, key := range keys(t, store, "") {
		if strings.Contains(key, "/reserve/") {
			continue
		}
		body, err := store.Get(t.Context(), key, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		all[key] = string(data)
	}
	return all
}

func load(t *testing.T, all map[string]string) *mem.Store {
	t.Helper()
	store := mem.New(nil)
	for key, data := range all {
		if err := store.Put(t.Context(), key, strings.NewReader(data), int64(len(data))); err != nil {
			t.Fatal(err)
		}
	}
	return store
}

// mend repairs p1, and reads every blob of its volume's repository.
func (r *rig) mend() RepairReport {
	r.t.Helper()
	p := r.p.Over(func(vault.Store) vault.Store { return r.first })
	report, err := Repair(r.t.Context(), RepairOptions{First: p, Copy: r.open(), Volumes: options, All: true}, "shop", "p1")
	if err != nil {
		r.t.Fatal(err)
	}
	return report
}

// needed tells whether p1 needs the object.
func needed(key string) bool {
	for _, kind := range []string{"/objects/", "/manifests/", "/marks/", "/volumes/"} {
		if strings.Contains(key, kind) {
			return true
		}
	}
	return false
}

// TestEverySingleObjectIsRepaired: changed, and where that is no deletion,
// missing. The control is the same damage in both, which stays as it is.
func TestEverySingleObjectIsRepaired(t *testing.T) {
	r := newRig(t)
	r.publish("p1", 1, true)
	if err := r.p.Mark(t.Context(), "shop", "p1", vault.Mark{Kind: vault.MarkPinned}); err != nil {
		t.Fatal(err)
	}
	r.pass(app())
	good, copied := dump(t, r.first), dump(t, r.second)
	tried := 0
	for key := range good {
		if !needed(key) {
			continue
		}
		tried++
		for name, harm := range map[string]func(store vault.Store){
			"changed": func(store vault.Store) { corrupt(t, store, key) },
			"missing": func(store vault.Store) {
				if err := store.Delete(t.Context(), key); err != nil {
					t.Fatal(err)
				}
			},
		} {
			if name == "missing" && !strings.Contains(key, "/objects/") && !strings.Contains(key, "/volumes/") {
				continue // it may have been deleted
			}
			r.first, r.second = load(t, good), load(t, copied)
			harm(r.first)
			if report := r.mend(); len(report.Left) > 0 || !slices.Equal(report.Repaired, []string{key}) {
				t.Errorf("%s %s: %+v", key, name, report)
			}
			if got := dump(t, r.first); got[key] != good[key] || len(got) != len(good) {
				t.Errorf("%s %s: not as it was", key, name)
			}
			r.first = load(t, good)
			harm(r.first)
			harm(r.second)
			before := dump(t, r.first)
			report := r.mend()
			// An inventory that no point names, and of which nobody knows, is none.
			unknown := name == "missing" && strings.Contains(key, "-inventory/")
			if len(report.Left) == 0 && !unknown || len(report.Repaired) != 0 {
				t.Errorf("%s %s in both: %+v", key, name, report)
			}
			if after := dump(t, r.first); after[key] != before[key] || len(after) != len(before) {
				t.Errorf("%s %s in both: something was written", key, name)
			}
		}
	}
	if tried < 7 {
		t.Errorf("only %d kinds of objects were tried", tried)
	}
}

// TestGarbageInTheCopyGoesNowhere, also where it has the right size.
func TestGarbageInTheCopyGoesNowhere(t *testing.T) {
	r := newRig(t)
	r.publish("p1", 1, true)
	r.pass(app())
	for _, key := range keys(t, r.second, "projects/default/") {
		if needed(key) {
			corrupt(t, r.second, key)
		}
	}
	before := dump(t, r.first)
	if report := r.mend(); len(report.Repaired)+len(report.Left) != 0 {
		t.Errorf("a whole point was repaired: %+v", report)
	}
	if after := dump(t, r.first); !bytes.Equal([]byte(after["davit.json"]), []byte(before["davit.json"])) || len(after) != len(before) {
		t.Error("the first vault changed")
	}
}
