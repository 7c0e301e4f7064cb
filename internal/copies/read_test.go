package copies

import (
	"errors"
	"slices"
	"testing"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/reading"
)

// TestWhatIsReadFromACopyStaysThere until its reader has done: the copy is for
// reading only, but for the reader's note. The control is the same retention after him.
func TestWhatIsReadFromACopyStaysThere(t *testing.T) {
	r := newRig(t)
	rules := app()
	rules.Rules, rules.Expire = point.Retention{KeepLast: 1}, true
	for _, id := range []string{"p1", "p2", "p3"} {
		r.publish(id, 1, id == "p1")
	}
	r.pass(app())
	copied := r.open()
	session, err := reading.Begin(t.Context(), reading.Work{Project: copied, Application: "shop", Point: "p1", By: "restore r1"})
	if err != nil {
		t.Fatal(err)
	}
	if got := r.pass(rules).Apps["shop"]; got.Err != nil || !slices.Equal(got.Deleted, []string{"p2"}) {
		t.Errorf("deleted %v, %v", got.Deleted, got.Err)
	}
	if ids := r.whole(); !slices.Equal(ids, []string{"p1", "p3"}) {
		t.Errorf("the copy has %v", ids)
	}
	session.Done(t.Context())
	if got := r.pass(rules).Apps["shop"]; got.Err != nil || !slices.Equal(got.Deleted, []string{"p1"}) {
		t.Errorf("control: deleted %v, %v", got.Deleted, got.Err)
	}
	if left := keys(t, r.second, "projects/default/reading/"); len(left) > 0 {
		t.Errorf("notes are left: %v", left)
	}
	if err := copied.WriteSealed(t.Context(), "projects/default/reading/shop/p1/reader-0", nil); !errors.Is(err, vault.ErrCopy) {
		t.Errorf("others write into the copy: %v", err)
	}
}
