// Package hold keeps two restores of one application at one target apart, by a
// Lease there, and remembers in it which attempt of a restore is under way.
package hold

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/shape"
)

// ErrBusy says that another restore of the application runs at the target.
var ErrBusy = errors.New("another restore of this application runs here")

// ErrLost ends a restore whose lease someone else took.
var ErrLost = errors.New("lost the restore's lease: another restore of this application has taken over")

// AnnotationAttempt of the lease is the restore's attempt: its id and when it
// began, until it ends whole. A restore that is given again after it was
// killed continues its attempt; one that had ended whole begins another, and
// volumes that are rolled back are rolled back again.
const AnnotationAttempt = "davit.dev/attempt"

// Times of the lease. Duration is for how long a holder that shows no life keeps it.
const (
	Duration  = 15 * time.Second
	renew     = 3 * time.Second
	look      = time.Second
	microTime = "2006-01-02T15:04:05.000000Z07:00"
)

// Options say what is held, by whom, and through what.
type Options struct {
	Application string // its restores are kept apart
	Namespace   string // holds the lease
	// Name of the lease; empty: that of the application's restores.
	Name     string
	Vault    string // what it comes from; empty: nobody says
	ID       string // of the restore, the same when it is given again
	Again    string // names the order that has it begin anew, whatever did not end whole; empty: it goes on
	Holder   string // for people
	Cluster  port.Cluster
	Bare     port.Cluster // does not try again: renewing has its own time
	Clock    port.Clock
	Progress port.Progress
	Log      *slog.Logger
	// Also says, besides the lease, why its holder may go on no more; nil: nothing does. See Still.
	Also func(ctx context.Context) error
	// MakeNamespace makes the lease's namespace unless it is there.
	MakeNamespace func(ctx context.Context, name string) error
}

// Hold is a lease that is held.
type Hold struct {
	o       Options
	at      port.Served
	name    string
	attempt string
	current *unstructured.Unstructured
	taken   map[string]string // what the lease says as long as it is held
	end     context.CancelCauseFunc
	done    chan struct{}
}

// Take takes the application's lease at the target and keeps it. The returned
// context ends when the lease is lost; Release gives it back.
//
// Whether another holder lives is judged by watching it renew, on this
// process's own clock, so that the clocks of two machines need not agree: a
// restore that was killed can be continued after 15 s.
func Take(ctx context.Context, o Options) (context.Context, *Hold, error) {
	served, err := o.Cluster.Serves(ctx, shape.KindLease)
	if err != nil {
		return nil, nil, fmt.Errorf("hold restore lease: %w", err)
	}
	if o.Name == "" {
		o.Name = nameFor(o.Application)
	}
	l := &Hold{o: o, at: served[0], name: o.Name, done: make(chan struct{})}
	if err := l.take(ctx); err != nil {
		return nil, nil, fmt.Errorf("hold restore lease: %w", err)
	}
	l.attempt = l.current.GetAnnotations()[AnnotationAttempt]
	l.taken = map[string]string{}
	for _, field := range ours {
		l.taken[field] = shape.Text(l.current.Object, "spec", field)
	}
	held, cancel := context.WithCancelCause(context.WithValue(ctx, key{}, l))
	l.end = cancel
	go func() {
		defer close(l.done)
		l.renew(held)
	}()
	return held, l, nil
}

func nameFor(application string) string { return "restore-" + application }

// Attempted is the attempt that the application's lease holds, as a restore of it runs, or did not
// end whole and may be given again; empty where there is none.
func Attempted(ctx context.Context, c port.Cluster, namespace, application string) (string, error) {
	served, err := c.Serves(ctx, shape.KindLease)
	if err != nil {
		return "", err
	}
	live, err := c.Get(ctx, served[0], namespace, nameFor(application))
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return live.GetAnnotations()[AnnotationAttempt], nil
}

// Standing is the attempt that Take would go on with; empty where it would begin another, or the
// caller may not know.
func Standing(ctx context.Context, o Options) string {
	attempt, err := Attempted(ctx, o.Cluster, o.Namespace, o.Application)
	if err != nil || !of(attempt, o.ID) || o.Again != "" && attempt != o.ID+"-"+o.Again {
		return ""
	}
	return attempt
}

// of tells whether an attempt is of a restore.
func of(attempt, id string) bool { return strings.HasPrefix(attempt, id+"-") }

// ours are the fields that say who took a lease, and when.
var ours = []string{"holderIdentity", "acquireTime"}

