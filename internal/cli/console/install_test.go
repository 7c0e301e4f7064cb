package console

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"davit.dev/davit/internal/console"
	"davit.dev/davit/internal/console/authority"
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
