package application

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/fence/lifting"
)

const (
	// liftedWithin is how long nodes may take to lift their fence before what they would
	// stop is started all the same: other nodes may run it.
	liftedWithin = 30 * time.Second
	// watchedFor is how long what was started is looked at every restEvery, before it is
	// looked at as seldom as everything else.
	watchedFor = 2 * time.Minute
)

// back is how an application that may run here again comes back. Losing it costs some
// waiting.
type back struct {
	epoch int64     // it is of this one
	since time.Time // when it was first to be started
	late  bool      // nodes took too long, and people were told
}

// letGo starts what the hold or the fence stopped, once no node would stop it again: a
// node asks the vault by itself, and may hear later than the agent that the site may write.
// It says what the application waits for until all of it is ready.
func (r *Reconciler) letGo(ctx context.Context, s *scope) error {
	st := &s.app.Status
	if st.Role != v1alpha1.RoleActive {
		return nil
	}
	b := &s.memory.back
	if b.epoch != st.Epoch || b.since.IsZero() {
		*b = back{epoch: st.Epoch, since: s.now}
	}
	held, err := r.heldByNodes(ctx, s)
	if err != nil { // it holds nothing up for longer than a node does
		held = []string{"what the nodes say is not known: " + err.Error()}
	}
	if len(held) > 0 && s.now.Sub(b.since) < liftedWithin {
		st.Rest.Waits = held
		s.fail(v1alpha1.ReasonHeld, errors.New("it may run here again, and is started when the nodes would not stop it any more: "+shortList(held)))
		s.soon(s.now.Add(restEvery))
		return nil
	}
	if len(held) > 0 && !b.late {
		b.late = true
		r.Events.Eventf(s.app, corev1.EventTypeWarning, v1alpha1.ReasonHeld, "started again, although nodes may stop it until they have heard from the vault: %s", shortList(held))
	}
	return r.start(ctx, s)
}

// heldByNodes names the nodes that would stop the application, with the reason.
func (r *Reconciler) heldByNodes(ctx context.Context, s *scope) ([]string, error) {
	var reports v1alpha1.NodeFenceList
	// Not from the cache, which would watch all namespaces.
	if err := r.Reader.List(ctx, &reports, client.InNamespace(v1alpha1.SystemNamespace)); err != nil {
		return nil, fmt.Errorf("list what nodes say: %w", err)
	}
	return lifting.Keepers(reports.Items, s.app.VaultName(), s.now), nil
}

// start gives everything back what it had, and says what of it is not ready. That is no
// reason not to capture it.
func (r *Reconciler) start(ctx context.Context, s *scope) error {
	f := fencer{client: r.Client, reader: r.Reader, now: r.Now}
	others, err := r.others(ctx)
	if err != nil {
		return s.notYet(err)
	}
	found, err := f.release(ctx, s.app, others)
	for _, what := range found.started {
		r.Events.Eventf(s.app, corev1.EventTypeNormal, v1alpha1.ReasonHeld, "started %s again: no run holds it any more", what)
	}
	// Nothing else says so any more of what was started, and it is looked up there: it is not cut as short.
	asBefore := upTo(mostUnready, found.asBefore)
	if err != nil {
		log.FromContext(ctx).Error(err, "not everything was started again")
		if len(asBefore) > 0 {
			s.app.Status.Rest.Unready = asBefore
		}
		return s.notYet(err)
	}
	s.app.Status.Rest = nil
	if len(found.late)+len(asBefore) > 0 {
		s.app.Status.Rest = &v1alpha1.RestStatus{Epoch: s.app.Status.Epoch, Waits: some(found.late), Unready: asBefore}
	}
	if len(found.late) == 0 {
		s.memory.back = back{}
		return nil
	}
	s.starting = "it was started again here, and not all of it is ready: " + strings.Join(found.late[:min(len(found.late), namedNodes)], "; ")
	if s.now.Sub(s.memory.back.since) < watchedFor {
		s.soon(s.now.Add(restEvery))
	}
	return nil
}

// mostUnready is how many workloads a status keeps that were not ready before, either.
const mostUnready = 1000

// some are as many names as people read in a status.
func some(all []string) []string { return upTo(20, all) }

func upTo(most int, all []string) []string {
	if n := len(all); n > most {
		return append(all[:most:most], fmt.Sprintf("and %d more", n-most))
	}
	return all
}

// notYet keeps in the status that the application is still to be started: when the vault is
// silent at the next look, nothing else says so.
func (s *scope) notYet(err error) error {
	s.app.Status.Rest.Waits = []string{"not everything could be started again: " + cut(err.Error())}
	s.soon(s.now.Add(restEvery))
	return fmt.Errorf("start again what a run had held at rest: %w", err)
}
