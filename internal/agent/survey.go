package agent

import (
	"context"
	"log/slog"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/coverage"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/reconcile/measure"
)

const (
	surveyEvery   = 5 * time.Minute
	surveyTimeout = 2 * time.Minute
)

// surveyor counts the volumes that no application protects. It runs in the
// leader only.
type surveyor struct {
	client  client.Client
	cluster capture.Cluster
	log     *slog.Logger
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (s *surveyor) NeedLeaderElection() bool { return true }

// Start counts now and then until ctx is done. What cannot be counted now keeps
// its last value.
func (s *surveyor) Start(ctx context.Context) error {
	tick := time.NewTicker(surveyEvery)
	defer tick.Stop()
	for {
		if err := s.survey(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("volumes not counted", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *surveyor) survey(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	var apps v1alpha1.ApplicationList
	if err := s.client.List(ctx, &apps); err != nil {
		return err
	}
	report, err := coverage.Survey(ctx, s.look, apps.Items, coverage.Options{})
	if err != nil {
		return err
	}
	unprotected, _ := report.Unprotected()
	shared, _ := report.Shared()
	measure.VolumesUnprotected.Set(float64(unprotected))
	measure.VolumesShared.Set(float64(shared))
	return nil
}

func (s *surveyor) look(ctx context.Context, app *v1alpha1.Application, objects bool) (*capture.Held, error) {
	spec, err := protection.SpecOf(app)
	if err != nil {
		return nil, err
	}
	return capture.Look(ctx, spec, s.cluster, objects, capture.Options{})
}
