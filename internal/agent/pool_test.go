package agent

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fs"
)

// aVault is a vault in a directory, with the objects that lead to it.
func aVault(t *testing.T, delay time.Duration) []client.Object {
	t.Helper()
	dir := t.TempDir()
	store, err := fs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := vault.Init(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	project, err := vault.CreateProject(t.Context(), store, "default", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	ring, err := vault.Admit(t.Context(), project)
	if err != nil {
		t.Fatal(err)
	}
	return []client.Object{
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "vault-main"}, Data: ring.Secret()},
		&v1alpha1.Vault{
			ObjectMeta: metav1.ObjectMeta{Name: "main", Generation: 1},
			Spec:       v1alpha1.VaultSpec{URL: "file://" + dir, SecretName: "vault-main", Project: "default", DeletionDelay: &metav1.Duration{Duration: delay}},
		},
	}
}

// TestAChangedVault: others may go by a vault's object as it was a moment ago,
// until whoever tells people so has looked.
func TestAChangedVault(t *testing.T) {
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(aVault(t, time.Hour)...).Build()
	clients, err := kube.New(&rest.Config{Host: "https://192.0.2.1"}) // is not asked
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	p := newPool(clients, c, lease.Identity{Site: "east", Cluster: "c"}, slog.New(slog.DiscardHandler), func() time.Time { return now })
	delay := func() time.Duration {
		t.Helper()
		opened, err := p.Opened(t.Context(), "main")
		if err != nil {
			t.Fatal(err)
		}
		return vaults.DeletionDelay(&opened.Object)
	}
	change := func(to time.Duration) {
		t.Helper()
		var v v1alpha1.Vault
		if err := c.Get(t.Context(), client.ObjectKey{Name: "main"}, &v); err != nil {
			t.Fatal(err)
		}
		v.Generation++
		v.Spec.DeletionDelay.Duration = to
		if err := c.Update(t.Context(), &v); err != nil {
			t.Fatal(err)
		}
	}
	if got := delay(); got != time.Hour {
		t.Fatalf("delay is %s", got)
	}
	change(time.Second)
	if got := delay(); got != time.Hour { // the control: the pool remembers
		t.Errorf("looked at again at once: %s", got)
	}
	if opened, err := (fresh{p}).Opened(t.Context(), "main"); err != nil || opened.Object.Generation != 2 {
		t.Fatalf("fresh: generation %d, %v", opened.Object.Generation, err)
	}
	before, err := p.Protector(t.Context(), "main")
	if err != nil {
		t.Fatal(err)
	}
	if got := delay(); got != time.Second {
		t.Errorf("after it was looked at: %s", got)
	}
	change(time.Minute)
	now = now.Add(keyFor)
	if got := delay(); got != time.Minute {
		t.Errorf("in time: %s", got)
	}
	if after, err := p.Protector(t.Context(), "main"); err != nil || after == before {
		t.Errorf("what captures work with did not change: %v", err)
	}
}

// TestWhoWaitsForASilentVaultGoesOn when his own time is over, although another still
// waits for the vault's answer: what a node says of a lease must be told all the same.
func TestWhoWaitsForASilentVaultGoesOn(t *testing.T) {
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(aVault(t, time.Hour)...).Build()
	clients, err := kube.New(&rest.Config{Host: "https://192.0.2.1"}) // is not asked
	if err != nil {
		t.Fatal(err)
	}
	p := newPool(clients, c, lease.Identity{Site: "east", Cluster: "c"}, slog.New(slog.DiscardHandler), time.Now)
	turn := make(chan struct{}, 1)
	p.entries["main"] = &entry{turn: turn}
	turn <- struct{}{} // somebody opens it
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Protector(over, "main"); !errors.Is(err, vault.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("while another opens it: %v", err)
	}
	<-turn
	if _, err := p.Protector(t.Context(), "main"); err != nil {
		t.Errorf("when nobody does: %v", err)
	}
}
