package gitops

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/restore/hold"
	"davit.dev/davit/internal/restore/served"
	"davit.dev/davit/internal/restore/shape"
)

// forget takes those restores out, by application, that are over, and names them.
func (s Stage) forget(ctx context.Context, restores map[string]string) (gone string, err error) {
	if s.Leases == nil {
		return "", nil
	}
	over := map[string]string{}
	for application, restore := range restores {
		is, err := s.over(ctx, application, restore)
		if err != nil {
			return "", fmt.Errorf("look whether restore %s of %s is over: %w", restore, application, err)
		}
		if is {
			over[application] = restore
			delete(restores, application)
		}
	}
	if len(over) > 0 {
		gone = "; no more account is taken of restores that are over and left their names: " + named(over)
	}
	return gone, nil
}

// over tells whether a restore has nothing left that git must not meet: its application's lease
// holds no attempt, so that it neither runs nor waits to be given again, and there is no claim
// that it has not filled. One that died in the middle is not over: git would start workloads on
// what it has not filled. Nor is one while another restores its application, which may not have noted
// itself, and marks as its own the claims that it fills. Nor is one of which the caller may not know.
func (s Stage) over(ctx context.Context, application, restore string) (bool, error) {
	attempted, err := hold.Attempted(ctx, s.Leases, s.Home, application)
	if attempted != "" || err != nil {
		return false, unknown(err)
	}
	at, err := served.First(ctx, s.Cluster, shape.KindClaim) // Davit's own account may list none
	if err != nil {
		return false, err
	}
	half := false
	err = s.Cluster.List(ctx, at, "", shape.LabelRestore+"="+restore, func(u *unstructured.Unstructured) error {
		half = half || u.GetAnnotations()[shape.AnnotationFilledFrom] == ""
		return nil
	})
	return !half && err == nil, unknown(err)
}

// unknown is no error where the caller is not told.
func unknown(err error) error {
	if apierrors.IsForbidden(err) {
		return nil
	}
	return err
}
