// Package view is what commands show: it reads objects, documents and reports
// into views, and writes those as text for people and documents for scripts.
package view

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/install"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/reconcile/site"
)

// Status is the answer to `status`.
type Status struct {
	// Healthy says that there is a vault, that all of them answer and have this
	// site's time, that Davit's own parts run, that every application here is
	// protected, that none was left at rest, that no run left anything to people, and that no
	// plan is known to fail.
	Healthy      bool    `json:"healthy"`
	Site         string  `json:"site,omitempty"`
	Parts        []Part  `json:"parts"`
	Vaults       []Vault `json:"vaults"`
	Sites        []Site  `json:"sites"`
	Applications []App   `json:"applications"`
	// Unprotected are namespaces with workloads or volumes that no
	// application covers.
	Unprotected []string `json:"unprotected"`
	Running     []Run    `json:"running"`
	// Remaining is what the newest run of each plan left to people.
	Remaining []Remaining `json:"remaining,omitempty"`
	// Plans are the cluster's, with what their sites were last found to be.
	Plans []Plan `json:"plans,omitempty"`
	// Owed is what captures that died did to applications, and nobody has undone.
	Owed []Owed `json:"owed,omitempty"`
	now  time.Time
}

// Part is one of Davit's own parts at this site.
type Part struct {
	Name  string `json:"name"`
	Ready int32  `json:"ready"`
	Want  int32  `json:"want"`
}

// Site is one site as `status` shows it.
type Site struct {
	Name    string    `json:"name"`
	Local   bool      `json:"local,omitempty"`
	Seen    time.Time `json:"seen,omitzero"`
	Kube    string    `json:"kubernetes,omitempty"`
	Davit   string    `json:"davit,omitempty"`
	Message string    `json:"message,omitempty"`
	// Console says how the agent of this site reaches its consoles; nothing
	// depends on them.
	Console string `json:"console,omitempty"`
}

// Run is what is going on now.
type Run struct {
	Kind    string    `json:"kind"` // "backup", "restore", "restore test" or the verb of a plan's run
	ID      string    `json:"id"`
	Phase   string    `json:"phase"`
	Step    string    `json:"step,omitempty"`
	Started time.Time `json:"started,omitzero"`
}

// App is one application as `status` shows it.
type App struct {
	Name  string `json:"name"`
	State string `json:"state"`
	Role  string `json:"role,omitempty"`
	Epoch int64  `json:"epoch,omitempty"`
	Site  string `json:"epochSite,omitempty"`
	// Fence is how surely a superseded application is stopped here: "proven" or "asked".
	Fence string `json:"fence,omitempty"`
	// Lease is set where silence of the vault stops the application.
	Lease  *Lease    `json:"lease,omitempty"`
	Newest time.Time `json:"newest,omitzero"`
	Points int64     `json:"points"`
	RPO    string    `json:"rpo,omitempty"`
	Next   time.Time `json:"next,omitzero"`
	Vault  string    `json:"vault"`
	// Proven is when the schedule last read points back, and how; zero: never.
	Proven    time.Time `json:"proven,omitzero"`
	ProvenHow string    `json:"provenHow,omitempty"`
	// Copies says the same of second copies.
	Copies []v1alpha1.CopyVerification `json:"copies,omitempty"`
	// Test is what the scheduled restore test found last.
	Test    *Test  `json:"restoreTest,omitempty"`
	Message string `json:"message,omitempty"`
}

// Lease is the lease under which this site holds an application.
type Lease struct {
	Lease   string `json:"lease"`
	Kept    bool   `json:"kept"` // by every node, as the vault says
	Over    bool   `json:"over,omitempty"`
	Message string `json:"message,omitempty"`
	// Peers are the sites that together may stand in for a silent vault.
	Peers []string `json:"peers,omitempty"`
}

// Short is the lease for a table.
func (l *Lease) Short() string {
	switch {
	case l == nil:
		return ""
	case l.Over:
		return "lease over"
	case !l.Kept:
		return "lease of " + l.Lease + " not kept yet"
	}
	if len(l.Peers) > 0 {
		return "lease " + l.Lease + ", or by promise of " + strings.Join(l.Peers, ", ")
	}
	return "lease " + l.Lease
}

