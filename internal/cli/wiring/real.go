package wiring

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/agent"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/cli/admission"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/images"
	"davit.dev/davit/internal/install"
	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/kube/census"
	"davit.dev/davit/internal/kube/externaldns"
	"davit.dev/davit/internal/kube/landing"
	"davit.dev/davit/internal/kube/mover"
	"davit.dev/davit/internal/kube/scratch"
	"davit.dev/davit/internal/kube/source"
	"davit.dev/davit/internal/kube/target"
	"davit.dev/davit/internal/node"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/restore/transform"
	"davit.dev/davit/internal/standby"
	"davit.dev/davit/internal/traffic/providers"
	"davit.dev/davit/internal/traffic/rehearsal"
	"davit.dev/davit/internal/trial"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
	"davit.dev/davit/internal/vault/retry"
)

// Real is what commands work with outside of tests.
type Real struct {
	// Silent is told of vaults that do not answer; see retry.Policy. Nil: nobody is.
	Silent func(store string, last error)
}

// Cluster implements Backend.
func (Real) Cluster(kubeconfig, contextName string) (Cluster, error) {
	clients, err := kube.Open(kubeconfig, contextName)
	if err != nil {
		return nil, err
	}
	c, err := client.NewWithWatch(clients.RESTConfig, client.Options{Scheme: process.Scheme()})
	if err != nil {
		return nil, fmt.Errorf("open cluster: %w", err)
	}
	return &realCluster{WithWatch: c, clients: clients}, nil
}

// Store implements Backend.
func (r Real) Store(ctx context.Context, cfg backend.Config) (vault.Store, error) {
	if cfg.Retry == nil {
		policy := retry.Default
		policy.Silent = r.Silent
		cfg.Retry = &policy
	}
	return backend.Open(ctx, cfg)
}

// Serve implements Backend.
func (Real) Serve(ctx context.Context, part string, args []string) error {
	switch part {
	case "agent":
		return agent.Main(ctx, args, os.Stderr)
	case "node":
		return node.Main(ctx, args, os.Stderr)
	case "hold":
		return process.Hold(ctx, os.Stderr)
	}
	return errors.New("this build has no such part")
}

type realCluster struct {
	client.WithWatch
	clients *kube.Clients
}

// ServerVersion implements Cluster.
func (c *realCluster) ServerVersion(ctx context.Context) (string, error) {
	return c.clients.ServerVersion(ctx)
}

// User implements Cluster. Clusters that do not tell have an unnamed person.
func (c *realCluster) User(ctx context.Context) string {
	review, err := c.clients.Kubernetes.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil || review.Status.UserInfo.Username == "" {
		return "a person at the command line"
	}
	return review.Status.UserInfo.Username
}

// PodLogs implements Cluster.
func (c *realCluster) PodLogs(ctx context.Context, l PodLog) (io.ReadCloser, error) {
	opts := &corev1.PodLogOptions{Container: l.Container, Previous: l.Previous, TailLines: &l.Lines}
	r, err := c.clients.Kubernetes.CoreV1().Pods(l.Namespace).GetLogs(l.Pod, opts).Stream(ctx)
	if notBegun(err) {
		return io.NopCloser(strings.NewReader(err.Error() + "\n")), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read log of %s: %w", l.Pod, err)
	}
	return r, nil
}

// notBegun says that a container has no log since it has not begun: that is all
// there is to know of it.
func notBegun(err error) bool {
	return apierrors.IsBadRequest(err) && strings.Contains(err.Error(), "waiting to start")
}

// Install implements Cluster.
func (c *realCluster) Install(ctx context.Context, opts install.Options, progress install.Progress) error {
	return install.Install(ctx, c.clients, opts, progress)
}

// Uninstall implements Cluster.
func (c *realCluster) Uninstall(ctx context.Context, opts install.UninstallOptions, progress install.Progress) error {
	return install.Uninstall(ctx, c.clients, opts, progress)
}

// InstallConsole implements Cluster.
func (c *realCluster) InstallConsole(ctx context.Context, opts install.ConsoleOptions, progress install.Progress) error {
	return install.InstallConsole(ctx, c.clients, opts, progress)
}

// UninstallConsole implements Cluster.
func (c *realCluster) UninstallConsole(ctx context.Context, opts install.ConsoleOptions, progress install.Progress) error {
	return install.UninstallConsole(ctx, c.clients, opts, progress)
}

// CheckDirectory implements Cluster.
func (c *realCluster) CheckDirectory(ctx context.Context, dir string) error {
	return admission.Directory(ctx, c, dir)
}

