package standby

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/standby/errand"
)

const (
	// strandedLook is how often it is asked whether a running Job's node still answers.
	strandedLook = 5 * time.Second
	// overdue is how long after its time a pod may take to end, until that is said.
	overdue = time.Minute
)

var kindNode = schema.GroupKind{Kind: "Node"}

// stranded names the pod of a step that may never be heard of again, and what helps;
// empty: there is none, or whoever carries the run may not know. A pod on a node that
// does not answer may still write: only a person knows when the node is dead. The text
// stays the same as long as what it says does.
func (s *Site) stranded(ctx context.Context, c restore.Cluster, id string) (found string, err error) {
	at, err := serving(ctx, c, shape.KindPod)
	if err != nil {
		return "", passing(err)
	}
	err = c.List(ctx, at, v1alpha1.SystemNamespace, errand.LabelStep+"="+id, func(pod *unstructured.Unstructured) error {
		why, err := s.lost(ctx, c, pod)
		if why != "" && (found == "" || why < found) {
			found = why
		}
		return err
	})
	return found, passing(err)
}

// passing is an error that the next look may not have; nil, if all will. What it keeps
// from being known was perhaps known before, and is not over for that.
func passing(err error) error {
	if apierrors.IsForbidden(err) || errors.Is(err, restore.ErrNotServed) {
		return nil
	}
	return err
}

// lost says why a pod may never be heard of again, empty if it is not so.
func (s *Site) lost(ctx context.Context, c restore.Cluster, pod *unstructured.Unstructured) (string, error) {
	node := shape.Text(pod.Object, "spec", "nodeName")
	if phase := shape.Text(pod.Object, "status", "phase"); node == "" || phase == "Succeeded" || phase == "Failed" {
		return "", nil
	}
	why := ""
	since, err := silence(ctx, c, node)
	if err != nil {
		return "", err
	}
	if since != "" {
		why = fmt.Sprintf("its pod %s/%s is on node %s, which has not been heard of since %s", pod.GetNamespace(), pod.GetName(), node, since)
	} else if end := pod.GetDeletionTimestamp(); end != nil && s.o.Recovery.Now().Sub(end.Time) > overdue {
		why = fmt.Sprintf("its pod %s/%s on node %s was to end at %s and has not", pod.GetNamespace(), pod.GetName(), node, end.UTC().Format(time.RFC3339))
	}
	if why == "" {
		return "", nil
	}
	return fmt.Sprintf("%s: what it does may still go on. Bring the node back; or make sure that it is dead, then take it away (kubectl delete node %s), or its pod (kubectl -n %s delete pod %s --force)",
		why, node, pod.GetNamespace(), pod.GetName()), nil
}

// silence tells since when a node has not been heard of; empty: it has been. Of a node
// that is gone the cluster takes the pods away itself.
func silence(ctx context.Context, c restore.Cluster, name string) (since string, err error) {
	at, err := serving(ctx, c, kindNode)
	if err != nil {
		return "", err
	}
	node, err := c.Get(ctx, at, "", name)
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) { // an overdue end is told all the same
		return "", nil
	}
	if err != nil {
		return "", err
	}
	for _, cond := range shape.Items(node.Object, "status", "conditions") {
		if shape.Text(cond, "type") == "Ready" && shape.Text(cond, "status") == "Unknown" {
			return cmp.Or(shape.Text(cond, "lastTransitionTime"), "a time that is not known"), nil
		}
	}
	return "", nil
}
