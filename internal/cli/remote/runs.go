package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/remote/standing"
	"davit.dev/davit/internal/cli/words"
	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/client"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/steer"
	"davit.dev/davit/internal/failover"
)

// answers is how long it is waited for whoever carries a run.
const answers = 30 * time.Second

// atConsole are the commands of `runs` that a console can be asked for, and what they
// want of a run; what wants nothing only looks.
var atConsole = map[string]failover.EventKind{
	"ls": "", "show": "", "report": "", "approve": failover.Approve, "pause": failover.Pausing, "resume": failover.Resume, "retry": failover.Retry, "skip": failover.Skip,
	"answer": failover.Answer, "consent": failover.Consent, "commit": failover.Commit, "rollback": failover.RollBack, "cancel": failover.Cancel, "settle": failover.Settle,
}

// Runs has the commands of `runs` ask a console where --console names one. Without it
// they are as they were.
func Runs(h Host, runs *cobra.Command) *cobra.Command {
	runs.Long += "\n\nWith --console URL, the console is asked, with the rights of whoever is logged in there; take-over works at a cluster alone."
	for _, cmd := range runs.Commands() {
		kind, known := atConsole[cmd.Name()]
		if !known {
			continue
		}
		cmd.Annotations = map[string]string{mark: "yes"}
		atCluster := cmd.RunE
		cmd.RunE = func(cmd *cobra.Command, given []string) error {
			if h.URL() == "" {
				return atCluster(cmd, given)
			}
			return h.ofRuns(cmd, kind, given)
		}
	}
	return runs
}

func (h Host) ofRuns(cmd *cobra.Command, kind failover.EventKind, given []string) error {
	flags := cmd.Flags()
	for _, name := range elsewhere {
		if flags.Changed(name) {
			return exit.Usage("leave --"+name+" out, or give the command without --console", "--%s means nothing at a console", name)
		}
	}
	project := ""
	if f := flags.Lookup("project"); f != nil && f.Changed { // its default is a vault's
		project = f.Value.String()
	}
	ctx, cancel := h.Working(cmd)
	defer cancel()
	s, err := h.working(project)
	if err != nil {
		return err
	}
	defer s.Close()
	switch {
	case len(given) == 0:
		err = h.listRuns(ctx, s)
	case kind == "":
		err = h.lookAt(ctx, s, cmd, given)
	default:
		err = h.want(ctx, s, cmd, kind, given)
	}
	switch {
	case client.Is(err, http.StatusNotFound):
		return exit.Refuse("`runs ls` lists those that the vault keeps", "%v", err)
	case client.Is(err, http.StatusConflict):
		return exit.Refuse("`runs show` shows how it stands", "%v", err)
	}
	return h.explain(err)
}

func (h Host) listRuns(ctx context.Context, s *session) error {
	f, err := s.Fleet(ctx, s.Project)
	if err != nil {
		return err
	}
	if f.Known == nil {
		return exit.Refuse("ask again in a minute, or give the command without --console", "the console has not read the vault yet")
	}
	return h.Print(Ran{Runs: f.Known.Runs, now: h.Now()})
}

// report prints a run's report, which the console has checked: its signature, and that it was made of
// the journal that the vault has.
func (h Host) report(ctx context.Context, s *session, cmd *cobra.Command, run string) error {
	format, err := cmd.Flags().GetString("output")
	if err != nil || !slices.Contains(words.Formats(), format) {
		return exit.Usage("", "-o %q is not one of %s", format, strings.Join(words.Formats(), ", "))
	}
	d, err := s.Report(ctx, s.Project, run)
	if err != nil {
		return err
	}
	h.Progress().Done()
	return words.Report(h.Out, d, format)
}

func (h Host) lookAt(ctx context.Context, s *session, cmd *cobra.Command, given []string) error {
	if cmd.Name() == "report" {
		return h.report(ctx, s, cmd, given[0])
	}
	step, wanted := words.Wanted(cmd, given)
	if !wanted {
		return h.showRun(ctx, s, given[0])
	}
	all, err := s.Said(ctx, s.Project, given[0], step)
	if err != nil {
		return err
	}
	if step != "" && len(all) == 0 { // it may be none of the run's
		r, err := s.Run(ctx, s.Project, given[0])
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(r.Run.Steps, func(of failover.StepResult) bool { return of.Name == step }) {
			return exit.Refuse("`runs show "+given[0]+"` lists its steps", "run %s has no step %q", given[0], step)
		}
	}
	return h.Print(words.Of(given[0], step, all))
}

func (h Host) showRun(ctx context.Context, s *session, run string) error {
	r, err := s.Run(ctx, s.Project, run)
	if err != nil {
		return err
	}
	return h.Print(standing.Run{Run: r.Run, Offers: r.Offers, Asked: r.Asked})
}

