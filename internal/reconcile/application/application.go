// Package application keeps each Application protected: it asks the vault
// every few seconds which site may write, fences the application here when
// that is another, starts captures on schedule, and says how well all this goes.
package application

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/reconcile/measure"
	"davit.dev/davit/internal/reconcile/policy"
	"davit.dev/davit/internal/reconcile/project"
	"davit.dev/davit/internal/schedule"
	"davit.dev/davit/internal/traffic/endpoints"
	"davit.dev/davit/internal/vault"
)

const (
	// standEvery is how often the vault is asked who may write.
	standEvery   = 5 * time.Second
	standTimeout = 10 * time.Second
	// nameEvery is how often the vault is asked whose the site's name is. A
	// capture asks by itself.
	nameEvery = 30 * time.Second
)

// Access opens vaults by the name of their objects.
type Access interface {
	Protector(ctx context.Context, name string) (*protection.Protector, error)
	Project(ctx context.Context, name string) (*vault.Project, error)
}

// Reconciler keeps Application objects.
type Reconciler struct {
	Client client.Client
	// Reader asks the API server itself: workloads are not cached.
	Reader client.Reader
	Vaults Access
	Events record.EventRecorder
	Site   string
	Now    func() time.Time
	// Names are this site's DNSEndpoints; nil: there are none to be looked after.
	Names endpoints.Objects

	mu    sync.Mutex
	known map[types.NamespacedName]*memory
}

// memory is what need not be asked again. Losing it costs a few requests.
type memory struct {
	vaultName  string
	documents  string    // digest of what was mirrored
	named      time.Time // when the site's name was last found to be its own
	started    time.Time // newest capture this process asked for
	skippedFor time.Time // the slot whose skipping was announced
	back       back      // how it comes back, while it does

	tableOf string          // the schedule that table is of
	table   *schedule.Table // nil: never
	gap     time.Duration   // the longest between two of its slots
}

// Setup registers the reconciler.
func (r *Reconciler) Setup(mgr ctrl.Manager) error {
	r.known = map[types.NamespacedName]*memory{}
	return ctrl.NewControllerManagedBy(mgr).Named("application").
		For(&v1alpha1.Application{}, builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}))).
		Watches(&v1alpha1.ProtectionPolicy{}, handler.EnqueueRequestsFromMapFunc(policy.Applications(r.Client))).
		Watches(&v1alpha1.RecoveryPoint{}, handler.EnqueueRequestsFromMapFunc(ofPoint)).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4}).
		Complete(r)
}

func ofPoint(_ context.Context, o client.Object) []ctrl.Request {
	rp, ok := o.(*v1alpha1.RecoveryPoint)
	if !ok {
		return nil
	}
	return []ctrl.Request{{NamespacedName: types.NamespacedName{Namespace: rp.Namespace, Name: rp.Spec.Application}}}
}

func (r *Reconciler) memory(key types.NamespacedName) *memory {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.known[key]
	if m == nil {
		m = &memory{}
		r.known[key] = m
	}
	return m
}

// scope is one reconcile's view of one application.
type scope struct {
	app       *v1alpha1.Application
	policy    *v1alpha1.ProtectionPolicy // nil: none named
	points    []v1alpha1.RecoveryPoint   // what they point to is the cache's: there may be thousands, and it is only read
	protector *protection.Protector
	standing  protection.Standing
	now       time.Time
	memory    *memory

	problem    *problem // the first thing that is wrong
	starting   string   // what of it was started again, and is not ready
	impossible error    // why the RPO objective can never be kept
	next       *time.Time
	again      *time.Time // when to look again before the usual time
}

// problem is what is wrong, as a condition says it.
type problem struct {
	reason string
	err    error
}

