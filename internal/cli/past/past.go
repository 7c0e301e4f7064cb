// Package past is the command line's `vault revert` and `vault reclaim`: what a
// vault's store keeps of what was overwritten and deleted is brought back, or
// freed.
package past

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/order"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/history"
)

// Host is what the command line gives its commands.
type Host struct {
	// Bounded ends with the command's time.
	Bounded func(*cobra.Command) (context.Context, context.CancelFunc)
	// Store opens the store at an address.
	Store func(ctx context.Context, cmd *cobra.Command, a *access.Address) (vault.Store, error)
	Print func(output.Result) error
	Step  func(format string, args ...any)
	// Say shows people what they are asked to agree to; Ask has them type a name.
	Say func(format string, args ...any)
	Ask func(name, what string) error
	Now func() time.Time
	// Args checks how many arguments there are.
	Args func(n int, names string) cobra.PositionalArgs
}

// least is the shortest time for which what was hidden stays.
const least = 24 * time.Hour

// asked is what the commands share.
type asked struct {
	access.Address
	to     string
	older  time.Duration
	yes    bool
	dryRun bool
}

// Revert makes `vault revert`.
func Revert(h Host) *cobra.Command {
	var o asked
	cmd := &cobra.Command{
		Use:   "revert",
		Short: "Bring back what was overwritten or deleted in a vault whose store keeps versions",
		Long: `Brings back what was overwritten or deleted in the vault since a time, from the former versions that its bucket keeps: after
someone with a site's credentials has harmed it. It takes credentials of the store that the sites do not have, and the recovery key.

What is new since then stays, and nothing that is there now is lost: it stays as former versions, and the command may be given again
with another time. What says what is under way (requests, runs, marks of deletions) does not come back. Revoke the credentials that
were used first: whoever has them goes on.`,
		Example: `  davit vault revert --to 2026-11-27T02:10:00Z --dry-run --vault-url s3://backups/davit --recovery-key-file ./davit-recovery.key`,
		Args:    h.Args(0, ""),
		RunE:    func(cmd *cobra.Command, _ []string) error { return h.revert(cmd, &o) },
	}
	o.BreakGlass(cmd.Flags())
	cmd.Flags().StringVar(&o.to, "to", "", "the last instant at which the vault was well, such as 2026-11-27T02:10:00Z or 3h, by the store's clock")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "say what would come back")
	return cmd
}

// Reclaim makes `vault reclaim`.
func Reclaim(h Host) *cobra.Command {
	var o asked
	cmd := &cobra.Command{
		Use:   "reclaim",
		Short: "Free what was deleted long ago in a vault whose store keeps versions",
		Long: `Destroys the former versions that have been hidden for longer than --older-than in a vault whose bucket keeps them: what was
deleted or replaced since has then gone for good. It takes credentials of the store that the sites do not have, and belongs on a
schedule at a place that is none of them; a lifecycle rule of the bucket does the same.

Nothing that is visible is touched, and no former version of something that Davit never replaces and that is there: somebody
overwrote that, and it is told.`,
		Example: `  davit vault reclaim --older-than 720h --yes --vault-url s3://backups/davit --endpoint https://s3.example.com`,
		Args:    h.Args(0, ""),
		RunE:    func(cmd *cobra.Command, _ []string) error { return h.reclaim(cmd, &o) },
	}
	o.BreakGlass(cmd.Flags())
	cmd.Flags().DurationVar(&o.older, "older-than", 0, "how long it has been hidden, at least 24h, such as 720h")
	cmd.Flags().BoolVar(&o.yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "say what would go")
	return cmd
}

func (h Host) open(ctx context.Context, cmd *cobra.Command, o *asked) (vault.Store, error) {
	if o.URL == "" {
		return nil, exit.Usage("a site's own credentials must not do: give those of the store's owner, and the address", "--vault-url is missing")
	}
	store, err := h.Store(ctx, cmd, &o.Address)
	if err != nil {
		return nil, err
	}
	keeper, ok := history.Of(store)
	if !ok {
		return nil, exit.Refuse("only a bucket with versions does", "%s keeps no former versions", store)
	}
	on, err := keeper.KeepsVersions(ctx)
	if err == nil && !on {
		h.Step("warning: the bucket does not keep versions any more; those that it kept are looked at")
	}
	if errors.Is(err, vault.ErrDenied) { // what is listed tells
		err = nil
	}
	return store, err
}

