package copies

import (
	"context"
	"errors"
	"fmt"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/relay"
	"davit.dev/davit/internal/volume"
)

// RepairOptions are what a repair works with.
type RepairOptions struct {
	// First is the project whose point is mended, Copy the same in a second copy.
	First, Copy *vault.Project
	Volumes     func(p *vault.Project, site string) volume.Options
	// Packs are packs of volume data known to be damaged, by site; All reads
	// every blob of the repositories instead.
	Packs map[string][]string
	All   bool
}

// RepairReport is what was put back, and what could not be.
type RepairReport struct {
	Repaired []string // keys
	Bytes    int64
	// Left is damaged in the copy too, or missing there. Nothing was written
	// over it.
	Left []string
}

// Repair puts back what is damaged or missing of one point: manifest, packs,
// log, marks, and the blobs of its volumes' repositories. Bytes are put back
// only if they are what was written: those with the SHA-256 that manifest or
// inventory name, and where nothing names one, those that unseal.
func Repair(ctx context.Context, opts RepairOptions, app, id string) (RepairReport, error) {
	r := &repair{opts: opts, app: app, id: id, carry: relay.Carrier{From: opts.Copy.Store(), To: opts.First.Store()}}
	r.volumes = r.repository
	if err := r.run(ctx); err != nil {
		return r.report, fmt.Errorf("repair %s: %w", id, err)
	}
	return r.report, nil
}

type repair struct {
	opts    RepairOptions
	app, id string
	carry   relay.Carrier
	volumes func(ctx context.Context, site string, needs []string) error
	report  RepairReport
}

func (r *repair) run(ctx context.Context) error {
	m, err := r.manifest(ctx)
	if err != nil || m == nil {
		return err
	}
	for _, pack := range m.Packs() {
		if err := r.object(ctx, pack.Key, relay.Hash(pack.Size, pack.SHA256)); err != nil {
			return err
		}
	}
	if err := r.marks(ctx); err != nil {
		return err
	}
	needs := map[string][]string{}
	for _, v := range m.Volumes {
		needs[v.Snapshot.Repository] = append(needs[v.Snapshot.Repository], v.Snapshot.Inventories...)
	}
	for site, inventories := range needs {
		if err := r.volumes(ctx, site, inventories); err != nil {
			return err
		}
	}
	return nil
}

// manifest returns the point's manifest, mended if need be; nil if it cannot be.
func (r *repair) manifest(ctx context.Context) (*point.Manifest, error) {
	m, err := r.opts.First.Manifest(ctx, r.app, r.id)
	if !errors.Is(err, vault.ErrDamaged) {
		return m, err
	}
	key := r.opts.First.Root() + "manifests/" + r.app + "/" + r.id
	good, copyErr := r.opts.Copy.Manifest(ctx, r.app, r.id)
	if errors.Is(copyErr, vault.ErrDamaged) || errors.Is(copyErr, vault.ErrNotFound) {
		r.report.Left = append(r.report.Left, key)
		return nil, nil //nolint:nilnil // the report says so
	}
	if copyErr != nil {
		return nil, copyErr
	}
	return good, r.put(ctx, key, r.opens)
}

func (r *repair) opens(key string, data []byte) error {
	_, err := r.opts.First.Unseal(key, data, 64<<20)
	return err
}

// object looks at one object, and puts it back if it is not as it should be.
func (r *repair) object(ctx context.Context, key string, accept relay.Accept) error {
	held, err := r.carry.Holds(ctx, key, accept)
	if err != nil || held {
		return err
	}
	return r.put(ctx, key, accept)
}

func (r *repair) put(ctx context.Context, key string, accept relay.Accept) error {
	n, err := r.carry.Carry(ctx, key, accept)
	switch {
	case errors.Is(err, vault.ErrNotFound), errors.Is(err, vault.ErrDamaged):
		r.report.Left = append(r.report.Left, key)
		return nil
	case err != nil:
		return err
	}
	r.report.Repaired = append(r.report.Repaired, key)
	r.report.Bytes += n
	return nil
}

// marks mends those that are there. One that is missing may have been deleted.
func (r *repair) marks(ctx context.Context) error {
	prefix := r.opts.First.Root() + "marks/" + r.app + "/" + r.id + "/"
	all, err := sizes(ctx, r.opts.First.Store(), prefix)
	if err != nil {
		return err
	}
	for _, key := range sorted(all) {
		if err := r.object(ctx, key, r.opens); err != nil {
			return err
		}
	}
	return nil
}

func (r *repair) repository(ctx context.Context, site string, needs []string) error {
	got, err := volume.Repair(ctx, r.opts.Volumes(r.opts.First, site), volume.RepairOptions{
		From: r.opts.Copy.Store(), Needs: needs, Packs: r.opts.Packs[site], All: r.opts.All,
	})
	r.report.Repaired = append(r.report.Repaired, got.Repaired...)
	r.report.Bytes += got.Bytes
	for _, d := range got.Left {
		r.report.Left = append(r.report.Left, fmt.Sprintf("volumes of site %s: %s", site, d))
	}
	return err
}
