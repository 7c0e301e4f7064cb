package mover

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestHolderIsMadeAnewWhenItsClaimIsBound: the scheduler leaves a pod alone whose
// claim has no volume; what is made once it has gets its node. Without that
// the holder waits until the scheduler looks again, here for ever.
func TestHolderIsMadeAnewWhenItsClaimIsBound(t *testing.T) {
	for name, test := range map[string]struct {
		claim *corev1.PersistentVolumeClaim
		node  string // that the first pod has by the time the claim is bound
		pods  int
		text  string // of the error
		full  int    // how often the quota has no room for the second yet
	}{
		"no node yet":           {unbound(), "", 2, "", 0},
		"the quota is slow":     {unbound(), "", 2, "", 5},
		"the quota is full":     {unbound(), "", 1, "exceeded quota", 1 << 30},
		"it has its node":       {unbound(), "n1", 1, "", 0},
		"the claim was bound":   {bound(), "", 1, "does not run", 0},
		"the claim never comes": {unbound(), "", 1, "claim is not bound", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(test.claim, volume(), daemon(), nodePod(corev1.ConditionTrue), node(corev1.ConditionTrue))
				var made []types.UID
				c.pod = func(p *corev1.Pod) {
					if made = append(made, p.UID); len(made) == 2 {
						runs(p)
					}
				}
				c.full = func() error {
					if len(made) == 0 || test.full == 0 {
						return nil
					}
					test.full--
					return apierrors.NewForbidden(corev1.Resource("pods"), "holder", errors.New("exceeded quota"))
				}
				if test.text == "" || test.full > 0 {
					go bindLater(t.Context(), t, c, test.node)
				}
				_, err := New(c, c, Options{}).Read(t.Context(), request())
				if len(made) != test.pods || (err == nil) != (test.text == "") || err != nil && !strings.Contains(err.Error(), test.text) {
					t.Errorf("%d pods made, %v; want %d, %q", len(made), err, test.pods, test.text)
				}
				if left := c.leftovers(t); len(left) > 0 {
					t.Errorf("left behind: %q", left)
				}
			})
		})
	}
}

// TestWhoMayNotMakePodsIsToldSo at once. A new namespace whose account is about to come is
// waited for.
func TestWhoMayNotMakePodsIsToldSo(t *testing.T) {
	for text, comes := range map[string]bool{
		`User "system:serviceaccount:davit-system:davit-capture" cannot create resource "pods" in API group "" in the namespace "shop"`: false,
		`error looking up service account shop/default: serviceaccount "default" not found`:                                             true,
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(bound(), volume(), daemon(), nodePod(corev1.ConditionTrue), node(corev1.ConditionTrue))
			c.pod = runs
			began := time.Now()
			c.full = func() error {
				if comes && time.Since(began) > time.Second {
					return nil
				}
				return apierrors.NewForbidden(corev1.Resource("pods"), "holder", errors.New(text))
			}
			_, err := New(c, c, Options{}).Read(t.Context(), request())
			if waited := time.Since(began); comes != (err == nil) || err != nil && !strings.Contains(err.Error(), "cannot create") || comes != (waited > time.Second) {
				t.Errorf("after %s: %v", waited, err) // the bubble's clock
			}
		})
	}
}

// bindLater does what the cluster does: the claim gets its volume, and the pod
// perhaps its node before, where it runs a while after.
func bindLater(ctx context.Context, t *testing.T, c *cluster, node string) {
	time.Sleep(time.Second) // the bubble's clock
	var pods corev1.PodList
	if err := c.List(ctx, &pods, client.HasLabels{LabelOwner}); err != nil || len(pods.Items) != 1 {
		t.Errorf("holders: %d, %v", len(pods.Items), err)
		return
	}
	pod, claim := &pods.Items[0], unbound()
	pod.Spec.NodeName = node
	err := errors.Join(c.Update(ctx, pod), c.Get(ctx, client.ObjectKeyFromObject(claim), claim))
	claim.Spec.VolumeName = "pv1"
	err = errors.Join(err, c.Update(ctx, claim))
	claim.Status.Phase = corev1.ClaimBound
	err = errors.Join(err, c.Status().Update(ctx, claim))
	if node != "" {
		time.Sleep(time.Minute) // the bubble's clock
		pod.Status.Phase = corev1.PodRunning
		err = errors.Join(err, c.Status().Update(ctx, pod))
	}
	if err != nil {
		t.Error(err)
	}
}
