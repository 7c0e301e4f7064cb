// Package warden carries out on a node what the record of fences says: it cuts
// off the pods of applications that may not run here, stops their containers,
// again and again, and closes sandboxes. It reads files and asks the container
// runtime, nobody else.
package warden

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"davit.dev/davit/internal/containers"
	"davit.dev/davit/internal/fence"
)

const (
	// busyEvery is the time between two looks while something is fenced, in a
	// sandbox, or under a lease that may end, idleEvery while nothing is.
	busyEvery = 100 * time.Millisecond
	idleEvery = time.Second
	// verifyEvery is how often rules that were set are looked for again.
	verifyEvery = 2 * time.Second
	lookTimeout = 5 * time.Second
	// discoverTimeout leaves most of a look for enforcing: on a node with many
	// pods, or a slow runtime, discovering may take longer than a look.
	discoverTimeout = time.Second
	// silentAfter is how long the runtime may take to say what runs here before what it said last counts.
	silentAfter = time.Second
	// A pod whose network cannot be opened is looked at again after againAfter,
	// then after twice as long, and so on up to againAtMost: it may never be.
	againAfter  = time.Second
	againAtMost = time.Minute
)

// Runtime is what runs containers. *containers.Runtime is one.
type Runtime interface {
	Sandboxes(ctx context.Context) ([]containers.Sandbox, error)
	Live(ctx context.Context) ([]containers.Container, error)
	Stop(ctx context.Context, c containers.Container, grace time.Duration) error
}

// Options say how a Warden works.
type Options struct {
	Store   fence.Store
	Runtime Runtime
	Gates   Gates
	// Last is what the runtime said last, End signals the processes of pods. Where both are nil, nothing is
	// enforced while the runtime is silent.
	Last *Memory
	End  func(pods []containers.Sandbox, signal syscall.Signal) error
	// Now is the time since the machine started.
	Now func() time.Duration
	// Grace is how long a container may take to end by itself.
	Grace time.Duration
	// Acts tells whether it is this process's turn. Nil means always.
	Acts func() bool
	Log  *slog.Logger
}

// Warden enforces the record.
type Warden struct {
	opts  Options
	first bool // nothing is known of rules that an earlier process set

	record   *fence.Record
	scene    *scene
	stamp    string
	stale    error                    // why what is on disk now could not be read; what was read before is enforced
	cut      map[string]time.Duration // sandboxes cut off, and when that was last seen
	isolated map[string]isolation
	unread   map[string]again // of which it is not known what an earlier process did to them
	blind    blind

	mu       sync.Mutex
	stopping map[string]bool // containers
	status   Status
	running  sync.WaitGroup
	troubles map[string]bool // what was logged already
}

// Status is what a look found.
type Status struct {
	// At is when, since the machine started; zero before the first look.
	At time.Duration
	// Applications are those that may not run here.
	Applications map[string]Held
	// Isolated is how many pods are closed in, by sandbox.
	Isolated map[string]int
	// Problem is why the look could not be finished.
	Problem error
}

// Held is how far the fence of one application is.
type Held struct {
	Reason fence.Reason
	// Pods is how many of its pods are here, Running how many containers in
	// them have not ended, Open how many pods are not cut off.
	Pods, Running, Open int
	// Problem is why something could not be done.
	Problem string
}

// New makes a Warden.
func New(opts Options) *Warden {
	return &Warden{opts: opts, first: true, cut: map[string]time.Duration{}, isolated: map[string]isolation{}, unread: map[string]again{}, stopping: map[string]bool{}, troubles: map[string]bool{}}
}

// Status returns what the last look found.
func (w *Warden) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

// Run looks again and again until ctx is done.
func (w *Warden) Run(ctx context.Context) {
	defer w.running.Wait()
	for {
		every := idleEvery
		if w.opts.Acts == nil || w.opts.Acts() {
			if w.Look(ctx) {
				every = busyEvery
			}
		} else {
			w.first = true // another process may change what this one knows
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
	}
}

// Look enforces the record once, and tells whether there was anything to
// enforce.
func (w *Warden) Look(ctx context.Context) (busy bool) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	now := w.opts.Now()
	st := Status{At: now, Applications: map[string]Held{}, Isolated: map[string]int{}}
	busy, err := w.look(ctx, now, &st)
	st.Problem = errors.Join(err, w.stale)
	w.trouble("look", err)
	w.mu.Lock()
	w.status = st
	w.mu.Unlock()
	return busy
}

func (w *Warden) look(ctx context.Context, now time.Duration, st *Status) (busy bool, err error) {
	if err := w.load(); err != nil {
		return false, err
	}
	fenced := w.record.Fenced(w.opts.Store.LoadLeases(), now)
	for name, why := range fenced {
		st.Applications[name] = Held{Reason: why}
	}
	for _, s := range w.scene.world.Sandboxes {
		st.Isolated[s.Name] = 0
	}
	if !w.first && !w.due(now) && len(fenced) == 0 && len(w.scene.world.Sandboxes) == 0 && len(w.cut) == 0 && len(w.isolated) == 0 {
		return w.record.Leased(), nil
	}
	pods, live, err := w.ask(ctx, st)
	if err != nil {
		return true, err
	}
	if w.first || w.due(now) {
		limited, cancel := context.WithTimeout(ctx, discoverTimeout)
		err := w.discover(limited, now, pods)
		cancel()
		if err != nil || len(w.unread) == 0 {
			w.trouble("discover", err) // tried again; it keeps nothing from being fenced
		}
		w.first = false
	}
	byPod := map[string][]containers.Container{}
	for _, c := range live {
		byPod[c.Sandbox] = append(byPod[c.Sandbox], c)
	}
	w.enforce(ctx, now, fenced, pods, byPod, st)
	w.trouble("sandboxes", w.closeSandboxes(ctx, now, pods, byPod, st))
	w.forget(pods)
	return len(fenced) > 0 || len(w.scene.world.Sandboxes) > 0 || w.record.Leased(), nil
}

