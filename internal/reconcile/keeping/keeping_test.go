package keeping

import (
	"bytes"
	"context"
	"io"
	"strings"
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
	"davit.dev/davit/internal/vault/history"
	"davit.dev/davit/internal/vault/mem"
)

// bucket keeps the versions of what was written last.
type bucket struct {
	vault.Store
	key    string
	data   [][]byte
	policy error // what an attempt to destroy gets that `may` does not name
	may    string
	proofs int
}

func (b *bucket) Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if key != b.key {
		b.key, b.data = key, nil
		b.proofs++
	}
	b.data = append(b.data, data)
	return b.Store.Put(ctx, key, bytes.NewReader(data), size)
}

func (b *bucket) KeepsVersions(context.Context) (bool, error) { return true, nil }

func (b *bucket) ListVersions(_ context.Context, _ string, fn func(history.Version) error) error {
	return fn(history.Version{Key: b.key, ID: "1", Size: int64(len(b.data[0]))})
}

func (b *bucket) GetVersion(context.Context, string, string, int64, int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(b.data[0])), nil
}

func (b *bucket) DeleteVersion(context.Context, string, string) error { return b.tried("delete") }
func (b *bucket) SetVersions(context.Context) error                   { return b.tried("versions") }
func (b *bucket) RewritePolicy(context.Context) error                 { return b.tried("policy") }

func (b *bucket) tried(what string) error {
	if what == b.may {
		return nil
	}
	return b.policy
}

type access struct{ opened *vaults.Opened }

func (a access) Opened(context.Context, string) (*vaults.Opened, error) { return a.opened, nil }

// TestItIsProvenEachHour notices when the policy is gone, and when it is back,
// and leaves vaults alone that are not to be kept so.
func TestItIsProvenEachHour(t *testing.T) {
	b := &bucket{Store: mem.New(nil), policy: vault.ErrDenied}
	object := &v1alpha1.Vault{ObjectMeta: metav1.ObjectMeta{Name: "main"}, Spec: v1alpha1.VaultSpec{Project: "default", NoOverwrite: true}}
	plain := &v1alpha1.Vault{ObjectMeta: metav1.ObjectMeta{Name: "plain"}, Spec: v1alpha1.VaultSpec{Project: "default"}}
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(object, plain).WithStatusSubresource(object).Build()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	events := record.NewFakeRecorder(10)
	r := &Reconciler{Client: c, Vaults: access{&vaults.Opened{Store: b}}, Events: events, Now: func() time.Time { return now }}
	pass := func(name string) *v1alpha1.KeepingStatus {
		t.Helper()
		if _, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Name: name}}); err != nil {
			t.Fatal(err)
		}
		var v v1alpha1.Vault
		if err := c.Get(t.Context(), client.ObjectKey{Name: name}, &v); err != nil {
			t.Fatal(err)
		}
		return v.Status.Keeping
	}
	if s := pass("plain"); s != nil || b.proofs != 0 {
		t.Errorf("an ordinary vault: %+v, %d proofs", s, b.proofs)
	}
	if s := pass("main"); s == nil || s.Error != "" || !s.ProvenAt.Time.Equal(now) || b.proofs != 1 {
		t.Errorf("first: %+v, %d proofs", s, b.proofs)
	}
	now = now.Add(every - time.Second)
	if pass("main"); b.proofs != 1 {
		t.Errorf("%d proofs although none was due", b.proofs)
	}
	proven := now.Add(1 - every)
	b.policy = nil // somebody took the policy away
	now = now.Add(2 * time.Second)
	if s := pass("main"); !strings.Contains(s.Error, "s3:DeleteObjectVersion") || s.ProvenAt.After(proven.Add(time.Second)) {
		t.Errorf("without the policy: %+v", s)
	}
	if event := <-events.Events; !strings.Contains(event, "Warning Destroyable") {
		t.Errorf("event %q", event)
	}
	b.policy = vault.ErrUnavailable // silence is no breach, and no proof
	if s := pass("main"); s.Error == "" || s.ProvenAt.After(proven.Add(time.Second)) {
		t.Errorf("no answer: %+v", s)
	}
	if event := <-events.Events; !strings.Contains(event, "Warning NotProven") {
		t.Errorf("event %q", event)
	}
	b.policy = vault.ErrDenied
	for may, remedy := range map[string]string{"delete": "s3:DeleteObjectVersion", "versions": "s3:PutBucketVersioning", "policy": "s3:PutBucketPolicy"} {
		b.may = may // each alone is enough
		if s := pass("main"); !strings.Contains(s.Error, remedy) || s.ProvenAt.After(proven.Add(time.Second)) {
			t.Errorf("who may %s: %+v", may, s)
		}
		for len(events.Events) > 0 { // said anew as it changes
			<-events.Events
		}
	}
	b.may = ""
	if s := pass("main"); s.Error != "" || !s.ProvenAt.Time.Equal(now) { // tried again at once
		t.Errorf("with the policy again: %+v", s)
	}
	if event := <-events.Events; !strings.Contains(event, "NotDestroyable") {
		t.Errorf("event %q", event)
	}
	if _, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Name: "gone"}}); err != nil {
		t.Error(err)
	}
}