// CheckVolumes implements Cluster. What the caller may not see is not checked.
func (c *realCluster) CheckVolumes(ctx context.Context, app *v1alpha1.Application, claims []capture.Claim) error {
	opts := capture.VolumeOptions{Mode: capture.Mode(app.Spec.Volumes.Mode), SnapshotClass: app.Spec.Volumes.SnapshotClass}
	err := source.CheckVolumes(ctx, c.clients, claims, opts)
	switch {
	case errors.Is(err, source.ErrNoSnapshots), errors.Is(err, source.ErrSnapshotClass):
		return exit.Refuse("move the data to a storage class with snapshots, or give --volumes snapshot-or-live to read such volumes while they are in use: points are marked fuzzy then", "%v", err)
	case apierrors.IsForbidden(err):
		return nil
	}
	return err
}

// Look implements Cluster.
func (c *realCluster) Look(ctx context.Context, app *v1alpha1.Application, objects bool) (*capture.Held, error) {
	spec, err := protection.SpecOf(app)
	if err != nil {
		return nil, err
	}
	cluster, err := source.NewCluster(c.clients)
	if err != nil {
		return nil, err
	}
	return capture.Look(ctx, spec, cluster, objects, capture.Options{})
}

// Recover implements Cluster.
func (c *realCluster) Recover(ctx context.Context, opts recovery.Options, how Recovering) (recovery.Report, error) {
	m, err := mover.NewForConfig(c.clients.RESTConfig, nil, mover.Options{Now: how.Now})
	if err != nil {
		return recovery.Report{}, err
	}
	deps := c.recovering(m, how)
	if how.Check {
		return recovery.Check(ctx, opts, deps)
	}
	if how.Plan {
		return recovery.Plan(ctx, opts, deps)
	}
	return recovery.Recover(ctx, opts, deps)
}

// recovering is what a recovery works with here.
func (c *realCluster) recovering(m *mover.Mover, how Recovering) recovery.Deps {
	volumes := target.NewVolumes(m, c.clients, how.VaultName)
	if how.Coming {
		volumes = volumes.Coming()
	}
	return recovery.Deps{
		Project: how.Project, VaultName: how.VaultName, Site: how.Site, ClusterID: how.ClusterID, Holder: how.Holder,
		Cluster: target.New(c.clients), Volumes: volumes, Coming: how.Coming,
		Progress: how.Progress, Now: how.Now,
		Log:      slog.New(slog.DiscardHandler), // people get progress and results
		Overlays: func(ctx context.Context) ([]transform.Overlay, error) { return target.Overlays(ctx, c.clients) },
		Images: func(ctx context.Context, mirror string, image point.Image) (bool, error) {
			m := images.Mirror{Base: mirror, Registries: images.Registries{Insecure: how.InsecureRegistries}}
			return m.Present(ctx, image)
		},
	}
}

// Test implements Cluster.
func (c *realCluster) Test(ctx context.Context, opts trial.Options, how Recovering) (trial.Report, error) {
	m, err := mover.NewForConfig(c.clients.RESTConfig, nil, mover.Options{Now: how.Now})
	if err != nil {
		return trial.Report{}, err
	}
	return trial.Run(ctx, opts, trial.Deps{Recovery: c.recovering(m, how), Cluster: scratch.New(c.clients, m)})
}

// Standby implements Cluster.
func (c *realCluster) Standby(how Recovering) (*standby.Site, error) {
	m, err := mover.NewForConfig(c.clients.RESTConfig, nil, mover.Options{Now: how.Now})
	if err != nil {
		return nil, err
	}
	return landing.New(c.clients, m, c.recovering(m, how)), nil
}

// Census implements Cluster.
func (c *realCluster) Census(ctx context.Context, about census.Options) *preflight.Site {
	about.Clients, about.Restorer, about.Who = c.clients, c.clients, c.User(ctx)
	return census.Take(ctx, about)
}

// secret reads a Secret of davit-system, with the caller's rights.
func (c *realCluster) secret(ctx context.Context, name string) (map[string][]byte, error) {
	s, err := c.clients.Kubernetes.CoreV1().Secrets(v1alpha1.SystemNamespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read Secret %s/%s: %w", v1alpha1.SystemNamespace, name, err)
	}
	return s.Data, nil
}

// Rehearse implements Cluster.
func (c *realCluster) Rehearse(ctx context.Context, p *plan.Plan, now func() time.Time) []preflight.Name {
	return rehearsal.Ask(ctx, p, providers.Open(c.secret, externaldns.Objects{Client: c.clients.Dynamic}, now))
}

// SweepTests implements Cluster.
func (c *realCluster) SweepTests(ctx context.Context, now time.Time) ([]string, error) {
	m, err := mover.NewForConfig(c.clients.RESTConfig, nil, mover.Options{})
	if err != nil {
		return nil, err
	}
	return trial.Sweep(ctx, scratch.New(c.clients, m), "", now)
}