// Reconcile runs the phases in order; each says what it found in the scope.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	s := &scope{app: &v1alpha1.Application{}, now: r.Now(), memory: r.memory(req.NamespacedName)}
	if err := r.Client.Get(ctx, req.NamespacedName, s.app); err != nil {
		if apierrors.IsNotFound(err) {
			r.forget(req.NamespacedName)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	old := s.app.DeepCopy()
	// Whatever else is wrong, who may write is asked and obeyed.
	for _, phase := range []func(context.Context, *scope) error{r.gather, r.stand, r.leased, r.fence, r.hold} {
		if err := phase(ctx, s); err != nil {
			s.fail(v1alpha1.ReasonProgressing, err)
		}
	}
	if s.problem == nil && !s.held() {
		// A document that could not be mirrored keeps no capture waiting.
		for _, phase := range []func(context.Context, *scope) error{r.mirror, r.schedule} {
			if err := phase(ctx, s); err != nil {
				s.fail(v1alpha1.ReasonProgressing, err)
			}
		}
	}
	r.summarize(s)
	r.announce(old, s)
	if !equality.Semantic.DeepEqual(old.Status, s.app.Status) { // a patch that changes nothing would be sent as well
		if err := r.Client.Status().Patch(ctx, s.app, client.MergeFrom(old)); err != nil {
			return ctrl.Result{}, client.IgnoreNotFound(err)
		}
	}
	return ctrl.Result{RequeueAfter: s.wait()}, nil
}

func (s *scope) fail(reason string, err error) {
	if s.problem == nil {
		s.problem = &problem{reason: reason, err: err}
	}
}

// wait is until the next look: when a capture is due, else soon.
func (s *scope) wait() time.Duration {
	if s.again != nil {
		return max(s.again.Sub(s.now), time.Millisecond)
	}
	if s.next != nil {
		if until := s.next.Sub(s.now); until > 0 && until < standEvery {
			return until
		}
	}
	return standEvery
}

func (r *Reconciler) forget(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := r.known[key]; m != nil {
		measure.ForgetApplication(m.vaultName)
	}
	delete(r.known, key)
}

// gather reads the policy, the points and the vault.
func (r *Reconciler) gather(ctx context.Context, s *scope) error {
	s.memory.vaultName = s.app.VaultName()
	if name := s.app.Spec.Policy; name != "" {
		s.policy = &v1alpha1.ProtectionPolicy{}
		key := client.ObjectKey{Namespace: s.app.Namespace, Name: name}
		err := r.Client.Get(ctx, key, s.policy)
		if apierrors.IsNotFound(err) { // made just before the application, it may be on its way into the cache
			err = r.Reader.Get(ctx, key, s.policy)
		}
		if apierrors.IsNotFound(err) {
			s.policy = nil
			s.fail(v1alpha1.ReasonInvalid, fmt.Errorf("ProtectionPolicy %s/%s is missing: create it, or name another", s.app.Namespace, name))
		} else if err != nil {
			return err
		}
	}
	var points v1alpha1.RecoveryPointList
	err := r.Client.List(ctx, &points, client.InNamespace(s.app.Namespace), client.UnsafeDisableDeepCopy)
	if err != nil {
		return err
	}
	s.points = slices.DeleteFunc(points.Items, func(p v1alpha1.RecoveryPoint) bool { return p.Spec.Application != s.app.Name })
	return nil
}

// stand asks the vault who may write, and claims the first epoch if nobody
// ever did, for an application that can be protected. Without an answer the role stays what it was: silence never fences.
func (r *Reconciler) stand(ctx context.Context, s *scope) error {
	ctx, cancel := context.WithTimeout(ctx, standTimeout)
	defer cancel()
	var err error
	if s.protector, err = r.Vaults.Protector(ctx, s.app.Spec.Vault); err != nil {
		s.unanswered(err)
		return nil
	}
	st := &s.app.Status
	invalid := s.protector.Preflight(s.app)
	if invalid != nil {
		s.fail(v1alpha1.ReasonInvalid, invalid)
	}
	// Where an epoch was heard of that is another's, the first was claimed long ago,
	// whatever is left of it in the vault.
	if first := st.Epoch == 0 || st.Role == v1alpha1.RoleActive; first && invalid == nil {
		s.standing, err = s.protector.ClaimFirst(ctx, s.app.VaultName(), "agent of "+r.Site)
	} else {
		s.standing, err = s.protector.Standing(ctx, s.app.VaultName())
	}
	if errors.Is(err, lease.ErrNameTaken) { // the standing is known all the same
		s.fail(reasonOf(err), err)
	} else if err != nil {
		s.unanswered(err)
		return nil
	}
	if err := s.wentBack(); err != nil {
		s.standing = protection.Standing{} // an answer that is older than what was heard is none
		s.fail(reasonOf(err), err)
		return nil
	}
	st.Role, st.Epoch, st.EpochSite = s.standing.Role, s.standing.Current.Number, s.standing.Current.Claim.Site
	st.HeldEpoch = s.standing.Held
	return r.named(ctx, s)
}

// wentBack says that the vault knows less of the application's epochs than it did, and
// would have this site change its role for it. A site that was superseded must not
// believe itself to be the writer because somebody deleted a number, or put an older
// state of the vault back. Where the vault was changed on purpose, for another, whoever
// writes goes on to, and claims there.
func (s *scope) wentBack() error {
	st, now := &s.app.Status, s.standing.Current.Number
	if now >= st.Epoch || s.standing.Role == st.Role || st.Role != v1alpha1.RoleActive && st.Role != v1alpha1.RoleSuperseded {
		return nil
	}
	return fmt.Errorf("%w: the vault's newest epoch of %s is %d, and %d, of site %s, was heard of here: epochs were deleted, or an older state of the vault was put back. "+
		"This site stays %s, and captures nothing. Bring the newer epochs back; if what the vault says now is to count, take the application out of protection here and protect it anew",
		vault.ErrDamaged, s.app.VaultName(), now, st.Epoch, st.EpochSite, st.Role)
}

// named finds out whether another cluster bears this site's name in the vault:
// nothing is captured here then.
func (r *Reconciler) named(ctx context.Context, s *scope) error {
	if s.standing.Role != v1alpha1.RoleActive || s.now.Sub(s.memory.named) < nameEvery {
		return nil
	}
	if err := s.protector.CheckName(ctx); err != nil {
		s.fail(reasonOf(err), err)
		return nil
	}
	s.memory.named = s.now
	return nil
}

// holder names for people who holds the newest epoch.
func (s *scope) holder() string {
	if s.protector == nil || s.standing.Current.Number == 0 { // it was read at another time
		return "site " + s.app.Status.EpochSite
	}
	return s.protector.Holder(s.standing)
}

// unanswered notes that the vault said nothing about the application's epoch.
func (s *scope) unanswered(err error) {
	if s.app.Status.Role == "" {
		s.app.Status.Role = v1alpha1.RoleUnknown
	}
	s.fail(reasonOf(err), err)
}

// fence stops a superseded application here, again and again, for controllers
// and people may start it again.
func (r *Reconciler) fence(ctx context.Context, s *scope) error {
	if s.standing.Role != v1alpha1.RoleSuperseded {
		if s.standing.Current.Number > 0 { // the vault answered: nothing is fenced
			s.app.Status.Fence = nil
		}
		return nil
	}
	s.problem = nil // that it must not run here is worse than whatever else is wrong
	others, err := r.others(ctx)
	if err != nil {
		// Better to stop too much than to let two sites write.
		log.FromContext(ctx).Error(err, "other applications not listed")
	}
	missing, unheard := r.unproven(ctx, s) // before the look, which then sees all that ran until nodes gave their word
	f := fencer{client: r.Client, reader: r.Reader, now: r.Now}
	done, err := f.fence(ctx, s.app, others)
	s.rest(done, err)
	for _, what := range done.stopped {
		r.Events.Eventf(s.app, corev1.EventTypeWarning, v1alpha1.ReasonSuperseded, "stopped %s: %s holds epoch %d", what, s.holder(), s.app.Status.Epoch)
	}
	r.level(s, missing, unheard, err)
	led := r.withdraw(ctx, s)
	if err != nil {
		log.FromContext(ctx).Error(err, "fence incomplete")
		s.fail(v1alpha1.ReasonSuperseded, fmt.Errorf("%s holds epoch %d, and not everything could be stopped here: %w%s", s.holder(), s.app.Status.Epoch, err, led))
		return nil
	}
	spared := ""
	if len(done.spared) > 0 {
		spared = ", except what this site may write: " + strings.Join(done.spared, "; ")
	}
	s.fail(v1alpha1.ReasonSuperseded, fmt.Errorf("%s holds epoch %d: the application is stopped here%s (fence: %s), and nothing is captured%s", s.holder(), s.app.Status.Epoch, spared, s.fenceText(), led))
	return nil
}

// withdraw takes this site out of what its external-dns publishes. That the application
// is stopped waits for none of it. It says what went wrong, for people.
func (r *Reconciler) withdraw(ctx context.Context, s *scope) (led string) {
	if r.Names == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, standTimeout)
	defer cancel()
	done, err := endpoints.Withdraw(ctx, r.Names, map[string]int64{s.app.VaultName(): s.app.Status.Epoch})
	for _, name := range done {
		r.Events.Eventf(s.app, corev1.EventTypeWarning, v1alpha1.ReasonSuperseded, "emptied DNSEndpoint %s: %s holds epoch %d", name, s.holder(), s.app.Status.Epoch)
	}
	if err != nil {
		return fmt.Sprintf("; external-dns may lead clients here: %v", err)
	}
	return ""
}

