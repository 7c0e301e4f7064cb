package application

import (
	"context"
	"fmt"
	"testing"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/vault"
)

// silence is a vault that gives no answer.
type silence struct{ access }

func (silence) Protector(context.Context, string) (*protection.Protector, error) {
	return nil, fmt.Errorf("open vault: %w", vault.ErrUnavailable)
}

// TestSilenceNeverFences: an application runs on while the vault says nothing,
// even where another site took over meanwhile; and it is stopped, by the same
// reconciler, once the vault answers.
func TestSilenceNeverFences(t *testing.T) {
	for _, before := range []v1alpha1.Role{"", v1alpha1.RoleActive, v1alpha1.RoleSuperseded} {
		app := shop(v1alpha1.SystemNamespace, v1alpha1.ApplicationSpec{Namespaces: []string{"shop"}})
		app.Status.Role = before
		s := newSite(t, "", app, web("shop"))
		s.claim("shop", "east", "west")
		answers := s.Vaults
		s.Vaults = silence{}
		want := before
		if want == "" {
			want = v1alpha1.RoleUnknown
		}
		if got := s.reconcile(app); s.replicas("shop") != 2 || got.Status.Role != want {
			t.Errorf("was %q: role %q, %d replicas", before, got.Status.Role, s.replicas("shop"))
		}
		s.Vaults = answers
		if got := s.reconcile(app); s.replicas("shop") != 0 || got.Status.Role != v1alpha1.RoleSuperseded {
			t.Errorf("was %q: role %q, %d replicas after the vault answered", before, got.Status.Role, s.replicas("shop"))
		}
	}
}
