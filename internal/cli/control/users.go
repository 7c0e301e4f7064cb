package control

import (
	"context"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/remote"
	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/client"
)

func (h Host) usersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "users",
		Short: "Who may log in to a console, for its administrators",
		Long: `Lists the users of a console. Administrators make users and shut them out; a role in a project is given there, with
"davit members set". Of the directory of a console, "davit console password" lets a user in again.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return h.atConsole(cmd, func(ctx context.Context, s *remote.Session) error {
				all, err := s.Users(ctx)
				if err != nil {
					return h.administrators(err)
				}
				return h.Print(list[api.User]{
					items: all, kind: "user", columns: output.Columns("NAME", "ADMINISTRATOR", "CODES", "SHUT OUT", "AGE"), none: "There is no user.",
					name: func(u api.User) string { return u.Name },
					row: func(u api.User) []string {
						return []string{u.Name, yes(u.Administrator), yes(u.Codes), yes(u.Disabled), output.Age(u.Created, h.Now())}
					},
				})
			})
		},
	}
	cmd.AddCommand(
		h.createUser(), h.changeUser("disable", "shut out", "Shut a user out, and end his sessions", true), h.changeUser("enable", "let in again", "Let a user in again", false),
		h.setUpCodes(), h.stopCodes(), h.changePassword(),
	)
	return cmd
}

func yes(so bool) string {
	if so {
		return "yes"
	}
	return ""
}

// administrators is Explain for what only administrators may.
func (h Host) administrators(err error) error {
	return h.missing(err, "`users` lists them")
}

func (h Host) createUser() *cobra.Command {
	var file string
	var administrator bool
	cmd := &cobra.Command{
		Use:   "create NAME --password-file FILE",
		Short: "Make a user of a console",
		Long: `Makes a user with a first password, of 12 characters or more, which he changes with "davit users password". He sees no project until
somebody gives him a role there.`,
		Example: `  davit users create vera --password-file ./first-password && davit members set vera --role viewer`,
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			if file == "" {
				return exit.Usage("a file with his first password, or - for standard input", "--password-file is missing")
			}
			password, err := h.Secret("password", file)
			if err != nil {
				return err
			}
			return h.atConsole(cmd, func(ctx context.Context, s *remote.Session) error {
				if _, err := s.CreateUser(ctx, api.NewUser{Name: names[0], Password: password, Administrator: administrator}); err != nil {
					return h.administrators(err)
				}
				return h.Print(Done{What: "user", Name: names[0], Change: "created", say: "He sees no project yet: davit members set " + names[0] + " --role ROLE"})
			})
		},
	}
	cmd.Flags().StringVar(&file, "password-file", "", "file with the first password; - is standard input")
	cmd.Flags().BoolVar(&administrator, "administrator", false, "he may make users too, and see the console's backups and audit log")
	return cmd
}

func (h Host) changeUser(word, change, short string, disabled bool) *cobra.Command {
	return &cobra.Command{
		Use:   word + " NAME",
		Short: short,
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			return h.atConsole(cmd, func(ctx context.Context, s *remote.Session) error {
				if _, err := s.ChangeUser(ctx, names[0], api.UserChange{Disabled: &disabled}); err != nil {
					return h.administrators(err)
				}
				return h.Print(Done{What: "user", Name: names[0], Change: change})
			})
		},
	}
}

func (h Host) setUpCodes() *cobra.Command {
	var file, secret, code string
	cmd := &cobra.Command{
		Use:   "codes",
		Short: "Set up your own one-time codes at a console",
		Long: `Sets up one-time codes (TOTP) for whoever is logged in, in two steps. With --own-password-file a secret is made and written to --secret-file, as
