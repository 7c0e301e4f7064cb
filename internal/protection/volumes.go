package protection

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"davit.dev/davit/internal/copies"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/volume"
)

// maxInventory bounds a volume inventory, in bytes.
const maxInventory = 256 << 20

// Repository is what protection does with a volume repository.
// *volume.Repository is one.
type Repository interface {
	Verify(ctx context.Context, snap point.Snapshot, opts volume.VerifyOptions) (volume.VerifyReport, error)
	VerifyBlobs(ctx context.Context, inventories []string, opts volume.VerifyOptions) (volume.VerifyReport, error)
	Delete(ctx context.Context, snap point.Snapshot) error
	List(ctx context.Context) ([]volume.Listed, error)
	Maintain(ctx context.Context, opts volume.MaintainOptions) (volume.MaintainReport, error)
	Close(ctx context.Context) error
}

// OpenVolumes opens a volume repository, named as in a point's manifest.
type OpenVolumes func(ctx context.Context, repository string, readOnly bool) (Repository, error)

// VolumeOptions open a volume repository, named as in a point's manifest, in
// the project's own store. Every process that opens it uses these: the password
// and the seal of the inventories come from the project's keys.
func VolumeOptions(p *vault.Project, repository string) volume.Options {
	opts := volume.Options{
		Store: p.Store(), Prefix: p.VolumePrefix(repository), Password: p.RepositoryKey(repository), Site: repository,
		Seal:   p.Seal,
		Unseal: func(key string, sealed []byte) ([]byte, error) { return p.Unseal(key, sealed, maxInventory) },
	}
	if p.IsCopy() || p.WasCopy() { // what came with the copy is never written again
		opts.Indexes = copies.Indexes(p, repository)
	}
	return opts
}

// GentleVolumes opens them as ProjectVolumes does, for work that leaves room
// for captures and restores: one file, or part of one, at a time.
func GentleVolumes(p *vault.Project, log *slog.Logger) OpenVolumes {
	return openVolumes(p, log, 1)
}

// ProjectVolumes opens repositories in the project's own store, with a cache
// in a temporary directory.
func ProjectVolumes(p *vault.Project, log *slog.Logger) OpenVolumes {
	return openVolumes(p, log, 0)
}

func openVolumes(p *vault.Project, log *slog.Logger, parallel int) OpenVolumes {
	return func(ctx context.Context, site string, readOnly bool) (Repository, error) {
		opts := VolumeOptions(p, site)
		opts.ReadOnly, opts.Logger, opts.Parallel = readOnly, log, parallel
		repo, err := volume.Open(ctx, opts)
		if err != nil {
			return nil, fmt.Errorf("open volumes of site %s: %w", site, err)
		}
		return repo, nil
	}
}

// keptOpen leaves repositories open for work on many points. To open one takes a read of each of
// its indexes, of which there is one for every capture since the space was last reclaimed.
type keptOpen struct {
	open OpenVolumes
	all  map[string]Repository
}

// lent is a repository that whoever has it does not close.
type lent struct{ Repository }

// Close leaves it open.
func (lent) Close(context.Context) error { return nil }

func (k *keptOpen) repository(ctx context.Context, name string, readOnly bool) (Repository, error) {
	if repo, ok := k.all[name]; ok {
		return lent{repo}, nil
	}
	repo, err := k.open(ctx, name, readOnly)
	if err != nil {
		return nil, err
	}
	if k.all == nil {
		k.all = map[string]Repository{}
	}
	k.all[name] = repo
	return lent{repo}, nil
}

func (k *keptOpen) close(ctx context.Context) error {
	var errs []error
	for _, repo := range k.all {
		errs = append(errs, repo.Close(ctx))
	}
	return errors.Join(errs...)
}
