// Package trial is the use case behind the restore test: bring one recovery
// point up as an isolated copy beside the application, ask it whether it works,
// write what was found into the vault, and remove the copy on every way out.
//
// What it guarantees:
//   - Nothing of the original is touched: the copy lives in namespaces of its
//     own, made for it, and no cluster-scoped object is written.
//   - The first thing made is a namespace that says who runs the test and until
//     when, so that whoever finds it can remove what a dead process left.
//   - A verdict needs the copy to be there until the end: what was disturbed,
//     stopped, or got no answer of the vault is no verdict.
//   - Passed means that something of the copy ran: a probe was answered, or a
//     workload got ready and none was left out. All else proves nothing.
package trial

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/vault"
)

// Times of a test.
const (
	DefaultTimeout = 30 * time.Minute
	// RemoveTimeout bounds the removal of a copy; what is left then is tried again.
	RemoveTimeout = 5 * time.Minute
	// hurry is what a process that is told to stop has left for it.
	hurry        = 15 * time.Second
	answerBudget = 30 * time.Second // of a single question to the cluster or the vault
)

// agentPrefix begins the owners that are agents: of these one lives at a time.
const agentPrefix = "agent/"

// Errors that callers may decide on with errors.Is.
var (
	// ErrFailed says that the copy did not come up or failed a probe. The
	// verdict is in the vault.
	ErrFailed = errors.New("restore test failed")
	// ErrDisturbed says that the copy was removed while it was tested.
	ErrDisturbed = errors.New("the copy was removed while it was tested")
	// ErrNoAnswer says that the vault, or the node that was to fill a volume,
	// gave no answer: nothing is known of the point. Try again.
	ErrNoAnswer = errors.New("no verdict: test the point again")
	// ErrNothingProven says that the copy came up, or could not, without what
	// would have shown whether the point is good. The report says why; another
	// try will not do better.
	ErrNothingProven = errors.New("nothing proven")

	errTimeOver = errors.New("the test's time is over")
)

// AgentOwner is the owner of tests that one agent process runs.
func AgentOwner(process string) string { return agentPrefix + process }

// Copy is a namespace of a restore test.
type Copy struct {
	Namespace string
	Test      string // the test's id
	RestoreID string
	Owner     string
	Until     time.Time // zero when it does not say
	Created   time.Time
	Going     bool // it is being removed
}

// Cluster is where copies are made, with the rights of whoever tests.
type Cluster interface {
	Prober
	// Copies lists the namespaces of all restore tests.
	Copies(ctx context.Context) ([]Copy, error)
	// Close keeps the copy's pods to each other where the network enforces that.
	Close(ctx context.Context, namespaces []string) error
	// Remove deletes namespaces and what the copy left elsewhere, and waits until
	// they are gone.
	Remove(ctx context.Context, copies []Copy) error
}

// Options say what is tested, and how.
type Options struct {
	Application  string // its name in the vault
	Point        string
	Probes       []v1alpha1.RestoreProbe
	Timeout      time.Duration // 0 for the default
	ReadyTimeout time.Duration // 0 for the default

	StorageClassMapping map[string]string
	ExcludeKinds        []string
	// Owner is who runs the test: AgentOwner, or a person's process.
	Owner string
	// Began is told the copy's namespaces before anything is made; may be nil.
	Began func(namespaces []string)
}

// FromPolicy takes the options out of a policy.
func FromPolicy(spec *v1alpha1.RestoreTestPolicy) Options {
	o := Options{Probes: spec.Probes, StorageClassMapping: spec.StorageClassMapping, ExcludeKinds: spec.ExcludeKinds}
	if spec.Timeout != nil {
		o.Timeout = spec.Timeout.Duration
	}
	if spec.ReadyTimeout != nil {
		o.ReadyTimeout = spec.ReadyTimeout.Duration
	}
	return o
}

// Check says what is wrong with probes, as far as that shows without a cluster.
func Check(probes []v1alpha1.RestoreProbe) error {
	for _, p := range probes {
		if _, err := regexp.Compile(p.Expect); err != nil {
			return fmt.Errorf("probe %s: expect is no regular expression: %w", p.Name, err)
		}
		kinds := 0
		for _, is := range []bool{p.Exec != nil, p.HTTP != nil, p.SQL != nil, p.Job != nil} {
			if is {
				kinds++
			}
		}
		if kinds != 1 {
			return fmt.Errorf("probe %s: give one of exec, http, sql and job", p.Name)
		}
		if p.HTTP != nil {
			if err := CheckHTTP(*p.HTTP); err != nil {
				return fmt.Errorf("probe %s: %w", p.Name, err)
			}
		}
	}
	return nil
}

