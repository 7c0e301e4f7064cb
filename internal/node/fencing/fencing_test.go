package fencing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/containers"
	"davit.dev/davit/internal/fence"
	"davit.dev/davit/internal/gate"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
	"davit.dev/davit/internal/warden"
)

const app = "shop"

// site is a cluster with a vault, and a node of it.
type site struct {
	t       *testing.T
	api     client.Client
	dead    bool // the API server
	dir     string
	project *vault.Project
	epochs  *lease.Epochs
	store   fence.Store
	uptime  time.Duration
	runtime pods
}

type pods struct {
	mu      sync.Mutex
	stopped bool
}

func (p *pods) Sandboxes(context.Context) ([]containers.Sandbox, error) {
	return []containers.Sandbox{{ID: "s", UID: "uid-pod", Namespace: app, Name: "db-0", Ready: true}}, nil
}

func (p *pods) Live(context.Context) ([]containers.Container, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return nil, nil
	}
	return []containers.Container{{ID: "c", Sandbox: "s"}}, nil
}

func (p *pods) Stop(context.Context, containers.Container, time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	return nil
}

// gates are always open to be closed.
type gates struct{}

func (gates) Cut(context.Context, string) error                 { return nil }
func (gates) IsCut(context.Context, string) (bool, error)       { return true, nil }
func (gates) Restore(context.Context, string) error             { return nil }
func (gates) Isolate(context.Context, string, gate.Reach) error { return nil }
func (gates) IsIsolated(context.Context, string) (bool, error)  { return false, nil }
func (gates) Release(context.Context, string) error             { return nil }

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), store: fence.Store{Dir: t.TempDir(), RunDir: t.TempDir(), Boot: "b"}, uptime: time.Minute}
	ctx := t.Context()
	url := "file://" + s.dir
	store, err := backend.Open(ctx, backend.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := vault.Init(ctx, store); err != nil {
		t.Fatal(err)
	}
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	project, err := vault.CreateProject(ctx, store, "acme", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	ring, err := vault.Admit(ctx, project)
	if err != nil {
		t.Fatal(err)
	}
	s.project, s.epochs = project, lease.New(project)
	objects := []client.Object{
		&v1alpha1.Vault{ObjectMeta: metav1.ObjectMeta{Name: "main"}, Spec: v1alpha1.VaultSpec{URL: url, Project: "acme", SecretName: "vault-main"}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "vault-main"}, Data: ring.Secret()},
		&v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: app}, Spec: v1alpha1.ApplicationSpec{Vault: "main", Namespaces: []string{app}}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceSystem, UID: "cluster-1"}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: app}},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "uid-n1"}},
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: app, Name: "db-0", UID: "uid-pod"}, Spec: corev1.PodSpec{NodeName: "n1"}},
	}
	silent := errors.New("the API server is dead")
	s.api = fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(objects...).WithStatusSubresource(&v1alpha1.NodeFence{}).
		WithInterceptorFuncs(interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
				if s.dead {
					return silent
				}
				return c.Get(ctx, key, o, opts...)
			},
			List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
				if s.dead {
					return silent
				}
				return c.List(ctx, l, opts...)
			},
		}).Build()
	return s
}