func (h Host) revert(cmd *cobra.Command, o *asked) error {
	ctx, cancel := h.Bounded(cmd)
	defer cancel()
	to, err := order.Instant(o.to, h.Now())
	if err != nil || to.IsZero() {
		return exit.Usage("give the last instant at which the vault was well, such as 2026-11-27T02:10:00Z or 3h", "--to %q is no time", o.to)
	}
	if to.After(h.Now()) {
		return exit.Usage("", "--to %s is in the future", output.Time(to))
	}
	if o.RecoveryKey == "" {
		return exit.Usage("it opens the vault as it was", "--recovery-key-file is missing")
	}
	key, err := access.ReadIdentity(o.RecoveryKey)
	if err != nil {
		return err
	}
	store, err := h.open(ctx, cmd, o)
	if err != nil {
		return err
	}
	h.Step("reading what the store keeps")
	report, err := history.Revert(ctx, store, history.Reverting{To: to, Project: o.Project, Key: key, DryRun: o.dryRun})
	if errors.Is(err, vault.ErrNotFound) {
		return exit.Refuse("give a later time, and check bucket, prefix and --project", "there is nothing to go back to: %v", err)
	}
	if err != nil {
		return exit.Hint(exit.OfVault(err), "mend the cause and give the same command again: it goes on")
	}
	return h.Print(Reverted{report, to, o.dryRun})
}

func (h Host) reclaim(cmd *cobra.Command, o *asked) error {
	ctx, cancel := h.Bounded(cmd)
	defer cancel()
	if o.older < least {
		return exit.Usage("it is the time that you have to notice that somebody deleted something", "--older-than %s is not possible: at least 24h", o.older)
	}
	store, err := h.open(ctx, cmd, o)
	if err != nil {
		return err
	}
	before := h.Now().Add(-o.older)
	h.Step("reading what the store keeps")
	report, err := history.Reclaim(ctx, store, before, true)
	if err != nil {
		return exit.OfVault(err)
	}
	if o.dryRun || report.Versions == 0 {
		return h.Print(Reclaimed{report, before, o.dryRun})
	}
	if !o.yes {
		h.Say("Destroy %s (%s) in %s that were hidden before %s, %s among them.\n", output.Plural(int64(report.Versions), "former version"),
			output.Bytes(report.Bytes), store, output.Time(before), output.Plural(int64(report.Points), "recovery point"))
		h.Say("  They do not come back.\n")
		if err := h.Ask(o.Project, "the project's name"); err != nil {
			return err
		}
	}
	h.Step("freeing %s", output.Plural(int64(report.Versions), "former version"))
	if report, err = history.Reclaim(ctx, store, before, false); err != nil {
		return exit.OfVault(err)
	}
	return h.Print(Reclaimed{report, before, false})
}

// Reverted is what `vault revert` did.
type Reverted struct {
	history.Reverted
	To     time.Time `json:"to"`
	DryRun bool      `json:"dryRun,omitempty"`
}

// Text says what came back, and what to do next.
func (r Reverted) Text(t *output.Text) {
	verb := "came back"
	if r.DryRun {
		verb = "would come back"
	}
	t.Line("As of %s: %s that had been deleted and %s that had been overwritten %s (%s), %s among them.", output.Time(r.To),
		output.Plural(int64(r.Deleted), "object"), output.Plural(int64(r.Overwritten), "object"), verb, output.Bytes(r.Bytes), output.Plural(int64(r.Points), "recovery point"))
	if r.Since > 0 {
		t.Line("%s came since, and stay.", output.Plural(int64(r.Since), "object"))
	}
	if !r.FirstOverwritten.IsZero() {
		t.Line("What is never replaced was overwritten for the first time at %s: by a repair, or by somebody.", output.Time(r.FirstOverwritten))
	}
	if !r.DryRun && r.Deleted+r.Overwritten > 0 {
		t.Line("Next: `vault check`, and `verify` of what you need. Points that retention had deleted since then are deleted by it again.")
	}
}

// Document is all of it.
func (r Reverted) Document() any { return r }

// Reclaimed is what `vault reclaim` did.
type Reclaimed struct {
	history.Reclaimed
	Before time.Time `json:"before"`
	DryRun bool      `json:"dryRun,omitempty"`
}

// Text says what was freed.
func (r Reclaimed) Text(t *output.Text) {
	verb := "freed"
	if r.DryRun {
		verb = "to be freed"
	}
	t.Line("%s %s (%s) that were hidden before %s, %s among them.", output.Plural(int64(r.Versions-r.Refused), "former version"), verb, output.Bytes(r.Bytes),
		output.Time(r.Before), output.Plural(int64(r.Points), "recovery point"))
	if r.Refused > 0 {
		t.Line("%s stay: the store refused, as they are locked.", output.Plural(int64(r.Refused), "former version"))
	}
	if r.Overwritten > 0 {
		t.Line("%s of what is never replaced stay: a repair or somebody overwrote it. `vault revert --dry-run` says since when.", output.Plural(int64(r.Overwritten), "former version"))
	}
}

// Document is all of it.
func (r Reclaimed) Document() any { return r }
