package promoting

import (
	"context"
	"errors"
	"fmt"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/promotion"
	"davit.dev/davit/internal/vault"
)

// replaced refuses when the first vault, as this site has it, is not the one that
// the copy was made of: another copy was promoted in its place.
func (w *work) replaced(ctx context.Context) error {
	_, data, err := access.StoreConfig(ctx, w.c, w.first)
	if err != nil {
		return exit.Hint(fmt.Errorf("see which vault %s was: %w", w.first.Name, err), "nobody can tell whether another copy was promoted in its place: bring its Secret back")
	}
	id := string(data["vault-id"])
	if id == w.state.Of || w.state.Begun && id == w.state.Record.ID {
		return nil
	}
	return exit.Refuse("there must be one vault: remove "+w.second.Name+", and add it anew under another prefix as a copy of "+w.first.Name,
		"vault %s is %s, and %s is a copy of vault %s: another copy was made the vault before", w.first.Name, id, w.second.Name, w.state.Of)
}

// lost refuses while the first vault gives this site an answer, and notes why it gives none.
func (w *work) lost(ctx context.Context) error {
	cfg, _, err := access.StoreConfig(ctx, w.c, w.first)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	w.Step("asking vault %s whether it is lost", w.first.Name)
	store, err := w.Store(limited, cfg)
	if err == nil {
		_, err = vault.ReadMarker(limited, store)
	}
	if err != nil {
		w.silence = err.Error()
		return ctx.Err()
	}
	record, err := promotion.Read(ctx, w.store)
	if errors.Is(err, vault.ErrNotFound) {
		return exit.Refuse("while it lives, sites capture and claim in it; `verify --repair` mends what is damaged there",
			"vault %s answers: it is not lost", w.first.Name)
	}
	if err != nil {
		return exit.OfVault(err)
	}
	return exit.Refuse("if it is back for good, add another second copy under another prefix (`vault add NAME URL --copy-of "+w.first.Name+"`), wait until it has all points, then "+
		"`kubectl delete vault "+w.second.Name+"` at every site and delete "+w.second.Spec.URL,
		"vault %s answers: it is not lost. A promotion of its second copy %s was begun at site %s on %s and has not ended: nothing is copied into it any more",
		w.first.Name, w.second.Name, record.Site, record.Created.Format(time.DateTime))
}

// siblings refuses when another copy of the same vault was promoted.
func (w *work) siblings(ctx context.Context) error {
	var all v1alpha1.VaultList
	if err := w.c.List(ctx, &all); err != nil {
		return fmt.Errorf("list vaults: %w", err)
	}
	for i := range all.Items {
		v := &all.Items[i]
		if v.Name == w.second.Name || v.Spec.CopyOf != w.second.Spec.CopyOf {
			continue
		}
		if err := w.sibling(ctx, v); err != nil {
			return err
		}
	}
	return nil
}

func (w *work) sibling(ctx context.Context, v *v1alpha1.Vault) error {
	limited, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	cfg, _, err := access.StoreConfig(limited, w.c, v)
	var store vault.Store
	if err == nil {
		store, err = w.Store(limited, cfg)
	}
	if err == nil {
		_, err = promotion.Read(limited, store)
	}
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return nil
	case err == nil:
		return exit.Refuse("`vault promote "+v.Name+"` moves this site to it", "another copy of vault %s, %s, was promoted already: there must be one vault", v.Spec.CopyOf, v.Name)
	}
	return exit.Refuse("mend that, or, if that copy is lost too, `kubectl delete vault "+v.Name+"`, and try again",
		"nobody knows whether another copy of vault %s, %s, was promoted: %v", v.Spec.CopyOf, v.Name, err)
}
