package origin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/reconcile/project"
)

// sync captures the application once more for the run. The point is the run's
// own, by its label: a newer one of the schedule is another.
func (s *site) sync(ctx context.Context, o execute.Order) execute.Answer {
	if o.Action == failover.Undo { // a point hurts nobody
		return execute.Done("")
	}
	app, err := s.application(ctx, o.Step.Application)
	if err != nil {
		return failed(err)
	}
	p, err := s.captured(ctx, app, o.Run)
	if err != nil {
		return execute.Unknown("%v", err)
	}
	if o.Action == failover.Look {
		if p == nil || over(p) && p.Status.Phase != v1alpha1.PointAvailable {
			return execute.NotDone("")
		}
		if !over(p) {
			return execute.Answer{Outcome: failover.Busy, Note: p.Status.Step}
		}
		return outcome(p)
	}
	if p == nil || over(p) && p.Status.Phase != v1alpha1.PointAvailable {
		if answer := s.whenAtRest(ctx, o, func(app *v1alpha1.Application) error { return s.ask(ctx, app, o.Run) }); answer.Outcome != failover.Done {
			return answer
		}
	}
	return s.await(ctx, func(ctx context.Context) (*execute.Answer, string) {
		p, err := s.captured(ctx, app, o.Run)
		switch {
		case err != nil:
			return nil, err.Error()
		case p == nil:
			return nil, "the recovery point of the run is gone"
		case !over(p):
			return nil, fmt.Sprintf("capturing %s: %s", p.Name, p.Status.Step)
		}
		answer := outcome(p)
		return &answer, ""
	})
}

// whenAtRest does something once the application was last seen at rest: what runs while its last write is
// captured may write after it.
func (s *site) whenAtRest(ctx context.Context, o execute.Order, then func(*v1alpha1.Application) error) execute.Answer {
	return s.await(ctx, func(ctx context.Context) (*execute.Answer, string) {
		app, err := s.application(ctx, o.Step.Application)
		if err != nil {
			return nil, err.Error()
		}
		rests, why := restsFor(app, o.Run)
		switch {
		case rests == nil:
			return nil, why
		case rests.Outcome != failover.Done:
			return nil, "no capture is asked for, as run " + o.Run + " does not hold it at rest: " + rests.Note
		}
		if err := then(app); err != nil {
			answer := execute.Unknown("%v", err)
			return &answer, ""
		}
		return rests, ""
	})
}

// unmoved says what ran at the source of a planned move since its last write was captured for the run, and
// may have written what the run does not bring; empty if nothing did. Points of before Davit noted that say nothing.
func (s *site) unmoved(ctx context.Context, app *v1alpha1.Application, o execute.Order) (string, error) {
	if o.From != s.Site || o.Verb != plan.Switchover && o.Verb != plan.Failback || app.Status.Rest == nil {
		return "", nil
	}
	p, err := s.captured(ctx, app, o.Run)
	if err != nil || p == nil {
		return "", err
	}
	mark, ran := p.Annotations[v1alpha1.AnnotationRested], app.Status.Rest
	switch held := slices.Contains(app.HeldBy(), o.Run); {
	case mark == "", held && (mark == ran.Mark() || ran.LastRan == nil):
		return "", nil
	case !held: // its agent started all of it then, and what runs where no run holds it, it does not note
		return fmt.Sprintf("somebody took the hold of run %s off %s at site %s after its last write was captured (%s): what has run since may have written what would be left behind. "+
			"Leave the annotation %s to the run, and give the command again", o.Run, o.Step.Application, s.Site, p.Name, v1alpha1.AnnotationHeldBy), nil
	}
	return fmt.Sprintf("something ran at site %s after the last write of %s was captured (%s), and may have written what would be left behind: "+
		"%s: keep what starts it (git, an operator, an autoscaler) from that while the run goes on, and give the command again", s.Site, o.Step.Application, p.Name, strings.Join(ran.LastRan.What, "; ")), nil
}

// captured is the newest recovery point that was asked for by the run and not
// started again under another name; nil if there is none.
func (s *site) captured(ctx context.Context, app *v1alpha1.Application, run string) (*v1alpha1.RecoveryPoint, error) {
	var all v1alpha1.RecoveryPointList
	if err := s.Client.List(ctx, &all, client.InNamespace(app.Namespace)); err != nil {
		return nil, fmt.Errorf("look for the run's recovery point: %w", err)
	}
	byName := map[string]*v1alpha1.RecoveryPoint{}
	var newest *v1alpha1.RecoveryPoint
	for i := range all.Items {
		p := &all.Items[i]
		byName[p.Name] = p
		if p.Spec.Application == app.Name && p.Annotations[v1alpha1.AnnotationRun] == run && (newest == nil || newest.Name < p.Name) {
			newest = p // names hold the time
		}
	}
	for newest != nil && newest.Annotations[project.AnnotationRestarted] != "" && byName[newest.Annotations[project.AnnotationRestarted]] != nil {
		newest = byName[newest.Annotations[project.AnnotationRestarted]]
	}
	return newest, nil
}

func (s *site) ask(ctx context.Context, app *v1alpha1.Application, run string) error {
	id, err := point.NewID(app.VaultName(), s.Now(), rand.Reader)
	if err != nil {
		return err
	}
	p := &v1alpha1.RecoveryPoint{Spec: v1alpha1.RecoveryPointSpec{Application: app.Name, Trigger: v1alpha1.TriggerManual}}
	p.Namespace, p.Name = app.Namespace, id
	p.Annotations = map[string]string{v1alpha1.AnnotationRun: run, v1alpha1.AnnotationRested: app.Status.Rest.Mark()}
	project.Label(p, app.Spec.Vault, app.VaultName())
	if err := s.Client.Create(ctx, p); err != nil {
		return fmt.Errorf("ask for recovery point %s: %w", id, err)
	}
	return nil
}

func over(p *v1alpha1.RecoveryPoint) bool {
	if p.Annotations[project.AnnotationRestarted] != "" {
		return false // another goes on under a new name
	}
	switch p.Status.Phase {
	case v1alpha1.PointAvailable, v1alpha1.PointFailed, v1alpha1.PointQuarantined, v1alpha1.PointDeleting:
		return true
	}
	return false
}

// outcome is what came of a capture that is over.
func outcome(p *v1alpha1.RecoveryPoint) execute.Answer {
	if p.Status.Phase != v1alpha1.PointAvailable || p.Status.Instant == nil {
		return execute.Refuse("recovery point %s: %v; `davit logs backup %s` at the source tells more", p.Name, whyNot(p), p.Name)
	}
	return execute.Answer{Outcome: failover.Done, Point: &failover.Point{ID: p.Name, Instant: p.Status.Instant.Time}, Guard: execute.Fenced}
}

func whyNot(p *v1alpha1.RecoveryPoint) error {
	for _, c := range p.Status.Conditions {
		if c.Type == v1alpha1.ConditionReady && c.Message != "" {
			return errors.New(c.Message)
		}
	}
	return errors.New(string(p.Status.Phase))
}