// Deps are what a test works with. Recovery acts with the rights of whoever
// tests, as Cluster does.
type Deps struct {
	Recovery recovery.Deps
	Cluster  Cluster
	// Sleep waits between two tries of a probe; nil for the machine's clock.
	Sleep func(context.Context, time.Duration) error
}

// Report is what a test found.
type Report struct {
	Application string    `json:"application"`
	Point       string    `json:"point"`
	Namespaces  []string  `json:"namespaces"`
	StartedAt   time.Time `json:"startedAt"`
	FinishedAt  time.Time `json:"finishedAt,omitzero"`
	Passed      bool      `json:"passed"`
	// RTO is from the start until the workloads were ready and the probes had passed.
	RTO time.Duration `json:"rto,omitempty"`
	// Failure says what failed.
	Failure string `json:"failure,omitempty"`
	// Unproven says why the test proved nothing.
	Unproven string            `json:"unproven,omitempty"`
	Probes   []vault.MarkProbe `json:"probes,omitempty"`
	// Warnings are what the copy was made without, and what it may reach.
	Warnings []string `json:"warnings,omitempty"`
	// Leftovers are what could not be removed.
	Leftovers []string `json:"leftovers,omitempty"`
}

// test is one run.
type test struct {
	id       string
	opts     Options
	deps     Deps
	manifest *point.Manifest
	mapping  map[string]string
	began    time.Time
	now      func() time.Time
	report   *Report
	made     bool // the copy's namespaces were there
}

// Run tests one recovery point. ErrFailed says that the point did not pass; any
// other error, that there is no verdict. What the copy leaves behind is in the
// report, whatever the error.
func Run(ctx context.Context, opts Options, deps Deps) (Report, error) {
	report := Report{Application: opts.Application, Point: opts.Point}
	t, err := begin(ctx, opts, deps, &report)
	if err != nil {
		return report, fmt.Errorf("test %s: %w", opts.Point, err)
	}
	failure, err := t.bringUp(ctx)
	if err == nil {
		report.Failure, report.Passed = failure, failure == ""
		if report.Passed {
			report.RTO = t.now().Sub(t.began)
		}
		if err = t.mark(ctx); err != nil {
			report.Passed = false
		}
	}
	t.remove(ctx)
	report.FinishedAt = t.now()
	switch {
	case err != nil:
		return report, fmt.Errorf("test %s: %w", opts.Point, err)
	case !report.Passed:
		return report, fmt.Errorf("test %s: %w: %s", opts.Point, ErrFailed, report.Failure)
	}
	return report, nil
}

func begin(ctx context.Context, opts Options, deps Deps, report *Report) (*test, error) {
	if err := Check(opts.Probes); err != nil {
		return nil, err
	}
	if opts.Timeout == 0 {
		opts.Timeout = DefaultTimeout
	}
	if deps.Recovery.Now == nil {
		deps.Recovery.Now = time.Now
	}
	if deps.Sleep == nil {
		deps.Sleep = sleep
	}
	m, err := deps.Recovery.Project.Manifest(ctx, opts.Application, opts.Point)
	if err != nil {
		return nil, err
	}
	if len(m.Namespaces) == 0 {
		return nil, errors.New("the point has no namespaces: there is nothing to bring up")
	}
	t := &test{id: newID(), opts: opts, deps: deps, manifest: m, mapping: map[string]string{}, now: deps.Recovery.Now, report: report}
	t.began = t.now()
	report.StartedAt = t.began
	for i, ns := range m.Namespaces {
		t.mapping[ns] = copyName(t.id, ns, i)
		report.Namespaces = append(report.Namespaces, t.mapping[ns])
	}
	if err := t.checkProbes(); err != nil {
		return nil, err
	}
	if opts.Began != nil {
		opts.Began(report.Namespaces)
	}
	return t, nil
}

// checkProbes refuses a probe about a namespace that the point does not have.
func (t *test) checkProbes() error {
	for _, p := range t.opts.Probes {
		if p.Namespace != "" && t.mapping[p.Namespace] == "" {
			return fmt.Errorf("probe %s: the point has no namespace %s, only %s", p.Name, p.Namespace, strings.Join(t.manifest.Namespaces, ", "))
		}
	}
	return nil
}

func newID() string {
	var raw [5]byte
	_, _ = rand.Read(raw[:]) // it never fails
	return strings.ToLower(base32.StdEncoding.EncodeToString(raw[:]))
}

