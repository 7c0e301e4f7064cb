package gitops

import (
	"cmp"
	"context"
	"errors"
	"maps"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/restore/answer"
	"davit.dev/davit/internal/restore/shape"
)

// resources are the kinds by the names of their resources.
var resources = map[string]schema.GroupKind{
	plan.Kustomizations: KindKustomization,
	plan.HelmReleases:   KindHelmRelease,
	plan.ArgoCD:         KindApplication,
}

// Parse reads RESOURCE.GROUP/NAMESPACE/NAME. The namespace of an Argo CD
// Application may be left out.
func Parse(object string) (Reconciler, error) {
	resource, namespace, name, err := plan.Reconciler(object)
	return Reconciler{Kind: resources[resource], Namespace: namespace, Name: name}, err
}

// State is how a reconciler is at a target.
type State struct {
	Suspended bool
	Active    bool   // and nothing of a suspension is left
	By        string // who of Davit suspended it; empty: people, or nobody
	Held      bool   // git itself says whether it is suspended, as in function Held
}

// Look says how a reconciler is; ErrAbsent when it is not there.
func (s Stage) Look(ctx context.Context, r Reconciler) (State, error) {
	_, live, err := s.Find(ctx, r)
	if err != nil {
		return State{}, err
	}
	return State{Suspended: Suspended(r.Kind, live.Object), Active: Active(r.Kind, live.Object), By: suspendedBy(live.Object), Held: Held(live)}, nil
}

// suspendedBy is who of Davit suspended it: the run, where one relies on that.
func suspendedBy(d shape.Document) string { return cmp.Or(noted(d).Run, noted(d).By) }

// Active tells whether a reconciler works on its objects: an Argo CD Application
// without an automated policy is not skipped, which is all that Release can give it.
func Active(kind schema.GroupKind, d shape.Document) bool {
	if kind == KindApplication {
		return shape.Text(d, "metadata", "annotations", skipReconcile) != "true" && shape.Text(d, "metadata", "annotations", Annotation) == ""
	}
	return !Suspended(kind, d)
}

// Release lets a reconciler go on, whoever suspended it. What Davit took out comes
// back. Of an Argo CD Application that people suspended, only the mark that it is
// to be skipped is taken off: what its sync policy was, they know. While restores rely on
// its rest it stays so, and why names them: the last of them has it go on. Those of the run's own
// applications are none, nor are those that are over.
func (s Stage) Release(ctx context.Context, r Reconciler) (why string, err error) {
	for range answer.Attempts {
		at, live, err := s.Find(ctx, r)
		if err != nil {
			return "", err
		}
		is := noted(live.Object)
		was := is
		was.For, was.Run = maps.Clone(is.For), ""
		maps.DeleteFunc(was.For, func(application, _ string) bool { _, of := s.Run[application]; return of })
		gone, err := s.forget(ctx, was.For)
		if err != nil {
			return "", err
		}
		rests := len(was.For) > 0 && Suspended(r.Kind, live.Object)
		if rests && is.Run == "" && len(was.For) == len(is.For) {
			return was.others(), nil
		}
		patch, err := undo(r.Kind, live.Object)
		if err == nil && rests {
			patch, err = was.note()
		}
		if err == nil {
			err = s.current(ctx)
		}
		if err != nil {
			return "", err
		}
		switch {
		case patch != nil:
		case r.Kind == KindApplication:
			patch = shape.Document{"metadata": shape.Document{"annotations": shape.Document{skipReconcile: nil}}}
		default:
			patch = shape.Document{"metadata": shape.Document{}, "spec": shape.Document{"suspend": nil}}
		}
		shape.Child(patch, "metadata")["resourceVersion"] = live.GetResourceVersion()
		if _, err = s.patch(ctx, at, live, patch); !apierrors.IsConflict(err) {
			if !rests {
				was.For = nil
			}
			return was.told(gone), err
		}
	}
	return "", errors.New("it changes faster than it can be resumed")
}

// annotationLeft names who last left a reconciler as it was.
const annotationLeft = "davit.dev/gitops-left"

// Leave changes nothing of what a reconciler does, but has whoever read it before, and is about
// to change it, find it changed.
func (s Stage) Leave(ctx context.Context, r Reconciler, by string) error {
	for range answer.Attempts {
		at, live, err := s.Find(ctx, r)
		if err != nil {
			return err
		}
		_, err = s.patch(ctx, at, live, shape.Document{"metadata": shape.Document{
			"resourceVersion": live.GetResourceVersion(), "annotations": shape.Document{annotationLeft: by},
		}})
		if !apierrors.IsConflict(err) {
			return err
		}
	}
	return errors.New("it changes faster than it can be left as it is")
}
