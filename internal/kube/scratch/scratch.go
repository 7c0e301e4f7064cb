// Package scratch adapts a Kubernetes cluster to the ports of a restore test:
// the namespaces that hold a copy, the policy around them, what asks it, and how
// it goes away again.
package scratch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/kube/mover"
	"davit.dev/davit/internal/kube/quiescer"
	"davit.dev/davit/internal/trial"
)

const (
	// policyName is the NetworkPolicy in every namespace of a copy.
	policyName = "davit-restore-test"
	goneLook   = 250 * time.Millisecond
	dnsPort    = 53
)

// Cluster makes and removes copies with the rights of its clients.
type Cluster struct {
	clients *kube.Clients
	hooks   *quiescer.Runner
	mover   sweeper
}

// sweeper removes the tasks and holder pods that a restore left.
type sweeper interface {
	Sweep(ctx context.Context, owner string) error
}

var _ trial.Cluster = (*Cluster)(nil)

// New makes the port. The mover removes what filling volumes left.
func New(clients *kube.Clients, m *mover.Mover) *Cluster {
	return &Cluster{clients: clients, hooks: quiescer.New(clients), mover: m}
}

// Copies implements trial.Cluster.
func (c *Cluster) Copies(ctx context.Context) ([]trial.Copy, error) {
	list, err := c.clients.Kubernetes.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: v1alpha1.LabelRestoreTest})
	if err != nil {
		return nil, fmt.Errorf("list namespaces of restore tests: %w", err)
	}
	var all []trial.Copy
	for i := range list.Items {
		ns := &list.Items[i]
		until, err := time.Parse(time.RFC3339, ns.Annotations[v1alpha1.AnnotationTestUntil])
		if err != nil {
			until = time.Time{}
		}
		all = append(all, trial.Copy{
			Namespace: ns.Name, Test: ns.Labels[v1alpha1.LabelRestoreTest], RestoreID: ns.Labels[v1alpha1.LabelRestore],
			Owner: ns.Annotations[v1alpha1.AnnotationTestOwner], Until: until, Created: ns.CreationTimestamp.Time,
			Going: ns.DeletionTimestamp != nil,
		})
	}
	return all, nil
}

// Close implements trial.Cluster: pods reach each other, the name service and
// the API server. Whether that is enforced is up to the network.
func (c *Cluster) Close(ctx context.Context, namespaces []string) error {
	egress, err := c.egress(ctx, namespaces)
	if err != nil {
		return err
	}
	for _, ns := range namespaces {
		policy := &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: policyName, Labels: map[string]string{v1alpha1.LabelManagedBy: "davit"}},
			Spec: networkingv1.NetworkPolicySpec{
				PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}, Egress: egress,
			},
		}
		_, err := c.clients.Kubernetes.NetworkingV1().NetworkPolicies(ns).Create(ctx, policy, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("make network policy of %s: %w", ns, err)
		}
	}
	return nil
}

func (c *Cluster) egress(ctx context.Context, namespaces []string) ([]networkingv1.NetworkPolicyEgressRule, error) {
	port := intstr.FromInt32(dnsPort)
	udp, tcp := corev1.ProtocolUDP, corev1.ProtocolTCP
	rules := []networkingv1.NetworkPolicyEgressRule{
		{To: []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpIn, Values: namespaces},
		}}}}},
		{Ports: []networkingv1.NetworkPolicyPort{{Protocol: &udp, Port: &port}, {Protocol: &tcp, Port: &port}}},
	}
	found, err := c.clients.Kubernetes.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=kubernetes"})
	if err != nil {
		return nil, fmt.Errorf("look for the API server's addresses: %w", err)
	}
	for _, s := range found.Items {
		rule := networkingv1.NetworkPolicyEgressRule{}
		for _, p := range s.Ports {
			if p.Port != nil {
				rule.Ports = append(rule.Ports, networkingv1.NetworkPolicyPort{Protocol: &tcp, Port: ptr.To(intstr.FromInt32(*p.Port))})
			}
		}
		for _, e := range s.Endpoints {
			for _, address := range e.Addresses {
				bits := "/32"
				if strings.Contains(address, ":") {
					bits = "/128"
				}
				rule.To = append(rule.To, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: address + bits}})
			}
		}
		if len(rule.To) > 0 && len(rule.Ports) > 0 {
			rules = append(rules, rule)
		}
	}
	return rules, nil
}

