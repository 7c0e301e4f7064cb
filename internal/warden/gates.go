package warden

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"davit.dev/davit/internal/containers"
	"davit.dev/davit/internal/gate"
)

// ErrHostNetwork says that a pod cannot be cut off, as its network is the node's.
var ErrHostNetwork = errors.New("it uses the node's own network and cannot be cut off: its containers are stopped, again and again")

// Gates close networks of pods. Cut and Isolate are done again without harm.
type Gates interface {
	Cut(ctx context.Context, sandbox string) error
	IsCut(ctx context.Context, sandbox string) (bool, error)
	Restore(ctx context.Context, sandbox string) error
	Isolate(ctx context.Context, sandbox string, r gate.Reach) error
	IsIsolated(ctx context.Context, sandbox string) (bool, error)
	Release(ctx context.Context, sandbox string) error
}

// isolation is how a pod was closed in.
type isolation struct {
	reach gate.Reach
	seen  time.Duration
}

// again is when a pod that could not be looked at is looked at next, and how
// long that waits.
type again struct{ at, wait time.Duration }

// due tells whether there are pods to look at again.
func (w *Warden) due(now time.Duration) bool {
	for _, next := range w.unread {
		if next.at <= now {
			return true
		}
	}
	return false
}

// discover finds pods that an earlier process cut off or closed in: at first
// among all, then among those that could not be looked at.
func (w *Warden) discover(ctx context.Context, now time.Duration, pods []containers.Sandbox) error {
	var errs []error
	for _, p := range pods {
		next, unread := w.unread[p.ID]
		if !p.Ready || !w.first && (!unread || next.at > now) {
			continue
		}
		if ctx.Err() != nil { // no time is left for it: the next look has some
			w.unread[p.ID] = again{now, next.wait}
			continue
		}
		if err := w.read(ctx, p); err != nil {
			wait := min(max(2*next.wait, againAfter), againAtMost)
			w.unread[p.ID] = again{now + wait, wait}
			errs = append(errs, fmt.Errorf("look at pod %s/%s: %w", p.Namespace, p.Name, err))
			continue
		}
		delete(w.unread, p.ID)
	}
	return errors.Join(errs...)
}

// read finds out what an earlier process did to a pod.
func (w *Warden) read(ctx context.Context, p containers.Sandbox) error {
	cut, err := w.opts.Gates.IsCut(ctx, p.ID)
	if errors.Is(err, ErrHostNetwork) || errors.Is(err, gate.ErrHost) {
		return nil // nor does Davit cut off itself
	}
	if err != nil {
		return err
	}
	if _, known := w.cut[p.ID]; cut && !known {
		w.cut[p.ID] = w.opts.Now()
	}
	isolated, err := w.opts.Gates.IsIsolated(ctx, p.ID)
	if err != nil {
		return err
	}
	if _, known := w.isolated[p.ID]; isolated && !known {
		w.isolated[p.ID] = isolation{} // with which peers is not known: it is done again
	}
	return nil
}

// close cuts a pod off, and looks now and then whether it still is.
func (w *Warden) close(ctx context.Context, now time.Duration, p containers.Sandbox) error {
	if !p.Ready {
		return nil // it has no network any more
	}
	seen, known := w.cut[p.ID]
	if known && now-seen < verifyEvery {
		return nil
	}
	if known {
		still, err := w.opts.Gates.IsCut(ctx, p.ID)
		if err == nil && still {
			w.cut[p.ID] = now
			return nil
		}
	}
	if err := w.opts.Gates.Cut(ctx, p.ID); err != nil {
		return err
	}
	w.cut[p.ID] = now
	w.opts.Log.Warn("cut off a pod that may not run, or cannot be closed in", "namespace", p.Namespace, "pod", p.Name)
	return nil
}

// release opens the network of a pod that is fenced no more.
func (w *Warden) release(ctx context.Context, p containers.Sandbox) {
	if _, cut := w.cut[p.ID]; !cut {
		return
	}
	if err := w.opts.Gates.Restore(ctx, p.ID); err != nil {
		w.trouble("release "+p.ID, fmt.Errorf("pod %s/%s: %w", p.Namespace, p.Name, err))
		return
	}
	delete(w.cut, p.ID)
	w.trouble("keep "+p.ID, nil)
	w.opts.Log.Info("opened the network of a pod again", "namespace", p.Namespace, "pod", p.Name)
}

// keep leaves a pod cut off of which nobody knows whether it may run.
func (w *Warden) keep(p containers.Sandbox) {
	if _, cut := w.cut[p.ID]; cut {
		w.trouble("keep "+p.ID, fmt.Errorf("pod %s/%s stays cut off: the node does not know yet, or any more, whether it may run here; the vault's answer opens it, or closes it for good", p.Namespace, p.Name))
	}
}

