package console

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/order"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/view"
	"davit.dev/davit/internal/console"
	"davit.dev/davit/internal/console/backup"
	"davit.dev/davit/internal/console/journal"
	"davit.dev/davit/internal/console/past"
	"davit.dev/davit/internal/console/store/directory"
	"davit.dev/davit/internal/vault"
)

func restoreCommand(h Host) *cobra.Command {
	var address access.Address
	o, at, list := console.Restore{}, "", false
	cmd := &cobra.Command{
		Use:   "restore",
		Short: "Bring a lost console, or one project of it, back from the vault",
		Long: `Brings a console back from its newest backups, on a machine that has nothing of it: users, roles, documents, audit logs, keys. What was
changed after them comes from the console's journal in the vaults, so nothing that was acknowledged is lost. It needs the vault of the console's first project and that project's recovery key; the ways into other projects' vaults are in the backup. Backups that are
damaged are passed over for the one before, and the audit logs are read to the end.

With --project only that project is brought back: into the console in --data if there is one, from that project's vault and with its recovery key.
What is there is not overwritten without --replace, and then put aside. The console in --data must not be served meanwhile.

With --at, what people defined goes back to what it was then, after a wrong bulk change or what somebody hostile did: documents, members and their roles,
who is let in; robots' tokens that were made since are revoked. That is made of changes on top of all that was there, which the audit log has: nothing is left
out of that. What happened stays: events, runs and restores that were asked for, which sites were let in or shut out, passwords, tokens that were revoked. --list
says which backups there are; the journal's records, which fill the time between two of them, are kept for an hour and two backups. --dry-run says what
would change, also beside a console that is served. Stop every console of the vault before, and serve this one first.`,
		Example: `  davit console restore --data /var/lib/davit-console --vault-url s3://backups/davit --endpoint https://s3.example.com \
    --recovery-key-file ./davit-recovery.key
  davit console restore --data /var/lib/davit-console --project shop --replace --at "2026-01-31 15:04" --dry-run \
    --vault-url s3://shop/davit --recovery-key-file ./shop-recovery.key`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.At, err = order.Instant(at, h.Now()); err != nil {
				return err
			}
			switch {
			case list && (at != "" || o.Replace || o.Dry):
				return exit.Usage("", "--list changes nothing: leave --at, --replace and --dry-run out")
			case o.Dry && at == "":
				return exit.Usage("name a time with --at", "--dry-run says what would go back, and there is nothing to go back to")
			case list:
				return h.listBackups(cmd, &address, o)
			}
			return h.restore(cmd, &address, o)
		},
	}
	flags := restoreFlags(cmd, &address, &o)
	flags.Lookup("project").DefValue = ""
	flags.Lookup("project").Usage = "bring back only this project of the console (default: all)"
	flags.BoolVar(&o.Replace, "replace", false, "put what is in --data aside")
	flags.StringVar(&at, "at", "", "have what people defined go back to this time: 2026-01-31T15:04:05Z, \"2026-01-31 15:04\" (UTC), or 10m for ten minutes ago")
	flags.BoolVar(&o.Dry, "dry-run", false, "with --at: say what would change, and change nothing")
	flags.BoolVar(&list, "list", false, "list the backups that there are of each database, and restore nothing")
	return cmd
}

func restoreFlags(cmd *cobra.Command, address *access.Address, o *console.Restore) *pflag.FlagSet {
	flags := cmd.Flags()
	address.BreakGlass(flags)
	flags.StringVar(&o.Dir, "data", "", "the console's directory; made if it is not there")
	flags.StringVar(&o.Console, "console", "", "id of the console, where the vault keeps several")
	return flags
}

