// Package machines carries out infrastructure steps that ask a management cluster of
// Cluster API: objects are applied, machines added, and conditions waited for. It is an
// actuator; the management cluster is its port.
//
// What an object had before the run scaled it is written on the object itself, in one
// patch with the change, so that whoever takes the run over can take it back.
package machines

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/restore/shape"
)

const (
	// annotationScaled is what an object had before a run scaled it.
	annotationScaled = "davit.dev/scaled"
	// annotationMade names the run that made an object.
	annotationMade = "davit.dev/made-by-run"
	// look is how often conditions are looked at.
	look = time.Second
)

// Cluster is a management cluster. Errors are those of the API server, or of a mapping
// where it serves no such kind.
type Cluster interface {
	// Get reads an object; resource is RESOURCE.GROUP.
	Get(ctx context.Context, resource, namespace, name string) (*unstructured.Unstructured, error)
	// Patch is a JSON merge patch; try changes nothing, and says what would come of it.
	Patch(ctx context.Context, resource, namespace, name string, patch []byte, try bool) (*unstructured.Unstructured, error)
	// Live reads the object that a document is about.
	Live(ctx context.Context, document *unstructured.Unstructured) (*unstructured.Unstructured, error)
	// Apply is a forced server-side apply; try as with Patch.
	Apply(ctx context.Context, document *unstructured.Unstructured, try bool) (*unstructured.Unstructured, error)
	// Delete removes the object with the UID that it was read with.
	Delete(ctx context.Context, live *unstructured.Unstructured) error
}

// Actuator asks management clusters.
type Actuator struct {
	// Open opens the one of a Secret, or the site's own where the name is empty.
	Open func(ctx context.Context, secret string) (Cluster, error)
}

var _ execute.Actuator = Actuator{}

// Do implements execute.Actuator. A drill asks what would come of it and changes
// nothing.
func (a Actuator) Do(ctx context.Context, o execute.Order) execute.Answer {
	c, err := a.Open(ctx, o.Step.ClusterAPI.Kubeconfig)
	if err != nil {
		return failed(err, "open the management cluster")
	}
	s := step{Cluster: c, ClusterAPI: o.Step.ClusterAPI, run: o.Run}
	drill := o.Sandbox != "" || o.Verb == plan.Drill
	switch {
	case drill && o.Action == failover.Act:
		return s.rehearse(ctx)
	case drill && o.Action == failover.Undo:
		return execute.Done("")
	case drill:
		return execute.NotDone("")
	case o.Action == failover.Undo:
		return s.undo(ctx)
	case o.Action == failover.Look:
		return s.look(ctx)
	}
	return s.act(ctx, o)
}

// step is one at its management cluster.
type step struct {
	Cluster
	*plan.ClusterAPI
	run string
}

// scaled is what the run keeps of an object that it scales.
type scaled struct {
	Run string `json:"run"`
	Was int64  `json:"was"`
	Set int64  `json:"set"`
}

func scaledBy(live *unstructured.Unstructured) scaled {
	var s scaled
	_ = json.Unmarshal([]byte(live.GetAnnotations()[annotationScaled]), &s) // what nobody can read is nobody's
	return s
}

// act does all of it, and waits.
func (s step) act(ctx context.Context, o execute.Order) execute.Answer {
	var notes []string
	for _, raw := range s.ClusterAPI.Apply {
		note, err := s.apply(ctx, raw, false)
		if err != nil {
			return failed(err, note)
		}
		notes = append(notes, note)
	}
	for _, m := range s.Scale {
		note, err := s.scale(ctx, m, false)
		if err != nil {
			return failed(err, note)
		}
		notes = append(notes, note)
	}
	why := "nothing was heard of it"
	for {
		late, err := s.late(ctx)
		switch {
		case errors.Is(err, errFought):
			return execute.Refuse("%v", err)
		case err == nil && late == "":
			answer := execute.Done("%s", strings.Join(notes, ", "))
			answer.Guard = execute.Unfenced
			return answer
		case err != nil && lasting(err):
			return failed(err, "wait for it")
		case err == nil:
			why = late
		case ctx.Err() == nil: // else it is our own haste, and hides what was seen before
			why = err.Error()
		}
		select {
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return execute.Unknown("%s", why)
			}
			return execute.Refuse("%s (waited %s): see it with kubectl describe at the management cluster, then retry the step, which goes on from there, or skip it", why, o.Step.Timeout)
		case <-time.After(look):
		}
	}
}

