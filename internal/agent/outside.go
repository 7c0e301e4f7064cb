package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/plan/document"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/probe"
	"davit.dev/davit/internal/transcript"
)

const (
	// outsidePatience bounds how long all is asked, and each of it: what takes longer is
	// nothing to wait for in a disaster.
	outsidePatience = 30 * time.Second
	outsideLimit    = 10 * time.Second
	outsideAbreast  = 8
	// mostOutside is how many probes are asked; of more, those that are first by plan and
	// name.
	mostOutside = 500
)

// outside asks, by http and tcp, what plans need besides and how this site would reach it:
// a firewall that lets the other site alone pass is found before the disaster. What it did
// not come to, as others took all the time, is not said to be silent: it is left out.
func outside(ctx context.Context, plans []*v1alpha1.RecoveryPlan, site string, now func() time.Time, ask func(context.Context, plan.Check) (string, error)) []preflight.Answer {
	var checks []plan.Check
	var all []preflight.Answer
	for _, p := range plans {
		for _, o := range document.Convert(p).Outside {
			c, found := o.Probes[site]
			a := preflight.Answer{Kind: string(c.Kind), Target: c.Target, Expect: c.Expect}
			if !found || c.Kind != plan.CheckHTTP && c.Kind != plan.CheckTCP || len(all) == mostOutside || slices.Contains(all, a) {
				continue
			}
			checks, all = append(checks, c), append(all, a)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, outsidePatience)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(outsideAbreast)
	for i, c := range checks {
		c.Timeout = min(max(c.Timeout, time.Second), outsideLimit)
		g.Go(func() error {
			_, err := ask(ctx, c)
			if err != nil && ctx.Err() != nil { // not for its own time
				return nil
			}
			all[i].At = now().UTC()
			var other *probe.Mismatch
			switch {
			case errors.As(err, &other):
				// Whoever may put a plan into the vault chooses whom this site asks, and may not
				// read what is said there to it alone.
				all[i].Err = other.Without()
			case err != nil:
				all[i].Err = transcript.Keep(err.Error(), nil)
			}
			return nil
		})
	}
	_ = g.Wait() // none fails
	return slices.DeleteFunc(all, func(a preflight.Answer) bool { return a.At.IsZero() })
}
