package vault

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault/packed"
)

// parallelReads bounds the small documents read at a time.
const parallelReads = 8

// PointInfo is what the vault knows of one recovery point.
type PointInfo struct {
	ID string
	// Manifest is nil when Err says why it could not be read.
	Manifest *point.Manifest
	Marks    []Mark // oldest first
	// Err is what is wrong with the manifest or a mark. It wraps ErrDamaged
	// when no new try will help.
	Err error
}

// Pinned tells whether the point is kept until it is unpinned.
func (i PointInfo) Pinned() bool { return pinned(i.Marks) }

// Deleting tells whether the point is on its way out.
func (i PointInfo) Deleting() bool { return len(i.Deletions()) > 0 }

// Deletions are the marks by which the point is on its way out, oldest first.
func (i PointInfo) Deletions() []Mark { return standing(i.Marks, MarkDeleting, MarkUndeleted) }

// Goes is when a point that is on its way out is removed, where such points
// stay for the delay; zero for another.
func (i PointInfo) Goes(delay time.Duration) time.Time {
	for _, m := range i.Deletions() {
		return m.At.Add(delay)
	}
	return time.Time{}
}

// Quarantined tells whether someone marked the point so. Quarantine by epoch
// is point.Quarantined's to decide.
func (i PointInfo) Quarantined() bool { return len(i.Quarantines()) > 0 }

// Quarantines are the marks that quarantine the point, oldest first; those
// whose damage was repaired are not among them.
func (i PointInfo) Quarantines() []Mark { return standing(i.Marks, MarkQuarantined, MarkRepaired) }

// Verified returns when the point was last read back whole, or zero. A sample
// is no such proof.
func (i PointInfo) Verified() time.Time {
	for _, m := range slices.Backward(i.Marks) {
		if m.Kind == MarkVerified && m.How != HowSample {
			return m.At
		}
	}
	return time.Time{}
}

// Tested returns the verdict of the newest restore test, or nil.
func (i PointInfo) Tested() *Mark {
	for n := len(i.Marks) - 1; n >= 0; n-- {
		if m := &i.Marks[n]; m.Kind == MarkUnbootable || m.Kind == MarkVerified && m.How == HowBoot {
			return m
		}
	}
	return nil
}

// Point returns the summary that the arithmetic of package point works on.
func (i PointInfo) Point() point.Point {
	p := point.Point{
		ID: i.ID, Pinned: i.Pinned(), Verified: i.Verified(), Quarantined: i.Quarantined(),
		Deleting: i.Deleting(), Damaged: i.Manifest == nil || i.Err != nil,
	}
	if i.Manifest != nil {
		p.Instant, p.Epoch, p.Consistency = i.Manifest.Instant, i.Manifest.Epoch, i.Manifest.Consistency
	}
	return p
}

// Points returns an application's visible recovery points, oldest first. A
// point that cannot be read is among them with its Err; only a vault that
// gives no list makes the call fail.
func (p *Project) Points(ctx context.Context, app string) ([]PointInfo, error) {
	if err := CheckName(app); err != nil {
		return nil, fmt.Errorf("list points: %w", err)
	}
	ids, err := listKeys(ctx, p.store, p.at.manifests(app))
	if err != nil {
		return nil, err
	}
	marks, err := listKeys(ctx, p.store, p.at.marks(app))
	if err != nil {
		return nil, err
	}
	infos := make([]PointInfo, len(ids))
	each(len(ids), parallelReads, func(i int) {
		infos[i] = p.pointInfo(ctx, app, ids[i], marks)
	})
	if ctx.Err() != nil {
		return nil, fmt.Errorf("list points: %w", context.Cause(ctx))
	}
	infos = slices.DeleteFunc(infos, func(i PointInfo) bool { return errors.Is(i.Err, ErrNotFound) }) // deleted since
	slices.SortFunc(infos, comparePoints)
	return infos, nil
}

func comparePoints(a, b PointInfo) int {
	if a.Manifest != nil && b.Manifest != nil {
		if c := a.Manifest.Instant.Compare(b.Manifest.Instant); c != 0 {
			return c
		}
	}
	return strings.Compare(a.ID, b.ID)
}

// pointInfo reads one point; marks are the tails of all marks of the application.
func (p *Project) pointInfo(ctx context.Context, app, id string, marks []string) PointInfo {
	info := PointInfo{ID: id}
	info.Manifest, info.Err = p.Manifest(ctx, app, id)
	first, _ := slices.BinarySearch(marks, id+"/")
	for _, tail := range marks[first:] {
		if !strings.HasPrefix(tail, id+"/") {
			break
		}
		m, err := p.readMark(ctx, p.at.marks(app)+tail)
		switch {
		case err == nil:
			info.Marks = append(info.Marks, m)
		case !errors.Is(err, ErrNotFound):
			info.Err = errors.Join(info.Err, err)
		}
	}
	slices.SortFunc(info.Marks, compareMarks)
	return info
}

// Apps returns the names of all applications the project knows, sorted.
func (p *Project) Apps(ctx context.Context) ([]string, error) {
	names := map[string]bool{}
	for _, prefix := range []string{p.at.apps(""), p.at.manifests("")} {
		tails, err := listKeys(ctx, p.store, prefix)
		if err != nil {
			return nil, err
		}
		for _, tail := range tails {
			if app, _, ok := strings.Cut(tail, "/"); ok {
				names[app] = true
			}
		}
	}
	apps := make([]string, 0, len(names))
	for app := range names {
		apps = append(apps, app)
	}
	slices.Sort(apps)
	return apps, nil
}