// The states of an application's protection.
const (
	stateProtected  = "Protected"
	stateSeeding    = "Seeding"
	stateLagging    = "Lagging"
	stateDegraded   = "Degraded"
	stateBroken     = "Broken"
	statePaused     = "Paused"
	stateOnDemand   = "OnDemand"
	stateSuperseded = "Superseded"
	stateStandby    = "Standby"
)

// OfApplication judges an application's protection by its newest point's age, not
// by what a status said some time ago.
func OfApplication(app *v1alpha1.Application, policy *v1alpha1.ProtectionPolicy, now time.Time) App {
	s := &app.Status
	view := App{
		Name: app.VaultName(), Role: string(s.Role), Epoch: s.Epoch, Site: s.EpochSite, Newest: TimeOf(s.NewestInstant),
		Points: s.Points, Next: TimeOf(s.NextCapture), Vault: app.Spec.Vault,
		Message: Condition(s.Conditions, v1alpha1.ConditionReady),
	}
	if policy != nil {
		view.RPO = durationText(policy.Spec.Objectives.RPO)
	}
	if v := s.Verification; v != nil {
		view.Proven, view.ProvenHow, view.Copies = TimeOf(v.At), v.How, v.Copies
	}
	if r := s.RestoreTest; r != nil && r.At != nil {
		view.Test = &Test{At: r.At.Time, Passed: r.Passed, RTO: durationOf(r.RTO), Message: r.Message, Unproven: r.Unproven}
		if r.Passed && r.At.After(view.Proven) { // the newer proof, and the stronger
			view.Proven, view.ProvenHow = r.At.Time, v1alpha1.ProvenBoot
		}
	}
	if s.Fence != nil {
		view.Fence = string(s.Fence.Level)
	}
	if l := s.Lease; l != nil {
		view.Lease = &Lease{Lease: l.Lease.Duration.String(), Kept: l.Kept, Over: l.Over, Message: l.Message, Peers: l.Peers}
	}
	view.State = appState(app, policy, now)
	return view
}

func appState(app *v1alpha1.Application, policy *v1alpha1.ProtectionPolicy, now time.Time) string {
	s := &app.Status
	broken := meta.IsStatusConditionFalse(s.Conditions, v1alpha1.ConditionReady)
	switch {
	case s.Role == v1alpha1.RoleSuperseded:
		return stateSuperseded
	case s.Role == v1alpha1.RoleStandby:
		return stateStandby
	case policy != nil && policy.Spec.Suspend:
		return statePaused
	case s.NewestInstant == nil && broken:
		return stateBroken
	case s.NewestInstant == nil && Schedule(policy) == "":
		return stateOnDemand
	case s.NewestInstant == nil:
		return stateSeeding
	case overdue(s, policy, now):
		return stateLagging
	case broken && reasonOf(s.Conditions) != v1alpha1.ReasonLagging:
		return stateDegraded
	case broken:
		return stateLagging
	}
	return stateProtected
}

func reasonOf(conditions []metav1.Condition) string {
	if c := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady); c != nil {
		return c.Reason
	}
	return ""
}

// overdue tells whether the newest point is older than the objective, or
// without one than three intervals, which an agent that lives does not let happen.
func overdue(s *v1alpha1.ApplicationStatus, policy *v1alpha1.ProtectionPolicy, now time.Time) bool {
	if policy == nil {
		return false
	}
	age := now.Sub(s.NewestInstant.Time)
	if rpo := policy.Spec.Objectives.RPO; rpo != nil && rpo.Duration > 0 {
		return age > rpo.Duration
	}
	every := policy.Spec.Schedule.Every
	return every != nil && age > max(3*every.Duration, time.Minute)
}