func joinCommand(h Host) *cobra.Command {
	var address access.Address
	o, unattended := console.Restore{Join: true}, false
	cmd := &cobra.Command{
		Use:   "join",
		Short: "Make a second console that takes over from one that is lost",
		Long: `Makes a directory, on another machine, that serves the same console: it follows the active one through the vaults and takes over when that is silent
for 9s. The two share nothing but the vaults, and need not reach each other. --vault-url is the vault of the console's first project, which has
to hold a backup of the console: one that is served makes one within a minute.`,
		Example: `  davit console join --data /var/lib/davit-console --vault-url s3://backups/davit --endpoint https://s3.example.com \
    --recovery-key-file ./davit-recovery.key
  davit console --data /var/lib/davit-console --listen :8443 --name console-b.example.com`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if unattended {
				return h.joinUnattended(cmd, &address, o)
			}
			return h.restore(cmd, &address, o)
		},
	}
	flags := restoreFlags(cmd, &address, &o)
	flags.BoolVar(&unattended, "unattended", false, "for pods and services: where --data holds a console do nothing, and while the vault does not answer try again")
	flags.Lookup("project").DefValue = ""
	flags.Lookup("project").Usage = "not needed: a second console has all projects"
	return cmd
}

// unattendedPause is between two tries of a join that nobody looks at.
const unattendedPause = 3 * time.Second

// joinUnattended joins, as what starts a console does each time: once is enough, and
// a vault that is silent is asked again.
func (h Host) joinUnattended(cmd *cobra.Command, address *access.Address, o console.Restore) error {
	for {
		if o.Dir != "" {
			held, err := directory.Holds(o.Dir)
			if err != nil {
				return explain(err, o.Dir)
			}
			if held {
				return h.Print(view.Done(o.Dir + " holds a console already: nothing was changed."))
			}
		}
		err := h.restore(cmd, address, o)
		if !errors.Is(err, vault.ErrUnavailable) {
			return err
		}
		h.Progress().Note("%v; trying again in %s", err, unattendedPause)
		select {
		case <-cmd.Context().Done():
			return err
		case <-time.After(unattendedPause):
		}
	}
}

func (h Host) restore(cmd *cobra.Command, address *access.Address, o console.Restore) error {
	ctx, cancel := h.Bounded(cmd)
	defer cancel()
	if o.Dir == "" {
		return exit.Usage("", "--data is missing")
	}
	if err := h.breakGlass(ctx, cmd, address, &o); err != nil {
		return err
	}
	h.Progress().Step("looking for the console's backups")
	r, err := o.Run(ctx)
	if err != nil {
		return notBack(err, o)
	}
	if err := h.Print(Back{Restoration: r, join: o.Join}); err != nil {
		return err
	}
	if !r.Whole() {
		return exit.Hint(errors.New("not all projects came back"), "davit console restore --data "+o.Dir+" --project NAME, with that project's vault and recovery key")
	}
	return nil
}

// breakGlass opens the vault with the recovery key.
func (h Host) breakGlass(ctx context.Context, cmd *cobra.Command, address *access.Address, o *console.Restore) (err error) {
	switch {
	case address.URL == "":
		return exit.Usage("write s3://BUCKET/PREFIX or file:///DIRECTORY", "--vault-url is missing")
	case address.RecoveryKey == "":
		return exit.Usage("it was written when the project was made", "--recovery-key-file is missing")
	}
	if o.Join && cmd.Flags().Changed("project") {
		return exit.Usage("leave --project out", "a second console has all projects of the first")
	}
	if cmd.Flags().Changed("project") {
		o.Only = address.Project
	}
	opener := h.Opener()
	if o.Config, err = opener.Config(address, cmd.Flags()); err != nil {
		return err
	}
	if o.Recovery, err = access.ReadIdentity(address.RecoveryKey); err != nil {
		return err
	}
	o.Open, o.Act = opener.Store, h.act()
	o.Vault, err = opener.Store(ctx, o.Config)
	return err
}

// notBack says what to do about a restore that was not.
func notBack(err error, o console.Restore) error {
	switch {
	case errors.Is(err, console.ErrThere) && o.Join:
		return exit.Refuse("give a directory of its own", "%v", err)
	case errors.Is(err, console.ErrThere):
		return exit.Refuse("--replace puts it aside and restores", "%v", err)
	case errors.Is(err, console.ErrWhich):
		return exit.Refuse("name one with --console ID", "%v", err)
	case errors.Is(err, past.ErrServed):
		return exit.Refuse("stop every console of this vault, go back, and serve this one first", "%v", err)
	case errors.Is(err, journal.ErrYounger):
		return exit.Refuse("--list says which backups there are", "%v", err)
	case errors.Is(err, backup.ErrNone):
		return exit.Refuse("give the vault of the console's first project, and for --project that project's own", "%v", err)
	}
	return explain(err, o.Dir)
}

