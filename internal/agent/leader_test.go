package agent

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"

	"davit.dev/davit/api/v1alpha1"
)

// leased is an API server that has one lease, which somebody holds for an hour.
func leased(t *testing.T, holder string) *rest.Config {
	t.Helper()
	now, hour := metav1.NowMicro(), int32(3600)
	lease := coordinationv1.Lease{
		TypeMeta:   metav1.TypeMeta{APIVersion: "coordination.k8s.io/v1", Kind: "Lease"},
		ObjectMeta: metav1.ObjectMeta{Name: leaseName, Namespace: v1alpha1.SystemNamespace, ResourceVersion: "1"},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &hour, AcquireTime: &now, RenewTime: &now},
	}
	var mu sync.Mutex
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.Method == http.MethodPut {
			if err := json.NewDecoder(r.Body).Decode(&lease); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(lease)
	}))
	t.Cleanup(server.Close)
	return &rest.Config{Host: server.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}
}

// TestLeadsAgain: an agent that crashed and is back in its pod leads at once,
// although the lease of the dead process has long to go. One of another pod does
// not: it has looked, and waits.
func TestLeadsAgain(t *testing.T) {
	for pod, leads := range map[string]bool{"davit-agent-a": true, "davit-agent-b": false} {
		t.Run(pod, func(t *testing.T) {
			lock, err := leaderLock(pod, leased(t, "davit-agent-a"))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			led, looked := make(chan struct{}), make(chan string, 1)
			elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
				Lock: lock, LeaseDuration: time.Hour, RenewDeadline: renewDeadline, RetryPeriod: time.Second,
				Callbacks: leaderelection.LeaderCallbacks{
					OnStartedLeading: func(context.Context) { close(led) }, OnStoppedLeading: func() {},
					OnNewLeader: func(who string) { looked <- who },
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() { defer close(ended); elector.Run(ctx) }()
			if who := <-looked; who != "davit-agent-a" {
				t.Errorf("%s leads", who)
			}
			if leads {
				<-led
			}
			if elector.IsLeader() != leads {
				t.Errorf("leads: %v, want %v", elector.IsLeader(), leads)
			}
			cancel()
			<-ended
		})
	}
	if lock, err := leaderLock("", nil); lock != nil || err != nil {
		t.Errorf("outside of a pod: %v, %v", lock, err)
	}
}
