package console

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/console"
	"davit.dev/davit/internal/console/store"
)

type enrolment struct {
	dir, project, file string
	life               time.Duration
}

func enrolCommand(h Host) *cobra.Command {
	var o enrolment
	cmd := &cobra.Command{
		Use:   "enrol SITE",
		Short: "Make a token with which a site's agent may tell this console",
		Long: `Makes a token that lets the agent of one site in, once, and for one project. It works while the console is served, and is in the
project's audit log. At the site, "davit enrol" or "davit install" takes it; then the file is of no use any more.`,
		Example: `  davit console enrol east --data /var/lib/davit-console --token-file ./east.token
  davit enrol --console https://console.example.com:8443 --enrol-token-file ./east.token   # at the site`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, given []string) error { return h.enrol(cmd, o, given[0]) },
	}
	flags := cmd.Flags()
	flags.StringVar(&o.dir, "data", "", "the console's directory")
	flags.StringVar(&o.project, "project", "default", "the project that the agent tells of")
	flags.StringVar(&o.file, "token-file", "", "file to write the token to; it must not be there yet")
	flags.DurationVar(&o.life, "for", time.Hour, "how long the token may be used, at most 168h")
	return cmd
}

func (h Host) enrol(cmd *cobra.Command, o enrolment, site string) (err error) {
	ctx, cancel := h.Bounded(cmd)
	defer cancel()
	if o.dir == "" || o.file == "" {
		return exit.Usage("", "--data and --token-file are needed")
	}
	c, err := h.open(ctx, o.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	f, err := exit.NewFile(o.file, "write token")
	if err != nil {
		return err
	}
	token, expires, err := console.Enrol(ctx, c, h.act(), o.project, site, o.life)
	if err == nil {
		_, err = fmt.Fprintln(f, token.String())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		err = errors.Join(err, os.Remove(o.file))
	}
	if errors.Is(err, store.ErrNotFound) {
		return exit.Refuse("", "the console in %s has no project %s", o.dir, o.project)
	}
	if err != nil {
		return explain(err, o.dir)
	}
	p, err := c.Project(ctx, o.project)
	if err != nil {
		return explain(err, o.dir)
	}
	return h.Print(Enrolled{Site: site, Project: o.project, File: o.file, Expires: expires, InVault: console.Sent(ctx, p)})
}

// Enrolled is what `console enrol` did.
type Enrolled struct {
	Site    string    `json:"site"`
	Project string    `json:"project"`
	File    string    `json:"tokenFile"`
	Expires time.Time `json:"expires"`
	InVault bool      `json:"inVault"`
}

// Document implements output.Result.
func (e Enrolled) Document() any { return e }

// Text implements output.Result.
func (e Enrolled) Text(t *output.Text) {
	t.Line("The token for the agent of site %s, project %s, is in %s. It counts once, until %s.", e.Site, e.Project, e.File, output.Time(e.Expires))
	notYet(t, e.InVault)
	t.Line("At the site: davit enrol --console https://ADDRESS:PORT --enrol-token-file %s", e.File)
}
