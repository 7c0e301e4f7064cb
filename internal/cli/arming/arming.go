// Package arming is the command line's `plan arm` and `plan disarm`: puts the
// applications of a plan under the plan's lease where they run, and takes it off.
package arming

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/wiring"
	"davit.dev/davit/internal/commission"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/foresight"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/register"
	"davit.dev/davit/internal/vault"
)

// lookEvery is how often it is looked whether the nodes keep a lease.
const lookEvery = time.Second

// Host is what the command line gives its commands.
type Host struct {
	Err      io.Writer
	Print    func(output.Result) error
	Progress func() *output.Progress
	Now      func() time.Time
	Bounded  func(cmd *cobra.Command) (context.Context, context.CancelFunc)
	Open     func(ctx context.Context, cmd *cobra.Command, a *access.Address, site string) (*access.Opened, wiring.Cluster, error)
	AskFor   func(name, what string) error
	Read     func(file string) (*plan.Plan, error)
}

// given are a command's flags.
type given struct {
	access.Address
	yes, noWait bool
}

// Arm makes `plan arm`.
func Arm(h *Host) *cobra.Command {
	var g given
	cmd := &cobra.Command{
		Use:   "arm FILE",
		Short: "Put a plan's applications under its lease, where they run",
		Long: `Claims the next epoch of each of the plan's applications, for this site, which must hold them, under the lease of the plan
(fence.lease, bound and driftPPM; declaration.automatic must be set). From then on each node stops the applications by itself when
the vault has been silent for one lease, and lets them run again when it answers. So another site knows, after a wait that it
computes, that nothing of them writes here: "timed-out lease".

Refused while a run moves or restores one of the applications, its time to be committed included.

With fence.promises in the plan the application runs on while the vault is silent, as long as every other site of the plan promises to
stay passive, asked at its peer address. The claim names those sites: arm again when the plan's sites or addresses change.

The command waits until every node keeps the lease. Before that no other site goes by it.`,
		Example: "  davit plan arm shop.yaml",
		Args:    oneFile,
		RunE:    func(cmd *cobra.Command, args []string) error { return h.change(cmd, &g, args[0], true) },
	}
	cmd.Flags().BoolVar(&g.yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&g.noWait, "no-wait", false, "do not wait until every node keeps the lease")
	g.BreakGlass(cmd.Flags())
	return cmd
}

// Disarm makes `plan disarm`.
func Disarm(h *Host) *cobra.Command {
	var g given
	cmd := &cobra.Command{
		Use:   "disarm FILE",
		Short: "Take the lease off a plan's applications, where they run",
		Long: `Claims the next epoch of each of the plan's applications, for this site, which must hold them, without a lease: silence of the
vault stops nothing any more, and no wait proves to another site that they have stopped. Do this before an application that is under a
lease is unprotected, and before Davit is uninstalled.`,
		Example: "  davit plan disarm shop.yaml",
		Args:    oneFile,
		RunE:    func(cmd *cobra.Command, args []string) error { return h.change(cmd, &g, args[0], false) },
	}
	cmd.Flags().BoolVar(&g.yes, "yes", false, "do not ask")
	g.BreakGlass(cmd.Flags())
	return cmd
}

func oneFile(cmd *cobra.Command, given []string) error {
	if len(given) != 1 {
		return exit.Usage("", "%s takes one FILE, but was given %d arguments", cmd.Name(), len(given))
	}
	return nil
}

func (h *Host) change(cmd *cobra.Command, g *given, file string, arm bool) error {
	p, err := h.Read(file)
	if err != nil {
		return err
	}
	if err := armable(p, arm); err != nil { // before anything is opened
		return err
	}
	ctx, cancel := h.Bounded(cmd)
	defer cancel()
	h.Progress().Step("opening the vault")
	in, cluster, err := h.Open(ctx, cmd, &g.Address, "")
	if err != nil {
		return err
	}
	if in.ClusterID == "" {
		return exit.Refuse("give the kubeconfig of the site that runs them", "which cluster this is is not known")
	}
	self := lease.Identity{Site: in.Site, Cluster: in.ClusterID}
	if err := h.holds(ctx, p, in, self); err != nil {
		return err
	}
	if arm {
		if err := able(ctx, cluster, p.Fence, h.Now()); err != nil {
			return err
		}
	}
	if !g.yes {
		h.Progress().Done()
		h.warn(p, arm)
		if err := h.AskFor(p.Name, "the plan's name"); err != nil {
			return err
		}
	}
	terms, err := termsOf(ctx, p, in.Project, in.Site, arm)
	if err != nil {
		return err
	}
	report, err := h.claim(ctx, p, in, self, cluster.User(ctx), terms)
	if err != nil {
		return err
	}
	if arm && !g.noWait {
		if err := h.await(ctx, in.Project, cluster, &report); err != nil {
			return err
		}
	}
	if arm {
		report.Next = next(ctx, p, in)
	}
	return h.Print(report)
}

