package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authz "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/yaml"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/wiring"
	"davit.dev/davit/internal/install"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/kube/census"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/settlement/settlementtest"
	"davit.dev/davit/internal/shelf"
	"davit.dev/davit/internal/standby"
	"davit.dev/davit/internal/trial"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
	"davit.dev/davit/internal/vault/retry"
)

// fakeNow is the time in scripts.
var fakeNow = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// fakeBackend is a cluster in a directory of YAML files, $FAKE_CLUSTER, and
// real vaults in directories.
type fakeBackend struct {
	dir string
	out io.Writer
}

func (b fakeBackend) Cluster(string, string) (wiring.Cluster, error) {
	if b.dir == "" {
		return nil, errors.New("read kubeconfig: no configuration")
	}
	return openFake(b.dir)
}

// Store implements Backend. s3 addresses do not answer.
func (b fakeBackend) Store(ctx context.Context, cfg backend.Config) (vault.Store, error) {
	if strings.HasPrefix(cfg.URL, "s3:") {
		return nil, fmt.Errorf("open vault %s: %w: connection refused", cfg.URL, vault.ErrUnavailable)
	}
	cfg.Retry = &retry.Policy{}
	return backend.Open(ctx, cfg)
}

func (b fakeBackend) Serve(_ context.Context, part string, args []string) error {
	_, err := fmt.Fprintln(b.out, part, args)
	return err
}

// fakeCluster writes every change back into its directory.
type fakeCluster struct {
	client.WithWatch
	dir string
}

func openFake(dir string) (*fakeCluster, error) {
	scheme := process.Scheme()
	decoder := serializer.NewCodecFactory(scheme).UniversalDeserializer()
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	builder := fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&v1alpha1.RecoveryPoint{})
	system := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceSystem, UID: types.UID("uid-of-" + filepath.Base(dir))}}
	if _, err := os.Stat(filepath.Join(dir, "namespace__kube-system.yaml")); err != nil {
		builder = builder.WithRuntimeObjects(system)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for _, doc := range bytes.Split(text, []byte("\n---\n")) {
			object, _, err := decoder.Decode(doc, nil, nil)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			builder = builder.WithRuntimeObjects(object)
		}
	}
	return &fakeCluster{builder.Build(), dir}, nil
}

