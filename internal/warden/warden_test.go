package warden

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/containers"
	"davit.dev/davit/internal/fence"
	"davit.dev/davit/internal/gate"
)

// machine is a node: pods, containers, and what was done to them.
type machine struct {
	mu       sync.Mutex
	pods     []containers.Sandbox
	live     map[string]string // containers by id, with their pod
	cut      map[string]bool
	isolated map[string]gate.Reach
	host     map[string]bool
	stopped  int
	broken   error
	slow     bool            // it never says what is cut off
	shut     map[string]bool // pods whose network cannot be opened
	asked    int             // how often it was asked what is cut off
	located  int             // how often it was asked where a network is
	during   func()          // what happens while it says which pods there are
	loose    map[string]bool // pods that cannot be closed in
}

func newMachine(pods ...string) *machine {
	m := &machine{live: map[string]string{}, cut: map[string]bool{}, isolated: map[string]gate.Reach{}, host: map[string]bool{}}
	for _, p := range pods {
		m.add(p, "shop", "pod-"+p)
	}
	return m
}

func (m *machine) add(id, namespace, name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pods = append(m.pods, containers.Sandbox{ID: id, UID: "uid-" + id, Namespace: namespace, Name: name, Ready: true})
	m.live["c-"+id] = id
}

func (m *machine) Sandboxes(context.Context) ([]containers.Sandbox, error) {
	if m.during != nil {
		m.during()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.pods), m.broken
}

func (m *machine) Network(_ context.Context, id string) (containers.Network, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.located++
	if m.host[id] {
		return containers.Network{Host: true}, m.broken
	}
	return containers.Network{Path: "/run/netns/" + id, PID: 7}, m.broken
}

func (m *machine) Live(context.Context) ([]containers.Container, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []containers.Container
	for id, pod := range m.live {
		all = append(all, containers.Container{ID: id, Sandbox: pod, Name: id})
	}
	return all, m.broken
}

func (m *machine) Stop(_ context.Context, c containers.Container, _ time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.live, c.ID)
	m.stopped++
	return nil
}

func (m *machine) Cut(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.host[id] {
		return ErrHostNetwork
	}
	m.cut[id] = true
	return nil
}

func (m *machine) IsCut(ctx context.Context, id string) (bool, error) {
	if m.slow {
		<-ctx.Done()
		return false, ctx.Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	if m.host[id] {
		return false, ErrHostNetwork
	}
	if m.shut[id] {
		return false, errors.New("no such network")
	}
	return m.cut[id], nil
}

func (m *machine) Restore(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.cut, id)
	return nil
}

func (m *machine) Isolate(_ context.Context, id string, r gate.Reach) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.loose[id] || m.host[id] {
		return errors.New("the kernel knows no sets")
	}
	m.isolated[id] = r
	return nil
}

func (m *machine) IsIsolated(_ context.Context, id string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, is := m.isolated[id]
	return is, nil
}

func (m *machine) Release(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.isolated, id)
	return nil
}

// rig is a warden over a machine and a record.
type rig struct {
	*machine
	t      *testing.T
	store  fence.Store
	record *fence.Record
	leases fence.Leases
	w      *Warden
	now    time.Duration
}

func newRig(t *testing.T, m *machine, apps ...string) *rig {
	t.Helper()
	r := &rig{machine: m, t: t, store: fence.Store{Dir: t.TempDir(), RunDir: t.TempDir(), Boot: "b"}, record: &fence.Record{Format: fence.Format, Cluster: "c"}, leases: fence.Leases{}, now: time.Second}
	for _, app := range apps {
		doc, err := json.Marshal(&v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: app, Name: app}})
		if err != nil {
			t.Fatal(err)
		}
		r.record.Ensure(app).Document = doc
	}
	r.w = r.warden(nil)
	return r
}

func (r *rig) warden(acts func() bool) *Warden {
	return New(Options{Store: r.store, Runtime: r.machine, Gates: r.machine, Now: func() time.Duration { return r.now }, Grace: time.Second, Acts: acts, Log: slog.New(slog.DiscardHandler)})
}

