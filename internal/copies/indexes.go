package copies

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/volume"
)

// kept says by which index blobs a snapshot that the first vault deleted is
// found in the copy. See docs/formats/volumes.md.
type kept struct {
	FormatVersion int      `json:"formatVersion"`
	Blobs         []string `json:"blobs"`
}

const (
	keptVersion = 1
	maxKept     = 16 << 20
)

func keptPrefix(p *vault.Project, site string) string { return p.Root() + "indexes/" + site + "/" }

// Indexes tells, in a second copy, by which index blobs a snapshot of the site
// is read; none for those of today.
func Indexes(p *vault.Project, site string) func(ctx context.Context, snapshot string) ([]string, error) {
	return func(ctx context.Context, snapshot string) ([]string, error) {
		if snapshot == "" || path.Base(snapshot) != snapshot {
			return nil, fmt.Errorf("look for kept indexes: %q is no name of a snapshot", snapshot)
		}
		plain, err := p.ReadSealed(ctx, keptPrefix(p, site)+snapshot)
		if errors.Is(err, vault.ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("look for kept indexes: %w", err)
		}
		return parseKept(plain)
	}
}

func parseKept(plain []byte) ([]string, error) {
	var k kept
	if err := json.Unmarshal(plain, &k); err != nil {
		return nil, fmt.Errorf("read kept indexes: %w: %w", vault.ErrDamaged, err)
	}
	if k.FormatVersion != keptVersion || len(k.Blobs) == 0 {
		return nil, fmt.Errorf("read kept indexes: %w: version %d with %d blobs", vault.ErrDamaged, k.FormatVersion, len(k.Blobs))
	}
	for _, id := range k.Blobs {
		if !strings.HasPrefix(id, volume.IndexPrefix) {
			return nil, fmt.Errorf("read kept indexes: %w: %q is no index blob", vault.ErrDamaged, id)
		}
	}
	return k.Blobs, nil
}

// keepIndexes writes down, before the site's newer indexes come, by which ones
// the copy finds the snapshots that only it still needs: newer ones forget them.
// It takes away what was written down for points that are gone since. Nothing of
// the repository may be copied after an error: what the newer indexes forgot
// would be written down as what the points need, and stay so.
func (c *Copier) keepIndexes(ctx context.Context, site string) error {
	needed, err := c.onlyHere(ctx, site)
	if err != nil {
		return fmt.Errorf("keep indexes of site %s: %w", site, err)
	}
	prefix := keptPrefix(c.in, site)
	there, err := sizes(ctx, c.opts.Store, prefix)
	if err != nil || len(there)+len(needed) == 0 {
		return err
	}
	for _, key := range sorted(there) {
		if !slices.Contains(needed, strings.TrimPrefix(key, prefix)) {
			if err := c.opts.Store.Delete(ctx, key); err != nil {
				return fmt.Errorf("delete kept indexes %s: %w", key, err)
			}
		}
	}
	for _, snapshot := range needed {
		if _, known := there[prefix+snapshot]; known {
			continue
		}
		if err := c.keepIndexesOf(ctx, site, snapshot); err != nil {
			return err
		}
	}
	return nil
}

func (c *Copier) keepIndexesOf(ctx context.Context, site, snapshot string) error {
	repository := c.opts.First.VolumePrefix(site)
	blobs, err := sizes(ctx, c.opts.Store, repository+volume.IndexPrefix)
	if err != nil || len(blobs) == 0 {
		return err
	}
	k := kept{FormatVersion: keptVersion}
	for _, key := range sorted(blobs) {
		k.Blobs = append(k.Blobs, strings.TrimPrefix(key, repository))
	}
	plain, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("encode kept indexes: %w", err)
	}
	key := keptPrefix(c.in, site) + snapshot
	sealed, err := c.opts.First.Seal(key, plain)
	if err != nil {
		return fmt.Errorf("seal kept indexes: %w", err)
	}
	err = c.opts.Store.PutIfAbsent(ctx, key, bytes.NewReader(sealed), int64(len(sealed)))
	if errors.Is(err, vault.ErrExists) { // another site was first
		return nil
	}
	return err
}

// onlyHere are the snapshots in the site's repository of points, of whatever
// application, that the copy has and the first vault does not. A damaged
// manifest names none, and never will; one that cannot be read now is an error.
func (c *Copier) onlyHere(ctx context.Context, site string) ([]string, error) {
	apps, err := c.list.Apps(ctx)
	if err != nil {
		return nil, err
	}
	var snapshots []string
	for _, app := range apps {
		copied, err := c.list.Points(ctx, app)
		if err != nil {
			return nil, err
		}
		copied = slices.DeleteFunc(copied, func(i vault.PointInfo) bool { return !mayNeed(i, site) })
		if len(copied) == 0 {
			continue
		}
		first, err := c.opts.Listing.Points(ctx, app)
		if err != nil {
			return nil, err
		}
		for _, info := range copied {
			if slices.ContainsFunc(first, func(f vault.PointInfo) bool { return f.ID == info.ID }) {
				continue
			}
			if info.Manifest == nil {
				if !errors.Is(info.Err, vault.ErrDamaged) {
					return nil, fmt.Errorf("point %s: %w", info.ID, info.Err)
				}
				continue
			}
			for _, v := range info.Manifest.Volumes {
				if v.Snapshot.Repository == site {
					snapshots = append(snapshots, v.Snapshot.ID)
				}
			}
		}
	}
	return snapshots, nil
}
