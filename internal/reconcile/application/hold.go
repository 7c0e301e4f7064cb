package application

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/lease"
)

// restEvery is how often an application that comes to rest is looked at.
const restEvery = time.Second

// hold keeps an application at rest while runs hold it, and starts again what it
// stopped when the last has let go. A restore into the application comes first:
// it decides by itself what runs.
func (r *Reconciler) hold(ctx context.Context, s *scope) error {
	st, runs := &s.app.Status, s.app.HeldBy()
	switch {
	case s.app.Annotations[v1alpha1.AnnotationRestoring] != "" || st.Role == v1alpha1.RoleSuperseded:
		s.memory.back = back{}
		return nil
	case len(runs) > 0:
		s.memory.back = back{}
		return r.keepAtRest(ctx, s, runs)
	case st.Rest != nil && st.Rest.Refused == "" && (len(st.Rest.Runs) > 0 || len(st.Rest.Waits) > 0 || len(st.Rest.Unready) > 0 || s.givenBack()):
		return r.letGo(ctx, s)
	}
	st.Rest = nil
	return nil
}

// givenBack says that a run took the application from this site and rolled back:
// what was stopped for it runs again. Who claims the epoch in any other way
// decides by himself what runs.
func (s *scope) givenBack() bool {
	return s.standing.Role == v1alpha1.RoleActive && strings.HasSuffix(s.standing.Current.Claim.Request, lease.GivenBack)
}

// held says whether runs hold the application: nothing is captured on schedule
// then, so that the run's own capture waits for no other.
func (s *scope) held() bool { return s.app.Status.Rest != nil && len(s.app.HeldBy()) > 0 }

// keepAtRest stops the application, as a fence does. That it is held is in the
// status before anything is stopped: whoever comes after a crash knows what to
// start again.
func (r *Reconciler) keepAtRest(ctx context.Context, s *scope, runs []string) error {
	f := fencer{client: r.Client, reader: r.Reader, now: r.Now}
	others, err := r.others(ctx)
	if err != nil {
		return err
	}
	st := &s.app.Status
	if st.Rest == nil || !slices.Equal(st.Rest.Runs, runs) {
		stopped := st.Rest != nil && st.Rest.Refused == "" && len(st.Rest.Runs) > 0
		w, err := f.look(ctx, s.app, others)
		if err != nil {
			return err
		}
		st.Rest = &v1alpha1.RestStatus{Runs: runs, LastRan: lastRan(st.Rest)}
		if orphan := w.orphan(); orphan != "" && !stopped {
			st.Rest.Refused = orphan + " has no controller: it cannot be stopped and started again. Give it one (a Deployment of one replica), or label it davit.dev/exclude=true"
		}
		s.soon(s.now)
		return nil
	}
	if st.Rest.Refused != "" {
		s.fail(v1alpha1.ReasonHeld, errors.New("run "+strings.Join(runs, ", ")+" cannot hold it at rest: "+st.Rest.Refused))
		return nil
	}
	done, err := f.fence(ctx, s.app, others)
	s.rest(done, err)
	for _, what := range done.stopped {
		r.Events.Eventf(s.app, corev1.EventTypeNormal, v1alpha1.ReasonHeld, "stopped %s for run %s", what, strings.Join(runs, ", "))
	}
	if err != nil {
		return fmt.Errorf("hold at rest: %w", err)
	}
	s.fail(v1alpha1.ReasonHeld, fmt.Errorf("run %s holds it at rest; it runs again when the run lets go", strings.Join(runs, ", ")))
	return nil
}

