package scratch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/drill"
	"davit.dev/davit/internal/probe"
	"davit.dev/davit/internal/trial"
)

// silentAfter is when a node process that says nothing counts as gone.
const silentAfter = 2 * time.Minute

// Sandboxes are those of drills, in the same cluster.
type Sandboxes struct {
	cluster *Cluster
	now     func() time.Time
}

var _ drill.Cluster = (*Sandboxes)(nil)

// Drills makes the port of drills.
func (c *Cluster) Drills(now func() time.Time) *Sandboxes { return &Sandboxes{c, now} }

// HTTP implements probe.Cluster.
func (s *Sandboxes) HTTP(ctx context.Context, namespace, service, port, scheme, path string) (int, string, error) {
	return s.cluster.HTTP(ctx, namespace, v1alpha1.HTTPProbe{Service: service, Port: port, Scheme: scheme, Path: path})
}

// Exec implements probe.Cluster.
func (s *Sandboxes) Exec(ctx context.Context, at probe.Place, command []string) (string, error) {
	choice := v1alpha1.PodChoice{Container: at.Container}
	if at.Service == "" {
		selector, err := metav1.ParseToLabelSelector(at.Labels)
		if err != nil {
			return "", fmt.Errorf("read labels %q: %w", at.Labels, err)
		}
		choice.Pods = *selector
		return s.cluster.Exec(ctx, at.Namespace, choice, command)
	}
	service, err := s.cluster.clients.Kubernetes.CoreV1().Services(at.Namespace).Get(ctx, at.Service, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("look at Service %s/%s: %w", at.Namespace, at.Service, err)
	}
	if len(service.Spec.Selector) == 0 {
		return "", fmt.Errorf("the Service %s/%s chooses no pods by label: name them as NAMESPACE/LABEL=VALUE in a command probe", at.Namespace, at.Service)
	}
	choice.Pods.MatchLabels = service.Spec.Selector
	return s.cluster.Exec(ctx, at.Namespace, choice, command)
}

// Sandboxes implements drill.Cluster.
func (s *Sandboxes) Sandboxes(ctx context.Context) ([]drill.Namespace, error) {
	list, err := s.cluster.clients.Kubernetes.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: v1alpha1.LabelSandbox})
	if err != nil {
		return nil, fmt.Errorf("list namespaces of drills: %w", err)
	}
	var all []drill.Namespace
	for i := range list.Items {
		ns := &list.Items[i]
		if ns.Annotations[v1alpha1.AnnotationRun] == "" {
			continue // somebody's own: Davit did not make it
		}
		all = append(all, drill.Namespace{
			Name: ns.Name, Sandbox: ns.Labels[v1alpha1.LabelSandbox], Run: ns.Annotations[v1alpha1.AnnotationRun],
			RestoreID: ns.Labels[v1alpha1.LabelRestore], Going: ns.DeletionTimestamp != nil,
		})
	}
	return all, nil
}

// Enclose implements drill.Cluster.
func (s *Sandboxes) Enclose(ctx context.Context, namespaces []string) error {
	return s.cluster.Close(ctx, namespaces)
}

// Clear implements drill.Cluster. The first namespace goes last: while it is there,
// a sweep finds the drill.
func (s *Sandboxes) Clear(ctx context.Context, all []drill.Namespace) error {
	var homes, copies []trial.Copy
	for _, n := range all {
		c := trial.Copy{Namespace: n.Name, RestoreID: n.RestoreID}
		if n.Name == drill.Home(n.Run) {
			homes = append(homes, c)
		} else {
			copies = append(copies, c)
		}
	}
	if err := s.cluster.Remove(ctx, copies); err != nil {
		return err
	}
	return s.cluster.Remove(ctx, homes)
}

// Open implements drill.Cluster: a node closes sandboxes in when its node process
// said lately that it can.
func (s *Sandboxes) Open(ctx context.Context) (string, error) {
	nodes, err := s.cluster.clients.Kubernetes.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", fmt.Errorf("list nodes: %w", err)
	}
	resource := v1alpha1.GroupVersion.WithResource("nodefences")
	list, err := s.cluster.clients.Dynamic.Resource(resource).Namespace(v1alpha1.SystemNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", fmt.Errorf("list what nodes say of their fences: %w", err)
	}
	said := map[string]v1alpha1.NodeFence{}
	for i := range list.Items {
		var f v1alpha1.NodeFence
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(list.Items[i].Object, &f); err != nil {
			return "", errors.Join(errors.New("read what nodes say of their fences"), err)
		}
		said[f.Name] = f
	}
	for i := range nodes.Items {
		if why := s.open(&nodes.Items[i], said); why != "" {
			return why, nil
		}
	}
	return "", nil
}

// open is why a node would not close a sandbox in; empty if it does, or is not
// ready and runs nothing new.
func (s *Sandboxes) open(node *corev1.Node, said map[string]v1alpha1.NodeFence) string {
	report, known := said[node.Name]
	status := &report.Status
	mine := slices.ContainsFunc(report.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == node.UID })
	switch {
	case !ready(node):
	case !known || status.ObservedAt == nil:
		return fmt.Sprintf("node %s has no node process of Davit's to isolate a sandbox: davit install", node.Name)
	case !mine:
		return fmt.Sprintf("node %s has no node process of Davit's yet to isolate a sandbox: the report of its name is of an earlier node", node.Name)
	case s.now().Sub(status.ObservedAt.Time) > silentAfter:
		return fmt.Sprintf("the node process of node %s, which isolates sandboxes, says nothing since %s", node.Name, status.ObservedAt.UTC().Format(time.RFC3339))
	case status.Problem != "":
		return fmt.Sprintf("node %s cannot isolate a sandbox: %s", node.Name, status.Problem)
	}
	return ""
}

func ready(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
