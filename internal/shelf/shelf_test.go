package shelf_test

import (
	"errors"
	"testing"
	"time"

	"davit.dev/davit/internal/shelf"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

func project(tb testing.TB) *vault.Project {
	tb.Helper()
	key, err := vault.NewIdentity()
	if err != nil {
		tb.Fatal(err)
	}
	p, err := vault.CreateProject(tb.Context(), mem.New(time.Now), "default", key.Recipient())
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func TestShelf(t *testing.T) {
	p := project(t)
	s := shelf.New(p)
	if _, err := s.Get(t.Context(), "shop"); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("%v", err)
	}
	for i, document := range []string{`{"a": 1}`, `{"a":1}`, `{"a":2}`, `{"a":1}`} {
		sheet, err := s.Put(t.Context(), shelf.Sheet{Plan: "shop", Site: "east", Document: []byte(document)})
		if want := []int64{1, 1, 2, 3}[i]; err != nil || sheet.Revision != want {
			t.Errorf("%s: revision %d, want %d, %v", document, sheet.Revision, want, err)
		}
	}
	if _, err := s.Put(t.Context(), shelf.Sheet{Plan: "../x", Document: []byte("{}")}); err == nil {
		t.Error("a path was taken for a name")
	}
	if _, err := s.Put(t.Context(), shelf.Sheet{Plan: "shop.two", Document: []byte("{}")}); err != nil {
		t.Error(err)
	}
	for key, text := range map[string]string{
		"plans/newer/00000000000000000001":  `{"formatVersion": 2, "plan": "newer", "revision": 1, "document": {}}`,
		"plans/other/00000000000000000001":  `{"formatVersion": 1, "plan": "another", "revision": 1, "document": {}}`,
		"plans/broken/00000000000000000001": `{`,
		"plans/empty/00000000000000000001":  `{"formatVersion": 1, "plan": "empty", "revision": 1}`,
		"plans/shop/notes":                  `{}`,
	} {
		if err := p.WriteSealedOnce(t.Context(), p.Root()+key, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	sheets, errs, err := s.List(t.Context())
	if err != nil || len(sheets) != 2 || sheets["shop"].Revision != 3 || len(errs) != 4 {
		t.Errorf("%+v, %v, %v", sheets, errs, err)
	}
}

// TestDamagedPlanIsFollowedByAGoodOne: what cannot be read is no longer the newest when the
// plan is kept again. One of a newer format stays the newest: it is not damaged.
func TestDamagedPlanIsFollowedByAGoodOne(t *testing.T) {
	p := project(t)
	for plan, text := range map[string]string{"broken": `{`, "newer": `{"formatVersion": 2, "plan": "newer", "revision": 1, "document": {}}`} {
		if err := p.WriteSealedOnce(t.Context(), p.Root()+"plans/"+plan+"/00000000000000000001", []byte(text)); err != nil {
			t.Fatal(err)
		}
		sheet, err := shelf.New(p).Put(t.Context(), shelf.Sheet{Plan: plan, Site: "east", Document: []byte(`{"a":1}`)})
		if plan == "newer" {
			if !errors.Is(err, shelf.ErrNewer) {
				t.Errorf("%s: %v", plan, err)
			}
			continue
		}
		if err != nil || sheet.Revision != 2 {
			t.Errorf("%s: revision %d, %v", plan, sheet.Revision, err)
		}
		if got, err := shelf.New(p).Get(t.Context(), plan); err != nil || got.Revision != 2 {
			t.Errorf("%s: %+v, %v", plan, got, err)
		}
	}
}

// FuzzSheet reads anything as a plan's revision.
func FuzzSheet(f *testing.F) {
	f.Add([]byte(`{"formatVersion": 1, "plan": "shop", "revision": 1, "document": {"a": 1}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p := project(t)
		if err := p.WriteSealedOnce(t.Context(), p.Root()+"plans/shop/00000000000000000001", data); err != nil {
			t.Fatal(err)
		}
		sheet, err := shelf.New(p).Get(t.Context(), "shop")
		if err == nil && (sheet.Plan != "shop" || sheet.Revision != 1 || len(sheet.Document) == 0) {
			t.Errorf("%+v", sheet)
		}
	})
}
