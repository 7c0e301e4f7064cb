package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/begin"
	"davit.dev/davit/internal/console/client"
	"davit.dev/davit/internal/plan"
)

// Begin has commands that begin runs at a cluster ask a console for them, where
// --console names one. Without it they are as they were.
func Begin(h Host, all ...*cobra.Command) []*cobra.Command {
	for _, cmd := range all {
		cmd.Annotations = map[string]string{mark: "yes"}
		cmd.Long += "\n\nWith --console URL, the console asks the target's agent for the run, with the rights of whoever is logged in there."
		atCluster := cmd.RunE
		cmd.RunE = func(cmd *cobra.Command, given []string) error {
			if h.URL() == "" {
				return atCluster(cmd, given)
			}
			project := ""
			if f := cmd.Flags().Lookup("project"); f != nil && f.Changed { // its default is a vault's
				project = f.Value.String()
			}
			return h.begin(cmd, given, project)
		}
	}
	return all
}

// elsewhere are flags that mean nothing at a console.
var elsewhere = []string{
	"file", "dry-run", "sweep", "wait", "vault-url", "recovery-key-file", "kubeconfig", "context", "vault",
	"despite", "install", "image", "registry", "image-pull-policy", "image-pull-secret", "kubelet-root", "host-path-root", "cri-socket", "failure-domain", "replace-lost-site",
}

func (h Host) begin(cmd *cobra.Command, given []string, project string) error {
	if len(given) != 1 {
		return exit.Usage("`"+cmd.Name()+" --help` shows how", "%s at a console takes one PLAN", cmd.Name())
	}
	flags := cmd.Flags()
	for _, name := range elsewhere {
		if flags.Changed(name) {
			return exit.Usage("leave --"+name+" out, or give the command without --console at the target", "--%s means nothing at a console", name)
		}
	}
	in, err := asked(cmd.Name(), flags)
	if err != nil {
		return err
	}
	ctx, cancel := h.Working(cmd)
	defer cancel()
	s, err := h.working(project)
	if err != nil {
		return err
	}
	defer s.Close()
	yes, _ := flags.GetBool("yes") // a drill has none
	if begin.Moves(plan.Verb(in.Verb)) && !yes {
		fmt.Fprintf(h.Err, "%s of plan %s, asked for at %s. Its page there says what would be lost, and what is in the way.\n", in.Verb, given[0], s.URL())
		if err := h.AskFor(given[0], "the plan's name"); err != nil {
			return err
		}
	}
	h.Progress().Step("asking the site's agent through the console")
	got, err := insist(ctx, time.Second, func() (begin.Shown, error) { return s.Begin(ctx, s.Project, given[0], in) })
	if err != nil {
		return h.unasked(err)
	}
	h.Progress().Done()
	switch got.State {
	case "created":
		return h.Print(Asked(got))
	case "refused":
		return exit.Refuse(got.Do, "site %s refuses: %s", got.To, got.Why)
	}
	hint := got.Do
	if hint == "" {
		hint = "the plan's page at the console says what becomes of it; nothing is begun after " + got.Until.UTC().Format(time.RFC3339)
	}
	return &exit.Error{Code: exit.Failed, Err: fmt.Errorf("site %s has not answered about run %s: %s", got.To, got.Run, got.Why), Hint: hint}
}

// insist asks again where an answer may have been lost. It stays one request.
func insist[T any](ctx context.Context, pause time.Duration, ask func() (T, error)) (got T, err error) {
	for range 3 {
		if got, err = ask(); !lost(err) {
			return got, err
		}
		select {
		case <-ctx.Done():
			return got, context.Cause(ctx)
		case <-time.After(pause):
		}
	}
	return got, err
}

// lost tells whether it may have been asked for although there is no answer.
func lost(err error) bool {
	if errors.Is(err, client.ErrTrust) {
		return false
	}
	return errors.Is(err, client.ErrUnreachable) || client.Is(err, http.StatusGatewayTimeout) || client.Is(err, http.StatusServiceUnavailable)
}

// unasked is explain for a run: what helps with a document does not help here.
func (h Host) unasked(err error) error {
	switch {
	case lost(err):
		return &exit.Error{Code: exit.Failed, Err: err, Hint: "it may have been asked for: the plan's page at the console says so, and a second run is refused meanwhile. Where no console answers, give the command without --console, with the target's kubeconfig"}
	case client.Is(err, http.StatusConflict):
		return exit.Refuse("the plan's page at the console shows what is under way", "%v", err)
	case client.Is(err, http.StatusNotFound):
		return exit.Refuse("the page Plans at the console lists those that the vault keeps; `whoami` lists your projects", "%v", err)
	}
	return h.explain(err)
}

// asked reads the flags. The id makes the same command's second try the same
// request.
func asked(verb string, flags *pflag.FlagSet) (in api.NewRun, err error) {
	in.Verb = verb
	if in.ID, err = account.NewID(); err != nil {
		return in, err
	}
	in.To, _ = flags.GetString("to")
	in.Reason, _ = flags.GetString("reason")
	if lost, err := flags.GetStringSlice("lost"); err == nil {
		in.Lost = slices.Clone(lost)
	}
	in.AcceptAsked, _ = flags.GetBool("accept-asked")
	if points, err := flags.GetStringToString("point"); err == nil && len(points) > 0 {
		in.Points = points
	}
	if text, _ := flags.GetString("as-of"); text != "" {
		if in.AsOf, err = time.Parse(time.RFC3339, text); err != nil {
			return in, exit.Usage("write it such as 2026-11-27T04:00:00Z", "--as-of %q is not a time", text)
		}
	}
	return in, nil
}

// Asked is a run that a console had a site begin.
type Asked begin.Shown

// Document implements output.Result.
func (a Asked) Document() any { return begin.Shown(a) }

// Text implements output.Result.
func (a Asked) Text(t *output.Text) {
	t.Line("Site %s has begun run %s, a %s of plan %s. The console's page of the run shows how far it is.", a.To, a.Run, a.Verb, a.Plan)
	if a.Why != "" {
		t.Line("%s.", a.Why)
	}
}