func (s *site) keeper() (*Keeper, *warden.Warden) {
	s.t.Helper()
	uptime := func() time.Duration { s.uptime += time.Millisecond; return s.uptime }
	w := warden.New(warden.Options{Store: s.store, Runtime: &s.runtime, Gates: gates{}, Now: uptime, Grace: time.Second, Log: slog.New(slog.DiscardHandler)})
	k, err := New(Options{
		Site: "east", Node: "n1", Store: s.store, Runtime: &s.runtime, Warden: w, Cache: s.api, Reader: s.api, Client: s.api,
		AskEvery: 10 * time.Second, Uptime: uptime, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return k, w
}

func (s *site) claim(n int64, site, cluster string, terms *lease.Terms) {
	s.t.Helper()
	_, err := s.epochs.Claim(s.t.Context(), app, n, lease.Claim{Site: site, Cluster: cluster, Request: site + time.Now().String(), Terms: terms})
	if err != nil {
		s.t.Fatal(err)
	}
}

// ask asks as if everything were due, and waits for the answers.
func ask(t *testing.T, k *Keeper) {
	t.Helper()
	k.mu.Lock()
	clear(k.asked)
	k.mu.Unlock()
	k.askDue(t.Context())
	k.questions.Wait()
}

// TestANodeLearnsByItself: once it has started, a higher epoch reaches it with
// the API server dead, and also the process that comes after it.
func TestANodeLearnsByItself(t *testing.T) {
	s := newSite(t)
	s.claim(1, "east", "cluster-1", nil)
	k, _ := s.keeper()
	k.lookAround(t.Context())
	ask(t, k)
	if a := k.record.Find(app); a == nil || a.Held != 1 || a.Newest != 1 || a.Below != 0 {
		t.Fatalf("at first: %+v", a)
	}
	s.dead = true
	s.claim(2, "west", "cluster-2", nil)
	k, w := s.keeper() // its predecessor died as well
	k.lookAround(t.Context())
	ask(t, k)
	if a := k.record.Find(app); a.Below != 2 || a.Holder != "site west" {
		t.Fatalf("the API server is dead, and the epoch was not learnt: %+v; %v", a, k.problem)
	}
	if got := k.Evidence(); got.Problem == "" || len(got.Applications) != 0 {
		t.Errorf("before anything was looked at: %+v", got)
	}
	w.Look(t.Context())
	if got := k.Evidence().Applications; len(got) != 1 || got[0].Proven || got[0].Running != 1 {
		t.Errorf("while it still runs: %+v", got)
	}
	waitStopped(t, w, &s.runtime)
	if got := k.Evidence(); len(got.Applications) != 1 || !got.Applications[0].Proven || got.Applications[0].Epoch != 2 {
		t.Errorf("stopped: %+v", got)
	}
	k.unsaved = errors.New("disk is full")
	if got := k.Evidence(); got.Problem == "" || got.Applications[0].Proven {
		t.Errorf("what is not on the disk is proven: %+v", got)
	}
	k.unsaved = nil

	s.dead = false
	k.report(t.Context())
	k.report(t.Context())
	var said v1alpha1.NodeFence
	if err := s.api.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: "n1"}, &said); err != nil {
		t.Fatal(err)
	}
	if a := said.Status.Applications; len(a) != 1 || !a[0].Proven || len(said.OwnerReferences) != 1 || said.OwnerReferences[0].UID != types.UID("uid-n1") {
		t.Errorf("reported: %+v", said)
	}
	s.claim(3, "east", "cluster-1", nil)
	ask(t, k)
	if a := k.record.Find(app); a.Below != 0 {
		t.Errorf("given back, and still fenced: %+v", a)
	}
}

