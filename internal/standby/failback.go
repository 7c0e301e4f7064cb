package standby

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/sequence"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/standby/mapping"
	"davit.dev/davit/internal/standby/remains"
	"davit.dev/davit/internal/vault"
)

var (
	kindApplication = schema.GroupKind{Group: v1alpha1.GroupVersion.Group, Kind: "Application"}
	kindPoint       = schema.GroupKind{Group: v1alpha1.GroupVersion.Group, Kind: "RecoveryPoint"}
)

const (
	pinLook = time.Second
	// annotationTry is on a point that was asked for by a run's step, with the number
	// of the order.
	annotationTry = "davit.dev/run-order"
)

// pin keeps what only this site has of an application, before it is replaced: its
// own agent captures it, under the epoch that the site held. The point is
// quarantined, so that nobody takes it for the application's state, and pinned.
func (s *Site) pin(ctx context.Context, o execute.Order) execute.Answer {
	if o.Action == failover.Undo {
		return execute.Done("what was pinned stays")
	}
	left, err := remains.Look(ctx, s.project(), o.Step.Application, s.self(), o.Token.Epochs[o.Step.Application]+1)
	if err != nil {
		return execute.Unknown("%v", err)
	}
	if !left.Here {
		return execute.Done("this site never ran it: nothing of it is here alone")
	}
	at, err := s.applicationHere(ctx, o.Step.Application)
	if err != nil {
		return unlessNone(err)
	}
	for asked := o.Action == failover.Look; ; {
		answer, why := s.pinned(ctx, o, at)
		if answer == nil && why == "" && !asked {
			if err := s.askForPin(ctx, o, at); err != nil {
				return execute.Unknown("%v", err)
			}
			asked = true
			continue
		}
		switch {
		case answer != nil:
			return *answer
		case o.Action == failover.Look && why == "":
			return execute.NotDone("")
		case o.Action == failover.Look:
			return execute.Answer{Outcome: failover.Busy, Note: why}
		}
		select {
		case <-ctx.Done():
			return execute.Unknown("%s", why)
		case <-time.After(pinLook):
		}
	}
}

// errNoApplication says that nothing here watches the application.
var errNoApplication = errors.New("not found")

func unlessNone(err error) execute.Answer {
	if errors.Is(err, errNoApplication) {
		return execute.Refuse("%v", err)
	}
	return execute.Unknown("%v", err)
}

// applicationHere finds the Application object of a name in the vault.
func (s *Site) applicationHere(ctx context.Context, name string) (*unstructured.Unstructured, error) {
	at, err := serving(ctx, s.o.Recovery.Cluster, kindApplication)
	if err != nil {
		return nil, err
	}
	keys := []types.NamespacedName{{Namespace: v1alpha1.SystemNamespace, Name: name}}
	if namespace, short, ok := strings.Cut(name, "."); ok {
		keys = append(keys, types.NamespacedName{Namespace: namespace, Name: short})
	}
	for _, key := range keys {
		live, err := s.o.Recovery.Cluster.Get(ctx, at, key.Namespace, key.Name)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read Application %s: %w", key, err)
		}
		if in := shape.Text(live.Object, "spec", "vault"); in == s.o.Recovery.VaultName || s.o.Recovery.VaultName == "" {
			return live, nil
		}
	}
	return nil, fmt.Errorf("this site ran %s and has no Application of it in vault %s, so that its agent cannot capture what only this site has: %w; apply it again, or use switchover, which keeps nothing of it",
		name, s.o.Recovery.VaultName, errNoApplication)
}

// resting says what an Application at this site waits for until it may be captured;
// empty when it is at rest.
func resting(app *unstructured.Unstructured) string {
	stopped, _, _ := unstructured.NestedBool(app.Object, "status", "rest", "stopped")
	role := shape.Text(app.Object, "status", "role")
	switch {
	case role != string(v1alpha1.RoleSuperseded):
		return "the agent here says that the site is " + role + ", not superseded: is it running?"
	case !stopped:
		running, _, _ := unstructured.NestedStringSlice(app.Object, "status", "rest", "running")
		return "it still runs here: " + strings.Join(running, ", ")
	}
	return ""
}

// pinned looks for the run's point. Without an answer, why says what is waited
// for; nothing if the point is still to be asked for.
func (s *Site) pinned(ctx context.Context, o execute.Order, app *unstructured.Unstructured) (answer *execute.Answer, why string) {
	p, err := s.pointOf(ctx, o.Run, app)
	if err != nil {
		return nil, err.Error()
	}
	phase := ""
	if p != nil {
		phase = shape.Text(p.Object, "status", "phase")
	}
	switch v1alpha1.PointPhase(phase) {
	case v1alpha1.PointAvailable, v1alpha1.PointQuarantined:
		return s.markPinned(ctx, o, p)
	case v1alpha1.PointFailed:
		if o.Action == failover.Look || p.GetAnnotations()[annotationTry] != strconv.FormatInt(o.Token.Sequence, 10) {
			return nil, "" // of an earlier try
		}
		return &execute.Answer{Outcome: failover.Refused, Note: fmt.Sprintf("recovery point %s: %s; `davit logs backup %s` here tells more", p.GetName(), whyFailed(p), p.GetName())}, ""
	}
	if p != nil {
		return nil, fmt.Sprintf("capturing %s: %s", p.GetName(), shape.Text(p.Object, "status", "step"))
	}
	if app, err = s.applicationHere(ctx, o.Step.Application); err != nil {
		return nil, err.Error()
	}
	return nil, resting(app)
}

