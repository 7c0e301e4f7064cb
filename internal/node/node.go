// Package node is the process that runs, privileged, on every node and moves
// the data of volumes: it reads a mounted volume into the vault, or fills one
// from it, as VolumeTask objects ask. It alone holds the vault's keys together
// with access to the kubelet's mounts; pods in users' namespaces hold neither.
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/freeze"
	"davit.dev/davit/internal/process"
)

// Options say how the process works.
type Options struct {
	// Node is this node's name in the cluster.
	Node string
	// KubeletRoot is the kubelet's directory, mounted at the same path.
	KubeletRoot string
	// HostPathRoots are the directories below which host paths are allowed.
	HostPathRoots []string
	// RunDir holds the watchdog's socket and the records of what is frozen. It
	// is a directory of the node in memory, which outlives this process.
	RunDir string
	// CacheDir is local disk for indexes of volume repositories.
	CacheDir string
	// Concurrency is how many tasks run at once; default 2.
	Concurrency int
	// MetricsAddress and HealthAddress are host:port; "0" means none.
	MetricsAddress, HealthAddress string
	// Config is the way into the cluster.
	Config *rest.Config
	// Now tells the time. Nil means time.Now.
	Now func() time.Time
}

// Main parses the arguments of `davit node` and runs until ctx is done. With
// `watchdog` as the first argument it runs the watchdog instead.
func Main(ctx context.Context, args []string, logs io.Writer) error {
	if len(args) > 0 && args[0] == "watchdog" {
		return watch(ctx, args[1:], logs)
	}
	var opts Options
	var roots, level, kubeconfig string
	flags := pflag.NewFlagSet("davit node", pflag.ContinueOnError)
	flags.StringVar(&opts.Node, "node-name", os.Getenv("NODE_NAME"), "this node's name (default: $NODE_NAME)")
	flags.StringVar(&opts.KubeletRoot, "kubelet-root", "/var/lib/kubelet", "the kubelet's directory")
	flags.StringVar(&roots, "host-path-roots", "", "directories, separated by commas, below which hostPath volumes may be moved")
	flags.StringVar(&opts.RunDir, "run-dir", "/run/davit", "directory in memory that outlives this process, shared with the watchdog")
	flags.StringVar(&opts.CacheDir, "cache-dir", os.TempDir(), "local directory for caches")
	flags.IntVar(&opts.Concurrency, "concurrency", 2, "volumes moved at once")
	flags.StringVar(&opts.MetricsAddress, "metrics-address", ":8082", "where to serve /metrics; 0: nowhere")
	flags.StringVar(&opts.HealthAddress, "health-address", ":8083", "where to serve /healthz and /readyz; 0: nowhere")
	flags.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	flags.StringVar(&kubeconfig, "kubeconfig", "", "kubeconfig file (default: the pod's service account)")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("davit node: %w", err)
	}
	if _, err := process.Logger(logs, level); err != nil {
		return fmt.Errorf("davit node: %w", err)
	}
	for root := range strings.SplitSeq(roots, ",") {
		if root != "" {
			opts.HostPathRoots = append(opts.HostPathRoots, root)
		}
	}
	var err error
	if opts.Config, err = process.Config(kubeconfig); err != nil {
		return fmt.Errorf("davit node: %w", err)
	}
	return Run(ctx, opts)
}

// Run executes the node's tasks until ctx is done.
func Run(ctx context.Context, opts Options) error {
	if opts.Node == "" {
		return errors.New("davit node: the node's name is not set: give --node-name")
	}
	if opts.Concurrency < 1 {
		opts.Concurrency = 2
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	mgr, err := ctrl.NewManager(opts.Config, ctrl.Options{
		Scheme:                 process.Scheme(),
		Metrics:                server.Options{BindAddress: opts.MetricsAddress},
		HealthProbeBindAddress: opts.HealthAddress,
		Cache: cache.Options{ByObject: map[client.Object]cache.ByObject{
			&v1alpha1.VolumeTask{}:   {Namespaces: map[string]cache.Config{v1alpha1.SystemNamespace: {}}},
			&v1alpha1.VolumeFreeze{}: {Namespaces: map[string]cache.Config{v1alpha1.SystemNamespace: {}}},
		}},
	})
	if err != nil {
		return fmt.Errorf("start davit node: %w", err)
	}
	w := newWorker(mgr.GetClient(), mgr.GetAPIReader(), opts)
	if err := w.setup(mgr); err != nil {
		return fmt.Errorf("start davit node: %w", err)
	}
	logger := slog.New(logr.ToSlogHandler(mgr.GetLogger()))
	if err := freeze.ThawLeftovers(opts.RunDir, logger); err != nil {
		return fmt.Errorf("start davit node: %w", err)
	}
	still := newFreezer(mgr.GetClient(), opts)
	if err := still.setup(mgr); err != nil {
		return fmt.Errorf("start davit node: %w", err)
	}
	if err := addChecks(mgr, opts); err != nil {
		return fmt.Errorf("start davit node: %w", err)
	}
	err = mgr.Start(ctx)
	still.stop()
	w.stop()
	if err != nil {
		return fmt.Errorf("run davit node: %w", err)
	}
	return nil
}

// addChecks: alive is answering at all; ready is seeing tasks and mounts.
func addChecks(mgr ctrl.Manager, opts Options) error {
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	return mgr.AddReadyzCheck("tasks", func(r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		if !mgr.GetCache().WaitForCacheSync(ctx) {
			return errors.New("volume tasks are not listed yet")
		}
		if _, err := os.Stat(opts.KubeletRoot); err != nil {
			return fmt.Errorf("kubelet directory: %w", err)
		}
		return nil
	})
}

func init() { //nolint:gochecknoinits // the registry is the process's own
	metrics.Registry.MustRegister(bytesMoved, tasksDone, tasksRunning, freezesEnded, freezeSeconds)
}
