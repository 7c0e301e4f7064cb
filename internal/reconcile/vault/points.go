package vault

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/reconcile/project"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/reading"
)

// beside is how many points are shown at a time: the API server takes a while over each call,
// and one after the other ten thousand points took a quarter of an hour.
const beside = 8

// sideBySide does something with each of n, some at a time, and goes on after an error. Once
// ctx is done it begins with no other one.
func sideBySide(ctx context.Context, n int, do func(i int) error) error {
	var g errgroup.Group
	g.SetLimit(beside)
	var mu sync.Mutex
	var errs []error
	for i := range n {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			if err := do(i); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
			return nil
		})
	}
	_ = g.Wait() // each says what is wrong with it
	return errors.Join(append(errs, context.Cause(ctx))...)
}

// projectPoints shows every recovery point of the vault as an object. The
// objects are listed before the vault is, so that a point published meanwhile
// is not taken for one that is gone.
func (r *Reconciler) projectPoints(ctx context.Context, v *v1alpha1.Vault, opened *vaults.Opened) error {
	began := r.Now()
	var shown v1alpha1.RecoveryPointList
	if err := r.Client.List(ctx, &shown, client.MatchingLabels{project.LabelVault: v.Name}, client.UnsafeDisableDeepCopy); err != nil { // they are only looked at
		return fmt.Errorf("list recovery points: %w", err)
	}
	homes, err := r.homes(ctx, v.Name)
	if err != nil {
		return err
	}
	apps, err := opened.Listing.Apps(ctx)
	if err != nil {
		return err
	}
	var errs []error
	readers, err := reading.Readers(ctx, opened.Project, "", r.Now())
	if err != nil { // a remark beside what there is
		errs = append(errs, err)
	}
	viewer := protection.New(protection.Options{Project: opened.Listing, Site: r.Site, Now: r.Now})
	inVault := map[string]bool{}
	complete := true
	for _, app := range apps {
		infos, points, err := viewer.Points(ctx, app)
		if err != nil {
			errs, complete = append(errs, err), false
			continue
		}
		home := homes.of(app)
		for _, info := range infos {
			inVault[home.Namespace+"/"+info.ID] = true
		}
		errs = append(errs, sideBySide(ctx, len(infos), func(i int) error {
			return r.showPoint(ctx, v.Name, app, home, infos[i], points[i], opened.Project, readers)
		}))
	}
	if complete { // what one failed listing did not show is not gone
		errs = append(errs, r.hideGone(ctx, shown.Items, inVault))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return r.noteShown(ctx, v, began)
}

// noteShown says since when the vault may hold points that are not shown: a list that is old
// looks like any other.
func (r *Reconciler) noteShown(ctx context.Context, v *v1alpha1.Vault, began time.Time) error {
	old := v.DeepCopy()
	metav1.SetMetaDataAnnotation(&v.ObjectMeta, project.AnnotationShown, began.UTC().Format(time.RFC3339))
	if err := r.Client.Patch(ctx, v, client.MergeFrom(old)); err != nil {
		return fmt.Errorf("note when vault %s was shown: %w", v.Name, err)
	}
	return nil
}

// homes says where each application's points are shown.
type homes map[string]client.ObjectKey

func (h homes) of(app string) client.ObjectKey {
	if key, ok := h[app]; ok {
		return key
	}
	return client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: app}
}

func (r *Reconciler) homes(ctx context.Context, vaultName string) (homes, error) {
	var apps v1alpha1.ApplicationList
	if err := r.Client.List(ctx, &apps); err != nil {
		return nil, fmt.Errorf("list applications: %w", err)
	}
	h := homes{}
	for i := range apps.Items {
		if a := &apps.Items[i]; a.Spec.Vault == vaultName {
			h[a.VaultName()] = client.ObjectKeyFromObject(a)
		}
	}
	return h, nil
}