// rest notes how far the application has come to rest.
func (s *scope) rest(done fenced, err error) {
	st := &s.app.Status
	rest := &v1alpha1.RestStatus{Runs: s.app.HeldBy(), Epoch: st.Epoch, LastRan: lastRan(st.Rest)}
	rest.Running = done.running
	s.ran(rest, done)
	for _, what := range done.spared {
		rest.Running = append(rest.Running, what+", and is spared for it")
	}
	if err != nil {
		rest.Running = append(rest.Running, cut(err.Error()))
	}
	rest.Stopped, rest.Running = len(rest.Running) == 0, some(rest.Running)
	st.Rest = rest
	if !rest.Stopped && len(rest.Runs) > 0 { // a run waits for it
		s.soon(s.now.Add(restEvery))
	}
}

func lastRan(rest *v1alpha1.RestStatus) *v1alpha1.LastRanStatus {
	if rest == nil {
		return nil
	}
	return rest.LastRan
}

// ran notes what was found that runs, or ran since the look before: whoever moves the application asks
// whether that was after its last write was captured. A CronJob writes nothing by itself; what it makes does.
func (s *scope) ran(rest *v1alpha1.RestStatus, done fenced) {
	what := slices.DeleteFunc(slices.Clone(done.running), func(one string) bool { return strings.HasPrefix(one, "CronJob ") })
	var ended *metav1.Time
	if rest.LastRan != nil {
		ended = rest.LastRan.Ended
	}
	if p := done.ended; p != nil && (ended == nil || p.CreationTimestamp.After(ended.Time)) {
		ended = p.CreationTimestamp.DeepCopy()
		what = append(what, "Pod "+p.Namespace+"/"+p.Name+" (it has ended)")
	}
	if len(what) > 0 && len(rest.Runs) > 0 {
		rest.LastRan = &v1alpha1.LastRanStatus{At: metav1.NewMicroTime(s.now), What: some(what), Ended: ended}
	}
}

// soon asks for another look at a time, if none comes earlier.
func (s *scope) soon(at time.Time) {
	if s.again == nil || at.Before(*s.again) {
		s.again = &at
	}
}

// released is what was given back, and how it stands.
type released struct {
	started []string
	// late are not ready yet, and asBefore not either, as before they were stopped.
	late, asBefore []string
}

// release gives everything of the application that carries a fence's marks
// what it had before, and names what of it is not ready. What somebody started meanwhile
// keeps what they gave it.
func (f fencer) release(ctx context.Context, app *v1alpha1.Application, others []v1alpha1.Application) (found released, err error) {
	w, err := f.look(ctx, app, others)
	if err != nil {
		return found, err
	}
	var errs []error
	for i := range w.kinds {
		k := &w.kinds[i]
		for _, o := range k.objects {
			old := o.DeepCopyObject().(client.Object) //nolint:forcetypeassert // a copy of the same
			if !w.stops(k, o) {
				continue
			}
			name := k.nameOf(o)
			known := wasUnready(app.Status.Rest, name)
			started, told := resume(o), known && unmark(o)
			if started || told {
				if err := f.client.Patch(ctx, o, client.MergeFrom(old)); client.IgnoreNotFound(err) != nil {
					errs = append(errs, fmt.Errorf("start %s: %w", name, err))
					continue
				}
			}
			if started {
				found.started = append(found.started, name)
			}
			switch why := late(k, o); {
			case why == "" || !k.runs(o):
			case old.GetAnnotations()[v1alpha1.AnnotationUnready] != "", known:
				found.asBefore = append(found.asBefore, name+": "+why)
			default:
				found.late = append(found.late, name+": "+why)
			}
		}
	}
	return found, errors.Join(errs...)
}

// isHalted tells whether an object carries what halt notes.
func isHalted(o client.Object) bool {
	marks := o.GetAnnotations()
	_, scaled := marks[v1alpha1.AnnotationReplicas]
	_, suspended := marks[v1alpha1.AnnotationSuspended]
	_, displaced := marks[v1alpha1.AnnotationNodeSelector]
	return scaled || suspended || displaced
}

