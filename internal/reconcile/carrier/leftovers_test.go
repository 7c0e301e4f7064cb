package carrier

import (
	"maps"
	"slices"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	coordination "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/register"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/standby/errand"
)

// What ended runs left at their site goes, in time, and nothing else does.
func TestLeftovers(t *testing.T) {
	at := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: name}
	}
	lease := func(run, holder string) client.Object {
		return &coordination.Lease{ObjectMeta: at("run-" + run), Spec: coordination.LeaseSpec{HolderIdentity: ptr.To(holder)}}
	}
	died := func(run string, ago time.Duration) client.Object { // who held it
		l := lease(run, "somebody").(*coordination.Lease)
		l.Spec.RenewTime = &metav1.MicroTime{Time: time.Now().Add(-ago)}
		return l
	}
	marks := func(name string) client.Object { return &corev1.ConfigMap{ObjectMeta: at(name)} }
	job := func(name, run string) client.Object {
		j := &batchv1.Job{ObjectMeta: at(name)}
		j.Labels, j.Annotations = map[string]string{errand.LabelStep: "x"}, map[string]string{errand.AnnotationRun: run}
		return j
	}
	from := func(vault string, o client.Object) client.Object { // the same run of another vault is another
		labels := map[string]string{shape.LabelVault: vault}
		maps.Copy(labels, o.GetLabels())
		o.SetLabels(labels)
		return o
	}
	all := []client.Object{
		from("main", lease("ours", "")), from("other", lease("theirs", "")), from("main", marks("davit-run-ours")), from("other", marks("davit-run-theirs")),
		from("main", job("command-ours", "ours")), from("other", job("command-theirs", "theirs")),
		lease("over", ""), lease("held", "somebody"), died("died", time.Minute), died("lives", -200*keepMarks), lease("runs", ""), lease("forged", ""), lease("strange", ""),
		&coordination.Lease{ObjectMeta: at("davit-agent")},
		marks("davit-run-over"), marks("davit-run-from-main-over"), marks("davit-run-from-other-over"), marks("davit-run-runs"), marks("davit-notes"),
		job("command", "over"), job("command-runs", "runs"), &batchv1.Job{ObjectMeta: at("nobodys")},
	}
	r := newRig(t, all...)
	reg := register.New(r.project)
	for _, run := range []string{"ours", "theirs", "over", "held", "died", "lives"} {
		s := failover.NewState()
		s.Spec.Run, s.Phase = run, failover.Completed
		if err := reg.End(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if err := reg.Begin(t.Context(), failover.Spec{Run: "runs", Plan: "shop"}); err != nil {
		t.Fatal(err)
	}
	r.plant(t, "ended/forged")

	left := func() (names []string) {
		for _, o := range all {
			if r.c.Client.Get(t.Context(), client.ObjectKeyFromObject(o), o) == nil {
				names = append(names, o.GetName())
			}
		}
		return names
	}
	gone := func(after time.Duration) []string {
		t.Helper()
		before := left()
		r.c.Now = func() time.Time { return time.Now().Add(after) }
		if err := (&adopter{c: r.c, vault: r.vault, project: r.project}).clear(t.Context()); err != nil {
			t.Fatal(err)
		}
		now := left()
		return slices.DeleteFunc(before, func(name string) bool { return slices.Contains(now, name) })
	}
	for _, c := range []struct {
		after time.Duration
		want  []string
	}{
		{keepLeases - time.Hour, nil},
		{keepLeases + time.Hour, []string{"run-ours", "run-over", "run-died"}},
		{keepMarks - time.Hour, nil},
		{keepMarks + time.Hour, []string{"davit-run-ours", "command-ours", "davit-run-over", "davit-run-from-main-over", "command"}},
		{100 * keepMarks, nil},
	} {
		if got := gone(c.after); !slices.Equal(got, c.want) {
			t.Errorf("after %s: %q went, want %q", c.after, got, c.want)
		}
	}
}
