package node

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"davit.dev/davit/api/v1alpha1"
)

const testUID = "0a1b2c3d-1111-2222-3333-444455556666"

// fixture is a kubelet directory with one CSI volume, mounted as the table of
// mounts says, and one that is not.
func fixture(t *testing.T) (locator, string) {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	volumes := filepath.Join(root, "kubelet", "pods", testUID, "volumes")
	for _, dir := range []string{
		filepath.Join(volumes, "kubernetes.io~csi", "pv-1", "mount"),
		filepath.Join(volumes, "kubernetes.io~csi", "pv-2", "mount"),
		filepath.Join(volumes, "kubernetes.io~local-volume", "pv-3"),
		filepath.Join(root, "srv", "claims", "a"),
		filepath.Join(root, "srv-secret"),
		filepath.Join(root, "etc"),
	} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(root, "etc"), filepath.Join(root, "srv", "claims", "link")); err != nil {
		t.Fatal(err)
	}
	table := "36 35 8:1 / " + filepath.Join(volumes, "kubernetes.io~csi", "pv-1", "mount") + " rw - ext4 /dev/loop0 rw\n" +
		"37 35 8:1 / " + filepath.Join(volumes, "kubernetes.io~local-volume", "pv-3") + " rw - ext4 /dev/sda1 rw\n"
	return locator{
		kubeletRoot: filepath.Join(root, "kubelet"),
		hostRoots:   []string{filepath.Join(root, "srv")},
		mounts:      func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(table)), nil },
	}, root
}