// others are all Applications of the site.
func (r *Reconciler) others(ctx context.Context) ([]v1alpha1.Application, error) {
	var all v1alpha1.ApplicationList
	if err := r.Client.List(ctx, &all); err != nil {
		return nil, fmt.Errorf("list applications: %w", err)
	}
	return all.Items, nil
}

// announce makes events of what changed.
func (r *Reconciler) announce(old *v1alpha1.Application, s *scope) {
	if old.Status.Role != s.app.Status.Role && old.Status.Role != "" {
		r.Events.Eventf(s.app, corev1.EventTypeNormal, "RoleChanged", "role is %s, was %s; epoch %d is of site %s", s.app.Status.Role, old.Status.Role, s.app.Status.Epoch, s.app.Status.EpochSite)
	}
}

var errNoPoint = errors.New("no recovery point that may be offered yet")

func metaTime(t time.Time) *metav1.Time { return &metav1.Time{Time: t.Truncate(time.Second)} }

// active says whether a point is being made. One that is finished may have yet to be pinned.
func active(rp *v1alpha1.RecoveryPoint) bool {
	fromVault := rp.Annotations[project.AnnotationFromVault] != ""
	return rp.DeletionTimestamp.IsZero() && !fromVault && rp.Status.FinishedAt == nil &&
		(rp.Status.Phase == "" || rp.Status.Phase == v1alpha1.PointPending || rp.Status.Phase == v1alpha1.PointCapturing)
}