// resume undoes halt in memory, and tells whether there was anything to undo.
func resume(o client.Object) bool {
	if !isHalted(o) {
		return false
	}
	marks := o.GetAnnotations()
	switch w := o.(type) {
	case *appsv1.Deployment:
		scaleBack(w, &w.Spec.Replicas)
	case *appsv1.StatefulSet:
		scaleBack(w, &w.Spec.Replicas)
		if was := marks[v1alpha1.AnnotationClaims]; was != "" && w.Spec.PersistentVolumeClaimRetentionPolicy != nil {
			w.Spec.PersistentVolumeClaimRetentionPolicy.WhenScaled = appsv1.PersistentVolumeClaimRetentionPolicyType(was)
		}
	case *appsv1.ReplicaSet:
		scaleBack(w, &w.Spec.Replicas)
	case *corev1.ReplicationController:
		scaleBack(w, &w.Spec.Replicas)
	case *appsv1.DaemonSet:
		replace(w)
	case *batchv1.CronJob:
		w.Spec.Suspend = ptr.To(false)
	case *batchv1.Job:
		w.Spec.Suspend = ptr.To(false)
	}
	for _, mark := range []string{v1alpha1.AnnotationReplicas, v1alpha1.AnnotationSuspended, v1alpha1.AnnotationNodeSelector, v1alpha1.AnnotationClaims} {
		delete(marks, mark)
	}
	o.SetAnnotations(marks)
	return true
}

// unmark drops in memory that a workload was not ready before, and tells whether that was there. It is
// done once the status has it: whoever comes after a crash in between would wait for it.
func unmark(o client.Object) bool {
	marks := o.GetAnnotations()
	_, marked := marks[v1alpha1.AnnotationUnready]
	delete(marks, v1alpha1.AnnotationUnready)
	o.SetAnnotations(marks)
	return marked
}

func scaleBack(o client.Object, replicas **int32) {
	was, err := strconv.ParseInt(o.GetAnnotations()[v1alpha1.AnnotationReplicas], 10, 32)
	if err == nil && ptr.Deref(*replicas, 1) == 0 {
		*replicas = ptr.To(int32(was))
	}
}

// replace undoes displace.
func replace(d *appsv1.DaemonSet) {
	var was map[string]string
	spec := &d.Spec.Template.Spec
	if err := json.Unmarshal([]byte(d.Annotations[v1alpha1.AnnotationNodeSelector]), &was); err == nil && spec.NodeSelector[v1alpha1.LabelNowhere] != "" {
		spec.NodeSelector = was
	}
}

// running are the pods of the application that exist and have not ended.
func (w *world) running() []string {
	var all []string
	for _, p := range w.pods {
		if w.mine(p) {
			all = append(all, "Pod "+p.Namespace+"/"+p.Name)
		}
	}
	return all
}

// ended is the application's newest pod that has run to its end; nil without one. It is so as well
// while it is a rival's, too: else a rival that is moved with it would leave one behind that looks new.
func (w *world) ended() (newest *corev1.Pod) {
	for _, p := range w.pods {
		if over(p) && w.covers(p) && (newest == nil || newest.CreationTimestamp.Before(&p.CreationTimestamp)) {
			newest = p
		}
	}
	return newest
}

func over(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// covers tells whether a pod is the application's.
func (w *world) covers(p *corev1.Pod) bool {
	return p.Annotations[corev1.MirrorPodAnnotationKey] == "" && w.cover.Has("", "Pod", p.Namespace, p.Name)
}

// mine tells whether a pod is the application's, not spared, and not over.
func (w *world) mine(p *corev1.Pod) bool {
	if over(p) || !w.covers(p) {
		return false
	}
	before := len(w.spared)
	spared := w.spare("pods", "", "Pod", p)
	w.spared = w.spared[:before] // said already
	return !spared
}

// orphan names a pod of the application that no controller would make again.
func (w *world) orphan() string {
	for _, p := range w.pods {
		if onItsOwn(p) && w.mine(p) && metav1.GetControllerOf(p) == nil {
			return "Pod " + p.Namespace + "/" + p.Name
		}
	}
	return ""
}