// key is that of the hold in contexts.
type key struct{}

// Still asks whether the lease that ctx is of is held still, and whether what Also asks holds, and returns ErrLost if
// another has it: ctx ends with the lease, but a process that stood still may go on for a moment
// before it hears of that. A context that is of no lease has nothing to lose.
func Still(ctx context.Context) error {
	l, is := ctx.Value(key{}).(*Hold)
	if !is {
		return nil
	}
	live, err := l.o.Cluster.Get(ctx, l.at, l.o.Namespace, l.name)
	if apierrors.IsNotFound(err) {
		return ErrLost
	}
	if err != nil {
		return fmt.Errorf("look whether the restore's lease is still held: %w", err)
	}
	for _, field := range ours {
		if shape.Text(live.Object, "spec", field) != l.taken[field] {
			return ErrLost
		}
	}
	if l.o.Also != nil {
		return l.o.Also(ctx)
	}
	return nil
}

// Denied names what of taking a lease in the namespace the caller may not do;
// "" when nothing is missing.
func Denied(ctx context.Context, c port.Cluster, namespace string) (string, error) {
	served, err := c.Serves(ctx, shape.KindLease)
	if err != nil {
		return "", err
	}
	for _, verb := range []string{"get", "create", "update"} {
		ok, reason, err := c.May(ctx, verb, served[0], namespace)
		if err != nil {
			return "", err
		}
		if !ok {
			if reason != "" {
				reason = " (" + reason + ")"
			}
			return fmt.Sprintf("%s leases in namespace %s%s", verb, namespace, reason), nil
		}
	}
	return "", nil
}

func (l *Hold) spec() shape.Document {
	now := l.o.Clock.Now().UTC().Format(microTime)
	return shape.Document{
		"holderIdentity": l.o.Holder, "leaseDurationSeconds": int64(Duration / time.Second),
		"acquireTime": now, "renewTime": now,
	}
}

// Attempt names what is under way: see AnnotationAttempt.
func (l *Hold) Attempt() string { return l.attempt }

// attemptAfter is the one that was not ended, or a new one.
func (l *Hold) attemptAfter(before string) string {
	anew := l.o.ID + "-" + cmp.Or(l.o.Again, strconv.FormatInt(l.o.Clock.Now().UnixNano(), 36))
	if of(before, l.o.ID) && (l.o.Again == "" || before == anew) {
		return before
	}
	return anew
}

// take gets the lease, waiting as long as it takes to know that a former
// holder is dead. A living one gives ErrBusy.
func (l *Hold) take(ctx context.Context) error {
	seen, since := "", time.Time{}
	for {
		live, err := l.o.Cluster.Get(ctx, l.at, l.o.Namespace, l.name)
		switch {
		case apierrors.IsNotFound(err):
			if done, err := l.create(ctx); done || err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		}
		holder := shape.Text(live.Object, "spec", "holderIdentity")
		now := l.o.Clock.Now()
		switch version := live.GetResourceVersion(); {
		case seen == "":
			seen, since = version, now
		case seen != version && holder != "":
			return fmt.Errorf("%w: %s holds it: wait for it to end, or stop it", ErrBusy, holder)
		}
		if holder == "" || now.Sub(since) >= Duration {
			if done, err := l.replace(ctx, live); done || err != nil {
				return err
			}
			continue
		}
		l.o.Progress.Note("waiting to see whether the restore held by " + holder + " is still alive")
		if err := l.o.Clock.Sleep(ctx, look); err != nil {
			return err
		}
	}
}

// create makes the lease, and its namespace when there is none.
func (l *Hold) create(ctx context.Context) (done bool, err error) {
	labels := shape.Document{shape.LabelManagedBy: "davit"}
	shape.OfVault(labels, l.o.Vault)
	obj := &unstructured.Unstructured{Object: shape.Document{
		"apiVersion": l.at.GVK.GroupVersion().String(), "kind": l.at.GVK.Kind,
		"metadata": shape.Document{
			"name": l.name, "namespace": l.o.Namespace,
			"labels":      labels,
			"annotations": shape.Document{AnnotationAttempt: l.attemptAfter("")},
		},
		"spec": l.spec(),
	}}
	l.current, err = l.o.Cluster.Create(ctx, l.at, obj)
	switch {
	case apierrors.IsAlreadyExists(err):
		return l.written(ctx, obj), nil
	case apierrors.IsNotFound(err):
		return false, l.o.MakeNamespace(ctx, l.o.Namespace)
	}
	return err == nil, err
}

