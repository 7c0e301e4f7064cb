package e2e

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ugly makes, in the volume of a namespace's pod at east, a tree of what has broken backups. It returns what a copy must
// have, and what a point must say that it has not.
func ugly(t *testing.T, namespace string) (want map[string]string, says []string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	root := uglyIn(t, east, namespace)
	must(os.Mkdir(root, 0o755))
	write := func(name, text string) { must(os.WriteFile(root+"/"+name, []byte(text), 0o644)) }
	must(os.MkdirAll(root+"/\xfe dir/empty", 0o755))
	write("empty", "")
	write(strings.Repeat("n", 255), "long name")
	write("not\xff\xfeutf8", "bytes")
	write("a\nb\t\"'\\ <&>\u2028", "controls")
	write("\xfe dir/file\xff", "nested bytes")
	write("data", strings.Repeat("0123456789abcdef\n", 100_000))
	must(os.Link(root+"/data", root+"/\xfe dir/data again"))
	must(os.Symlink("/nowhere/\xff", root+"/dangling\xff"))
	sparse, err := os.Create(root + "/sparse")
	must(err)
	_, err = sparse.WriteAt([]byte("end"), 16<<20)
	must(errors.Join(err, sparse.Close()))
	must(unix.Mkfifo(root+"/pipe\xff", 0o640))
	write("setuid", "#!")
	must(os.Chown(root+"/setuid", 1234, 5678))
	must(unix.Chmod(root+"/setuid", 0o6751))
	must(unix.Chmod(root+"/\xfe dir/empty", 0o1777))
	must(unix.Setxattr(root+"/data", "user.note", []byte("kept\x00bytes"), 0))
	must(unix.Setxattr(root+"/empty", "system.posix_acl_access", accessList(1000, 4), 0))
	must(unix.Setxattr(root+"/\xfe dir", "system.posix_acl_default", accessList(1002, 7), 0))
	old := time.Date(1969, 7, 20, 20, 17, 40, 123456789, time.UTC)
	must(os.Chtimes(root+"/empty", old, old))
	want = factsOf(t, root)
	// What is made anew by whoever needs it is left out, and said to be.
	must(unix.Mknod(root+"/socket", unix.S_IFSOCK|0o600, 0))
	says = append(says, `skipped "ugly/socket": socket: its program makes a new one`)
	if err := unix.Mknod(root+"/device", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err == nil {
		says = append(says, `skipped "ugly/device": device: not kept`)
	} else {
		t.Logf("this machine lets nobody make a device: %v", err)
	}
	at := time.Date(2001, 2, 3, 4, 5, 6, 987654321, time.UTC)
	must(os.Chtimes(root, at, at))
	want["."] = factsOf(t, root)["."]
	return want, says
}

// uglyIn is where the ugly tree of a namespace is on this machine: in the volume of its pod.
func uglyIn(t *testing.T, site, namespace string) string {
	t.Helper()
	uid := kubectl(t, site, "-n", namespace, "get", "pod", "db-0", "-o", "jsonpath={.metadata.uid}")
	mounts, err := filepath.Glob(filepath.Join(rig.Bed.Site(site).KubeletRoot(), "pods", uid, "volumes", "kubernetes.io~csi", "*", "mount"))
	if err != nil || len(mounts) != 1 {
		t.Fatalf("volumes of %s at %s are mounted at %v, %v", namespace, site, mounts, err)
	}
	return mounts[0] + "/ugly"
}

// accessList is a POSIX access list in the kernel's form that gives one more user some rights.
func accessList(uid, rights uint32) []byte {
	list := binary.LittleEndian.AppendUint32(nil, 2) // version
	for _, e := range [][3]uint32{{1, 6, 1<<32 - 1}, {2, rights, uid}, {4, 4, 1<<32 - 1}, {0x10, 7, 1<<32 - 1}, {0x20, 0, 1<<32 - 1}} {
		list = binary.LittleEndian.AppendUint16(list, uint16(e[0]))
		list = binary.LittleEndian.AppendUint16(list, uint16(e[1]))
		list = binary.LittleEndian.AppendUint32(list, e[2])
	}
	return list
}

// factsOf says of each file and directory of a tree all that a copy of it must have.
func factsOf(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		all[name], err = factOf(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func factOf(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", err
	}
	fact := fmt.Sprintf("mode %o of %d:%d at %d", st.Mode, st.Uid, st.Gid, st.Mtim.Nano())
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		return fmt.Sprintf("%s to %q", fact, target), err
	case unix.S_IFREG:
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		fact += fmt.Sprintf(" of %d names, %d bytes: %x", st.Nlink, len(data), sha256.Sum256(data))
		if st.Blocks*512 < st.Size/2 {
			fact += ", sparse"
		}
	}
	list, value := make([]byte, 64<<10), make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, list)
	if err != nil {
		return "", err
	}
	names := strings.FieldsFunc(string(list[:n]), func(r rune) bool { return r == 0 })
	slices.Sort(names)
	for _, name := range names {
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", err
		}
		fact += fmt.Sprintf(", %s %q", name, value[:n])
	}
	return fact, nil
}

// sameTree compares the ugly tree of a copy at a site with what it must be.
func sameTree(t *testing.T, want map[string]string, site, namespace string) {
	t.Helper()
	got := factsOf(t, uglyIn(t, site, namespace))
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%q came back as\n%s\nwant\n%s", name, got[name], want[name])
		}
	}
	for name := range got {
		if _, there := want[name]; !there {
			t.Errorf("%q is in the copy, and is not to be: %s", name, got[name])
		}
	}
}
