package gitops

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/answer"
	"davit.dev/davit/internal/restore/hold"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/shape"
)

// Annotation of a reconciler that a restore or a run suspended holds, as JSON, what it
// was before, and who relies on its rest, restores by application:
// {"by":"<restore>","automated":{…},"for":{"<application>":"<restore>"},"run":"<run>"}.
const Annotation = "davit.dev/gitops-before-restore"

const (
	look     = 500 * time.Millisecond
	patience = 30 * time.Second
)

// before is what a reconciler was.
type before struct {
	By        string         `json:"by"`
	Automated map[string]any `json:"automated,omitempty"` // of an Application's syncPolicy
	// For are the restores that rely on its rest, by application: of one, only one runs at
	// a time. Whatever ends last has it go on.
	For map[string]string `json:"for,omitempty"`
	// Run is the run whose step suspended it, or found it suspended by a restore: no restore has it go
	// on, but a run or a person.
	Run string `json:"run,omitempty"`
}

// noted is what the annotation says, nothing where there is none that can be read.
func noted(d shape.Document) (was before) {
	if json.Unmarshal([]byte(shape.Text(d, "metadata", "annotations", Annotation)), &was) != nil {
		return before{}
	}
	return was
}

// note is the merge patch that has the annotation say so.
func (b before) note() (shape.Document, error) {
	text, err := json.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("encode what it was: %w", err)
	}
	return shape.Document{"metadata": shape.Document{"annotations": shape.Document{Annotation: string(text)}}}, nil
}

// relies adds the stage's restore, or run, to those that rely on a reconciler's rest, and tells
// whether it was not among them. Where a run suspended it, another notes nothing: it would take back
// what is not its own.
func (s Stage) relies(b *before) bool {
	if s.Application == "" {
		joins := b.Run == "" && len(b.For) > 0
		if joins {
			b.Run = s.ID
		}
		return joins
	}
	if b.For[s.Application] == s.ID {
		return false
	}
	b.For = maps.Clone(b.For)
	if b.For == nil {
		b.For = map[string]string{}
	}
	b.For[s.Application] = s.ID
	return true
}

// Suspended tells whether a reconciler does nothing now, whoever saw to it.
func Suspended(kind schema.GroupKind, d shape.Document) bool {
	if kind == KindApplication {
		annotations := shape.Child(d, "metadata", "annotations")
		return annotations[skipReconcile] == "true" && shape.Child(d, "spec", "syncPolicy")["automated"] == nil
	}
	suspended, _ := shape.Child(d, "spec")["suspend"].(bool)
	return suspended
}

// change is the merge patch that suspends a reconciler, with what it was.
func (s Stage) change(kind schema.GroupKind, d shape.Document) (shape.Document, error) {
	was := before{By: s.ID, Run: s.ID}
	if s.Application != "" { // after a run it goes on, as it did before: somebody had undone what others relied on
		was.For, was.Run = noted(d).For, ""
	}
	s.relies(&was)
	return was.rest(kind, d)
}

// rest is the merge patch that suspends a reconciler for those that the note names.
func (b before) rest(kind schema.GroupKind, d shape.Document) (shape.Document, error) {
	patch := shape.Document{}
	if kind == KindApplication {
		patch["metadata"] = shape.Document{"annotations": shape.Document{skipReconcile: "true"}}
		if b.Automated = shape.Child(d, "spec", "syncPolicy", "automated"); b.Automated != nil || shape.Child(d, "spec", "syncPolicy")["automated"] != nil {
			patch["spec"] = shape.Document{"syncPolicy": shape.Document{"automated": nil}}
		}
	} else {
		patch["spec"] = shape.Document{"suspend": true}
	}
	if b.Automated == nil {
		b.Automated = noted(d).Automated // somebody undid half of it
	}
	note, err := b.note()
	if err == nil {
		shape.Merge(patch, note)
	}
	return patch, err
}