// save writes the kinds that commands change.
func (c *fakeCluster) save(ctx context.Context) error {
	lists := []client.ObjectList{
		&v1alpha1.VaultList{}, &v1alpha1.ApplicationList{}, &v1alpha1.ProtectionPolicyList{}, &v1alpha1.RecoveryPointList{},
		&v1alpha1.SiteList{}, &v1alpha1.RestoreList{}, &corev1.SecretList{}, &corev1.NamespaceList{}, &corev1.ConfigMapList{},
		&corev1.PodList{}, &corev1.PersistentVolumeClaimList{}, &appsv1.DeploymentList{}, &appsv1.DaemonSetList{},
	}
	old, _ := filepath.Glob(filepath.Join(c.dir, "*.yaml"))
	for _, file := range old {
		_ = os.Remove(file)
	}
	for _, list := range lists {
		if err := c.List(ctx, list); err != nil {
			return err
		}
		items, err := meta.ExtractList(list)
		if err != nil {
			return err
		}
		for _, item := range items {
			o := item.(client.Object)
			kinds, _, err := c.Scheme().ObjectKinds(o)
			if err != nil {
				return err
			}
			o.GetObjectKind().SetGroupVersionKind(kinds[0])
			o.SetResourceVersion("")
			text, err := yaml.Marshal(o)
			if err != nil {
				return err
			}
			name := strings.ToLower(kinds[0].Kind) + "_" + o.GetNamespace() + "_" + o.GetName() + ".yaml"
			if err := os.WriteFile(filepath.Join(c.dir, name), text, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *fakeCluster) keep(err error) error {
	return errors.Join(err, c.save(context.Background()))
}

func (c *fakeCluster) Create(ctx context.Context, o client.Object, opts ...client.CreateOption) error {
	if review, ok := o.(*authz.SelfSubjectAccessReview); ok { // everybody may do everything, unless no-rights says otherwise
		_, err := os.Stat(filepath.Join(c.dir, "no-rights"))
		review.Status.Allowed = err != nil
		return nil
	}
	if err := c.WithWatch.Create(ctx, o, opts...); err != nil {
		return err
	}
	return c.keep(nil)
}

// List fails once for sites if no-sites says so.
func (c *fakeCluster) List(ctx context.Context, l client.ObjectList, opts ...client.ListOption) error {
	if _, sites := l.(*v1alpha1.SiteList); sites && os.Remove(filepath.Join(c.dir, "no-sites")) == nil {
		return apierrors.NewInternalError(errors.New("no leader"))
	}
	return c.WithWatch.List(ctx, l, opts...)
}

func (c *fakeCluster) Update(ctx context.Context, o client.Object, opts ...client.UpdateOption) error {
	return c.keep(c.WithWatch.Update(ctx, o, opts...))
}

func (c *fakeCluster) Patch(ctx context.Context, o client.Object, p client.Patch, opts ...client.PatchOption) error {
	return c.keep(c.WithWatch.Patch(ctx, o, p, opts...))
}

func (c *fakeCluster) Delete(ctx context.Context, o client.Object, opts ...client.DeleteOption) error {
	return c.keep(c.WithWatch.Delete(ctx, o, opts...))
}

func (c *fakeCluster) Status() client.SubResourceWriter { return keptStatus{c.WithWatch.Status(), c} }

type keptStatus struct {
	client.SubResourceWriter
	c *fakeCluster
}

func (s keptStatus) Patch(ctx context.Context, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
	return s.c.keep(s.SubResourceWriter.Patch(ctx, o, p, opts...))
}

func (c *fakeCluster) ServerVersion(context.Context) (string, error) { return "v1.34.4", nil }
func (c *fakeCluster) User(context.Context) string                   { return "tester" }

func (c *fakeCluster) PodLogs(_ context.Context, l wiring.PodLog) (io.ReadCloser, error) {
	return os.Open(filepath.Join(c.dir, l.Pod+".log"))
}

func (c *fakeCluster) Install(ctx context.Context, opts install.Options, progress install.Progress) error {
	progress("accounts, agent and node processes")
	site := &v1alpha1.Site{}
	site.Name, site.Labels = opts.SiteName, map[string]string{install.LocalLabel: "true"}
	site.Spec.FailureDomain = opts.FailureDomain
	agent, node := &appsv1.Deployment{}, &appsv1.DaemonSet{}
	agent.Namespace, agent.Name, agent.Status.AvailableReplicas = v1alpha1.SystemNamespace, install.AgentName, 1
	node.Namespace, node.Name, node.Status.NumberReady = v1alpha1.SystemNamespace, install.NodeName, 1
	for _, o := range []client.Object{site, agent, node} {
		if err := client.IgnoreAlreadyExists(c.Create(ctx, o)); err != nil {
			return err
		}
	}
	return nil
}

func (c *fakeCluster) Uninstall(_ context.Context, _ install.UninstallOptions, progress install.Progress) error {
	progress("stopping the agent and the node processes")
	return nil
}

func (c *fakeCluster) InstallConsole(_ context.Context, _ install.ConsoleOptions, progress install.Progress) error {
	progress("namespace, Service and consoles")
	return nil
}

func (c *fakeCluster) UninstallConsole(_ context.Context, _ install.ConsoleOptions, progress install.Progress) error {
	progress("removing the namespace")
	return nil
}

// CheckDirectory implements Cluster: this one has every directory, unless
// no-directories says otherwise. The real one is tested in admission.
func (c *fakeCluster) CheckDirectory(_ context.Context, dir string) error {
	if _, err := os.Stat(filepath.Join(c.dir, "no-directories")); err == nil {
		return exit.Refuse("use s3://BUCKET/PREFIX", "the cluster cannot see directory %s", dir)
	}
	return nil
}

// CheckVolumes implements Cluster: the real one is tested on real clusters.
func (c *fakeCluster) CheckVolumes(context.Context, *v1alpha1.Application, []capture.Claim) error {
	return nil
}

// Look implements Cluster: the real one is tested in capture.
func (c *fakeCluster) Look(context.Context, *v1alpha1.Application, bool) (*capture.Held, error) {
	return &capture.Held{}, nil
}

// Recover implements Cluster with what recover.json and recover.err hold.
func (c *fakeCluster) Recover(_ context.Context, opts recovery.Options, how wiring.Recovering) (recovery.Report, error) {
	report := recovery.Report{}
	if text, err := os.ReadFile(filepath.Join(c.dir, "recover.json")); err == nil {
		if err := json.Unmarshal(text, &report); err != nil {
			return report, err
		}
	}
	report.Application, report.Mode, report.Site = opts.Application, opts.Mode, how.Site
	how.Progress.StepStarted("objects")
	how.Progress.Objects(1, 2)
	why, _ := os.ReadFile(filepath.Join(c.dir, "recover.err"))
	for _, known := range []error{recovery.ErrRefused, recovery.ErrPreflight, recovery.ErrNoPoint, recovery.ErrBusy, vault.ErrUnavailable, vault.ErrDamaged} {
		if strings.TrimSpace(string(why)) == known.Error() {
			return report, fmt.Errorf("restore %s: %w", opts.Application, known)
		}
	}
	return report, nil
}

// Test implements Cluster: the real one is tested in trial.
func (c *fakeCluster) Test(_ context.Context, opts trial.Options, _ wiring.Recovering) (trial.Report, error) {
	report := trial.Report{Application: opts.Application, Point: opts.Point, Namespaces: []string{"davit-test-x-" + opts.Application}, Passed: true, RTO: 12 * time.Second}
	for _, p := range opts.Probes {
		passed := !strings.HasPrefix(p.Name, "bad")
		report.Probes = append(report.Probes, vault.MarkProbe{Name: p.Name, Passed: passed})
		report.Passed = report.Passed && passed
	}
	if opts.Application == "bare" && len(opts.Probes) == 0 { // nothing of it runs
		report.Passed, report.RTO, report.Unproven = false, 0, "nothing runs in the copy"
		return report, fmt.Errorf("test %s: %w: %s", opts.Point, trial.ErrNothingProven, report.Unproven)
	}
	if report.Passed {
		return report, nil
	}
	report.RTO, report.Failure = 0, "probe bad: nobody answers"
	return report, fmt.Errorf("test %s: %w: %s", opts.Point, trial.ErrFailed, report.Failure)
}

// Census implements Cluster: a small site with room.
func (c *fakeCluster) Census(_ context.Context, about census.Options) *preflight.Site {
	s := &preflight.Site{
		Name: about.Site, At: about.Now(), Domain: about.Domain, VaultDomain: about.VaultDomain, Kubernetes: "v1.34.4", Roles: about.Roles,
		Nodes: []preflight.Node{{Name: "n1", Free: preflight.Room{CPU: 4000, Memory: 8 << 30, Pods: 100}}}, APIs: map[string][]string{},
		Rights: preflight.Rights{Who: "tester", Asked: 1, Steps: map[string]bool{}},
	}
	for _, r := range about.Steps {
		s.Rights.Steps[r.String()] = true
	}
	for _, n := range about.Needs {
		for _, k := range n.Kinds {
			s.APIs[k.Resource] = []string{k.Version}
		}
	}
	return s
}

// Rehearse implements Cluster: no server answers.
func (c *fakeCluster) Rehearse(context.Context, *plan.Plan, func() time.Time) []preflight.Name {
	return nil
}

// Standby implements Cluster: the real one is tested in standby.
func (c *fakeCluster) Standby(wiring.Recovering) (*standby.Site, error) {
	return nil, errors.New("this cluster carries no run")
}

// SweepTests implements Cluster.
func (c *fakeCluster) SweepTests(context.Context, time.Time) ([]string, error) {
	return []string{"x"}, nil
}

// fakeVault opens the fake cluster's only vault.
func fakeVault(ctx context.Context, dir string) (*access.Opened, error) {
	c, err := openFake(dir)
	if err != nil {
		return nil, err
	}
	opener := access.Opener{Store: fakeBackend{dir: dir}.Store}
	return opener.OpenHere(ctx, c, "")
}

// seedPlan puts a plan into the vault, as another site's agent would.
func seedPlan(dir, file string) error {
	ctx := context.Background()
	o, err := fakeVault(ctx, dir)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	document, err := yaml.YAMLToJSON(text)
	if err != nil {
		return err
	}
	_, err = shelf.New(o.Project).Put(ctx, shelf.Sheet{Plan: strings.TrimSuffix(filepath.Base(file), ".yaml"), At: fakeNow.Add(-time.Minute), Site: "north", Document: document})
	return err
}

// seedLeft puts the journal of a run that is over and left something to people into it.
func seedLeft(dir, run string) error {
	ctx := context.Background()
	o, err := fakeVault(ctx, dir)
	if err != nil {
		return err
	}
	return journal.Create(o.Project, run, "agent west").Append(ctx, settlementtest.Left(run, "agent west", fakeNow.Add(-time.Hour)))
}

// seedPoint writes a small recovery point into it: seedpoint APP MINUTES-AGO.
func seedPoint(dir, app string, age time.Duration) (string, error) {
	ctx := context.Background()
	o, err := fakeVault(ctx, dir)
	if err != nil {
		return "", err
	}
	at := fakeNow.Add(-age)
	id, err := point.NewID(app, at, bytes.NewReader([]byte("aaaaaaaaa")))
	if err != nil {
		return "", err
	}
	w, err := o.Project.NewWriter(ctx, app, id)
	if err != nil {
		return "", err
	}
	m := &point.Manifest{
		FormatVersion: 1, ID: id, Application: app, Project: o.Project.Name(), Site: o.Site, Epoch: 1, Trigger: "manual",
		StartedAt: at, Instant: at, CutBy: at, FinishedAt: at.Add(2 * time.Second), Consistency: point.Crash,
		KubeVersion: "v1.34.4", DavitVersion: "test", Namespaces: []string{app}, Objects: 1, Bytes: 64,
		Images:   []point.Image{{Reference: "registry.example.com/shop:1", Digest: "sha256:0123"}},
		Warnings: []point.Warning{{Object: "jobs.batch shop/once", Message: "finished: left out"}},
	}
	rw := w.Resource(point.Resource{Version: "v1", Kind: "ConfigMap", Resource: "configmaps", Namespaced: true})
	if err := rw.Add(ctx, []byte(`{"kind":"ConfigMap","metadata":{"name":"a","namespace":"shop"}}`)); err != nil {
		return "", err
	}
	res, err := rw.Close(ctx)
	if err != nil {
		return "", err
	}
	m.Resources = []point.Resource{res}
	if err := w.Log(ctx, []vault.LogEntry{{At: at, Level: "info", Message: "captured"}}); err != nil {
		return "", err
	}
	return id, w.Publish(ctx, m, nil)
}
