package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/admission"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/order"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/remote"
	"davit.dev/davit/internal/console/client"
	"davit.dev/davit/internal/console/project"
	"davit.dev/davit/internal/console/quota"
	"davit.dev/davit/internal/vault"
)

func (h Host) projectsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "projects",
		Short: "All projects of a console, in numbers, for its administrators",
		Long: `Lists the projects of a console: how many sites and users each has, its quota, the newest backup of its database, and whether that can be
read. It says nothing of what is in a project: that takes a role there ("davit whoami" lists yours).`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return h.atConsole(cmd, func(ctx context.Context, s *remote.Session) error {
				all, err := s.EveryProject(ctx)
				if err != nil {
					return h.Explain(err)
				}
				return h.Print(list[project.State]{
					items: all, kind: "project", columns: output.Columns("NAME", "DATABASE", ">SITES", ">USERS", ">STORED", "BACKUP", "QUOTA", "AGE", "+WHY"), none: "There is no project.",
					name: func(p project.State) string { return p.Name },
					row: func(p project.State) []string {
						now := h.Now()
						backup := output.Ago(p.Backup, now)
						if p.BackupFault != "" {
							backup = "failed"
						}
						return []string{p.Name, p.Standing, fmt.Sprint(p.Used.Agents), fmt.Sprint(p.Used.Members), output.Bytes(p.Used.Bytes), backup, limits(p.Limits), output.Age(p.Created, now), output.OneLine(p.Fault + p.BackupFault)}
					},
				})
			})
		},
	}
	cmd.AddCommand(h.createProject(), h.deleteProject(), h.restoreProject())
	return cmd
}

// limits are those that there are, such as "4 agents, 20 tokens".
func limits(n quota.Numbers) string {
	var all []string
	for _, k := range quota.Kinds() {
		switch of := n.Of(k); {
		case of == 0:
		case k == quota.Bytes:
			all = append(all, output.Bytes(of))
		default:
			all = append(all, fmt.Sprintf("%d %s", of, k))
		}
	}
	return strings.Join(all, ", ")
}

func (h Host) createProject() *cobra.Command {
	var file, public, admin string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a project of a console, for its administrators",
		Long: `Makes a project in the vault of the console's first project: its keys, its part of the vault, its certificate authority and its database.
--admin, a user of the console, is its first admin. Whoever makes a project sees of it no more than of others, unless that is himself.

The recovery key opens all that the project will have in the vault. It is made here and written to --recovery-key-file, and is not sent to the
console; if the file is there, its key is taken. With --recovery-recipient the key is somebody else's: only its public half (age1…) is known here.
The same command again goes on with what broke off, and where only the answer was lost, says so once more. A key that was made for a project
which the console refuses to make is removed again; it stays where nobody knows whether the project came to be.
For a project in another vault: "davit console init", at the console's directory.`,
		Example: `  davit projects create shop --admin vera --recovery-key-file ./shop-recovery.key
  davit vault add main s3://… --project shop --join --recovery-key-file ./shop-recovery.key   # then, at a site`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			if err := checkNew(names[0], file, public); err != nil {
				return err
			}
			return h.changing(cmd, func(ctx context.Context, s *remote.Session) error {
				recovery, fresh, err := recipient(names[0], file, public, s.URL())
				if err != nil {
					return err
				}
				asked := 0
				m, err := remote.Insist(ctx, func() (project.Made, error) {
					asked++
					return s.MakeProject(ctx, project.New{Name: names[0], Recovery: recovery, Admin: admin})
				})
				switch {
				case err != nil && fresh:
					return h.unmade(err, file, asked == 1)
				case err != nil:
					return h.Explain(err)
				}
				say := "Its admin is " + m.Admin + ", and its vault " + m.Vault + "."
				if file != "" {
					say += " Keep " + file + " outside of all sites, and not in the vault."
				}
				return h.Print(Done{What: "project", Name: m.Name, Change: "created", say: say})
			})
		},
	}
	cmd.Flags().StringVar(&file, "recovery-key-file", "", "file for the project's recovery key; made if it is not there")
	cmd.Flags().StringVar(&public, "recovery-recipient", "", "public half (age1…) of a recovery key that somebody else keeps")
	cmd.Flags().StringVar(&admin, "admin", "", "user who is its first admin (default: whoever is logged in)")
	return cmd
}