// look says whether all is as the step wants it.
func (s step) look(ctx context.Context) execute.Answer {
	for _, raw := range s.ClusterAPI.Apply {
		want, err := document(raw)
		if err != nil {
			return execute.Refuse("%v", err)
		}
		live, err := s.Live(ctx, want)
		switch {
		case apierrors.IsNotFound(err), meta.IsNoMatchError(err):
			return execute.NotDone("")
		case err != nil:
			return execute.Unknown("%v", err)
		case !within(want.Object, live.Object):
			return execute.NotDone("")
		}
	}
	for _, m := range s.Scale {
		_, live, err := s.machines(ctx, m.Object)
		switch {
		case apierrors.IsNotFound(err), meta.IsNoMatchError(err):
			return execute.NotDone("")
		case err != nil:
			return execute.Unknown("%v", err)
		}
		if n, _ := shape.Number(live.Object, "spec", "replicas"); n < m.Replicas {
			return execute.NotDone("")
		}
	}
	late, err := s.late(ctx)
	switch {
	case err != nil && lasting(err), errors.Is(err, errFought), late != "":
		return execute.NotDone("")
	case err != nil:
		return execute.Unknown("%v", err)
	}
	return execute.Done("")
}

// undo gives machines their former number, and destroys what the run made where the
// step says so, last first.
func (s step) undo(ctx context.Context) execute.Answer {
	var notes []string
	for _, m := range slices.Backward(s.Scale) {
		note, err := s.unscale(ctx, m)
		if err != nil {
			return failed(err, note)
		}
		notes = append(notes, note)
	}
	for _, raw := range slices.Backward(s.ClusterAPI.Apply) {
		want, err := document(raw)
		if err != nil {
			return execute.Refuse("%v", err)
		}
		name := headOf(want)
		live, err := s.Live(ctx, want)
		switch {
		case apierrors.IsNotFound(err), meta.IsNoMatchError(err):
			continue
		case err != nil:
			return failed(err, "read "+name)
		case live.GetAnnotations()[annotationMade] != s.run || !s.Destroy:
			notes = append(notes, name+" is kept")
			continue
		}
		if err := s.Delete(ctx, live); err != nil && !apierrors.IsNotFound(err) {
			return failed(err, "delete "+name)
		}
		notes = append(notes, name+" is being deleted")
	}
	return execute.Done("%s", strings.Join(notes, ", "))
}

// rehearse asks the API server what it would say.
func (s step) rehearse(ctx context.Context) execute.Answer {
	made := map[string]bool{}
	for _, raw := range s.ClusterAPI.Apply {
		if note, err := s.apply(ctx, raw, true); err != nil {
			return failed(err, note)
		}
		want, _ := document(raw) // it was applied just now
		made[want.GetKind()+"/"+want.GetNamespace()+"/"+want.GetName()] = true
	}
	for _, m := range s.Scale {
		note, err := s.scale(ctx, m, true)
		if err == nil || apierrors.IsNotFound(err) && makes(made, m.Object) {
			continue
		}
		return failed(err, note)
	}
	for _, w := range s.Wait {
		resource, namespace, name, err := plan.Machinery(w.Object)
		if err == nil {
			_, err = s.Get(ctx, resource, namespace, name)
		}
		if err == nil || apierrors.IsNotFound(err) && len(s.ClusterAPI.Apply) > 0 { // as in a run, see late
			continue
		}
		return failed(err, "read "+w.Object)
	}
	return execute.Done("only rehearsed: the management cluster would take %d objects, and scale %d", len(s.ClusterAPI.Apply), len(s.Scale))
}

