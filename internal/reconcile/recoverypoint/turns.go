package recoverypoint

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/reconcile/project"
)

const (
	// askAgain is how often one that waits for its turn asks.
	askAgain = time.Second
	// forgotten is after how long without asking one has left the queue.
	forgotten = 10 * time.Second
	// patience is how long a capture keeps its slot from others. One that takes longer
	// waits, as a rule, for something that is not this process: a hook, a snapshot, a node
	// that reads a large volume. While its objects are written it keeps it: they take memory here, and
	// what is slow then is the vault.
	patience = time.Minute
)

// claim is one capture that waits for its turn.
type claim struct {
	key    client.ObjectKey
	app    client.ObjectKey
	manual bool      // a person waits for it
	due    time.Time // when the application's objective is, or was, missed
	seen   time.Time // when it last asked
}

// before is the order of turns: what a person asked for, then what is overdue
// the longest.
func (c claim) before(d claim) bool {
	if c.manual != d.manual {
		return c.manual
	}
	return cmp.Or(c.due.Compare(d.due), cmp.Compare(c.key.String(), d.key.String())) < 0
}

// turns lets so many captures run at a time, one of each application, the most
// urgent first. Those that wait ask again: nothing is held for them. Captures that
// run for longer than patience, so many of them, take no slot any more: a few that
// hang would keep all other applications from being captured until they end.
type turns struct {
	slots, long int
	now         func() time.Time

	mu      sync.Mutex
	running map[client.ObjectKey]*turn // by application
	waiting map[client.ObjectKey]claim
}

// turn is one capture that runs.
type turn struct {
	since   time.Time
	objects bool // are being written
}

func newTurns(slots, long int, now func() time.Time) *turns {
	return &turns{slots: slots, long: long, now: now, running: map[client.ObjectKey]*turn{}, waiting: map[client.ObjectKey]claim{}}
}

// take gives the claim its turn, or says how many go before it. Whoever got a
// turn gives it back with release.
func (t *turns) take(c claim) (ok bool, ahead int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	c.seen = now
	t.waiting[c.key] = c
	for key, w := range t.waiting {
		if now.Sub(w.seen) > forgotten {
			delete(t.waiting, key)
			continue
		}
		if key != c.key && t.running[w.app] == nil && w.before(c) {
			ahead++
		}
	}
	if t.running[c.app] != nil || t.taken(now)+ahead >= t.slots {
		return false, ahead
	}
	delete(t.waiting, c.key)
	t.running[c.app] = &turn{since: now}
	return true, 0
}

// taken is how many slots are.
func (t *turns) taken(now time.Time) int {
	long := 0
	for _, one := range t.running {
		if now.Sub(one.since) >= patience && !one.objects {
			long++
		}
	}
	return len(t.running) - min(long, t.long)
}

// writing notes that an application's capture writes its objects, or does no more.
func (t *turns) writing(app client.ObjectKey, objects bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if one := t.running[app]; one != nil {
		one.objects = objects
	}
}

func (t *turns) release(c claim) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.running, c.app)
}

// claimOf says how urgent a capture is. An application is due an objective, or
// an interval, after its newest point; one without a point since it was made.
func claimOf(rp *v1alpha1.RecoveryPoint, app *v1alpha1.Application, policy *v1alpha1.ProtectionPolicy) claim {
	c := claim{
		key: client.ObjectKeyFromObject(rp), app: client.ObjectKey{Namespace: rp.Namespace, Name: rp.Spec.Application},
		manual: rp.Spec.Trigger != v1alpha1.TriggerSchedule, due: app.CreationTimestamp.Time,
	}
	if c.manual {
		c.due = rp.CreationTimestamp.Time
		return c
	}
	if app.Status.NewestInstant != nil {
		c.due = app.Status.NewestInstant.Time
		switch spec := policy.Spec; {
		case spec.Objectives.RPO != nil:
			c.due = c.due.Add(spec.Objectives.RPO.Duration)
		case spec.Schedule.Every != nil:
			c.due = c.due.Add(spec.Schedule.Every.Duration)
		}
	}
	return c
}

// turn waits for nothing: it returns how to end the object's turn, or nil when
// others go first. Objects that ask for no new capture need none.
func (r *Reconciler) turn(ctx context.Context, rp *v1alpha1.RecoveryPoint) (release func(), err error) {
	fromVault := rp.Annotations[project.AnnotationFromVault] != ""
	if rp.Status.Phase == v1alpha1.PointCapturing || fromVault || !rp.DeletionTimestamp.IsZero() {
		return func() {}, nil
	}
	var app v1alpha1.Application
	var policy v1alpha1.ProtectionPolicy
	key := client.ObjectKey{Namespace: rp.Namespace, Name: rp.Spec.Application}
	switch err := r.Client.Get(ctx, key, &app); {
	case apierrors.IsNotFound(err):
		return func() {}, nil // the capture says so
	case err != nil:
		return nil, fmt.Errorf("read Application %s: %w", key, err)
	}
	if key.Name = app.Spec.Policy; key.Name != "" {
		if err := client.IgnoreNotFound(r.Client.Get(ctx, key, &policy)); err != nil {
			return nil, fmt.Errorf("read ProtectionPolicy %s: %w", key, err)
		}
	}
	c := claimOf(rp, &app, &policy)
	if ok, _ := r.turns.take(c); ok {
		return func() { r.turns.release(c) }, nil
	}
	const waiting = "waiting for its turn: the most overdue applications go first"
	if rp.Status.Step == waiting {
		return nil, nil
	}
	err = r.write(ctx, rp, func(st *v1alpha1.RecoveryPointStatus) { st.Phase, st.Step = v1alpha1.PointPending, waiting })
	return nil, client.IgnoreNotFound(err)
}
