package locking

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/lock"
	"davit.dev/davit/internal/vault/mem"
)

// locking is a store that remembers locks. Many are set at once.
type locking struct {
	vault.Store
	mu    sync.Mutex
	locks map[string]time.Time
	err   error
}

func (l *locking) CheckLock(context.Context) error { return nil }

func (l *locking) Lock(_ context.Context, key string, _ lock.Mode, until time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.locks[key] = until
	}
	return l.err
}

func (l *locking) LockedUntil(_ context.Context, key string) (time.Time, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.locks[key], nil
}

type access struct{ opened *vaults.Opened }

func (a access) Opened(context.Context, string) (*vaults.Opened, error) { return a.opened, nil }

func TestLocksAreProlonged(t *testing.T) {
	store := &locking{Store: mem.New(nil), locks: map[string]time.Time{}}
	if _, err := vault.Init(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	key, err := vault.NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	p, err := vault.CreateProject(t.Context(), store, "default", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	object := &v1alpha1.Vault{ObjectMeta: metav1.ObjectMeta{Name: "main"}, Spec: v1alpha1.VaultSpec{
		Project: "default", Immutability: &v1alpha1.Immutability{Mode: v1alpha1.LockCompliance, Days: 8},
	}}
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(object).WithStatusSubresource(object).Build()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	r := &Reconciler{Client: c, Vaults: access{&vaults.Opened{Project: p, Store: store}}, Events: record.NewFakeRecorder(10), Now: func() time.Time { return now }}
	pass := func() *v1alpha1.LockStatus {
		t.Helper()
		if _, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Name: "main"}}); err != nil {
			t.Fatal(err)
		}
		var v v1alpha1.Vault
		if err := c.Get(t.Context(), client.ObjectKey{Name: "main"}, &v); err != nil {
			t.Fatal(err)
		}
		return v.Status.Lock
	}
	span := 10 * 24 * time.Hour
	if s := pass(); s.Objects == 0 || !store.locks["davit.json"].Equal(now.Add(span)) || !s.Until.Time.Equal(now.Add(span)) {
		t.Errorf("after the first pass: %+v, locks %v", s, store.locks)
	}
	first := now
	now = now.Add(23 * time.Hour) // not due yet
	pass()
	if got := store.locks["davit.json"]; !got.Equal(first.Add(span)) {
		t.Errorf("prolonged to %v although it was not due", got)
	}
	now = now.Add(2 * time.Hour)
	pass()
	if got := store.locks["davit.json"]; !got.Equal(now.Add(span)) {
		t.Errorf("locked until %v, want %v", got, now.Add(span))
	}
	store.err = errors.New("no right to that")
	now = now.Add(25 * time.Hour)
	if s := pass(); !strings.Contains(s.Error, "no right") || s.Until == nil {
		t.Errorf("a pass that failed: %+v", s)
	}
	store.err = nil
	if s := pass(); s.Error != "" || !s.Until.Time.Equal(now.Add(span)) { // tried again at once
		t.Errorf("after the failure: %+v", s)
	}
}