// next is who declares: the first of the plan's sites that is not this one, whether it lives or not.
func next(ctx context.Context, p *plan.Plan, in *access.Opened) *Next {
	n := &Next{Site: foresight.Other(p, in.Site)}
	sign, err := in.Project.Site(ctx, n.Site)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		n.Silent = "has never given a sign of life in this vault"
	case err == nil:
		var ago time.Duration
		if ago, err = lease.Silence(ctx, in.Project, sign); err == nil && ago >= lease.SilentAfter {
			n.Silent = "has given no sign of life for " + output.Duration(ago)
		}
	}
	if err != nil && n.Silent == "" {
		n.Silent = "may be silent: " + output.OneLine(err.Error())
	}
	return n
}

// armable refuses what has no terms.
func armable(p *plan.Plan, arm bool) error {
	if problems := p.Check(); len(problems) > 0 {
		return exit.Refuse("`plan validate` says all that is wrong", "%s: %w", p.Name, problems[0])
	}
	if arm && !p.Declaration.Automatic {
		return exit.Refuse("docs/automatic.md shows what it needs", "plan %s has no automatic declaration: where people declare, silence of the vault stops nothing", p.Name)
	}
	return nil
}

// termsOf are the plan's terms, nil to take them off.
func termsOf(ctx context.Context, p *plan.Plan, in *vault.Project, site string, arm bool) (*lease.Terms, error) {
	if !arm {
		return nil, nil //nolint:nilnil // no terms is what a site without a lease claims under
	}
	terms, err := lease.TermsOf(ctx, in, p.Fence, site)
	if err == nil && p.Fence.Promises && len(terms.Peers) == 0 {
		return nil, exit.Refuse("install Davit at each site of the plan, and add the vault there",
			"plan %s wants promises, and not every other site of it has given a sign of life in the vault", p.Name)
	}
	return terms, err
}

func apps(p *plan.Plan) []string {
	var all []string
	for _, a := range p.Applications {
		all = append(all, a.Name)
	}
	slices.Sort(all)
	return all
}

// holds refuses, before anything changes, what this site does not hold.
func (h *Host) holds(ctx context.Context, p *plan.Plan, in *access.Opened, self lease.Identity) error {
	for _, app := range apps(p) {
		current, err := lease.New(in.Project).Current(ctx, app)
		if err != nil {
			return err
		}
		if !self.Made(current.Claim) {
			holder := "nobody"
			if current.Number > 0 {
				holder = self.Name(current.Claim)
			}
			return exit.Refuse("give the kubeconfig of the site that holds it: `status` names it", "%s is held by %s, and this is site %s", app, holder, self.Site)
		}
	}
	return idle(ctx, p, in.Project)
}

// idle refuses beside a run that moves or restores one of the applications: its
// orders are of the epochs that it claimed, and a newer one would leave it able
// neither to go on nor to go back.
func idle(ctx context.Context, p *plan.Plan, project *vault.Project) error {
	under, err := register.New(project).States(ctx, p.Name, "")
	if err != nil {
		return err
	}
	// Whatever else moves them: arming excludes what a failover would.
	err = commission.Conflict(&failover.Spec{Plan: p.Name, Verb: plan.Failover, Applications: apps(p)}, under)
	if r := commission.Refused(err); r != nil {
		return exit.Refuse(r.Do, "%s", r.Why)
	}
	return err
}

// able refuses where a node could not keep the lease.
func able(ctx context.Context, c client.Client, f plan.Fence, now time.Time) error {
	var nodes corev1.NodeList
	var reports v1alpha1.NodeFenceList
	if err := errors.Join(c.List(ctx, &nodes), c.List(ctx, &reports, client.InNamespace(v1alpha1.SystemNamespace))); err != nil {
		return fmt.Errorf("look whether the nodes can keep a lease: %w", err)
	}
	if len(nodes.Items) == 0 {
		return exit.Refuse("", "this cluster has no node: nothing would keep the lease")
	}
	for _, node := range nodes.Items {
		at := slices.IndexFunc(reports.Items, func(r v1alpha1.NodeFence) bool { return r.Name == node.Name })
		if why := unable(reports.Items, at, f, now); why != "" {
			return exit.Refuse("docs/fencing.md says what a node needs", "node %s %s", node.Name, why)
		}
	}
	return nil
}

func unable(reports []v1alpha1.NodeFence, at int, f plan.Fence, now time.Time) string {
	const silentFor = time.Minute
	if at < 0 || reports[at].Status.ObservedAt == nil {
		return "says nothing: is Davit's node process there?"
	}
	switch st := reports[at].Status; {
	case now.Sub(st.ObservedAt.Time) > silentFor:
		return "has said nothing since " + st.ObservedAt.UTC().Format(time.RFC3339)
	case st.Problem != "":
		return "cannot fence: " + st.Problem
	case st.Bound == nil:
		return "runs a version of Davit that keeps no lease: upgrade it"
	case st.Bound.Duration > f.Bound:
		return fmt.Sprintf("needs up to %s to stop everything, and the plan's fence.bound is %s: give it more", st.Bound.Duration, f.Bound)
	}
	return ""
}