// replace takes a lease whose holder is gone; the resource version lets only
// one of several succeed.
func (l *Hold) replace(ctx context.Context, live *unstructured.Unstructured) (done bool, err error) {
	live.Object["spec"] = l.spec()
	annotations := live.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[AnnotationAttempt] = l.attemptAfter(annotations[AnnotationAttempt])
	live.SetAnnotations(annotations)
	if labels := shape.Child(live.Object, "metadata", "labels"); labels != nil {
		shape.OfVault(labels, l.o.Vault)
	}
	l.current, err = l.o.Cluster.Update(ctx, l.at, live, "")
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return l.written(ctx, live), nil
	}
	return err == nil, err
}

// written tells whether the lease is as it was sent: of a try whose answer was lost,
// the next one hears only that somebody was first.
func (l *Hold) written(ctx context.Context, sent *unstructured.Unstructured) bool {
	live := l.stillOurs(ctx, sent)
	if live != nil {
		l.current = live
	}
	return live != nil
}

// renew keeps the lease until ctx ends, and ends it when the lease is lost or
// could not be renewed for so long that another may take it.
func (l *Hold) renew(ctx context.Context) {
	last := l.o.Clock.Now()
	current := l.current.DeepCopy()
	defer func() { l.current = current }() // Release reads it when this is over
	for l.o.Clock.Sleep(ctx, renew) == nil {
		before := l.o.Clock.Now()
		shape.Child(current.Object, "spec")["renewTime"] = before.UTC().Format(microTime)
		call, cancel := context.WithTimeout(ctx, renew)
		got, err := l.o.Bare.Update(call, l.at, current, "")
		cancel()
		if err == nil {
			current, last = got, before
			continue
		}
		if apierrors.IsConflict(err) {
			if live := l.stillOurs(ctx, current); live != nil {
				current, last = live, before // an update whose answer was lost
				continue
			}
		}
		switch {
		case apierrors.IsConflict(err), apierrors.IsNotFound(err):
			l.end(ErrLost)
			return
		case l.o.Clock.Now().Sub(last) > Duration-renew-look:
			l.end(fmt.Errorf("%w: not renewed: %w", ErrLost, err))
			return
		}
	}
}

// stillOurs returns the lease if it is as this process wrote it.
func (l *Hold) stillOurs(ctx context.Context, current *unstructured.Unstructured) *unstructured.Unstructured {
	call, cancel := context.WithTimeout(ctx, renew)
	defer cancel()
	live, err := l.o.Bare.Get(call, l.at, l.o.Namespace, l.name)
	if err != nil || !same(live, current) {
		return nil
	}
	return live
}

// same tells whether two states of the lease are of one taking.
func same(a, b *unstructured.Unstructured) bool {
	return !slices.ContainsFunc(ours, func(field string) bool {
		return shape.Text(a.Object, "spec", field) != shape.Text(b.Object, "spec", field)
	})
}

// Release empties the lease, so that the next restore need not wait. whole
// says that nothing is left to continue: the same restore, given again, begins
// anew, and for that to be known more time is taken.
func (l *Hold) Release(ctx context.Context, whole bool) {
	l.end(context.Canceled)
	<-l.done
	patience, level := renew, slog.LevelDebug
	if whole {
		patience, level = Duration, slog.LevelWarn
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if err := l.release(ctx, whole); err != nil {
		l.o.Log.Log(ctx, level, "restore lease not released, it expires; the same restore, given again, goes on with what this one did", "error", err)
	}
}

// release looks again when it finds the lease changed: a renewal that was broken off may
// have arrived after all.
func (l *Hold) release(ctx context.Context, whole bool) (err error) {
	for live := l.current; ; {
		free := live.DeepCopy()
		shape.Child(free.Object, "spec")["holderIdentity"] = ""
		if whole {
			annotations := free.GetAnnotations()
			delete(annotations, AnnotationAttempt)
			free.SetAnnotations(annotations)
		}
		if _, err = l.o.Cluster.Update(ctx, l.at, free, ""); !apierrors.IsConflict(err) {
			return err
		}
		if live, err = l.o.Cluster.Get(ctx, l.at, l.o.Namespace, l.name); err != nil {
			return err
		}
		if !same(live, l.current) {
			return nil // another's by now, or given back by a try whose answer was lost
		}
	}
}
