package freeze

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const table = `22 1 254:0 / / rw - ext4 /dev/vda rw
30 22 7:1 / /var/lib/kubelet/pods/u1/volumes/kubernetes.io~csi/pv-1/mount rw - ext4 /dev/loop1 rw
31 22 7:1 / /var/lib/kubelet/plugins/kubernetes.io/csi/x/globalmount rw - ext4 /dev/loop1 rw
32 22 7:1 /sub /var/lib/kubelet/pods/u1/volume-subpaths/pv-1/db/0 rw - ext4 /dev/loop1 rw
33 22 254:0 /opt/local/pv-2 /var/lib/kubelet/pods/u1/volumes/kubernetes.io~local-volume/pv-2 rw - ext4 /dev/vda rw
34 22 0:50 / /var/lib/kubelet/pods/u1/volumes/kubernetes.io~csi/pv-3/mount rw - nfs4 server:/x rw
35 22 7:4 / /var/lib/kubelet/pods/u1/volumes/kubernetes.io~csi/pv-4/mount rw - xfs /dev/loop4 rw
36 22 7:4 / /var/lib/kubelet/pods/u2/volumes/kubernetes.io~csi/pv-5/mount rw - xfs /dev/loop4 rw
37 22 7:6 / /var/lib/kubelet/pods/u1/volumes/kubernetes.io~csi/pv-6/mount rw - ext4 /dev/loop6 rw
38 22 7:6 / /srv/shared\040data rw - ext4 /dev/loop6 rw
39 22 0:60 / /var/lib/kubelet/pods/u1/volumes/kubernetes.io~empty-dir/pv-7 rw - tmpfs tmpfs rw
40 22 7:8 / /var/lib/kubelet/pods/u1/volumes/kubernetes.io~csi/pv-8/mount rw - nfs4 server:/y rw
41 40 7:9 / /var/lib/kubelet/pods/u1/volumes/kubernetes.io~csi/pv-8/mount rw - xfs /dev/loop9 rw
`

func TestAlone(t *testing.T) {
	mounts, err := Mounts(strings.NewReader(table))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ volume, plugin, want string }{
		{"pv-1", "csi", ""},
		{"pv-2", "local-volume", "directory /opt/local/pv-2 of a larger file system"},
		{"pv-3", "csi", "nfs4 file system cannot be held still"},
		{"pv-4", "csi", "volume pv-5 is on the same file system"},
		{"pv-6", "csi", "the node itself uses its file system at /srv/shared data"},
		{"pv-7", "empty-dir", "tmpfs"},
		{"pv-8", "csi", ""}, // the upper mount counts
		{"pv-9", "csi", "nothing is mounted"},
	} {
		point := "/var/lib/kubelet/pods/u1/volumes/kubernetes.io~" + tt.plugin + "/" + tt.volume
		if tt.plugin == "csi" {
			point += "/mount"
		}
		err := Alone(mounts, point, "/var/lib/kubelet", tt.volume)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.volume, err)
		case tt.want != "" && (!errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: got %v, want a refusal with %q", tt.volume, err, tt.want)
		}
	}
}

// mounted makes a small file system on a loop device. It is thawed whatever the
// test did.
func mounted(t *testing.T, kind string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting and freezing need root; run as root to test them")
	}
	dir := t.TempDir()
	image, point := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	size := map[string]string{"ext4": "16M", "xfs": "320M"}[kind]
	for _, args := range [][]string{{"truncate", "-s", size, image}, {"mkfs." + kind, "-q", image}, {"mkdir", point}, {"mount", "-o", "loop", image, point}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%v: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if f, err := Open(point); err == nil {
			_, _ = f.Thaw()
			_ = f.Close()
		}
		if out, err := exec.Command("umount", point).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	return point
}

// write starts a write into the file system, and says when it is done.
func write(t *testing.T, point string) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- os.WriteFile(filepath.Join(point, "file"), []byte("x"), 0o600) }()
	return done
}

func completes(t *testing.T, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("a write into the volume does not complete: it stays frozen")
	}
}

func blocks(t *testing.T, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		t.Fatalf("a write into a frozen file system completed: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
}

func TestFreezeAndThaw(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			f, err := Open(mounted(t, kind))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := errors.Join(f.Flush(), f.Freeze()); err != nil {
				t.Fatal(err)
			}
			done := write(t, f.dir.Name())
			blocks(t, done)
			if err := f.Freeze(); err == nil || !strings.Contains(err.Error(), "somebody else") {
				t.Errorf("frozen twice: %v", err)
			}
			if still, err := f.Thaw(); !still || err != nil {
				t.Errorf("thaw: still frozen %v, %v", still, err)
			}
			completes(t, done)
			if still, err := f.Thaw(); still || err != nil {
				t.Errorf("second thaw: still frozen %v, %v", still, err)
			}
		})
	}
}

