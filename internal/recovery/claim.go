package recovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/fence"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/promise/hold"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/vault"
)

// returned is the newest epoch of this site's own of which a run told its nodes that it gives it back.
// Where that run ended before it did, the epoch is the site's still, and nothing runs under it: to run here
// again takes the next one. Whoever may not look finds none.
func (r *recovery) returned(ctx context.Context) (int64, error) {
	own := cmp.Or(r.deps.Own, r.deps.Cluster)
	served, err := own.Serves(ctx, schema.GroupKind{Group: v1alpha1.GroupVersion.Group, Kind: "Application"})
	if errors.Is(err, restore.ErrNotServed) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	newest := int64(0)
	for _, at := range objectsOf(r.opts.Application) {
		live, err := own.Get(ctx, served[0], at.Namespace, at.Name)
		if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("read Application %s: %w", at, err)
		}
		n, _ := strconv.ParseInt(live.GetAnnotations()[fence.AnnotationReturned], 10, 64) // what is no number was not written by a run
		newest = max(newest, n)
	}
	return newest, nil
}

// hold keeps this site from promising those who held the application that it stays passive, before it claims: where
// one of them goes by such promises.
func (r *recovery) hold(ctx context.Context, history []lease.Epoch, next int64) error {
	if !slices.ContainsFunc(history, func(e lease.Epoch) bool { return e.Claim.Terms != nil && len(e.Claim.Terms.Peers) > 0 }) {
		return nil
	}
	err := hold.Raise(ctx, cmp.Or(r.deps.Own, r.deps.Cluster), r.deps.Project.KeyID(), map[string]int64{r.opts.Application: next})
	if err != nil {
		return fmt.Errorf("hold %s here before it is taken over, as another site may run it on this one's promise: %w", r.opts.Application, err)
	}
	return nil
}

// Claiming is a claim of an application's epoch by a run, or its return.
type Claiming struct {
	Project     *vault.Project
	Application string
	Number      int64
	// Self is whom the epoch is for.
	Self lease.Identity
	// Holder is who acts, for people.
	Holder, Reason string
	// Request names the attempt: see lease.Claim.
	Request string
	Terms   *lease.Terms
	At      time.Time
	// Disowns, unless zero, is the epoch from which on points are not accepted: the site goes on
	// without what was done under it.
	Disowns int64
}

// Claim writes the epoch, with the points that are good at this moment as those
// that it accepts. Claiming again with the same request is as good as once.
func Claim(ctx context.Context, c Claiming) (lease.Epoch, error) {
	known, err := readCatalog(ctx, c.Project, c.Application)
	if err != nil {
		return lease.Epoch{}, err
	}
	points := known.points
	if c.Disowns > 0 {
		points = slices.DeleteFunc(slices.Clone(points), func(p point.Point) bool { return p.Epoch >= c.Disowns })
	}
	return lease.New(c.Project).Claim(ctx, c.Application, c.Number, lease.Claim{
		Site: c.Self.Site, Cluster: c.Self.Cluster, Holder: c.Holder, Reason: c.Reason, At: c.At, Terms: c.Terms,
		Accepted: point.Accepted(points, lease.Summaries(known.history)), Request: c.Request,
	})
}

// GiveBack writes the number after a run's claim for the site that held the
// epoch before, or that number itself where the claim never arrived: a late put
// of it finds its number taken. Points that were captured under the claim are not accepted: they are
// of what the run is taken back with. request is the claim's; the return's own is
// c.Request. It returns a *lease.SupersededError when somebody else holds a
// newer epoch: there is nothing to give back.
func GiveBack(ctx context.Context, c Claiming, request string) (lease.Epoch, error) {
	for {
		current, err := lease.New(c.Project).Current(ctx, c.Application)
		if err != nil {
			return lease.Epoch{}, err
		}
		number := c.Number
		switch {
		case current.Claim.Request == c.Request:
			return current, nil
		case current.Number == c.Number && current.Claim.Request == request:
			number = c.Number + 1
		case current.Number >= c.Number:
			return lease.Epoch{}, &lease.SupersededError{Application: c.Application, Held: c.Number, Current: current}
		}
		next := c
		next.Number, next.Disowns = number, c.Number // who gets it back has nothing of what the run did
		epoch, err := Claim(ctx, next)
		if errors.Is(err, lease.ErrLost) && number == c.Number {
			continue // the claim itself arrived meanwhile
		}
		if err != nil {
			return epoch, fmt.Errorf("give back epoch %d of %s: %w", c.Number, c.Application, err)
		}
		return epoch, nil
	}
}
