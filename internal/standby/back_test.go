package standby

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/restore/shape"
)

// TestWhatIsNotStoppedTheNodesKeepFromRunning: what an operator starts again keeps no roll-back from its end, once
// every node says that nothing of the application runs there. Without the word of all of them nobody knows.
func TestWhatIsNotStoppedTheNodesKeepFromRunning(t *testing.T) {
	seen := time.Now().UTC().Format(time.RFC3339)
	node := func(name, seen string, epoch int, proven bool) []string {
		return []string{
			fmt.Sprintf(`{"apiVersion":"v1","kind":"Node","metadata":{"name":%q}}`, name),
			fmt.Sprintf(`{"apiVersion":"davit.dev/v1alpha1","kind":"NodeFence","metadata":{"name":%q,"namespace":"davit-system","ownerReferences":[{"apiVersion":"v1","kind":"Node","name":%[1]q,"uid":"uid-%[1]s"}]},
				"status":{"observedAt":%q,"applications":[{"application":"shop","reason":"superseded","epoch":%d,"proven":%v}]}}`, name, seen, epoch, proven),
		}
	}
	point := &failover.Point{ID: "shop-1"}
	db := fmt.Sprintf(`{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"db","namespace":"shop","labels":{%q:%q}},"spec":{"replicas":0},"status":{"replicas":1}}`,
		shape.LabelRestore, shape.ID(point.ID, string(v1alpha1.RestoreTakeOver), nil))
	for name, tt := range map[string]struct {
		nodes []string
		want  failover.Outcome
	}{
		"all say so":             {append(node("one", seen, 3, true), node("two", seen, 4, true)...), failover.Done},
		"one has not heard":      {append(node("one", seen, 3, true), node("two", seen, 2, true)...), failover.NoAnswer},
		"something runs":         {append(node("one", seen, 3, true), node("two", seen, 3, false)...), failover.NoAnswer},
		"one is silent":          {append(node("one", seen, 3, true), node("two", "2026-01-01T00:00:00Z", 3, true)...), failover.NoAnswer},
		"one never said a thing": {append(node("one", seen, 3, true), node("two", seen, 3, true)[0]), failover.NoAnswer},
		"there is none":          {nil, failover.NoAnswer},
		"of another machine":     {append(node("one", seen, 3, true), node("two", seen, 3, true)[0], strings.ReplaceAll(node("two", seen, 3, true)[1], "uid-two", "uid-before")), failover.NoAnswer},
	} {
		m := newMemory(t, append(tt.nodes, fenced("true"), db)...)
		s, _ := returning(t, m)
		s.o.Recovery.Now = time.Now
		if err := s.marks.Save(t.Context(), "one", "data/shop", execute.Mark{Point: point}); err != nil {
			t.Fatal(err)
		}
		o := gated(failover.Undo, "one", 5)
		o.Step = plan.Step{Name: "scale/shop", Kind: plan.KindScale, Application: "shop", Timeout: time.Minute}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		got := s.restore(ctx, o)
		cancel()
		if got.Outcome != tt.want || !strings.Contains(got.Note, "StatefulSet shop/db") {
			t.Errorf("%s: %+v, want %s", name, got, tt.want)
		}
	}
	m := newMemory(t, fenced("true"), db) // the control: what has ended waits for no node
	if err := unstructured.SetNestedField(m.objects[keyOf(shape.KindStatefulSet, "shop", "db")].Object, int64(0), "status", "replicas"); err != nil {
		t.Fatal(err)
	}
	s, _ := returning(t, m)
	if err := s.marks.Save(t.Context(), "one", "data/shop", execute.Mark{Point: point}); err != nil {
		t.Fatal(err)
	}
	o := gated(failover.Undo, "one", 5)
	o.Step = plan.Step{Name: "scale/shop", Kind: plan.KindScale, Application: "shop", Timeout: time.Minute}
	if got := s.restore(t.Context(), o); got.Outcome != failover.Done {
		t.Errorf("control: %+v", got)
	}
}
