package bed

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"davit.dev/davit/testbed/bed/mount"
)

// nodeMore gives a site a node, which has pods and volumes of its own, and can be killed beside the first one, with a volume
// frozen. It leaves the node for 'down' to remove.
func nodeMore(ctx context.Context, b *Bed, r rig) {
	name := must(r.AddNode(ctx, NodeOptions{}))(r.t)
	w := b.worker(name)
	if got := b.Site(r.name).Nodes(); !slices.Equal(got, []string{r.name, name}) || w == nil {
		r.t.Fatalf("the site has nodes %v", got)
	}
	there := strings.NewReplacer("name: web", "name: more", "app: web", "app: more", "name: data}", "name: data-more}", "claimName: data", "claimName: data-more",
		"  terminationGracePeriodSeconds: 1\n", "  terminationGracePeriodSeconds: 1\n  nodeSelector: {kubernetes.io/hostname: "+name+"}\n").Replace(workload)
	r.kubectlOK(ctx, there, "apply", "-f", "-")
	r.kubectlOK(ctx, "", "wait", "--for=condition=Ready", "pod/more", "--timeout=60s")
	r.kubectlOK(ctx, "", "exec", "more", "--", "sh", "-c", "echo elsewhere > /data/index.html && sync")
	answers := func() error {
		out, err := r.shell(ctx, "timeout 2 wget -qO- http://more.default/")
		if err == nil && !strings.Contains(out, "elsewhere") {
			err = errors.New("answered " + out)
		}
		return err
	}
	check(r.t, r.await(ctx, "kubelet", answers))
	if mounts := must(mount.Under(w.dir))(r.t); len(mounts) > 0 {
		r.t.Errorf("the host sees mounts of %s: %v", name, mounts)
	}
	freezeInside(ctx, r.t, w)
	check(r.t, b.Kill(ctx, name))
	if left := w.pids(); len(left) > 0 {
		r.t.Errorf("processes of %s survived: %v", name, left)
	}
	check(r.t, r.apiReady())
	if out := must(r.shell(ctx, "cat /data/index.html"))(r.t); !strings.Contains(out, "precious") {
		r.t.Errorf("the first node's pod has %q", out)
	}
	if answers() == nil {
		r.t.Error("a pod of the killed node answers")
	}
	check(r.t, b.Revive(ctx, name))
	check(r.t, r.await(ctx, "kubelet", answers))
}

// freezeInside leaves a volume of a worker frozen.
func freezeInside(ctx context.Context, t *testing.T, w *worker) {
	t.Helper()
	check(t, w.enter(func() error {
		mounts, err := mount.Under(w.at)
		if err != nil {
			return err
		}
		for _, m := range mounts {
			if strings.HasPrefix(m.Source, "/dev/loop") && strings.Contains(m.Point, "/pods/") {
				return exec.CommandContext(ctx, "fsfreeze", "--freeze", m.Point).Run()
			}
		}
		return errors.New("the node has no volume to freeze")
	}))
}
