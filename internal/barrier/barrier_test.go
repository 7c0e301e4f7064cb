package barrier

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

var origin = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// script drives a Coordinator: "in -> effects" lines, one second apart.
func script(t *testing.T, plan Plan, lines ...string) *Coordinator {
	t.Helper()
	c := NewCoordinator(plan)
	for i, line := range lines {
		in, want, _ := strings.Cut(line, "->")
		in = strings.TrimSpace(in)
		got := c.Step(origin.Add(time.Duration(i)*time.Second), parseEvent(t, in))
		if text := effectText(got); text != strings.TrimSpace(want) {
			t.Fatalf("line %d, %q: got %q, want %q", i, in, text, want)
		}
	}
	return c
}

func parseEvent(t *testing.T, text string) Event {
	t.Helper()
	kinds := map[string]Kind{"start": Start, "armed": Armed, "frozen": Frozen, "held": Ended, "ended": Ended, "lost": Lost, "cuts": CutsDone, "cutfailed": CutFailed, "cancel": Cancelled, "tick": Tick}
	word, node, _ := strings.Cut(text, " ")
	kind, ok := kinds[word]
	if !ok {
		t.Fatalf("no event %q", text)
	}
	return Event{Kind: kind, Node: node, Held: word == "held", Why: "because", Took: time.Second}
}

func effectText(all []Effect) string {
	names := map[Action]string{Arm: "arm", Freeze: "freeze", Thaw: "thaw", Cut: "cut", Finish: "finish"}
	var words []string
	for _, e := range all {
		words = append(words, strings.TrimSpace(names[e.Action]+" "+e.Node))
	}
	return strings.Join(words, ", ")
}

func twoNodes() Plan {
	return Plan{Nodes: []string{"a", "b"}, Window: 10 * time.Second, ArmLimit: 5 * time.Second, Slack: 2 * time.Second}
}

func TestCoordinator(t *testing.T) {
	required := twoNodes()
	required.Required = true
	tests := []struct {
		name  string
		plan  Plan
		lines []string
		held  bool
		cut   bool
		why   string
	}{
		{"all goes well", twoNodes(), []string{
			"start -> arm a, arm b", "armed a ->", "armed b -> freeze a, freeze b", "frozen b ->", "frozen b ->", "frozen a -> cut",
			"cuts -> thaw a, thaw b", "held a ->", "held b -> finish", "frozen a ->",
		}, true, true, ""},
		{"nothing is in use", Plan{Window: time.Second}, []string{"start -> cut", "cuts -> finish"}, true, true, ""},
		{"a node refuses: each for itself", twoNodes(), []string{
			"start -> arm a, arm b", "armed a ->", "ended b -> thaw a, cut", "cuts -> finish",
		}, false, true, "node b: because"},
		{"a node refuses where all is required", required, []string{
			"start -> arm a, arm b", "armed a ->", "ended b -> thaw a, finish",
		}, false, false, "node b: because"},
		{"a node is silent", twoNodes(), []string{
			"start -> arm a, arm b", "armed a ->", "tick ->", "tick ->", "tick ->", "tick -> thaw a, thaw b, cut", "cuts -> finish",
		}, false, true, "got ready within 5s: b"},
		{"a node does not freeze", twoNodes(), []string{
			"start -> arm a, arm b", "armed a ->", "armed b -> freeze a, freeze b", "frozen a ->", "ended b -> thaw a, cut",
			"cuts ->", "ended a -> finish",
		}, false, true, "node b: because"},
		{"a node thaws by itself while it is cut", twoNodes(), []string{
			"start -> arm a, arm b", "armed a ->", "armed b -> freeze a, freeze b", "frozen a ->", "frozen b -> cut",
			"ended a -> thaw b", "held b ->", "cuts -> finish",
		}, false, true, "node a: because"},
		{"held, but before the order", twoNodes(), []string{
			"start -> arm a, arm b", "armed a ->", "armed b -> freeze a, freeze b", "frozen a ->", "frozen b -> cut",
			"held a -> thaw b", "cuts ->", "held b -> finish",
		}, false, true, "node a thawed without being told to"},
		{"a node is lost after the cuts", twoNodes(), []string{
			"start -> arm a, arm b", "armed a ->", "armed b -> freeze a, freeze b", "frozen a ->", "frozen b -> cut",
			"cuts -> thaw a, thaw b", "lost a ->", "held b -> finish",
		}, false, true, "node a: because"},
		{"a cut fails: all thaw at once", twoNodes(), []string{
			"start -> arm a, arm b", "armed a ->", "armed b -> freeze a, freeze b", "frozen a ->", "frozen b -> cut",
			"cutfailed -> thaw a, thaw b", "held a ->", "held b -> finish",
		}, false, true, "a cut failed: because"},
		{"called off before the freeze", twoNodes(), []string{
			"start -> arm a, arm b", "armed a ->", "cancel -> thaw a, thaw b, finish",
		}, false, false, "called off"},
		{"called off while frozen", twoNodes(), []string{
			"start -> arm a, arm b", "armed a ->", "armed b -> freeze a, freeze b", "frozen a ->", "frozen b -> cut",
			"cancel -> thaw a, thaw b", "held a ->", "held b ->", "cutfailed -> finish",
		}, false, true, "called off"},
		{"held without ever having been frozen", twoNodes(), []string{
			"start -> arm a, arm b", "armed a ->", "armed b -> freeze a, freeze b", "frozen a ->", "held b -> thaw a, cut", "cuts ->", "held a -> finish",
		}, false, true, "node b"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := script(t, tt.plan, tt.lines...)
			got := c.Outcome()
			if got.Held != tt.held || got.Cut != tt.cut || !strings.Contains(got.Why, tt.why) || (got.Why == "") != tt.held {
				t.Errorf("outcome is %+v, want held %v, cut %v, why %q", got, tt.held, tt.cut, tt.why)
			}
		})
	}
}