// copyName is the namespace that stands for the nth captured one.
func copyName(id, namespace string, n int) string {
	const most, cut = 63, 56
	name := "davit-test-" + id + "-" + namespace
	if len(name) > most {
		name = fmt.Sprintf("%s-%d", strings.TrimRight(name[:cut], "-"), n)
	}
	return name
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// bringUp restores the copy and probes it. What it returns is what failed; an
// error is no verdict.
func (t *test) bringUp(ctx context.Context) (failure string, err error) {
	bounded, cancel := context.WithTimeoutCause(ctx, t.opts.Timeout, fmt.Errorf("%w: %s", errTimeOver, t.opts.Timeout))
	defer cancel()
	rep, err := recovery.Recover(bounded, t.recovery(), t.deps.Recovery)
	t.warnings(rep)
	failure, err = judge(bounded, ctx, rep, err)
	if err == nil && failure == "" {
		failure, err = t.probe(bounded, ctx)
	}
	if err == nil && failure == "" && len(t.opts.Probes) == 0 {
		err = t.ran(rep)
	}
	if err != nil || failure == "" {
		return "", err
	}
	if err := t.undisturbed(ctx); err != nil {
		return "", err
	}
	if rep.Result.Failed == 0 && !rep.Result.Ready && len(rep.Result.Unfit) > 0 {
		return "", t.unproven("%s; but %s", failure, lacks(rep))
	}
	return failure, nil
}

func (t *test) recovery() recovery.Options {
	home := t.mapping[t.manifest.Namespaces[0]]
	return recovery.Options{
		Application: t.opts.Application, Point: t.opts.Point, Mode: v1alpha1.RestoreClone, NamespaceMapping: t.mapping,
		StorageClassMapping: t.opts.StorageClassMapping, ExcludeKinds: t.opts.ExcludeKinds, NodePorts: v1alpha1.NodePortReassign,
		ReadyTimeout: t.opts.ReadyTimeout, AcceptFuzzy: true,
		Isolation: &recovery.Isolation{
			Isolation: restore.Isolation{
				Home:   home,
				Labels: map[string]string{v1alpha1.LabelRestoreTest: t.id},
				Annotations: map[string]string{
					v1alpha1.AnnotationTestOwner: t.opts.Owner,
					v1alpha1.AnnotationTestUntil: t.began.Add(t.opts.Timeout + RemoveTimeout).UTC().Format(time.RFC3339),
				},
			},
			Close: func(ctx context.Context) error {
				t.made = true
				return t.deps.Cluster.Close(ctx, t.report.Namespaces)
			},
		},
	}
}

// maxWarnings bounds what a report keeps of them.
const maxWarnings = 50

// warnings keeps what the copy was made without, and what it may reach.
func (t *test) warnings(rep recovery.Report) {
	for _, f := range rep.Findings {
		t.warn(f.String())
	}
	for _, p := range rep.Result.Warnings {
		t.warn(p.String())
	}
}

func (t *test) warn(text string) {
	if len(t.report.Warnings) < maxWarnings && !slices.Contains(t.report.Warnings, text) {
		t.report.Warnings = append(t.report.Warnings, text)
	}
}

// judge tells what the restore proved. Silence of the vault comes first: what
// was late or failed may be its doing.
func judge(bounded, ctx context.Context, rep recovery.Report, err error) (failure string, noVerdict error) {
	late := errors.Is(context.Cause(bounded), errTimeOver)
	silent := slices.IndexFunc(rep.Result.Failures, func(p restore.Problem) bool { return p.NoAnswer })
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case errors.Is(err, vault.ErrUnavailable):
		return "", fmt.Errorf("%w: %w", ErrNoAnswer, err)
	case silent >= 0:
		return "", fmt.Errorf("%w: %s", ErrNoAnswer, rep.Result.Failures[silent])
	case late:
		return fmt.Sprintf("%v%s", context.Cause(bounded), laggards(rep)), nil
	case errors.Is(err, recovery.ErrPreflight), errors.Is(err, vault.ErrDamaged):
		return err.Error(), nil
	case err != nil:
		return "", err
	case rep.Result.Failed > 0:
		return fmt.Sprintf("%d objects could not be restored: %s", rep.Result.Failed, rep.Result.Failures[0]), nil
	case !rep.Result.Ready:
		return "not ready in time" + laggards(rep), nil
	}
	return "", nil
}

// ran is nil if workloads of the copy ran, and none was left out: without
// probes, that is the proof.
func (t *test) ran(rep recovery.Report) error {
	switch {
	case len(rep.Result.Unfit) > 0:
		return t.unproven("%s: give the test a probe that shows whether the rest works", lacks(rep))
	case rep.Result.Running == 0:
		return t.unproven("nothing that was waited for runs in the copy: its workloads are at zero replicas, are made by an operator, or are none: give the test a probe")
	}
	return nil
}

func (t *test) unproven(format string, args ...any) error {
	t.report.Unproven = fmt.Sprintf(format, args...)
	return fmt.Errorf("%w: %s", ErrNothingProven, t.report.Unproven)
}

