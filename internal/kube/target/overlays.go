package target

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/restore/transform"
)

// Overlays reads the ConfigMaps of davit-system that change what is restored
// at this site.
func Overlays(ctx context.Context, clients *kube.Clients) ([]transform.Overlay, error) {
	list, err := clients.Kubernetes.CoreV1().ConfigMaps(v1alpha1.SystemNamespace).List(ctx, metav1.ListOptions{LabelSelector: v1alpha1.LabelOverlay})
	if err != nil {
		return nil, fmt.Errorf("list ConfigMaps of %s: %w", v1alpha1.SystemNamespace, err)
	}
	var all []transform.Overlay
	for _, cm := range list.Items {
		all = append(all, transform.Overlay{Name: cm.Name, Entries: cm.Data})
	}
	return all, nil
}
