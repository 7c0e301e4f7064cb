package fencing

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/fence"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/promise"
	"davit.dev/davit/internal/promise/hold"
)

// keys are those of a site that has the same vault.
func (s *site) keys(k *Keeper, name string) promise.Keys {
	s.t.Helper()
	if _, err := k.access.project(s.t.Context(), "main"); err != nil {
		s.t.Fatal(err)
	}
	own, _ := k.access.known("main")
	return promise.From(s.project, name, own.Vault)
}

// TestPeersStandInForTheVault: a node asks them once its agent says that the vault knows that all nodes keep the lease, when
// the vault has been silent for half of it; one that refuses, or a lease that is over, ends it.
func TestPeersStandInForTheVault(t *testing.T) {
	s := newSite(t)
	k, _ := s.keeper()
	held := map[string]string{}
	server := &promise.Server{
		Holds: func(context.Context, string) (map[string]string, error) { return held, nil },
		Known: func(string) (int64, int64) { return 0, 0 }, Cluster: func() string { return "cluster-2" }, Now: time.Now,
	}
	server.Learn(s.keys(k, "west"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(t.Context(), l) }()
	s.claim(1, "east", "cluster-1", &lease.Terms{LeaseMillis: 15_000, BoundMillis: 10_000, Peers: []lease.Peer{{Site: "west", Cluster: "cluster-2", Address: l.Addr().String()}}})
	k.lookAround(t.Context())
	ask(t, k)
	until := func() time.Duration {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.leases[app]
	}
	lean := func(longer bool, why string) {
		t.Helper()
		was := until()
		k.lean(t.Context())
		k.questions.Wait()
		if got := until(); got > was != longer {
			t.Errorf("%s: the lease was until %s, and is until %s: %v", why, was, got, k.problem)
		}
	}
	s.uptime += 8 * time.Second
	lean(false, "the agent has not said that the vault knows of it")
	var live v1alpha1.Application
	if err := s.api.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: app}, &live); err != nil {
		t.Fatal(err)
	}
	live.Status.Lease = &v1alpha1.LeaseStatus{Epoch: 1, Lease: metav1.Duration{Duration: 15 * time.Second}, Kept: true, Peers: []string{"west"}}
	if err := s.api.Update(t.Context(), &live); err != nil {
		t.Fatal(err)
	}
	k.lookAround(t.Context())
	s.dead = true // the API server need not answer for it
	lean(true, "the peer promises")
	lean(false, "it was asked a moment ago")
	s.uptime += 8 * time.Second
	held[app] = "2"
	lean(false, "a run has claimed for the peer")
	delete(held, app)
	s.uptime += 2 * time.Second
	lean(true, "the peer promises again, before the lease is over")
	measured := func() int {
		told := make(chan prometheus.Metric, 9)
		peersSilent.Collect(told)
		return len(told)
	}
	if measured() != 1 {
		t.Errorf("%d applications are measured", measured())
	}
	s.uptime += 16 * time.Second
	lean(false, "the lease is over")
	if measured() != 0 { // as it is where another site has taken over, which refuses: an alert would go on for ever
		t.Errorf("%d applications are measured, and nobody is asked for any", measured())
	}
	if got := k.leases[app]; s.uptime < got {
		t.Errorf("it runs until %s, and it is %s", got, s.uptime)
	}
}

// TestNobodyIsAskedWithoutALease: nodes know applications that have none, and they are the usual ones.
func TestNobodyIsAskedWithoutALease(t *testing.T) {
	s := newSite(t)
	k, _ := s.keeper()
	s.claim(1, "east", "cluster-1", nil)
	k.lookAround(t.Context())
	ask(t, k)
	if a := k.record.Find(app); a == nil || a.Terms != nil {
		t.Fatalf("the node knows %+v", a)
	}
	k.lean(t.Context())
	if len(k.leaned) > 0 {
		t.Errorf("asked for %v", k.leaned)
	}
}

// TestANodeAnswersByWhatIsHeldNow: what its API server said before does not count, and its silence refuses.
func TestANodeAnswersByWhatIsHeldNow(t *testing.T) {
	s := newSite(t)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = free.Close()
	k, _ := s.keeper()
	k.opts.Peers = free.Addr().String()
	k.opts.Uptime = func() time.Duration { return time.Hour } // that of the site is for one goroutine
	k.access.uptime = k.opts.Uptime
	k.lookAround(t.Context()) // says which cluster it is
	west := s.keys(k, "west")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); k.answer(ctx) }()
	defer func() { cancel(); <-done; k.questions.Wait() }()
	asked := func() error {
		return promise.All(t.Context(), west, app, 1, []fence.Peer{{Site: "east", Cluster: "cluster-1", Address: k.opts.Peers}}, time.Now)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		if err = asked(); err == nil || time.Now().After(deadline) {
			break
		}
		time.Sleep(20 * time.Millisecond) // until it listens, and knows the keys
	}
	if err != nil {
		t.Fatalf("nothing is held: %v", err)
	}
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: hold.Name(s.project.KeyID())}, Data: map[string]string{app: "2"}}
	if err := s.api.Create(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if err := asked(); err == nil || !strings.Contains(err.Error(), "epoch 2 was claimed") {
		t.Errorf("a run has claimed for it: %v", err)
	}
	m.Data[app] = "1"
	if err := s.api.Update(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	k.mu.Lock()
	k.record.Learn(app, fence.Answer{Newest: 2, Holder: "south"}, k.leases)
	k.mu.Unlock()
	if err := asked(); err == nil || !strings.Contains(err.Error(), "epoch 2 is known") {
		t.Errorf("it knows a newer epoch: %v", err)
	}
	west = promise.From(s.project, "north", west.Vault)
	k.mu.Lock()
	k.record.Find(app).Newest = 0
	k.mu.Unlock()
	if err := asked(); err != nil {
		t.Errorf("another site asks: %v", err)
	}
}
