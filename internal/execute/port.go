// Package execute carries out runs: it is the loop between a run's machine
// (internal/failover), its journal (internal/journal) and the actuators that
// change sites. Effects go out, each to a goroutine of its own with a deadline;
// what comes of them comes back as events. It imports neither Kubernetes nor
// any way in: actuators are its ports.
package execute

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
)

// Order is what an actuator is asked about one step: look at it, do it, or
// take it back.
type Order struct {
	Action failover.Action `json:"action"` // Look, Act or Undo
	Run    string          `json:"run"`
	Plan   string          `json:"plan"`
	Verb   plan.Verb       `json:"verb"`
	Step   plan.Step       `json:"step"`
	// Token holds the order's number and the epochs of the applications that
	// the step is about; see Aged.
	Token failover.Token `json:"token"`
	// Site is where the step is to happen: a fence comes once for each former
	// holder. From and To are those of the run.
	Site string `json:"site"`
	From string `json:"from,omitempty"`
	To   string `json:"to"`
	// Sandbox is set in drills: nothing outside of it may change.
	Sandbox string `json:"sandbox,omitempty"`
	// Fence is the plan's: a claim is made under its lease terms.
	Fence plan.Fence `json:"fence,omitzero"`
	// Point is what data comes from; nil: the newest that may be offered.
	Point *failover.Point `json:"point,omitempty"`
	// Ready is how long the run's next step waits for the workloads that this one starts; 0: none does. It
	// stays with whoever carries the run.
	Ready time.Duration `json:"-"`
}

// Patience is how long a step waits itself for the workloads that it starts: what refuses pods comes after
// that, and captures and load balancers are let in. Half of its time is for all else, and where workloads do not
// get ready, a planned move has its source stand no longer for it than for the step that waits next.
func (o Order) Patience() time.Duration {
	if half := o.Step.Timeout / 2; o.Ready <= 0 || half < o.Ready {
		return half
	}
	return o.Ready
}

// maxEpochs is how long the header of epochs may be. Servers refuse a request whose headers are too large, many from
// 8 KiB on.
const maxEpochs = 4 << 10

// Told are the headers of an HTTP call that say whose order it is: the run, the order's number, and the epochs
// of its applications, as "shop=3,team.db=7". Whoever keeps the highest of them can refuse an order that
// comes late: one of a lower epoch, or of the same epochs and run with a lower number. Epochs that
// take more than 4 KiB are left out, all of them: some would look like all.
func (o Order) Told() map[string]string {
	all := make([]string, 0, len(o.Token.Epochs))
	for _, app := range slices.Sorted(maps.Keys(o.Token.Epochs)) {
		all = append(all, fmt.Sprintf("%s=%d", app, o.Token.Epochs[app]))
	}
	told := map[string]string{"Davit-Run": o.Run, "Davit-Order": strconv.FormatInt(o.Token.Sequence, 10)}
	if epochs := strings.Join(all, ","); len(epochs) <= maxEpochs {
		told["Davit-Epochs"] = epochs
	}
	return told
}

// Apps are the applications that the order is about, with their epochs.
func (o Order) Apps() map[string]int64 { return o.Token.Epochs }

// Guard says how well an actuator refuses what is old.
type Guard string

// The guards, weakest first. Empty means that the actuator has nothing to
// guard: it only looks.
const (
	Unfenced Guard = "unfenced" // it cannot
	Guarded  Guard = "guarded"  // it checks first, but not in one stroke with the act
	Fenced   Guard = "fenced"   // what it works on refuses
)

// Answer is what came of an order. Of a look the outcome is Done, NotDone,
// Busy, Refused, Superseded or NoAnswer; of an act Done, Refused, Superseded or NoAnswer.
// NoAnswer means that nobody knows: the step is looked at again. Refused means that it
// was not done and will not be, and of a look that no other time brings an answer:
// the step ends. Note says why, and what to do.
type Answer struct {
	Outcome failover.Outcome `json:"outcome"`
	Note    string           `json:"note,omitempty"`
	// Proof is that the site does not write below an epoch, from now on.
	Proof *failover.Proof `json:"proof,omitempty"`
	// Said is what a program that did it said, or an HTTP server, for people: see
	// transcript.Keep.
	Said string `json:"said,omitempty"`
	// Stuck is of a look that says Busy: it may well never end by itself, and Note says
	// what helps. The journal takes that up: the note stays the same as long as what it
	// says does.
	Stuck bool `json:"stuck,omitempty"`
	// Asked says that the site heard of the fence.
	Asked bool            `json:"asked,omitempty"`
	Point *failover.Point `json:"point,omitempty"` // that was restored, or made
	Moved *failover.Moved `json:"moved,omitempty"` // of volumes
	Epoch int64           `json:"epoch,omitempty"` // of a claim, or its return
	// Holder is the site whose claim superseded this one, where that is known.
	Holder string `json:"holder,omitempty"`
	Guard  Guard  `json:"guard,omitempty"`
	// Unsent is of an act without answer: nothing was sent, so that it can be forgotten, and ordered again. It is
	// for Aged alone.
	Unsent bool `json:"-"`
}

// Actuator looks at, does and takes back the steps of some kinds. It obeys its
// context, whose deadline is the step's, and leaves nothing running when it returns. It
// observes before it acts, and to do a step twice is as good as once; what
// orders that come late would break is kept by Aged.
type Actuator interface {
	Do(ctx context.Context, o Order) Answer
}

// Func is an actuator of one function.
type Func func(ctx context.Context, o Order) Answer

// Do implements Actuator.
func (f Func) Do(ctx context.Context, o Order) Answer { return f(ctx, o) }

// Kinds are the actuators of one site, by kind of step.
type Kinds map[plan.Kind]Actuator

// Do implements Actuator. A kind that nobody does is refused.
func (k Kinds) Do(ctx context.Context, o Order) Answer {
	a, ok := k[o.Step.Kind]
	switch {
	case ok:
		return a.Do(ctx, o)
	case o.Action == failover.Look:
		return Answer{Outcome: failover.NotDone}
	}
	return Refuse("this davit carries out no step of the kind %q at site %s: take it out of the plan, or skip it", o.Step.Kind, o.Site)
}

// Sites sends each order to the actuator of its site. Those of sites that
// have none go to Elsewhere.
type Sites struct {
	Here      map[string]Actuator
	Elsewhere Actuator
}

// Do implements Actuator.
func (s Sites) Do(ctx context.Context, o Order) Answer {
	if a, ok := s.Here[o.Site]; ok {
		return a.Do(ctx, o)
	}
	if s.Elsewhere == nil {
		return Unknown("nothing here reaches site %s", o.Site)
	}
	return s.Elsewhere.Do(ctx, o)
}
