package bed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/testbed/bed/host"
	"davit.dev/davit/testbed/bed/pki"
	"davit.dev/davit/testbed/build"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
)

// worker is a node that a site has beside its first one: a kubelet, a containerd and a kube-proxy in a network
// namespace and in mounts of their own; see machine.go.
type worker struct {
	*node
	site *Site
	opt  NodeOptions
}

// workers are the nodes of the site beside its first one.
func (s *Site) workers() []worker {
	names := s.bed.spec.Workers[s.name]
	list := make([]worker, 0, len(names))
	for _, name := range names {
		n := s.bed.newNode(name)
		n.at = s.dir
		list = append(list, worker{node: n, site: s})
	}
	return list
}

// Nodes are the names of the site's nodes, its first one first.
func (s *Site) Nodes() []string {
	return append([]string{s.name}, s.bed.spec.Workers[s.name]...)
}

// worker finds one by its name in all sites, or returns nil.
func (b *Bed) worker(name string) *worker {
	for _, s := range b.Sites() {
		for _, w := range s.workers() {
			if w.name == name {
				return &w
			}
		}
	}
	return nil
}

// checkFree refuses a site the name of a worker.
func (b *Bed) checkFree(name string) error {
	if b.worker(name) != nil {
		return fmt.Errorf("check site %q: a node of the bed has that name", name)
	}
	return nil
}

// NodeOptions say what AddNode makes.
type NodeOptions struct {
	// Taint is what the node bears from its first moment on, as key=value:Effect, so that only those come who tolerate
	// it; empty: none.
	Taint string
	// Images are the tars of the images that the node gets beside the bed's own; nil: all that the site has.
	Images []string
}

// AddNode gives the site one more node and returns its name when it is Ready and runs the storage driver. Other
// DaemonSets follow by themselves.
func (s *Site) AddNode(ctx context.Context, opt NodeOptions) (string, error) {
	unlock, err := s.bed.lock()
	if err != nil {
		return "", err
	}
	defer unlock()
	bin, err := build.All(ctx, os.Stderr)
	if err != nil {
		return "", err
	}
	name, err := s.bed.freeWorker(s.name)
	if err != nil {
		return "", err
	}
	if s.bed.spec.Workers == nil {
		s.bed.spec.Workers = map[string][]string{}
	}
	s.bed.spec.Workers[s.name] = append(s.bed.spec.Workers[s.name], name)
	if err := s.bed.settle(nil); err != nil {
		return "", err
	}
	w := s.bed.worker(name)
	if err := errors.Join(w.prepare(), s.bed.fw.Ensure(ctx, s.bed.subnets())); err != nil {
		return "", err
	}
	w.opt = opt
	if err := w.startWorker(ctx, bin); err != nil {
		return "", err
	}
	return name, s.awaitAddOns(ctx, time.Time{})
}

// freeWorker is a name for one more node of a site: the site's with a number.
func (b *Bed) freeWorker(site string) (string, error) {
	for i := 2; i < 10; i++ {
		name := fmt.Sprint(site, i)
		if !validName.MatchString(name) {
			return "", fmt.Errorf("name a node of %s: %q is too long; give the site a shorter name", site, name)
		}
		if b.member(name) == nil {
			return name, nil
		}
	}
	return "", fmt.Errorf("name a node of %s: it has nine", site)
}

// RemoveNode takes a node away that AddNode gave: its processes at once, as Kill does, then what the cluster knows of it,
// and its data.
func (s *Site) RemoveNode(ctx context.Context, name string) error {
	unlock, err := s.bed.lock()
	if err != nil {
		return err
	}
	defer unlock()
	i := slices.Index(s.bed.spec.Workers[s.name], name)
	if i < 0 {
		return fmt.Errorf("remove node %s of %s: it has %v, and the first of them is the site itself", name, s.name, s.Nodes())
	}
	w := s.bed.worker(name)
	if err := errors.Join(w.linkDown(ctx), w.killAll(ctx)); err != nil {
		return err
	}
	err = errors.Join(w.forgetNode(ctx), w.removeNetwork(ctx), host.RemoveTree(w.dir), host.RemoveTree(w.logs))
	for _, ext := range []string{".crt", ".key"} {
		_ = os.Remove(filepath.Join(s.pki(), w.certName()+ext))
	}
	if err != nil {
		return err
	}
	s.bed.spec.Workers[s.name] = slices.Delete(s.bed.spec.Workers[s.name], i, i+1)
	if err := host.WriteJSON(s.bed.path("bed.json"), s.bed.spec); err != nil {
		return err
	}
	err = host.Update(func(r *host.Record) error {
		delete(r.Subnets, s.bed.instance+"/"+name)
		return nil
	})
	return errors.Join(err, s.bed.fw.Ensure(ctx, s.bed.subnets()))
}

// forgetNode removes the node and its pods from the API, as whoever takes a machine away does. A site without its API
// server has nothing to forget.
func (w *worker) forgetNode(ctx context.Context) error {
	if w.site.apiReady() != nil {
		return nil
	}
	client, err := w.site.client()
	if err != nil {
		return err
	}
	if err := client.CoreV1().Nodes().Delete(ctx, w.name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete node: %w", err)
	}
	pods, err := w.pods(ctx, client, metav1.NamespaceAll)
	if err != nil {
		return err
	}
	for _, p := range pods {
		err := client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete pod: %w", err)
		}
	}
	return nil
}