func (r *rig) world(w World) {
	text, err := json.Marshal(w)
	if err != nil {
		r.t.Fatal(err)
	}
	r.record.World = text
	r.save()
}

func (r *rig) learn(app string, a fence.Answer) {
	r.record.Learn(app, a, r.leases)
	if err := r.store.SaveLeases(r.leases); err != nil {
		r.t.Fatal(err)
	}
	r.save()
}

func (r *rig) save() {
	if err := r.store.Save(r.record); err != nil {
		r.t.Fatal(err)
	}
	r.w.stamp = "" // two saves may fall into one tick of the file system's clock
}

// look looks, and waits for what it stops.
func (r *rig) look() Status {
	r.now += time.Second
	r.w.Look(r.t.Context())
	r.w.running.Wait()
	return r.w.Status()
}

// A runtime that takes longer to describe its pods than a look may take is told to
// cut them off all the same.
func TestASlowRuntimeIsFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newMachine("a"), "shop")
		r.slow = true
		r.learn("shop", superseded())
		if st := r.look().Applications["shop"]; !r.cut["a"] || st.Open != 0 || r.live["c-a"] != "" {
			t.Errorf("%+v, cut %v, live %v", st, r.cut, r.live)
		}
	})
}

// TestANetworkThatCannotBeOpened is looked for less and less often, costs the
// others nothing, and is opened when it can be.
func TestANetworkThatCannotBeOpened(t *testing.T) {
	r := newRig(t, newMachine("a", "b", "c"), "shop")
	r.shut = map[string]bool{"a": true}
	r.cut["a"], r.cut["c"] = true, true // by an earlier process, of an application that is fenced no more
	r.learn("shop", fence.Answer{Newest: 2, Held: 2})
	r.look()
	if r.cut["c"] || !r.cut["a"] {
		t.Fatalf("cut off: %v", r.cut)
	}
	r.asked = 0
	const looks = 600 // a second apart
	for range looks {
		r.look()
	}
	if r.asked < 10 || r.asked > 20 {
		t.Errorf("in %d looks it was asked for %d times, want after 1, 2, 4 ... 60 s", looks, r.asked)
	}
	r.shut = nil
	for range int(againAtMost/time.Second) + 1 {
		r.look()
	}
	if r.cut["a"] {
		t.Error("it was never opened")
	}
	if r.asked = 0; r.look().Problem != nil || r.asked > 0 {
		t.Errorf("asked %d times when all is known", r.asked)
	}
}

func superseded() fence.Answer { return fence.Answer{Newest: 2, Held: 1, Holder: "site west"} }

func TestAFencedApplicationIsCutOffAndStoppedAgainAndAgain(t *testing.T) {
	r := newRig(t, newMachine("a"), "shop", "bank")
	r.add("b", "bank", "pod-b")
	r.save()
	if st := r.look(); len(st.Applications) != 0 || r.stopped != 0 || len(r.cut) != 0 {
		t.Fatalf("fenced without reason: %+v", st)
	}
	r.learn("shop", superseded())
	first := r.look().Applications["shop"]
	if !r.cut["a"] || first.Running != 1 || first.Pods != 1 || first.Open != 0 || r.live["c-a"] != "" {
		t.Errorf("first look: %+v, cut %v, live %v", first, r.cut, r.live)
	}
	if r.cut["b"] || r.live["c-b"] == "" {
		t.Error("the neighbour was touched")
	}
	if got := r.look().Applications["shop"]; got.Running != 0 || got.Reason != fence.Superseded {
		t.Errorf("second look: %+v", got)
	}
	for n := range 3 { // the kubelet starts it again, in the same pod and in a new one
		r.mu.Lock()
		r.live[fmt.Sprint("again-", n)] = "a"
		r.mu.Unlock()
		r.add(fmt.Sprint("new-", n), "shop", "pod-a")
		r.look()
		if st := r.look().Applications["shop"]; st.Running != 0 || !r.cut[fmt.Sprint("new-", n)] {
			t.Errorf("started again %d: %+v, cut %v", n, st, r.cut)
		}
	}
	r.cut["a"] = false // somebody removed the rules
	r.now += verifyEvery
	if r.look(); !r.cut["a"] {
		t.Error("rules that were removed did not come back")
	}
	r.learn("shop", fence.Answer{Newest: 3, Held: 3})
	if st := r.look(); len(st.Applications) != 0 || len(slices.Collect(keysTrue(r.cut))) != 0 {
		t.Errorf("given back: %+v, cut %v", st, r.cut)
	}
}

