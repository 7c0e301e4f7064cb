package vault

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/vault"
)

// projectSites shows every site's newest sign of life as a Site object. What a
// person wrote into its spec stays. Sites are never removed here: one that
// fell silent is news, not garbage.
func (r *Reconciler) projectSites(ctx context.Context, sites []vault.SiteStatus) error {
	for _, s := range sites {
		if err := r.projectSite(ctx, s); err != nil {
			return fmt.Errorf("show site %s: %w", s.Site, err)
		}
	}
	return nil
}

func (r *Reconciler) projectSite(ctx context.Context, s vault.SiteStatus) error {
	var site v1alpha1.Site
	err := r.Client.Get(ctx, client.ObjectKey{Name: s.Site}, &site)
	if apierrors.IsNotFound(err) {
		site = v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: s.Site}}
		err = r.Client.Create(ctx, &site)
	}
	if err != nil {
		return err
	}
	old := site.DeepCopy()
	written := metav1.NewTime(s.Written)
	if seen := site.Status.LastSeen; seen == nil || seen.Before(&written) {
		site.Status.LastSeen = &written
	}
	site.Status.Local = s.Site == r.Site
	site.Status.KubeVersion, site.Status.DavitVersion, site.Status.ClusterID = s.KubeVersion, s.AgentVersion, s.Cluster
	return r.Client.Status().Patch(ctx, &site, client.MergeFrom(old))
}