// undo is the merge patch that resumes a reconciler, or nil when no restore
// suspended it.
func undo(kind schema.GroupKind, d shape.Document) (shape.Document, error) {
	note := shape.Text(d, "metadata", "annotations", Annotation)
	if note == "" {
		return nil, nil
	}
	var was before
	if err := json.Unmarshal([]byte(note), &was); err != nil {
		return nil, fmt.Errorf("read annotation %s: %w", Annotation, err)
	}
	annotations := shape.Document{Annotation: nil}
	patch := shape.Document{"metadata": shape.Document{"annotations": annotations}}
	if kind != KindApplication {
		patch["spec"] = shape.Document{"suspend": nil}
		return patch, nil
	}
	annotations[skipReconcile] = nil
	if was.Automated != nil {
		patch["spec"] = shape.Document{"syncPolicy": shape.Document{"automated": was.Automated}}
	}
	return patch, nil
}

// Rest makes a reconciler that a restore is about to write one that is
// suspended. Done again, or to one that people suspended, it changes nothing.
func (s Stage) Rest(kind schema.GroupKind, d shape.Document) error {
	if !slices.Contains(Kinds, kind) || Suspended(kind, d) {
		return nil
	}
	patch, err := s.change(kind, d)
	if err != nil {
		return err
	}
	shape.Merge(d, patch)
	return nil
}

// KeepOthers notes on a reconciler that is to be written who else relies on its rest, as it is at
// the target now. One that was not to rest does so for them: who leaves reconcilers alone has none go on.
func KeepOthers(kind schema.GroupKind, d, live shape.Document) {
	was, is := noted(d), noted(live)
	if is.By == "" {
		return
	}
	if was.By == "" {
		if slices.Contains(Kinds, kind) && Suspended(kind, live) && !Suspended(kind, d) {
			if patch, err := is.rest(kind, d); err == nil {
				shape.Merge(d, patch)
			}
		}
		return
	}
	all := maps.Clone(is.For)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, was.For)
	was.For = all
	if Suspended(kind, live) { // or somebody took that back
		was.Run = is.Run
	}
	if note, err := was.note(); err == nil {
		shape.Merge(d, note)
	}
}

// Apply applies an object of a point. Of a reconciler it notes who else relies on its rest, whoever came to do so since
// it was read as live: their note would be lost otherwise, and git go on under them.
func (s Stage) Apply(ctx context.Context, at port.Served, obj, live *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	if noted(obj.Object).By == "" && noted(live.Object).By == "" {
		return s.Cluster.Apply(ctx, at, obj)
	}
	for n := 1; ; n++ {
		held := obj.DeepCopy()
		KeepOthers(held.GroupVersionKind().GroupKind(), held.Object, live.Object)
		if n < answer.Attempts { // a rehearsal reads its own, and would never see what others change
			held.SetResourceVersion(live.GetResourceVersion())
		}
		got, err := s.Cluster.Apply(ctx, at, held)
		if !apierrors.IsConflict(err) || n == answer.Attempts {
			return got, err
		}
		if live, err = s.Cluster.Get(ctx, at, obj.GetNamespace(), obj.GetName()); err == nil {
			err = hold.Still(ctx) // who changed it may be who restores by now
		}
		if err != nil {
			return nil, err
		}
	}
}

// Undone makes of a reconciler that a restore suspended what it was.
func Undone(kind schema.GroupKind, d shape.Document) {
	patch, err := undo(kind, d)
	if patch == nil || err != nil {
		return
	}
	shape.Merge(d, patch)
	shape.DropEmpty(shape.Child(d, "metadata"), "annotations")
}

// Stage suspends and resumes reconcilers of one cluster.
type Stage struct {
	Cluster port.Cluster
	Clock   port.Clock
	ID      string // of the restore
	// Application is whose restore it is; empty: it is none, but a run.
	Application string
	// Run are the applications that a run's step is about: a restore of one that died before
	// the run brought the application here keeps nothing at rest.
	Run map[string]int64
	// Leases holds the leases of restores, in namespace Home: see over. Nil: no restore is taken for over.
	Leases port.Cluster
	Home   string
	// Current, unless nil, says why a reconciler may be changed no more. It is asked after the reconciler
	// was read, which nobody may have changed since then.
	Current func(context.Context) error
}

