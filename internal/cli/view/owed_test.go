package view

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/controller-runtime/pkg/client"
	clientfake "sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/kube/quiescer"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/quiesce"
)

// TestStatusSaysWhoWasLeftAtRest, and takes no capture that lives for one that
// died.
func TestStatusSaysWhoWasLeftAtRest(t *testing.T) {
	ledger := fake.NewClientset()
	for _, app := range []string{"shop", "bank"} {
		debt := quiesce.Debt{Application: app, Owed: []quiesce.Owed{
			{Hook: "a", Target: quiesce.Target{Namespace: app, Pod: "db-0"}}, {Hook: "b", Target: quiesce.Target{Namespace: app, Pod: "db-0"}},
		}}
		if err := quiescer.NewLedger(ledger).Owe(t.Context(), debt); err != nil {
			t.Fatal(err)
		}
	}
	records, err := ledger.CoreV1().ConfigMaps(v1alpha1.SystemNamespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	objects := []client.Object{
		&v1alpha1.RecoveryPoint{ // of bank: its capture goes on
			ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "bank-1", Labels: map[string]string{v1alpha1.LabelApplication: "bank"}},
			Status:     v1alpha1.RecoveryPointStatus{Phase: v1alpha1.PointCapturing},
		},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "odd", Labels: map[string]string{quiescer.LabelOwed: "true"}}},
	}
	for i := range records.Items {
		objects = append(objects, &records.Items[i])
	}
	c := clientfake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(objects...).Build()
	status, err := Gather(t.Context(), c, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(status.Owed, func(o Owed) bool { return o.Application == "shop" })
	if len(status.Owed) != 2 || i < 0 || status.Owed[i].Hooks != 2 || !slices.Equal(status.Owed[i].Pods, []string{"shop/db-0"}) || status.Healthy {
		t.Errorf("owed %+v", status.Owed)
	}
	out := &output.Text{}
	status.Text(out)
	for _, want := range []string{"shop: 2 hooks of a capture that died", "in shop/db-0", "undo by hand"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("status does not say %q:\n%s", want, out.String())
		}
	}
}
