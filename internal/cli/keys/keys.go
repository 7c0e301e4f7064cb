// Package keys is the command line's `vault keys`: who can open a project of a
// vault, and with which data key new data is sealed.
package keys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/admission"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/vault"
)

// Host is what the command line gives its commands.
type Host struct {
	// Bounded ends with the command's time.
	Bounded func(*cobra.Command) (context.Context, context.CancelFunc)
	// Open opens the vault by its address, or as this site does.
	Open  func(ctx context.Context, cmd *cobra.Command, a *access.Address) (*access.Opened, error)
	Print func(output.Result) error
	Step  func(format string, args ...any)
	// Say shows people what they are asked to agree to; Ask has them type a name.
	Say func(format string, args ...any)
	Ask func(name, what string) error
	Now func() time.Time
	// Args checks how many arguments there are.
	Args func(n int, names string) cobra.PositionalArgs
}

// lives is how old a sign of life may be of a site that must know key versions.
const lives = 5 * time.Minute

// asked is what the commands share.
type asked struct {
	access.Address
	wait    time.Duration
	volumes bool
	newKey  string
	yes     bool
	dryRun  bool
}

// Command makes `vault keys`.
func Command(h Host) *cobra.Command {
	cmd := &cobra.Command{
		Use: "keys", Short: "Say who can open a vault, and rotate its data key", Args: h.Args(0, "one of: ls, rotate, admit, remove"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(lsCommand(h), rotateCommand(h), admitCommand(h), removeCommand(h))
	return cmd
}

func lsCommand(h Host) *cobra.Command {
	var o asked
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the versions of the data key, and who can open the newest",
		Args: h.Args(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return h.with(cmd, &o, func(_ context.Context, _ *access.Opened, now *Keys) error { return h.Print(*now) })
		},
	}
	o.BreakGlass(cmd.Flags())
	return cmd
}

func rotateCommand(h Host) *cobra.Command {
	var o asked
	cmd := &cobra.Command{
		Use: "rotate", Short: "Make a new data key, with which everything new is sealed",
		Long: `Makes a new data key of the project and wraps it for everyone who has the present one. What is sealed from then on is sealed
with the new key; what is there stays as it is, and readable. All sites take the key up by themselves, within a minute: the
command waits for that, for --wait at the most. A capture that runs meanwhile is whole: each object says which key it has.

The data of volumes lies in repositories with keys of their own. With --volumes, each site begins a new one: its next captures
read every volume whole and store it once more, and old points stay in the old one.`,
		Args: h.Args(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return h.with(cmd, &o, func(ctx context.Context, in *access.Opened, now *Keys) error {
				return h.rotate(ctx, in, now, &o, vault.Rotation{Volumes: o.volumes})
			})
		},
	}
	o.rotationFlags(cmd)
	cmd.Flags().BoolVar(&o.volumes, "volumes", false, "begin new volume repositories too: the next captures store every volume once more")
	return cmd
}

func admitCommand(h Host) *cobra.Command {
	var o asked
	cmd := &cobra.Command{
		Use:   "admit [RECIPIENT]",
		Short: "Let one more key open the vault",
		Long: `Wraps the data key for one more recipient, age1..., or makes a new recovery key, writes it to --new-recovery-key-file and
admits that. Who is admitted can read everything, what is older included. A site is admitted by vault add --join.`,
		Example: `  davit vault keys admit --new-recovery-key-file ./davit-recovery-2.key`,
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) > 1 || (len(given) == 0) == (o.newKey == "") {
				return exit.Usage("", "admit takes either a RECIPIENT, age1..., or --new-recovery-key-file")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, given []string) error {
			return h.with(cmd, &o, func(ctx context.Context, in *access.Opened, now *Keys) error {
				return h.admit(ctx, in, now, &o, given)
			})
		},
	}
	o.BreakGlass(cmd.Flags())
	cmd.Flags().StringVar(&o.newKey, "new-recovery-key-file", "", "make a new recovery key and write it to this file, which must not exist")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "say who would be admitted")
	return cmd
}

func removeCommand(h Host) *cobra.Command {
	var o asked
	cmd := &cobra.Command{
		Use:   "remove SITE|RECIPIENT",
		Short: "Shut a site or key out of everything that is written from now on",
		Long: `Makes a new data key for all recipients but the one to be removed: a site by its name, or any key as age1.... The removed one
cannot read what is written from then on, nor write what others take for theirs under the new key; its agent says WrongKey and
captures nothing. Each site begins a new volume repository, so its next captures store every volume once more.

What was written before can still be read by who kept the old key, and whoever has the store's credentials can still delete and
overwrite there. So change the credentials at the store too, and give the sites the new ones: vault add --join --replace.`,
		Args: h.Args(1, "a SITE or RECIPIENT"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return h.with(cmd, &o, func(ctx context.Context, in *access.Opened, now *Keys) error {
				return h.remove(ctx, in, now, &o, given[0])
			})
		},
	}
	o.rotationFlags(cmd)
	cmd.Flags().BoolVar(&o.yes, "yes", false, "do not ask")
	return cmd
}

