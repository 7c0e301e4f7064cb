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
	"github.com/spf13/pflag"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/order"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/client"
	"davit.dev/davit/internal/console/restoration"
	"davit.dev/davit/internal/uplink"
)

// followEvery is between two looks at what was asked for.
const followEvery = time.Second

// restorable are the flags of `restore` that mean something at a console.
var restorable = []string{"as-clone", "map-namespace", "map-storage-class", "existing", "site", "dry-run", "diff", "yes", "wait", "reason", "project"}

// Restore has `restore` ask a console for it where --console names one. Without it the
// command is as it was.
func Restore(h Host, cmd *cobra.Command) *cobra.Command {
	flags := cmd.Flags()
	wait := flags.Bool("wait", false, "with --console: wait until it is over")
	reason := flags.String("reason", "", "with --console: what for, for the audit log")
	cmd.Annotations = map[string]string{mark: "yes"}
	cmd.Long += "\n\nWith --console URL, the console asks the agent of the site (--site; default: the one that holds the application) for the restore, or for its\n" +
		"dry run, if the site lets it: `enrol --restores`. It has the rights of the site's davit-restore, and takes over nothing."
	atCluster := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		if h.URL() != "" {
			return h.restore(cmd, given[0], *wait, *reason)
		}
		if *wait || *reason != "" {
			return exit.Usage("leave them out: at a cluster `restore` ends with the restore", "--wait and --reason go with --console")
		}
		return atCluster(cmd, given)
	}
	return cmd
}

func (h Host) restore(cmd *cobra.Command, what string, wait bool, reason string) error {
	if err := checkRestore(cmd); err != nil {
		return err
	}
	app, in, err := askedRestore(cmd.Flags(), what, reason)
	if err != nil {
		return err
	}
	ctx, cancel := h.Working(cmd)
	defer cancel()
	project := ""
	if f := cmd.Flags().Lookup("project"); f != nil && f.Changed { // its default is a vault's
		project = f.Value.String()
	}
	s, err := h.working(project)
	if err != nil {
		return err
	}
	defer s.Close()
	yes, _ := cmd.Flags().GetBool("yes")
	if overwrites := (restoration.Ask{Existing: in.Existing}).Overwrites(); overwrites && !in.DryRun && !yes {
		fmt.Fprintf(h.Err, "Restore %s over what is there, asked for at %s. Whatever was written after the recovery point is lost; --dry-run lists it.\n", app, s.URL())
		if err := h.AskFor(app, "the application's name"); err != nil {
			return err
		}
	}
	h.Progress().Step("asking the site's agent through the console")
	got, err := insist(ctx, time.Second, func() (restoration.Shown, error) { return s.Restore(ctx, s.Project, app, in) })
	if err == nil {
		got, err = s.followed(ctx, h, got, wait || in.DryRun)
	}
	h.Progress().Done()
	if err != nil {
		return h.unrestored(err)
	}
	diff, _ := cmd.Flags().GetBool("diff")
	return h.concludeRestore(got, diff)
}

// checkRestore refuses flags that would be without effect.
func checkRestore(cmd *cobra.Command) (err error) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		inherited := cmd.InheritedFlags().Lookup(f.Name) != nil
		if !inherited && !slices.Contains(restorable, f.Name) || inherited && slices.Contains(elsewhere, f.Name) {
			err = exit.Usage("leave --"+f.Name+" out, or give the command without --console at the site", "--%s means nothing at a console", f.Name)
		}
	})
	return err
}

// askedRestore reads the flags. The id makes the same command's second try the same
// request.
func askedRestore(flags *pflag.FlagSet, what, reason string) (app string, in api.NewRestore, err error) {
	if in.ID, err = account.NewID(); err != nil {
		return "", in, err
	}
	app = order.VaultApp(what)
	if order.IsPoint(what) {
		app, in.Point = order.AppOfPoint(what), what
	}
	in.Reason = reason
	in.Clone, _ = flags.GetBool("as-clone")
	in.DryRun, _ = flags.GetBool("dry-run")
	in.Site, _ = flags.GetString("site")
	existing, _ := flags.GetString("existing")
	if in.Existing = strings.ToLower(existing); in.Clone {
		if in.Existing != "skip" {
			return app, in, exit.Usage("leave --existing out", "a copy that a console asks for goes into new namespaces, and overwrites nothing")
		}
		in.Existing = ""
	}
	for flag, into := range map[string]*map[string]string{"map-namespace": &in.Namespaces, "map-storage-class": &in.StorageClasses} {
		pairs, _ := flags.GetStringSlice(flag)
		if *into, err = order.Mapping(flag, pairs); err != nil {
			return app, in, err
		}
	}
	diff, _ := flags.GetBool("diff")
	switch {
	case diff && !in.DryRun:
		return app, in, exit.Usage("give --dry-run --diff", "--diff shows what would be done: it needs --dry-run")
	case in.Clone && len(in.Namespaces) == 0:
		return app, in, exit.Usage("give --map-namespace FROM=TO for each namespace", "--as-clone needs other namespaces, so that nobody takes the copy for the original")
	case !in.Clone && len(in.Namespaces) > 0:
		return app, in, exit.Usage("--as-clone makes a copy under other names", "what comes back in place keeps its namespaces")
	}
	return app, in, nil
}

