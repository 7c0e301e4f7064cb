package freeze

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
)

// record is what is known of a guard whose processes have died.
type record struct {
	file    string
	volumes []place
}

// writeRecord makes the record whole or not at all.
func writeRecord(file string, msg armMessage) error {
	data, err := json.Marshal(msg)
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	fresh := filepath.Join(filepath.Dir(file), ".new-"+filepath.Base(file))
	if err := os.WriteFile(fresh, data, 0o600); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	if err := os.Rename(fresh, file); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	return nil
}

func readRecord(file string) (msg armMessage, err error) {
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, &msg)
	}
	return msg, err
}

// Unreadable is how many records in the directory cannot be read now: what they name may be frozen until a person has
// seen to it.
func Unreadable(dir string) int {
	entries, err := os.ReadDir(filepath.Join(dir, recordDir))
	n := 0
	for _, e := range entries {
		if !names.MatchString(e.Name()) {
			continue // half written: nothing was frozen under it
		}
		if _, err := readRecord(filepath.Join(dir, recordDir, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			n++
		}
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		n++ // which of them it is nobody knows
	}
	return n
}

// records lists those that are there now. One that cannot be read is told, and left where
// it is, for a person: the others must not stay frozen for it.
func records(dir string, log *slog.Logger) ([]record, error) {
	entries, err := os.ReadDir(filepath.Join(dir, recordDir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list records: %w", err)
	}
	var all []record
	for _, e := range entries {
		file := filepath.Join(dir, recordDir, e.Name())
		if !names.MatchString(e.Name()) {
			_ = os.Remove(file) // half written: nothing was frozen under it
			continue
		}
		msg, err := readRecord(file)
		if errors.Is(err, os.ErrNotExist) {
			continue // its guard ended in order meanwhile
		}
		if err != nil {
			log.Error("what this record names may be frozen, and cannot be read: see whether a volume of this node takes no writes, thaw it with fsfreeze --unfreeze, and remove the record", "record", file, "error", err)
			continue
		}
		all = append(all, record{file, msg.Volumes})
	}
	return all, nil
}

// thawRecords thaws what is recorded and returns the records that it could not
// deal with yet.
func thawRecords(all []record, log *slog.Logger) ([]record, error) {
	var left []record
	var errs []error
	for _, r := range all {
		var err error
		for _, v := range r.volumes {
			still, thawErr := thawPlace(v)
			err = errors.Join(err, thawErr)
			if still {
				log.Warn("thawed a file system that was left frozen", "path", v.Path, "device", v.Device)
			}
		}
		if err == nil {
			err = os.Remove(r.file)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			left, errs = append(left, r), append(errs, err)
		}
	}
	return left, errors.Join(errs...)
}

// errUnmounted says that a recorded file system is mounted nowhere now. It may
// be frozen all the same, for whoever mounts it next.
var errUnmounted = errors.New("file system is not mounted")

// thawPlace finds a file system by its device wherever it is mounted.
func thawPlace(v place) (still bool, err error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false, fmt.Errorf("read table of mounts: %w", err)
	}
	defer f.Close()
	mounts, err := Mounts(f)
	if err != nil {
		return false, err
	}
	errs := []error{fmt.Errorf("%w: %s, device %s", errUnmounted, v.Path, v.Device)}
	for _, m := range mounts {
		if m.Device != v.Device {
			continue
		}
		fs, err := Open(m.Point)
		if err != nil || fs.device != v.Device { // covered by another mount, or going away
			if err == nil {
				_ = fs.Close()
			}
			errs = append(errs, err)
			continue
		}
		still, err := fs.Thaw()
		_ = fs.Close()
		return still, err
	}
	return false, errors.Join(errs...)
}

// ThawLeftovers thaws what dead processes recorded in the directory, once. Call
// it before anything is frozen. What is mounted nowhere is left to a watchdog.
func ThawLeftovers(dir string, log *slog.Logger) error {
	old, err := records(dir, log)
	if err != nil {
		return err
	}
	_, err = thawRecords(old, log)
	if errors.Is(err, errUnmounted) {
		return nil
	}
	return err
}
