package recovery

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/vault"
)

// parallelStats bounds the questions asked of the vault at a time.
const parallelStats = 16

// source reads a point from the vault.
type source struct{ *vault.Project }

var _ restore.Source = source{}

// CheckObjects asks whether every pack is there with its size. Bytes are
// checked when they are read.
func (s source) CheckObjects(ctx context.Context, m *point.Manifest) error {
	sizes := map[string]int64{}
	for _, pack := range m.Packs() {
		sizes[pack.Key] = pack.Size
	}
	return s.present(ctx, sizes)
}

// CheckVolume asks whether the volume's inventories are there. One that is not
// found is taken as merged when a merged one sorts after it; see
// docs/formats/volumes.md.
func (s source) CheckVolume(ctx context.Context, v point.Volume) error {
	have := map[string]bool{}
	newestMerge := ""
	prefix := strings.TrimSuffix(s.VolumePrefix(v.Snapshot.Repository), "/") + "-inventory/"
	err := s.Store().List(ctx, prefix, func(o vault.ObjectInfo) error {
		have[o.Key] = true
		if strings.HasSuffix(o.Key, "-merged") {
			newestMerge = max(newestMerge, o.Key)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list %s: %w", prefix, err)
	}
	for _, key := range v.Snapshot.Inventories {
		if !have[key] && key > newestMerge {
			return fmt.Errorf("%w: %s", vault.ErrNotFound, key)
		}
	}
	return nil
}

// present stats every key; a size of -1 is any.
func (s source) present(ctx context.Context, sizes map[string]int64) error {
	var mu sync.Mutex
	var missing []error
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelStats)
	for key, size := range sizes {
		g.Go(func() error {
			info, err := s.Store().Stat(ctx, key)
			if err == nil && size >= 0 && info.Size != size {
				err = fmt.Errorf("%w: %s has %d bytes, not %d", vault.ErrDamaged, key, info.Size, size)
			}
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				missing = append(missing, fmt.Errorf("stat %s: %w", key, err))
			}
			return nil
		})
	}
	_ = g.Wait() // the goroutines above return nothing
	return errors.Join(missing[:min(len(missing), 5)]...)
}