// TestAFenceThatIsLiftedDuringALook stops nothing any more: the runtime may take seconds to
// say what runs, and what starts meanwhile is to run. The controls are records that change
// in another way, or cannot be read, meanwhile: they lift nothing.
func TestAFenceThatIsLiftedDuringALook(t *testing.T) {
	for name, c := range map[string]struct {
		change func(r *rig)
		cut    bool
	}{
		"given back": {func(r *rig) { r.learn("shop", fence.Answer{Newest: 3, Held: 3}) }, false},
		"deleted here": {func(r *rig) {
			r.record.Forget(map[string]bool{"bank": true})
			r.save()
		}, false},
		"another learns": {func(r *rig) { r.learn("bank", superseded()) }, true},
		"a later epoch":  {func(r *rig) { r.learn("shop", fence.Answer{Newest: 3, Held: 1}) }, true},
		"begun anew": {func(r *rig) {
			r.record = &fence.Record{Format: fence.Format}
			r.save()
		}, true},
		"damaged": {func(r *rig) {
			if err := os.WriteFile(filepath.Join(r.store.Dir, fence.RecordFile), []byte("{"), 0o600); err != nil {
				r.t.Fatal(err)
			}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, newMachine("a"), "shop", "bank")
			r.learn("shop", superseded())
			r.during = func() { r.during = nil; c.change(r) }
			st := r.look().Applications["shop"]
			if stopped := r.live["c-a"] == ""; r.cut["a"] != c.cut || stopped != c.cut {
				t.Errorf("cut off: %v, stopped: %v, want both %v", r.cut["a"], stopped, c.cut)
			}
			if !c.cut && st.Open == 0 {
				t.Errorf("a pod that is left alone counts as cut off: %+v", st)
			}
		})
	}
}

func keysTrue(m map[string]bool) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k, v := range m {
			if v && !yield(k) {
				return
			}
		}
	}
}

// TestAfterARestart: the next process enforces what is on the disk, and opens
// again what an earlier one cut off and is fenced no more.
func TestAfterARestart(t *testing.T) {
	r := newRig(t, newMachine("a"), "shop")
	r.learn("shop", superseded())
	r.w = r.warden(nil)
	if r.look(); !r.cut["a"] || len(r.live) != 0 {
		t.Error("a process that starts does not enforce the record")
	}
	r.learn("shop", fence.Answer{Newest: 3, Held: 3})
	r.w = r.warden(nil)
	if r.look(); r.cut["a"] {
		t.Error("a pod that an earlier process cut off stays so")
	}
}

func TestALeaseThatIsOver(t *testing.T) {
	r := newRig(t, newMachine("a"), "shop")
	r.learn("shop", fence.Answer{Newest: 1, Held: 1, Asked: r.now, Terms: &fence.Terms{Lease: 10 * time.Second}})
	if st := r.look(); len(st.Applications) != 0 || r.cut["a"] {
		t.Fatalf("fenced within the lease: %+v", st)
	}
	r.now += 10 * time.Second
	if st := r.look().Applications["shop"]; st.Reason != fence.LeaseOver || !r.cut["a"] || len(r.live) != 0 {
		t.Errorf("after the lease: %+v, cut %v, live %v", st, r.cut, r.live)
	}
	r.learn("shop", fence.Answer{Newest: 1, Held: 1, Asked: r.now, Terms: &fence.Terms{Lease: 10 * time.Second}})
	if r.look(); r.cut["a"] {
		t.Error("renewed, and still cut off")
	}
}

