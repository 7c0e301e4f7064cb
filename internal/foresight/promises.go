package foresight

import (
	"context"
	"errors"

	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/vault"
)

// promises has a plan that wants promises be judged by what the vault says of them.
func (k *Known) promises(ctx context.Context, in *preflight.Input) {
	if !in.Plan.Fence.Promises {
		return
	}
	all, err := Promises(ctx, k.Project, in.Plan)
	if err != nil { // what is not known is said to be so
		return
	}
	bearers := map[string]string{}
	for _, s := range in.Plan.Sites {
		bearer, err := lease.Bearer(ctx, k.Project, s.Name)
		if err != nil {
			return
		}
		bearers[s.Name] = bearer.Cluster
	}
	in.Promised, in.Bearers = all, bearers
}

// Promises reads by whose promises the applications of a plan may run on.
func Promises(ctx context.Context, project *vault.Project, of *plan.Plan) ([]preflight.Promised, error) {
	all := []preflight.Promised{}
	for _, app := range applications(of) {
		current, err := lease.New(project).Current(ctx, app)
		if err != nil {
			return nil, err
		}
		p := preflight.Promised{Application: app, Site: current.Claim.Site, Epoch: current.Number, Leased: current.Claim.Terms != nil}
		if p.Leased {
			for _, peer := range current.Claim.Terms.Peers {
				p.Peers = append(p.Peers, preflight.Peer(peer))
			}
			kept, err := lease.ReadKept(ctx, project, app, current.Number)
			if err != nil && !errors.Is(err, vault.ErrNotFound) && !errors.Is(err, vault.ErrDamaged) && !errors.Is(err, lease.ErrFormat) {
				return nil, err
			}
			p.Stated = err == nil && len(kept.Peers) > 0
		}
		all = append(all, p)
	}
	return all, nil
}
