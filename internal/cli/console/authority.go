package console

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/console"
	"davit.dev/davit/internal/console/agents"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/vault"
)

type rotation struct {
	dir, project string
	retire       bool
	behind       []string
	admit        []string
}

func authorityCommand(h Host) *cobra.Command {
	var o rotation
	cmd := &cobra.Command{
		Use:   "authority",
		Short: "Show a project's certificate authorities, and whose agents do not know the newest",
		Long: `Shows which certificate authorities a project has, which of them are trusted, and which sites' agents have no certificate of the
newest yet. "davit console authority rotate" begins another one.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return h.authority(cmd, o, nil) },
	}
	rotate := &cobra.Command{
		Use:   "rotate",
		Short: "Replace a project's certificate authority, whose key may be stolen",
		Long: `Begins another certificate authority of a project, beside the one that there is. The active console takes it up by itself; both are
trusted from then on, and agents that are connected get certificates of the newer one at once, the others when they call next. Then, --retire
ends the trust in the former one: what it signed lets nobody in any more, and the console serves with a certificate of the newer one. Give browsers
and clients DIR/ca.pem anew before that: it vouches for both. Backups that were made before stay readable;
what anybody seals by the former one later is refused. The console has to be served for that.

It refuses to retire while agents have no certificate of the newest, for they would have to be enrolled anew; --leave-behind names those that may.
The newer one is open to the consoles and recovery keys that the former is open to, if they open the project still. Where an earlier version of
Davit let them in, nothing shows that it was not somebody else, such as a site: it refuses and names them, and --admit says which it may be.
"davit vault keys ls" says whose key each is. If no recovery key is among them, as it was removed since, it refuses too: --admit lets in one that
was made later, "davit vault keys admit --new-recovery-key-file" makes one. It then opens what the former authority sealed as well.

Whoever has the former authority's key can pose as console and agents until it is retired: if it is stolen, do not wait for sites that are away.`,
		Example: `  davit console authority rotate --data /var/lib/davit-console
  davit console authority --data /var/lib/davit-console            # who is not over yet
  davit console authority rotate --data /var/lib/davit-console --retire`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.retire && len(o.admit) > 0 {
				return exit.Usage("", "--admit goes without --retire")
			}
			if o.retire {
				return h.authority(cmd, o, h.retire)
			}
			if len(o.behind) > 0 {
				return exit.Usage("", "--leave-behind goes with --retire")
			}
			return h.authority(cmd, o, h.rotate)
		},
	}
	flags := cmd.PersistentFlags()
	flags.StringVar(&o.dir, "data", "", "the console's directory")
	flags.StringVar(&o.project, "project", "default", "the project")
	rotate.Flags().BoolVar(&o.retire, "retire", false, "end the trust in the former authority")
	rotate.Flags().StringSliceVar(&o.behind, "leave-behind", nil, "sites whose agents may be shut out until they are enrolled anew")
	rotate.Flags().StringSliceVar(&o.admit, "admit", nil, "recipients (age1…) to let in: recovery keys that were made later, and those of whom nothing shows who let them in before; others of those stay out")
	cmd.AddCommand(rotate)
	return cmd
}

// change is what is done to a project's authorities.
type change func(context.Context, held, *vault.Project, vault.Identity, rotation) (*authority.Authority, error)

// held are a project's database and the console's own.
type held struct {
	project *store.Project
	console *store.Console
}

// note says in the logs what is about to be done.
func (c held) note(ctx context.Context, act audit.Act, action, detail string) error {
	r := audit.Record{Action: action, Object: c.project.Name, Detail: detail}
	return errors.Join(c.project.Note(ctx, act, r), c.console.Note(ctx, act, r))
}

func (h Host) rotate(ctx context.Context, c held, p *vault.Project, id vault.Identity, o rotation) (*authority.Authority, error) {
	if err := c.note(ctx, h.act(), "authority.rotate", ""); err != nil {
		return nil, err
	}
	a, err := authority.Rotate(ctx, p, id, h.Now(), o.admit...)
	if errors.Is(err, authority.ErrUnproven) {
		return a, exit.Refuse("`davit vault keys ls` says whose each is: give those of consoles and recovery keys in --admit, the rest stays out", "%v", err)
	}
	if errors.Is(err, authority.ErrNoRecovery) || errors.Is(err, authority.ErrNamed) {
		return a, exit.Refuse("give a recovery key in --admit: `davit vault keys ls` lists them (age1…, of no site and no console), `davit vault keys admit --new-recovery-key-file FILE` makes one", "%v", err)
	}
	if errors.Is(err, authority.ErrOverlap) {
		return a, exit.Refuse("`davit console authority rotate --retire` does", "%v", err)
	}
	return a, err
}

// How often, and how long between, it is tried to retire an authority by which the console
// writes still: it takes up the newest while it is tried.
const (
	retireTries = 10
	retirePause = 3 * time.Second
)