// Remove implements trial.Cluster. A namespace is what tells the next try that
// there is something to remove: it goes only when its volumes will go with it and
// what filling them left is gone. What can go is told to go at once, all of it.
func (c *Cluster) Remove(ctx context.Context, copies []trial.Copy) error {
	var errs []error
	var going []*corev1.Namespace
	swept := map[string]error{}
	for _, copied := range copies {
		ns, err := c.clear(ctx, copied, swept)
		if err == nil && ns != nil {
			going = append(going, ns)
			err = c.deleteNamespace(ctx, ns)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("remove namespace %s: %w", copied.Namespace, err))
		}
	}
	for _, ns := range going {
		err := c.awaitGone(ctx, ns.Name)
		if err == nil { // what a pending claim was given meanwhile
			err = c.releaseVolumes(ctx, ns)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// clear makes a namespace ready to go, and returns it; nil: it is gone already.
// swept are the restores after which was swept, and how that ended.
func (c *Cluster) clear(ctx context.Context, copied trial.Copy, swept map[string]error) (*corev1.Namespace, error) {
	ns, err := c.clients.Kubernetes.CoreV1().Namespaces().Get(ctx, copied.Namespace, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	claims, err := c.clients.Kubernetes.CoreV1().PersistentVolumeClaims(copied.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list its claims: %w", err)
	}
	restores := []string{copied.RestoreID} // applications may share a namespace
	for i := range claims.Items {
		restores = append(restores, claims.Items[i].Labels[v1alpha1.LabelRestore])
	}
	for _, id := range restores {
		if _, done := swept[id]; !done && id != "" {
			swept[id] = c.mover.Sweep(ctx, id)
		}
		if err := swept[id]; err != nil {
			return nil, err
		}
	}
	return ns, c.releaseVolumes(ctx, ns)
}

func (c *Cluster) deleteNamespace(ctx context.Context, ns *corev1.Namespace) error {
	background := metav1.DeletePropagationBackground
	err := c.clients.Kubernetes.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{
		PropagationPolicy: &background, Preconditions: &metav1.Preconditions{UID: &ns.UID},
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) { // a conflict: it goes already
		return nil
	}
	return err
}

// releaseVolumes lets the volumes that were made for a copy's namespace go with it,
// where their class would keep them.
func (c *Cluster) releaseVolumes(ctx context.Context, ns *corev1.Namespace) error {
	volumes, err := c.clients.Kubernetes.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list volumes: %w", err)
	}
	const patch = `{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}`
	for i := range volumes.Items {
		volume := &volumes.Items[i]
		if !madeFor(volume, ns) || volume.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete {
			continue
		}
		_, err := c.clients.Kubernetes.CoreV1().PersistentVolumes().Patch(ctx, volume.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("let volume %s go: %w", volume.Name, err)
		}
	}
	return nil
}

// madeFor tells whether a volume was provisioned for a claim of the namespace. One
// that was there before stays, whatever came to be bound to it.
func madeFor(volume *corev1.PersistentVolume, ns *corev1.Namespace) bool {
	claim := volume.Spec.ClaimRef
	return claim != nil && claim.Namespace == ns.Name && volume.Annotations["pv.kubernetes.io/provisioned-by"] != "" &&
		!volume.CreationTimestamp.Before(&ns.CreationTimestamp)
}

// awaitGone waits for a namespace to be gone; the error says what holds it.
func (c *Cluster) awaitGone(ctx context.Context, namespace string) error {
	tick := time.NewTicker(goneLook)
	defer tick.Stop()
	held := ""
	for {
		ns, err := c.clients.Kubernetes.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err == nil {
			held = holding(ns)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("namespace %s is still there%s", namespace, held)
		case <-tick.C:
		}
	}
}

// holding says what keeps a namespace from going.
func holding(ns *corev1.Namespace) string {
	for _, cond := range ns.Status.Conditions {
		if cond.Status == corev1.ConditionTrue && (cond.Type == corev1.NamespaceContentRemaining || cond.Type == corev1.NamespaceFinalizersRemaining || cond.Type == corev1.NamespaceDeletionContentFailure) {
			return ": " + cond.Message
		}
	}
	return ""
}
