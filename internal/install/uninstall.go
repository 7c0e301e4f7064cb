package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube"
)

// ErrBusy says that a restore or capture is under way.
var ErrBusy = errors.New("davit is busy")

// UninstallOptions say how much to remove.
type UninstallOptions struct {
	// KeepData keeps the definitions with all objects, the namespace and the
	// Secrets, so that a later install goes on where this one stopped.
	KeepData bool
	// Force removes Davit although work is under way.
	Force bool
	// Timeout bounds the whole; default 5m.
	Timeout time.Duration
}

// leftovers are the kinds of helpers that Davit makes in other namespaces.
var leftovers = []schema.GroupVersionResource{
	{Version: "v1", Resource: "pods"},
	{Version: "v1", Resource: "persistentvolumeclaims"},
	{Group: "snapshot.storage.k8s.io", Version: "v1", Resource: "volumesnapshots"},
	{Group: "snapshot.storage.k8s.io", Version: "v1", Resource: "volumesnapshotcontents"},
	{Group: "groupsnapshot.storage.k8s.io", Version: "v1", Resource: "volumegroupsnapshotcontents"},
	{Group: "groupsnapshot.storage.k8s.io", Version: "v1beta2", Resource: "volumegroupsnapshotcontents"},
}

// Uninstall removes Davit from the cluster. It never touches what is in a
// vault, nor the applications.
func Uninstall(ctx context.Context, clients *kube.Clients, opts UninstallOptions, progress Progress) error {
	if opts.Timeout == 0 {
		opts.Timeout = installBudget
	}
	ctx, cancel := context.WithTimeout(ctx, opts.Timeout)
	defer cancel()
	in := installer{clients: clients, progress: progress}
	if err := in.uninstall(ctx, opts); err != nil {
		return fmt.Errorf("uninstall davit: %w", err)
	}
	return nil
}

func (in installer) uninstall(ctx context.Context, opts UninstallOptions) error {
	if !opts.Force {
		if err := in.refuseBusy(ctx); err != nil {
			return err
		}
	}
	objects, err := Render(Options{SiteName: "any"})
	if err != nil {
		return err
	}
	slices.Reverse(objects) // workloads first, the namespace last
	in.progress.say("stopping the agent and the node processes")
	if err := in.removeAll(ctx, objects, "Deployment", "DaemonSet"); err != nil {
		return err
	}
	if err := in.awaitNoPods(ctx); err != nil {
		return err
	}
	in.progress.say("removing helpers of interrupted work")
	if err := in.removeLeftovers(ctx); err != nil {
		return err
	}
	in.progress.say("removing accounts and rights")
	kinds := []string{"ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy", "PodDisruptionBudget", "ConfigMap", "RoleBinding", "Role", "ClusterRoleBinding", "ClusterRole", "ServiceAccount"}
	if err := in.removeAll(ctx, objects, kinds...); err != nil || opts.KeepData {
		return err
	}
	in.progress.say("removing definitions, objects and namespace; vaults stay as they are")
	if err := in.removeAll(ctx, objects, "CustomResourceDefinition", "Namespace"); err != nil {
		return err
	}
	return in.awaitGone(ctx, objects, "CustomResourceDefinition", "Namespace")
}

// refuseBusy looks for restores and captures under way. Deletions are none: a
// point may wait for weeks to be deleted, and whoever comes next goes on with it.
func (in installer) refuseBusy(ctx context.Context) error {
	var busy []string
	for resource, phases := range map[string][]string{
		"restores":       {string(v1alpha1.RestoreRunning)},
		"recoverypoints": {string(v1alpha1.PointCapturing)},
		"volumetasks":    {string(v1alpha1.TaskRunning)},
		"runs":           {"Evaluating", "Running", "Verifying", "RollingBack", "OutcomeUnknown"},
	} {
		list, err := in.clients.Dynamic.Resource(v1alpha1.GroupVersion.WithResource(resource)).List(ctx, metav1.ListOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("list %s: %w", resource, err)
		}
		for _, o := range list.Items {
			phase, _, _ := unstructured.NestedString(o.Object, "status", "phase")
			if slices.Contains(phases, phase) {
				busy = append(busy, fmt.Sprintf("%s %s/%s is %s", o.GetKind(), o.GetNamespace(), o.GetName(), strings.ToLower(phase)))
			}
		}
	}
	if len(busy) > 0 {
		slices.Sort(busy)
		return fmt.Errorf("%w: %s: wait, or uninstall with --force", ErrBusy, strings.Join(busy, "; "))
	}
	return nil
}

// removeAll removes those of the objects that are of the kinds.
func (in installer) removeAll(ctx context.Context, objects []unstructured.Unstructured, kinds ...string) error {
	background := metav1.DeletePropagationBackground
	for i := range objects {
		o := &objects[i]
		if !slices.Contains(kinds, o.GetKind()) {
			continue
		}
		r, err := in.resource(o)
		if meta.IsNoMatchError(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("remove %s %s: %w", o.GetKind(), o.GetName(), err)
		}
		err = r.Delete(ctx, o.GetName(), metav1.DeleteOptions{PropagationPolicy: &background})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("remove %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}

func (in installer) awaitNoPods(ctx context.Context) error {
	selector := fmt.Sprintf("%s in (%s,%s)", NameLabel, AgentName, NodeName)
	err := wait.PollUntilContextCancel(ctx, look, true, func(ctx context.Context) (bool, error) {
		pods, err := in.clients.Kubernetes.CoreV1().Pods(v1alpha1.SystemNamespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
		return err == nil && len(pods.Items) == 0, nil
	})
	if err != nil {
		return fmt.Errorf("wait for davit's pods to stop: %w", err)
	}
	return nil
}

// removeLeftovers removes helpers by their label; kinds that the cluster does
// not have are passed over.
func (in installer) removeLeftovers(ctx context.Context) error {
	selector := metav1.ListOptions{LabelSelector: v1alpha1.LabelManagedBy + "=" + partOf}
	for _, gvr := range leftovers {
		list, err := in.clients.Dynamic.Resource(gvr).List(ctx, selector)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("list leftover %s: %w", gvr.Resource, err)
		}
		for _, o := range list.Items {
			if gvr.Resource == "persistentvolumeclaims" && o.GetNamespace() != v1alpha1.SystemNamespace {
				continue // data outside Davit's own namespace is never removed
			}
			err := in.clients.Dynamic.Resource(gvr).Namespace(o.GetNamespace()).Delete(ctx, o.GetName(), metav1.DeleteOptions{})
			if err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("remove leftover %s %s/%s: %w", gvr.Resource, o.GetNamespace(), o.GetName(), err)
			}
		}
	}
	return nil
}

func (in installer) awaitGone(ctx context.Context, objects []unstructured.Unstructured, kinds ...string) error {
	for i := range objects {
		o := &objects[i]
		if !slices.Contains(kinds, o.GetKind()) {
			continue
		}
		r, err := in.resource(o)
		if err != nil {
			return err
		}
		err = wait.PollUntilContextCancel(ctx, look, true, func(ctx context.Context) (bool, error) {
			_, err := r.Get(ctx, o.GetName(), metav1.GetOptions{})
			return apierrors.IsNotFound(err), nil
		})
		if err != nil {
			return fmt.Errorf("wait for %s %s to be gone: %w: look for finalizers in it", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}
