package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/remote"
	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/client"
)

func (h Host) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status [URL...]",
		Short: "Which of a console's processes is active, and how far the others follow it",
		Long: `Asks the console that you are logged in to, the active one that it names, and those at the URLs given, which is active, with what epoch; what of it is not
in the vault yet; and, of those that stand by, how long ago they had all that it wrote. Ends with 4 where one does not answer, where none is
active, or where one that stands by does not keep up.`,
		Example: `  davit console status https://console-b.example.com:8443`,
		RunE: func(cmd *cobra.Command, urls []string) error {
			for _, u := range urls {
				if err := client.CheckURL(u); err != nil {
					return exit.AsUsage(err)
				}
			}
			return h.atConsole(cmd, func(ctx context.Context, s *remote.Session) error {
				p := h.pair(ctx, s, urls)
				if err := h.Print(p); err != nil {
					return err
				}
				if !p.well() {
					return exit.Quietly(exit.Warnings)
				}
				return nil
			})
		},
	}
}

// askLimit is how long one process is waited for.
const askLimit = 10 * time.Second

// slack is how far one that stands by may be behind before that needs a look: it
// looks once a second.
const slack = 30 * time.Second

// Pair are the processes of a console.
type Pair struct {
	Processes []Process `json:"processes"`
}

// Process is one of them.
type Process struct {
	URL string `json:"url"`
	*api.Status
	Fault string `json:"fault,omitempty"` // why it is not known
}

// pair asks each process that is known. No token is sent: what they say is for
// everybody.
func (h Host) pair(ctx context.Context, s *remote.Session, urls []string) *Pair {
	p := &Pair{}
	queue := append([]string{s.URL()}, urls...)
	for i := 0; i < len(queue); i++ {
		if slices.ContainsFunc(queue[:i], func(u string) bool { return same(u, queue[i]) }) {
			continue
		}
		h.Progress().Step("asking %s", queue[i])
		one := Process{URL: queue[i]}
		st, err := ask(ctx, queue[i], s.Trust())
		if err != nil {
			one.Fault = err.Error()
		} else {
			one.Status = &st
			if client.CheckURL(st.Active) == nil {
				queue = append(queue, st.Active)
			}
		}
		p.Processes = append(p.Processes, one)
	}
	p.merge()
	return p
}

func same(a, b string) bool {
	return strings.EqualFold(strings.TrimRight(a, "/"), strings.TrimRight(b, "/"))
}

func ask(ctx context.Context, url string, trust client.Trust) (api.Status, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askLimit, fmt.Errorf("no answer within %s", askLimit))
	defer cancel()
	c, err := client.New(url, "", trust)
	if err != nil {
		return api.Status{}, err
	}
	defer c.Close()
	return c.Status(ctx)
}

// merge leaves the address out by which the active one calls itself, where it was
// found by another one and cannot be reached by its own, such as from outside.
func (p *Pair) merge() {
	found := slices.IndexFunc(p.Processes, func(o Process) bool { return o.Status != nil && o.Role == "active" })
	if found < 0 {
		return
	}
	own := p.Processes[found]
	p.Processes = slices.DeleteFunc(p.Processes, func(o Process) bool {
		again := o.Status != nil && o.Role == "active" && o.Epoch == own.Epoch
		return o.URL != own.URL && same(o.URL, own.Active) && (o.Status == nil || again)
	})
}

func (p *Pair) well() bool {
	active := 0
	for _, one := range p.Processes {
		switch {
		case one.Status == nil || one.Role == "silent" || one.follows() && one.behind() > slack:
			return false
		case one.Role == "active":
			active++
		}
	}
	return active == 1
}

func (o Process) follows() bool         { return o.Role == "passive" }
func (o Process) behind() time.Duration { return time.Duration(o.Behind) * time.Millisecond }

// Document implements output.Result.
func (p *Pair) Document() any { return p }

// Text implements output.Result.
func (p *Pair) Text(t *output.Text) {
	var rows [][]string
	for _, one := range p.Processes {
		if one.Status == nil {
			rows = append(rows, []string{one.URL, "not known", "", "", "", "", output.OneLine(one.Fault)})
			continue
		}
		waiting, behind := "", ""
		if one.follows() {
			behind = output.Duration(one.behind())
		} else {
			waiting = output.Plural(one.Waiting, "change")
		}
		rows = append(rows, []string{one.URL, one.Role, fmt.Sprint(one.Epoch), waiting, behind, one.Version, one.Why})
	}
	t.Table("", output.Columns("CONSOLE", "ROLE", ">EPOCH", "NOT IN THE VAULT", "BEHIND", "VERSION", "WHY"), rows)
	if len(p.Processes) == 1 && p.Processes[0].Status != nil {
		t.Line("Those that stand by are not known to it: name them, as davit console status https://HOST:PORT.")
	}
}

func (h Host) backupsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backups",
		Short: "The console's own backups, and whether the newest came back",
		Long: `Lists, for administrators, the newest backup of each of the console's databases, and when one was last brought back into a scratch directory, its
audit log read to the end. "backups take" has that done now. Ends with 4 where one failed.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return h.atConsole(cmd, func(ctx context.Context, s *remote.Session) error {
				b, err := s.Backups(ctx)
				if err != nil {
					return h.Explain(err)
				}
				return h.kept(b)
			})
		},
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "take",
		Short: "Back the console up now, and bring each backup back into a scratch directory",
		Long: `Has all of the console's databases backed up into their vaults now, and each backup brought back into a scratch directory. Ends with 4 where one
failed, and with 1 where it took too long to wait for.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := h.Working(cmd)
			defer cancel()
			s, err := h.OpenConsole()
			if err != nil {
				return err
			}
			defer s.Close()
			h.Progress().Step("backing the console up")
			b, err := s.TakeBackups(ctx)
			if err != nil {
				return h.Explain(err)
			}
			if b.Pending {
				return &exit.Error{Code: exit.Failed, Err: fmt.Errorf("the backups are still under way"), Hint: "`console backups` shows when they are there; the console's log says what they wait for"}
			}
			return h.kept(b)
		},
	})
	return cmd
}

// kept prints backups, and says how the command ends.
func (h Host) kept(b api.Backups) error {
	l := list[api.Backup]{
		items: b.Items, kind: "backup", columns: output.Columns("DATABASE", ">NUMBER", "NEWEST", ">SIZE", "BROUGHT BACK", "+>AUDIT RECORDS", "FAULT"),
		none: "None was tried yet since the console started, or it is served with --backup-every 0.",
		name: database,
		row: func(b api.Backup) []string {
			size, records := "", ""
			if b.Size > 0 {
				size = output.Bytes(b.Size)
			}
			if b.Records > 0 {
				records = fmt.Sprint(b.Records)
			}
			back := output.Ago(b.Checked, h.Now())
			if back != "" {
				back = fmt.Sprintf("number %d, %s", b.CheckedNumber, back)
			}
			return []string{database(b), fmt.Sprint(b.Number), output.Ago(b.At, h.Now()), size, back, records, output.OneLine(strings.TrimSpace(b.Fault + " " + b.CheckFault))}
		},
	}
	if err := h.Print(l); err != nil {
		return err
	}
	if slices.ContainsFunc(b.Items, func(b api.Backup) bool { return b.Fault != "" || b.CheckFault != "" || b.Number == 0 }) {
		return exit.Quietly(exit.Warnings)
	}
	return nil
}

// database is what one is called: the console's own, or a project's.
func database(b api.Backup) string {
	if b.Project == "" {
		return "console"
	}
	return "project " + b.Project
}
