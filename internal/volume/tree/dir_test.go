package tree

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNothingOutsideTheVolumeIsReached: a pod that shares the volume swaps an
// entry between two of our system calls.
func TestNothingOutsideTheVolumeIsReached(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "shadow")
	volume := t.TempDir()
	for _, path := range []string{outside, filepath.Join(volume, "own")} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(volume, "swapped")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(volume, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := openRoot(volume)
	if err != nil {
		t.Fatal(err)
	}
	defer d.release()
	if err := d.chmod("swapped", 0o777); err == nil {
		t.Error("set the mode of a link")
	}
	if info, err := os.Stat(outside); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("a file outside the volume has mode %v, %v", info.Mode(), err)
	}
	for _, name := range []string{"swapped", "pipe"} {
		if f, err := d.openRegular(name); err == nil {
			_ = f.Close()
			t.Errorf("opened %s", name)
		}
	}
	if err := d.chmod("own", 0o4750); err != nil {
		t.Fatal(err)
	}
	if st, err := d.stat("own"); err != nil || st.Mode&0o7777 != 0o4750 {
		t.Errorf("mode %o, %v", st.Mode, err)
	}
	if err := unix.Fchmodat(d.fd(), "swapped", 0o777, 0); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(outside); info.Mode().Perm() != 0o777 {
		t.Error("the system call by name follows no link here: this test proves nothing")
	}
}