// Gather reads everything that `status` shows.
func Gather(ctx context.Context, c client.Client, now time.Time) (Status, error) {
	view := Status{Vaults: []Vault{}, Sites: []Site{}, Applications: []App{}, Running: []Run{}, Unprotected: []string{}, now: now}
	var apps v1alpha1.ApplicationList
	if err := c.List(ctx, &apps); err != nil {
		return view, fmt.Errorf("list applications: %w", err)
	}
	for _, gather := range []func(context.Context, client.Client) error{
		view.gatherVaults, view.gatherSites, view.gatherRuns, view.gatherParts, view.gatherOwed, view.gatherPlans,
		func(ctx context.Context, c client.Client) error { return view.gatherApps(ctx, c, apps.Items) },
		func(ctx context.Context, c client.Client) error { return view.gatherUnprotected(ctx, c, apps.Items) },
	} {
		if err := gather(ctx, c); err != nil {
			return view, err
		}
	}
	view.Healthy = view.healthy()
	return view, nil
}

func (v *Status) healthy() bool {
	for _, p := range v.Parts {
		if p.Ready < p.Want || p.Want == 0 {
			return false
		}
	}
	for _, x := range v.Vaults {
		if x.Ready != "True" || x.ClocksApart {
			return false
		}
	}
	for _, a := range v.Applications {
		switch a.State {
		case stateProtected, stateStandby, stateSuperseded, stateOnDemand:
		default:
			return false
		}
	}
	for _, p := range v.Plans {
		if p.Errors > 0 {
			return false
		}
	}
	return len(v.Vaults) > 0 && len(v.Parts) > 0 && len(v.Owed) == 0 && len(v.Remaining) == 0
}

func (v *Status) gatherVaults(ctx context.Context, c client.Client) error {
	var all v1alpha1.VaultList
	if err := c.List(ctx, &all); err != nil {
		return fmt.Errorf("list vaults: %w", err)
	}
	for i := range all.Items {
		v.Vaults = append(v.Vaults, OfVaultObject(&all.Items[i]))
	}
	return nil
}

func (v *Status) gatherSites(ctx context.Context, c client.Client) error {
	var all v1alpha1.SiteList
	if err := c.List(ctx, &all); err != nil {
		return fmt.Errorf("list sites: %w", err)
	}
	for i := range all.Items {
		s := &all.Items[i]
		local := s.Status.Local || s.Labels[install.LocalLabel] == "true"
		if local {
			v.Site = s.Name
		}
		console := ""
		if c := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionConsole); c != nil && local {
			console = c.Message
		}
		message := Condition(s.Status.Conditions, v1alpha1.ConditionReady)
		if c := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionReady); c != nil && c.Reason == site.ReasonSilent && !site.Silent(s, v.now) {
			message = "" // it has written again since the agent judged
		}
		v.Sites = append(v.Sites, Site{
			Console: console, Name: s.Name, Local: local, Seen: TimeOf(s.Status.LastSeen), Kube: s.Status.KubeVersion,
			Davit: s.Status.DavitVersion, Message: message,
		})
	}
	return nil
}

func (v *Status) gatherParts(ctx context.Context, c client.Client) error {
	var agents appsv1.DeploymentList
	if err := c.List(ctx, &agents, client.InNamespace(v1alpha1.SystemNamespace)); err != nil {
		return fmt.Errorf("look at the agent: %w", err)
	}
	for _, d := range agents.Items {
		if d.Name == install.AgentName && d.Spec.Replicas != nil {
			v.Parts = append(v.Parts, Part{"agent", d.Status.AvailableReplicas, *d.Spec.Replicas})
		}
	}
	var nodes appsv1.DaemonSetList
	if err := c.List(ctx, &nodes, client.InNamespace(v1alpha1.SystemNamespace)); err != nil {
		return fmt.Errorf("look at the node processes: %w", err)
	}
	for _, d := range nodes.Items {
		if d.Name == install.NodeName {
			v.Parts = append(v.Parts, Part{"node", d.Status.NumberReady, d.Status.DesiredNumberScheduled})
		}
	}
	return nil
}