func checkNew(name, file, public string) error {
	switch {
	case (file == "") == (public == ""):
		return exit.Usage("a file that is made, or the public half of a key that there is", "give --recovery-key-file or --recovery-recipient")
	case vault.CheckName(name) != nil:
		return exit.AsUsage(vault.CheckName(name))
	}
	return nil
}

// recipient is the public half of the recovery key: on disk before anything is sealed with it.
// It is fresh where it was made for this.
func recipient(name, file, public, console string) (half string, fresh bool, err error) {
	if public != "" {
		r, err := vault.ParseRecipient(public)
		return r.String(), false, exit.AsUsage(err)
	}
	if _, err := os.Lstat(file); !errors.Is(err, os.ErrNotExist) {
		key, err := access.ReadIdentity(file)
		if err != nil {
			return "", false, err
		}
		return key.Recipient().String(), false, nil
	}
	key, err := vault.NewRecoveryKey()
	if err == nil {
		err = admission.WriteKey(file, name, "the vault of the console "+console, key)
	}
	return key.Recipient().String(), true, err
}

// unmade says why a project was not made, and what becomes of the key file that was made for
// it. It goes only where the one answer that there was says that its key opens nothing: what
// was asked before without an answer may yet be done.
func (h Host) unmade(err error, file string, once bool) error {
	var said *client.Error
	never := errors.Is(err, client.ErrTrust) // nothing was sent
	if errors.As(err, &said) {
		turned := said.Reason != "" && (said.Code == http.StatusBadRequest || said.Code == http.StatusUnauthorized || said.Code == http.StatusForbidden)
		never = said.KeyUnused || turned
	}
	explained := h.Explain(err)
	if never && once {
		if err := os.Remove(file); err != nil {
			return errors.Join(explained, err)
		}
		return explained
	}
	hint := "keep " + file + ": the project may have been made, or be made yet, with the key in it. The same command again takes that key and says whether it was"
	var is *exit.Error
	if errors.As(explained, &is) && is.Hint != "" {
		hint = is.Hint + ". And " + hint
	}
	return exit.Hint(explained, hint)
}

