package running

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/register"
)

// Given is a run that was given up at a site.
type Given struct {
	Run    string `json:"run"`
	Site   string `json:"site"`
	Reason string `json:"reason"`
	// LetGo are the applications that the run held at rest here.
	LetGo []string `json:"letGo"`
}

// Document implements output.Result.
func (g Given) Document() any { return g }

// Text implements output.Result.
func (g Given) Text(t *output.Text) {
	t.Line("Run %s is given up at site %s. It lets go %s.", g.Run, g.Site, strings.Join(g.LetGo, ", "))
	t.Line("What it had stopped starts again where this site may write, within seconds. What makes applications from git and was suspended for it: resume it yourself.")
}

func (h *Host) abandonCommand() *cobra.Command {
	var a access.Address
	var reason string
	var yes bool
	cmd := &cobra.Command{
		Use: "abandon RUN", Short: "Let go what a run holds here that was lost with its vault", Args: operands(1, 1, "one RUN"),
		Long: `Lets go the applications that a run holds at rest at this site, and notes in the vault who gave it up and why. Only a run that is over, or of
which this site's vault knows nothing, as after "vault promote": one that can be carried is refused (3), and so it is while the vault is silent.
What it stopped starts again where this site may write. That nobody carries it in another vault nobody can see but you.`,
		RunE: func(cmd *cobra.Command, given []string) error {
			if strings.TrimSpace(reason) == "" {
				return exit.Usage("", "give --reason: it is kept in the vault")
			}
			ctx, cancel := h.Bounded(cmd)
			defer cancel()
			in, cluster, err := h.Open(ctx, cmd, &a, "")
			if err != nil {
				return err
			}
			confirm := func() error {
				return h.AskFor(given[0], "the run's name, to say that nobody carries it in another vault")
			}
			if yes {
				confirm = func() error { return nil }
			}
			g, err := abandon(ctx, cluster, register.New(in.Project), in.VaultName, confirm, register.Abandoned{
				Run: given[0], Site: in.Site, By: cluster.User(ctx), Reason: reason, At: h.Now(),
			})
			if errors.Is(err, register.ErrCarried) {
				return exit.Refuse("`runs cancel`, `runs rollback` or `runs take-over` end it", "%v", err)
			}
			if err != nil {
				return err
			}
			return h.Print(g)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for whoever reads it later")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	a.BreakGlass(cmd.Flags())
	return cmd
}

// abandon notes that a run is given up, and then lets go what it holds.
func abandon(ctx context.Context, c client.Client, r register.Register, vault string, confirm func() error, a register.Abandoned) (Given, error) {
	g := Given{Run: a.Run, Site: a.Site, Reason: a.Reason}
	held, err := heldBy(ctx, c, vault, a.Run)
	if err != nil {
		return g, err
	}
	if len(held) == 0 {
		return g, exit.Refuse("`davit describe application` says what holds one", "run %s holds nothing at site %s that is protected in vault %s", a.Run, a.Site, vault)
	}
	for _, app := range held {
		a.Applications = append(a.Applications, app.VaultName())
	}
	if err := r.Idle(ctx, a.Run); err != nil {
		return g, err
	}
	if err := confirm(); err != nil {
		return g, err
	}
	if err := r.Abandon(ctx, a); err != nil {
		return g, err
	}
	for _, app := range held {
		if err := letGo(ctx, c, client.ObjectKeyFromObject(&app), a.Run); err != nil {
			return g, fmt.Errorf("let application %s go: %w; give the command again", app.VaultName(), err)
		}
		g.LetGo = append(g.LetGo, app.VaultName())
	}
	return g, nil
}

// heldBy are the applications with a vault that a run holds at rest.
func heldBy(ctx context.Context, c client.Client, vault, run string) ([]v1alpha1.Application, error) {
	var all v1alpha1.ApplicationList
	if err := c.List(ctx, &all); err != nil {
		return nil, fmt.Errorf("list applications: %w", err)
	}
	return slices.DeleteFunc(all.Items, func(a v1alpha1.Application) bool {
		return a.Spec.Vault != vault || !slices.Contains(a.HeldBy(), run)
	}), nil
}

// letGo takes a run's hold off; those of others stay.
func letGo(ctx context.Context, c client.Client, key client.ObjectKey, run string) error {
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		var app v1alpha1.Application
		if err := c.Get(ctx, key, &app); err != nil {
			return err
		}
		left := slices.DeleteFunc(app.HeldBy(), func(r string) bool { return r == run })
		old := app.DeepCopy()
		delete(app.Annotations, v1alpha1.AnnotationHeldBy)
		if len(left) > 0 {
			app.Annotations[v1alpha1.AnnotationHeldBy] = strings.Join(left, ",")
		}
		return c.Patch(ctx, &app, client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{}))
	})
}
