package fencing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/fence"
)

const (
	reportEvery = time.Second
	// showEvery is how often a report is written that says nothing new.
	showEvery = 15 * time.Second
)

// What the node measures.
var (
	fencedHere = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "davit_node_fenced", Help: "1 for an application that may not run on this node, by reason: superseded or lease over.",
	}, []string{"application", "reason"})
	writersHere = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "davit_node_fenced_containers", Help: "Containers of a fenced application that have not ended on this node.",
	}, []string{"application"})
	peersSilent = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "davit_node_peers_silent", Help: "1 for an application whose peers, asked last, did not all promise to stay passive.",
	}, []string{"application"})
	cannotFence = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "davit_node_fence_broken", Help: "1 if this node cannot fence: without container runtime, or without a record on disk.",
	})
)

// Collectors are the package's metrics.
func Collectors() []prometheus.Collector {
	return []prometheus.Collector{fencedHere, writersHere, peersSilent, cannotFence}
}

// Evidence is what the node can say of its fences now.
func (k *Keeper) Evidence() v1alpha1.NodeFenceStatus {
	st := k.opts.Warden.Status()
	k.mu.Lock()
	defer k.mu.Unlock()
	out := v1alpha1.NodeFenceStatus{Bound: &metav1.Duration{Duration: Bound(k.opts.Grace)}}
	err := errors.Join(st.Problem, k.unsaved, k.unheld)
	if st.At == 0 || k.opts.Uptime()-st.At > 10*time.Second {
		err = errors.Join(err, errors.New("what runs on the node was not looked at"))
	}
	if err != nil {
		out.Problem = clip(err.Error())
	}
	for name, held := range st.Applications {
		one := v1alpha1.FencedApplication{
			Application: name, Reason: string(held.Reason), Problem: clip(held.Problem),
			Pods: int32(held.Pods), Running: int32(held.Running), Open: int32(held.Open),
		}
		if a := k.record.Find(name); a != nil && held.Reason == fence.Superseded {
			one.Epoch = a.Floor()
		}
		// What the warden looked at is what is on disk: it reads it there.
		one.Proven = err == nil && one.Epoch > 0 && one.Running == 0 && one.Open == 0 && one.Problem == "" && st.At > k.saved
		out.Applications = append(out.Applications, one)
	}
	slices.SortFunc(out.Applications, func(a, b v1alpha1.FencedApplication) int { return cmp.Compare(a.Application, b.Application) })
	if err == nil {
		out.Leases = k.kept(st.At)
	}
	for name, pods := range st.Isolated {
		out.Sandboxes = append(out.Sandboxes, v1alpha1.IsolatedSandbox{Name: name, Pods: int32(pods)})
	}
	slices.SortFunc(out.Sandboxes, func(a, b v1alpha1.IsolatedSandbox) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// kept are the leases that the node keeps: by the vault's own answer, noted on
// disk before the warden last read it, under terms that it can obey.
func (k *Keeper) kept(looked time.Duration) []v1alpha1.KeptLease {
	var all []v1alpha1.KeptLease
	for _, a := range k.record.Applications {
		if a.Terms == nil || a.TermsOf != a.Newest || looked <= k.saved {
			continue
		}
		one := v1alpha1.KeptLease{Application: a.Name, Epoch: a.TermsOf}
		if least := Bound(k.opts.Grace); a.Terms.Bound < least {
			one.Problem = fmt.Sprintf("the plan's fence.bound of %s is shorter than the %s that this node needs to stop everything", a.Terms.Bound, least)
		}
		all = append(all, one)
	}
	return all
}

func clip(text string) string {
	const longest = 500
	if len(text) > longest {
		return text[:longest] + "…"
	}
	return text
}

// report measures, and tells the cluster what changed.
func (k *Keeper) report(ctx context.Context) {
	now := k.Evidence()
	measure(now)
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	k.trouble("report", k.write(ctx, now))
}

func measure(st v1alpha1.NodeFenceStatus) {
	fencedHere.Reset()
	writersHere.Reset()
	for _, a := range st.Applications {
		fencedHere.WithLabelValues(a.Application, a.Reason).Set(1)
		writersHere.WithLabelValues(a.Application).Set(float64(a.Running))
	}
	broken := 0.0
	if st.Problem != "" {
		broken = 1
	}
	cannotFence.Set(broken)
}

func (k *Keeper) write(ctx context.Context, st v1alpha1.NodeFenceStatus) error {
	at := metav1.NewTime(k.opts.Now().Truncate(time.Second))
	key := client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: k.opts.Node}
	var live v1alpha1.NodeFence
	err := k.opts.Cache.Get(ctx, key, &live)
	if apierrors.IsNotFound(err) {
		return k.create(ctx, key)
	}
	if err != nil {
		return fmt.Errorf("read NodeFence %s: %w", key.Name, err)
	}
	same := live.Status
	same.ObservedAt = nil
	if live.Status.ObservedAt != nil && at.Sub(live.Status.ObservedAt.Time) < showEvery && reflect.DeepEqual(same, st) {
		return nil
	}
	old := live.DeepCopy()
	live.Status = st
	live.Status.ObservedAt = &at
	if err := k.opts.Client.Status().Patch(ctx, &live, client.MergeFrom(old)); err != nil {
		return fmt.Errorf("write NodeFence %s: %w", key.Name, err)
	}
	return nil
}

// create makes the report's object, which goes with its node.
func (k *Keeper) create(ctx context.Context, key client.ObjectKey) error {
	var node corev1.Node
	if err := k.opts.Reader.Get(ctx, client.ObjectKey{Name: k.opts.Node}, &node); err != nil {
		return fmt.Errorf("read Node %s: %w", k.opts.Node, err)
	}
	o := &v1alpha1.NodeFence{ObjectMeta: metav1.ObjectMeta{
		Namespace: key.Namespace, Name: key.Name, Labels: map[string]string{v1alpha1.LabelManagedBy: "davit"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}},
	}}
	if err := k.opts.Client.Create(ctx, o); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make NodeFence %s: %w", key.Name, err)
	}
	return nil
}
