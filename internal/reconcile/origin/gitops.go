package origin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
)

// gitOps suspends and resumes what makes objects from git here, for applications
// that the vault keeps. next refuses what has aged. A suspension may be older than
// the newest epoch: the run that ordered it may have claimed that meanwhile, and
// what is suspended starts no writer.
func (s *site) gitOps(ctx context.Context, o execute.Order, next execute.Actuator) execute.Answer {
	if s.Reconcilers == nil {
		return execute.Refuse("this agent carries out no step of the kind %q: use one version of davit at all sites", o.Step.Kind)
	}
	if why, err := s.beyond(ctx, o); err != nil {
		return failed(err)
	} else if why != "" {
		return execute.Refuse("%s", why)
	}
	if o.Step.Kind == plan.KindSuspend && o.Action == failover.Undo {
		if not := s.returned(ctx, o); not.Outcome != failover.Done {
			return not
		}
	}
	return next.Do(ctx, o)
}

// beyond says why the order may not name its reconciler. Whoever holds the keys of a
// team's project orders what is about the team's applications, and nothing
// outside of its namespaces; an application of davit-system is an administrator's.
func (s *site) beyond(ctx context.Context, o execute.Order) (string, error) {
	_, namespace, name, err := plan.Reconciler(o.Step.Object)
	if err != nil {
		return err.Error(), nil
	}
	var homes []string
	for app := range o.Token.Epochs {
		found, err := s.application(ctx, app)
		if errors.Is(err, errNone) {
			return err.Error(), nil
		}
		if err != nil {
			return "", err
		}
		homes = append(homes, found.Namespace)
	}
	if slices.Contains(homes, v1alpha1.SystemNamespace) || slices.Contains(homes, namespace) {
		return "", nil
	}
	slices.Sort(homes)
	return fmt.Sprintf("%s is in namespace %q, and the applications of this step are those of %s: name one of theirs, or have an administrator keep the application (in %s)",
		name, namespace, strings.Join(slices.Compact(homes), ", "), v1alpha1.SystemNamespace), nil
}

// returned waits until this site may write the order's applications again: what
// makes them from git would start them while another site may. Done: it may. Superseded:
// somebody claimed one since the run did, or instead of it, and what makes it stays suspended; so it does where
// another run holds one at rest, and neither lets go nor claims for half of the time: what git made then, that run
// would not move.
func (s *site) returned(ctx context.Context, o execute.Order) execute.Answer {
	soon := ctx
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		soon, cancel = context.WithTimeout(ctx, time.Until(deadline)/2)
		defer cancel()
	}
	return s.await(ctx, func(ctx context.Context) (*execute.Answer, string) {
		for _, name := range slices.Sorted(maps.Keys(o.Token.Epochs)) {
			app, err := s.application(ctx, name)
			switch {
			case err != nil:
				return nil, err.Error()
			case app.Status.Role == v1alpha1.RoleActive:
				others := otherHolders(app, o.Run)
				if len(others) > 0 && soon.Err() == nil {
					return nil, fmt.Sprintf("%s stays suspended: run %s holds %s at rest here", o.Step.Object, strings.Join(others, ", "), name)
				}
				if len(others) > 0 {
					answer := execute.Superseded("%s stays suspended: run %s holds %s at rest here", o.Step.Object, strings.Join(others, ", "), name)
					return &answer, ""
				}
			case app.Status.Epoch > o.Token.Epochs[name]:
				answer := execute.Superseded("%s stays suspended: epoch %d of %s is known here, and is not for site %s", o.Step.Object, app.Status.Epoch, name, s.Site)
				return &answer, ""
			default:
				return nil, fmt.Sprintf("%s stays suspended: the agent has not seen yet that site %s may write %s again", o.Step.Object, s.Site, name)
			}
		}
		return &execute.Answer{Outcome: failover.Done}, ""
	})
}
