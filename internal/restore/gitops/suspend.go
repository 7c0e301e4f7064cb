package gitops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/answer"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/shape"
)

// Annotation of a reconciler that a restore suspended holds, as JSON, what it
// was before: {"by":"<restore>","automated":{…}}.
const Annotation = "davit.dev/gitops-before-restore"

const (
	look     = 500 * time.Millisecond
	patience = 30 * time.Second
)

// before is what a reconciler was.
type before struct {
	By        string         `json:"by"`
	Automated map[string]any `json:"automated,omitempty"` // of an Application's syncPolicy
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
func change(kind schema.GroupKind, d shape.Document, id string) (shape.Document, error) {
	was := before{By: id}
	annotations := shape.Document{}
	patch := shape.Document{"metadata": shape.Document{"annotations": annotations}}
	if kind == KindApplication {
		annotations[skipReconcile] = "true"
		if was.Automated = shape.Child(d, "spec", "syncPolicy", "automated"); was.Automated != nil || shape.Child(d, "spec", "syncPolicy")["automated"] != nil {
			patch["spec"] = shape.Document{"syncPolicy": shape.Document{"automated": nil}}
		}
	} else {
		patch["spec"] = shape.Document{"suspend": true}
	}
	if kept := (before{}); was.Automated == nil && json.Unmarshal([]byte(shape.Text(d, "metadata", "annotations", Annotation)), &kept) == nil {
		was.Automated = kept.Automated // somebody undid half of it
	}
	note, err := json.Marshal(was)
	if err != nil {
		return nil, fmt.Errorf("encode what it was: %w", err)
	}
	annotations[Annotation] = string(note)
	return patch, nil
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
func Rest(kind schema.GroupKind, d shape.Document, id string) error {
	if !slices.Contains(Kinds, kind) || Suspended(kind, d) {
		return nil
	}
	patch, err := change(kind, d, id)
	if err != nil {
		return err
	}
	shape.Merge(d, patch)
	return nil
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
			return "", s.quiet(ctx, r, at, live) // by this restore before it was interrupted
		case Suspended(r.Kind, live.Object):
			return "is suspended already, and stays so", nil
		}
		patch, err := change(r.Kind, live.Object, s.ID)
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

// Resume makes one reconciler what it was, if a restore suspended it.
func (s Stage) Resume(ctx context.Context, r Reconciler) (resumed bool, err error) {
	at, live, err := s.Find(ctx, r)
	if errors.Is(err, ErrAbsent) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	patch, err := undo(r.Kind, live.Object)
	if patch == nil || err != nil {
		return false, err
	}
	_, err = s.patch(ctx, at, live, patch)
	return err == nil, err
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
