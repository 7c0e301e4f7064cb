package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/answer"
	"davit.dev/davit/internal/restore/gitops"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/restore/standstill"
)

// StepPrune is the engine's step that deletes what the point does not have.
const StepPrune = "prune"

// stray is an object of the application that the point does not have.
type stray struct {
	at  Served
	obj *unstructured.Unstructured
	// keep is why it stays all the same; empty when it is pruned.
	keep string
}

func (s stray) name() string { return objectName(s.at, s.obj.GetNamespace(), s.obj.GetName()) }

// prunes tells whether any policy prunes.
func (e *Engine) prunes() bool {
	if e.opts.Existing == Exact {
		return true
	}
	for _, policy := range e.opts.ExistingKinds {
		if policy == Exact {
			return true
		}
	}
	return false
}

// checkScope refuses to prune where it cannot be told what is the
// application's: never is anything deleted on a guess.
func (e *Engine) checkScope(context.Context) ([]Finding, error) {
	if !e.prunes() {
		return nil, nil
	}
	const remedy = "choose --existing replace, which deletes nothing but what it makes anew"
	scope := e.m.Scope
	switch {
	case scope == nil || len(scope.Kinds) == 0:
		return []Finding{wrong("NoScope", remedy+", or a newer point", "the recovery point does not say what it was looked for in, so what it lacks cannot be told from what is not the application's")}, nil
	case scope.Narrowed:
		return []Finding{wrong("NoScope", remedy, "the application is not all of its namespaces, nor chosen by labels alone, so what the point lacks may be another's")}, nil
	case e.opts.Captured == nil:
		return []Finding{wrong("NoScope", remedy, "nothing tells here what would be captured")}, nil
	}
	return nil, nil
}

// prune deletes the strays, unless something could not be restored: half an
// application must not lose anything as well.
func (e *Engine) prune(ctx context.Context) error {
	if !e.prunes() {
		return nil
	}
	if failed := e.rec.Result().Failed; failed > 0 {
		e.rec.Warn("", "nothing was pruned, because %d objects could not be restored: solve that and restore again", failed)
		return nil
	}
	return e.timed(StepPrune, func() error {
		strays, err := e.strays(ctx)
		if err != nil {
			return err
		}
		for _, s := range strays {
			e.pruned(s.name(), s.keep)
			if s.keep != "" {
				e.rec.Warn(s.name(), "%s", s.keep)
				if err := standstill.Down(ctx, e.cluster, s.at, s.obj); err != nil {
					e.rec.Fail(s.name(), fmt.Errorf("stop what the point does not have: %w", answer.Explain(err)))
				}
				continue
			}
			if err := e.cluster.Delete(ctx, s.at, s.obj, false); err != nil {
				e.rec.Fail(s.name(), fmt.Errorf("prune: %w", answer.Explain(err)))
				continue
			}
			e.rec.Count(func(r *Result) { r.Pruned++ })
			e.progress.Note("pruned " + s.name())
		}
		return nil
	})
}

// strays are all objects of the kinds whose policy prunes, in the
// application's own namespaces, that a capture would take and the point does
// not hold. Sorted by name.
func (e *Engine) strays(ctx context.Context) ([]stray, error) {
	if found, err := e.checkScope(ctx); err != nil || len(found) > 0 || e.m.Scope == nil {
		return nil, err
	}
	held := e.heldObjects()
	var all []stray
	for _, text := range e.m.Scope.Kinds {
		kind := schema.ParseGroupKind(text)
		served, err := e.cluster.Serves(ctx, kind)
		if errors.Is(err, ErrNotServed) {
			continue
		}
		if err != nil {
			return nil, err
		}
		at := served[0]
		res := point.Resource{Group: kind.Group, Version: at.GVK.Version, Kind: kind.Kind, Resource: at.GVR.Resource, Namespaced: true}
		policy, named := e.policyOf(res)
		if policy != Exact || !at.Namespaced || e.leftOut(res) != "" {
			continue
		}
		found, err := e.straysOf(ctx, at, res, held, named)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	slices.SortFunc(all, func(a, b stray) int { return cmp.Compare(a.name(), b.name()) })
	return all, nil
}

// heldObjects are the names of everything in the point, as at the target.
func (e *Engine) heldObjects() map[string]bool {
	held := map[string]bool{}
	for i, entries := range e.x.Entries {
		for _, en := range entries {
			namespace, name := e.target(en)
			held[kindName(e.x.Kinds[i], namespace, name)] = true
		}
	}
	return held
}

func (e *Engine) straysOf(ctx context.Context, at Served, res point.Resource, held map[string]bool, named bool) ([]stray, error) {
	selectors := e.m.Scope.Selectors
	if len(selectors) == 0 {
		selectors = []string{""}
	}
	kind := at.GVK.GroupKind()
	var found []stray
	for _, captured := range e.m.Namespaces {
		for _, selector := range selectors {
			err := e.cluster.List(ctx, at, e.names.To(captured), selector, func(u *unstructured.Unstructured) error {
				if !held[kindName(kind, u.GetNamespace(), u.GetName())] && e.isStray(res, u) {
					found = append(found, stray{at: at, obj: u, keep: keepStray(at, named, u)})
				}
				return nil
			})
			if err != nil && (!errors.Is(err, ErrNotServed) || slices.Contains(e.x.Kinds, kind)) { // of a kind that went since, nothing is left, nor of what was restored
				return nil, fmt.Errorf("look for what the point does not have: list %s: %w", at.GVR.GroupResource(), err)
			}
		}
	}
	return found, nil
}

// isStray tells whether an object that the point does not hold is the
// application's own: nothing owns it, and a capture would have taken it.
func (e *Engine) isStray(res point.Resource, u *unstructured.Unstructured) bool {
	kind := schema.GroupKind{Group: res.Group, Kind: res.Kind}
	head := shape.Head{Type: shape.Text(u.Object, "type")}
	head.Metadata.Name, head.Metadata.Namespace = u.GetName(), u.GetNamespace()
	head.Metadata.Labels, head.Metadata.Annotations = u.GetLabels(), u.GetAnnotations()
	why, _ := shape.SkipByHead(kind, head)
	if head.Type == shape.TokenSecret {
		return false // points of earlier versions lack them
	}
	if _, held := e.git.Of(kind, head); held && e.opts.GitOps == gitops.Skip {
		return false // git may be ahead of the point
	}
	return why == "" && u.GetDeletionTimestamp() == nil && len(u.GetOwnerReferences()) == 0 && e.opts.Captured(res, u)
}

// keepStray spares data, and what it would go with: such an object is pruned only
// where its kind was named.
func keepStray(at Served, named bool, u *unstructured.Unstructured) string {
	why, kind, left := "", at.GVK.GroupKind(), "left alone"
	switch {
	case named:
		return ""
	case kind == shape.KindClaim:
		why = "it holds data"
	case kind == shape.KindStatefulSet && shape.Text(u.Object, "spec", "persistentVolumeClaimRetentionPolicy", "whenDeleted") == "Delete":
		why, left = "its claims would go with it", "scaled to zero and left"
	case shape.RankOf(kind) == shape.RankCustom:
		why = "its operator may take the deletion for the end of what it stands for, data and all"
	default:
		return ""
	}
	return fmt.Sprintf("is not in the point, and was %s because %s: to have it deleted, give --existing-kind %s=exact", left, why, at.GVR.GroupResource())
}