otpauth://…, which a phone's application takes (such as by "qrencode -t ansi < FILE"); - is standard output. With --code, the first code that the phone
shows, they are asked for from then on; remove the file. "davit users stop-codes" by an administrator is the way back for a phone that is lost.`,
		Example: `  davit users codes --own-password-file ./my-password --secret-file ./secret && qrencode -t ansi < ./secret
  davit users codes --code 123456 && rm ./secret`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case (file == "") == (code == ""):
				return exit.Usage("first the one, then the other", "give --own-password-file and --secret-file, or --code")
			case file != "" && secret == "":
				return exit.Usage("a file that is not there yet, or - for standard output: it is shown this once", "--secret-file is missing")
			}
			return h.atConsole(cmd, func(ctx context.Context, s *remote.Session) error {
				who, err := s.Whoami(ctx)
				if err != nil {
					return h.Explain(err)
				}
				if code != "" {
					if err := s.StartCodes(ctx, code); err != nil {
						return h.Explain(err)
					}
					return h.Print(Done{What: "user", Name: who.Name, Change: "is asked for one-time codes from now on"})
				}
				return h.wantCodes(ctx, s, who.Name, file, secret)
			})
		},
	}
	cmd.Flags().StringVar(&file, "own-password-file", "", "file with your own password; - is standard input")
	cmd.Flags().StringVar(&secret, "secret-file", "", "file to write the secret to, which must not be there yet; - is standard output")
	cmd.Flags().StringVar(&code, "code", "", "the first code, which shows that your phone has the secret")
	return cmd
}

func (h Host) wantCodes(ctx context.Context, s *remote.Session, name, file, path string) error {
	password, err := h.Secret("password", file)
	if err != nil {
		return err
	}
	to, err := h.secretFile(path)
	if err != nil {
		return err
	}
	codes, err := s.WantCodes(ctx, password)
	if err != nil {
		to.cancel()
	}
	if client.Is(err, 401) {
		return exit.Refuse("after five wrong tries it takes one in 30 seconds", "your own password is not right: %v", err)
	}
	if err != nil {
		return h.Explain(err)
	}
	if err := to.write(codes.URL); err != nil {
		return err
	}
	return h.made(to, Done{What: "user", Name: name, Change: "has a secret that waits for its first code", say: "Then: davit users codes --code CODE"})
}

func (h Host) stopCodes() *cobra.Command {
	var file, code string
	cmd := &cobra.Command{
		Use:   "stop-codes NAME --own-password-file FILE",
		Short: "Ask a user for no one-time codes any more, as when his phone is lost",
		Long: `Asks a user for no one-time codes any more. It takes your own password once more, and where you are asked for one-time codes one in
--code, which you have not used to log in: whoever has no more than your session and password cannot.`,
		Example: `  davit users stop-codes vera --own-password-file ./my-password`,
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			if file == "" {
				return exit.Usage("a file with your own password, or - for standard input", "--own-password-file is missing")
			}
			password, err := h.Secret("password", file)
			if err != nil {
				return err
			}
			return h.atConsole(cmd, func(ctx context.Context, s *remote.Session) error {
				who, err := s.Whoami(ctx)
				if err != nil {
					return h.Explain(err)
				}
				if who.Codes && code == "" {
					return exit.Usage("the one that your phone shows", "--code is missing: you are asked for one-time codes")
				}
				off := false
				_, err = s.ChangeUser(ctx, names[0], api.UserChange{Codes: &off, Password: password, Code: code})
				if client.Is(err, 401) {
					return exit.Refuse("your own password is not right, or your code: each counts once; after five wrong tries it takes one in 30 seconds", "%v", err)
				}
				if err != nil {
					return h.administrators(err)
				}
				return h.Print(Done{What: "user", Name: names[0], Change: "is asked for no one-time codes any more"})
			})
		},
	}
	cmd.Flags().StringVar(&file, "own-password-file", "", "file with your own password; - is standard input")
	cmd.Flags().StringVar(&code, "code", "", "one-time code of your own, where you are asked for codes")
	return cmd
}

func (h Host) changePassword() *cobra.Command {
	var old, next, code string
	cmd := &cobra.Command{
		Use:   "password --old-password-file FILE --password-file FILE",
		Short: "Change your own password at a console",
		Long: `Changes the password of whoever is logged in. Who is asked for one-time codes gives one in --code, which he has not used to
log in. All of his sessions end: log in again.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if old == "" || next == "" {
				return exit.Usage("the password as it is, and as it is to be", "--old-password-file and --password-file are needed")
			}
			in := api.NewPassword{Code: code}
			var err error
			if in.Old, err = h.Secret("password", old); err != nil {
				return err
			}
			if in.New, err = h.Secret("password", next); err != nil {
				return err
			}
			return h.atConsole(cmd, func(ctx context.Context, s *remote.Session) error {
				who, err := s.Whoami(ctx)
				if err != nil {
					return h.Explain(err)
				}
				if who.Codes && code == "" {
					return exit.Usage("the one that your phone shows", "--code is missing: you are asked for one-time codes")
				}
				err = s.ChangePassword(ctx, in)
				if client.Is(err, 401) {
					return exit.Refuse("the old password is not right, or the code: each counts once; after five wrong tries it takes one in 30 seconds", "%v", err)
				}
				if err != nil {
					return h.Explain(err)
				}
				return h.Print(Done{What: "user", Name: who.Name, Change: "has a new password", say: "All of your sessions have ended: davit login --console " + s.URL() + " --user " + who.Name})
			})
		},
	}
	cmd.Flags().StringVar(&old, "old-password-file", "", "file with the password as it is; - is standard input")
	cmd.Flags().StringVar(&next, "password-file", "", "file with the new password")
	cmd.Flags().StringVar(&code, "code", "", "one-time code, if you are asked for codes")
	return cmd
}