func (w *worker) pods(ctx context.Context, client *kubernetes.Clientset, namespace string) ([]corev1.Pod, error) {
	pods, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + w.name})
	if err != nil {
		return nil, fmt.Errorf("list pods of %s: %w", w.name, err)
	}
	return pods.Items, nil
}

// certName is that of the kubelet's certificate in the site's directory of keys.
func (w *worker) certName() string { return "kubelet-" + w.name }

// prepare writes keys and configuration. In the worker's own mounts they are where the first node has its own.
func (w *worker) prepare() error {
	ca, err := pki.OpenAuthority(w.site.pki(), "ca", "kubernetes", time.Now())
	if err != nil {
		return err
	}
	if err := ca.Issue(pki.Leaf{
		Name: w.certName(), CN: "system:node:" + w.name, Groups: []string{"system:nodes"},
		Hosts: []string{w.name, "127.0.0.1", w.net.Address()},
	}); err != nil {
		return err
	}
	for from, to := range map[string]string{"ca.crt": "ca.crt", w.certName() + ".crt": "kubelet.crt", w.certName() + ".key": "kubelet.key"} {
		data, err := os.ReadFile(filepath.Join(w.site.pki(), from))
		if err != nil {
			return fmt.Errorf("read certificate: %w", err)
		}
		if err := host.WriteFile(filepath.Join(w.dir, "pki", to), data, 0o600); err != nil {
			return err
		}
	}
	for user, cert := range map[string]string{"kubelet": w.certName(), "kube-proxy": "kube-proxy"} {
		data, err := w.site.kubeconfig(user, cert)
		if err != nil {
			return err
		}
		if err := host.WriteFile(filepath.Join(w.dir, "kubeconfig", user), data, 0o600); err != nil {
			return err
		}
	}
	v := w.site.bed.values(w.site)
	v.Site, v.Address, v.PodCIDR = w.name, w.net.Address(), w.net.PodCIDR()
	return w.writeConfig(v)
}

func (s *Site) startWorkers(ctx context.Context, bin build.Set) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, w := range s.workers() {
		g.Go(func() error { return w.startWorker(ctx, bin) })
	}
	return g.Wait()
}

// startWorker starts what does not run and returns when the node is Ready and what the bed itself runs there runs anew.
func (w *worker) startWorker(ctx context.Context, bin build.Set) error {
	if err := w.linkUp(ctx); err != nil { // first, see startNode
		return err
	}
	if err := w.makeCgroups(); err != nil {
		return err
	}
	cold := !w.containersLive()
	if err := w.startMachine(bin.Path("bed-pause")); err != nil {
		return err
	}
	if err := w.start(w.site.containerd()); err != nil {
		return err
	}
	if err := w.await(ctx, "containerd", func() error { return dialUnix(w.containerdSocket()) }); err != nil {
		return err
	}
	if err := w.loadAll(ctx); err != nil {
		return err
	}
	// They are the first node's, told the worker's name and addresses: its files are in the same places.
	twin := &Site{node: w.node, bed: w.site.bed}
	kubelet := twin.kubelet(bin)
	if w.opt.Taint != "" {
		kubelet.argv = append(kubelet.argv, "--register-with-taints="+w.opt.Taint)
	}
	for _, p := range []process{kubelet, twin.kubeProxy(bin)} {
		for i := range p.argv {
			p.argv[i] = strings.ReplaceAll(p.argv[i], w.dir+"/", w.at+"/")
		}
		if err := w.start(p); err != nil {
			return err
		}
	}
	return w.awaitWorker(ctx, cold)
}

func (w *worker) awaitWorker(ctx context.Context, cold bool) error {
	client, err := w.site.client()
	if err != nil {
		return err
	}
	since := w.startedAt("kubelet")
	if err := w.await(ctx, "kubelet", func() error { return nodeReady(ctx, client, w.name, since) }); err != nil || !cold {
		return err
	}
	return w.await(ctx, "kubelet", func() error {
		pods, err := w.pods(ctx, client, "kube-system")
		if err != nil {
			return err
		}
		return runningSince(pods, since)
	})
}

// loadAll imports what the site has been given, or what of it was asked for.
func (w *worker) loadAll(ctx context.Context) error {
	markers, err := filepath.Glob(w.site.path("loaded", "*"))
	if err != nil {
		return fmt.Errorf("list images of %s: %w", w.site.name, err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(3)
	for _, marker := range markers {
		data, err := os.ReadFile(marker)
		if err != nil {
			return fmt.Errorf("list images of %s: %w", w.site.name, err)
		}
		tar := strings.TrimSpace(string(data))
		if _, err := os.Stat(tar); err != nil {
			continue // of an older build
		}
		if w.opt.Images != nil && !w.wants(tar) {
			continue
		}
		g.Go(func() error { return w.loadImage(ctx, tar) })
	}
	return g.Wait()
}

// wants says whether the worker gets an image: those that every node needs, or that it was asked to have.
func (w *worker) wants(tar string) bool {
	name := filepath.Base(tar)
	return strings.HasPrefix(name, "bed-") || strings.Contains(name, "csi") || slices.Contains(w.opt.Images, tar)
}
