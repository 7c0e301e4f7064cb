package imagery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/foresight"
	"davit.dev/davit/internal/images"
	"davit.dev/davit/internal/kube/larder"
	"davit.dev/davit/internal/kube/plans"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/plan/document"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/vault"
)

// pulling is what `images pull` is given.
type pulling struct {
	asked
	plan string
	each time.Duration
}

func pullCommand(h Host) *cobra.Command {
	var o pulling
	cmd := &cobra.Command{
		Use:   "pull {APP|POINT | --plan PLAN}",
		Short: "Have this site's nodes pull images before they are needed",
		Long: `Has every node of this site that takes pods pull the images of a recovery point, or of all newest points of a plan's applications and
of the plan's own steps, under the names that pods will have here: after --mirror, the site's overlays and the plan's mappings. A pod
on each node names them, and starts nothing of them; credentials are the Secrets of type kubernetes.io/dockerconfigjson in davit-system.
--dry-run pulls nothing, and says what each node has. What was seen is kept for a day, for plan validate --sites and for
status. A plan with the annotation davit.dev/pull-images: "true" has the agents of its sites do so every hour. Exit code 4 says that a node
lacks an image.`,
		Example: `  davit images pull shop --mirror registry.west.example.com/davit
  davit images pull --plan shop --dry-run`,
		RunE: func(cmd *cobra.Command, given []string) error { return h.pull(cmd, &o, given) },
	}
	flags := cmd.Flags()
	flags.StringVar(&o.plan, "plan", "", "all that runs of this plan need here")
	flags.StringVar(&o.mirror, "mirror", "", "take them from this mirror, host[:port][/path], as images mirror made it")
	flags.BoolVar(&o.dryRun, "dry-run", false, "pull nothing, and say what each node has")
	flags.DurationVar(&o.each, "each", 10*time.Minute, "how long twenty images may take a node")
	o.BreakGlass(flags)
	return cmd
}

func (h Host) pull(cmd *cobra.Command, o *pulling, given []string) error {
	if len(given) > 1 || (len(given) == 1) == (o.plan != "") {
		return exit.Usage("davit images pull shop, or davit images pull --plan shop", "give one of APP, POINT and --plan PLAN")
	}
	if o.mirror != "" {
		if err := (images.Mirror{Base: o.mirror}).Check(); err != nil {
			return exit.AsUsage(err)
		}
	}
	ctx, cancel := h.Bounded(cmd)
	defer cancel()
	c, err := h.Cluster()
	if err != nil {
		return err
	}
	of, names, err := h.named(ctx, cmd, c, o, given)
	if err != nil {
		return err
	}
	nodes, err := larder.Pull(ctx, c, larder.Options{Images: names, Check: o.dryRun, Limit: o.each, Step: h.Step})
	if err != nil {
		return exit.Hint(fmt.Errorf("pull images: %w", err), "it takes the rights to list nodes, and Secrets and Jobs of davit-system")
	}
	found := Pulled{Of: of, DryRun: o.dryRun, Images: len(names), Nodes: nodes}
	if err := larder.Record(ctx, c, nodes, h.Now()); err != nil {
		found.Note = err.Error()
	}
	if err := h.Print(found); err != nil {
		return err
	}
	if found.missing() > 0 {
		return exit.Quietly(exit.Warnings)
	}
	return nil
}

// named are the images, as pods here name them.
func (h Host) named(ctx context.Context, cmd *cobra.Command, c client.Client, o *pulling, given []string) (of string, names []string, err error) {
	if o.plan != "" {
		in, err := h.Vault(ctx, cmd, &o.Address)
		if err != nil {
			return "", nil, err
		}
		p, needs, err := planned(ctx, c, in.Project, o.plan)
		if err != nil {
			return "", nil, err
		}
		names, err = larder.ForPlan(ctx, c, p, in.Site, needs, o.mirror)
		return "plan " + p.Name, names, err
	}
	m, err := h.Point(ctx, cmd, &o.Address, given[0])
	if err != nil {
		return "", nil, err
	}
	w := larder.Wanted{Application: m.Application}
	for _, i := range m.Images {
		w.Images = append(w.Images, preflight.Image{Reference: i.Reference, Digest: i.Digest})
	}
	names, err = larder.Names(ctx, c, []larder.Wanted{w}, o.mirror, nil)
	return "recovery point " + m.ID, names, err
}

// planned finds a plan, and what its applications need as the vault has it.
func planned(ctx context.Context, c client.Client, project *vault.Project, name string) (*plan.Plan, []preflight.Need, error) {
	found, err := plans.Find(ctx, c, project, name)
	if errors.Is(err, plans.ErrUnknown) {
		return nil, nil, exit.Refuse("`plan ls` lists those that there are", "neither this cluster nor the vault has a plan %q", name)
	}
	if err != nil {
		return nil, nil, err
	}
	p := document.Convert(found.Object)
	var apps []string
	for _, a := range p.Applications {
		apps = append(apps, a.Name)
	}
	demands, err := foresight.Demands(ctx, project, apps)
	if err != nil {
		return nil, nil, err
	}
	var needs []preflight.Need
	for _, d := range demands {
		needs = append(needs, d.Need)
	}
	return p, needs, nil
}

// Pulled is what `images pull` did.
type Pulled struct {
	Of     string        `json:"of"`
	DryRun bool          `json:"dryRun,omitempty"`
	Images int           `json:"images"`
	Nodes  []larder.Node `json:"nodes"`
	Note   string        `json:"note,omitempty"`
}

func (p Pulled) missing() int {
	n := 0
	for _, node := range p.Nodes {
		n += node.Missing()
	}
	return n
}

// Document implements output.Result.
func (p Pulled) Document() any { return p }

// Text implements output.Result.
func (p Pulled) Text(t *output.Text) {
	t.Line("%s needs %s here.", p.Of, output.Plural(int64(p.Images), "image"))
	var rows, lacks [][]string
	for _, n := range p.Nodes {
		if n.Closed != "" {
			rows = append(rows, []string{n.Name, "-", n.Closed})
			continue
		}
		rows = append(rows, []string{n.Name, fmt.Sprintf("%d of %d", len(n.Images)-n.Missing(), len(n.Images)), ""})
		for _, i := range n.Images {
			if !i.Present {
				lacks = append(lacks, []string{n.Name, i.Name, i.Why})
			}
		}
	}
	t.Table("", output.Columns("NODE", "HAS", "NOTE"), rows)
	if len(lacks) > 0 {
		t.Line("")
		t.Table("", output.Columns("NODE", "LACKS", "WHY"), lacks)
	}
	if p.Note != "" {
		t.Line("")
		t.Line("Not kept for preflight: %s", p.Note)
	}
}