func (h *Host) warn(p *plan.Plan, arm bool) {
	what := "Silence of the vault will not stop these any more, and no site will know by waiting that they have stopped here"
	if arm {
		what = fmt.Sprintf("From now on these stop here when the vault has been silent for %s, and run again when it answers", p.Fence.Lease)
		if p.Fence.Promises {
			what += "; but not while every other site of the plan promises to stay passive"
		}
	}
	fmt.Fprintf(h.Err, "%s: %s.\n", what, strings.Join(apps(p), ", "))
}

// claim claims one application after the other; those before an error stay
// claimed, and giving the command again goes on.
func (h *Host) claim(ctx context.Context, p *plan.Plan, in *access.Opened, self lease.Identity, user string, terms *lease.Terms) (Report, error) {
	request, reason := lease.ArmedRequest, lease.ArmedReason
	if terms == nil {
		request, reason = "disarmed-", "disarmed by plan "
	}
	request += p.Name + "-" + strings.ToLower(rand.Text())
	var r Report
	for _, app := range apps(p) {
		h.Progress().Step("claiming the next epoch of %s", app)
		epoch, changed, err := recovery.Arm(ctx, recovery.Claiming{
			Project: in.Project, Application: app, Self: self, Holder: user, Reason: reason + p.Name,
			Request: request, Terms: terms, At: h.Now().UTC(),
		})
		if err != nil {
			return r, exit.Hint(fmt.Errorf("change the lease of %s: %w", app, err), "give the command again: what was claimed already stays")
		}
		one := Row{Application: app, Epoch: epoch.Number, Changed: changed}
		if terms != nil {
			one.Lease = p.Fence.Lease.String()
			_, err := lease.ReadKept(ctx, in.Project, app, epoch.Number)
			one.Kept = err == nil
		}
		r.Applications = append(r.Applications, one)
	}
	return r, nil
}

// await waits until the vault says of each application that every node keeps its
// lease.
func (h *Host) await(ctx context.Context, p *vault.Project, c client.Client, r *Report) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for i := range r.Applications {
		one := &r.Applications[i]
		for {
			_, err := lease.ReadKept(ctx, p, one.Application, one.Epoch)
			if one.Kept = err == nil; one.Kept {
				break
			}
			if !errors.Is(err, vault.ErrNotFound) && ctx.Err() == nil {
				return err
			}
			why := said(ctx, c, one.Application)
			h.Progress().Step("waiting until every node keeps the lease of %s: %s", one.Application, why)
			select {
			case <-ctx.Done():
				return exit.Hint(fmt.Errorf("wait until every node keeps the lease of %s (%s): %w", one.Application, why, context.Cause(ctx)),
					"the claim stands; `describe "+one.Application+"` says what keeps it, `plan disarm` takes it back")
			case <-tick.C:
			}
		}
	}
	return nil
}

// said is what the agent says of an application's lease.
func said(ctx context.Context, c client.Client, app string) string {
	var all v1alpha1.ApplicationList
	if err := c.List(ctx, &all); err != nil {
		return err.Error()
	}
	for i := range all.Items {
		if all.Items[i].VaultName() != app {
			continue
		}
		if l := all.Items[i].Status.Lease; l != nil && l.Message != "" {
			return l.Message
		}
		return "the agent has not seen the claim yet"
	}
	return "this cluster has no Application of the name, so nobody watches it"
}

// Report is what became of the leases.
type Report struct {
	Applications []Row `json:"applications"`
	Next         *Next `json:"next,omitempty"` // of what is armed
}

// Next is the site that takes over when this one is lost.
type Next struct {
	Site   string `json:"site"`
	Silent string `json:"silent,omitempty"` // why it may not be able to
}

// Row is one application.
type Row struct {
	Application string `json:"application"`
	Epoch       int64  `json:"epoch"`
	Lease       string `json:"lease,omitempty"`
	Kept        bool   `json:"kept"`
	Changed     bool   `json:"changed"`
}

// Document implements output.Result.
func (r Report) Document() any { return r }

// Text implements output.Result.
func (r Report) Text(t *output.Text) {
	for _, a := range r.Applications {
		state := "no lease"
		if a.Lease != "" {
			state = "lease of " + a.Lease + ", kept by every node"
			if !a.Kept {
				state = "lease of " + a.Lease + ", not kept by every node yet"
			}
		}
		if !a.Changed {
			state += " (as before)"
		}
		t.Line("%s: epoch %d, %s.", a.Application, a.Epoch, state)
	}
	switch {
	case r.Next == nil:
	case r.Next.Silent == "":
		t.Line("When this site is lost, site %s takes over.", r.Next.Site)
	default:
		t.Line("When this site is lost, site %s is to take over, which %s. Another does not: put the site that is to be next first in the plan's sites, and apply and arm it again.", r.Next.Site, r.Next.Silent)
	}
}
