package node

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/containers"
	"davit.dev/davit/internal/fence"
	"davit.dev/davit/internal/node/fencing"
	"davit.dev/davit/internal/warden"
)

// noRuntime is the socket of a node that is not to fence.
const noRuntime = "none"

// fenceFlags are those that the node process and its watchdog share.
func fenceFlags(flags *pflag.FlagSet, opts *Options) {
	flags.StringVar(&opts.StateDir, "state-dir", "/var/lib/davit", "directory of the node that outlives it: which applications may not run here")
	flags.StringVar(&opts.Runtime, "cri-socket", "", "the container runtime's socket on the node (default: look for it); none: do not fence")
	flags.StringVar(&opts.PodUID, "pod-uid", os.Getenv("POD_UID"), "this pod's UID, by which its container runtime is told from others (default: $POD_UID)")
	flags.DurationVar(&opts.Grace, "fence-grace", 3*time.Second, "how long a container of a fenced application may take to end")
}

// fences is whether this node keeps any.
func (o Options) fences() bool { return o.Runtime != noRuntime && o.StateDir != "" }

// newWarden makes the part that enforces the record. acts tells whether it is
// this process's turn; nil means always.
func newWarden(opts Options, acts func(fence.Store) bool, log *slog.Logger) (*warden.Warden, fence.Store, *warden.Memory, error) {
	boot, err := warden.Boot()
	if err != nil {
		return nil, fence.Store{}, nil, err
	}
	store := fence.Store{Dir: opts.StateDir, RunDir: opts.RunDir, Boot: boot}
	runtime := warden.Remember(&containers.Late{Socket: opts.Runtime, PodUID: opts.PodUID}, store, warden.Uptime)
	wo := warden.Options{
		Store: store, Runtime: runtime, Gates: warden.KernelGates{Networks: runtime, Root: containers.Root()},
		Last: runtime, End: warden.EndProcesses,
		Now: warden.Uptime, Grace: opts.Grace, Log: log,
	}
	if acts != nil {
		wo.Acts = func() bool { return acts(store) }
	}
	return warden.New(wo), store, runtime, nil
}

// kept is a runtime that is asked again and again what runs here: each time it is left to the watchdog, too.
type kept struct {
	*warden.Memory
	log  *slog.Logger
	said bool
}

func (k *kept) Sandboxes(ctx context.Context) ([]containers.Sandbox, error) {
	all, err := k.Memory.Sandboxes(ctx)
	if err != nil {
		return nil, err
	}
	forgot := k.Keep(ctx)
	if forgot != nil && !k.said {
		k.log.Warn("what runs here is not all remembered: if the container runtime fell silent it could not be cut off", "error", forgot)
	}
	k.said = forgot != nil
	return all, nil
}

// startFences begins to enforce what is on the node's disk, before anything is
// heard from the API server, and to learn. fenced tells whether an application
// may not run here, nil if the node does not know; wait waits for the end of
// both, when ctx is done.
func startFences(ctx context.Context, mgr ctrl.Manager, opts Options, log *slog.Logger) (fenced func(string) (string, bool), wait func(), err error) {
	if !opts.fences() || opts.Site == "" {
		log.Warn("this node fences nothing: it was given no container runtime, or no site's name")
		return nil, func() {}, nil
	}
	w, store, runtime, err := newWarden(opts, nil, log)
	if err != nil {
		return nil, nil, err
	}
	keeper, err := fencing.New(fencing.Options{
		Site: opts.Site, Node: opts.Node, Store: store, Runtime: &kept{Memory: runtime, log: log}, Warden: w,
		Cache: mgr.GetClient(), Reader: mgr.GetAPIReader(), Client: mgr.GetClient(),
		Peers: opts.Peers, AskEvery: opts.AskEvery, Grace: opts.Grace, Uptime: warden.Uptime, Now: opts.Now, Log: log,
	})
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx) })
	running.Go(func() { keeper.Run(ctx) })
	running.Go(func() {
		for ctx.Err() == nil && notice(ctx, mgr, keeper) != nil {
			select { // no API server: the keeper looks now and then all the same
			case <-ctx.Done():
			case <-time.After(2 * time.Second):
			}
		}
	})
	fenced = func(application string) (string, bool) {
		held, is := w.Status().Applications[application]
		return string(held.Reason), is
	}
	return fenced, func() { cancel(); running.Wait() }, nil
}

// awaitServer waits for the API server to answer. Meanwhile the node's fences
// are kept.
func awaitServer(ctx context.Context, mgr ctrl.Manager, log *slog.Logger) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for first := true; ; first = false {
		_, err := mgr.GetRESTMapper().RESTMapping(v1alpha1.GroupVersion.WithKind("VolumeTask").GroupKind(), v1alpha1.GroupVersion.Version)
		if err == nil {
			return nil
		}
		if first {
			log.Error("the API server does not answer; fences are kept meanwhile", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// notice makes the keeper look as soon as something changes in the cluster.
func notice(ctx context.Context, mgr ctrl.Manager, keeper *fencing.Keeper) error {
	kick := toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { keeper.Kick() }, DeleteFunc: func(any) { keeper.Kick() },
		UpdateFunc: func(any, any) { keeper.Kick() },
	}
	for _, o := range []client.Object{&corev1.Namespace{}, &v1alpha1.Application{}, &corev1.Pod{}} {
		informer, err := mgr.GetCache().GetInformer(ctx, o)
		if err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		if _, err := informer.AddEventHandler(kick); err != nil {
			return fmt.Errorf("watch: %w", err)
		}
	}
	return nil
}

// beside enforces the record in the node process's place while that is silent.
func beside(ctx context.Context, opts Options, log *slog.Logger) (wait func(), err error) {
	if !opts.fences() {
		return func() {}, nil
	}
	was := false
	acts := func(store fence.Store) bool {
		at, known := store.Beaten()
		now := !known || warden.Uptime()-at > fencing.StaleAfter
		if now != was {
			was = now
			log.Warn("fences", "kept by the watchdog", now)
		}
		return now
	}
	w, _, _, err := newWarden(opts, acts, log)
	if err != nil {
		return nil, err
	}
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx) })
	return running.Wait, nil
}