// onDisk tells one record on the disk from others; empty if there is none.
func (w *Warden) onDisk() string {
	info, err := os.Stat(filepath.Join(w.opts.Store.Dir, fence.RecordFile))
	if err != nil {
		return ""
	}
	stamp := fmt.Sprint(info.ModTime().UnixNano(), info.Size())
	if file, ok := info.Sys().(*syscall.Stat_t); ok { // two saves may fall into one tick of the file system's clock
		stamp += fmt.Sprint(" ", file.Ino)
	}
	return stamp
}

// lifted tells whether the fence of an application that a look goes by is there no more:
// between reading the record and acting on it lie answers of the container runtime, which
// may take seconds. What cannot be read lifts nothing, nor does a record that was begun
// anew and knows of no cluster yet.
func (w *Warden) lifted(app string) bool {
	record := w.record
	if w.onDisk() != w.stamp {
		var err error
		if record, err = w.opts.Store.Load(); err != nil {
			return false
		}
	}
	a := record.Find(app)
	if a == nil {
		return record.Cluster != ""
	}
	return a.Why(w.opts.Store.LoadLeases(), w.opts.Now()) == fence.Free
}

// load reads the record if it was replaced.
func (w *Warden) load() error {
	stamp := w.onDisk()
	if w.scene != nil && stamp == w.stamp {
		return nil
	}
	record, err := w.opts.Store.Load()
	if err != nil {
		if w.scene == nil {
			return err
		}
		w.trouble("record", err)
		w.stale = err
		return nil // what was read before still holds
	}
	s, err := decode(record)
	if err != nil && w.scene == nil {
		return err
	}
	w.trouble("record", err)
	w.record, w.scene, w.stamp, w.stale = record, s, stamp, err
	return nil
}

// enforce cuts off, stops and lets go.
func (w *Warden) enforce(ctx context.Context, now time.Duration, fenced map[string]fence.Reason, pods []containers.Sandbox, byPod map[string][]containers.Container, st *Status) {
	claims := w.scene.fencing(fenced)
	objects := w.scene.objects(pods)
	stopped := fence.Judge(claims, objects, w.scene.world.Namespaces)
	doubted := w.scene.doubted(claims, objects)
	for name := range fenced {
		if err := w.scene.unread[name]; err != nil {
			h := st.Applications[name]
			h.Problem = err.Error()
			st.Applications[name] = h
		}
	}
	for _, p := range pods {
		app, covered := stopped[p.UID]
		if !covered {
			switch _, maybe := doubted[p.UID]; {
			case w.shutIn(p): // it is opened once it is closed in
			case w.scene.whole && !maybe:
				w.release(ctx, p)
			default:
				w.keep(p)
			}
			continue
		}
		if !p.Ready && len(byPod[p.ID]) == 0 {
			continue // it is over, and the kubelet has not cleaned it up
		}
		h := st.Applications[app]
		h.Pods++
		h.Running += len(byPod[p.ID])
		if w.acts(p, byPod[p.ID], now) && w.lifted(app) {
			h.Open++ // whatever it is, it is no proof
			st.Applications[app] = h
			continue
		}
		if err := w.close(ctx, now, p); err != nil {
			h.Open++
			h.Problem = fmt.Sprintf("pod %s/%s: %v", p.Namespace, p.Name, err)
		}
		for _, c := range byPod[p.ID] {
			w.stop(ctx, p, c)
		}
		st.Applications[app] = h
	}
}

// acts tells whether a pod that is to be fenced still has something to cut off or to stop.
func (w *Warden) acts(p containers.Sandbox, live []containers.Container, now time.Duration) bool {
	seen, cut := w.cut[p.ID]
	if p.Ready && (!cut || now-seen >= verifyEvery) {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(live, func(c containers.Container) bool { return !w.stopping[c.ID] })
}

// stop ends a container in the background: others do not wait for its grace.
func (w *Warden) stop(ctx context.Context, p containers.Sandbox, c containers.Container) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopping[c.ID] {
		return
	}
	w.stopping[c.ID] = true
	ctx = context.WithoutCancel(ctx)
	w.running.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, w.opts.Grace+10*time.Second)
		defer cancel()
		err := w.opts.Runtime.Stop(ctx, c, w.opts.Grace)
		if err != nil {
			w.opts.Log.Error("container of a fenced application not stopped", "namespace", p.Namespace, "pod", p.Name, "container", c.Name, "error", err)
		} else {
			w.opts.Log.Warn("stopped a container of a fenced application", "namespace", p.Namespace, "pod", p.Name, "container", c.Name)
		}
		w.mu.Lock()
		delete(w.stopping, c.ID)
		w.mu.Unlock()
	})
}

// forget drops what is known of pods that are gone.
func (w *Warden) forget(pods []containers.Sandbox) {
	there := map[string]bool{}
	for _, p := range pods {
		there[p.ID] = p.Ready
	}
	maps.DeleteFunc(w.cut, func(id string, _ time.Duration) bool { return !there[id] })
	maps.DeleteFunc(w.isolated, func(id string, _ isolation) bool { return !there[id] })
	maps.DeleteFunc(w.unread, func(id string, _ again) bool { return !there[id] })
}

// trouble logs an error once, until it is over.
func (w *Warden) trouble(what string, err error) {
	if err == nil {
		delete(w.troubles, what)
		return
	}
	if !w.troubles[what] {
		w.troubles[what] = true
		w.opts.Log.Error("fences not enforced", "what", what, "error", err)
	}
}