func TestCoordinatorGivesUpSlowCutsAndNodes(t *testing.T) {
	lines := []string{"start -> arm a, arm b", "armed a ->", "armed b -> freeze a, freeze b", "frozen a ->", "frozen b -> cut"}
	c := script(t, twoNodes(), lines...)
	late := c.Deadline()
	if want := origin.Add(2*time.Second + 12*time.Second); !late.Equal(want) {
		t.Fatalf("the window ends at %s, want %s: it counts from the order to freeze", late, want)
	}
	if got := effectText(c.Step(late, Event{Kind: Tick})); got != "thaw a, thaw b" {
		t.Errorf("when the cuts are late: %q", got)
	}
	if !c.Deadline().IsZero() {
		t.Error("a slow cut is given up by who cuts, not by the barrier")
	}
	c.Step(late, Event{Kind: CutsDone})
	if got := effectText(c.Step(c.Deadline(), Event{Kind: Tick})); got != "finish" {
		t.Errorf("when nodes say nothing: %q", got)
	}
	if out := c.Outcome(); out.Held || !strings.Contains(out.Why, "longer than the window") {
		t.Errorf("outcome %+v", out)
	}
}

// words drives a Holder of two volumes.
func words(t *testing.T, h *Holder, lines ...string) {
	t.Helper()
	signals := map[string]Signal{"ready": Ready, "refused": Refused, "freeze": OrderFreeze, "thaw": OrderThaw, "abandoned": Abandoned, "guardlost": GuardLost, "stopping": Stopping, "clock": Clock}
	for i, line := range lines {
		in, want, _ := strings.Cut(line, "->")
		in = strings.TrimSpace(in)
		w := Word{Signal: signals[in], Why: "because"}
		var v int
		switch {
		case sscan(in, "froze %d", &v):
			w = Word{Signal: Froze, Volume: v}
		case sscan(in, "notfroze %d", &v):
			w = Word{Signal: Froze, Volume: v, Why: "busy"}
		case sscan(in, "thawed %d", &v):
			w = Word{Signal: Thawed, Volume: v, Still: true}
		case sscan(in, "wasthawed %d", &v):
			w = Word{Signal: Thawed, Volume: v}
		}
		var got []string
		for _, task := range h.Step(origin.Add(time.Duration(i)*time.Second), w) {
			name := map[Deed]string{FreezeVolume: "freeze", ThawVolume: "thaw", Report: "report"}[task.Deed]
			if task.Deed != Report {
				name += fmt.Sprint(" ", task.Volume)
			}
			got = append(got, name)
		}
		if text := strings.Join(got, ", "); text != strings.TrimSpace(want) {
			t.Fatalf("line %d, %q: got %q, want %q", i, in, text, want)
		}
	}
}