func (v *Status) gatherApps(ctx context.Context, c client.Client, apps []v1alpha1.Application) error {
	for i := range apps {
		if t := apps[i].Status.RestoreTest; t != nil && t.Running != nil {
			v.Running = append(v.Running, Run{"restore test", apps[i].VaultName(), "Running", "in " + strings.Join(t.Namespaces, ", "), t.Running.Time})
		}
		policy, err := PolicyOf(ctx, c, &apps[i])
		if err != nil {
			return err
		}
		v.Applications = append(v.Applications, OfApplication(&apps[i], policy, v.now))
	}
	slices.SortFunc(v.Applications, func(a, b App) int { return cmp.Compare(a.Name, b.Name) })
	return nil
}

func (v *Status) gatherRuns(ctx context.Context, c client.Client) error {
	var points v1alpha1.RecoveryPointList
	if err := c.List(ctx, &points); err != nil {
		return fmt.Errorf("list recovery points: %w", err)
	}
	for i := range points.Items {
		p := &points.Items[i]
		if p.Status.Phase == v1alpha1.PointCapturing || p.Status.Phase == "" || p.Status.Phase == v1alpha1.PointPending {
			v.Running = append(v.Running, Run{"backup", p.Name, string(OfObject(p).Phase), p.Status.Step, TimeOf(p.Status.StartedAt)})
		}
	}
	var restores v1alpha1.RestoreList
	if err := c.List(ctx, &restores); err != nil {
		return fmt.Errorf("list restores: %w", err)
	}
	for i := range restores.Items {
		r := &restores.Items[i]
		if !Ended(r) {
			phase := cmp.Or(r.Status.Phase, v1alpha1.RestorePending)
			v.Running = append(v.Running, Run{"restore", r.Name, string(phase), r.Status.Step, TimeOf(r.Status.StartedAt)})
		}
	}
	return nil
}

// coveredNamespaces are those of which applications cover at least a part;
// `coverage` tells what they do not.
func coveredNamespaces(ctx context.Context, c client.Client, apps []v1alpha1.Application) (map[string]bool, error) {
	covered := map[string]bool{v1alpha1.SystemNamespace: true}
	var all corev1.NamespaceList
	if err := c.List(ctx, &all); err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	for i := range apps {
		rules, err := protection.Selection(&apps[i])
		if err != nil {
			continue // its own line says so
		}
		for _, name := range rules.Namespaces.Literal() {
			covered[name] = true
		}
		for _, ns := range all.Items {
			covered[ns.Name] = covered[ns.Name] || rules.Namespaces.Match(ns.Name, ns.Labels)
		}
	}
	for _, ns := range all.Items {
		if _, copied := ns.Labels[v1alpha1.LabelRestoreTest]; copied {
			covered[ns.Name] = true // it goes by itself
		}
	}
	return covered, nil
}

// gatherUnprotected finds namespaces with something worth protecting.
func (v *Status) gatherUnprotected(ctx context.Context, c client.Client, apps []v1alpha1.Application) error {
	covered, err := coveredNamespaces(ctx, c, apps)
	if err != nil {
		return err
	}
	found := map[string]bool{}
	for _, list := range []client.ObjectList{&corev1.PersistentVolumeClaimList{}, &appsv1.DeploymentList{}, &appsv1.StatefulSetList{}} {
		if err := c.List(ctx, list); err != nil {
			return fmt.Errorf("look for unprotected namespaces: %w", err)
		}
		_ = meta.EachListItem(list, func(o runtime.Object) error { // the function gives no error
			if namespace := o.(metav1.Object).GetNamespace(); !covered[namespace] && !strings.HasPrefix(namespace, "kube-") {
				found[namespace] = true
			}
			return nil
		})
	}
	for namespace := range found {
		v.Unprotected = append(v.Unprotected, namespace)
	}
	slices.Sort(v.Unprotected)
	return nil
}

// Document is all of it.
func (v Status) Document() any { return v }

// verdict is the first line: who looks at a superseded site must not take its
// calm for the application running here.
func (v Status) verdict() string {
	elsewhere := 0
	for _, a := range v.Applications {
		if a.State == stateSuperseded {
			elsewhere++
		}
	}
	switch {
	case !v.Healthy:
		return "Something needs a look."
	case elsewhere > 0:
		return fmt.Sprintf("Nothing to do here; superseded, and stopped here: %d of %d applications.", elsewhere, len(v.Applications))
	}
	return "All is well."
}