func waitStopped(t *testing.T, w *warden.Warden, p *pods) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan bool)
	go func() { w.Run(ctx); close(done) }()
	for w.Status().Applications[app].Running > 0 {
		select {
		case <-t.Context().Done():
			t.Fatal("not stopped")
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	<-done
	if !p.stopped {
		t.Error("nothing was stopped")
	}
}

// TestASilentVaultFencesNothing, unless a lease was claimed.
func TestASilentVaultFencesNothing(t *testing.T) {
	s := newSite(t)
	s.claim(1, "east", "cluster-1", nil)
	k, _ := s.keeper()
	k.lookAround(t.Context())
	ask(t, k)
	s.claim(2, "east", "cluster-1", &lease.Terms{LeaseMillis: 15_000, BoundMillis: 5_000, DriftPPM: 1000})
	if err := os.Rename(s.dir, s.dir+"-gone"); err != nil {
		t.Fatal(err)
	}
	s.uptime += time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	clear(k.asked)
	k.askDue(ctx)
	k.questions.Wait()
	if why := k.record.Find(app).Why(k.leases, s.uptime); why != fence.Free || k.problem["vault: "+app] == "" {
		t.Errorf("silence of the vault: %q, noted: %q", why, k.problem)
	}
	if err := os.Rename(s.dir+"-gone", s.dir); err != nil {
		t.Fatal(err)
	}
	before := s.uptime
	ask(t, k)
	if until := k.leases[app]; until < before+15*time.Second || until > s.uptime+15*time.Second {
		t.Errorf("lease until %s, asked after %s", until, before)
	}
	if got := s.store.LoadLeases()[app]; got != k.leases[app] {
		t.Errorf("the watchdog reads %s, want %s", got, k.leases[app])
	}
	if why := k.record.Find(app).Why(k.leases, s.uptime+16*time.Second); why != fence.LeaseOver {
		t.Errorf("after the lease: %q", why)
	}
}

// TestEveryApplicationHasItsTurn: the vault is so slow that more leases are due than can be
// asked for. All are renewed in time, whatever their applications are called.
func TestEveryApplicationHasItsTurn(t *testing.T) {
	s := newSite(t)
	k, _ := s.keeper()
	var clock atomic.Int64
	clock.Store(int64(time.Hour))
	k.opts.Uptime = func() time.Duration { return time.Duration(clock.Load()) }
	const leased, patience = 60, 15 * time.Second
	last := map[string]time.Duration{}
	for i := range leased {
		name := fmt.Sprintf("app-%02d", i)
		k.record.Ensure(name).Terms = &fence.Terms{Lease: patience, Bound: time.Second}
		last[name] = k.opts.Uptime()
	}
	for range 100 {
		k.askDue(t.Context())
		k.questions.Wait()
		clock.Add(int64(900 * time.Millisecond)) // each question takes that long
		for name, at := range k.asked {
			last[name] = max(last[name], at)
		}
		for name, at := range last {
			if since := k.opts.Uptime() - at; since > patience {
				t.Fatalf("%s was not asked for for %s, and its lease is %s", name, since, patience)
			}
		}
	}
}

// TestWhatIsNewHoldsUpNoLease: a process that has just begun has asked for nothing yet, and a site may have
// thousands of applications. First it asks for what has a lease, then for what runs here.
func TestWhatIsNewHoldsUpNoLease(t *testing.T) {
	s := newSite(t)
	k, _ := s.keeper()
	for i := range 5 * atOnce {
		k.record.Ensure(fmt.Sprintf("app-%02d", i))
	}
	k.record.Ensure("runs")
	k.present = map[string]bool{"runs": true}
	k.record.Ensure("was-asked").Terms = &fence.Terms{Lease: 15 * time.Second, Bound: time.Second}
	k.record.Ensure("z-leased").Terms = &fence.Terms{Lease: 15 * time.Second, Bound: time.Second}
	now := k.opts.Uptime() + time.Hour
	k.asked["was-asked"] = now - time.Minute
	var names []string
	for _, a := range k.due(now) {
		names = append(names, a.Name)
	}
	if len(names) != 5*atOnce+3 || strings.Join(names[:3], " ") != "z-leased runs was-asked" {
		t.Errorf("asked for in this order: %v", names)
	}
}

// TestOldDamageEndsNoLease: of what was claimed long ago an object is damaged, or gone. The
// newest epoch is this site's all the same, and its lease is renewed; and once it is another's, that is
// heard. Where nothing says that this site ever held it, nothing is concluded.
func TestOldDamageEndsNoLease(t *testing.T) {
	for name, spoil := range map[string]func(string) error{
		"damaged": func(file string) error { return os.WriteFile(file, []byte("?"), 0o600) },
		"gone":    os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			terms := &lease.Terms{LeaseMillis: 15_000, BoundMillis: 5_000}
			s.claim(1, "east", "cluster-1", nil)
			s.claim(2, "east", "cluster-1", terms)
			files, err := filepath.Glob(filepath.Join(s.dir, "*", "*", "epochs", app, "*1"))
			if err != nil || len(files) != 1 {
				t.Fatalf("%v, %v", files, err)
			}
			if err := spoil(files[0]); err != nil {
				t.Fatal(err)
			}
			k, _ := s.keeper()
			k.lookAround(t.Context())
			before := s.uptime
			ask(t, k)
			if a := k.record.Find(app); a.Newest != 2 || a.Held != 2 || k.leases[app] < before+15*time.Second {
				t.Fatalf("the lease is not renewed: %+v, until %s; %v", a, k.leases[app], k.problem)
			}
			s.claim(3, "west", "cluster-2", nil)
			ask(t, k)
			if a := k.record.Find(app); a.Below != 3 {
				t.Errorf("not fenced: %+v; %v", a, k.problem)
			}
		})
	}
}

func TestTheAgentsWordRaisesAndNeverLifts(t *testing.T) {
	s := newSite(t)
	k, _ := s.keeper()
	k.lookAround(t.Context())
	say := func(st v1alpha1.ApplicationStatus) {
		var a v1alpha1.Application
		if err := s.api.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: app}, &a); err != nil {
			t.Fatal(err)
		}
		a.Status = st
		if err := s.api.Update(t.Context(), &a); err != nil {
			t.Fatal(err)
		}
		k.lookAround(t.Context())
	}
	say(v1alpha1.ApplicationStatus{Role: v1alpha1.RoleSuperseded, Epoch: 2, EpochSite: "west", HeldEpoch: 1})
	if a := k.record.Find(app); a.Below != 2 {
		t.Fatalf("%+v", a)
	}
	say(v1alpha1.ApplicationStatus{Role: v1alpha1.RoleActive, Epoch: 3, EpochSite: "east", HeldEpoch: 3})
	if a := k.record.Find(app); a.Below != 2 {
		t.Errorf("lifted without the vault: %+v", a)
	}
}

