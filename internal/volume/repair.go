package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/relay"
)

// RepairOptions say what of a repository is looked at and put back.
type RepairOptions struct {
	// From is the store of a second copy.
	From vault.Store
	// Needs are inventories that must be there, as point.Snapshot names them.
	Needs []string
	// Packs are packs of data that are known to be damaged. Others are looked
	// for only by their presence and size, unless All says to read every one.
	Packs []string
	All   bool
}

// RepairReport is what was put back, and what could not be.
type RepairReport struct {
	Repaired []string // keys
	Bytes    int64
	// Left are blobs and inventories that are damaged, and in the copy too.
	Left []Damage
}

// Repair puts inventories and blobs back that are damaged or missing, from a
// second copy. Only bytes that an inventory listed, or that unseal as one, are
// written. It needs no password, and may run beside writers.
func Repair(ctx context.Context, opts Options, how RepairOptions) (RepairReport, error) {
	m := &mender{
		r: &Repository{opts: opts.withDefaults()}, how: how,
		here: relay.Carrier{From: how.From, To: opts.Store},
	}
	if err := m.run(ctx); err != nil {
		return m.report, fmt.Errorf("repair volume repository %s: %w", opts.Prefix, err)
	}
	sort.Strings(m.report.Repaired)
	return m.report, nil
}

// mender is one repair. It works on one object at a time.
type mender struct {
	r      *Repository
	how    RepairOptions
	here   relay.Carrier // from the copy to the first vault
	report RepairReport
}

func (m *mender) run(ctx context.Context) error {
	if err := m.inventories(ctx); err != nil {
		return err
	}
	inv, err := m.r.loadInventory(ctx)
	if err != nil {
		return err
	}
	sizes, err := m.r.blobSizes(ctx)
	if err != nil {
		return err
	}
	ids := make([]string, 0, len(inv.blobs))
	for id := range inv.blobs {
		ids = append(ids, id)
	}
	sort.Strings(ids)
	for _, id := range ids {
		size, there := sizes[id]
		if err := m.blob(ctx, id, inv.blobs[id], size, there); err != nil {
			return err
		}
	}
	return nil
}

// inventories puts back those that do not unseal, and those that are missing
// and were not merged.
func (m *mender) inventories(ctx context.Context) error {
	prefix := inventoryPrefix(m.r.opts.Prefix)
	inv, err := m.r.loadInventory(ctx)
	if err != nil {
		return err
	}
	bad := map[string]error{}
	for _, d := range inv.damaged {
		bad[d.Blob] = d.Err
	}
	copied, err := listObjects(ctx, m.how.From, prefix)
	if err != nil {
		return err
	}
	known := slices.Clone(m.how.Needs)
	for name := range copied {
		known = append(known, prefix+name)
	}
	for _, lost := range missingInventories(inv, known) {
		bad[lost.Blob] = lost.Err
	}
	for key, err := range bad {
		if err := m.put(ctx, key, m.r.acceptInventory, Damage{Blob: key, Err: err}); err != nil {
			return err
		}
	}
	return nil
}

// blob looks at one blob and puts it back if it is not as listed.
func (m *mender) blob(ctx context.Context, id string, e *expectation, size int64, there bool) error {
	switch {
	case !there && (!e.present || e.deleted): // never written, or meant to be gone
		return nil
	case !there:
		return m.put(ctx, m.r.opts.Prefix+id, e.accept, Damage{Blob: id, Err: errMissing})
	case !m.suspect(id) && e.sized(size):
		return nil
	}
	held, err := m.here.Holds(ctx, m.r.opts.Prefix+id, e.accept)
	if err != nil || held {
		return err
	}
	return m.put(ctx, m.r.opts.Prefix+id, e.accept, Damage{Blob: id, Err: errChanged})
}

// suspect tells whether a blob is read although its size is right: all that is
// not a pack of data, for a damaged index says nothing of where the damage is.
func (m *mender) suspect(id string) bool {
	return m.how.All || !strings.HasPrefix(id, "p") || slices.Contains(m.how.Packs, id)
}

// put brings one object back, or notes that the copy has nothing better.
func (m *mender) put(ctx context.Context, key string, accept relay.Accept, d Damage) error {
	n, err := m.here.Carry(ctx, key, accept)
	switch {
	case errors.Is(err, vault.ErrNotFound), errors.Is(err, vault.ErrDamaged):
		m.report.Left = append(m.report.Left, d)
		return nil
	case err != nil:
		return err
	}
	m.report.Repaired = append(m.report.Repaired, key)
	m.report.Bytes += n
	return nil
}
