package protection

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"davit.dev/davit/internal/copies"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/reading"
	"davit.dev/davit/internal/volume/suspect"
)

// ErrNotRepaired says that the copy could not mend all that is damaged.
var ErrNotRepaired = errors.New("damage not repaired")

// RepairReport is what a repair did.
type RepairReport struct {
	copies.RepairReport
	// Verified is the reading back after it.
	Verified VerifyReport
}

// Repair mends what a verification found damaged, of a point or of blobs, from a second copy
// named from, reads it back whole and, if that goes well, takes the quarantine
// off. ErrNotRepaired says that damage is left; bytes that are not what was
// written are never put anywhere.
func (p *Protector) Repair(ctx context.Context, app, id string, from *vault.Project, name string, found VerifyReport) (RepairReport, error) {
	var report RepairReport
	if !from.IsCopy() || from.Name() != p.opts.Project.Name() || from.KeyID() != p.opts.Project.KeyID() {
		return report, fmt.Errorf("repair %s: %w: %s is no copy of this vault", id, vault.ErrKey, name)
	}
	session, err := reading.Begin(ctx, reading.Work{
		Project: from, Application: app, Point: id, By: "repair", Site: p.opts.Site, Cluster: p.opts.ClusterID, Log: p.log,
	})
	if err != nil { // as in a copy that is full, or has not this point: what it has of it may do all the same
		p.log.Warn("nothing keeps the copy's point from being removed while it is read", "point", id, "copy", name, "error", err)
	}
	defer session.End(ctx)
	report.RepairReport, err = copies.Repair(ctx, copies.RepairOptions{
		First: p.opts.Project, Copy: from, Volumes: VolumeOptions, Packs: found.Packs,
	}, app, id)
	if len(report.Repaired) > 0 {
		p.log.Warn("repaired damage in the vault", "point", id, "from", name, "objects", report.Repaired, "bytes", report.Bytes)
	}
	if err != nil {
		return report, err
	}
	if err := p.clear(ctx, found.Packs, report.Repaired); err != nil {
		return report, fmt.Errorf("repair %s: %w", id, err)
	}
	report.Verified, err = p.Verify(ctx, app, id, VerifyOptions{Blobs: len(found.BlobDamage) > 0})
	if errors.Is(err, ErrDamaged) {
		return report, fmt.Errorf("repair %s: %w: %w", id, ErrNotRepaired, err)
	}
	if err != nil {
		return report, err
	}
	err = p.markRepaired(ctx, app, id, name, report.RepairReport)
	if left := report.Verified.BlobDamage; err == nil && len(left) > 0 {
		err = fmt.Errorf("repair %s: %w: the point is whole, but %s", id, ErrNotRepaired, strings.Join(left, "; "))
	}
	return report, err
}

// clear says that packs which were put back, by their keys, may be referred to again.
func (p *Protector) clear(ctx context.Context, packs map[string][]string, repaired []string) error {
	for repository, ids := range packs {
		prefix := p.opts.Project.VolumePrefix(repository)
		whole := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !slices.Contains(repaired, prefix+id) })
		if err := suspect.Clear(ctx, p.opts.Project.Store(), prefix, whole); err != nil {
			return err
		}
	}
	return nil
}

// markRepaired takes off the quarantines that verifications put on.
func (p *Protector) markRepaired(ctx context.Context, app, id, name string, r copies.RepairReport) error {
	marks, err := p.opts.Project.Marks(ctx, app, id)
	if err != nil {
		return fmt.Errorf("repair %s: %w", id, err)
	}
	mended := vault.Mark{
		Kind: vault.MarkRepaired, At: p.now().UTC(), Site: p.opts.Site, By: "repair", Seen: []string{},
		Note: fmt.Sprintf("put back %d objects from the copy %s: %s", len(r.Repaired), name, strings.Join(r.Repaired[:min(len(r.Repaired), maxDamage)], ", ")),
	}
	for _, q := range (vault.PointInfo{Marks: marks}).Quarantines() {
		if q.OfBytes() {
			mended.Seen = append(mended.Seen, q.Ordinal)
		}
	}
	return p.opts.Project.Mark(ctx, app, id, mended)
}

// Mend is Repair the other way round: it mends what a verification found damaged
// in this second copy of the vault from the first, for a site that holds the
// application's epoch, and reads it back whole. store is the copy's own, for
// writing. ErrNotRepaired says that damage is left.
func (p *Protector) Mend(ctx context.Context, app, id string, first *vault.Project, store vault.Store, held int64, found VerifyReport) (RepairReport, error) {
	var report RepairReport
	if !p.opts.Project.IsCopy() || first.IsCopy() || first.Name() != p.opts.Project.Name() {
		return report, fmt.Errorf("mend %s: %w: it is in no copy of the vault to mend it from", id, vault.ErrKey)
	}
	var err error
	report.RepairReport, err = copies.Mend(ctx, copies.MendOptions{First: first, Store: store, Volumes: VolumeOptions, Held: held, Packs: found.Packs}, app, id)
	if len(report.Repaired) > 0 {
		p.log.Warn("repaired damage in a second copy", "point", id, "objects", report.Repaired, "bytes", report.Bytes)
	}
	if err != nil {
		return report, err
	}
	report.Verified, err = p.Verify(ctx, app, id, VerifyOptions{Blobs: len(found.BlobDamage) > 0})
	if errors.Is(err, ErrDamaged) {
		return report, fmt.Errorf("mend %s: %w: %w", id, ErrNotRepaired, err)
	}
	if left := report.Verified.BlobDamage; err == nil && len(left) > 0 {
		err = fmt.Errorf("mend %s: %w: the point is whole, but %s", id, ErrNotRepaired, strings.Join(left, "; "))
	}
	return report, err
}