// Text is one short section for each question.
func (v Status) Text(t *output.Text) {
	t.Line("Site %s. %s", cmp.Or(v.Site, "unknown"), v.verdict())
	if len(v.Parts) == 0 {
		t.Line("Davit's agent is not installed here.")
	}
	for _, p := range v.Parts {
		if p.Ready < p.Want || p.Want == 0 {
			t.Line("Davit's %s: %d of %d ready.", p.Name, p.Ready, p.Want)
		}
	}
	t.Section("Vaults")
	Vaults{Vaults: v.Vaults, Now: v.now}.Text(t)
	if len(v.Sites) > 0 {
		t.Section("Sites")
		t.Table("", output.Columns("NAME", "SEEN", "KUBERNETES", "DAVIT", "NOTE"), v.siteRows())
	}
	t.Section("Applications")
	v.appText(t)
	if len(v.Running) > 0 {
		t.Section("Running")
		var rows [][]string
		for _, r := range v.Running {
			rows = append(rows, []string{r.Kind, r.ID, r.Phase, output.Age(r.Started, v.now), output.OneLine(r.Step)})
		}
		t.Table("", output.Columns("WHAT", "ID", "PHASE", "SINCE", "STEP"), rows)
	}
	v.owedText(t)
	v.remainsText(t)
	v.planText(t)
	if len(v.Unprotected) > 0 {
		t.Section("Not protected")
		t.Line("Namespaces with workloads or volumes: %s (`coverage` tells more)", strings.Join(v.Unprotected, ", "))
	}
}

func (v Status) siteRows() [][]string {
	var rows [][]string
	for _, s := range v.Sites {
		note := s.Message
		if s.Local {
			note = joinNotes("this site", note)
			if s.Console != "" {
				note = joinNotes(note, "console: "+s.Console)
			}
		}
		rows = append(rows, []string{s.Name, output.Age(s.Seen, v.now), s.Kube, s.Davit, output.OneLine(note)})
	}
	return rows
}

// note is what is to be said of the application.
func (a App) note() string {
	if a.Lease == nil || a.Lease.Message == "" || a.Lease.Over { // then the message says so
		return a.Message
	}
	return joinNotes("lease: "+a.Lease.Message, a.Message)
}

// copiesProven is when and how points were last read back from each second copy.
func copiesProven(all []v1alpha1.CopyVerification, now time.Time) string {
	var texts []string
	for _, c := range all {
		text := fmt.Sprintf("%s (%s %s)", c.Vault, output.Age(TimeOf(c.At), now), c.How)
		switch {
		case len(c.Damaged)+len(c.DamagedBlobs) > 0:
			text = c.Vault + " (DAMAGED)"
		case c.At == nil:
			text = c.Vault + " (never)"
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}

func (v Status) appText(t *output.Text) {
	if len(v.Applications) == 0 {
		t.Line("None is protected.")
		return
	}
	var rows [][]string
	for _, a := range v.Applications {
		state := a.State
		if a.Fence != "" {
			state += " (" + a.Fence + ")"
		}
		if l := a.Lease.Short(); l != "" {
			state += " (" + l + ")"
		}
		rows = append(rows, []string{
			a.Name, state, output.Age(a.Newest, v.now), a.RPO, fmt.Sprint(a.Points), positive(a.Epoch), a.Site,
			output.Age(a.Next, v.now), strings.TrimSpace(output.Age(a.Proven, v.now) + " " + a.ProvenHow), copiesProven(a.Copies, v.now), a.Vault, output.OneLine(a.note()),
		})
	}
	t.Table("", output.Columns("NAME", "STATE", "NEWEST", "RPO", ">POINTS", ">EPOCH", "HELD BY", "+NEXT", "PROVEN", "+COPIES PROVEN", "+VAULT", "NOTE"), rows)
}