// showPoint makes or updates one object. One that is being captured here is
// left to whoever captures it.
func (r *Reconciler) showPoint(ctx context.Context, vaultName, app string, home client.ObjectKey, info vault.PointInfo, p point.Point, pr *vault.Project, readers []reading.Reader) error {
	var rp v1alpha1.RecoveryPoint
	key := client.ObjectKey{Namespace: home.Namespace, Name: info.ID}
	err := r.Client.Get(ctx, key, &rp)
	if apierrors.IsNotFound(err) {
		rp = v1alpha1.RecoveryPoint{
			ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name},
			Spec:       v1alpha1.RecoveryPointSpec{Application: home.Name, Trigger: project.Trigger(info), Pinned: info.Pinned()},
		}
		project.Label(&rp, vaultName, app)
		rp.Annotations = map[string]string{project.AnnotationFromVault: "true", project.AnnotationPinned: strconv.FormatBool(info.Pinned())}
		err = r.Client.Create(ctx, &rp)
	}
	if err != nil {
		return fmt.Errorf("show recovery point %s: %w", key, err)
	}
	if rp.Status.Phase == v1alpha1.PointCapturing || rp.Status.Phase == v1alpha1.PointPending || rp.Status.Phase == "" && rp.Annotations[project.AnnotationFromVault] == "" {
		return nil
	}
	if err := r.pin(ctx, &rp, vaultName, app, info, pr); err != nil {
		return fmt.Errorf("pin recovery point %s: %w", key, err)
	}
	old := rp.DeepCopy()
	project.Status(&rp, info, p)
	project.Readers(&rp, app, readers)
	if equality.Semantic.DeepEqual(old.Status, rp.Status) {
		return nil
	}
	if err := r.Client.Status().Patch(ctx, &rp, client.MergeFrom(old)); err != nil {
		return fmt.Errorf("show recovery point %s: %w", key, err)
	}
	return nil
}

// pin carries pins both ways: the annotation remembers what the vault said
// last, so a difference tells on which side someone changed their mind.
func (r *Reconciler) pin(ctx context.Context, rp *v1alpha1.RecoveryPoint, vaultName, app string, info vault.PointInfo, p *vault.Project) error {
	old := rp.DeepCopy()
	seen := rp.Annotations[project.AnnotationPinned]
	switch {
	case seen != "" && strconv.FormatBool(rp.Spec.Pinned) != seen && rp.Spec.Pinned != info.Pinned():
		if err := r.changePin(ctx, rp, app, info.ID, p); err != nil {
			return err
		}
	default:
		rp.Spec.Pinned = info.Pinned()
	}
	project.Label(rp, vaultName, app)
	if rp.Annotations == nil {
		rp.Annotations = map[string]string{}
	}
	rp.Annotations[project.AnnotationPinned] = strconv.FormatBool(rp.Spec.Pinned)
	if equality.Semantic.DeepEqual(old, rp) {
		return nil
	}
	return r.Client.Patch(ctx, rp, client.MergeFrom(old))
}

// changePin has the vault say of a point what its object says.
func (r *Reconciler) changePin(ctx context.Context, rp *v1alpha1.RecoveryPoint, app, id string, p *vault.Project) error {
	mark := vault.Mark{Kind: vault.MarkUnpinned, Site: r.Site, By: "RecoveryPoint object"}
	if !rp.Spec.Pinned {
		return p.Mark(ctx, app, id, mark)
	}
	err := protection.Pin(ctx, p, app, id, mark)
	if errors.Is(err, protection.ErrRemoved) {
		r.Events.Event(rp, corev1.EventTypeWarning, "PinnedLate", err.Error())
		return nil
	}
	return err
}

// hideGone removes the objects of points that the vault no longer has.
// Requests and failures never were in it, and stay.
func (r *Reconciler) hideGone(ctx context.Context, shown []v1alpha1.RecoveryPoint, inVault map[string]bool) error {
	return sideBySide(ctx, len(shown), func(i int) error {
		rp := &shown[i]
		switch rp.Status.Phase {
		case v1alpha1.PointAvailable, v1alpha1.PointQuarantined, v1alpha1.PointDeleting:
			if !inVault[rp.Namespace+"/"+rp.Name] {
				return client.IgnoreNotFound(r.Client.Delete(ctx, rp))
			}
		}
		return nil
	})
}
