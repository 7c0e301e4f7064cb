package console

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/internal/console"
	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/install"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// silent is a vault that does not answer any more once it is told so.
type silent struct {
	vault.Store
	now bool
}

func (s *silent) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if s.now {
		return nil, vault.ErrUnavailable
	}
	return s.Store.Get(ctx, key, offset, length)
}

// TestAKeyThatWasShutOut: an install keeps the pods' key while it opens the vault, and
// makes another one for pods whose key was shut out, which could not begin any more.
func TestAKeyThatWasShutOut(t *testing.T) {
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	store := &silent{Store: mem.New(func() time.Time { return noon })}
	found := func(s vault.Store) (*vault.Project, vault.Identity) {
		key, err := vault.NewRecoveryKey()
		check(err)
		_, err = vault.Init(t.Context(), s)
		check(err)
		_, err = vault.CreateProject(t.Context(), s, "default", key.Recipient())
		check(err)
		p, err := vault.OpenProject(t.Context(), s, "default", key)
		check(err)
		a, err := authority.Ensure(t.Context(), p, key, noon)
		check(err)
		heir, err := console.Heir(t.Context(), p, a, installedName, noon)
		check(err)
		return p, heir
	}
	p, heir := found(store)
	_, other := found(mem.New(func() time.Time { return noon }))
	for text, want := range map[string]bool{heir.Secret() + "\n": true, other.Secret(): false, "": false} {
		if opens, err := admitted(t.Context(), p, text); err != nil || opens != want {
			t.Errorf("%t, %v, want %t", opens, err, want)
		}
	}
	_, err := p.Rotate(t.Context(), vault.Rotation{Remove: []vault.Recipient{heir.Recipient()}})
	check(err)
	if opens, err := admitted(t.Context(), p, heir.Secret()); err != nil || opens {
		t.Errorf("shut out: %t, %v", opens, err)
	}
	store.now = true // no answer is not that it was shut out: another key for each try would be
	if _, err := admitted(t.Context(), p, heir.Secret()); !errors.Is(err, vault.ErrUnavailable) {
		t.Errorf("the vault is silent: %v", err)
	}
}

// TestServiceStays: an upgrade changes the type of the Service only if it is told to.
func TestServiceStays(t *testing.T) {
	const url = "https://console.example.com:30443"
	for _, c := range []struct{ there, asked, url, want string }{
		{"", "", "", ""}, // ClusterIP
		{"LoadBalancer", "", url, "LoadBalancer"},
		{"NodePort", "", url, "NodePort"},
		{"ClusterIP", "", "", "ClusterIP"},
		{"LoadBalancer", "ClusterIP", url, "ClusterIP"},
		{"LoadBalancer", "", "", "refused"}, // it needs --url
	} {
		b := fake.NewClientBuilder()
		if c.there != "" {
			b = b.WithObjects(&corev1.Service{
				ObjectMeta: metav1.ObjectMeta{Namespace: install.ConsoleNamespace, Name: install.ConsoleName},
				Spec:       corev1.ServiceSpec{Type: corev1.ServiceType(c.there)},
			})
		}
		o := install.ConsoleOptions{ServiceType: c.asked, URL: c.url}
		err := keepService(t.Context(), b.Build(), &o)
		if c.want == "refused" {
			if err == nil {
				t.Errorf("%+v: not refused", c)
			}
			continue
		}
		if err != nil || o.ServiceType != c.want {
			t.Errorf("%+v: %q, %v", c, o.ServiceType, err)
		}
	}
}
