package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/admission"
	"davit.dev/davit/internal/cli/exit"
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
						backup := ago(p.Backup, now)
						if p.BackupFault != "" {
							backup = "failed"
						}
						return []string{p.Name, p.Standing, fmt.Sprint(p.Used.Agents), fmt.Sprint(p.Used.Members), output.Bytes(p.Used.Bytes), backup, limits(p.Limits), output.Age(p.Created, now), output.OneLine(p.Fault + p.BackupFault)}
					},
				})
			})
		},
	}
	cmd.AddCommand(h.createProject(), h.deleteProject())
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
The same command again goes on with what broke off. For a project in another vault: "davit console init", at the console's directory.`,
		Example: `  davit projects create shop --admin vera --recovery-key-file ./shop-recovery.key
  davit vault add main --vault-url s3://… --project shop --join --recovery-key-file ./shop-recovery.key   # then, at a site`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			recovery, err := recipient(names[0], file, public, h.URL())
			if err != nil {
				return err
			}
			return h.atConsole(cmd, func(ctx context.Context, s *remote.Session) error {
				m, err := s.MakeProject(ctx, project.New{Name: names[0], Recovery: recovery, Admin: admin})
				if err != nil {
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

// recipient is the public half of the recovery key: on disk before anything is sealed with it.
func recipient(name, file, public, console string) (string, error) {
	switch {
	case (file == "") == (public == ""):
		return "", exit.Usage("a file that is made, or the public half of a key that there is", "give --recovery-key-file or --recovery-recipient")
	case vault.CheckName(name) != nil:
		return "", exit.AsUsage(vault.CheckName(name))
	case public != "":
		r, err := vault.ParseRecipient(public)
		return r.String(), exit.AsUsage(err)
	}
	if _, err := os.Lstat(file); !errors.Is(err, os.ErrNotExist) {
		key, err := access.ReadIdentity(file)
		return key.Recipient().String(), err
	}
	key, err := vault.NewRecoveryKey()
	if err == nil {
		err = admission.WriteKey(file, name, "the vault of the console "+console, key)
	}
	return key.Recipient().String(), err
}

func (h Host) deleteProject() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Remove a project from a console, for its administrators",
		Long: `Removes a project from a console: its users, robots and agents are let in no more, on this console and on those that follow it. Nothing is
deleted in its vault: recovery points, plans, epochs, keys and the backups of its database stay there, and its sites go on protecting. Its name stays taken.
The project in whose vault the console's own database is kept, its first, stays.

The console's key to the project goes on opening it until "davit vault keys remove" shuts it out, with the recovery key.`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			if !yes {
				if err := h.AskFor(names[0], "the project's name, to remove it from the console"); err != nil {
					return err
				}
			}
			return h.atConsole(cmd, func(ctx context.Context, s *remote.Session) error {
				g, err := s.RemoveProject(ctx, names[0])
				if client.Is(err, 404) {
					return exit.Refuse("`projects` lists them", "%v", err)
				}
				if err != nil {
					return h.Explain(err)
				}
				return h.Print(Done{What: "project", Name: g.Name, Change: "removed from the console", say: stays(g)})
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
