package gitops

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/shape"
)

// Census knows what git holds of a point. Count is called while that is read,
// by several goroutines.
type Census struct {
	mode  Mode
	known map[string]bool // Argo CD's Applications at the target

	mu      sync.Mutex
	held    map[Reconciler]int64 // objects of the point by what makes them
	brought map[Reconciler]bool  // reconcilers that the point holds themselves
}

// NewCensus begins one.
func NewCensus(ctx context.Context, mode Mode, c port.Cluster) (*Census, error) {
	all := &Census{mode: mode, known: map[string]bool{}, held: map[Reconciler]int64{}, brought: map[Reconciler]bool{}}
	served, err := c.Serves(ctx, KindApplication)
	if err != nil {
		if errors.Is(err, port.ErrNotServed) || errors.Is(err, port.ErrUnanswered) {
			return all, nil
		}
		return nil, err
	}
	err = c.List(ctx, served[0], "", "", func(u *unstructured.Unstructured) error {
		all.known[u.GetName()] = true
		return nil
	})
	if apierrors.IsForbidden(err) {
		err = nil // then the label alone tells nothing
	}
	return all, err
}

// Of tells what makes an object from git.
func (c *Census) Of(kind schema.GroupKind, h shape.Head) (Reconciler, bool) {
	return Of(kind, h, func(name string) bool { return c.known[name] })
}

// Count counts an object of the point. It returns why it is left to git, or nothing.
func (c *Census) Count(kind schema.GroupKind, h shape.Head) (skip string) {
	r, held := c.Of(kind, h)
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Contains(Kinds, kind) {
		c.brought[Reconciler{Kind: kind, Namespace: h.Metadata.Namespace, Name: h.Metadata.Name}] = true
	}
	if !held {
		return ""
	}
	c.held[r]++
	if c.mode == Skip && !Needed(kind) {
		return "git holds it: " + r.String() + " makes it"
	}
	return ""
}

// reconcilers are all that are to be suspended, sorted.
func (c *Census) reconcilers() []Reconciler {
	all := maps.Clone(c.brought)
	for r := range c.held {
		if r.Namespace == "" && slices.ContainsFunc(slices.Collect(maps.Keys(c.brought)), func(b Reconciler) bool { return b.Kind == r.Kind && b.Name == r.Name }) {
			continue
		}
		all[r] = true
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b Reconciler) int { return strings.Compare(a.String(), b.String()) })
}

// Findings say what a person should know before a restore: who may undo it, who
// cannot be suspended.
func (c *Census) Findings(ctx context.Context, s Stage) ([]report.Finding, error) {
	var found []report.Finding
	if c.mode == Skip {
		return nil, nil
	}
	for _, r := range c.reconcilers() {
		f, err := c.finding(ctx, s, r)
		if err != nil {
			return nil, err
		}
		if f != nil {
			found = append(found, *f)
		}
	}
	return found, nil
}

func (c *Census) finding(ctx context.Context, s Stage, r Reconciler) (*report.Finding, error) {
	at, live, err := s.Find(ctx, r)
	what := fmt.Sprintf("%d objects of the point are made from git by %s", c.held[r], r)
	switch {
	case apierrors.IsForbidden(err) && c.mode == Suspend:
		return &report.Finding{
			Severity: report.Error, Reason: "GitOps", Message: fmt.Sprintf("%s, which cannot be suspended: %v", what, err),
			Remedy: "grant the account that restores get, list and patch of these, or suspend it yourself and give --gitops keep",
		}, nil
	case errors.Is(err, ErrAbsent), apierrors.IsForbidden(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look for %s: %w", r, err)
	case Suspended(r.Kind, live.Object):
		return c.resting(what, noted(live.Object)), nil
	case c.mode != Suspend:
		if c.held[r] == 0 {
			return nil, nil
		}
		return &report.Finding{
			Severity: report.Warning, Reason: "GitOps", Message: what + ", which goes on and may undo what is restored",
			Remedy: "--gitops suspend suspends it for the time of the restore, --gitops skip leaves these objects to git",
		}, nil
	}
	may, why, err := s.Cluster.May(ctx, "patch", at, live.GetNamespace())
	switch {
	case err != nil:
		return nil, err
	case !may:
		return &report.Finding{
			Severity: report.Error, Reason: "GitOps", Message: fmt.Sprintf("%s, which may not be suspended: no right to patch it %s", what, why),
			Remedy: "grant it to the account that restores, or suspend it yourself and give --gitops keep",
		}, nil
	case Held(live):
		return &report.Finding{
			Severity: report.Warning, Reason: "GitOps", Message: what + ", whose own manifest in git says whether it is suspended: what made it may resume it in the middle",
			Remedy: "suspend it in git for the time of the restore",
		}, nil
	}
	return nil, nil
}

// resting says that a reconciler which Davit suspended before stays so after a restore that does
// not have it go on.
func (c *Census) resting(what string, was before) *report.Finding {
	if c.mode == Suspend || was.By == "" {
		return nil
	}
	who := was.others()
	if who == "" {
		who = "stays suspended, since restore " + was.By + " suspended it"
	}
	return &report.Finding{
		Severity: report.Warning, Reason: "GitOps", Message: what + ", which " + who,
		Remedy: "--gitops suspend has it go on when this restore is through, unless somebody else relies on its rest",
	}
}

// Told is how a restore hears what is done.
type Told interface {
	// Reconciler is told what is done with one, or why nothing.
	Reconciler(r Reconciler, action report.Action, reason string)
}

// Suspend suspends everything that makes objects of the point from git.
func (c *Census) Suspend(ctx context.Context, s Stage, told Told) error {
	if c.mode != Suspend {
		return nil
	}
	for _, r := range c.reconcilers() {
		why, err := s.Suspend(ctx, r)
		switch {
		case err != nil:
			return fmt.Errorf("suspend %s: %w", r, err)
		case why == "" || c.brought[r] && why == "is not here":
			told.Reconciler(r, report.Suspend, fmt.Sprintf("%d objects of the point are made from git by it; it goes on when the restore is through", c.held[r]))
		default:
			told.Reconciler(r, report.SkipIt, why)
		}
	}
	return nil
}

// Resume makes them what they were, and says why some stay as they are. whole says that
// the restore went well: otherwise all stay suspended, since git could start on what is
// not there yet.
func (c *Census) Resume(ctx context.Context, s Stage, whole bool) (resumed []string, left map[string]string, err error) {
	left = map[string]string{}
	if c.mode != Suspend {
		return nil, left, nil
	}
	for _, r := range c.reconcilers() {
		if !whole {
			if _, live, err := s.Find(ctx, r); err == nil && live.GetAnnotations()[Annotation] != "" {
				left[r.String()] = "stays suspended, since the restore is not whole: give it again, and it goes on when that is through; or take off annotation " + Annotation + " and resume it yourself"
			}
			continue
		}
		did, why, err := s.Resume(ctx, r)
		if err != nil {
			return resumed, left, fmt.Errorf("resume %s: %w", r, err)
		}
		if did {
			resumed = append(resumed, r.String())
		}
		if why != "" {
			left[r.String()] = why
		}
	}
	return resumed, left, nil
}
