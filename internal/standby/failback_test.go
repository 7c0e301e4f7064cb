package standby

import (
	"context"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/vault"
)

const superseded = `{"apiVersion":"davit.dev/v1alpha1","kind":"Application","metadata":{"namespace":"davit-system","name":"shop"},
	"spec":{"vault":"main"},"status":{"role":"Superseded","rest":{"stopped":%REST%}}}`

func fenced(stopped string) string { return strings.Replace(superseded, "%REST%", stopped, 1) }

// returning is site east, which west has taken shop over from.
func returning(t *testing.T, m *memory) (*Site, *vault.Project) {
	t.Helper()
	p := project(t) // east holds epoch 1
	if _, err := lease.New(p).Claim(t.Context(), "shop", 2, lease.Claim{Site: "west", Cluster: "w", Request: "over", At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	return New(Options{Recovery: recovery.Deps{Project: p, VaultName: "main", Site: "east", ClusterID: "e", Holder: "ann", Cluster: m}}), p
}

func pinning(a failover.Action, n int64) execute.Order {
	return execute.Order{
		Action: a, Run: "back", Plan: "p", Verb: plan.Failback, From: "west", To: "east", Site: "east",
		Step:  plan.Step{Name: "pin/shop", Kind: plan.KindPin, Application: "shop", Timeout: time.Minute},
		Token: failover.Token{Run: "back", Sequence: n, Epochs: map[string]int64{"shop": 2}},
	}
}

// capturing has every RecoveryPoint captured, as an agent does it.
func capturing(t *testing.T, p *vault.Project, end string) func(u *unstructured.Unstructured) {
	return func(u *unstructured.Unstructured) {
		if u.GetKind() != "RecoveryPoint" {
			return
		}
		status := map[string]any{"phase": end, "conditions": []any{map[string]any{"type": "Ready", "message": "the vault is full"}}}
		_ = unstructured.SetNestedMap(u.Object, status, "status")
		if end == "Failed" {
			return
		}
		w, err := p.NewWriter(context.Background(), "shop", u.GetName())
		if err == nil {
			err = w.Publish(context.Background(), &point.Manifest{Site: "east", Epoch: 1, Instant: time.Unix(1000, 0).UTC(), Consistency: point.Crash, Namespaces: []string{"shop"}},
				func(context.Context) error { return nil })
		}
		if err != nil {
			t.Error(err)
		}
	}
}

func TestWhatOnlyTheOldSiteHasIsPinned(t *testing.T) {
	m := newMemory(t, fenced("true"))
	s, p := returning(t, m)
	m.changed = capturing(t, p, "Quarantined")
	pin := s.Kinds()[plan.KindPin]
	if got := pin.Do(t.Context(), pinning(failover.Look, 1)); got.Outcome != failover.NotDone {
		t.Fatalf("look before: %+v", got)
	}
	got := pin.Do(t.Context(), pinning(failover.Act, 2))
	if got.Outcome != failover.Done || got.Point == nil {
		t.Fatalf("act: %+v", got)
	}
	asked := m.objects[keyOf(kindPoint, "davit-system", got.Point.ID)]
	for field, want := range map[string]bool{"diverged": true, "pinned": true} {
		if is, _, _ := unstructured.NestedBool(asked.Object, "spec", field); is != want {
			t.Errorf("spec.%s is %t", field, is)
		}
	}
	marks, err := p.Marks(t.Context(), "shop", got.Point.ID)
	if err != nil || !(vault.PointInfo{Marks: marks}).Pinned() {
		t.Errorf("the point may expire: %+v, %v", marks, err)
	}
	if again := pin.Do(t.Context(), pinning(failover.Look, 3)); again.Outcome != failover.Done || again.Point == nil || again.Point.ID != got.Point.ID {
		t.Errorf("look after: %+v", again)
	}
	if undo := pin.Do(t.Context(), pinning(failover.Undo, 4)); undo.Outcome != failover.Done {
		t.Errorf("undo: %+v", undo)
	}
}

func TestAPinThatFailsIsRefusedAndTriedAnew(t *testing.T) {
	m := newMemory(t, fenced("true"))
	s, p := returning(t, m)
	m.changed = capturing(t, p, "Failed")
	pin := s.Kinds()[plan.KindPin]
	if got := pin.Do(t.Context(), pinning(failover.Act, 1)); got.Outcome != failover.Refused || !strings.Contains(got.Note, "the vault is full") {
		t.Fatalf("act: %+v", got)
	}
	m.changed = capturing(t, p, "Quarantined")
	if got := pin.Do(t.Context(), pinning(failover.Look, 2)); got.Outcome != failover.NotDone {
		t.Fatalf("look: %+v", got)
	}
	if got := pin.Do(t.Context(), pinning(failover.Act, 3)); got.Outcome != failover.Done {
		t.Fatalf("act again: %+v", got)
	}
}

// TestNothingIsPinnedWhileItRuns: what is captured of a site that still writes is
// no state of anything.
func TestNothingIsPinnedWhileItRuns(t *testing.T) {
	m := newMemory(t, fenced("false"))
	s, p := returning(t, m)
	m.changed = capturing(t, p, "Quarantined")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	looks := 0
	m.read = func(*unstructured.Unstructured) {
		if looks++; looks == 3 {
			cancel() // it waits in vain
		}
	}
	if got := s.pin(ctx, pinning(failover.Act, 1)); got.Outcome != failover.NoAnswer || !strings.Contains(got.Note, "still runs") {
		t.Errorf("%+v", got)
	}
	if len(m.objects) != 1 {
		t.Errorf("%d objects", len(m.objects))
	}
}

func TestWhoeverNeverRanItHasNothingToPin(t *testing.T) {
	m := newMemory(t)
	s := New(Options{Recovery: recovery.Deps{Project: project(t), VaultName: "main", Site: "north", ClusterID: "n", Cluster: m}})
	if got := s.pin(t.Context(), pinning(failover.Act, 1)); got.Outcome != failover.Done {
		t.Errorf("%+v", got)
	}
	s, _ = returning(t, m)
	if got := s.pin(t.Context(), pinning(failover.Act, 1)); got.Outcome != failover.Refused || !strings.Contains(got.Note, "apply it again") {
		t.Errorf("a site without the Application: %+v", got)
	}
}
