package bed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"davit.dev/davit/testbed/bed/mount"
)

const pulled = `
apiVersion: v1
kind: Pod
metadata: {name: pulled}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: registry.bed/tool:new, imagePullPolicy: Always, command: [sleep, "1000000"]}
`

// registryServes pushes an image from the host and lets a pod pull it.
func registryServes(ctx context.Context, r rig) {
	tars := must(baseImages(r.bin))(r.t)
	i := slices.IndexFunc(tars, func(p string) bool { return strings.Contains(p, "bedtool") })
	img := must(tarball.ImageFromPath(tars[i], nil))(r.t)
	ref := must(name.ParseReference(r.Registry()+"/tool:new", name.Insecure))(r.t)
	check(r.t, remote.Write(ref, img, remote.WithContext(ctx)))
	r.kubectlOK(ctx, pulled, "apply", "-f", "-")
	r.kubectlOK(ctx, "", "wait", "--for=condition=Ready", "pod/pulled", "--timeout=60s")
}

// registryKeeps shows that the registry of a revived site still has what was pushed before the kill.
func registryKeeps(ctx context.Context, r rig) {
	ref := must(name.ParseReference(r.Registry()+"/tool:new", name.Insecure))(r.t)
	img := must(remote.Image(ref, remote.WithContext(ctx)))(r.t)
	if layers := must(img.Layers())(r.t); len(layers) != 1 {
		r.t.Errorf("the image has %d layers", len(layers))
	}
}

// freeze leaves a volume of the site frozen, as a killed agent might.
func freeze(ctx context.Context, r rig) {
	for _, m := range must(mount.Under(r.KubeletRoot()))(r.t) {
		if !strings.HasPrefix(m.Source, "/dev/loop") {
			continue
		}
		if out, err := exec.CommandContext(ctx, "fsfreeze", "--freeze", m.Point).CombinedOutput(); err != nil {
			r.t.Fatalf("freeze %s: %v: %s", m.Point, err, out)
		}
		return
	}
	r.t.Fatal("the site has no volume to freeze")
}

// stuckWriter returns when a process of the workload waits, unkillably, for a frozen file system.
func stuckWriter(ctx context.Context, r rig) {
	freeze(ctx, r)
	// It ends when the site is killed, with an error that says nothing.
	go func() { _, _ = r.shell(ctx, "echo never > /data/blocked") }()
	check(r.t, r.await(ctx, "kubelet", func() error {
		stuck := processes(func(pid int) bool {
			stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			return strings.Contains(string(stat), ") D ") && inCgroups(pid, r.cgroups())
		})
		if len(stuck) == 0 {
			return errors.New("no process waits for the frozen file system")
		}
		return nil
	}))
}
