package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/console/client"
)

func watchCommand(h Host) *cobra.Command {
	var project, namespace string
	cmd := &cobra.Command{
		Use:   "watch KIND [NAME]",
		Short: "Follow what becomes of documents at a console",
		Long: `Prints each document that there is, as ADDED, and then each change as it comes, until it is interrupted. When the connection
breaks, or the console is started again, it goes on from where it was, and says so on standard error. With -o json an event is one
line, with -o yaml one document of a stream.`,
		Example: `  davit --console https://console.example.com:8443 watch policies
  davit watch plan shop -o json`,
		ValidArgs: kindNames(),
		RunE: func(cmd *cobra.Command, given []string) error {
			ctx, cancel := h.Working(cmd)
			defer cancel()
			what, err := one(given, namespace)
			if err != nil {
				return err
			}
			s, err := h.working(project)
			if err != nil {
				return err
			}
			defer s.Close()
			return h.watch(ctx, s, what)
		},
	}
	projectFlag(cmd.Flags(), &project)
	namespaceFlag(cmd.Flags(), &namespace)
	return cmd
}

func (h Host) watch(ctx context.Context, s *session, what target) error {
	h.Progress().Done()
	lines := &eventLines{h: h, what: what}
	f := &client.Follower{
		Client: s.Client, Of: what.ref(s.Project), Each: lines.print,
		Note: func(why error) { fmt.Fprintf(h.Err, "warning: %v; asking again\n", why) },
	}
	err := f.Run(ctx)
	if errors.Is(err, exit.ErrInterrupted) {
		return exit.Quietly(exit.OK) // that is how a watch ends
	}
	return h.explain(err)
}

// eventLines prints events.
type eventLines struct {
	h      Host
	what   target
	headed bool
	widths []int
}

func (e *eventLines) print(event client.Event) error {
	var text []byte
	var err error
	switch e.h.Format() {
	case output.JSON:
		text, err = json.Marshal(event)
		text = append(text, '\n')
	case output.YAML:
		text, err = yaml.Marshal(event)
		text = append([]byte("---\n"), text...)
	case output.Name:
		text = []byte(event.Type + " " + nameOf(event.Object) + "\n")
	default:
		text = []byte(e.line(event))
	}
	if err == nil {
		_, err = e.h.Out.Write(text)
	}
	if err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	return nil
}

// line is a row of a table whose columns get wider when they have to.
func (e *eventLines) line(event client.Event) string {
	t := &output.Text{Wide: e.h.Format() == output.Wide}
	all := append(output.Columns("EVENT"), columns(e.what.kind)...)
	for len(e.widths) < len(all) {
		e.widths = append(e.widths, len(all[len(e.widths)].Name))
	}
	cells := append([]string{event.Type}, row(event.Object, e.h.Now())...)
	for i := range all {
		all[i].Name = fmt.Sprintf("%-*s", e.widths[i], all[i].Name)
		e.widths[i] = max(e.widths[i], len(cells[i]))
	}
	t.Table("", all, [][]string{cells})
	head, rest, _ := strings.Cut(t.String(), "\n")
	if e.headed {
		return rest
	}
	e.headed = true
	return head + "\n" + rest
}