// makes tells whether the step itself makes an object that is not there yet.
func makes(made map[string]bool, object string) bool {
	resource, namespace, name, err := plan.Machinery(object)
	if err != nil {
		return false
	}
	plural, _, _ := strings.Cut(resource, ".")
	for key := range made {
		kind, rest, _ := strings.Cut(key, "/")
		if strings.EqualFold(kind+"s", plural) && rest == namespace+"/"+name {
			return true
		}
	}
	return false
}

// apply makes an object, or makes it as the plan says. What a run made it marks.
func (s step) apply(ctx context.Context, raw json.RawMessage, try bool) (string, error) {
	want, err := document(raw)
	if err != nil {
		return "read what to apply", err
	}
	name := headOf(want)
	live, err := s.Live(ctx, want)
	switch {
	case err != nil && !apierrors.IsNotFound(err):
		return "read " + name, err
	case err == nil && live.GetAnnotations()[annotationMade] == "":
	default:
		mark := s.run
		if err == nil {
			mark = live.GetAnnotations()[annotationMade]
		}
		annotations := want.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[annotationMade] = mark
		want.SetAnnotations(annotations)
	}
	_, err = s.Cluster.Apply(ctx, want, try)
	return "apply " + name, err
}

func (s step) machines(ctx context.Context, object string) (func([]byte, bool) error, *unstructured.Unstructured, error) {
	resource, namespace, name, err := plan.Machinery(object)
	if err != nil {
		return nil, nil, err
	}
	live, err := s.Get(ctx, resource, namespace, name)
	return func(patch []byte, try bool) error {
		_, err := s.Patch(ctx, resource, namespace, name, patch, try)
		return err
	}, live, err
}

// scale sees to it that there are at least so many. What was there before is kept
// with the change: an earlier run's note is what a person made of it since.
func (s step) scale(ctx context.Context, m plan.Machines, try bool) (string, error) {
	patch, live, err := s.machines(ctx, m.Object)
	if err != nil {
		return "read " + m.Object, err
	}
	was, _ := shape.Number(live.Object, "spec", "replicas")
	if was >= m.Replicas && !try {
		return fmt.Sprintf("%s has %d", m.Object, was), nil
	}
	note := scaled{Run: s.run, Was: was, Set: max(was, m.Replicas)}
	if old := scaledBy(live); old.Run == s.run {
		note.Was = old.Was // somebody scaled it down since: it goes back to what the run found
	}
	return fmt.Sprintf("%s from %d to %d", m.Object, was, note.Set), patch(change(live, note.Set, &note), try)
}

// unscale gives an object its former number, if the run changed it and nobody did
// since.
func (s step) unscale(ctx context.Context, m plan.Machines) (string, error) {
	patch, live, err := s.machines(ctx, m.Object)
	switch {
	case apierrors.IsNotFound(err), meta.IsNoMatchError(err):
		return m.Object + " is gone", nil
	case err != nil:
		return "read " + m.Object, err
	}
	old := scaledBy(live)
	if old.Run != s.run {
		return m.Object + " was not scaled by the run", nil
	}
	to := old.Was
	note := fmt.Sprintf("%s back to %d", m.Object, to)
	if now, _ := shape.Number(live.Object, "spec", "replicas"); now != old.Set {
		to, note = now, fmt.Sprintf("%s keeps %d: somebody scaled it since", m.Object, now)
	}
	return note, patch(change(live, to, nil), false)
}

// change is a patch that holds only for the object as it was read.
func change(live *unstructured.Unstructured, replicas int64, note *scaled) []byte {
	var kept any
	if note != nil {
		text, _ := json.Marshal(note) // two numbers and a name
		kept = string(text)
	}
	patch, _ := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": live.GetResourceVersion(), "annotations": map[string]any{annotationScaled: kept}},
		"spec":     map[string]any{"replicas": replicas},
	})
	return patch
}

// errFought says that something else sets the number of machines.
var errFought = errors.New("something else sets how many machines there are")

