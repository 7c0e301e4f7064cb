package restore

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/restore/shape"
)

// ErrBusy says that another restore of the application runs at the target.
var ErrBusy = errors.New("another restore of this application runs here")

// errLeaseLost ends a restore whose lease someone else took.
var errLeaseLost = errors.New("lost the restore's lease: another restore of this application has taken over")

// Times of the lease.
const (
	leaseDuration = 15 * time.Second
	leaseRenew    = 3 * time.Second
	leaseLook     = time.Second
	microTime     = "2006-01-02T15:04:05.000000Z07:00"
)

// hold takes the application's lease at the target and keeps it. The returned
// context ends when the lease is lost; release gives it back.
//
// Whether another holder lives is judged by watching it renew, on this
// process's own clock, so that the clocks of two machines need not agree: a
// restore that was killed can be continued after leaseDuration.
func (e *Engine) hold(ctx context.Context) (held context.Context, release func(), err error) {
	at, err := e.served(ctx, shape.KindLease)
	if err != nil {
		return nil, nil, fmt.Errorf("hold restore lease: %w", err)
	}
	l := &holding{e: e, at: at, name: "restore-" + e.m.Application}
	if err := l.take(ctx); err != nil {
		return nil, nil, fmt.Errorf("hold restore lease: %w", err)
	}
	held, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.renew(held, cancel)
	}()
	return held, func() {
		cancel(context.Canceled)
		<-done
		l.release(ctx)
	}, nil
}

type holding struct {
	e       *Engine
	at      Served
	name    string
	current *unstructured.Unstructured
}

func (l *holding) spec() shape.Document {
	now := l.e.clock.Now().UTC().Format(microTime)
	return shape.Document{
		"holderIdentity": l.e.opts.Holder, "leaseDurationSeconds": int64(leaseDuration / time.Second),
		"acquireTime": now, "renewTime": now,
	}
}

// take gets the lease, waiting as long as it takes to know that a former
// holder is dead. A living one gives ErrBusy.
func (l *holding) take(ctx context.Context) error {
	seen, since := "", time.Time{}
	for {
		live, err := l.e.cluster.Get(ctx, l.at, l.e.opts.LeaseNamespace, l.name)
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
		now := l.e.clock.Now()
		switch version := live.GetResourceVersion(); {
		case seen == "":
			seen, since = version, now
		case seen != version && holder != "":
			return fmt.Errorf("%w: %s holds it: wait for it to end, or stop it", ErrBusy, holder)
		}
		if holder == "" || now.Sub(since) >= leaseDuration {
			if done, err := l.replace(ctx, live); done || err != nil {
				return err
			}
			continue
		}
		l.e.progress.Note("waiting to see whether the restore held by " + holder + " is still alive")
		if err := l.e.clock.Sleep(ctx, leaseLook); err != nil {
			return err
		}
	}
}

// create makes the lease, and its namespace when there is none.
func (l *holding) create(ctx context.Context) (done bool, err error) {
	obj := &unstructured.Unstructured{Object: shape.Document{
		"apiVersion": l.at.GVK.GroupVersion().String(), "kind": l.at.GVK.Kind,
		"metadata": shape.Document{
			"name": l.name, "namespace": l.e.opts.LeaseNamespace,
			"labels": shape.Document{shape.LabelManagedBy: "davit"},
		},
		"spec": l.spec(),
	}}
	l.current, err = l.e.cluster.Create(ctx, l.at, obj)
	switch {
	case apierrors.IsAlreadyExists(err):
		return false, nil
	case apierrors.IsNotFound(err):
		return false, l.e.createNamespace(ctx, l.e.opts.LeaseNamespace, shape.Document{shape.LabelManagedBy: "davit"})
	}
	return err == nil, err
}

// replace takes a lease whose holder is gone; the resource version lets only
// one of several succeed.
func (l *holding) replace(ctx context.Context, live *unstructured.Unstructured) (done bool, err error) {
	live.Object["spec"] = l.spec()
	l.current, err = l.e.cluster.Update(ctx, l.at, live, "")
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// renew keeps the lease until ctx ends, and ends it when the lease is lost or
// could not be renewed for so long that another may take it.
func (l *holding) renew(ctx context.Context, lost context.CancelCauseFunc) {
	last := l.e.clock.Now()
	for l.e.clock.Sleep(ctx, leaseRenew) == nil {
		before := l.e.clock.Now()
		shape.Child(l.current.Object, "spec")["renewTime"] = before.UTC().Format(microTime)
		call, cancel := context.WithTimeout(ctx, leaseRenew)
		got, err := l.e.bare.Update(call, l.at, l.current, "")
		cancel()
		switch {
		case err == nil:
			l.current, last = got, before
		case apierrors.IsConflict(err) && l.stillOurs(ctx):
			last = before // an update whose answer was lost
		case apierrors.IsConflict(err), apierrors.IsNotFound(err):
			lost(errLeaseLost)
			return
		case l.e.clock.Now().Sub(last) > leaseDuration-leaseRenew-leaseLook:
			lost(fmt.Errorf("%w: not renewed: %w", errLeaseLost, err))
			return
		}
	}
}

// stillOurs looks whether the lease is as this process wrote it, and takes
// over its resource version.
func (l *holding) stillOurs(ctx context.Context) bool {
	call, cancel := context.WithTimeout(ctx, leaseRenew)
	defer cancel()
	live, err := l.e.bare.Get(call, l.at, l.e.opts.LeaseNamespace, l.name)
	if err != nil {
		return false
	}
	for _, field := range []string{"holderIdentity", "acquireTime"} {
		if shape.Text(live.Object, "spec", field) != shape.Text(l.current.Object, "spec", field) {
			return false
		}
	}
	l.current = live
	return true
}

// release empties the lease, so that the next restore need not wait.
func (l *holding) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseRenew)
	defer cancel()
	shape.Child(l.current.Object, "spec")["holderIdentity"] = ""
	if _, err := l.e.bare.Update(ctx, l.at, l.current, ""); err != nil {
		l.e.log.Debug("restore lease not released, it expires", "error", err)
	}
}
