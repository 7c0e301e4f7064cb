package pool

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/testbed/csi/internal/disk"
)

const (
	volumes   = "volumes"
	snapshots = "snapshots"
	groups    = "groups"
	imageFile = "image"
	metaFile  = "meta.json"
)

// Volume is what is known about a volume besides its image.
type Volume struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Bytes   int64     `json:"bytes"`
	FSType  string    `json:"fsType,omitempty"` // empty: a raw block volume
	Source  string    `json:"source,omitempty"` // id of the snapshot or volume it was cloned from
	Created time.Time `json:"created"`
	// FSBytes is how large the file system inside was last made; less than Bytes means that it has to grow.
	FSBytes int64 `json:"fsBytes,omitempty"`
	// Alone says that it takes part in no group snapshot.
	Alone bool `json:"alone,omitempty"`
}

// Snapshot is what is known about a snapshot besides its image.
type Snapshot struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	VolumeID string    `json:"volumeID"`
	Bytes    int64     `json:"bytes"`
	FSType   string    `json:"fsType,omitempty"`
	FSBytes  int64     `json:"fsBytes,omitempty"`
	Created  time.Time `json:"created"`
	// Frozen says that the file system inside was held still: the image needs no journal replay.
	Frozen bool `json:"frozen"`
	// Group is the id of the group snapshot that it is part of.
	Group string `json:"group,omitempty"`
	// Lies says that what was changed before it is told wrongly.
	Lies bool `json:"lies,omitempty"`
}

// VolumeID derives a volume's id from its name, which makes creation idempotent without an index.
func VolumeID(name string) string { return "vol-" + digest(name) }

// SnapshotID does the same for snapshots.
func SnapshotID(name string) string { return "snap-" + digest(name) }

// GroupID does the same for group snapshots.
func GroupID(name string) string { return "group-" + digest(name) }

func digest(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:16])
}

// idPattern keeps ids from outside from leaving their directory.
var idPattern = regexp.MustCompile(`^(vol|snap|group)-[0-9a-f]{32}$`)

func (p *Pool) dir(kind, id string) string { return filepath.Join(p.outer, kind, id) }

// Image is the path of a volume's image file.
func (p *Pool) Image(id string) string { return filepath.Join(p.dir(volumes, id), imageFile) }

// Volume returns the volume with the id, or ErrNotFound.
func (p *Pool) Volume(id string) (Volume, error) {
	return readMeta[Volume](p, volumes, id)
}

// Snapshot returns the snapshot with the id, or ErrNotFound.
func (p *Pool) Snapshot(id string) (Snapshot, error) {
	return readMeta[Snapshot](p, snapshots, id)
}

// Volumes lists all volumes, oldest first.
func (p *Pool) Volumes() ([]Volume, error) {
	list, err := listMeta[Volume](p, volumes)
	slices.SortFunc(list, func(a, b Volume) int { return older(a.Created, b.Created, a.ID, b.ID) })
	return list, err
}

// Snapshots lists all snapshots, oldest first.
func (p *Pool) Snapshots() ([]Snapshot, error) {
	list, err := listMeta[Snapshot](p, snapshots)
	slices.SortFunc(list, func(a, b Snapshot) int { return older(a.Created, b.Created, a.ID, b.ID) })
	return list, err
}

func older(a, b time.Time, idA, idB string) int {
	if c := a.Compare(b); c != 0 {
		return c
	}
	return strings.Compare(idA, idB)
}

func readMeta[T any](p *Pool, kind, id string) (T, error) {
	var meta T
	if !idPattern.MatchString(id) {
		return meta, fmt.Errorf("find %q in %s: %w", id, kind, ErrNotFound)
	}
	data, err := os.ReadFile(filepath.Join(p.dir(kind, id), metaFile))
	if errors.Is(err, os.ErrNotExist) {
		return meta, fmt.Errorf("find %q in %s: %w", id, kind, ErrNotFound)
	}
	if err != nil {
		return meta, fmt.Errorf("read record: %w", err)
	}
	if err := json.Unmarshal(data, &meta); err != nil {
		return meta, fmt.Errorf("decode record of %s: %w", id, err)
	}
	return meta, nil
}

func listMeta[T any](p *Pool, kind string) ([]T, error) {
	entries, err := os.ReadDir(filepath.Join(p.outer, kind))
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", kind, err)
	}
	var list []T
	for _, entry := range entries {
		meta, err := readMeta[T](p, kind, entry.Name())
		if errors.Is(err, ErrNotFound) {
			continue // unfinished, or removed while we were listing
		}
		if err != nil {
			return nil, err
		}
		list = append(list, meta)
	}
	return list, nil
}

// writeMeta replaces the record in dir as a whole.
func writeMeta(dir string, meta any) error {
	data, err := json.MarshalIndent(meta, "", "  ")
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	fresh := filepath.Join(dir, "."+metaFile)
	if err := os.WriteFile(fresh, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	if err := disk.Sync(fresh); err != nil {
		return err
	}
	if err := os.Rename(fresh, filepath.Join(dir, metaFile)); err != nil {
		return fmt.Errorf("replace record: %w", err)
	}
	return disk.Sync(dir)
}

// build makes an entry in a hidden directory and renames it into place when fill has succeeded.
func (p *Pool) build(kind, id string, fill func(dir string) error) error {
	fresh := p.dir(kind, "."+id)
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("clear unfinished entry: %w", err)
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return fmt.Errorf("make entry: %w", err)
	}
	if err := fill(fresh); err != nil {
		return errors.Join(err, os.RemoveAll(fresh))
	}
	if err := os.Rename(fresh, p.dir(kind, id)); err != nil {
		return fmt.Errorf("publish entry: %w", err)
	}
	return disk.Sync(filepath.Join(p.outer, kind))
}

// remove hides an entry first, so that a kill in the middle leaves something that sweep removes.
func (p *Pool) remove(kind, id string) error {
	hidden := p.dir(kind, ".gone-"+id)
	if err := os.RemoveAll(hidden); err != nil {
		return fmt.Errorf("clear removed entry: %w", err)
	}
	if err := os.Rename(p.dir(kind, id), hidden); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("hide entry: %w", err)
	}
	if err := os.RemoveAll(hidden); err != nil {
		return fmt.Errorf("remove entry: %w", err)
	}
	return nil
}

// IsSnapshotID says whether an id is one of a snapshot.
func IsSnapshotID(id string) bool { return strings.HasPrefix(id, "snap-") }