// Manifest reads and checks one recovery point's manifest.
func (p *Project) Manifest(ctx context.Context, app, id string) (*point.Manifest, error) {
	if err := checkNames(app, id); err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	key := p.at.manifest(app, id)
	plain, err := p.ReadSealed(ctx, key)
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(plain)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	if m.ID != id || m.Application != app || m.Project != p.name {
		return nil, fmt.Errorf("read %s: %w: describes %s of %s/%s", key, ErrDamaged, m.ID, m.Project, m.Application)
	}
	return m, nil
}

func parseManifest(plain []byte) (*point.Manifest, error) {
	var m point.Manifest
	if err := json.Unmarshal(plain, &m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if m.FormatVersion > FormatVersion {
		return nil, fmt.Errorf("manifest format %d, this davit reads %d: use a newer davit", m.FormatVersion, FormatVersion)
	}
	if err := m.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return &m, nil
}

// ReadResource calls fn with every object of one kind, in the order they were
// added. No byte reaches fn before its whole pack proved to be the one named
// in the manifest. The slice is fn's only until it returns.
func (p *Project) ReadResource(ctx context.Context, res point.Resource, fn func(object []byte) error) error {
	for _, pack := range res.Packs {
		if err := p.readPack(ctx, pack, fn); err != nil {
			return fmt.Errorf("read %s: %w", res.Resource, err)
		}
	}
	return nil
}

func (p *Project) readPack(ctx context.Context, pack point.Pack, fn func([]byte) error) error {
	sealed, err := p.fetch(ctx, pack)
	if err != nil {
		return err
	}
	r, err := packed.Open(bytes.NewReader(sealed), p.finder(ctx), pack.Key)
	if err != nil {
		return fmt.Errorf("open %s: %w", pack.Key, err)
	}
	defer r.Close()
	count, err := packed.ReadRecords(r, fn)
	if err != nil {
		return fmt.Errorf("read %s: %w", pack.Key, err)
	}
	if count != pack.Count {
		return fmt.Errorf("read %s: %w: %d objects, the manifest says %d", pack.Key, ErrDamaged, count, pack.Count)
	}
	return nil
}

// fetch gets a pack's sealed bytes and compares size and SHA-256.
func (p *Project) fetch(ctx context.Context, pack point.Pack) ([]byte, error) {
	if !strings.HasPrefix(pack.Key, p.at.root()) || pack.Size > 2*packed.Max {
		return nil, fmt.Errorf("read %s: %w: %d bytes outside of what a project's packs are", pack.Key, ErrDamaged, pack.Size)
	}
	sealed, err := readAll(ctx, p.store, pack.Key, pack.Size)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(sealed); hex.EncodeToString(sum[:]) != pack.SHA256 {
		return nil, fmt.Errorf("read %s: %w: SHA-256 is %x, the manifest says %s", pack.Key, ErrDamaged, sum, pack.SHA256)
	}
	return sealed, nil
}

// LogEntry is one line of a capture's log.
type LogEntry struct {
	At      time.Time `json:"at"`
	Level   string    `json:"level"` // "info", "warning" or "error"
	Object  string    `json:"object,omitempty"`
	Message string    `json:"message"`
}

// Log returns a point's log, or nothing if it has none.
func (p *Project) Log(ctx context.Context, m *point.Manifest) ([]LogEntry, error) {
	if m.Log == nil {
		return nil, nil
	}
	sealed, err := p.fetch(ctx, *m.Log)
	if err != nil {
		return nil, err
	}
	plain, err := p.Unseal(m.Log.Key, sealed, maxDocument)
	if err != nil {
		return nil, err
	}
	var entries []LogEntry
	if err := json.Unmarshal(plain, &entries); err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", m.Log.Key, ErrDamaged, err)
	}
	return entries, nil
}

// DeletePoint removes a point for good: it marks it, removes the manifest,
// then packs, log and marks. Started again after a crash, at any site, it
// finishes. The caller removes the point's volume snapshots between marking it
// (Mark with MarkDeleting) and this call. A pinned point gives ErrPinned.
func (p *Project) DeletePoint(ctx context.Context, app, id string) error {
	marks, err := p.Marks(ctx, app, id)
	if err != nil && !errors.Is(err, ErrDamaged) {
		return fmt.Errorf("delete point %s: %w", id, err)
	}
	if pinned(marks) {
		return fmt.Errorf("delete point %s: %w: unpin it first", id, ErrPinned)
	}
	if len(standing(marks, MarkDeleting, MarkUndeleted)) == 0 {
		if err := p.Mark(ctx, app, id, Mark{Kind: MarkDeleting}); err != nil {
			return fmt.Errorf("delete point %s: %w", id, err)
		}
	}
	if err := p.removePoint(ctx, app, id); err != nil {
		return fmt.Errorf("delete point %s: %w", id, err)
	}
	return nil
}

// removePoint removes a point that is marked for deletion, its last mark last.
func (p *Project) removePoint(ctx context.Context, app, id string) error {
	if err := p.store.Delete(ctx, p.at.manifest(app, id)); err != nil {
		return fmt.Errorf("delete manifest: %w", err)
	}
	if err := deleteAll(ctx, p.store, p.at.pointObjects(app, id), nil); err != nil {
		return err
	}
	marks := p.at.pointMarks(app, id)
	deleting := func(tail string) bool { return strings.HasPrefix(tail, string(MarkDeleting)+"-") }
	if err := deleteAll(ctx, p.store, marks, deleting); err != nil {
		return err
	}
	return deleteAll(ctx, p.store, marks, nil)
}
