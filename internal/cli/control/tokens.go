package control

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/remote"
	"davit.dev/davit/internal/console/api"
)

func (h Host) tokensCommand() *cobra.Command {
	var project string
	cmd := &cobra.Command{
		Use:   "tokens",
		Short: "Robots' tokens of a project, for its admins",
		Long: `Lists the tokens of a project's robots, the newest first, without their secrets, which nobody has but the robot. "tokens create" makes
one and "tokens revoke" ends one at once.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return h.inProject(cmd, project, func(ctx context.Context, s *remote.Session) error {
				all, err := s.Tokens(ctx, s.Project)
				if err != nil {
					return h.Explain(err)
				}
				return h.Print(h.tokens(all, s.Project))
			})
		},
	}
	projectFlag(cmd, &project)
	cmd.AddCommand(h.createToken(), h.revokeToken())
	return cmd
}

func (h Host) tokens(all []api.Token, project string) list[api.Token] {
	return list[api.Token]{
		items: all, kind: "token", columns: output.Columns("ID", "NAME", "SCOPES", "STATE", "ENDS", "USED", "+MADE BY", "+AGE"), none: "Project " + project + " has no robots' tokens.",
		name: func(t api.Token) string { return t.ID },
		row: func(t api.Token) []string {
			var scopes []string
			for _, scope := range t.Scopes {
				scopes = append(scopes, string(scope))
			}
			used := ""
			if !t.Used.IsZero() {
				used = output.Ago(t.Used, h.Now())
			}
			return []string{t.ID, t.Name, strings.Join(scopes, ","), tokenState(t, h.Now()), output.Time(t.Expires), used, t.By, output.Age(t.Created, h.Now())}
		},
	}
}

func tokenState(t api.Token, now time.Time) string {
	switch {
	case !t.Revoked.IsZero():
		return "revoked"
	case !now.Before(t.Expires):
		return "over"
	}
	return "good"
}

func (h Host) createToken() *cobra.Command {
	var project, file string
	in := api.NewToken{}
	cmd := &cobra.Command{
		Use:   "create NAME --scope SCOPE,... --days N --token-file FILE",
		Short: "Make a robot's token",
		Long: `Makes a token for a robot of the project. Nobody gives a robot what he may not do himself. The token is written to --token-file this once,
or, with -, to standard output; the console keeps only its hash.

Scopes are read, protect (applications, policies), recover (plans, runs) and audit.`,
		Example: `  davit tokens create ci --scope read,protect --days 90 --token-file ./ci.token
  davit login --console https://console.example.com:8443 --ca-file ca.pem --token-file ./ci.token --project shop   # the robot`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			if len(in.Scopes) == 0 {
				return exit.Usage("read, protect, recover, audit", "--scope is missing")
			}
			in.Name = names[0]
			return h.inProject(cmd, project, func(ctx context.Context, s *remote.Session) error { return h.makeToken(ctx, s, in, file) })
		},
	}
	projectFlag(cmd, &project)
	flags := cmd.Flags()
	flags.StringSliceVar(&in.Scopes, "scope", nil, "what the robot may: read, protect, recover, audit")
	flags.IntVar(&in.Days, "days", 90, "in how many days it ends, at most 366")
	flags.StringVar(&file, "token-file", "", "file to write the token to, which must not be there yet; - is standard output")
	return cmd
}

func (h Host) makeToken(ctx context.Context, s *remote.Session, in api.NewToken, path string) error {
	file, err := h.secretFile(path)
	if err != nil {
		return err
	}
	t, err := s.CreateToken(ctx, s.Project, in)
	if err != nil {
		file.cancel()
		return h.Explain(err)
	}
	if err := file.write(t.Secret); err != nil {
		return exit.Hint(err, "nobody has the token: `tokens revoke "+t.ID+"`, and make another")
	}
	say := "Token " + t.ID + " ends " + output.Time(t.Expires) + "."
	if path != "-" {
		say += " It is in " + path + ", and nowhere else."
	}
	return h.made(file, Done{What: "token", Name: t.ID, Change: "created for robot/" + in.Name, say: say})
}

func (h Host) revokeToken() *cobra.Command {
	var project string
	cmd := &cobra.Command{
		Use:     "revoke ID|NAME...",
		Short:   "End robots' tokens at once",
		Long:    `Ends tokens, by their id, or by their name where only one that counts has it.`,
		Example: `  davit tokens revoke ci`,
		Args:    some,
		RunE: func(cmd *cobra.Command, names []string) error {
			return h.each(cmd, project, names, func(ctx context.Context, s *remote.Session, name string) (Done, error) {
				all, err := s.Tokens(ctx, s.Project)
				if err != nil {
					return Done{}, h.Explain(err)
				}
				t, err := tokenNamed(all, name, h.Now())
				if err != nil {
					return Done{}, err
				}
				err = s.RevokeToken(ctx, s.Project, t.ID)
				return Done{What: "token", Name: t.ID, Change: "revoked, of robot/" + t.Name}, h.missing(err, "`tokens` lists them")
			})
		},
	}
	projectFlag(cmd, &project)
	return cmd
}

// tokenNamed finds the token that is meant.
func tokenNamed(all []api.Token, name string, now time.Time) (api.Token, error) {
	if i := slices.IndexFunc(all, func(t api.Token) bool { return t.ID == name }); i >= 0 {
		if !all[i].Revoked.IsZero() {
			return api.Token{}, exit.Refuse("", "token %s is revoked already", name)
		}
		return all[i], nil
	}
	all = slices.DeleteFunc(slices.Clone(all), func(t api.Token) bool { return t.Name != name || tokenState(t, now) != "good" })
	switch len(all) {
	case 0:
		return api.Token{}, exit.Refuse("`tokens` lists them", "no token that counts is called %s, or has that id", name)
	case 1:
		return all[0], nil
	}
	var ids []string
	for _, t := range all {
		ids = append(ids, t.ID)
	}
	return api.Token{}, exit.Refuse("name them by id", "%s", errors.New(name+" has several: "+strings.Join(ids, ", ")))
}