// late is what is not as it should be; empty: all is.
func (s step) late(ctx context.Context) (string, error) {
	for _, m := range s.Scale {
		_, live, err := s.machines(ctx, m.Object)
		if err != nil {
			return "", err
		}
		wanted, _ := shape.Number(live.Object, "spec", "replicas")
		if wanted < m.Replicas {
			return "", fmt.Errorf("%w: %s is back at %d of %d. Its Cluster's topology, an autoscaler, or git does: say it there, or apply that object instead", errFought, m.Object, wanted, m.Replicas)
		}
		if ready, _ := shape.Number(live.Object, "status", "readyReplicas"); ready < m.Replicas || behind(live) {
			return fmt.Sprintf("%s has %d of %d machines ready", m.Object, ready, m.Replicas), nil
		}
	}
	for _, w := range s.Wait {
		_, live, err := s.machines(ctx, w.Object)
		if apierrors.IsNotFound(err) && len(s.ClusterAPI.Apply) > 0 { // a controller makes it of what was applied
			return w.Object + " is not there yet", nil
		}
		if err != nil {
			return "", err
		}
		if why := unmet(live, w); why != "" {
			return why, nil
		}
	}
	return "", nil
}

// behind tells whether the controller has not seen the newest spec.
func behind(live *unstructured.Unstructured) bool {
	seen, says := shape.Number(live.Object, "status", "observedGeneration")
	return says && seen < live.GetGeneration()
}

// unmet says which condition is not true.
func unmet(live *unstructured.Unstructured, w plan.Conditions) string {
	if behind(live) {
		return w.Object + ": its controller has not seen its newest spec"
	}
	states, reasons := map[string]string{}, map[string]string{}
	for _, c := range shape.Items(live.Object, "status", "conditions") {
		kind := shape.Text(c, "type")
		states[kind], reasons[kind] = shape.Text(c, "status"), strings.TrimSpace(shape.Text(c, "reason")+" "+shape.Text(c, "message"))
	}
	wanted := w.Conditions
	if len(wanted) == 0 {
		wanted = []string{"Ready"}
		if _, old := states["Ready"]; !old && states["Available"] != "" {
			wanted = []string{"Available"}
		}
	}
	for _, kind := range wanted {
		switch states[kind] {
		case "True":
		case "":
			return fmt.Sprintf("%s has no condition %s", w.Object, kind)
		default:
			return strings.TrimSpace(fmt.Sprintf("%s: %s is %s: %s", w.Object, kind, states[kind], reasons[kind]))
		}
	}
	return ""
}

// document reads an object to apply.
func document(raw json.RawMessage) (*unstructured.Unstructured, error) {
	if _, err := plan.ReadMachinery(raw); err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(raw); err != nil {
		return nil, fmt.Errorf("read it: %w", err)
	}
	return u, nil
}

func headOf(u *unstructured.Unstructured) string {
	return u.GetKind() + " " + u.GetNamespace() + "/" + u.GetName()
}

// within tells whether all that is wanted is there. Lists have to be the same length:
// what a controller adds to one is applied again, which changes nothing.
func within(want, have any) bool {
	switch w := want.(type) {
	case map[string]any:
		h, ok := have.(map[string]any)
		if !ok {
			return false
		}
		for k, v := range w {
			if !within(v, h[k]) {
				return false
			}
		}
		return true
	case []any:
		h, ok := have.([]any)
		if !ok || len(h) != len(w) {
			return false
		}
		for i := range w {
			if !within(w[i], h[i]) {
				return false
			}
		}
		return true
	}
	return fmt.Sprint(want) == fmt.Sprint(have)
}

// lasting tells whether an error stays what it is.
func lasting(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) || apierrors.IsNotFound(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || meta.IsNoMatchError(err)
}

// failed says what an error means for the order.
func failed(err error, doing string) execute.Answer {
	switch {
	case meta.IsNoMatchError(err):
		return execute.Refuse("%s: %v: is this the management cluster? Say its kubeconfig in the step", doing, err)
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return execute.Refuse("%s: %v: grant it at the management cluster (docs/plans.md, Infrastructure)", doing, err)
	case lasting(err):
		return execute.Refuse("%s: %v", doing, err)
	}
	return execute.Unknown("%s: %v", doing, err)
}
