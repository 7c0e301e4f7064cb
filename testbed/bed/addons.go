package bed

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"davit.dev/davit/testbed/bed/host"
	"davit.dev/davit/testbed/build"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

//go:embed manifests/*.yaml
var manifestFiles embed.FS

// installAddOns applies CoreDNS, local-path and the CSI driver, and returns when all of it runs.
func (s *Site) installAddOns(ctx context.Context, bin build.Set, store *storage) error {
	if err := s.applyEmbedded(ctx, bin); err != nil {
		return err
	}
	if store != nil {
		if err := s.installStorage(ctx, bin, store); err != nil {
			return err
		}
	}
	return s.awaitAddOns(ctx, time.Time{})
}

func (s *Site) applyEmbedded(ctx context.Context, bin build.Set) error {
	tmpl, err := template.ParseFS(manifestFiles, "manifests/*.yaml")
	if err != nil {
		return fmt.Errorf("parse manifests: %w", err)
	}
	names, err := fs.Glob(manifestFiles, "manifests/*.yaml")
	if err != nil {
		return fmt.Errorf("list manifests: %w", err)
	}
	var all bytes.Buffer
	for _, name := range names {
		all.WriteString("---\n")
		if err := tmpl.ExecuteTemplate(&all, filepath.Base(name), s.bed.values(s)); err != nil {
			return fmt.Errorf("render %s: %w", name, err)
		}
	}
	return s.apply(ctx, bin, "base", all.String())
}

// apply makes the cluster hold the manifests. A digest of what was applied last spares the second 'up' the work.
func (s *Site) apply(ctx context.Context, bin build.Set, name, manifests string) error {
	if s.hasApplied(name, manifests) {
		return nil
	}
	if _, err := s.kubectl(ctx, bin, manifests, "apply", "--server-side", "--force-conflicts", "-f", "-"); err != nil {
		return fmt.Errorf("apply %s to %s: %w", name, s.name, err)
	}
	return host.WriteFile(s.path("applied", name), []byte(digest(manifests)), 0o644)
}

func (s *Site) hasApplied(name, manifests string) bool {
	old, err := os.ReadFile(s.path("applied", name))
	return err == nil && string(old) == digest(manifests)
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func (s *Site) kubectl(ctx context.Context, bin build.Set, stdin string, args ...string) (string, error) {
	return runInput(ctx, stdin, bin.Path("kubectl"), append([]string{"--kubeconfig", s.Kubeconfig()}, args...)...)
}

// storage is the CSI driver of the module testbed/csi, which its command csi-build builds and describes.
type storage struct {
	tool string // csi-build
	dir  string // where it must run
	tar  string // the driver's image
}

func buildStorage(ctx context.Context, log io.Writer) (*storage, error) {
	src, err := build.SourceDir()
	if err != nil {
		return nil, err
	}
	st := &storage{dir: filepath.Join(src, "csi")}
	if st.tool, err = build.Tool(ctx, "csi", "csi-build", log); err != nil {
		return nil, err
	}
	start := time.Now()
	out, err := st.run(ctx, "image")
	if err != nil {
		return nil, err
	}
	if took := time.Since(start); took > 5*time.Second {
		fmt.Fprintf(log, "built the CSI driver in %s\n", took.Round(time.Second))
	}
	var image struct{ Tar string }
	if err := json.Unmarshal([]byte(lastLine(out)), &image); err != nil {
		return nil, fmt.Errorf("read what csi-build printed: %w: %s", err, out)
	}
	st.tar = image.Tar
	return st, nil
}

func (st *storage) run(ctx context.Context, args ...string) (string, error) {
	return toolOutput(ctx, st.dir, st.tool, args...)
}

func (s *Site) installStorage(ctx context.Context, bin build.Set, st *storage) error {
	if err := s.LoadImage(ctx, st.tar); err != nil {
		return err
	}
	crds, err := st.run(ctx, "manifests", "--part", "crds")
	if err != nil {
		return err
	}
	if !s.hasApplied("csi-crds", crds) {
		if err := s.apply(ctx, bin, "csi-crds", crds); err != nil {
			return err
		}
		if _, err := s.kubectl(ctx, bin, crds, "wait", "--for=condition=Established", "--timeout=60s", "-f", "-"); err != nil {
			return err
		}
	}
	driver, err := st.run(ctx, "manifests", "--part", "driver", "--kubelet-root", s.KubeletRoot(), "--state", s.StorageDir(), "--group-node", s.name)
	if err != nil {
		return err
	}
	return s.apply(ctx, bin, "csi-driver", driver)
}

func toolOutput(ctx context.Context, dir, tool string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Dir = dir
	// It ends what it has started, which would otherwise go on, and hold its output open.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("run %s %s: %w: %s", filepath.Base(tool), strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

func (s *Site) applied(name string) bool {
	_, err := os.Stat(s.path("applied", name))
	return err == nil
}

// awaitAddOns waits until every Deployment and DaemonSet of the bed's own namespaces runs in its newest version,
// in containers started no earlier than since.
func (s *Site) awaitAddOns(ctx context.Context, since time.Time) error {
	client, err := s.client()
	if err != nil {
		return err
	}
	for _, ns := range []string{"kube-system", "local-path-storage"} {
		if err := s.await(ctx, "kubelet", func() error {
			if err := rolledOut(ctx, client, ns); err != nil {
				return err
			}
			return startedSince(ctx, client, ns, since)
		}); err != nil {
			return err
		}
	}
	return nil
}

func startedSince(ctx context.Context, client *kubernetes.Clientset, ns string, since time.Time) error {
	pods, err := client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	return runningSince(pods.Items, since)
}

func runningSince(pods []corev1.Pod, since time.Time) error {
	for _, p := range pods {
		for _, c := range p.Status.ContainerStatuses {
			if c.State.Running == nil || !c.Ready || c.State.Running.StartedAt.Time.Before(since) {
				return fmt.Errorf("container %s of pod %s/%s does not run yet", c.Name, p.Namespace, p.Name)
			}
		}
	}
	return nil
}

func rolledOut(ctx context.Context, client *kubernetes.Clientset, ns string) error {
	deployments, err := client.AppsV1().Deployments(ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, d := range deployments.Items {
		if d.Status.ObservedGeneration < d.Generation || d.Status.UpdatedReplicas < *d.Spec.Replicas || d.Status.AvailableReplicas < *d.Spec.Replicas {
			return fmt.Errorf("deployment %s/%s is not available yet", ns, d.Name)
		}
	}
	sets, err := client.AppsV1().DaemonSets(ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, d := range sets.Items {
		if d.Status.ObservedGeneration < d.Generation || d.Status.DesiredNumberScheduled == 0 || d.Status.NumberAvailable < d.Status.DesiredNumberScheduled {
			return fmt.Errorf("daemon set %s/%s is not available yet", ns, d.Name)
		}
	}
	return nil
}
