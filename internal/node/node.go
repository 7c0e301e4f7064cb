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
	"os"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/freeze"
	"davit.dev/davit/internal/node/fencing"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/traffic/active"
	"davit.dev/davit/internal/volume"
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
	// StateDir is a directory of the node that outlives the machine: which
	// applications may not run here.
	StateDir string
	// Site is this site's name in the vault. Without it the node fences nothing.
	Site string
	// Runtime is the container runtime's socket on the node, empty to look for
	// it, or "none": then the node fences nothing. PodUID is this pod's own.
	Runtime, PodUID string
	// Peers is where other sites ask this one to stay passive, host:port; empty: nowhere.
	Peers string
	// Grace is how long a container of a fenced application may take to end,
	// AskEvery how often the vault is asked for the epochs of what runs here.
	Grace, AskEvery time.Duration
	// CacheDir is local disk for indexes of volume repositories.
	CacheDir string
	// DiskRead bounds what backups read of this node's volumes, DiskWrite what
	// restores write to them: bytes per second of all together. Nil is no bound.
	DiskRead, DiskWrite volume.Pace
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
	var roots, level, kubeconfig, diskRead, diskWrite string
	flags := pflag.NewFlagSet("davit node", pflag.ContinueOnError)
	flags.StringVar(&opts.Node, "node-name", os.Getenv("NODE_NAME"), "this node's name (default: $NODE_NAME)")
	flags.StringVar(&opts.KubeletRoot, "kubelet-root", "/var/lib/kubelet", "the kubelet's directory")
	flags.StringVar(&roots, "host-path-roots", "", "directories, separated by commas, below which hostPath volumes may be moved")
	flags.StringVar(&opts.RunDir, "run-dir", "/run/davit", "directory in memory that outlives this process, shared with the watchdog")
	flags.StringVar(&opts.Site, "site", "", "this site's name in the vault; without it the node fences nothing")
	flags.DurationVar(&opts.AskEvery, "ask-every", 10*time.Second, "how often the vault is asked who may write what runs here")
	flags.StringVar(&opts.Peers, "peer-address", "", "where the sites of plans with fence.promises ask this one to stay passive, such as :8084; without it nowhere")
	fenceFlags(flags, &opts)
	flags.StringVar(&opts.CacheDir, "cache-dir", os.TempDir(), "local directory for caches")
	flags.StringVar(&diskRead, "disk-read", "", "bound on the bytes per second that backups read of this node's volumes, such as 100Mi")
	flags.StringVar(&diskWrite, "disk-write", "", "bound on the bytes per second that restores write to this node's volumes")
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
	if opts.DiskRead, err = paceOf(diskRead); err != nil {
		return fmt.Errorf("davit node: --disk-read: %w", err)
	}
	if opts.DiskWrite, err = paceOf(diskWrite); err != nil {
		return fmt.Errorf("davit node: --disk-write: %w", err)
	}
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
		HealthProbeBindAddress: "0", // see health
		Cache: cache.Options{ByObject: map[client.Object]cache.ByObject{
			&v1alpha1.VolumeTask{}:   {Namespaces: map[string]cache.Config{v1alpha1.SystemNamespace: {}}},
			&v1alpha1.VolumeFreeze{}: {Namespaces: map[string]cache.Config{v1alpha1.SystemNamespace: {}}},
			&v1alpha1.NodeFence{}:    {Field: fields.OneTermEqualSelector("metadata.name", opts.Node), Namespaces: map[string]cache.Config{v1alpha1.SystemNamespace: {}}},
			&corev1.Pod{}:            {Field: fields.OneTermEqualSelector("spec.nodeName", opts.Node)},
		}},
	})
	if err != nil {
		return fmt.Errorf("start davit node: %w", err)
	}
	logger := slog.New(logr.ToSlogHandler(mgr.GetLogger()))
	if err := freeze.ThawLeftovers(opts.RunDir, logger); err != nil {
		return fmt.Errorf("start davit node: %w", err)
	}
	unreadable := Unreadable(opts.RunDir)
	metrics.Registry.MustRegister(unreadable)
	defer metrics.Registry.Unregister(unreadable)
	var h health
	unserve, err := h.serve(ctx, opts.HealthAddress)
	if err != nil {
		return fmt.Errorf("start davit node: %w", err)
	}
	defer unserve()
	// Before anything is heard of the cluster: what the node knows holds.
	fenced, fences, err := startFences(ctx, mgr, opts, logger)
	if err != nil {
		return fmt.Errorf("start davit node: %w", err)
	}
	defer fences()
	// It leads nothing, so that no silence of the API server ends it.
	answers := &active.Handler{Applications: mgr.GetClient(), Services: mgr.GetAPIReader(), Now: opts.Now, Fenced: fenced}
	if err := mgr.AddMetricsServerExtraHandler(active.Path, answers); err != nil {
		return fmt.Errorf("start davit node: %w", err)
	}
	if err := awaitServer(ctx, mgr, logger); err != nil {
		return nil //nolint:nilerr // told to end before there was work
	}
	h.readyWith(mgr, opts)
	return work(ctx, mgr, opts)
}

// work does tasks and freezes until ctx is done.
func work(ctx context.Context, mgr ctrl.Manager, opts Options) error {
	w := newWorker(mgr.GetClient(), mgr.GetAPIReader(), opts)
	if err := w.setup(mgr); err != nil {
		return fmt.Errorf("start davit node: %w", err)
	}
	still := newFreezer(mgr.GetClient(), opts)
	if err := still.setup(mgr); err != nil {
		return fmt.Errorf("start davit node: %w", err)
	}
	err := mgr.Start(ctx)
	still.stop()
	w.stop()
	if err != nil {
		return fmt.Errorf("run davit node: %w", err)
	}
	return nil
}

func init() { //nolint:gochecknoinits // the registry is the process's own
	metrics.Registry.MustRegister(bytesMoved, bytesUnread, tasksDone, tasksRunning, freezesEnded, freezeSeconds)
	metrics.Registry.MustRegister(fencing.Collectors()...)
}
