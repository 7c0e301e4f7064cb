package application

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/lease"
)

// reasonOver is what a node says of an application whose lease is over.
const reasonOver = "lease over"

// leased says under which lease terms this site holds its epoch, so that nodes
// hear of it that cannot ask the vault, and states in the vault that every node
// keeps them. While the vault is silent it says which nodes have stopped the
// application.
func (r *Reconciler) leased(ctx context.Context, s *scope) error {
	was := s.app.Status.Lease
	if s.standing.Current.Number == 0 { // the vault said nothing
		if was != nil {
			r.overdue(ctx, s)
		}
		return nil
	}
	terms := s.standing.Current.Claim.Terms
	if s.standing.Role != v1alpha1.RoleActive || terms == nil || terms.LeaseMillis <= 0 {
		s.app.Status.Lease = nil
		return nil
	}
	ms := func(n int64) metav1.Duration {
		return metav1.Duration{Duration: time.Duration(max(n, 0)) * time.Millisecond}
	}
	now := &v1alpha1.LeaseStatus{
		Epoch: s.standing.Current.Number, Lease: ms(terms.LeaseMillis), Bound: ms(terms.BoundMillis), DriftPPM: terms.DriftPPM,
	}
	// A node that comes later hears of the lease by this status. So nothing is
	// stated before the cluster has it.
	announced := was != nil && was.Epoch == now.Epoch
	if now.Kept = announced && was.Kept; now.Kept {
		now.Peers = was.Peers
	}
	s.app.Status.Lease = now
	missing, err := r.unkept(ctx, s)
	if err != nil {
		now.Message = err.Error()
		return nil
	}
	if len(missing) > 0 {
		now.Message = shortList(missing)
	}
	if now.Kept || !announced || len(missing) > 0 {
		return nil
	}
	if now.Peers, err = r.state(ctx, s); err != nil {
		now.Message = err.Error()
		return nil
	}
	now.Kept = true
	unless := ""
	if len(now.Peers) > 0 {
		unless = ", unless each of these promises to stay passive: " + strings.Join(now.Peers, ", ")
	}
	r.Events.Eventf(s.app, corev1.EventTypeNormal, "Leased", "every node keeps the lease of epoch %d: %s after the vault falls silent the application stops here%s", now.Epoch, now.Lease.Duration, unless)
	return nil
}

// state writes into the vault that every node keeps the lease. It returns the peers that nodes may ask from then
// on: none where an older version stated it, which other sites of such a version go by.
func (r *Reconciler) state(ctx context.Context, s *scope) (peers []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, standTimeout)
	defer cancel()
	project, err := r.Vaults.Project(ctx, s.app.Spec.Vault)
	if err != nil {
		return nil, err
	}
	var nodes corev1.NodeList
	if err := r.Client.List(ctx, &nodes); err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	var names []string
	for i := range nodes.Items {
		names = append(names, nodes.Items[i].Name)
	}
	slices.Sort(names)
	current := s.standing.Current
	for _, p := range current.Claim.Terms.Peers {
		peers = append(peers, p.Site)
	}
	err = lease.StateKept(ctx, project, lease.Kept{
		Application: s.app.VaultName(), Epoch: current.Number, Site: r.Site, Cluster: s.protector.Identity().Cluster,
		Nodes: names, Peers: peers, At: s.now.UTC(),
	})
	if err != nil || len(peers) == 0 {
		return nil, err
	}
	stated, err := lease.ReadKept(ctx, project, s.app.VaultName(), current.Number)
	return stated.Peers, err
}

// unkept names the nodes that do not keep the lease of the epoch, with the reason.
func (r *Reconciler) unkept(ctx context.Context, s *scope) ([]string, error) {
	return r.doubts(ctx, s, func(report *v1alpha1.NodeFence) string {
		for _, l := range report.Status.Leases {
			if l.Application == s.app.VaultName() && l.Epoch == s.standing.Current.Number {
				return l.Problem
			}
		}
		return "does not keep the lease yet"
	})
}

// overdue says which nodes have stopped the application because its lease is over.
func (r *Reconciler) overdue(ctx context.Context, s *scope) {
	l := s.app.Status.Lease
	l.Over = false
	over, err := r.doubts(ctx, s, func(report *v1alpha1.NodeFence) string {
		for _, a := range report.Status.Applications {
			if a.Application == s.app.VaultName() && a.Reason == reasonOver {
				return "stopped: the lease is over, as the vault is silent"
			}
		}
		return ""
	})
	if err != nil {
		l.Message = err.Error()
		return
	}
	l.Message = shortList(over)
	if l.Over = strings.Contains(strings.Join(over, ""), "stopped: "); l.Over {
		s.problem = nil // this is why the vault's silence matters
		s.fail(v1alpha1.ReasonLeaseOver, fmt.Errorf("stopped here by the nodes: the vault has been silent for longer than the lease of %s; it runs again when the vault answers that it may: %s", l.Lease.Duration, l.Message))
	}
}
