package speaker

import (
	"context"
	"errors"
	"fmt"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/uplink/beacon"
	"davit.dev/davit/internal/uplink/dial"
)

// signpost says where a project's vaults say that the active console is.
type signpost struct {
	*Speaker
	project string
}

var _ dial.Vault = signpost{}

// Active implements dial.Vault. A second copy has no records.
func (s signpost) Active(ctx context.Context, l dial.Link) (beacon.Record, error) {
	var list v1alpha1.VaultList
	if err := s.Client.List(ctx, &list); err != nil {
		return beacon.Record{}, fmt.Errorf("list vaults: %w", err)
	}
	var best beacon.Record
	var errs []error
	for _, v := range list.Items {
		if v.Spec.Project != s.project || v.Spec.CopyOf != "" {
			continue
		}
		p, err := s.Vaults.Project(ctx, v.Name)
		var r beacon.Record
		if err == nil {
			r, err = beacon.Find(ctx, p, l.Console, l.Authorities, l.Epoch)
		}
		switch {
		case err == nil && r.Epoch > best.Epoch:
			best = r
		case err != nil && !errors.Is(err, beacon.ErrNone):
			errs = append(errs, fmt.Errorf("vault %s: %w", v.Name, err))
		}
	}
	if best.Epoch > 0 {
		return best, nil
	}
	if len(errs) == 0 {
		return best, beacon.ErrNone
	}
	return best, errors.Join(errs...)
}
