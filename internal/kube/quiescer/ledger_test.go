package quiescer

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/quiesce"
)

// fakeRunner notes what runs.
type fakeRunner struct {
	quiesce.Runner
	ran  []string
	fail error
}

func (r *fakeRunner) Run(_ context.Context, t quiesce.Target, a quiesce.Action) (string, error) {
	r.ran = append(r.ran, a.Command[0]+" "+t.Pod)
	return "", r.fail
}

func (r *fakeRunner) Pods(context.Context, []string) ([]quiesce.Pod, error) {
	return []quiesce.Pod{{Namespace: "shop", Name: "db-0", UID: "u-db-0"}}, nil
}

// anything permits everything.
func anything(context.Context, string) quiesce.Permit {
	return func(context.Context, quiesce.Owed) error { return nil }
}

func debtOf(pods ...string) quiesce.Debt {
	d := quiesce.Debt{Application: "shop"}
	for _, pod := range pods {
		d.Owed = append(d.Owed, quiesce.Owed{Hook: "q", Target: quiesce.Target{Namespace: "shop", Pod: pod, UID: "u-" + pod}, Action: quiesce.Action{Command: []string{"resume"}}})
	}
	return d
}

func records(t *testing.T, client *fake.Clientset) []corev1.ConfigMap {
	t.Helper()
	list, err := client.CoreV1().ConfigMaps(v1alpha1.SystemNamespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

func TestLedger(t *testing.T) {
	client := fake.NewClientset()
	l := NewLedger(client)
	d := debtOf("db-0", "db-1")
	if err := l.Owe(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	// The capture lives: nobody else acts for it.
	r := &fakeRunner{}
	if left, err := l.Collect(t.Context(), anything, r); left != 0 || err != nil || len(r.ran) > 0 {
		t.Fatalf("a living capture's debt was collected: %v, %v", r.ran, err)
	}
	if err := l.Leave(t.Context(), "shop", d.Owed[:1]); err != nil {
		t.Fatal(err)
	}
	// What it could not do itself is tried again until it works.
	r.fail = errors.New("refused")
	if left, err := l.Collect(t.Context(), anything, r); left != 1 || err == nil || !strings.Contains(err.Error(), "refused") {
		t.Fatalf("left %d, %v", left, err)
	}
	r.fail = nil
	if left, err := l.Collect(t.Context(), anything, r); left != 0 || err != nil || !slices.Equal(r.ran, []string{"resume db-1", "resume db-1"}) {
		t.Fatalf("left %d, %v, ran %v", left, err, r.ran)
	}
	if got := records(t, client); len(got) > 0 {
		t.Errorf("records are left: %v", got)
	}
}

// TestNextAgentCollects makes a second process of the same ledger.
func TestNextAgentCollects(t *testing.T) {
	client := fake.NewClientset()
	if err := NewLedger(client).Owe(t.Context(), debtOf("db-0")); err != nil {
		t.Fatal(err)
	}
	next := NewLedger(client)
	r := &fakeRunner{fail: quiesce.ErrGone} // the pod went, too
	if left, err := next.Collect(t.Context(), anything, r); left != 0 || err != nil || len(r.ran) != 1 {
		t.Fatalf("left %d, %v, ran %v", left, err, r.ran)
	}
	if got := records(t, client); len(got) > 0 {
		t.Errorf("records are left: %v", got)
	}
}

func TestNextCaptureKeepsOlderDebt(t *testing.T) {
	client := fake.NewClientset()
	if err := NewLedger(client).Owe(t.Context(), debtOf("db-0", "db-1")); err != nil {
		t.Fatal(err)
	}
	l := NewLedger(client)
	if err := l.Owe(t.Context(), debtOf("db-1", "db-2")); err != nil {
		t.Fatal(err)
	}
	if err := l.Leave(t.Context(), "shop", debtOf("db-1", "db-2").Owed); err != nil {
		t.Fatal(err)
	}
	r := &fakeRunner{}
	if _, err := l.Collect(t.Context(), anything, r); err != nil || !slices.Equal(r.ran, []string{"resume db-0"}) {
		t.Errorf("ran %v, %v", r.ran, err)
	}
}

func TestLedgerThatCannotBeWritten(t *testing.T) {
	client := fake.NewClientset()
	client.PrependReactor("create", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("no room")
	})
	l := NewLedger(client)
	if err := l.Owe(t.Context(), debtOf("db-0")); err == nil {
		t.Fatal("it was taken")
	}
	if err := l.Leave(t.Context(), "shop", nil); err != nil {
		t.Fatal(err)
	}
	select {
	case l.turn("shop") <- struct{}{}:
	default:
		t.Error("the application's turn was kept")
	}
}

// TestNotPermittedStaysOwed: what may not be run is neither run nor forgotten.
func TestNotPermittedStaysOwed(t *testing.T) {
	client := fake.NewClientset()
	if err := NewLedger(client).Owe(t.Context(), debtOf("db-0")); err != nil {
		t.Fatal(err)
	}
	asked := ""
	never := func(_ context.Context, application string) quiesce.Permit {
		asked = application
		return func(context.Context, quiesce.Owed) error { return errors.New("no hook does that") }
	}
	r := &fakeRunner{}
	left, err := NewLedger(client).Collect(t.Context(), never, r)
	if left != 1 || err == nil || !strings.Contains(err.Error(), "no hook does that") || len(r.ran) > 0 || asked != "shop" {
		t.Errorf("left %d, %v, ran %v, asked for %q", left, err, r.ran, asked)
	}
	if got := records(t, client); len(got) != 1 {
		t.Errorf("records: %v", got)
	}
}

// TestRecordElsewhere is one that the ledger did not write: it would never be
// struck out, and run for ever.
func TestRecordElsewhere(t *testing.T) {
	client := fake.NewClientset()
	if err := NewLedger(client).Owe(t.Context(), debtOf("db-0")); err != nil {
		t.Fatal(err)
	}
	record := records(t, client)[0]
	record.Name = "mine"
	maps := client.CoreV1().ConfigMaps(v1alpha1.SystemNamespace)
	if _, err := maps.Create(t.Context(), &record, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := maps.Delete(t.Context(), recordName("shop"), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r := &fakeRunner{}
	if left, err := NewLedger(client).Collect(t.Context(), anything, r); left != 1 || err == nil || len(r.ran) > 0 {
		t.Errorf("left %d, %v, ran %v", left, err, r.ran)
	}
}

// FuzzRead reads what somebody may have changed by hand.
func FuzzRead(f *testing.F) {
	f.Add(`{"application":"shop","owed":[{"hook":"q","target":{"namespace":"a","pod":"b"},"action":{"command":["x"]}}]}`)
	f.Add(`{}`)
	f.Add(`{"application":"other"}`)
	f.Fuzz(func(t *testing.T, text string) {
		d, err := Read(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: recordName("shop")}, Data: map[string]string{owedKey: text}})
		if err == nil && d.Application != "shop" {
			t.Errorf("a debt of %q", d.Application)
		}
	})
}
