package protection

import (
	"context"
	"fmt"
	"slices"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/volume"
	"davit.dev/davit/internal/volume/suspect"
)

// listsDamaged tells, once, that a site's repository cannot list its snapshots: the points
// themselves may be whole, but space is freed no more until that is repaired.
func (v *verifier) listsDamaged(site string, err error) {
	text := fmt.Sprintf("volumes of site %s: %v", site, err)
	if !slices.Contains(v.report.BlobDamage, text) {
		v.report.BlobDamage = noted(v.report.BlobDamage, text)
	}
}

// blobs compares a site's repository with its inventories, blob by blob. A blob
// that is not as it was written may hurt this point, another, or none, as where
// only its padding changed: if it was read in part before, the point is read
// whole, to know.
func (v *verifier) blobs(ctx context.Context, site string, repo Repository, volumes []point.Volume) error {
	if !v.opts.Blobs || slices.Contains(v.opts.NotOf, site) {
		return nil
	}
	var inventories []string
	for _, vol := range volumes {
		inventories = append(inventories, vol.Snapshot.Inventories...)
	}
	base := v.at.Bytes
	how := v.reading(base)
	if v.opts.AllBlobs {
		how.Sample = 0
	}
	got, err := repo.VerifyBlobs(ctx, inventories, how)
	if err != nil {
		return err
	}
	v.at.Bytes = base + got.BlobBytes
	v.report.Sites = append(v.report.Sites, site)
	v.report.Blobs += got.Blobs
	v.report.BlobBytes += got.BlobBytes
	for _, d := range got.Damaged {
		v.report.BlobDamage = noted(v.report.BlobDamage, fmt.Sprintf("volumes of site %s: %s", site, d))
		v.report.pack(site, d.Blob)
	}
	if !v.p.opts.Project.IsCopy() && len(got.Whole) > 0 {
		if err := suspect.Clear(ctx, v.p.opts.Project.Store(), v.p.opts.Project.VolumePrefix(site), got.Whole); err != nil {
			v.p.log.Warn("packs that are whole stay noted as damaged: new points of these volumes store again what is in them", "site", site, "error", err)
		}
	}
	if len(got.Damaged) == 0 || v.report.How != vault.HowSample || len(v.report.Damage) > 0 {
		return nil
	}
	for _, vol := range volumes {
		whole, err := repo.Verify(ctx, vol.Snapshot, volume.VerifyOptions{ReadAll: true})
		if err != nil {
			return fmt.Errorf("volume %s/%s: %w", vol.Namespace, vol.Claim, err)
		}
		for _, d := range whole.Damaged {
			v.damaged(fmt.Errorf("volume %s/%s: %s %s: %w", vol.Namespace, vol.Claim, d.Path, d.Blob, d.Err))
		}
	}
	return nil
}
