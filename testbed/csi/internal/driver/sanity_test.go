package driver_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"

	"davit.dev/davit/testbed/csi/internal/disk"
	"davit.dev/davit/testbed/csi/internal/driver"
	"davit.dev/davit/testbed/csi/internal/pool"
)

// needRoot skips, and says why, where loop devices and mounts are out of reach.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting and loop devices need root; run as root to test the driver")
	}
}

// startDriver serves a driver with a pool of its own and takes everything down when the test ends.
func startDriver(t *testing.T) (socket, dir string) {
	t.Helper()
	needRoot(t)
	dir, err := os.MkdirTemp("", "reflink")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tearDown(t, dir) })
	ctx, cancel := context.WithCancel(context.Background())
	p, err := pool.Open(ctx, pool.Config{Dir: dir, OuterBytes: 8 << 30})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "csi.sock")
	log := slog.New(slog.NewTextHandler(testWriter{t}, nil))
	done := make(chan error, 1)
	go func() { done <- driver.New(p, "node-1", log).Serve(ctx, socket) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return socket, dir
}

// tearDown unmounts whatever lies on the pool's images and then the pool itself.
func tearDown(t *testing.T, dir string) {
	t.Helper()
	loops, err := disk.Loops()
	if err != nil {
		t.Error(err)
	}
	for device, image := range loops {
		if !strings.HasPrefix(image, dir+"/outer/") {
			continue
		}
		mounts, _ := disk.MountsOf(device)
		for _, m := range mounts {
			t.Errorf("left mounted: %s", m.Target)
			_ = disk.Unmount(m.Target)
		}
		_ = disk.DetachLoop(device)
	}
	if err := disk.Unmount(filepath.Join(dir, "outer")); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// TestSanity runs the conformance suite of the CSI project once for each kind of volume.
func TestSanity(t *testing.T) {
	socket, dir := startDriver(t)
	for _, kind := range []struct{ name, access, fsType string }{
		{"ext4", "mount", "ext4"}, {"xfs", "mount", "xfs"}, {"block", "block", ""},
	} {
		config := sanity.NewTestConfig()
		config.Address = "unix://" + socket
		config.TargetPath = filepath.Join(dir, kind.name+"-target")
		config.StagingPath = filepath.Join(dir, kind.name+"-staging")
		config.TestVolumeAccessType = kind.access
		config.TestVolumeSize = 320 << 20
		config.TestVolumeExpandSize = 640 << 20
		config.IdempotentCount = 2
		if kind.fsType != "" {
			config.TestVolumeParameters = map[string]string{"fsType": kind.fsType}
		}
		ginkgo.Describe(kind.name, func() { sanity.GinkgoTest(&config) })
	}
	gomega.RegisterFailHandler(ginkgo.Fail)
	suite, reporter := ginkgo.GinkgoConfiguration()
	if !disk.CanGrowMountedExt4() {
		t.Log("skipping one spec: this machine withholds CAP_SYS_RESOURCE, so a mounted ext4 cannot grow")
		suite.SkipStrings = append(suite.SkipStrings, "ext4 .*should work if node-expand is called after node-publish")
	}
	ginkgo.RunSpecs(t, "reflink", suite, reporter)
}
