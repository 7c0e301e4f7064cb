package standby

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/traffic/active"
)

// Entrance is what the active probe of one node of this site answers.
type Entrance struct {
	Node   string
	Active bool
	Why    string // it does not say that it is active, as it says itself
}

const (
	// entranceWait is how long nodes have to hear of a gate that was opened, or of an
	// epoch that was claimed: they watch both.
	entranceWait = 10 * time.Second
	entranceLook = 500 * time.Millisecond
)

// opening is a gate that the run has opened, and the applications that it is open on.
type opening struct {
	gate string
	apps []string
}

func openings(state *failover.State) (all []opening) {
	for _, step := range state.Spec.Steps {
		if step.Kind != plan.KindGate || state.Steps[step.Name].Status != failover.Succeeded {
			continue
		}
		apps := state.Spec.Applications
		if step.Application != "" {
			apps = []string{step.Application}
		}
		all = append(all, opening{gate: step.Object, apps: apps})
	}
	return all
}

// dark says why no load balancer would find the applications here, though the gates
// stand open: all nodes that answer say that they are passive. unknown says that none
// answered, which is no reason to stop: a load balancer may reach nodes that the API
// server does not.
func (s *Site) dark(ctx context.Context, state *failover.State) (why, unknown string) {
	if s.o.Entrances == nil {
		return "", ""
	}
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	for _, o := range openings(state) {
		query := url.Values{"gate": {o.gate}}
		path := active.Path + strings.Join(slices.Sorted(slices.Values(o.apps)), ",") + "?" + query.Encode()
		for {
			lit, passive, err := s.ask(ctx, path)
			if lit {
				break
			}
			if passive != "" {
				why = fmt.Sprintf("gate %s is open, but no load balancer finds %s here: %s", o.gate, strings.Join(o.apps, ", "), passive)
			} else {
				unknown = fmt.Sprintf("whether a load balancer finds %s here is not known: %v", strings.Join(o.apps, ", "), err)
			}
			if apierrors.IsForbidden(err) || !pauseFor(ctx, entranceLook) { // a right does not come with time
				return why, unknown
			}
		}
		why, unknown = "", ""
	}
	return "", ""
}

var errDark = errors.New("no node of this site answered")

// ask asks the nodes once. passive is what one of those says that answer, err why none does.
func (s *Site) ask(ctx context.Context, path string) (lit bool, passive string, err error) {
	answers, err := s.o.Entrances(ctx, path)
	if err != nil {
		return false, "", err
	}
	for _, a := range answers {
		if a.Active {
			return true, "", nil
		}
		passive = fmt.Sprintf("node %s says %s", a.Node, a.Why)
	}
	if passive == "" {
		err = errDark
	}
	return false, passive, err
}

// pauseFor waits, and tells whether there is time to go on.
func pauseFor(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
