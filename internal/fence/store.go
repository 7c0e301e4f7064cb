package fence

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// ErrDamaged says that a record cannot be read. It is set aside: what it held
// is asked anew, and until then nothing is proven.
var ErrDamaged = errors.New("record of fences is damaged")

// ErrNewer says that a later version wrote the record. It is left where it is:
// what it fences must not be forgotten.
var ErrNewer = errors.New("record of fences is of a later version of davit: run that version, or a later one, on this node")

const (
	// RecordFile is the record, in the Store's directory.
	RecordFile = "fence.json"
	leaseFile  = "leases.json"
	// maxRecord bounds what is read: a node has hundreds of applications at most.
	maxRecord = 64 << 20
)

// Store keeps a node's record, durable, and its leases, in memory of the
// machine. One process writes; others read.
type Store struct {
	// Dir outlives the machine, RunDir only the process.
	Dir, RunDir string
	// Boot tells one start of the machine from another.
	Boot string
}

// Load reads the record. There being none is an empty one.
func (s Store) Load() (*Record, error) {
	empty := &Record{Format: Format}
	data, err := readBounded(filepath.Join(s.Dir, RecordFile))
	if errors.Is(err, os.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return empty, fmt.Errorf("read record of fences: %w", err)
	}
	r, err := Decode(data)
	if err != nil {
		return empty, err
	}
	return r, nil
}

// Decode reads a record, and checks it.
func Decode(data []byte) (*Record, error) {
	var head struct {
		Format int `json:"format"`
	}
	// A later format may be one that does not fit into a Record.
	if err := json.Unmarshal(data, &head); err == nil && head.Format > Format {
		return nil, fmt.Errorf("%w: its format is %d, this one reads %d", ErrNewer, head.Format, Format)
	}
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if r.Format != Format {
		return nil, fmt.Errorf("%w: format %d is not known here", ErrDamaged, r.Format)
	}
	last := ""
	for i := range r.Applications {
		a := &r.Applications[i]
		if a.Name == "" || i > 0 && a.Name <= last || a.Held < 0 || a.Newest < 0 || a.Below < 0 || a.Below > a.Newest || a.Returned < 0 || a.TermsOf < 0 {
			return nil, fmt.Errorf("%w: application %q is not possible", ErrDamaged, a.Name)
		}
		if t := a.Terms; t != nil && (t.Lease <= 0 || t.Bound < 0 || t.Drift < 0) {
			return nil, fmt.Errorf("%w: terms of %q are not possible", ErrDamaged, a.Name)
		}
		last = a.Name
	}
	return &r, nil
}

// SetAside moves a damaged record, or another cluster's, out of the way.
func (s Store) SetAside(suffix string) error {
	name := filepath.Join(s.Dir, RecordFile)
	if err := os.Rename(name, name+"."+suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("set record of fences aside: %w", err)
	}
	return nil
}

// Save writes the record so that it is there after a power cut.
func (s Store) Save(r *Record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode record of fences: %w", err)
	}
	if err := writeWhole(filepath.Join(s.Dir, RecordFile), data, true); err != nil {
		return fmt.Errorf("write record of fences: %w", err)
	}
	return nil
}

type leaseDocument struct {
	Boot   string `json:"boot"`
	Leases Leases `json:"leases"`
}

// LoadLeases reads the leases. Those of an earlier start of the machine, or
// that cannot be read, are none: no lease means no right to write.
func (s Store) LoadLeases() Leases {
	data, err := readBounded(filepath.Join(s.RunDir, leaseFile))
	var d leaseDocument
	if err != nil || json.Unmarshal(data, &d) != nil || d.Boot != s.Boot || d.Leases == nil {
		return Leases{}
	}
	return d.Leases
}

// SaveLeases writes the leases for whoever enforces them after this process.
func (s Store) SaveLeases(leases Leases) error {
	data, err := json.Marshal(leaseDocument{s.Boot, leases})
	if err != nil {
		return fmt.Errorf("encode leases: %w", err)
	}
	if err := writeWhole(filepath.Join(s.RunDir, leaseFile), data, false); err != nil {
		return fmt.Errorf("write leases: %w", err)
	}
	return nil
}

// Beat notes that the process that writes lives, and Beaten when it last did,
// on the clock that leases run by.
func (s Store) Beat(now time.Duration) error {
	data, err := json.Marshal(map[string]any{"boot": s.Boot, "at": now})
	if err != nil {
		return fmt.Errorf("encode beat: %w", err)
	}
	return writeWhole(filepath.Join(s.RunDir, "beat.json"), data, false)
}

// Beaten is when Beat was last called; false where it never was.
func (s Store) Beaten() (time.Duration, bool) {
	data, err := readBounded(filepath.Join(s.RunDir, "beat.json"))
	var d struct {
		Boot string        `json:"boot"`
		At   time.Duration `json:"at"`
	}
	if err != nil || json.Unmarshal(data, &d) != nil || d.Boot != s.Boot {
		return 0, false
	}
	return d.At, true
}

type seenDocument struct {
	Boot string        `json:"boot"`
	At   time.Duration `json:"at"`
	Seen any           `json:"seen"`
}

// SaveSeen keeps what runs on the node, as of a time on the clock that leases run by, for whoever enforces
// after this process.
func (s Store) SaveSeen(at time.Duration, seen any) error {
	data, err := json.Marshal(seenDocument{s.Boot, at, seen})
	if err != nil {
		return fmt.Errorf("encode what runs here: %w", err)
	}
	if err := writeWhole(filepath.Join(s.RunDir, "seen.json"), data, false); err != nil {
		return fmt.Errorf("write what runs here: %w", err)
	}
	return nil
}

// LoadSeen reads it, and tells of when it is; zero where there is none of this start of the machine.
func (s Store) LoadSeen(seen any) time.Duration {
	data, err := readBounded(filepath.Join(s.RunDir, "seen.json"))
	d := seenDocument{Seen: seen}
	if err != nil || json.Unmarshal(data, &d) != nil || d.Boot != s.Boot {
		return 0
	}
	return d.At
}

func readBounded(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxRecord {
		return nil, fmt.Errorf("%w: %d bytes", ErrDamaged, info.Size())
	}
	return os.ReadFile(name)
}

// writeWhole replaces a file at once. A durable one has reached the disk, and
// so has its name.
func writeWhole(name string, data []byte, durable bool) error {
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, ".new-"+filepath.Base(name)), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && durable {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil || !durable {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