// want wants something of a run, and waits a while for what becomes of it.
func (h Host) want(ctx context.Context, s *session, cmd *cobra.Command, kind failover.EventKind, given []string) error {
	w, err := wanted(cmd, kind, given)
	if err != nil {
		return err
	}
	if kind == failover.Consent {
		if err := s.consentable(ctx, given[0], w.Site); err != nil {
			return err
		}
	}
	if yes, _ := cmd.Flags().GetBool("yes"); kind == failover.Consent && !yes {
		if err := h.AskFor(w.Site, "the site, to say that you made sure that it has stopped"); err != nil {
			return err
		}
	}
	h.Progress().Step("asking run %s through the console", given[0])
	got, err := insist(ctx, time.Second, func() (steer.Asked, error) { return s.Want(ctx, s.Project, given[0], w) })
	patient, cancel := context.WithTimeout(ctx, answers)
	defer cancel()
	for err == nil && !got.Answered && patient.Err() == nil {
		select {
		case <-patient.Done():
		case <-time.After(followEvery):
			var next steer.Asked
			if next, err = s.Wanted(ctx, s.Project, given[0], got.Number); lost(err) {
				err = nil
			} else if err == nil {
				got = next
			}
		}
	}
	h.Progress().Done()
	switch {
	case lost(err):
		return &exit.Error{Code: exit.Failed, Err: err, Hint: "it may have been asked: `runs show " + given[0] + "` at the console says so"}
	case err != nil:
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case !got.Answered && kind == failover.Settle:
		return &exit.Error{Code: exit.Failed, Err: errors.New("the agent of the run's target has not answered yet"), Hint: "it is asked; without --console `runs settle` needs no agent"}
	case !got.Answered:
		return &exit.Error{
			Code: exit.Failed, Err: fmt.Errorf("run %s has not answered yet", given[0]),
			Hint: "it is asked, and answers when somebody carries it: `runs take-over " + given[0] + "` at its target helps where nobody does",
		}
	case got.Refused != "":
		return exit.Refuse("`runs show "+given[0]+"` shows how it stands", "run %s: %s", given[0], got.Refused)
	}
	return h.showRun(ctx, s, given[0])
}

// consentable refuses a consent that the run does not take, before anybody types a name.
func (s *session) consentable(ctx context.Context, run, site string) error {
	r, err := s.Run(ctx, s.Project, run)
	if err != nil {
		return err
	}
	var takes []string
	for _, o := range r.Offers {
		if o.Kind == failover.Consent {
			takes = append(takes, o.Site)
		}
	}
	switch {
	case slices.Contains(takes, site):
		return nil
	case len(takes) == 0:
		return exit.Refuse("`runs show "+run+"` shows what it takes now", "run %s takes no consent now", run)
	}
	return exit.Refuse("give one of those", "run %s takes no consent about site %q, only about %s", run, site, strings.Join(takes, ", "))
}

// wanted reads the command line. The id makes its second try the same request.
func wanted(cmd *cobra.Command, kind failover.EventKind, given []string) (w steer.Want, err error) {
	w.Kind = kind
	if w.ID, err = account.NewID(); err != nil {
		return w, err
	}
	flags := cmd.Flags()
	w.Note, _ = flags.GetString("note")
	if reason := flags.Lookup("reason"); reason != nil {
		if w.Note = reason.Value.String(); strings.TrimSpace(w.Note) == "" {
			return w, exit.Usage("", "give --reason: the run's journal keeps it")
		}
	}
	w.Typed, _ = flags.GetString("lose")
	w.Failed, _ = flags.GetBool("failed")
	switch {
	case len(given) > 1 && kind == failover.Consent:
		w.Site, w.Typed = given[1], given[1]
	case len(given) > 1:
		w.Step = given[1]
	}
	if w.Kind == "" {
		return w, errors.New("nothing is wanted")
	}
	return w, nil
}

// Ran are runs as a console knows them.
type Ran struct {
	Runs []fleet.Run `json:"runs"`
	now  time.Time
}

// Document implements output.Result.
func (r Ran) Document() any { return r }

// Text implements output.Result.
func (r Ran) Text(t *output.Text) {
	if len(r.Runs) == 0 {
		t.Line("There are no runs.")
		return
	}
	var rows [][]string
	for _, x := range r.Runs {
		rows = append(rows, []string{x.Run, string(x.Verb), x.Plan, x.From + " → " + x.To, string(x.State), output.Age(x.Begun, r.now), output.OneLine(strings.TrimSpace(x.Pause + x.Fault))})
	}
	t.Table("", output.Columns("RUN", "VERB", "PLAN", "FROM → TO", "STATE", "AGE", "WAITS FOR"), rows)
}
