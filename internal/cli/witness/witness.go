// Package witness is the command line's `witness`: a vantage point that needs
// nothing but the vault.
package witness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/kube/plans"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/probe"
	"davit.dev/davit/internal/vantage"
	"davit.dev/davit/internal/vault"
)

// plansEvery is how often it is looked for plans that are declared automatically.
const plansEvery = 30 * time.Second

// Host is what the command line gives its commands.
type Host struct {
	Err    io.Writer
	Now    func() time.Time
	Opener func() *access.Opener
}

type given struct {
	access.Address
	name string
}

// Command makes `witness`.
func Command(h Host) *cobra.Command {
	var g given
	cmd := &cobra.Command{
		Use:   "witness --name NAME",
		Short: "Watch from a third place whether sites live, for automatic declaration",
		Long: `Runs until it is stopped. Every 5 s it looks in the vault whether the sites of plans with automatic declaration give signs of
life, and says there, under its name, what it sees. Plans name it in declaration.vantages. By itself it declares and changes nothing.

It needs the vault alone. Give --vault-url, and as --recovery-key-file a key of its own, which "davit vault keys admit
--new-recovery-key-file" makes; without --vault-url it asks the kubeconfig's cluster for its Vault. Run it where no site's loss takes it
along. Where plans have probes, it asks them of sites that are silent: it must reach what they name.`,
		Example: `  davit vault keys admit --new-recovery-key-file ./witness.key
  davit witness --name witness --vault-url s3://backups/davit --endpoint https://s3.example.com --recovery-key-file ./witness.key`,
		Args: func(_ *cobra.Command, given []string) error {
			if len(given) > 0 {
				return exit.Usage("", "witness takes no arguments, but was given %q", given)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return h.run(cmd, &g) },
	}
	cmd.Flags().StringVar(&g.name, "name", "", "what plans call this vantage point")
	g.BreakGlass(cmd.Flags())
	return cmd
}

func (h Host) run(cmd *cobra.Command, g *given) error {
	if err := vault.CheckName(g.name); err != nil {
		return exit.Usage("give --name, as in the plans' declaration.vantages", "--name %q: %v", g.name, err)
	}
	ctx := cmd.Context()
	in, err := h.open(ctx, cmd, g)
	if err != nil {
		return err
	}
	if err := free(ctx, in.Project, g.name); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(h.Err, nil))
	known := &plans.Automatic{Every: plansEvery, Now: h.Now}
	post := &vantage.Post{Name: g.name, Plans: known.Plans, Ask: ask, Now: h.Now, Log: log}
	log.Info("witness watches", "vantage", g.name, "vault", in.Project.Store().String())
	post.Run(ctx, func(context.Context) (*vault.Project, error) { return in.Project, nil })
	return exit.Quietly(exit.OK) // a signal ends it as it should
}

func (h Host) open(ctx context.Context, cmd *cobra.Command, g *given) (*access.Opened, error) {
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	o := h.Opener()
	var none client.Client // asked for only without an address
	in, err := o.Open(limited, none, &g.Address, cmd.Flags())
	if err == nil && in.Project.IsCopy() {
		return nil, exit.Refuse("give the first vault", "this is a second copy of a vault: no site says in it that it lives")
	}
	return in, err
}

// free refuses the name of a site: the witness's word would be its sign of life.
func free(ctx context.Context, p *vault.Project, name string) error {
	_, err := p.Site(ctx, name)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("look whether a site is called %s: %w", name, err)
	}
	return exit.Refuse("its agent is a vantage point already; give the witness a name of its own", "%s is a site", name)
}

func ask(ctx context.Context, c plan.Check) error {
	_, err := probe.Asker{}.Ask(ctx, c)
	return err
}