func (h Host) listBackups(cmd *cobra.Command, address *access.Address, o console.Restore) error {
	ctx, cancel := h.Bounded(cmd)
	defer cancel()
	if err := h.breakGlass(ctx, cmd, address, &o); err != nil {
		return err
	}
	all, err := o.List(ctx)
	if err != nil {
		return notBack(err, o)
	}
	return h.Print(Shelves{all})
}

// Shelves are the backups that there are.
type Shelves struct {
	Databases []past.Shelved `json:"databases"`
}

// Document implements output.Result.
func (s Shelves) Document() any { return s }

// Text implements output.Result.
func (s Shelves) Text(t *output.Text) {
	var rows [][]string
	for _, d := range s.Databases {
		for _, b := range d.Backups {
			rows = append(rows, []string{d.Database, strconv.FormatInt(b.Number, 10), b.At.Format(time.RFC3339)})
		}
	}
	t.Table("", output.Columns("DATABASE", ">BACKUP", "MADE"), rows)
	for _, d := range s.Databases {
		switch {
		case d.Fault != "":
			t.Line("What there is of %s is not known: %s", d.Database, d.Fault)
		case len(d.Backups) == 0:
			t.Line("There is no backup of %s.", d.Database)
		}
	}
}

// Back is what `console restore` did.
type Back struct {
	*console.Restoration
	join bool
}

// Document implements output.Result.
func (b Back) Document() any { return b.Restoration }

// Text implements output.Result.
func (b Back) Text(t *output.Text) {
	for _, d := range b.Databases {
		for _, p := range d.Passed {
			t.Line("A newer backup of %s is damaged and was passed over: %s", d.Database, p)
		}
		if d.Fault != "" {
			t.Line("%s did not come back: %s", d.Database, d.Fault)
			continue
		}
		if !b.Dry {
			t.Line("%s is back, as of %s and with the %d records of its journal since; its audit log is whole, %d records.", d.Database, moment(d.At), d.Followed, d.Records)
		}
		if d.Lost != "" {
			t.Line("WHAT WAS CHANGED IN %s AFTER THAT IS LOST: %s", d.Database, d.Lost)
		}
		if d.Back != nil {
			wentBack(t, d.Database, *d.Back, b.Dry)
		}
	}
	if b.Dry {
		t.Line("Nothing was changed.")
		return
	}
	if b.Aside != "" {
		t.Line("What was there is in %s.", b.Aside)
	}
	if b.join {
		t.Line("It follows the active console once it is served: davit console --data %s --listen :8443 --name NAME", b.Dir)
		return
	}
	t.Line("If the lost console still runs somewhere, one of the two is passive. Serve this one: davit console --data %s --listen :8443 --name NAME", b.Dir)
	if slices.ContainsFunc(b.Databases, func(d console.Restored) bool { return d.Back != nil && d.Back.Younger == "" }) {
		t.Line("That it went back is NOT YET IN THE VAULT: that is when this console is served and active. Serve it before any other: what it changed is dropped where another has become active.")
	}
}

func moment(at time.Time) string { return at.UTC().Format("2006-01-02 15:04:05 MST") }

// wentBack says what a database went back to, or would.
func wentBack(t *output.Text, name string, w past.WentBack, dry bool) {
	if w.Younger != "" {
		t.Line("%s does not go back: %s.", name, w.Younger)
		return
	}
	for _, p := range w.Passed {
		t.Line("A backup of %s is damaged, and it went back from the one before: %s", name, p)
	}
	did := "went"
	if dry {
		did = "would go"
	}
	t.Line("%s %s back to what was defined at %s, by backup %d and %d records of its journal: %d changes. Its audit log has %d records of what was done since, which stay.", name, did, moment(w.At), w.Number, w.Records, len(w.Changes), w.Since)
	if w.Short != "" {
		t.Line("WHAT WAS DEFINED LATER THAN THAT, UP TO THE TIME THAT WAS ASKED FOR, IS NOT KNOWN ANY MORE: %s", w.Short)
	}
	for _, c := range w.Changes {
		t.Line("  %s: %s", c.Object, c.Do)
	}
}