func TestAPodInTheNodesNetworkStaysOpen(t *testing.T) {
	r := newRig(t, newMachine("a"), "shop")
	r.host["a"] = true
	r.learn("shop", superseded())
	r.look()
	if got := r.look().Applications["shop"]; got.Open != 1 || got.Running != 0 || got.Problem == "" {
		t.Errorf("%+v: want it said that the pod is not cut off", got)
	}
}

// TestTheWatchdogActsInTheSilence: it enforces while the other is silent only.
func TestTheWatchdogActsInTheSilence(t *testing.T) {
	r := newRig(t, newMachine("a"), "shop")
	r.learn("shop", superseded())
	silent := make(chan bool)
	w := r.warden(func() bool { return <-silent })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan bool)
	go func() { w.Run(ctx); close(done) }()
	silent <- false
	silent <- false // whatever the first answer led to is over
	r.mu.Lock()
	if r.stopped != 0 || len(r.cut) != 0 {
		t.Error("acted although the other lives")
	}
	r.mu.Unlock()
	silent <- true
	silent <- false
	cancel()
	close(silent)
	<-done
	if !r.cut["a"] || len(r.live) != 0 {
		t.Error("did nothing in the silence")
	}
}

func TestSandboxesAreClosedIn(t *testing.T) {
	r := newRig(t, newMachine("a"), "shop")
	r.add("copy", "shop-copy", "pod-copy")
	peer := netip.MustParseAddr("10.0.0.7")
	r.world(World{Namespaces: map[string]labels.Set{}, Sandboxes: []Sandbox{{Name: "drill", Namespaces: []string{"shop-copy"}}}})
	if st := r.look(); st.Isolated["drill"] != 1 || len(r.isolated) != 1 || len(r.isolated["copy"].Peers) != 0 {
		t.Fatalf("%+v, isolated %v", st, r.isolated)
	}
	r.world(World{Sandboxes: []Sandbox{{Name: "drill", Namespaces: []string{"shop-copy"}, Peers: []netip.Addr{peer}}}})
	if r.look(); len(r.isolated["copy"].Peers) != 1 {
		t.Errorf("a new peer is not reached: %v", r.isolated)
	}
	delete(r.isolated, "copy") // somebody removed the rules
	r.now += verifyEvery
	if r.look(); len(r.isolated["copy"].Peers) != 1 {
		t.Errorf("rules that were removed did not come back: %v", r.isolated)
	}
	r.world(World{})
	if r.look(); len(r.isolated) != 0 {
		t.Errorf("released, and still isolated: %v", r.isolated)
	}
	if r.stopped != 0 || len(r.live) != 2 {
		t.Error("a sandbox is closed in, not stopped")
	}
}

// TestWhatCannotBeClosedIn speaks to nobody, until it can; what has the node's network is stopped.
func TestWhatCannotBeClosedIn(t *testing.T) {
	r := newRig(t, newMachine("a"), "shop")
	r.add("copy", "shop-copy", "pod-copy")
	r.add("bare", "shop-copy", "pod-bare")
	r.loose, r.host = map[string]bool{"copy": true}, map[string]bool{"bare": true}
	r.world(World{Sandboxes: []Sandbox{{Name: "drill", Namespaces: []string{"shop-copy"}}}})
	for range 3 {
		if st := r.look(); !r.cut["copy"] || st.Isolated["drill"] != 0 || r.cut["a"] {
			t.Fatalf("cut off: %v, closed in: %v", r.cut, st.Isolated)
		}
		r.now += verifyEvery
	}
	r.w.running.Wait()
	if r.stopped != 1 || r.live["c-bare"] != "" || r.live["c-copy"] == "" {
		t.Errorf("stopped %d, live %v", r.stopped, r.live)
	}
	r.w = r.warden(nil) // another process
	if r.look(); !r.cut["copy"] {
		t.Error("another process lets it out")
	}
	r.loose = nil
	for range 2 {
		r.now += verifyEvery
		r.look()
	}
	if _, closed := r.isolated["copy"]; !closed || r.cut["copy"] {
		t.Errorf("it can be closed in: closed in %v, cut off %v", r.isolated, r.cut)
	}
	r.isolated, r.loose = map[string]gate.Reach{}, map[string]bool{"copy": true} // somebody removed the rules, and they do not come back
	r.now += verifyEvery
	if r.look(); !r.cut["copy"] {
		t.Error("its rules are gone, and it is not cut off")
	}
	r.world(World{})
	if r.look(); r.cut["copy"] {
		t.Error("it is of no sandbox any more, and stays cut off")
	}
}

