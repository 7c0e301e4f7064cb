// Package running is the command line's `failover` and `runs`: it opens runs,
// carries them with the caller's own rights at the target, shows them, and
// takes what people want of them to whoever carries them.
package running

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"

	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/equipping"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/wiring"
	"davit.dev/davit/internal/commission"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/kube/permit"
	"davit.dev/davit/internal/mailbox"
	"davit.dev/davit/internal/orders"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/register"
	"davit.dev/davit/internal/standby"
	"davit.dev/davit/internal/vault"
)

// Host is what the command line gives its commands.
type Host struct {
	Err, Out io.Writer
	Print    func(output.Result) error
	Progress func() *output.Progress
	Now      func() time.Time
	Bounded  func(cmd *cobra.Command) (context.Context, context.CancelFunc)
	// Open opens the vault, and the cluster as a site that can be a target.
	Open   func(ctx context.Context, cmd *cobra.Command, a *access.Address, site string) (*access.Opened, wiring.Cluster, error)
	AskFor func(name, what string) error
	// Equip makes a cluster without Davit one that can be a target.
	Equip *equipping.Host
	Read  func(file string) (*plan.Plan, error)
}

// here is this site, ready to carry runs.
type here struct {
	*Host
	in      *access.Opened
	cluster wiring.Cluster
	site    *standby.Site
	box     mailbox.Box
	who     permit.Person
	process string
	back    bool            // to roll back is what was asked for
	remedy  string          // what to do if what was asked for is refused
	need    *equipping.Need // what is lacking here, and put here before the run
}

// open makes this site ready.
func (h *Host) open(ctx context.Context, cmd *cobra.Command, a *access.Address, site string) (*here, error) {
	h.Progress().Step("opening the vault")
	in, cluster, err := h.Open(ctx, cmd, a, site)
	if err != nil {
		return nil, err
	}
	return h.at(ctx, in, cluster, nil)
}

// clusterPatience is how long a cluster has to answer where the vault alone would do.
const clusterPatience = 5 * time.Second

// look opens the vault to read in it. By its address that takes no cluster: one that is
// not there, has no Davit or does not answer adds nothing, and the one returned is nil.
func (h *Host) look(ctx context.Context, cmd *cobra.Command, a *access.Address) (*access.Opened, wiring.Cluster, error) {
	c, err := h.Equip.Cluster()
	if err != nil && a.URL == "" {
		return nil, nil, err
	}
	in, openErr := h.Equip.Opener().Open(ctx, c, a, cmd.Flags())
	switch {
	case meta.IsNoMatchError(openErr):
		return nil, nil, equipping.Nothing()
	case openErr != nil || err != nil:
		return in, nil, openErr
	case a.URL == "":
		return in, c, nil
	}
	asked, cancel := context.WithTimeout(ctx, clusterPatience)
	defer cancel()
	if _, err := access.LocalSite(asked, c); err != nil {
		if !exit.IsRefusal(err) && !meta.IsNoMatchError(err) {
			h.Progress().Note("Of the vault alone; the cluster could not be asked: %v", err)
		}
		return in, nil, nil
	}
	return in, c, nil
}

// at makes a site ready that is open, and lacks what it needs.
func (h *Host) at(ctx context.Context, in *access.Opened, cluster wiring.Cluster, need *equipping.Need) (*here, error) {
	who := permit.Self(ctx, cluster)
	target, err := cluster.Standby(wiring.Recovering{
		Project: in.Project, VaultName: in.VaultName, Site: in.Site, ClusterID: in.ClusterID, Holder: who.Name, Now: h.Now, Coming: need != nil,
	})
	if err != nil {
		return nil, err
	}
	return &here{Host: h, in: in, cluster: cluster, site: target, box: mailbox.New(in.Project), who: who, process: thisProcess(), need: need}, nil
}

// thisProcess names this process, and no other one.
func thisProcess() string {
	machine, err := os.Hostname()
	if err != nil {
		machine = "unknown"
	}
	return fmt.Sprintf("cli %s/%d/%s", machine, os.Getpid(), strings.ToLower(rand.Text()[:6]))
}

// settled tells whether a run waits for people, and for nothing else.
func settled(s *failover.State) bool {
	if s.Pause != nil {
		return true
	}
	switch s.Phase {
	case failover.AwaitingApproval, failover.AwaitingCommit, failover.SplitBrain, failover.RollbackFailed:
		return true
	}
	return false
}

// until carries a run and stops when it is over, or waits for people although
// what this process wants of it is answered.
type until struct {
	execute.Requests
	number int64
	done   atomic.Bool
}

// until carries with this person's rights: others need theirs on the plan.
func (h *here) until(number int64, s failover.Spec) *until {
	return &until{Requests: permit.Requests{Requests: h.box, Client: h.cluster, Plan: s.Plan, Steps: s.Steps, Self: h.who.Name}, number: number}
}