// lacks names what is unfit for a copy.
func lacks(rep recovery.Report) string {
	all := rep.Result.Unfit
	text := fmt.Sprintf("the copy was made without %s", all[0])
	if len(all) > 1 {
		text += fmt.Sprintf(" (and %d more)", len(all)-1)
	}
	return text
}

// laggards names what was not ready.
func laggards(rep recovery.Report) string {
	var names []string
	for _, p := range rep.Result.Warnings {
		if strings.HasPrefix(p.Message, "not ready after") {
			names = append(names, p.String())
		}
	}
	if len(names) == 0 {
		return ""
	}
	return ": " + strings.Join(names[:min(len(names), 3)], "; ")
}

// undisturbed is ErrDisturbed when somebody removed the copy: what failed then
// says nothing about the point.
func (t *test) undisturbed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerBudget)
	defer cancel()
	all, err := t.deps.Cluster.Copies(ctx)
	if err != nil {
		return err
	}
	there := 0
	for _, c := range all {
		switch {
		case c.Test != t.id:
		case c.Going:
			return fmt.Errorf("%w: namespace %s", ErrDisturbed, c.Namespace)
		default:
			there++
		}
	}
	if t.made && there < len(t.report.Namespaces) {
		return fmt.Errorf("%w: %d of %d namespaces are left", ErrDisturbed, there, len(t.report.Namespaces))
	}
	return nil
}

// mark writes the verdict into the vault, unless the point is gone.
func (t *test) mark(ctx context.Context) error {
	p := t.deps.Recovery.Project
	marks, err := p.Marks(ctx, t.opts.Application, t.opts.Point)
	if err != nil {
		return err
	}
	if _, err := p.Manifest(ctx, t.opts.Application, t.opts.Point); err != nil {
		return err
	}
	if (vault.PointInfo{Marks: marks}).Deleting() {
		return fmt.Errorf("%w: it was deleted meanwhile", vault.ErrNotFound)
	}
	mark := vault.Mark{
		Kind: vault.MarkVerified, How: vault.HowBoot, At: t.now().UTC(), Site: t.deps.Recovery.Site, By: "restore-test",
		RTO: t.report.RTO, Probes: t.report.Probes, Note: t.note(),
	}
	if !t.report.Passed {
		mark.Kind, mark.How, mark.Note = vault.MarkUnbootable, "", t.report.Failure
	}
	return p.Mark(ctx, t.opts.Application, t.opts.Point, mark)
}

func (t *test) note() string {
	text := fmt.Sprintf("restored, and up in %s", t.report.RTO.Round(time.Millisecond))
	if n := len(t.report.Probes); n > 0 {
		text += fmt.Sprintf("; %d probes passed", n)
	}
	return text
}

// remove takes the copy away, also when the test was told to stop: then in a
// hurry, and the next agent does the rest.
func (t *test) remove(ctx context.Context) {
	limit := RemoveTimeout
	if ctx.Err() != nil {
		limit = hurry
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	all, err := t.deps.Cluster.Copies(ctx)
	if err != nil {
		t.report.Leftovers = append(t.report.Leftovers, fmt.Sprintf("%s: %v", strings.Join(t.report.Namespaces, ", "), err))
		return
	}
	mine := slices.DeleteFunc(all, func(c Copy) bool { return c.Test != t.id })
	if len(mine) == 0 {
		return
	}
	if err := t.deps.Cluster.Remove(ctx, mine); err != nil {
		t.report.Leftovers = append(t.report.Leftovers, err.Error())
	}
}

// Sweep removes the copies of tests that are over: those past their time, and
// for an agent those of agents before it. It returns the tests' ids.
func Sweep(ctx context.Context, cluster Cluster, owner string, now time.Time) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, RemoveTimeout)
	defer cancel()
	all, err := cluster.Copies(ctx)
	if err != nil {
		return nil, fmt.Errorf("sweep restore tests: %w", err)
	}
	dead := slices.DeleteFunc(all, func(c Copy) bool { return !c.over(owner, now) })
	if len(dead) == 0 {
		return nil, nil
	}
	var tests []string
	for _, c := range dead {
		if !slices.Contains(tests, c.Test) {
			tests = append(tests, c.Test)
		}
	}
	if err := cluster.Remove(ctx, dead); err != nil {
		return tests, fmt.Errorf("sweep restore tests: %w", err)
	}
	return tests, nil
}

// over tells whether nobody works with the copy any more.
func (c Copy) over(owner string, now time.Time) bool {
	if strings.HasPrefix(owner, agentPrefix) && strings.HasPrefix(c.Owner, agentPrefix) && c.Owner != owner {
		return true
	}
	if c.Until.IsZero() {
		return now.Sub(c.Created) > 24*time.Hour
	}
	return now.After(c.Until)
}
