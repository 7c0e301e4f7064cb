package agent

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/fence"
	"davit.dev/davit/internal/foresight"
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/plan/document"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/promise"
	"davit.dev/davit/internal/transcript"
)

const (
	// pledgePatience bounds how long all peers are asked, and each.
	pledgePatience = 30 * time.Second
	pledgeLimit    = 5 * time.Second
	pledgeAbreast  = 8
	// mostPledges is how many questions are asked; of more, those that are first by plan and name.
	mostPledges = 500
)

// pledges asks the other sites of plans that want promises what the nodes of this site will ask them when the
// vault is silent: that they would refuse then is found before. Nothing follows from what they promise here.
func pledges(ctx context.Context, plans []*v1alpha1.RecoveryPlan, o *vaults.Opened, site string, now func() time.Time) []preflight.Pledge {
	var all []preflight.Pledge
	for _, object := range plans {
		p := document.Convert(object)
		if !p.Fence.Promises {
			continue
		}
		held, err := foresight.Promises(ctx, o.Project, p)
		if err != nil { // what was not asked is not said
			continue
		}
		for _, app := range held {
			for _, peer := range app.Peers {
				asked := preflight.Pledge{Application: app.Application, Epoch: app.Epoch, Peer: peer}
				if app.Site == site && len(all) < mostPledges && !slices.Contains(all, asked) {
					all = append(all, asked)
				}
			}
		}
	}
	keys := promise.From(o.Project, site, o.VaultID)
	return answers(ctx, all, now, func(ctx context.Context, a preflight.Pledge) error {
		return promise.Ask(ctx, keys, a.Application, a.Epoch, fence.Peer(a.Peer), now)
	})
}

// answers are those to the questions that could be asked in time. A peer that was silent until its time was up is not
// waited for again: a few of many applications would use up all the time, and leave the same others unasked each round.
func answers(ctx context.Context, all []preflight.Pledge, now func() time.Time, ask func(context.Context, preflight.Pledge) error) []preflight.Pledge {
	ctx, cancel := context.WithTimeout(ctx, pledgePatience)
	defer cancel()
	var silent sync.Map // by peer: why, a string
	var g errgroup.Group
	g.SetLimit(pledgeAbreast)
	for i := range all {
		a := &all[i]
		g.Go(func() error {
			if why, is := silent.Load(a.Peer); is {
				a.At, a.Err = now().UTC(), why.(string)
				return nil
			}
			own, cancel := context.WithTimeout(ctx, pledgeLimit)
			defer cancel()
			err := ask(own, *a)
			if err != nil && ctx.Err() != nil { // not for its own time
				return nil
			}
			if a.At = now().UTC(); err != nil {
				a.Err = transcript.Keep(err.Error(), nil)
			}
			if err != nil && own.Err() != nil {
				silent.Store(a.Peer, a.Err)
			}
			return nil
		})
	}
	_ = g.Wait() // none fails
	return slices.DeleteFunc(all, func(a preflight.Pledge) bool { return a.At.IsZero() })
}