// Reply implements execute.Requests.
func (u *until) Reply(ctx context.Context, run string, n int64, refused string) error {
	if err := u.Requests.Reply(ctx, run, n, refused); err != nil {
		return err
	}
	if n == u.number {
		u.done.Store(true)
	}
	return nil
}

// carry carries a run from where its journal is.
func (h *here) carry(ctx context.Context, run string, m *failover.Machine, j *journal.Journal, wishes execute.Requests, enough func(*failover.State) bool) (*failover.State, error) {
	told := map[string]failover.Status{}
	s, err := execute.New(execute.Options{
		Run: run, Machine: m, Journal: j, Survey: h.site, Requests: wishes, Enough: enough,
		Actuator: execute.Sites{Here: map[string]execute.Actuator{h.in.Site: h.site.Kinds()}, Elsewhere: orders.Sender{Project: h.in.Project}},
		Watch:    func(s *failover.State, waits []string) { h.tell(s, waits, told) },
	}).Run(ctx)
	if err == nil {
		h.publish(ctx, run)
	}
	if err == nil && s.Phase.Over() {
		if err := register.New(h.in.Project).End(ctx, s); err != nil { // an agent makes up for it
			h.Progress().Note("the run's summary is not in the vault yet: %v", err)
		}
	}
	return s, err
}

// tell shows how a run goes on: each step once, when it begins and ends.
func (h *here) tell(s *failover.State, waits []string, told map[string]failover.Status) {
	for _, step := range s.Spec.Steps {
		st := s.Steps[step.Name]
		if st.Status == told[step.Name] {
			continue
		}
		told[step.Name] = st.Status
		if st.Status != failover.Doing && st.Status != "" {
			h.Progress().Note("%s", strings.TrimSuffix(fmt.Sprintf("%-20s %s in %s: %s", step.Name, st.Status, output.Duration(st.Took), st.Note), ": "))
		}
	}
	h.Progress().Waits(string(s.Shown()), waits)
}

// takeOver carries a run that nobody carries, from its journal.
func (h *here) takeOver(ctx context.Context, run string, u *until, enough func(*failover.State) bool) (*failover.State, error) {
	held, release, err := h.site.Hold(ctx, run, h.process)
	if err != nil {
		return nil, err
	}
	defer release()
	j, state, err := journal.Open(ctx, h.in.Project, run, h.process)
	if err != nil {
		return nil, notFound(run, err)
	}
	if state.Phase.Over() {
		return state, register.New(h.in.Project).End(ctx, state)
	}
	if state.Spec.To != h.in.Site {
		return nil, exit.Refuse("give the kubeconfig of that site; if it is lost, `restore APPLICATION --take-over` here takes each application from the run", "run %s goes to site %s, and this is site %s: it is carried there", run, state.Spec.To, h.in.Site)
	}
	h.back = h.back || isBack("", state)
	if u == nil {
		u = h.until(0, state.Spec)
	}
	return h.carry(held, run, failover.TakeOver(h.process, state), j, h.wishes(state.Spec, state.Facts, u, nil), enough)
}

func notFound(run string, err error) error {
	if errors.Is(err, vault.ErrNotFound) {
		return exit.Refuse("`runs ls` lists them", "there is no run %s", run)
	}
	return err
}

// conclude prints what became of a run, and decides the exit code.
func (h *here) conclude(s *failover.State, err error) error {
	if err != nil {
		if s != nil && s.Spec.Run != "" {
			err = exit.Hint(err, "the run goes on with `runs take-over "+s.Spec.Run+"`")
		}
		return err
	}
	if err := h.Print(reportOf(s)); err != nil {
		return err
	}
	run := s.Spec.Run
	switch {
	case s.Phase == failover.RolledBack && h.back && s.Why != "":
		return &exit.Error{Code: exit.Warnings, Err: fmt.Errorf("run %s is rolled back: %s", run, s.Why)}
	case s.Phase == failover.Failed, execute.Overdue(s):
		return exit.Refuse("solve that, and give the command again", "run %s: %s", run, s.Why)
	case s.Phase == failover.Completed, s.Phase == failover.Canceled, s.Phase == failover.RolledBack && h.back:
		return nil
	case s.Phase == failover.AwaitingCommit && s.Pause == nil:
		h.Progress().Note("The run can still be rolled back: %s.", commission.Next(s))
		return nil
	case s.Phase == failover.AwaitingApproval && s.Pause == nil:
		h.Progress().Note("%d of %d people have approved; it takes %s: `davit runs approve %s`.", len(s.Approved), s.Spec.Approvals, s.Lacks(), run)
		return nil
	case s.Pause != nil:
		return exit.Hint(fmt.Errorf("run %s is paused (%s): %s", run, s.Pause.Kind, s.Pause.Why), commission.Next(s))
	}
	return exit.Hint(fmt.Errorf("run %s: %s: %s", run, s.Shown(), s.Why), "`runs show "+run+"` tells more")
}
