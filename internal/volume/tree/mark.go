package tree

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sys/unix"
)

// Names in a volume's root that are not the application's.
const (
	markerName = ".davit-restore-unfinished"
	lostFound  = "lost+found"
)

// markUnfinished leaves a mark in the target that names the machine's boot.
// It says whether files already there can be trusted: those that a Read wrote
// before a crash of the machine may look whole and have lost their data. Nor
// can those be trusted that were there before any Read, as when a volume is
// rolled back in place: their size and time may be the snapshot's by accident,
// or because whoever wrote them set the time back.
func markUnfinished(root *dir, snapshotRoot string) (bool, error) {
	boot, err := bootID()
	if err != nil {
		return false, err
	}
	trust, err := empty(root)
	if err != nil {
		return false, err
	}
	if f, err := root.openRegular(markerName); err == nil {
		old, rerr := io.ReadAll(io.LimitReader(f, 4096))
		_ = f.Close() // only read
		if rerr != nil {
			return false, fmt.Errorf("read mark: %w", rerr)
		}
		trust = strings.Contains(string(old), "boot "+boot+"\n")
		if !trust { // nothing written under it may be trusted by a later try either
			return false, nil
		}
	}
	f, err := root.openFile(markerName, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return false, fmt.Errorf("mark target: %w", err)
	}
	if trust {
		_, err = fmt.Fprintf(f, "davit is restoring %s here\nboot %s\n", snapshotRoot, boot)
	} else { // without a boot, no later try trusts anything either
		_, err = fmt.Fprintf(f, "davit is restoring %s here, over other files\n", snapshotRoot)
	}
	if serr := f.Sync(); err == nil {
		err = serr
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return false, fmt.Errorf("mark target: %w", err)
	}
	return trust, root.file.Sync()
}

// empty tells whether the target holds nothing of anybody's.
func empty(root *dir) (bool, error) {
	names, err := root.names()
	if err != nil {
		return false, fmt.Errorf("look into target: %w", err)
	}
	for _, name := range names {
		if name != lostFound {
			return false, nil
		}
	}
	return true, nil
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("identify boot: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// unmark makes all that was written durable, and then takes the mark away.
func unmark(root *dir, t *reader, top *snapshot.DirEntry) error {
	if err := syncfs(root); err != nil {
		return err
	}
	if err := root.removeAll(markerName); err != nil {
		return err
	}
	if err := t.setAttributes(root, ".", "", top); err != nil {
		return err
	}
	return syncfs(root)
}

func syncfs(root *dir) error {
	if err := unix.Syncfs(root.fd()); err != nil {
		return fmt.Errorf("sync target: %w", err)
	}
	return nil
}
