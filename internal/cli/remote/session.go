package remote

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/console/client"
)

// Session is a console that somebody is logged in to, and the project to work in.
type Session = session

// Trust is what vouches for the console.
func (s *session) Trust() client.Trust { return client.Trust{CA: s.entry.CA} }

// Open finds the console and who is logged in there, for a command that needs a
// project; "" is the one that was kept at login.
func (h Host) Open(project string) (*Session, error) { return h.working(project) }

// OpenConsole is Open for a command that is of no project.
func (h Host) OpenConsole() (*Session, error) { return h.open("") }

// Explain adds what to do next to what a console said, and how the command ends.
func (h Host) Explain(err error) error { return h.explain(err) }

// Insist asks again where an answer may have been lost. What it asks for is the same when it is
// asked twice.
func Insist[T any](ctx context.Context, ask func() (T, error)) (T, error) {
	return insist(ctx, time.Second, ask)
}

// AtConsole has commands, and those below them, take --console.
func AtConsole(all ...*cobra.Command) []*cobra.Command {
	for _, cmd := range all {
		cmd.Annotations = map[string]string{mark: "yes"}
		AtConsole(cmd.Commands()...)
	}
	return all
}

// Secret reads a secret from a file, or with "-" from standard input.
func (h Host) Secret(what, name string) (string, error) { return h.file(what, name) }