func (s Stage) current(ctx context.Context) error {
	if s.Current == nil {
		return nil
	}
	return s.Current(ctx)
}

// Find returns a reconciler as it is at the target; ErrAbsent when it is not
// there, or when there are several of an Application's name.
func (s Stage) Find(ctx context.Context, r Reconciler) (port.Served, *unstructured.Unstructured, error) {
	served, err := s.Cluster.Serves(ctx, r.Kind)
	if errors.Is(err, port.ErrNotServed) {
		return port.Served{}, nil, ErrAbsent
	}
	if err != nil {
		return port.Served{}, nil, err
	}
	if r.Namespace != "" {
		live, err := s.Cluster.Get(ctx, served[0], r.Namespace, r.Name)
		if apierrors.IsNotFound(err) {
			err = ErrAbsent
		}
		return served[0], live, err
	}
	var all []*unstructured.Unstructured
	err = s.Cluster.List(ctx, served[0], "", "", func(u *unstructured.Unstructured) error {
		if u.GetName() == r.Name {
			all = append(all, u)
		}
		return nil
	})
	switch {
	case err != nil:
		return served[0], nil, err
	case len(all) == 0:
		return served[0], nil, ErrAbsent
	case len(all) > 1:
		return served[0], nil, fmt.Errorf("%d are called so: suspend the right one yourself", len(all))
	}
	return served[0], all[0], nil
}

// ErrAbsent says that a reconciler is not at the target.
var ErrAbsent = errors.New("it is not there")

// Suspend suspends one reconciler and waits until what it was doing is over.
// why says why there is nothing to do.
func (s Stage) Suspend(ctx context.Context, r Reconciler) (why string, err error) {
	for range answer.Attempts {
		at, live, err := s.Find(ctx, r)
		switch {
		case errors.Is(err, ErrAbsent):
			return "is not here", nil
		case err != nil:
			return "", err
		case live.GetAnnotations()[Annotation] != "" && Suspended(r.Kind, live.Object):
			if live, err = s.join(ctx, at, live); apierrors.IsConflict(err) {
				continue
			}
			if err != nil {
				return "", err
			}
			return "", s.quiet(ctx, r, at, live) // by this restore before it was interrupted, or by another's
		case Suspended(r.Kind, live.Object):
			return "is suspended already, and stays so", nil
		}
		patch, err := s.change(r.Kind, live.Object)
		if err == nil {
			err = s.current(ctx)
		}
		if err != nil {
			return "", err
		}
		shape.Child(patch, "metadata")["resourceVersion"] = live.GetResourceVersion()
		if live, err = s.patch(ctx, at, live, patch); !apierrors.IsConflict(err) {
			if err != nil {
				return "", err
			}
			return "", s.quiet(ctx, r, at, live)
		}
	}
	return "", errors.New("it changes faster than it can be suspended")
}

// join notes on a reconciler that is suspended that this restore relies on it as well.
func (s Stage) join(ctx context.Context, at port.Served, live *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	was := noted(live.Object)
	if !s.relies(&was) {
		return live, nil
	}
	return s.write(ctx, at, live, was)
}

// write has the annotation of a reconciler say so, if nobody changed that since.
func (s Stage) write(ctx context.Context, at port.Served, live *unstructured.Unstructured, was before) (*unstructured.Unstructured, error) {
	patch, err := was.note()
	if err != nil {
		return nil, err
	}
	shape.Child(patch, "metadata")["resourceVersion"] = live.GetResourceVersion()
	return s.patch(ctx, at, live, patch)
}

