// Package agent is the process that keeps one site's applications protected:
// it wires the reconcilers to the adapters. One of its replicas leads, by a
// lease in its cluster; it needs nobody outside the cluster but the vault.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	corev1 "k8s.io/api/core/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/agent/speaker"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/install"
	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/kube/externaldns"
	"davit.dev/davit/internal/kube/quiescer"
	"davit.dev/davit/internal/kube/source"
	"davit.dev/davit/internal/kube/target"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/reconcile/application"
	"davit.dev/davit/internal/reconcile/carrier"
	"davit.dev/davit/internal/reconcile/copying"
	"davit.dev/davit/internal/reconcile/declaration"
	"davit.dev/davit/internal/reconcile/drilling"
	"davit.dev/davit/internal/reconcile/keeping"
	"davit.dev/davit/internal/reconcile/locking"
	"davit.dev/davit/internal/reconcile/measure"
	"davit.dev/davit/internal/reconcile/origin"
	"davit.dev/davit/internal/reconcile/plan"
	"davit.dev/davit/internal/reconcile/proof"
	"davit.dev/davit/internal/reconcile/recoverypoint"
	"davit.dev/davit/internal/reconcile/restore"
	"davit.dev/davit/internal/reconcile/site"
	"davit.dev/davit/internal/reconcile/vault"
	"davit.dev/davit/internal/standby"
	"davit.dev/davit/internal/standby/reconcilers"
	"davit.dev/davit/internal/traffic/active"
	"davit.dev/davit/internal/version"
)

// leaseName is the lease by which replicas agree on who leads.
const leaseName = "davit-agent"

// Options say how the agent works.
type Options struct {
	// Site is this site's name in the vault.
	Site string
	// MetricsAddress and HealthAddress are host:port; "0" means none.
	MetricsAddress, HealthAddress string
	// LeaderElection is off where only one agent can run, as in tests.
	LeaderElection bool
	// OutboxDir is where events wait for consoles.
	OutboxDir string
	// Config is the way into the cluster.
	Config *rest.Config
	Logger *slog.Logger
	// Now tells the time. Nil means time.Now.
	Now func() time.Time
}

// Main parses the arguments of `davit agent` and runs until ctx is done.
func Main(ctx context.Context, args []string, logs io.Writer) error {
	var opts Options
	var level, kubeconfig string
	flags := pflag.NewFlagSet("davit agent", pflag.ContinueOnError)
	flags.StringVar(&opts.Site, "site", "", "this site's name")
	flags.StringVar(&opts.MetricsAddress, "metrics-address", ":8080", "where to serve /metrics; 0: nowhere")
	flags.StringVar(&opts.HealthAddress, "health-address", ":8081", "where to serve /healthz and /readyz; 0: nowhere")
	flags.BoolVar(&opts.LeaderElection, "leader-election", true, "let one of several replicas lead")
	flags.StringVar(&opts.OutboxDir, "outbox-dir", filepath.Join(os.TempDir(), "davit-outbox"), "where events wait for consoles")
	flags.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	flags.StringVar(&kubeconfig, "kubeconfig", "", "kubeconfig file (default: the pod's service account)")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("davit agent: %w", err)
	}
	var err error
	if opts.Logger, err = process.Logger(logs, level); err != nil {
		return fmt.Errorf("davit agent: %w", err)
	}
	if opts.Config, err = process.Config(kubeconfig); err != nil {
		return fmt.Errorf("davit agent: %w", err)
	}
	return Run(ctx, opts)
}