// startWatchdog runs one in this process until the test ends or stop is called.
func startWatchdog(t *testing.T, dir string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- NewWatchdog(dir, slog.New(slog.NewTextHandler(io.Discard, nil))).Run(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return stop
}

// arm tries until the watchdog listens.
func arm(t *testing.T, dir string, window time.Duration, f *FileSystem) *Guard {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		g, err := Arm(t.Context(), dir, "test", window, []*FileSystem{f})
		if err == nil {
			return g
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func open(t *testing.T, point string) *FileSystem {
	t.Helper()
	f, err := Open(point)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func recorded(t *testing.T, dir string) int {
	t.Helper()
	all, err := records(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestGuardDoneLeavesNothing(t *testing.T) {
	f, dir := open(t, mounted(t, "ext4")), t.TempDir()
	startWatchdog(t, dir)
	g := arm(t, dir, time.Minute, f)
	if recorded(t, dir) != 1 {
		t.Error("nothing is on record while it is armed")
	}
	if err := errors.Join(g.Freezing(), f.Freeze()); err != nil {
		t.Fatal(err)
	}
	if still, err := f.Thaw(); !still || err != nil {
		t.Errorf("the watchdog thawed what was in order: %v, %v", still, err)
	}
	g.Done()
	for deadline := time.Now().Add(10 * time.Second); recorded(t, dir) > 0; <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the record stays")
		}
	}
}

func TestWatchdogThawsAnOverrun(t *testing.T) {
	f, dir := open(t, mounted(t, "ext4")), t.TempDir()
	startWatchdog(t, dir)
	g := arm(t, dir, 50*time.Millisecond, f)
	defer g.Done()
	if err := errors.Join(g.Freezing(), f.Freeze()); err != nil {
		t.Fatal(err)
	}
	completes(t, write(t, f.dir.Name()))
	if still, err := f.Thaw(); still || err != nil {
		t.Errorf("after the watchdog's thaw: still frozen %v, %v", still, err)
	}
}

func TestWatchdogsEndIsSeenAndThaws(t *testing.T) {
	f, dir := open(t, mounted(t, "ext4")), t.TempDir()
	stop := startWatchdog(t, dir)
	g := arm(t, dir, time.Minute, f)
	if err := errors.Join(g.Freezing(), f.Freeze()); err != nil {
		t.Fatal(err)
	}
	stop()
	select {
	case <-g.Lost():
	case <-time.After(20 * time.Second):
		t.Fatal("the watchdog's end is not seen")
	}
	completes(t, write(t, f.dir.Name()))
	if _, err := Arm(t.Context(), dir, "test", time.Minute, []*FileSystem{f}); !errors.Is(err, ErrNoWatchdog) {
		t.Errorf("armed without a watchdog: %v", err)
	}
}

func TestWatchdogRefusesNonsense(t *testing.T) {
	f, dir := open(t, mounted(t, "ext4")), t.TempDir()
	startWatchdog(t, dir)
	arm(t, dir, time.Minute, f).Done()
	for _, name := range []string{"", "../x", "a/b", ".new-x"} {
		if g, err := Arm(t.Context(), dir, name, time.Minute, []*FileSystem{f}); err == nil {
			g.Done()
			t.Errorf("armed with the name %q", name)
		}
	}
	if _, err := Arm(t.Context(), dir, "many", time.Minute, make([]*FileSystem, MaxVolumes+1)); !errors.Is(err, ErrRefused) {
		t.Errorf("armed too many: %v", err)
	}
}

// TestMain is also the process that freezes and is killed.
func TestMain(m *testing.M) {
	if point := os.Getenv("FREEZE_TEST_POINT"); point != "" {
		if err := child(point, os.Getenv("FREEZE_TEST_DIR")); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// child freezes and waits to be killed, under a watchdog if there is one.
func child(point, dir string) error {
	f, err := Open(point)
	if err != nil {
		return err
	}
	if dir != "" {
		g, err := Arm(context.Background(), dir, "child", time.Minute, []*FileSystem{f})
		if err != nil {
			return err
		}
		if err := g.Freezing(); err != nil {
			return err
		}
	}
	if err := f.Freeze(); err != nil {
		return err
	}
	fmt.Println("frozen")
	select {}
}

// frozenBy starts a child and waits until it has frozen.
func frozenBy(t *testing.T, point, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "FREEZE_TEST_POINT="+point, "FREEZE_TEST_DIR="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "frozen\n" {
		t.Fatalf("child said %q: %v", line, err)
	}
	return cmd
}

func TestWatchdogThawsAfterAKill(t *testing.T) {
	point, dir := mounted(t, "ext4"), t.TempDir()
	f := open(t, point)
	startWatchdog(t, dir)
	arm(t, dir, time.Minute, f).Done()
	cmd := frozenBy(t, point, dir)
	done := write(t, point)
	blocks(t, done)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	completes(t, done)
}

// TestKillWithoutWatchdog is the control: nothing but a thaw helps.
func TestKillWithoutWatchdog(t *testing.T) {
	point := mounted(t, "ext4")
	f := open(t, point)
	cmd := frozenBy(t, point, "")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	done := write(t, point)
	blocks(t, done)
	if still, err := f.Thaw(); !still || err != nil {
		t.Errorf("thaw: still frozen %v, %v", still, err)
	}
	completes(t, done)
}

func TestNextProcessThawsLeftovers(t *testing.T) {
	for _, next := range []string{"watchdog", "node"} {
		t.Run(next, func(t *testing.T) {
			point, dir := mounted(t, "ext4"), t.TempDir()
			f := open(t, point)
			// Both processes died: all that is left is the record and the freeze.
			if err := os.MkdirAll(filepath.Join(dir, recordDir), 0o700); err != nil {
				t.Fatal(err)
			}
			msg := armMessage{Name: "left", Window: time.Minute, Volumes: []place{{point, f.Device()}}}
			if err := writeRecord(filepath.Join(dir, recordDir, "left"), msg); err != nil {
				t.Fatal(err)
			}
			if err := f.Freeze(); err != nil {
				t.Fatal(err)
			}
			done := write(t, point)
			blocks(t, done)
			if next == "watchdog" {
				startWatchdog(t, dir)
			} else if err := ThawLeftovers(dir, slog.New(slog.NewTextHandler(io.Discard, nil))); err != nil {
				t.Fatal(err)
			}
			completes(t, done)
			if next == "node" && recorded(t, dir) > 0 {
				t.Error("the record stays")
			}
		})
	}
}

// TestUnreadable: what was told once, at a start, is counted as long as it is there. Records that are whole, or half
// written, are none.
func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	if n := Unreadable(dir); n != 0 {
		t.Errorf("%d before there was any", n)
	}
	if err := os.MkdirAll(filepath.Join(dir, recordDir), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeRecord(filepath.Join(dir, recordDir, "whole"), armMessage{Name: "whole", Window: time.Minute}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{".new-cut": 0, "cut": 1} {
		file := filepath.Join(dir, recordDir, name)
		if err := os.WriteFile(file, []byte(`{"name":"cut","vol`), 0o600); err != nil {
			t.Fatal(err)
		}
		if n := Unreadable(dir); n != want {
			t.Errorf("%s: %d, want %d", name, n, want)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	if n := Unreadable(dir); n != 0 {
		t.Errorf("%d once a person took it away", n)
	}
}

// TestARecordThatCannotBeReadStopsNoOther: what the others name is thawed, whoever starts,
// and it is told by its name.
func TestARecordThatCannotBeReadStopsNoOther(t *testing.T) {
	for _, next := range []string{"watchdog", "node"} {
		t.Run(next, func(t *testing.T) {
			point, dir := mounted(t, "ext4"), t.TempDir()
			f := open(t, point)
			if err := os.MkdirAll(filepath.Join(dir, recordDir, "c-directory"), 0o700); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"a-cut", "z-cut"} { // before and after the one that is whole
				if err := os.WriteFile(filepath.Join(dir, recordDir, name), []byte(`{"name":"left","vol`), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			msg := armMessage{Name: "left", Window: time.Minute, Volumes: []place{{point, f.Device()}}}
			if err := writeRecord(filepath.Join(dir, recordDir, "left"), msg); err != nil {
				t.Fatal(err)
			}
			if err := f.Freeze(); err != nil {
				t.Fatal(err)
			}
			done := write(t, point)
			blocks(t, done)
			if next == "watchdog" {
				startWatchdog(t, dir)
				arm(t, dir, time.Minute, f).Done() // it guards, too
			} else {
				var said strings.Builder
				if err := ThawLeftovers(dir, slog.New(slog.NewTextHandler(&said, nil))); err != nil {
					t.Error(err)
				}
				for _, name := range []string{"a-cut", "c-directory", "z-cut"} {
					if !strings.Contains(said.String(), name) {
						t.Errorf("%s is not told: %s", name, &said)
					}
				}
			}
			completes(t, done)
		})
	}
}

func TestLeftoversThatAreUnmountedAreKept(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, recordDir), 0o700); err != nil {
		t.Fatal(err)
	}
	msg := armMessage{Name: "left", Window: time.Minute, Volumes: []place{{"/gone", "999:999"}}}
	if err := writeRecord(filepath.Join(dir, recordDir, "left"), msg); err != nil {
		t.Fatal(err)
	}
	if err := ThawLeftovers(dir, slog.New(slog.NewTextHandler(io.Discard, nil))); err != nil {
		t.Fatal(err)
	}
	if recorded(t, dir) != 1 {
		t.Error("the record is gone: a device that is mounted later stays frozen")
	}
}