// TestWhatIsGivenBackIsAskedForAtOnce: the agent's word makes the question due, and the
// vault's answer lifts the fence. The controls are words that say nothing new, for which
// the vault is not asked before its time.
func TestWhatIsGivenBackIsAskedForAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		word   v1alpha1.ApplicationStatus
		lifted bool
	}{
		"given back":       {v1alpha1.ApplicationStatus{Role: v1alpha1.RoleActive, Epoch: 3, HeldEpoch: 3}, true},
		"an older word":    {v1alpha1.ApplicationStatus{Role: v1alpha1.RoleActive, Epoch: 1, HeldEpoch: 1}, false},
		"still superseded": {v1alpha1.ApplicationStatus{Role: v1alpha1.RoleSuperseded, Epoch: 2, HeldEpoch: 1}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.claim(1, "east", "cluster-1", nil)
			s.claim(2, "west", "cluster-2", nil)
			k, _ := s.keeper()
			k.lookAround(t.Context())
			ask(t, k)
			if a := k.record.Find(app); a.Below != 2 {
				t.Fatalf("not fenced: %+v", a)
			}
			s.claim(3, "east", "cluster-1", nil)
			var a v1alpha1.Application
			if err := s.api.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: app}, &a); err != nil {
				t.Fatal(err)
			}
			a.Status = c.word
			if err := s.api.Update(t.Context(), &a); err != nil {
				t.Fatal(err)
			}
			k.lookAround(t.Context())
			k.askDue(t.Context())
			k.questions.Wait()
			if lifted := k.record.Find(app).Below == 0; lifted != c.lifted {
				t.Errorf("lifted: %v, want %v: %+v", lifted, c.lifted, k.record.Find(app))
			}
		})
	}
}

// TestANodeSaysWhichLeasesItKeeps: only after the vault's own answer, on disk and
// seen by the warden, and under terms that it can obey.
func TestANodeSaysWhichLeasesItKeeps(t *testing.T) {
	s := newSite(t)
	s.claim(1, "east", "cluster-1", nil)
	k, w := s.keeper()
	k.opts.Grace = 3 * time.Second
	k.lookAround(t.Context())
	ask(t, k)
	terms := lease.Terms{LeaseMillis: 15_000, BoundMillis: Bound(k.opts.Grace).Milliseconds(), DriftPPM: 1000}
	s.claim(2, "east", "cluster-1", &terms)
	var a v1alpha1.Application
	if err := s.api.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: app}, &a); err != nil {
		t.Fatal(err)
	}
	a.Status = v1alpha1.ApplicationStatus{Role: v1alpha1.RoleActive, Epoch: 2, HeldEpoch: 2, Lease: &v1alpha1.LeaseStatus{
		Epoch: 2, Lease: metav1.Duration{Duration: 15 * time.Second}, Bound: metav1.Duration{Duration: 10 * time.Second},
	}}
	if err := s.api.Update(t.Context(), &a); err != nil {
		t.Fatal(err)
	}
	k.lookAround(t.Context())
	w.Look(t.Context())
	if got := k.record.Find(app); got.Terms == nil || got.Why(k.leases, s.uptime+time.Hour) != fence.LeaseOver {
		t.Errorf("the agent's word does not bind: %+v", got)
	}
	if got := k.Evidence().Leases; len(got) != 0 {
		t.Errorf("kept by hearsay: %+v", got)
	}
	k.askDue(t.Context()) // the word makes it due at once
	k.questions.Wait()
	if got := k.Evidence().Leases; len(got) != 0 {
		t.Errorf("kept before the warden has read it: %+v", got)
	}
	w.Look(t.Context())
	if got := k.Evidence(); len(got.Leases) != 1 || got.Leases[0] != (v1alpha1.KeptLease{Application: app, Epoch: 2}) || got.Bound == nil {
		t.Errorf("kept: %+v", got)
	}
	k.opts.Grace = time.Minute
	if got := k.Evidence().Leases; len(got) != 1 || !strings.Contains(got[0].Problem, "shorter than") {
		t.Errorf("a bound that it cannot obey: %+v", got)
	}
}