func (h Host) deleteProject() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Remove a project from a console, for its administrators",
		Long: `Removes a project from a console: its users, robots and agents are let in no more, on this console and on those that follow it. Nothing is
deleted in its vault: recovery points, plans, epochs, keys and the backups of its database stay there, and its sites go on protecting. Its name stays taken.
The project in whose vault the console's own database is kept, its first, stays. "davit projects restore" brings one back that was removed by mistake.

The console's key to the project goes on opening it until "davit vault keys remove" shuts it out, with the recovery key.`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			if !yes {
				if err := h.AskFor(names[0], "the project's name, to remove it from the console"); err != nil {
					return err
				}
			}
			return h.changing(cmd, func(ctx context.Context, s *remote.Session) error {
				asked := 0
				g, err := remote.Insist(ctx, func() (project.Gone, error) {
					asked++
					return s.RemoveProject(ctx, names[0])
				})
				if client.Is(err, 404) {
					return exit.Refuse("`projects` lists them", "%v", err)
				}
				if err != nil {
					return h.Explain(err)
				}
				change := "removed from the console"
				if g.Before && asked == 1 {
					change = "was removed from the console before"
				}
				return h.Print(Done{What: "project", Name: g.Name, Change: change, say: stays(g)})
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask for the project's name")
	return cmd
}

func stays(g project.Gone) string {
	if g.Vault == "" {
		return "What its vault has, if it was made there, stays."
	}
	return fmt.Sprintf("Its vault %s keeps all that is there: as far as is known, %d recovery points of %d applications (%s). Its sites go on.", g.Vault, g.Points, g.Applications, output.Bytes(g.Bytes))
}

func (h Host) restoreProject() *cobra.Command {
	var yes, dry bool
	var at string
	cmd := &cobra.Command{
		Use:   "restore NAME",
		Short: "Restore a project of a console while all others are served, for its administrators",
		Long: `Restores one project; the console is not stopped, and other projects go on.

With --at, what people defined in it goes back to what it was then, after a wrong bulk change or what somebody hostile did: documents, members and their
roles; robots' tokens that were made since are revoked. That is made of changes on top of all that was there, which the project's audit log has. What happened
stays, and so do tokens that were revoked. --dry-run says what would change. Without a role in the project you are told how many changes, and not which.

Without --at, its database becomes what its vault has, which is all that was acknowledged: for one whose content is not to be trusted, and for a project that
was removed, which then is the console's again: users, robots and agents that it had are let in again.

The same again goes on with what broke off, with a time that is written out: 10m is another one a minute later. For users of the console, and all projects at once: "davit console restore".`,
		Example: `  davit projects restore shop --at "2026-01-31 15:04" --dry-run
  davit projects restore shop --at "2026-01-31 15:04"`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			when, err := order.Instant(at, h.Now())
			if err != nil {
				return err
			}
			if dry && at == "" {
				return exit.Usage("name a time with --at", "--dry-run says what would go back, and there is nothing to go back to")
			}
			in := project.Ask{At: when, Dry: dry, Confirm: names[0]}
			if !yes && !dry {
				if err := h.AskFor(names[0], "the project's name, to restore it"); err != nil {
					return err
				}
			}
			return h.changing(cmd, func(ctx context.Context, s *remote.Session) error {
				r, err := remote.Insist(ctx, func() (project.Restored, error) { return s.RestoreProject(ctx, names[0], in) })
				if client.Is(err, 404) {
					return exit.Refuse("`projects` lists them", "%v", err)
				}
				if err != nil {
					return h.Explain(err)
				}
				return h.Print(back{r, dry})
			})
		},
	}
	cmd.Flags().StringVar(&at, "at", "", "have what people defined go back to this time: 2026-01-31T15:04:05Z, \"2026-01-31 15:04\" (UTC), or 10m for ten minutes ago")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "with --at: say what would change, and change nothing")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask for the project's name")
	return cmd
}

// back is what a restore did, or would do.
type back struct {
	project.Restored
	dry bool
}

// Document implements output.Result.
func (b back) Document() any { return b.Restored }

// Names implements output.Named.
func (b back) Names() []string { return []string{"project/" + b.Name} }

// Text implements output.Result.
func (b back) Text(t *output.Text) {
	w := b.Back
	switch {
	case w == nil && b.Revived:
		t.Line("project/%s is the console's again, with all that its vault has.", b.Name)
		return
	case w == nil:
		t.Line("project/%s is what its vault has.", b.Name)
		return
	}
	did := "went"
	if b.dry {
		did = "would go"
	}
	t.Line("project/%s %s back to what was defined at %s, by backup %d and %d records of its journal: %d changes. Its audit log has %d records of what was done since, which stay.", b.Name, did, output.Time(w.At), w.Number, w.Records, b.Changes, w.Since)
	if b.Changes == 0 {
		t.Line("It is as it was then. What an answer that was lost had changed, its audit log has (goback).")
	}
	for _, p := range w.Passed {
		t.Line("A backup is damaged, and it went back from the one before: %s", p)
	}
	if w.Short != "" {
		t.Line("WHAT WAS DEFINED LATER THAN THAT, UP TO THE TIME THAT WAS ASKED FOR, IS NOT KNOWN ANY MORE: %s", w.Short)
	}
	for _, c := range w.Changes {
		t.Line("  %s: %s", c.Object, c.Do)
	}
	if b.dry {
		t.Line("Nothing was changed.")
	}
}
