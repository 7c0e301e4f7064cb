package mailbox

import (
	"testing"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

func box(t *testing.T) Box {
	t.Helper()
	store := mem.New(nil)
	id, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	p, err := vault.CreateProject(t.Context(), store, "default", id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	return New(p)
}

func TestRequestsComeInOrderAndOnceAnsweredNoMore(t *testing.T) {
	b := box(t)
	ctx := t.Context()
	for _, kind := range []failover.EventKind{failover.Pausing, failover.Resume} {
		if _, err := b.Put(ctx, "r", execute.Request{Kind: kind, By: "ann"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Put(ctx, "another", execute.Request{Kind: failover.Cancel, By: "ann"}); err != nil {
		t.Fatal(err)
	}
	for n, kind := range []failover.EventKind{failover.Pausing, failover.Resume} {
		for range 2 { // it comes until it is answered
			r, err := b.Next(ctx, "r")
			if err != nil || r == nil || r.Kind != kind || r.Number != int64(n)+1 {
				t.Fatal(r, err)
			}
		}
		if a, err := b.Answer(ctx, "r", int64(n)+1); err != nil || a != nil {
			t.Fatal(a, err)
		}
		if err := b.Reply(ctx, "r", int64(n)+1, "no"); err != nil {
			t.Fatal(err)
		}
		if a, err := b.Answer(ctx, "r", int64(n)+1); err != nil || a == nil || a.Refused != "no" {
			t.Fatal(a, err)
		}
	}
	if r, err := b.Next(ctx, "r"); err != nil || r != nil {
		t.Fatal(r, err)
	}
}

func TestWhatCannotBeReadIsAnsweredAndHoldsNothingUp(t *testing.T) {
	b := box(t)
	ctx := t.Context()
	if err := b.project.WriteSealedOnce(ctx, b.key("r", 1), []byte("{")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(ctx, "r", execute.Request{Kind: failover.Commit, By: "ann"}); err != nil {
		t.Fatal(err)
	}
	r, err := b.Next(ctx, "r")
	if err != nil || r == nil || r.Number != 2 {
		t.Fatal(r, err)
	}
	if a, err := b.Answer(ctx, "r", 1); err != nil || a == nil || a.Refused == "" {
		t.Fatal(a, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"number":1,"kind":"pause","by":"ann"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := parse(data, 1, nil); err == nil && (r.Number != 1 || r.By == "" || r.Kind == "") {
			t.Fatal(r)
		}
	})
}
