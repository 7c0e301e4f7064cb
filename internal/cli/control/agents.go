package control

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/remote"
	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/fleet"
)

func (h Host) agentsCommand() *cobra.Command {
	var project string
	cmd := &cobra.Command{
		Use:   "agents",
		Short: "The agents of a project's sites: their last word, and when their certificates end",
		Long: `Lists the agents that were let in: whether they are connected, when they last said something, when their certificates end, and what
their sites let the console do. "agents token" lets the agent of a site in, "agents remove" shuts one out.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return h.inProject(cmd, project, func(ctx context.Context, s *remote.Session) error {
				all, err := s.Agents(ctx, s.Project)
				if err != nil {
					return h.Explain(err)
				}
				return h.Print(h.agents(all.Items, s.Project))
			})
		},
	}
	projectFlag(cmd, &project)
	cmd.AddCommand(h.agentToken(), h.removeAgent())
	return cmd
}

func (h Host) agents(all []fleet.Agent, project string) list[fleet.Agent] {
	return list[fleet.Agent]{
		items: all, kind: "agent", columns: output.Columns("SITE", "STATE", "LAST WORD", "CERTIFICATE ENDS", "DOCUMENTS", "RUNS", "RESTORES", "VERSION", "+>OBJECTS"),
		none: "No agent was let into project " + project + ": davit agents token SITE makes a token for one.",
		name: func(a fleet.Agent) string { return a.Site },
		row: func(a fleet.Agent) []string {
			now := h.Now()
			return []string{a.Site, agentState(a, now), output.Ago(a.Seen, now), output.Ago(a.Ends, now), yes(a.Takes), a.Runs, a.Restores, a.Version, fmt.Sprint(len(a.Objects))}
		},
	}
}

func agentState(a fleet.Agent, now time.Time) string {
	switch {
	case a.Connected:
		return "connected"
	case a.Seen.IsZero():
		return "never came"
	case !a.Ends.IsZero() && a.Ends.Before(now):
		return "away; certificate is over: enrol it again"
	}
	return "away"
}

func (h Host) agentToken() *cobra.Command {
	var project, file string
	var life time.Duration
	cmd := &cobra.Command{
		Use:   "token SITE --token-file FILE",
		Short: "Make a token that lets the agent of a site in, once",
		Long: `Makes a token for the agent of one site and of this project. It counts once. It is written to --token-file this once, or, with -, to standard
output. At the site, "davit enrol" or "davit install" takes it. The site's agent that was let in before is shut out when the new one comes.`,
		Example: `  davit agents token east --token-file ./east.token
  davit enrol --console https://console.example.com:8443 --enrol-token-file ./east.token   # at the site`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			if life < time.Minute {
				return exit.Usage("such as --for 1h", "--for is at least 1m")
			}
			return h.inProject(cmd, project, func(ctx context.Context, s *remote.Session) error { return h.enrol(ctx, s, names[0], life, file) })
		},
	}
	projectFlag(cmd, &project)
	cmd.Flags().DurationVar(&life, "for", time.Hour, "how long the token may be used, at most 168h")
	cmd.Flags().StringVar(&file, "token-file", "", "file to write the token to, which must not be there yet; - is standard output")
	return cmd
}

func (h Host) enrol(ctx context.Context, s *remote.Session, site string, life time.Duration, path string) error {
	file, err := h.secretFile(path)
	if err != nil {
		return err
	}
	e, err := s.Enrol(ctx, s.Project, site, life)
	if err != nil {
		file.cancel()
		return h.Explain(err)
	}
	if err := file.write(e.Token); err != nil {
		return exit.Hint(err, "make another; this one ends by itself")
	}
	at := path
	if path == "-" {
		at = "FILE"
	}
	return h.made(file, Done{
		What: "agent", Name: site, Change: "may be let in until " + output.Time(e.Expires),
		say: "At the site: davit enrol --console " + s.URL() + " --enrol-token-file " + at,
	})
}

func (h Host) removeAgent() *cobra.Command {
	var project string
	cmd := &cobra.Command{
		Use:   "remove SITE...",
		Short: "Shut sites' agents out of a console, and end their unused tokens",
		Long: `Shuts the agents of sites out: their certificates count no more. Protection at the sites goes on. A new token lets them in
again.`,
		Args: some,
		RunE: func(cmd *cobra.Command, names []string) error {
			return h.each(cmd, project, names, func(ctx context.Context, s *remote.Session, site string) (Done, error) {
				err := s.RemoveAgent(ctx, s.Project, site)
				return Done{What: "agent", Name: site, Change: "shut out"}, h.missing(err, "`agents` lists them")
			})
		},
	}
	projectFlag(cmd, &project)
	return cmd
}

func (h Host) eventsCommand() *cobra.Command {
	var project, site string
	var limit int
	var following bool
	cmd := &cobra.Command{
		Use:   "events",
		Short: "What the agents of a project's sites told a console of",
		Long:  `Prints the newest events that agents told of, the oldest of them first. --follow goes on with what comes, until it is interrupted.`,
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 || limit > 1000 {
				return exit.Usage("", "--limit is 1 to 1000")
			}
			ctx, cancel := h.Looking(cmd)
			if following {
				cancel()
				ctx, cancel = h.Working(cmd)
			}
			defer cancel()
			s, err := h.Open(project)
			if err != nil {
				return err
			}
			defer s.Close()
			if !following {
				e, err := s.Events(ctx, s.Project, site, -1, limit)
				if err != nil {
					return h.Explain(err)
				}
				return h.Print(eventList(e.Items))
			}
			after := int64(-1)
			return follow(ctx, h, func(ctx context.Context) ([]api.Event, error) {
				e, err := s.Events(ctx, s.Project, site, after, limit)
				if n := len(e.Items); n > 0 {
					after = e.Items[n-1].Number
				} else if err == nil { // there is none yet: from here on all are new
					after = max(after, 0)
				}
				return e.Items, err
			}, eventLine)
		},
	}
	projectFlag(cmd, &project)
	cmd.Flags().StringVar(&site, "site", "", "only of this site")
	cmd.Flags().IntVar(&limit, "limit", 50, "at most so many of the newest, 1 to 1000")
	cmd.Flags().BoolVarP(&following, "follow", "f", false, "go on with what comes")
	return cmd
}

func eventLine(e api.Event) string {
	return fmt.Sprintf("%s  %-8s  %-7s  %-16s  %s  %s", output.Time(e.At), e.Site, e.Type, e.Reason, eventObject(e), eventText(e))
}

func eventObject(e api.Event) string {
	return strings.TrimPrefix(e.Object.Kind+"/"+e.Object.Name, "/")
}

func eventText(e api.Event) string {
	if e.Lost > 0 {
		return output.OneLine(e.Message) + fmt.Sprintf(" (%d before it were lost)", e.Lost)
	}
	return output.OneLine(e.Message)
}

// eventList is a part of what agents told of.
type eventList []api.Event

// Document implements output.Result.
func (l eventList) Document() any { return api.Events{Items: append([]api.Event{}, l...)} }

// Text implements output.Result.
func (l eventList) Text(t *output.Text) {
	if len(l) == 0 {
		t.Line("No agent has told of anything.")
		return
	}
	rows := make([][]string, 0, len(l))
	for _, e := range l {
		rows = append(rows, []string{output.Time(e.At), e.Site, e.Type, e.Reason, eventObject(e), eventText(e)})
	}
	t.Table("", output.Columns("TIME", "SITE", "TYPE", "REASON", "OBJECT", "MESSAGE"), rows)
}