func TestFindsWhatIsMounted(t *testing.T) {
	l, root := fixture(t)
	volumes := filepath.Join(root, "kubelet", "pods", testUID, "volumes")
	for name, test := range map[string]struct {
		spec v1alpha1.VolumeTaskSpec
		want string
	}{
		"csi":   {v1alpha1.VolumeTaskSpec{PodUID: testUID, PersistentVolume: "pv-1"}, filepath.Join(volumes, "kubernetes.io~csi", "pv-1", "mount")},
		"local": {v1alpha1.VolumeTaskSpec{PodUID: testUID, PersistentVolume: "pv-3"}, filepath.Join(volumes, "kubernetes.io~local-volume", "pv-3")},
		"host":  {v1alpha1.VolumeTaskSpec{HostPath: filepath.Join(root, "srv", "claims", "a")}, filepath.Join(root, "srv", "claims", "a")},
	} {
		got, err := l.find(test.spec)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if real, err := filepath.EvalSymlinks(got.dir()); err != nil || real != test.want || got.Name() != test.want {
			t.Errorf("%s: got %q, %q, %v; want %q", name, got.Name(), real, err, test.want)
		}
		if err := got.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestRefusesOtherPlaces(t *testing.T) {
	l, root := fixture(t)
	for name, spec := range map[string]v1alpha1.VolumeTaskSpec{
		"not mounted":       {PodUID: testUID, PersistentVolume: "pv-2"},
		"no such volume":    {PodUID: testUID, PersistentVolume: "pv-9"},
		"no such pod":       {PodUID: "ffffffff-1111-2222-3333-444455556666", PersistentVolume: "pv-1"},
		"pod with path":     {PodUID: "../../../etc", PersistentVolume: "pv-1"},
		"volume with path":  {PodUID: testUID, PersistentVolume: "../pv-1"},
		"volume with dots":  {PodUID: testUID, PersistentVolume: "a..b"},
		"nothing":           {},
		"outside roots":     {HostPath: filepath.Join(root, "etc")},
		"beside a root":     {HostPath: filepath.Join(root, "srv-secret")},
		"a root itself":     {HostPath: filepath.Join(root, "srv")},
		"unclean":           {HostPath: filepath.Join(root, "srv") + "/claims/../../etc"},
		"relative":          {HostPath: "srv/claims/a"},
		"symlink":           {HostPath: filepath.Join(root, "srv", "claims", "link")},
		"below a symlink":   {HostPath: filepath.Join(root, "srv", "claims", "link", "x")},
		"missing host path": {HostPath: filepath.Join(root, "srv", "claims", "none")},
	} {
		if got, err := l.find(spec); !errors.Is(err, ErrPath) {
			t.Errorf("%s: got %v, %v; want a refusal", name, got.File, err)
		}
	}
}

// TestSwappedDirectory lets a tenant, who may write to the directory that holds
// the volume, put links there right after the volume was found.
func TestSwappedDirectory(t *testing.T) {
	for name, swap := range map[string]struct{ moved, to string }{
		"the volume itself":      {"srv/claims/a", "etc"},
		"a directory on the way": {"srv/claims", "outside"},
	} {
		l, root := fixture(t)
		write := func(path, text string) {
			t.Helper()
			if err := os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("srv/claims/a/file", "tenant's")
		write("etc/file", "secret")
		write("outside/a/file", "secret")
		dir := filepath.Join(root, "srv", "claims", "a")
		got, err := l.find(v1alpha1.VolumeTaskSpec{HostPath: dir})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(root, swap.moved), filepath.Join(root, "away")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(root, swap.to), filepath.Join(root, swap.moved)); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(got.dir() + "/file"); string(b) != "tenant's" {
			t.Errorf("%s: the held directory reads %q, %v", name, b, err)
		}
		// The harm: the path that was looked at, opened now.
		if b, err := os.ReadFile(dir + "/file"); string(b) != "secret" {
			t.Errorf("%s: the path reads %q, %v: this test shows nothing", name, b, err)
		}
		if again, err := l.find(v1alpha1.VolumeTaskSpec{HostPath: dir}); !errors.Is(err, ErrPath) || !strings.Contains(err.Error(), "symbolic link") {
			t.Errorf("%s: found again as %v, %v", name, again.File, err)
		}
		if err := got.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestAMountThatGoesIsNotRead: unmounted between the look and the opening, the node's
// own directory is what opens.
func TestAMountThatGoesIsNotRead(t *testing.T) {
	l, _ := fixture(t)
	table, looks := l.mounts, 0
	l.mounts = func() (io.ReadCloser, error) {
		if looks++; looks > 1 {
			return io.NopCloser(strings.NewReader("")), nil
		}
		return table()
	}
	at, err := l.find(v1alpha1.VolumeTaskSpec{PodUID: testUID, PersistentVolume: "pv-1"})
	if !errors.Is(err, errNotThere) || !errors.Is(err, ErrPath) || at.File != nil {
		t.Errorf("got %v, %v", at.File, err)
	}
}

// TestWaitsForAMountThatComes, and for nothing that waiting does not mend.
func TestWaitsForAMountThatComes(t *testing.T) {
	l, _ := fixture(t)
	table := l.mounts
	for name, test := range map[string]struct {
		comesAfter int // looks
		looks      int
		uid        string
	}{
		"it is there":        {0, 2, testUID}, // before it is opened and after
		"it comes":           {3, 5, testUID},
		"no pod has the uid": {0, 0, "../" + testUID},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				looks := 0
				l.mounts = func() (io.ReadCloser, error) {
					if looks++; looks <= test.comesAfter {
						return io.NopCloser(strings.NewReader("")), nil
					}
					return table()
				}
				l.await(t.Context(), v1alpha1.VolumeTaskSpec{PodUID: test.uid, PersistentVolume: "pv-1"})
				if looks != test.looks {
					t.Errorf("looked %d times, want %d", looks, test.looks)
				}
			})
		})
	}
	t.Run("it never comes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l.mounts = table
			spec := v1alpha1.VolumeTaskSpec{PodUID: testUID, PersistentVolume: "pv-2"}
			l.await(t.Context(), spec) // in the bubble's time
			if _, err := l.find(spec); !errors.Is(err, ErrPath) {
				t.Errorf("then: %v", err)
			}
		})
	})
}