func sscan(in, format string, v *int) bool {
	n, err := fmt.Sscanf(in, format, v)
	return err == nil && n == 1
}

func TestHolder(t *testing.T) {
	frozen := []string{"ready -> report", "freeze -> freeze 0, freeze 1", "froze 0 ->", "froze 1 -> report"}
	tests := []struct {
		name  string
		lines []string
		held  bool
		why   string
	}{
		{"held", append(slices.Clone(frozen), "thaw -> thaw 0, thaw 1", "thawed 0 ->", "thawed 1 -> report"), true, ""},
		{"told twice", append(slices.Clone(frozen), "freeze ->", "thaw -> thaw 0, thaw 1", "thaw ->", "thawed 1 ->", "thawed 0 -> report", "thaw ->"), true, ""},
		{"a stranger thawed", append(slices.Clone(frozen), "thaw -> thaw 0, thaw 1", "thawed 0 ->", "wasthawed 1 -> report"), false, "somebody else"},
		{"watchdog died", append(slices.Clone(frozen), "guardlost -> thaw 0, thaw 1", "thaw ->", "thawed 0 ->", "thawed 1 -> report"), false, "watchdog"},
		{"watchdog died after the order", append(slices.Clone(frozen), "thaw -> thaw 0, thaw 1", "guardlost ->", "thawed 0 ->", "thawed 1 -> report"), true, ""},
		{"process ends", append(slices.Clone(frozen), "stopping -> thaw 0, thaw 1", "thawed 0 ->", "thawed 1 -> report"), false, "stopped"},
		{"order removed", append(slices.Clone(frozen), "abandoned -> thaw 0, thaw 1", "thawed 0 ->", "thawed 1 -> report"), false, "removed"},
		{"the window ends", append(slices.Clone(frozen), "clock ->", "clock ->", "clock ->", "clock ->", "clock ->", "clock -> thaw 0, thaw 1", "thaw ->", "thawed 0 ->", "thawed 1 -> report"), false, "window of 8s"},
		{"no order comes", []string{"ready -> report", "clock ->", "clock ->", "clock -> report"}, false, "within 3s"},
		{"refused", []string{"refused -> report", "ready ->", "freeze ->"}, false, "because"},
		{"thaw before freeze", []string{"ready -> report", "thaw -> report"}, false, "before everything"},
		{"one cannot freeze", []string{"ready -> report", "freeze -> freeze 0, freeze 1", "notfroze 1 ->", "froze 0 -> thaw 0", "thawed 0 -> report"}, false, "busy"},
		{"one cannot freeze, the other is frozen", []string{"ready -> report", "freeze -> freeze 0, freeze 1", "froze 0 ->", "notfroze 1 -> thaw 0", "thawed 0 -> report"}, false, "busy"},
		{"the kernel answers late", []string{"ready -> report", "freeze -> freeze 0, freeze 1", "froze 0 ->", "thaw -> thaw 0", "thawed 0 ->", "froze 1 -> thaw 1", "thawed 1 -> report"}, false, "before everything"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := NewHolder(2, 8*time.Second, 3*time.Second, origin)
			words(t, h, tt.lines...)
			said := h.Said()
			if said.State != StateEnded || said.Held != tt.held || !strings.Contains(said.Why, tt.why) || (said.Why == "") != tt.held {
				t.Errorf("it says %+v, want held %v and %q", said, tt.held, tt.why)
			}
		})
	}
}

func TestHolderClaimsNothingBeforeTheEnd(t *testing.T) {
	h := NewHolder(2, 8*time.Second, 3*time.Second, origin)
	words(t, h, "ready -> report", "freeze -> freeze 0, freeze 1", "froze 0 ->", "froze 1 -> report", "thaw -> thaw 0, thaw 1", "thawed 0 ->")
	if said := h.Said(); said.Held || said.State != StateFrozen {
		t.Errorf("with a file system frozen it says %+v", said)
	}
}
