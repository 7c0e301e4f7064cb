package agent

import (
	"context"
	"log/slog"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/internal/foresight"
	"davit.dev/davit/internal/images"
	"davit.dev/davit/internal/kube/census"
	"davit.dev/davit/internal/kube/externaldns"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/traffic/providers"
	"davit.dev/davit/internal/traffic/rehearsal"
)

// foreseer judges planned runs to this site before they begin, by what its cluster
// is like now: what was published may be minutes old, and somebody may have solved
// what it says.
func foreseer(c client.Client, reader client.Reader, p *pool, log *slog.Logger) func(context.Context, string, *plan.Plan, plan.Verb) ([]preflight.Finding, error) {
	registry := foresight.Registries(images.Registries{}, registriesPatience, registriesRemember)
	return func(ctx context.Context, vaultName string, of *plan.Plan, verb plan.Verb) ([]preflight.Finding, error) {
		h := &herald{client: c, reader: reader, pool: p, log: log, registry: registry}
		if err := h.accounts(); err != nil {
			return nil, err
		}
		e, err := p.entry(ctx, vaultName)
		if err != nil {
			return nil, err
		}
		var apps []string
		for _, a := range of.Applications {
			apps = append(apps, a.Name)
		}
		demands, err := foresight.Demands(ctx, e.opened.Listing, apps)
		if err != nil {
			return nil, err
		}
		var needs []preflight.Need
		for _, d := range demands {
			needs = append(needs, d.Need)
		}
		o, err := h.about(ctx, e, needs)
		if err != nil {
			return nil, err
		}
		looking := h.looking(e.opened, census.Take(ctx, o))
		looking.Names = func(ctx context.Context, p *plan.Plan) []preflight.Name {
			return rehearsal.Ask(ctx, p, providers.Open(h.secret, externaldns.Objects{Client: h.restorer.Dynamic}, h.pool.now))
		}
		out, err := foresight.Look(ctx, looking, of.Only(verb), verb, p.self.Site)
		if err != nil {
			return nil, err
		}
		return out.Findings, nil
	}
}
