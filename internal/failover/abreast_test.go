package failover

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"davit.dev/davit/internal/plan"
)

// TestDataAbreast: of many applications the data of a few comes at a time, and
// first of those that start first.
func TestDataAbreast(t *testing.T) {
	const each = 2*Abreast + 1
	r := newRig(t, plan.Drill, func(p *plan.Plan, s *Spec) {
		p.Groups = []plan.Group{{Name: "first"}, {Name: "last", After: []string{"first"}}}
		p.Applications, s.Applications = nil, nil
		for i := range each { // by name the other way round
			p.Applications = append(p.Applications,
				plan.Application{Name: fmt.Sprintf("z%02d", i), Group: "first"}, plan.Application{Name: fmt.Sprintf("a%02d", i), Group: "last"})
		}
		for _, a := range p.Applications {
			s.Applications = append(s.Applications, a.Name)
		}
		slices.Sort(s.Applications)
	})
	var open []Effect
	var begun []string
	r.answer = func(e Effect) *Event {
		if e.Action != Act || e.Step == nil || e.Step.Kind != plan.KindClone {
			return nil
		}
		open, begun = append(open, e), append(begun, e.Step.Application)
		return &Event{}
	}
	r.tell(Event{Kind: Begin})
	for len(open) > 0 {
		if len(open) > Abreast {
			t.Fatalf("%d at once, want %d at most", len(open), Abreast)
		}
		if rest := 2*each - len(begun); len(open) < Abreast && rest > 0 {
			t.Fatalf("%d at once, and %d wait", len(open), rest)
		}
		done := open[0]
		open = open[1:]
		r.tell(Event{Kind: Acted, Outcome: Done, ID: done.ID})
	}
	r.pass(Completed)
	for i, app := range begun {
		if first := strings.HasPrefix(app, "z"); first != (i < each) {
			t.Fatalf("%s came as number %d: %v", app, i, begun)
		}
	}
	if len(begun) != 2*each {
		t.Errorf("%d of %d came: %v", len(begun), 2*each, begun)
	}
}
