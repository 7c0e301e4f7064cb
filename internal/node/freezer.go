package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/barrier"
	"davit.dev/davit/internal/freeze"
)

var (
	freezesEnded = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "davit_node_freezes_total", Help: "Freezes of an application's volumes on this node, by result: held or broken.",
	}, []string{"result"})
	freezeSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "davit_node_freeze_seconds", Help: "How long file systems of an application stood still, from before the first freeze until after the last thaw.",
		Buckets: prometheus.ExponentialBuckets(0.05, 2, 11),
	})
)

// Unreadable counts, whenever it is asked, the freezes that nobody can thaw by their records. The watchdog, which tells of
// them when it starts, has no metrics.
func Unreadable(runDir string) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "davit_node_freeze_records_unreadable", Help: "Records of freezes that cannot be read: what they name may be frozen.",
	}, func() float64 { return float64(freeze.Unreadable(runDir)) })
}

const (
	// parallelOrders is how many orders are looked at at once: looking takes
	// no time, but must not wait for others.
	parallelOrders = 8
	// reportAgain is how long a report that could not be written waits.
	reportAgain = 200 * time.Millisecond
	// lastWord is how long an ending process tries to report.
	lastWord = 3 * time.Second
)

// freezer carries out the VolumeFreezes of one node.
type freezer struct {
	client client.Client
	opts   Options
	open   func(ctx context.Context, name string, spec v1alpha1.VolumeFreezeSpec) (stillness, error)

	ctx     context.Context //nolint:containedctx // of the process: sessions outlive the reconcile that starts them
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex
	sessions map[types.NamespacedName]*session
}

func newFreezer(c client.Client, opts Options) *freezer {
	f := &freezer{client: c, opts: opts, sessions: map[types.NamespacedName]*session{}}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	o := opener{place: newLocator(opts), runDir: opts.RunDir, kubeletRoot: opts.KubeletRoot}
	f.open = o.open
	return f
}

func (f *freezer) setup(mgr ctrl.Manager) error {
	mine := predicate.NewPredicateFuncs(func(o client.Object) bool {
		order, ok := o.(*v1alpha1.VolumeFreeze)
		return ok && order.Spec.Node == f.opts.Node
	})
	return ctrl.NewControllerManagedBy(mgr).Named("volumefreeze").For(&v1alpha1.VolumeFreeze{}).WithEventFilter(mine).
		WithOptions(controller.Options{MaxConcurrentReconciles: parallelOrders}).Complete(f)
}

// stop thaws everything and waits until that is done.
func (f *freezer) stop() {
	f.cancel()
	f.running.Wait()
}

// Reconcile starts a session for a new order, and passes orders on.
func (f *freezer) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var order v1alpha1.VolumeFreeze
	err := f.client.Get(ctx, req.NamespacedName, &order)
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, err
	}
	gone := err != nil || !order.DeletionTimestamp.IsZero()
	s := f.session(ctx, req.NamespacedName, &order, gone)
	switch {
	case s == nil && !gone && (order.Status.Phase == v1alpha1.FreezeArmed || order.Status.Phase == v1alpha1.FreezeFrozen):
		// The process that was at it is dead, and its watchdog has thawed.
		return ctrl.Result{}, f.disown(ctx, &order)
	case s == nil:
		return ctrl.Result{}, nil
	case gone:
		s.tell(barrier.Word{Signal: barrier.Abandoned})
	case order.Spec.Order == v1alpha1.OrderFreeze:
		s.tell(barrier.Word{Signal: barrier.OrderFreeze})
	case order.Spec.Order == v1alpha1.OrderThaw:
		s.tell(barrier.Word{Signal: barrier.OrderThaw})
	}
	return ctrl.Result{}, nil
}

// session returns the order's session; a new order gets one. That of an ended
// order is kept until the order is gone: an old copy of it must not begin anew.
func (f *freezer) session(ctx context.Context, name types.NamespacedName, order *v1alpha1.VolumeFreeze, gone bool) *session {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sessions[name]
	if gone {
		delete(f.sessions, name)
		return s
	}
	if s != nil && s.uid == order.UID {
		return s
	}
	if s != nil {
		s.tell(barrier.Word{Signal: barrier.Abandoned})
		delete(f.sessions, name)
	}
	if order.Status.Phase != "" || order.Spec.Order == v1alpha1.OrderThaw || f.ctx.Err() != nil {
		return nil
	}
	s = newSession(order, f.opts.Now)
	f.sessions[name] = s
	logger := log.FromContext(ctx).WithValues("point", order.Spec.Point, "volumes", len(order.Spec.Volumes))
	logger.Info("freeze armed", "window", order.Spec.Window.Duration)
	f.running.Go(func() { f.run(log.IntoContext(f.ctx, logger), s, order.DeepCopy()) })
	return s
}

// disown ends an order whose process is dead.
func (f *freezer) disown(ctx context.Context, order *v1alpha1.VolumeFreeze) error {
	return f.write(ctx, order, barrier.Said{State: barrier.StateEnded, Why: "its process died and another was started"})
}

// run plays one session to its end, and reports beside it: a server that does
// not answer must not keep anything frozen.
func (f *freezer) run(ctx context.Context, s *session, order *v1alpha1.VolumeFreeze) {
	var wg sync.WaitGroup
	wg.Go(func() { f.report(ctx, s, order) })
	s.play(ctx, func(ctx context.Context) (stillness, error) { return f.open(ctx, order.Name, order.Spec) })
	said := s.said.get()
	result := "broken"
	if said.Held {
		result = "held"
	}
	if said.Took > 0 {
		freezesEnded.WithLabelValues(result).Inc()
		freezeSeconds.Observe(said.Took.Seconds())
	}
	log.FromContext(ctx).Info("freeze ended", "held", said.Held, "took", said.Took, "why", said.Why)
	wg.Wait()
}

// report writes what the session says, the newest first, until its end is
// written or nobody wants it any more.
func (f *freezer) report(ctx context.Context, s *session, order *v1alpha1.VolumeFreeze) {
	var written barrier.State
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(f.ctx, func() { time.AfterFunc(lastWord, cancel) })()
	for written != barrier.StateEnded && ctx.Err() == nil {
		said := s.said.get()
		if said.State == written {
			select {
			case <-ctx.Done():
			case <-s.said.changed:
			}
			continue
		}
		err := f.write(ctx, order, said)
		switch {
		case err == nil:
			written = said.State
		case apierrors.IsNotFound(err):
			return
		default:
			log.FromContext(ctx).Error(err, "freeze not reported")
			select {
			case <-ctx.Done():
			case <-time.After(reportAgain):
			}
		}
	}
}

func (f *freezer) write(ctx context.Context, order *v1alpha1.VolumeFreeze, said barrier.Said) error {
	next := order.DeepCopy()
	next.Status = v1alpha1.VolumeFreezeStatus{Phase: v1alpha1.FreezePhase(said.State), Held: said.Held, Message: shorten(said.Why)}
	if said.Took > 0 {
		next.Status.Took = &metav1.Duration{Duration: said.Took}
	}
	if err := f.client.Status().Patch(ctx, next, client.MergeFrom(order)); err != nil {
		return fmt.Errorf("write status of freeze %s: %w", order.Name, err)
	}
	order.Status = next.Status
	return nil
}