// TestALeaseWhoseEndIsNotWrittenIsNotKept: who enforces it goes by older ends, so
// nothing is said to be kept until they can be written again.
func TestALeaseWhoseEndIsNotWrittenIsNotKept(t *testing.T) {
	s := newSite(t)
	k, w := s.keeper()
	k.opts.Grace = 3 * time.Second
	s.claim(1, "east", "cluster-1", &lease.Terms{LeaseMillis: 15_000, BoundMillis: Bound(k.opts.Grace).Milliseconds(), DriftPPM: 1000})
	k.lookAround(t.Context())
	ask(t, k)
	w.Look(t.Context())
	if got := k.Evidence(); len(got.Leases) != 1 || got.Leases[0].Problem != "" || got.Problem != "" {
		t.Fatalf("%+v", got)
	}
	good := k.opts.Store
	k.opts.Store.RunDir = filepath.Join(good.Dir, fence.RecordFile) // a file: nothing can be written there
	ask(t, k)
	w.Look(t.Context())
	if got := k.Evidence(); len(got.Leases) != 0 || got.Problem == "" {
		t.Errorf("its end is not written, and it is said to be kept: %+v", got)
	}
	k.opts.Store = good
	ask(t, k)
	w.Look(t.Context())
	if got := k.Evidence(); len(got.Leases) != 1 || got.Problem != "" {
		t.Errorf("written again: %+v", got)
	}
}

func TestAnotherClustersRecordIsSetAside(t *testing.T) {
	s := newSite(t)
	old := &fence.Record{Format: fence.Format, Cluster: "cluster-0", Site: "east"}
	old.Learn(app, fence.Answer{Newest: 5, Held: 4}, fence.Leases{})
	if err := s.store.Save(old); err != nil {
		t.Fatal(err)
	}
	k, _ := s.keeper()
	if k.record.Find(app).Below != 5 {
		t.Fatal("as long as nothing else is known the record counts")
	}
	k.lookAround(t.Context())
	if a := k.record.Find(app); a.Below != 0 || k.record.Cluster != "cluster-1" {
		t.Errorf("%+v of cluster %s", a, k.record.Cluster)
	}
	if _, err := os.Stat(filepath.Join(s.store.Dir, fence.RecordFile+".cluster-cluster-0")); err != nil {
		t.Error(err)
	}
}

// TestARecordThatCannotBeRead: a damaged one is set aside, one of a later
// version is left, and nothing starts without it.
func TestARecordThatCannotBeRead(t *testing.T) {
	for text, starts := range map[string]bool{`{"format":1,"appl`: true, `{"format":2}`: false} {
		s := newSite(t)
		name := filepath.Join(s.store.Dir, fence.RecordFile)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := New(Options{Site: "east", Store: s.store, Uptime: func() time.Duration { return 0 }, Log: slog.New(slog.DiscardHandler)})
		if starts != (err == nil) {
			t.Errorf("%s: %v", text, err)
		}
		if now, err := os.ReadFile(name); err != nil || !starts && string(now) != text {
			t.Errorf("%s: it is %s now, %v", text, now, err)
		}
	}
}

func TestTheWayIntoTheVaultIsKeptInMemoryAlone(t *testing.T) {
	s := newSite(t)
	s.claim(1, "east", "cluster-1", nil)
	k, _ := s.keeper()
	k.lookAround(t.Context())
	ask(t, k)
	info, err := os.Stat(filepath.Join(s.store.RunDir, "vault-main.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	entries, err := os.ReadDir(s.store.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "vault-") {
			t.Errorf("%s is on the disk", e.Name())
		}
	}
	if _, err := k.access.project(t.Context(), "../etc/passwd"); err == nil {
		t.Error("a vault of that name was opened")
	}
}

// TestWhatARunGivesBackIsFenced by the cluster's word, while the vault says that it is this
// site's still. The control is an epoch that was given back before the newest.
func TestWhatARunGivesBackIsFenced(t *testing.T) {
	for word, want := range map[string]int64{"2": 3, "1": 0, "nonsense": 0} {
		s := newSite(t)
		s.claim(1, "west", "cluster-2", nil)
		s.claim(2, "east", "cluster-1", nil)
		k, _ := s.keeper()
		k.lookAround(t.Context())
		ask(t, k)
		var a v1alpha1.Application
		if err := s.api.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: app}, &a); err != nil {
			t.Fatal(err)
		}
		a.Annotations = map[string]string{fence.AnnotationReturned: word}
		if err := s.api.Update(t.Context(), &a); err != nil {
			t.Fatal(err)
		}
		k.lookAround(t.Context())
		ask(t, k)
		kept, err := s.store.Load()
		if err != nil {
			t.Fatal(err)
		}
		if got := kept.Find(app).Floor(); got != want {
			t.Errorf("%q given back: nothing runs below %d, want %d: %+v", word, got, want, kept.Find(app))
		}
	}
}
