package capture

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/point"
)

// claims lists the claims whose data is captured, at a revision.
func (r *run) claims(ctx context.Context, revision string) ([]Claim, error) {
	k := r.claimKind()
	wanted := wantKind(k, r.spec.Filter) || !r.spec.Select.Whole() && !r.spec.Filter.excludes(k.Resource, k.Group)
	if r.spec.Mode == ModeNone || !wanted {
		return nil, nil
	}
	var claims []Claim
	var errs []error
	for _, ns := range r.spec.Namespaces {
		q := Query{Kind: k, Namespace: ns, Revision: revision}
		err := r.list(ctx, q, func(o *unstructured.Unstructured) error {
			kept, lingers := judge(q.Kind, o).keep, r.lingers(o)
			if !kept && !lingers || !r.wantsClaim(o) {
				return nil
			}
			c := claimOf(o)
			if !r.spec.Volumes.Wants(c.Namespace, c.Name, c.StorageClass, o.GetLabels()) {
				if kept {
					r.leave(c.Key())
				}
				return nil
			}
			switch {
			case lingers && !r.looking:
				errs = append(errs, fmt.Errorf("claim %s is being deleted since %s, and waits for what still uses it: this point would lack its data, and others expire for it: end the pods that use it if it is to go, with kubectl delete pod --force if their node is lost; if it is not, make a new one with its data, as from the newest point; or label it %s=true",
					c.Key(), o.GetDeletionTimestamp().UTC().Format(time.RFC3339), LabelExclude))
			case !kept: // a look says so with its object
			case c.Phase == "Bound":
				claims = append(claims, c)
			case c.Phase == "Lost":
				if r.looking {
					r.warn(q.Kind.Name()+" "+c.Key(), "has lost its volume: its data is gone")
					return nil
				}
				errs = append(errs, fmt.Errorf("claim %s has lost its volume %s: its data is gone: delete the claim, or label it %s=true", c.Key(), c.Volume, LabelExclude))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return claims, errors.Join(errs...)
}

// A claim that is deleted while it is in use stays until that ends, and cannot be cut
// meanwhile. A point without its data is no good one; see checkNamespaces. goesWithin is
// how long claims take to go that nobody misses.
const (
	goesWithin = 2 * time.Minute
	inUse      = "kubernetes.io/pvc-protection" // a finalizer
)

// lingers tells whether a claim is in use although it was deleted long ago.
func (r *run) lingers(o *unstructured.Unstructured) bool {
	at := o.GetDeletionTimestamp()
	return at != nil && r.opts.Now().Sub(at.Time) > goesWithin && slices.Contains(o.GetFinalizers(), inUse) &&
		text(o.Object, "status", "phase") == "Bound" && !isLeftOut(o) && !controlledBy("Pod")(o)
}

func (r *run) claimKind() Kind {
	if k, ok := r.find(kindClaim.Name()); ok {
		return k
	}
	k := kindClaim
	k.Verbs = []string{"get", "list", "create"}
	return k
}

func claimOf(o *unstructured.Unstructured) Claim {
	c := Claim{
		Namespace: o.GetNamespace(), Name: o.GetName(), UID: string(o.GetUID()),
		StorageClass: text(o.Object, "spec", "storageClassName"),
		Volume:       text(o.Object, "spec", "volumeName"),
		Phase:        text(o.Object, "status", "phase"),
		BlockMode:    text(o.Object, "spec", "volumeMode") == "Block",
	}
	for _, path := range [][]string{{"status", "capacity", "storage"}, {"spec", "resources", "requests", "storage"}} {
		if q, err := resource.ParseQuantity(text(o.Object, path...)); err == nil && c.Capacity == 0 {
			c.Capacity = q.Value()
		}
	}
	return c
}

// plan decides how each claim will be captured. All that cannot be are named.
func (r *run) plan(ctx context.Context, claims []Claim) error {
	if len(claims) > 0 && r.ports.Volumes == nil {
		return fmt.Errorf("claim %s has data, and nothing here can capture it", claims[0].Key())
	}
	opts := VolumeOptions{Application: r.spec.Application, Point: r.spec.ID, Mode: r.spec.Mode, SnapshotClass: r.spec.SnapshotClass, ChangedBlocks: r.spec.ChangedBlocks}
	errs := make([]error, len(claims))
	var g errgroup.Group
	g.SetLimit(r.opts.Workers)
	for i, c := range claims {
		g.Go(func() error {
			p, err := r.planOne(ctx, c, opts)
			r.mu.Lock()
			defer r.mu.Unlock()
			r.plans[c.Key()], errs[i] = p, err
			return nil
		})
	}
	_ = g.Wait() // errors are in errs
	return errors.Join(errs...)
}

func (r *run) planOne(ctx context.Context, c Claim, opts VolumeOptions) (VolumePlan, error) {
	if c.BlockMode {
		return VolumePlan{}, fmt.Errorf("claim %s is a raw block device, which cannot be captured yet: label it %s=true to leave it out", c.Key(), LabelExclude)
	}
	p, err := r.ports.Volumes.Plan(ctx, c, opts)
	if err != nil {
		return VolumePlan{}, fmt.Errorf("plan volume %s: %w", c.Key(), err)
	}
	p.Claim, p.Options = c, opts
	return p, nil
}

// replan brings the plan up to the revision that the point stands for.
func (r *run) replan(ctx context.Context) error {
	claims, err := r.claims(ctx, r.res.Revision)
	if err != nil {
		return err
	}
	var fresh []Claim
	present := set{}
	for _, c := range claims {
		present[c.Key()] = true
		if old, ok := r.plans[c.Key()]; !ok || old.Claim.UID != c.UID {
			fresh = append(fresh, c)
		}
	}
	for key := range r.plans {
		if !present[key] {
			delete(r.plans, key)
		}
	}
	return r.plan(ctx, fresh)
}

// cut cuts the volumes at once, each by itself. The first failure calls the
// others off.
func (r *run) cut(ctx context.Context, plans []VolumePlan) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range plans {
		g.Go(func() error {
			at := r.opts.Now().UTC()
			c, err := r.ports.Volumes.Cut(ctx, p)
			if err != nil {
				return fmt.Errorf("%w %s: %w", ErrCut, p.Claim.Key(), err)
			}
			c.Plan = p
			if c.At.IsZero() {
				c.At = at
			}
			r.keepCut(c)
			return nil
		})
	}
	return g.Wait()
}

func (r *run) keepCut(c Cut) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cuts[c.Plan.Claim.Key()] = c
}

// readVolumes stores the data of every cut.
func (r *run) readVolumes(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(r.opts.VolumeWorkers)
	for key, c := range r.cuts {
		g.Go(func() error {
			v, err := r.readVolume(ctx, key, c)
			r.mu.Lock()
			defer r.mu.Unlock()
			if v.Snapshot.ID != "" || v.Snapshot.Blocks != nil || err == nil {
				r.res.Volumes = append(r.res.Volumes, v)
			}
			r.base[cmp.Or(c.Plan.Group, key)] = r.base[cmp.Or(c.Plan.Group, key)] || v.Snapshot.Blocks != nil && v.Snapshot.Blocks.Base
			if err != nil {
				return fmt.Errorf("read volume %s: %w", key, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// readVolume stores a cut. What was stored is returned with an error too.
func (r *run) readVolume(ctx context.Context, key string, c Cut) (point.Volume, error) {
	var previous *point.Snapshot
	if p, ok := r.spec.Previous[key]; ok {
		previous = &p
	}
	r.step("reading volume " + key)
	c.Settled = r.settled(c)
	got, err := r.ports.Volumes.Read(ctx, c, previous, func(at VolumeProgress) {
		if at.BytesTotal > 0 {
			r.step(fmt.Sprintf("reading volume %s: %d of %d MiB", key, at.BytesDone>>20, at.BytesTotal>>20))
		} else { // nobody counted before reading
			r.step(fmt.Sprintf("reading volume %s: %d MiB", key, at.BytesDone>>20))
		}
	})
	if err != nil { // what was found of its storage is told all the same
		return point.Volume{Namespace: c.Plan.Claim.Namespace, Claim: c.Plan.Claim.Name, Driver: c.Plan.Driver, Snapshot: point.Snapshot{Blocks: got.Snapshot.Blocks}}, err
	}
	for _, w := range got.Warnings {
		r.warn("persistentvolumeclaims "+key, w)
	}
	promise := point.Crash
	if c.Plan.Method == MethodLive {
		promise = point.Fuzzy
	}
	if got.Snapshot.Errors > 0 {
		err = fmt.Errorf("%d of its files or directories could not be read: %v", got.Snapshot.Errors, got.Warnings)
	}
	return point.Volume{
		Namespace: c.Plan.Claim.Namespace, Claim: c.Plan.Claim.Name, StorageClass: c.Plan.Claim.StorageClass,
		Driver: c.Plan.Driver, Method: c.Plan.Method, Capacity: c.Plan.Claim.Capacity,
		Consistency: promise, Instant: c.At, Settled: true, Snapshot: got.Snapshot,
	}, err
}

// release removes what the capture made in the cluster, in any case. What
// cannot be removed now is labelled and swept at the next start.
func (r *run) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	var g errgroup.Group
	for key, p := range r.plans {
		p.Keep = r.whole && r.base[cmp.Or(p.Group, key)]
		g.Go(func() error {
			if err := r.ports.Volumes.Release(ctx, p); err != nil {
				r.warn("persistentvolumeclaims "+key, fmt.Sprintf("leftovers of its capture will be swept later: %v", err))
			}
			return nil
		})
	}
	_ = g.Wait() // errors are warnings
}

// checkClaims makes sure that every bound claim in the point has its data.
func (r *run) checkClaims() error {
	if r.spec.Mode == ModeNone {
		return nil
	}
	for _, key := range r.needs.boundClaims() {
		if _, ok := r.cuts[key]; !ok && !r.left[key] {
			return fmt.Errorf("claim %s is in the point without its data: it was bound while the volumes were cut: capture again", key)
		}
	}
	return nil
}