func (h Host) retire(ctx context.Context, c held, p *vault.Project, id vault.Identity, o rotation) (*authority.Authority, error) {
	a, err := authority.Read(ctx, p, id)
	if err != nil {
		return nil, err
	}
	if a.Number == 1 {
		return nil, exit.Refuse("`davit console authority rotate` does, without --retire", "%v", authority.ErrOnly)
	}
	sites, err := late(ctx, c.project, a.Number)
	if err != nil {
		return nil, err
	}
	sites = slices.DeleteFunc(sites, func(site string) bool { return slices.Contains(o.behind, site) })
	if len(sites) > 0 {
		return nil, exit.Refuse("wait until they have called, or shut them out until they are enrolled anew: --leave-behind "+strings.Join(sites, ","),
			"agents of %d sites have no certificate of the newest authority: %s", len(sites), strings.Join(sites, ", "))
	}
	a, err = h.retireWhenWritten(ctx, c, p, id, o)
	if errors.Is(err, authority.ErrInUse) {
		return nil, exit.Refuse("serve the console of this directory (`davit console --data DIR`), and try again; if it is served, whoever has the former authority may have laid that object there: take it away", "%v", err)
	}
	return a, err
}

// retireWhenWritten retires once the console writes by the newest authority.
func (h Host) retireWhenWritten(ctx context.Context, c held, p *vault.Project, id vault.Identity, o rotation) (*authority.Authority, error) {
	for try := 1; ; try++ {
		// The logs' journals go on with it, by the newest authority then.
		if err := c.note(ctx, h.act(), "authority.retire", strings.Join(o.behind, ",")); err != nil {
			return nil, err
		}
		_ = console.Sent(ctx, c.project) && console.Sent(ctx, c.console)
		a, err := authority.Retire(ctx, p, id, h.Now(), c.console.ID())
		if !errors.Is(err, authority.ErrInUse) || try == retireTries {
			return a, err
		}
		h.Progress().Step("waiting until the console writes by the newest authority")
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(retirePause):
		}
	}
}

// late are the sites whose agents have not called this console with a certificate of the
// newest authority.
func late(ctx context.Context, p *store.Project, newest int64) ([]string, error) {
	all, err := p.Agents(ctx)
	if err != nil || newest == 1 {
		return nil, err
	}
	var sites []string
	for _, a := range all {
		by, err := agents.Issuer(ctx, p, a.Site)
		if err != nil {
			return nil, err
		}
		if by != newest {
			sites = append(sites, a.Site)
		}
	}
	return sites, nil
}

// authority changes a project's authorities, or does nothing to them, and shows them.
func (h Host) authority(cmd *cobra.Command, o rotation, do change) (err error) {
	ctx, cancel := h.Bounded(cmd)
	defer cancel()
	if o.dir == "" {
		return exit.Usage("", "--data is missing")
	}
	open := h.open
	if do == nil {
		open = store.Open // a passive one knows it too
	}
	c, err := open(ctx, o.dir)
	if err != nil {
		return explain(err, o.dir)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	project, err := c.Project(ctx, o.project)
	if errors.Is(err, store.ErrNotFound) {
		return exit.Refuse("", "the console in %s has no project %s", o.dir, o.project)
	}
	if err != nil {
		return explain(err, o.dir)
	}
	var way fleet.Binding
	if err := project.Secret(ctx, fleet.BindingSecret, &way); err != nil {
		return err
	}
	p, identity, err := way.Project(ctx, h.Opener().Store)
	if err != nil {
		return err
	}
	var a *authority.Authority
	if do == nil {
		a, err = authority.Read(ctx, p, identity)
	} else {
		a, err = do(ctx, held{project, c}, p, identity, o)
	}
	if err != nil {
		return err
	}
	sites, err := late(ctx, project, a.Number)
	if err != nil {
		return err
	}
	return h.Print(shown(project.Name, a, sites))
}

func shown(project string, a *authority.Authority, sites []string) Authorities {
	out := Authorities{Project: project, Late: sites}
	for i, one := range append([]*authority.Authority{a}, a.Former...) {
		state := "trusted"
		switch {
		case i == 0:
			state = "newest"
		case one.Retired:
			state = "retired"
		}
		out.Items = append(out.Items, Authority{Number: one.Number, State: state, Pin: uplink.Pin(one.Certificate)})
	}
	return out
}

// Authorities are a project's, as `console authority` shows them.
type Authorities struct {
	Project string      `json:"project"`
	Items   []Authority `json:"authorities"`
	// Late are the sites whose agents have no certificate of the newest.
	Late []string `json:"late,omitempty"`
}

// Authority is one of them.
type Authority struct {
	Number int64  `json:"number"`
	State  string `json:"state"` // newest, trusted or retired
	Pin    string `json:"pin"`   // SHA-256 of its certificate
}

// Document implements output.Result.
func (a Authorities) Document() any { return a }

// Text implements output.Result.
func (a Authorities) Text(t *output.Text) {
	overlap := false
	for _, one := range a.Items {
		t.Line("authority %d of %s: %s, SHA-256 %s", one.Number, a.Project, one.State, one.Pin)
		overlap = overlap || one.State == "trusted"
	}
	switch {
	case len(a.Late) > 0:
		t.Line("Without a certificate of the newest: the agents of %s.", strings.Join(a.Late, ", "))
	case len(a.Items) > 1:
		t.Line("All agents have certificates of the newest.")
	}
	if overlap {
		t.Line("Give browsers and clients the console's ca.pem anew, then: davit console authority rotate --retire")
	}
}