// ahead tells whether a point counts before another one that the same run asked
// for: one that has not failed, or else one of a later try. The times in their names
// are of clocks that may differ.
func ahead(a, b *unstructured.Unstructured) bool {
	if b == nil {
		return true
	}
	failed := func(u *unstructured.Unstructured) bool {
		return shape.Text(u.Object, "status", "phase") == string(v1alpha1.PointFailed)
	}
	try := func(u *unstructured.Unstructured) int64 {
		n, _ := strconv.ParseInt(u.GetAnnotations()[annotationTry], 10, 64) // none is of no try
		return n
	}
	if failed(a) != failed(b) {
		return failed(b)
	}
	return cmp.Or(cmp.Compare(try(a), try(b)), cmp.Compare(a.GetName(), b.GetName())) > 0
}

// pointOf is the point that the run asked for last; nil if there is none.
func (s *Site) pointOf(ctx context.Context, run string, app *unstructured.Unstructured) (newest *unstructured.Unstructured, err error) {
	at, err := serving(ctx, s.o.Recovery.Cluster, kindPoint)
	if err != nil {
		return nil, err
	}
	err = s.o.Recovery.Cluster.List(ctx, at, app.GetNamespace(), "", func(u *unstructured.Unstructured) error {
		mine := u.GetAnnotations()[v1alpha1.AnnotationRun] == run && shape.Text(u.Object, "spec", "application") == app.GetName()
		if mine && ahead(u, newest) {
			newest = u.DeepCopy()
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for the run's recovery point: %w", err)
	}
	return newest, nil
}

// markPinned makes sure that the point never expires: the run names it.
func (s *Site) markPinned(ctx context.Context, o execute.Order, p *unstructured.Unstructured) (*execute.Answer, string) {
	app := o.Step.Application
	m, err := s.project().Manifest(ctx, app, p.GetName())
	if err != nil {
		return nil, err.Error()
	}
	if o.Action == failover.Act {
		err := s.project().Mark(ctx, app, m.ID, vault.Mark{Kind: vault.MarkPinned, Site: s.o.Recovery.Site, By: "run " + o.Run, Note: "what only this site had"})
		if err != nil {
			return nil, err.Error()
		}
	} else if marks, err := s.project().Marks(ctx, app, m.ID); err != nil || !(vault.PointInfo{Marks: marks}).Pinned() {
		return nil, "" // it is to be pinned yet
	}
	answer := execute.Done("%s is kept: quarantined and pinned, of epoch %d", m.ID, m.Epoch)
	answer.Point, answer.Guard = &failover.Point{ID: m.ID, Instant: m.Instant}, execute.Fenced
	return &answer, ""
}

func whyFailed(p *unstructured.Unstructured) string {
	for _, c := range shape.Items(p.Object, "status", "conditions") {
		if text := shape.Text(c, "message"); shape.Text(c, "type") == v1alpha1.ConditionReady && text != "" {
			return text
		}
	}
	return "it failed"
}

func (s *Site) askForPin(ctx context.Context, o execute.Order, app *unstructured.Unstructured) error {
	at, err := serving(ctx, s.o.Recovery.Cluster, kindPoint)
	if err != nil {
		return err
	}
	id, err := point.NewID(o.Step.Application, s.o.Recovery.Now(), rand.Reader)
	if err != nil {
		return err
	}
	_, err = s.o.Recovery.Cluster.Create(ctx, at, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "RecoveryPoint",
		"metadata": map[string]any{
			"name": id, "namespace": app.GetNamespace(),
			"annotations": map[string]any{v1alpha1.AnnotationRun: o.Run, annotationTry: strconv.FormatInt(o.Token.Sequence, 10)},
		},
		"spec": map[string]any{"application": app.GetName(), "trigger": string(v1alpha1.TriggerManual), "pinned": true, "diverged": true},
	}})
	if err != nil {
		return fmt.Errorf("ask for recovery point %s: %w", id, err)
	}
	return nil
}

// catchUp brings the newest point's data here while the application still runs at
// its present site: what is left to move once it has stopped is little. What is
// here already is not fetched again. Nothing is claimed, and nothing runs.
func (s *Site) catchUp(ctx context.Context, o execute.Order) execute.Answer {
	if o.Action == failover.Undo {
		return execute.Done("what was brought stays here, at rest")
	}
	app := o.Step.Application
	epoch := o.Token.Epochs[app]
	opts := recovery.Options{
		Application: app, Mode: v1alpha1.RestoreTakeOver, Attempt: o.Run, SeenEpoch: &epoch,
		Existing: v1alpha1.ExistingExact, To: sequence.Data, Ahead: true,
	}
	mapping.Call(&opts, o.Step.Mappings)
	report, err := recovery.Recover(ctx, opts, s.o.Recovery)
	if err != nil {
		return failed(err)
	}
	if report.Result.Failed > 0 {
		return execute.Refuse("%d objects could not be restored: %s", report.Result.Failed, problems(report, true))
	}
	return execute.Answer{
		Outcome: failover.Done, Note: problems(report, false), Guard: execute.Guarded, Moved: moved(report.Result),
		Point: &failover.Point{ID: report.Point, Instant: report.Instant},
	}
}

// moved is what of the volumes came out of the vault; nil without volumes.
func moved(r restore.Result) *failover.Moved {
	if r.Volumes == 0 {
		return nil
	}
	return &failover.Moved{Bytes: r.FetchedBytes, Of: r.VolumeBytes}
}