// Run keeps the site's applications protected until ctx is done.
func Run(ctx context.Context, opts Options) error {
	if opts.Site == "" {
		return errors.New("davit agent: the site's name is not set: give --site")
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.OutboxDir == "" {
		opts.OutboxDir = filepath.Join(os.TempDir(), "davit-outbox")
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	mgr, err := newManager(opts)
	if err != nil {
		return fmt.Errorf("start davit agent: %w", err)
	}
	if err := wire(ctx, mgr, opts); err != nil {
		return fmt.Errorf("start davit agent: %w", err)
	}
	opts.Logger.Info("agent starts", "site", opts.Site, "version", version.String())
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("run davit agent: %w", err)
	}
	return nil
}

func newManager(opts Options) (manager.Manager, error) {
	lock, err := leaderLock(os.Getenv("POD_NAME"), opts.Config)
	if err != nil {
		return nil, err
	}
	mgr, err := ctrl.NewManager(opts.Config, ctrl.Options{
		Scheme:                        process.Scheme(),
		Metrics:                       server.Options{BindAddress: opts.MetricsAddress},
		HealthProbeBindAddress:        opts.HealthAddress,
		LeaderElection:                opts.LeaderElection,
		LeaderElectionID:              leaseName,
		LeaderElectionNamespace:       v1alpha1.SystemNamespace,
		LeaderElectionReleaseOnCancel: true,

		LeaderElectionResourceLockInterface: lock,
		Cache:                               cacheOptions(),
		Client: client.Options{Cache: &client.CacheOptions{
			DisableFor: []client.Object{&corev1.Secret{}, &corev1.Pod{}},
		}},
	})
	if err != nil {
		return nil, err
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return nil, err
	}
	return mgr, mgr.AddReadyzCheck("ping", func(*http.Request) error { return nil })
}

// cacheOptions keeps out of memory who manages which field: nothing that reads the cache asks
// for that, and it is a third of a recovery point, of which there may be ten thousand.
func cacheOptions() cache.Options {
	return cache.Options{DefaultTransform: cache.TransformStripManagedFields()}
}

// wire makes the reconcilers and hands them their adapters.
func wire(ctx context.Context, mgr manager.Manager, opts Options) error {
	clients, err := kube.New(opts.Config)
	if err != nil {
		return err
	}
	id, err := clients.ClusterID(ctx)
	if err != nil {
		return err
	}
	c, reader := mgr.GetClient(), mgr.GetAPIReader()
	p := newPool(clients, reader, lease.Identity{Site: opts.Site, Cluster: id}, opts.Logger, opts.Now)
	tells := &speaker.Speaker{Client: c, Reader: reader, Vaults: p, Access: p, Site: opts.Site, Dir: opts.OutboxDir, Now: opts.Now, Log: opts.Logger}
	if err := mgr.Add(tells); err != nil {
		return err
	}
	events := tells.Recorder(mgr.GetEventRecorderFor("davit-agent"))
	for _, r := range []interface{ Setup(ctrl.Manager) error }{
		&vault.Reconciler{Client: c, Vaults: fresh{p}, Events: events, Site: opts.Site, ClusterID: id, KubeVersion: clients.ServerVersion, Now: opts.Now},
		&site.Reconciler{Client: c, Site: opts.Site, ClusterID: id, KubeVersion: clients.ServerVersion, Now: opts.Now},
		&application.Reconciler{Client: c, Reader: reader, Vaults: p, Events: events, Site: opts.Site, Now: opts.Now, Names: externaldns.Objects{Client: clients.Dynamic}},
		&recoverypoint.Reconciler{Client: c, Reader: reader, Vaults: p, Events: events, Site: opts.Site, Now: opts.Now},
		&locking.Reconciler{Client: c, Vaults: p, Events: events, Now: opts.Now},
		&keeping.Reconciler{Client: c, Vaults: p, Events: events, Now: opts.Now},
		&copying.Reconciler{Client: c, Vaults: p, Events: events, Now: opts.Now, Logger: opts.Logger},
		&proof.Verifier{Client: c, Vaults: p, Events: events, Now: opts.Now},
		&proof.Tester{Client: c, Trials: p, Events: events, Now: opts.Now},
		&restore.Reconciler{Client: c, Reader: reader, Access: p, Events: events, Now: opts.Now},
		&plan.Reconciler{Client: c, Project: p.Project, Events: events, Site: opts.Site, Now: opts.Now},
		&drilling.Reconciler{Client: c, Project: p.Project, Events: events, Site: opts.Site, Now: opts.Now},
	} {
		if err := r.Setup(mgr); err != nil {
			return err
		}
	}
	if err := mgr.AddMetricsServerExtraHandler(active.Path, &active.Handler{Applications: c, Services: reader, Now: opts.Now}); err != nil {
		return err
	}
	capturer, err := clients.Impersonate(kube.ServiceAccountUser(v1alpha1.SystemNamespace, install.CaptureName))
	if err != nil {
		return err
	}
	cluster, err := source.NewCluster(capturer) // the agent itself may not list claims
	if err != nil {
		return err
	}
	if err := mgr.Add(&surveyor{client: c, cluster: cluster, log: opts.Logger}); err != nil {
		return err
	}
	if err := mgr.Add(&collector{ledger: p.ledger, runner: quiescer.New(capturer), reader: reader, log: opts.Logger}); err != nil {
		return err
	}
	whole, err := client.New(opts.Config, client.Options{Scheme: process.Scheme()})
	if err != nil {
		return err
	}
	from := func(vault string) execute.Actuator {
		marks := standby.Marks(target.New(clients), vault)
		return origin.New(origin.Options{
			Client: whole, Vault: vault, Site: opts.Site, Marks: marks, Now: opts.Now,
			Reconcilers: reconcilers.Actuator{Cluster: target.New(clients), Marks: marks},
		})
	}
	runs := &carrier.Carrier{
		Client: c, Reader: reader, Site: opts.Site, Process: processName(), Project: p.Project, Target: p.Standby, Foresee: foreseer(c, reader, p, opts.Logger),
		Events: events, Now: opts.Now, Log: opts.Logger,
	}
	for _, r := range []manager.Runnable{
		runs,
		&lookout{client: c, pool: p, log: opts.Logger},
		&declaration.Declarer{Client: c, Reader: reader, Site: opts.Site, Project: p.Project, Listing: p.Listing, Events: events, Now: opts.Now, Log: opts.Logger},
		&servant{reader: reader, pool: p, actuator: from, log: opts.Logger},
		&herald{client: c, reader: reader, pool: p, log: opts.Logger},
		&sweeper{reader: reader, writer: c, pool: p, log: opts.Logger},
	} {
		if err := mgr.Add(r); err != nil {
			return err
		}
	}
	return nil
}

func init() { //nolint:gochecknoinits // the registry is the process's own
	measure.Register(metrics.Registry)
}
