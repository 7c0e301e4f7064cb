// Package forecast is the command line's look ahead: whether a plan would
// work, what it would cost, how ready applications are, and the runbook. It
// asks the vault, and the clusters that can be asked, and changes nothing.
package forecast

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/wiring"
	"davit.dev/davit/internal/foresight"
	"davit.dev/davit/internal/images"
	"davit.dev/davit/internal/kube/census"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/preflight"
)

// registryPatience bounds how long registries are asked.
const registryPatience = 15 * time.Second

// Host is what the command line gives its commands.
type Host struct {
	Out      io.Writer
	Print    func(output.Result) error
	Progress func() *output.Progress
	Now      func() time.Time
	Bounded  func(cmd *cobra.Command) (context.Context, context.CancelFunc)
	// Open opens the vault, and the cluster where there is one: else it is nil.
	Open func(ctx context.Context, cmd *cobra.Command, a *access.Address) (*access.Opened, wiring.Cluster, error)
	// Other opens the cluster of another kubeconfig.
	Other func(kubeconfig string) (wiring.Cluster, error)
	Read  func(file string) (*plan.Plan, error)
}

// asked is what all of its commands are asked.
type asked struct {
	access.Address
	to         string
	others     []string
	insecure   []string
	registries bool
}

func (a *asked) flags(flags *pflag.FlagSet) {
	flags.StringVar(&a.to, "to", "", "site that the applications would go to (default: this site, else the first that does not hold them)")
	flags.StringSliceVar(&a.others, "other-kubeconfig", nil, "kubeconfig of another site, to ask it itself; may be repeated")
	flags.StringSliceVar(&a.insecure, "insecure-registry", nil, "registry, host[:port], that is spoken to without TLS")
	flags.BoolVar(&a.registries, "registries", true, "ask registries for images that not every node has")
	a.BreakGlass(flags)
}

// here is an open vault, and the clusters that can be asked.
type here struct {
	*Host
	asked    *asked
	in       *access.Opened
	cluster  wiring.Cluster // nil: none
	clusters []wiring.Cluster
}

func (h *Host) open(ctx context.Context, cmd *cobra.Command, a *asked) (*here, error) {
	h.Progress().Step("opening the vault")
	in, cluster, err := h.Open(ctx, cmd, &a.Address)
	if err != nil {
		return nil, err
	}
	at := &here{Host: h, asked: a, in: in, cluster: cluster}
	if cluster != nil {
		at.clusters = append(at.clusters, cluster)
	}
	for _, file := range a.others {
		other, err := h.Other(file)
		if err != nil {
			return nil, exit.AsUsage(err)
		}
		at.clusters = append(at.clusters, other)
	}
	return at, nil
}

// Options are those of a look ahead from a site, at what these plans' steps take.
func Options(in *access.Opened, clusters []wiring.Cluster, now func() time.Time, plans ...*plan.Plan) foresight.Options {
	var steps []preflight.Right
	for _, p := range plans {
		steps = append(steps, preflight.StepRights(p)...)
	}
	o := foresight.Options{Project: in.Project, Domain: in.Domain, Now: now}
	if len(clusters) > 0 {
		o.Live = func(ctx context.Context, needs []preflight.Need) map[string]*preflight.Site {
			sites := map[string]*preflight.Site{}
			for _, c := range clusters {
				if s := live(ctx, c, in, needs, steps, now); s != nil {
					sites[s.Name] = s
				}
			}
			return sites
		}
	}
	return o
}

// live takes the census of one cluster. One that does not say which site it is
// says nothing.
func live(ctx context.Context, c wiring.Cluster, in *access.Opened, needs []preflight.Need, steps []preflight.Right, now func() time.Time) *preflight.Site {
	site, err := access.LocalSite(ctx, c)
	if err != nil {
		return nil
	}
	o := census.Options{Site: site.Name, Domain: site.Spec.FailureDomain, Needs: needs, Steps: steps, Now: now, Roles: map[string]string{}, Epochs: map[string]int64{}}
	if id, err := access.ClusterID(ctx, c); err == nil {
		o.Cluster = id
	}
	var vaults v1alpha1.VaultList
	if c.List(ctx, &vaults) == nil {
		for _, v := range vaults.Items {
			if v.Spec.CopyOf == "" && (v.Name == in.VaultName || len(vaults.Items) == 1) {
				o.VaultDomain = v.Spec.FailureDomain
			}
		}
	}
	var apps v1alpha1.ApplicationList
	if c.List(ctx, &apps) == nil {
		for i := range apps.Items {
			o.Roles[apps.Items[i].VaultName()] = string(apps.Items[i].Status.Role)
			o.Epochs[apps.Items[i].VaultName()] = apps.Items[i].Status.Epoch
		}
	}
	return c.Census(ctx, o)
}

// options are those of this command.
func (h *here) options(to string, plans ...*plan.Plan) foresight.Options {
	o := Options(h.in, h.clusters, h.Now, plans...)
	if h.asked.registries {
		o.Registry = foresight.Registries(images.Registries{Insecure: h.asked.insecure}, registryPatience, time.Hour)
	}
	if h.cluster != nil && (to == "" || to == h.in.Site) { // the target has the key
		o.Names = func(ctx context.Context, p *plan.Plan) []preflight.Name { return h.cluster.Rehearse(ctx, p, h.Now) }
	}
	return o
}

// target is where a plan would go: where it was asked to, else here, if the
// plan names this site and another holds its applications.
func (h *here) target(ctx context.Context, p *plan.Plan) (string, error) {
	if h.asked.to != "" {
		for _, s := range p.Sites {
			if s.Name == h.asked.to {
				return h.asked.to, nil
			}
		}
		return "", exit.Usage("", "--to %s: plan %s does not name that site", h.asked.to, p.Name)
	}
	from, err := foresight.Holder(ctx, h.in.Project, p)
	if err != nil {
		return "", err
	}
	for _, s := range p.Sites {
		if s.Name == h.in.Site && s.Name != from {
			return s.Name, nil
		}
	}
	return foresight.Other(p, from), nil
}

func (h *here) look(ctx context.Context, p *plan.Plan, verb plan.Verb) (*foresight.Outlook, error) {
	to, err := h.target(ctx, p)
	if err != nil {
		return nil, err
	}
	h.Progress().Step("asking vault, sites, registries and name servers")
	return foresight.Look(ctx, h.options(to, p), p, verb, to)
}