// TestTroubleIsSaid: what could not be looked at is no evidence.
func TestTroubleIsSaid(t *testing.T) {
	r := newRig(t, newMachine("a"), "shop")
	r.learn("shop", superseded())
	r.broken = errors.New("runtime is gone")
	if st := r.look(); st.Problem == nil {
		t.Error("no problem is said without a container runtime")
	}
	r.broken = nil
	if st := r.look(); st.Problem != nil {
		t.Errorf("it works again, and says %v", st.Problem)
	}
	// A record that is damaged later does not lift what was read before.
	if err := os.WriteFile(filepath.Join(r.store.Dir, fence.RecordFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.w.stamp = ""
	r.mu.Lock()
	r.live["again"] = "a"
	r.mu.Unlock()
	r.look()
	if st := r.look(); len(r.live) != 0 || st.Applications["shop"].Reason != fence.Superseded {
		t.Errorf("a damaged record lifted the fence: %+v, live %v", st, r.live)
	}
	if st := r.look(); st.Problem == nil {
		t.Error("it goes by an older record than the one on disk, and says no problem: that would pass for proven")
	}
	r.save()
	if st := r.look(); st.Problem != nil {
		t.Errorf("the record can be read again, and it says %v", st.Problem)
	}
	if err := os.WriteFile(filepath.Join(r.store.Dir, fence.RecordFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	fresh := r.warden(nil)
	fresh.Look(t.Context())
	if fresh.Status().Problem == nil {
		t.Error("a process that starts with a damaged record says no problem")
	}
}

// TestALostRecordOpensNothing: what was cut off stays so until the vault says
// that it may run, whether or not the cluster is heard of before.
func TestALostRecordOpensNothing(t *testing.T) {
	document := func(r *rig) json.RawMessage { return r.record.Find("shop").Document }
	for name, tc := range map[string]struct {
		lost  func(r *rig, kept json.RawMessage)
		stays bool
	}{
		"nothing is known":              {func(*rig, json.RawMessage) {}, true},
		"the application is seen again": {func(r *rig, kept json.RawMessage) { r.record.Cluster, r.record.Ensure("shop").Document = "c", kept }, true},
		"it cannot be read":             {func(r *rig, _ json.RawMessage) { r.record.Cluster, r.record.Ensure("shop").Document = "c", []byte(`7`) }, true},
		"the vault says it is fenced": {func(r *rig, kept json.RawMessage) {
			r.record.Cluster, r.record.Ensure("shop").Document = "c", kept
			r.learn("shop", superseded())
		}, true},
		"the vault says it may run": {func(r *rig, kept json.RawMessage) {
			r.record.Cluster, r.record.Ensure("shop").Document = "c", kept
			r.learn("shop", fence.Answer{Newest: 3, Held: 3})
		}, false},
		"the application is deleted": {func(r *rig, _ json.RawMessage) { r.record.Cluster = "c" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, newMachine("a"), "shop")
			r.add("copy", "shop-copy", "pod-copy")
			r.world(World{Sandboxes: []Sandbox{{Name: "drill", Namespaces: []string{"shop-copy"}}}})
			r.learn("shop", superseded())
			if r.look(); !r.cut["a"] {
				t.Fatal("not cut off")
			}
			kept := document(r)
			r.record, r.leases = &fence.Record{Format: fence.Format}, fence.Leases{}
			tc.lost(r, kept)
			for _, w := range []*Warden{r.w, r.warden(nil)} { // the watchdog goes on, the node process starts anew
				r.w = w
				r.save()
				r.look()
				r.look()
				if r.cut["a"] != tc.stays {
					t.Errorf("cut off: %v", r.cut["a"])
				}
			}
			if _, closed := r.isolated["copy"]; name == "nothing is known" && !closed {
				t.Error("a copy was let out")
			}
		})
	}
}