// followed waits until the site has answered, or until all is over.
func (s *session) followed(ctx context.Context, h Host, got restoration.Shown, all bool) (restoration.Shown, error) {
	for !got.Over && got.State != restoration.Unknown && (all || got.State == restoration.Waiting) {
		if got.Outcome != nil && got.Outcome.Step != "" {
			h.Progress().Step("%s", got.Outcome.Step)
		}
		select {
		case <-ctx.Done():
			return got, exit.Hint(fmt.Errorf("follow restore %s: %w", got.Name, context.Cause(ctx)), "it goes on by itself: its page at the console shows it")
		case <-time.After(followEvery):
		}
		next, err := s.Restoration(ctx, s.Project, got.ID)
		switch {
		case lost(err) && ctx.Err() == nil: // the console may be taken over
			continue
		case err != nil:
			return got, err
		}
		got = next
	}
	return got, nil
}

// unrestored is explain for a restore.
func (h Host) unrestored(err error) error {
	switch {
	case lost(err):
		return &exit.Error{Code: exit.Failed, Err: err, Hint: "it may have been asked for: the application's page at the console says so. Where no console answers, give the command without --console, with the site's kubeconfig"}
	case client.Is(err, http.StatusConflict):
		return exit.Refuse("the application's page at the console shows what is under way", "%v", err)
	case client.Is(err, http.StatusNotFound):
		return exit.Refuse("the application's page at the console lists its points; `whoami` lists your projects", "%v", err)
	}
	return h.explain(err)
}

// concludeRestore prints how it stands, and says how the command ends.
func (h Host) concludeRestore(got restoration.Shown, diff bool) error {
	switch got.State {
	case uplink.Refused:
		return exit.Refuse(got.Do, "site %s refuses: %s", got.Site, got.Why)
	case restoration.Waiting, restoration.Unknown:
		return &exit.Error{Code: exit.Failed, Err: fmt.Errorf("site %s has not answered about restore %s: %s", got.Site, got.Name, got.Why), Hint: got.Do}
	case uplink.Planned:
		if got.Preview == nil {
			return &exit.Error{Code: exit.Failed, Err: errors.New(got.Why), Hint: got.Do}
		}
	}
	if err := h.Print(Restored{Shown: got, diff: diff}); err != nil {
		return err
	}
	switch {
	case got.State == uplink.Failed:
		return exit.Hint(fmt.Errorf("restore %s: %s", got.Name, got.Why), got.Do)
	case got.Blocked():
		return exit.Quietly(exit.Refused) // as without --dry-run
	case got.State == uplink.Warned, got.Preview != nil && len(got.Preview.Checks) > 0:
		return exit.Quietly(exit.Warnings)
	}
	return nil
}

// Restored is a restore that a console had a site do, or foretell.
type Restored struct {
	restoration.Shown
	diff bool
}

// Document implements output.Result.
func (r Restored) Document() any { return r.Shown }

// Text implements output.Result.
func (r Restored) Text(t *output.Text) {
	switch r.State {
	case uplink.Planned:
		t.Line("Plan for %s at site %s: nothing was changed.", r.Application, r.Site)
		r.preview(t, r.Preview)
		return
	case uplink.Running:
		t.Line("Site %s restores %s, as %s. The console's page of it shows how far it is; --wait waits for its end.", r.Site, r.Application, r.Name)
	case uplink.Completed:
		t.Line("%s is restored at site %s.", r.Application, r.Site)
	case uplink.Warned:
		t.Line("%s is restored at site %s, with warnings.", r.Application, r.Site)
	case uplink.Canceled:
		t.Line("Restore %s of %s at site %s was taken back before it began: nothing was changed.", r.Name, r.Application, r.Site)
		return
	default:
		t.Line("%s is not restored at site %s.", r.Application, r.Site)
	}
	o := r.Outcome
	if o == nil {
		return
	}
	measured := func(millis int64) string {
		if millis == 0 {
			return ""
		}
		return output.Duration(time.Duration(millis) * time.Millisecond)
	}
	t.Fields("  ", "point", r.Point, "step", o.Step, "objects", fmt.Sprintf("%d restored, %d skipped, %d pruned, %d failed", o.Restored, o.Skipped, o.Pruned, o.Failed),
		"volumes", output.Bytes(o.Bytes), "RPO", measured(o.RPO), "RTO", measured(o.RTO))
	if len(o.Warnings) > 0 {
		t.Section(fmt.Sprintf("Warnings (%d)", int64(len(o.Warnings))+o.More))
		for _, w := range o.Warnings {
			t.Line("  %s", w)
		}
	}
}

func (r Restored) preview(t *output.Text, p *uplink.Preview) {
	t.Fields("  ", "point", p.Point+", of "+output.Time(p.Instant)+", from site "+p.SourceSite+", consistency "+p.Consistency, "rights", p.Account, "overlays", strings.Join(p.Overlays, ", "))
	if len(p.Checks) > 0 {
		t.Section("Checks")
		for _, c := range p.Checks {
			t.Line("  %s: %s", c.Severity, strings.TrimSuffix(c.Message+": "+c.Remedy, ": "))
		}
	}
	var rows [][]string
	for _, o := range p.Objects {
		rows = append(rows, []string{o.Action, o.Object, o.Reason})
	}
	t.Section("Objects")
	t.Table("  ", output.Columns("ACTION", "OBJECT", "REASON"), rows)
	if p.Left > 0 {
		t.Line("  … and %d more: too many to be sent", p.Left)
	}
	for _, o := range p.Objects {
		if !r.diff || o.Diff == "" {
			continue
		}
		t.Section(o.Object)
		t.AsIs("  ", o.Diff)
	}
	if r.diff && p.Cut > 0 {
		t.Line("%d differences are not shown, or not whole: `restore --dry-run --diff` at the site shows all.", p.Cut)
	}
}