// closeSandboxes closes the pods of sandboxes in, and lets go of others. What cannot be closed in
// speaks to nobody: it could reach what it is a copy of.
func (w *Warden) closeSandboxes(ctx context.Context, now time.Duration, pods []containers.Sandbox, live map[string][]containers.Container, st *Status) error {
	var errs []error
	for _, p := range pods {
		if !p.Ready {
			continue
		}
		was, known := w.isolated[p.ID]
		s := w.scene.sandbox(p.Namespace)
		if s == nil {
			if known && w.scene.whole {
				if err := w.opts.Gates.Release(ctx, p.ID); err != nil {
					errs = append(errs, fmt.Errorf("pod %s/%s: %w", p.Namespace, p.Name, err))
					continue
				}
				delete(w.isolated, p.ID)
			}
			continue
		}
		reach := gate.Reach{Peers: s.Peers, Servers: s.Servers}
		if known && sameReach(was.reach, reach) && now-was.seen < verifyEvery {
			st.Isolated[s.Name]++
			continue
		}
		if err := w.isolate(ctx, p, reach, known); err != nil {
			delete(w.isolated, p.ID)
			errs = append(errs, fmt.Errorf("pod %s/%s of sandbox %s: %w", p.Namespace, p.Name, s.Name, errors.Join(err, w.shut(ctx, now, p, live[p.ID]))))
			continue
		}
		w.isolated[p.ID] = isolation{reach, now}
		st.Isolated[s.Name]++
	}
	return errors.Join(errs...)
}

// shut cuts a pod of a sandbox off, or stops what has the node's own network.
func (w *Warden) shut(ctx context.Context, now time.Duration, p containers.Sandbox, live []containers.Container) error {
	err := w.close(ctx, now, p)
	if errors.Is(err, ErrHostNetwork) || errors.Is(err, gate.ErrHost) {
		for _, c := range live {
			w.stop(ctx, p, c)
		}
	}
	return err
}

// shutIn tells whether a pod of a sandbox is cut off in the place of being closed in.
func (w *Warden) shutIn(p containers.Sandbox) bool {
	_, closed := w.isolated[p.ID]
	return !closed && w.scene.sandbox(p.Namespace) != nil
}

func (w *Warden) isolate(ctx context.Context, p containers.Sandbox, reach gate.Reach, known bool) error {
	if was := w.isolated[p.ID]; known && sameReach(was.reach, reach) && was.seen > 0 {
		if still, err := w.opts.Gates.IsIsolated(ctx, p.ID); err == nil && still {
			return nil
		}
	}
	if err := w.opts.Gates.Isolate(ctx, p.ID, reach); err != nil {
		return err
	}
	if !known {
		w.opts.Log.Info("closed in a pod of a sandbox", "namespace", p.Namespace, "pod", p.Name)
	}
	return nil
}

func sameReach(a, b gate.Reach) bool {
	return slices.EqualFunc(a.Peers, b.Peers, func(x, y netip.Addr) bool { return x == y }) && slices.Equal(a.Servers, b.Servers)
}

// Networks names where pods' networks are. *containers.Runtime is one.
type Networks interface {
	Network(ctx context.Context, sandbox string) (containers.Network, error)
}

// KernelGates are the kernel's.
type KernelGates struct {
	Networks *Memory
	// Root leads to the node's own files.
	Root string
}

func (g KernelGates) with(ctx context.Context, sandbox string, do func(*gate.Net) error) error {
	path, host := g.Networks.place(sandbox)
	if host {
		return ErrHostNetwork
	}
	if path != "" { // a pod has one network for as long as it lives: who hangs need not be asked again
		if n, err := gate.Open(g.Root, path, 0); err == nil {
			defer n.Close() //nolint:errcheck // only a handle
			return do(n)
		}
	}
	where, err := g.Networks.Network(ctx, sandbox)
	if err != nil {
		return err
	}
	if where.Host {
		return ErrHostNetwork
	}
	n, err := gate.Open(g.Root, where.Path, where.PID)
	if err != nil {
		return err
	}
	defer n.Close() //nolint:errcheck // only a handle
	return do(n)
}

// Cut implements Gates.
func (g KernelGates) Cut(ctx context.Context, sandbox string) error {
	return g.with(ctx, sandbox, (*gate.Net).Cut)
}

// IsCut implements Gates.
func (g KernelGates) IsCut(ctx context.Context, sandbox string) (is bool, err error) {
	err = g.with(ctx, sandbox, func(n *gate.Net) error { is, err = n.IsCut(); return err })
	return is, err
}

// Restore implements Gates.
func (g KernelGates) Restore(ctx context.Context, sandbox string) error {
	return g.with(ctx, sandbox, (*gate.Net).Restore)
}

// Isolate implements Gates.
func (g KernelGates) Isolate(ctx context.Context, sandbox string, r gate.Reach) error {
	return g.with(ctx, sandbox, func(n *gate.Net) error { return n.Isolate(r) })
}

// IsIsolated implements Gates.
func (g KernelGates) IsIsolated(ctx context.Context, sandbox string) (is bool, err error) {
	err = g.with(ctx, sandbox, func(n *gate.Net) error { is, err = n.IsIsolated(); return err })
	return is, err
}

// Release implements Gates.
func (g KernelGates) Release(ctx context.Context, sandbox string) error {
	return g.with(ctx, sandbox, (*gate.Net).Release)
}
