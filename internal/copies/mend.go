package copies

import (
	"context"
	"errors"
	"fmt"

	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/relay"
	"davit.dev/davit/internal/volume"
)

// MendOptions are what mending a second copy works with.
type MendOptions struct {
	// First is the project in the first vault, Store the copy's, for writing.
	First   *vault.Project
	Store   vault.Store
	Volumes func(p *vault.Project, site string) volume.Options
	// Held is the epoch of the application that this site holds: a superseded
	// one writes nothing.
	Held int64
	// Packs are packs of volume data known to be damaged in the copy, by site.
	Packs map[string][]string
}

// Mend puts back from the first vault what is damaged or missing of one point
// in a second copy, as Repair does the other way round: only bytes that are
// what was written. The repositories of its volumes it copies as a pass does,
// with what is new in them, and reads all but sound packs again: so what is in
// the copy stays in the order in which a copier writes it, beside which it may
// run. What the first vault no longer has stays as it is.
func Mend(ctx context.Context, opts MendOptions, app, id string) (RepairReport, error) {
	c := New(Options{First: opts.First, Store: opts.Store, Volumes: opts.Volumes})
	if err := c.belongs(ctx); err != nil {
		return RepairReport{}, fmt.Errorf("mend %s: %w", id, err)
	}
	if err := lease.New(opts.First).Check(ctx, app, opts.Held); err != nil {
		return RepairReport{}, fmt.Errorf("mend %s: %w", id, err)
	}
	r := &repair{
		opts: RepairOptions{First: c.in, Copy: opts.First}, app: app, id: id,
		carry: relay.Carrier{From: opts.First.Store(), To: opts.Store},
	}
	r.volumes = func(ctx context.Context, site string, needs []string) error {
		return r.mirror(ctx, c, site, needs, opts.Packs[site])
	}
	if err := r.run(ctx); err != nil {
		return r.report, fmt.Errorf("mend %s: %w", id, err)
	}
	return r.report, nil
}

// mirror copies one site's repository, and reads again what may be damaged. Of
// inventories that the first vault merged, or lost with the point, it asks for none.
func (r *repair) mirror(ctx context.Context, c *Copier, site string, needs, packs []string) error {
	if _, err := c.opts.First.Manifest(ctx, r.app, r.id); errors.Is(err, vault.ErrNotFound) {
		needs = nil
	}
	if err := c.keepIndexes(ctx, site); err != nil {
		return err
	}
	got, err := volume.Mirror(ctx, c.opts.Volumes(c.opts.First, site), volume.MirrorOptions{
		To: c.opts.Store, Needs: needs, Reread: true, Suspect: packs,
	})
	r.report.Repaired = append(r.report.Repaired, got.Mended...)
	r.report.Bytes += got.Bytes
	for _, d := range got.Missing {
		r.report.Left = append(r.report.Left, fmt.Sprintf("volumes of site %s: %s", site, d))
	}
	return err
}
