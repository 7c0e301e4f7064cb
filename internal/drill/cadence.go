package drill

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/restore/shape"
)

// cadenceTimeout bounds the reading of recovery points for what is only told: a drill
// has been cleaned up by then.
const cadenceTimeout = 20 * time.Second

// cadence is how an application was protected while a drill of it ran, beside the same
// length of time before: rule 5, that a drill leaves protection untouched, as evidence.
type cadence struct {
	points       int           // captured meanwhile
	gap, earlier time.Duration // the longest time without one: meanwhile, and before
	known        bool          // there is one from before, to measure from
}

// measure reads it from the instants of an application's points.
func measure(instants []time.Time, began, ended time.Time) cadence {
	slices.SortFunc(instants, time.Time.Compare)
	from, c := began.Add(-ended.Sub(began)), cadence{}
	var last time.Time
	gap := func(until time.Time) {
		switch {
		case last.IsZero() || until.Before(from):
		case until.Before(began):
			c.earlier = max(c.earlier, until.Sub(last))
		default:
			c.gap, c.known = max(c.gap, until.Sub(last)), true
		}
	}
	for _, at := range instants {
		if at.After(ended) {
			break
		}
		gap(at)
		if last = at; !at.Before(began) {
			c.points++
		}
	}
	gap(ended)
	return c
}

func (c cadence) String() string {
	if !c.known {
		return "never captured before it ended"
	}
	text := fmt.Sprintf("captured %d times, never longer than %s apart", c.points, c.gap.Round(time.Second))
	if c.earlier > 0 {
		text += fmt.Sprintf(" (before the drill: %s)", c.earlier.Round(time.Second))
	}
	return text
}

// meanwhile tells how the drill's applications were protected while it ran. What cannot
// be read is said, and fails nothing.
func (s *Site) meanwhile(ctx context.Context, o execute.Order, began time.Time) string {
	if began.IsZero() {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, cadenceTimeout)
	defer cancel()
	ended := s.o.Recovery.Now()
	var told []string
	for _, app := range slices.Sorted(maps.Keys(o.Apps())) {
		points, err := s.o.Recovery.Project.Points(ctx, app)
		if err != nil {
			told = append(told, fmt.Sprintf("%s: its points cannot be read: %v", app, err))
			continue
		}
		var instants []time.Time
		for _, p := range points {
			if p.Manifest != nil {
				instants = append(instants, p.Manifest.Instant)
			}
		}
		told = append(told, app+" was "+measure(instants, began, ended).String())
	}
	if len(told) == 0 {
		return ""
	}
	return "meanwhile " + strings.Join(told, "; ")
}

// began is when the drill's first namespace was made, by its cluster's clock; zero: it
// is not there.
func (s *Site) began(ctx context.Context, run string) (time.Time, error) {
	c := s.o.Recovery.Cluster
	at, err := c.Serves(ctx, shape.KindNamespace)
	if err != nil {
		return time.Time{}, err
	}
	live, err := c.Get(ctx, at[0], "", Home(run))
	if apierrors.IsNotFound(err) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read namespace %s: %w", Home(run), err)
	}
	return live.GetCreationTimestamp().Time, nil
}
