package admission

import (
	"path/filepath"
	"testing"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/promotion"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// TestNoSiteIsCalledNobody: a fence that it proves would be one of every site that was never
// moved over to a promoted vault.
func TestNoSiteIsCalledNobody(t *testing.T) {
	key, err := vault.NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	for name, refused := range map[string]bool{promotion.Nobody: true, "east": false} {
		r := Request{Project: "default", RecoveryKey: filepath.Join(t.TempDir(), "key"), Sign: vault.SiteStatus{Site: name, Cluster: "c"}}
		if _, err := r.Enter(t.Context(), mem.New(nil), key); exit.IsRefusal(err) != refused || !refused && err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
