package mover

import (
	"slices"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/point"
)

// TestNamesOfHoldersDoNotMeet: they are of 128 bits, so that nobody finds two claims of one
// name, and fit a pod's name.
func TestNamesOfHoldersDoNotMeet(t *testing.T) {
	req := request()
	name := req.holderName()
	if len(name) != len(holderPrefix)+32 || len(validation.IsDNS1123Label(name)) > 0 {
		t.Errorf("%s", name)
	}
	for _, other := range []Request{{Owner: req.Owner, Namespace: req.Namespace, Claim: req.Claim + "x"}, {Owner: req.Owner + "\x00" + req.Namespace, Claim: req.Claim}} {
		if other.holderName() == name {
			t.Errorf("%+v has the same name", other)
		}
	}
}

// TestAWriteTakesOverWhatAnEarlierVersionBegan: a restore goes on under the same owner after an
// upgrade, and what was begun under its shorter names must not write beside it. Somebody
// else's pod of such a name is left alone, and so is all of another claim.
func TestAWriteTakesOverWhatAnEarlierVersionBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		former := func(claim string, labels map[string]string) (*v1alpha1.VolumeTask, *corev1.Pod) {
			task := &v1alpha1.VolumeTask{ObjectMeta: metav1.ObjectMeta{
				Namespace: v1alpha1.SystemNamespace, Name: "volume-" + digest("point-1", string(v1alpha1.VolumeWrite), "shop/shop/"+claim, "shop", claim), Labels: labels,
			}}
			task.Status.Phase = v1alpha1.TaskRunning
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: holderPrefix + digest("point-1", "shop", claim), Labels: labels}}
			return task, pod
		}
		task, pod := former("data", request().labels())
		other, _ := former("other", request().labels())
		c := newCluster(bound(), volume(), daemon(), nodePod(corev1.ConditionTrue), task, pod, other)
		began := false
		c.task = func(o *v1alpha1.VolumeTask) {
			left := c.leftovers(t)
			began = true
			if slices.Contains(left, "task "+task.Name) || slices.Contains(left, "pod shop/"+pod.Name) {
				t.Errorf("it writes beside %q", left)
			}
			succeeds(o)
		}
		if _, err := New(c, c, Options{}).Write(t.Context(), request(), point.Snapshot{ID: "s9", Repository: "west"}); err != nil || !began {
			t.Fatal(began, err)
		}
		if left := c.leftovers(t); !slices.Equal(left, []string{"task " + other.Name}) {
			t.Errorf("left: %q", left)
		}
		_, foreign := former("data", map[string]string{LabelOwner: "somebody"})
		c = newCluster(bound(), volume(), daemon(), nodePod(corev1.ConditionTrue), foreign)
		if _, err := New(c, c, Options{}).Write(t.Context(), request(), point.Snapshot{ID: "s9", Repository: "west"}); err != nil {
			t.Fatal(err)
		}
		if left := c.leftovers(t); !slices.Equal(left, []string{"pod shop/" + foreign.Name}) {
			t.Errorf("left: %q", left)
		}
	})
}
