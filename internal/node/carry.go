package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/mover"
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/volume"
	"davit.dev/davit/internal/volume/changes"
)

// carrier moves the data of one task's volume.
type carrier struct {
	reader   client.Reader
	place    locator
	cacheDir string
	read     volume.Pace // of volumes
	write    volume.Pace // to them
	now      func() time.Time
	ask      asker
}

// await returns when the task's volume is mounted, if that is to come.
func (c *carrier) await(ctx context.Context, task *v1alpha1.VolumeTask) {
	if task.Annotations[mover.AwaitsMounts] == "true" {
		c.place.await(ctx, task.Spec)
	}
}

// carry does one task. Its errors go into the task's status, so they hold no
// secrets.
func (c *carrier) carry(ctx context.Context, task *v1alpha1.VolumeTask, opening *opening, r *report) (err error) {
	at, err := c.place.find(task.Spec)
	if err != nil {
		return err
	}
	defer at.Close() //nolint:errcheck // only a handle
	snap, err := snapshotOf(task.Spec)
	if err != nil {
		return err
	}
	repo, err := opening.opened()
	if err != nil {
		return err
	}
	defer func() {
		closed := repo.Close(context.WithoutCancel(ctx))
		if closed != nil && err == nil {
			err = fmt.Errorf("close volume repository: %w", closed)
		}
	}()
	if task.Spec.Operation == v1alpha1.VolumeWrite {
		err = fill(ctx, repo, snap, at.dir(), c.write, r)
	} else {
		err = c.store(ctx, repo, task.Spec, snap, at.dir(), r)
	}
	if err != nil {
		return fmt.Errorf("volume at %s: %w", at.Name(), err)
	}
	return nil
}

// open opens the repository that the task names, with a cache of this slot's
// own: two repositories must not share one.
func (c *carrier) open(ctx context.Context, spec v1alpha1.VolumeTaskSpec, slot int) (*volume.Repository, error) {
	v, err := vaults.Open(ctx, c.reader, spec.Vault)
	if err != nil {
		return nil, err
	}
	repository := spec.Site // what is written back lies where its snapshot says
	if spec.Operation == v1alpha1.VolumeRead {
		repository = v.Project.Repository(spec.Site)
	}
	opts := protection.VolumeOptions(v.Project, repository)
	opts.CacheDir = filepath.Join(c.cacheDir, "slot-"+strconv.Itoa(slot), v.VaultID, v.Project.Name(), repository)
	opts.ReadOnly = spec.Operation == v1alpha1.VolumeWrite
	opts.Now = c.now
	opts.Logger = slog.New(logr.ToSlogHandler(log.FromContext(ctx).V(1)))
	if err := os.MkdirAll(opts.CacheDir, 0o700); err != nil {
		return nil, fmt.Errorf("make cache: %w", err)
	}
	return volume.Open(ctx, opts)
}

// snapshotOf decodes what a Write writes, or what a Read builds upon.
func snapshotOf(spec v1alpha1.VolumeTaskSpec) (*point.Snapshot, error) {
	if spec.Snapshot == "" {
		if spec.Operation == v1alpha1.VolumeWrite {
			return nil, errors.New("task names no snapshot to write")
		}
		return nil, nil //nolint:nilnil // a first Read builds upon nothing
	}
	var snap point.Snapshot
	if err := json.Unmarshal([]byte(spec.Snapshot), &snap); err != nil {
		return nil, fmt.Errorf("decode snapshot of task: %w", err)
	}
	return &snap, nil
}

// store reads the volume into the repository.
func (c *carrier) store(ctx context.Context, repo *volume.Repository, spec v1alpha1.VolumeTaskSpec, previous *point.Snapshot, dir string, r *report) error {
	opts := volume.WriteOptions{
		Root:     dir,
		Source:   sourceOf(spec.Source),
		Previous: previous,
		Progress: r.advance,
		Pace:     c.read,
		Issue:    func(i volume.Issue) { r.warn(i.String()) },
	}
	now := c.now
	if !spec.Live && spec.Cut != nil {
		opts.Cut = spec.Cut.Time
		now = func() time.Time { return opts.Cut }
	}
	blocks := blockReader{ask: c.ask, find: changes.DeviceOf, now: now, warn: r.warn, live: spec.Live, found: r.found()}
	plan, told, err := blocks.plan(ctx, repo, spec.Blocks, dir, previous)
	if err != nil {
		return err
	}
	if opts.Changes = plan; blocks.anew {
		opts.Previous = nil
	}
	if plan != nil {
		plan.Found = func() { r.lied(blocks.lie(plan)) }
	}
	snap, err := repo.Write(ctx, opts)
	if found := blocks.lie(plan); err != nil && found != "" {
		return fmt.Errorf("%w: %s: %w", changes.ErrLied, found, err)
	}
	if err != nil {
		return err
	}
	if snap.Blocks = blocks.settle(plan, told); snap.Blocks != nil {
		r.left(snap.Blocks.Unread)
	}
	text, err := json.Marshal(snap)
	if err != nil {
		return fmt.Errorf("encode snapshot: %w", err)
	}
	r.result(string(text))
	return nil
}

// fill writes the snapshot into the volume. Files that an earlier, interrupted
// fill completed are kept; whatever is not of the snapshot is removed.
func fill(ctx context.Context, repo *volume.Repository, snap *point.Snapshot, dir string, pace volume.Pace, r *report) error {
	return repo.Read(ctx, *snap, dir, volume.ReadOptions{Progress: r.advance, Pace: pace, DeleteExtra: true, Resume: true})
}

// sourceOf takes application/namespace/claim apart; the application is part of
// the point already.
func sourceOf(label string) volume.Source {
	parts := strings.Split(label, "/")
	if len(parts) < 2 {
		return volume.Source{Claim: label}
	}
	return volume.Source{Namespace: parts[len(parts)-2], Claim: parts[len(parts)-1]}
}