func (o *asked) rotationFlags(cmd *cobra.Command) {
	o.BreakGlass(cmd.Flags())
	cmd.Flags().DurationVar(&o.wait, "wait", 90*time.Second, "how long to wait until all sites that live have taken the new key up")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "say what would be done")
}

// with opens the vault, looks who has which key, and goes on.
func (h Host) with(cmd *cobra.Command, o *asked, fn func(context.Context, *access.Opened, *Keys) error) error {
	ctx, cancel := h.Bounded(cmd)
	defer cancel()
	in, err := h.Open(ctx, cmd, &o.Address)
	if err != nil {
		return err
	}
	now, err := look(ctx, in.Project, h.Now())
	if err != nil {
		return err
	}
	return fn(ctx, in, now)
}

// rotate makes the new key and waits for the sites.
func (h Host) rotate(ctx context.Context, in *access.Opened, now *Keys, o *asked, r vault.Rotation) error {
	if old := now.olderSites(); len(old) > 0 {
		return exit.Refuse("upgrade them with `install`, wait a minute, and try again",
			"the agents of these sites know no key versions, and would take new data for damaged: %s", strings.Join(old, ", "))
	}
	if o.dryRun {
		now.DryRun = true
		return h.Print(*now)
	}
	h.Step("making a new data key")
	v, err := in.Project.Rotate(ctx, r)
	if errors.Is(err, vault.ErrExists) {
		return exit.Refuse("", "%v", err)
	}
	if err != nil {
		return err
	}
	until := h.Now().Add(o.wait)
	for {
		if now, err = look(ctx, in.Project, h.Now()); err != nil {
			return exit.Hint(err, fmt.Sprintf("version %d of the data key is made; `vault keys ls` says who has taken it up", v.Number))
		}
		if len(now.behind()) == 0 || !h.Now().Before(until) {
			break
		}
		h.Step("waiting for %s to take up the new key", strings.Join(now.behind(), ", "))
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
	now.Rotated = true
	for _, gone := range r.Remove {
		now.Removed = append(now.Removed, gone.String())
	}
	if err := h.Print(*now); err != nil {
		return err
	}
	if len(now.behind()) > 0 {
		return exit.Quietly(exit.Warnings)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

func (h Host) admit(ctx context.Context, in *access.Opened, now *Keys, o *asked, given []string) error {
	var r vault.Recipient
	if len(given) == 1 {
		var err error
		if r, err = vault.ParseRecipient(given[0]); err != nil {
			return exit.Usage("a recipient is the line that begins with age1; a site is admitted by `vault add --join`", "%v", err)
		}
	}
	if o.dryRun {
		now.DryRun = true
		return h.Print(*now)
	}
	if o.newKey != "" {
		key, err := vault.NewRecoveryKey()
		if err != nil {
			return err
		}
		if err := admission.WriteKey(o.newKey, in.Project.Name(), in.Project.Store().String(), key); err != nil {
			return err
		}
		r = key.Recipient()
	}
	h.Step("admitting %s", r)
	if err := in.Project.AddRecipient(ctx, r); err != nil {
		return err
	}
	now, err := look(ctx, in.Project, h.Now())
	if err != nil {
		return err
	}
	now.Admitted, now.KeyFile = r.String(), o.newKey
	return h.Print(*now)
}

func (h Host) remove(ctx context.Context, in *access.Opened, now *Keys, o *asked, named string) error {
	who, err := now.find(named)
	if err != nil {
		return err
	}
	gone, err := vault.ParseRecipient(who.Recipient)
	if err != nil {
		return err
	}
	if gone.String() == in.Project.Opener().String() {
		return exit.Refuse("run this at another site, or with --vault-url and the recovery key", "%s is the key that this command opens the vault with", named)
	}
	stays := func(r Recipient) bool { return r.Recipient != who.Recipient && r.Site == "" && r.Console == "" }
	if !slices.ContainsFunc(now.Recipients, stays) {
		return exit.Refuse("`vault keys admit --new-recovery-key-file FILE` makes one", "without %s no recovery key is left: with the sites, everything would be lost", named)
	}
	if !o.yes && !o.dryRun {
		h.Say("Shut %s out of project %s.\n", who.name(), in.Project.Name())
		h.Say("  It cannot read what is written from now on. What was written before, whoever kept its key can still read.\n")
		h.Say("  It can delete and overwrite until the store's credentials are changed: do that as well.\n")
		h.Say("  The next capture of every volume, at each site, stores all of it once more.\n")
		if err := h.Ask(named, "who is removed"); err != nil {
			return err
		}
	}
	return h.rotate(ctx, in, now, o, vault.Rotation{Volumes: true, Remove: []vault.Recipient{gone}})
}
