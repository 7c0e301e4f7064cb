// Package control is the command line of a console's control room: who may what, the
// audit log, the agents, the fleet, and the console itself. It works with the rights
// of whoever is logged in there, and asks no cluster.
package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/remote"
	"davit.dev/davit/internal/command"
	"davit.dev/davit/internal/console/client"
)

// Host is what the command line gives its commands.
type Host struct {
	remote.Host
}

// Commands makes the commands at a console.
func Commands(of remote.Host) []*cobra.Command {
	h := Host{of}
	named := remote.AtConsole(h.fleetCommand(), h.agentsCommand(), h.eventsCommand(), h.placementsCommand(), h.membersCommand(), h.tokensCommand(), h.quotaCommand(), h.projectsCommand(), h.usersCommand())
	for _, cmd := range named {
		output.WithNames(append(cmd.Commands(), cmd)...)
	}
	return append(named, remote.AtConsole(h.auditCommand())...)
}

// OfConsole makes those that are about the console itself, below `console`.
func OfConsole(of remote.Host) []*cobra.Command {
	h := Host{of}
	return remote.AtConsole(h.statusCommand(), h.backupsCommand())
}

// exactly checks how many arguments there are.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if len(given) != n {
			return exit.Usage("`"+cmd.CommandPath()+" --help` shows how", "%s takes %d arguments, but was given %q", cmd.Name(), n, given)
		}
		return nil
	}
}

func some(cmd *cobra.Command, given []string) error {
	if len(given) == 0 {
		return exit.Usage("`"+cmd.CommandPath()+" --help` shows how", "%s takes one or more names", cmd.Name())
	}
	return nil
}

func projectFlag(cmd *cobra.Command, project *string) {
	cmd.Flags().StringVar(project, "project", "", "project to work in (default: the one kept at login)")
}

// inProject runs fn at a console, in a project.
func (h Host) inProject(cmd *cobra.Command, project string, fn func(ctx context.Context, s *remote.Session) error) error {
	ctx, cancel := h.Looking(cmd)
	defer cancel()
	s, err := h.Open(project)
	if err != nil {
		return err
	}
	defer s.Close()
	return fn(ctx, s)
}

// atConsole runs fn at a console, in no project.
func (h Host) atConsole(cmd *cobra.Command, fn func(ctx context.Context, s *remote.Session) error) error {
	ctx, cancel := h.Looking(cmd)
	defer cancel()
	return h.inSession(ctx, fn)
}

// changing is atConsole for what takes longer than a look, and may be asked again.
func (h Host) changing(cmd *cobra.Command, fn func(ctx context.Context, s *remote.Session) error) error {
	ctx, cancel := h.Working(cmd)
	defer cancel()
	return h.inSession(ctx, fn)
}

func (h Host) inSession(ctx context.Context, fn func(ctx context.Context, s *remote.Session) error) error {
	s, err := h.OpenConsole()
	if err != nil {
		return err
	}
	defer s.Close()
	return fn(ctx, s)
}

// missing is Explain, with another hint for what is not there.
func (h Host) missing(err error, hint string) error {
	if client.Is(err, 404) {
		return exit.Refuse(hint, "%v", err)
	}
	return h.Explain(err)
}

// list is a table of something with names.
type list[T any] struct {
	items   []T
	kind    string
	name    func(T) string
	columns []output.Column
	row     func(T) []string
	none    string // what is said when there is none
}

// Document implements output.Result.
func (l list[T]) Document() any {
	return struct {
		Items []T `json:"items"`
	}{append([]T{}, l.items...)}
}

// Names implements output.Named.
func (l list[T]) Names() (all []string) {
	for _, one := range l.items {
		all = append(all, l.kind+"/"+l.name(one))
	}
	return all
}

// Text implements output.Result.
func (l list[T]) Text(t *output.Text) {
	if len(l.items) == 0 {
		t.Line("%s", l.none)
		return
	}
	rows := make([][]string, 0, len(l.items))
	for _, one := range l.items {
		rows = append(rows, l.row(one))
	}
	t.Table("", l.columns, rows)
}

// Done is what commands say that change something.
type Done struct {
	What   string `json:"what"`
	Name   string `json:"name"`
	Change string `json:"change"`
	say    string // what else people should know
}

// Document implements output.Result.
func (d Done) Document() any { return d }

// Names implements output.Named.
func (d Done) Names() []string { return []string{d.What + "/" + d.Name} }

// Text implements output.Result.
func (d Done) Text(t *output.Text) {
	t.Line("%s/%s %s", d.What, d.Name, d.Change)
	if d.say != "" {
		t.Line("%s", d.say)
	}
}

// secretFile is where a secret goes that is shown once: a file that was not there,
// made before the secret is, or with "-" standard output.
type secretFile struct {
	path string
	out  io.Writer
	f    *os.File
}

func (h Host) secretFile(path string) (*secretFile, error) {
	if path == "" {
		return nil, exit.Usage("a file that is not there yet, or - for standard output: it is shown this once", "--token-file is missing")
	}
	if path == "-" {
		return &secretFile{path: path, out: h.Out}, nil
	}
	f, err := exit.NewFile(path, "write token")
	if err != nil {
		return nil, err
	}
	return &secretFile{path: path, out: f, f: f}, nil
}

// write keeps the secret. cancel takes the file away again.
func (s *secretFile) write(secret string) error {
	_, err := fmt.Fprintln(s.out, secret)
	if s.f != nil {
		err = errors.Join(err, s.f.Close())
	}
	if err != nil {
		return fmt.Errorf("write token: %w", err)
	}
	return nil
}

func (s *secretFile) cancel() {
	if s.f != nil {
		_ = s.f.Close()           // nothing is in it
		_ = os.Remove(s.f.Name()) // else an empty file is left, which the next try names
	}
}

// made prints what came of a secret: on standard error, where that goes to standard
// output.
func (h Host) made(s *secretFile, d output.Result) error {
	if s.path != "-" {
		return h.Print(d)
	}
	h.Progress().Done()
	return output.NewPrinter(output.Table, command.Program, h.Err).Print(d)
}