func (s Stage) patch(ctx context.Context, at port.Served, u *unstructured.Unstructured, change shape.Document) (*unstructured.Unstructured, error) {
	patch, err := json.Marshal(change)
	if err != nil {
		return nil, fmt.Errorf("encode patch: %w", err)
	}
	return s.Cluster.Patch(ctx, at, u.GetNamespace(), u.GetName(), patch)
}

// quiet waits until a reconciler is through with what it had begun, for a while.
func (s Stage) quiet(ctx context.Context, r Reconciler, at port.Served, live *unstructured.Unstructured) error {
	deadline := s.Clock.Now().Add(patience)
	for busy(r.Kind, live.Object) && s.Clock.Now().Before(deadline) {
		if err := s.Clock.Sleep(ctx, look); err != nil {
			return err
		}
		got, err := s.Cluster.Get(ctx, at, live.GetNamespace(), live.GetName())
		if err != nil {
			return err
		}
		live = got
	}
	return nil
}

func busy(kind schema.GroupKind, d shape.Document) bool {
	if kind == KindApplication {
		return shape.Text(d, "status", "operationState", "phase") == "Running"
	}
	for _, c := range shape.Items(d, "status", "conditions") {
		if shape.Text(c, "type") == "Reconciling" && shape.Text(c, "status") == "True" {
			return true
		}
	}
	return false
}

// Resume makes one reconciler what it was, if a restore suspended it and nobody else
// relies on its rest; why names those that do, and those that are over and are forgotten.
func (s Stage) Resume(ctx context.Context, r Reconciler) (resumed bool, why string, err error) {
	for range answer.Attempts {
		at, live, err := s.Find(ctx, r)
		if errors.Is(err, ErrAbsent) {
			return false, "", nil
		}
		if err != nil {
			return false, "", err
		}
		patch, err := undo(r.Kind, live.Object)
		if patch == nil || err != nil {
			return false, "", err
		}
		was := noted(live.Object)
		was.For = maps.Clone(was.For)
		delete(was.For, s.Application)
		gone, err := s.forget(ctx, was.For)
		if err != nil {
			return false, "", err
		}
		rests := len(was.For) > 0 || was.Run != ""
		if rests {
			_, err = s.write(ctx, at, live, was)
		} else {
			shape.Child(patch, "metadata")["resourceVersion"] = live.GetResourceVersion()
			_, err = s.patch(ctx, at, live, patch)
		}
		if !apierrors.IsConflict(err) {
			return err == nil && !rests, was.told(gone), err
		}
	}
	return false, "", errors.New("it changes faster than it can be resumed")
}

// others says who relies on a reconciler's rest; nothing where nobody does.
func (b before) others() string {
	switch {
	case len(b.For) > 0:
		return "stays suspended, since other restores rely on it: " + named(b.For) +
			"; it goes on when the last of them is through: if one died, give it again, or give it up (docs/restore.md, What git holds); or take off annotation " + Annotation + " and resume it yourself"
	case b.Run != "":
		return "stays suspended, since run " + b.Run + " has it so: a resume step lets it go on; or take off annotation " + Annotation + " and resume it yourself"
	}
	return ""
}

// told is others, and whom nobody takes account of any more.
func (b before) told(gone string) string {
	if gone == "" {
		return b.others()
	}
	return cmp.Or(b.others(), "goes on") + gone
}

func named(restores map[string]string) string {
	var names []string
	for _, application := range slices.Sorted(maps.Keys(restores)) {
		names = append(names, restores[application]+" of "+application)
	}
	return shape.Names(names, 3)
}

// Held tells whether git itself says that a Flux reconciler is not suspended:
// then its own reconciler undoes what a restore does to it.
func Held(u *unstructured.Unstructured) bool {
	for _, m := range u.GetManagedFields() {
		if m.Operation == "Apply" && strings.HasSuffix(m.Manager, "-controller") && m.FieldsV1 != nil && strings.Contains(string(m.FieldsV1.Raw), `"f:suspend"`) {
			return true
		}
	}
	return false
}
