package source

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/kube"
)

// CheckVolumes says, before anything is protected, which bound claims of the
// namespaces could not be captured and what to do: ErrNoSnapshots or
// ErrSnapshotClass, with every such claim named. It changes nothing.
func CheckVolumes(ctx context.Context, clients *kube.Clients, namespaces []string, opts capture.VolumeOptions) error {
	if opts.Mode == capture.ModeNone {
		return nil
	}
	v := NewVolumes(clients, clients, nil, VolumeOptions{})
	excluded := labels.Set{capture.LabelExclude: "true"}.AsSelector()
	var errs []error
	for _, namespace := range namespaces {
		claims, err := clients.Kubernetes.CoreV1().PersistentVolumeClaims(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return fmt.Errorf("list claims of %s: %w", namespace, err)
		}
		for _, c := range claims.Items {
			if c.Status.Phase != corev1.ClaimBound || excluded.Matches(labels.Set(c.Labels)) {
				continue
			}
			_, err := v.Plan(ctx, capture.Claim{Namespace: namespace, Name: c.Name, Volume: c.Spec.VolumeName}, opts)
			if err != nil {
				errs = append(errs, fmt.Errorf("claim %s/%s: %w", namespace, c.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}
