package failover

import (
	"slices"
	"strings"
	"testing"

	"davit.dev/davit/internal/plan"
)

// promoted is a run in a promoted vault: besides the source, what nobody holds any
// more of the lost one is a former holder, and never answers.
func promoted(t *testing.T, verb plan.Verb, words map[string]map[string]string) (r *rig, asked *[]string) {
	t.Helper()
	r, asked = newRig(t, verb, nil), &[]string{}
	for app := range r.facts.Holders {
		r.facts.Holders[app] = []string{"east", "nobody"}
	}
	r.facts.Words = words
	r.answer = func(f Effect) *Event {
		if f.Step == nil || f.Step.Kind != plan.KindFence {
			return nil
		}
		*asked = append(*asked, f.Sites...)
		answer := r.well(f)
		if slices.Contains(f.Sites, "nobody") {
			answer.Outcome = NoAnswer
		}
		return answer
	}
	return r, asked
}

// TestAWordForGood lets every run go on whose other former holders are proven: a
// planned one, too, which takes no consent. It is no proof: the level stays none. The
// controls: nobody said it, or not of all applications; and a word about another
// former holder than that one is no word about it.
func TestAWordForGood(t *testing.T) {
	by := map[string]string{"nobody": "ann"}
	both := map[string]map[string]string{"shop": by, "cart": by}
	for _, verb := range []plan.Verb{plan.Switchover, plan.Failback, plan.Failover} {
		for name, c := range map[string]struct {
			words map[string]map[string]string
			want  bool
		}{
			"said":                       {both, true},
			"not said":                   {nil, false},
			"not of all applications":    {map[string]map[string]string{"shop": by}, false},
			"of another former holder":   {map[string]map[string]string{"shop": {"east": "ann"}, "cart": {"east": "ann"}}, false},
			"by nobody who can be named": {map[string]map[string]string{"shop": {"nobody": ""}, "cart": {"nobody": ""}}, false},
		} {
			r, asked := promoted(t, verb, c.words)
			r.run(AwaitingCommit, RolledBack, Paused, OutcomeUnknown)
			s := r.m.State()
			if done := s.Phase == AwaitingCommit; done != c.want {
				t.Errorf("%s, %s: the run is %s: %v", verb, name, s.Phase, r.m.Waits())
			}
			if !c.want {
				for _, app := range s.Spec.Applications {
					if len(c.words[app]) == 0 {
						r.never("act scale/" + app)
					}
				}
				continue
			}
			if res := s.Result(); res.Level != "none (forced)" || res.Applications[0].Fences["nobody"] != "none (forced)" || res.Applications[0].Fences["east"] != "proven" {
				t.Errorf("%s, %s: %+v", verb, name, res)
			}
			if slices.Contains(*asked, "nobody") {
				t.Errorf("%s, %s: whom the word is about was asked: %v", verb, name, *asked)
			}
		}
	}
}

// TestNobodyIsNotAskedInVain: once a person said with the order that no lost site runs, only
// the others are asked: nobody's silence would take all of the fence's time. The controls: it
// was not said, or said of another, or a cluster bears the name.
func TestNobodyIsNotAskedInVain(t *testing.T) {
	for name, c := range map[string]struct {
		lost   []string
		shared map[string]string
		asked  bool
	}{
		"said":                      {[]string{Nobody}, nil, false},
		"not said":                  {nil, nil, true},
		"said of the source":        {[]string{"east"}, nil, true},
		"a cluster bears that name": {[]string{Nobody}, map[string]string{"shop": Nobody, "cart": Nobody}, true},
	} {
		r := newRig(t, plan.Failover, func(_ *plan.Plan, s *Spec) { s.Lost = c.lost })
		for app := range r.facts.Holders {
			r.facts.Holders[app] = []string{"east", Nobody}
		}
		r.facts.Shared = c.shared
		asked, east := false, false
		r.answer = func(f Effect) *Event {
			if f.Step != nil && f.Step.Kind == plan.KindFence {
				asked, east = asked || slices.Contains(f.Sites, Nobody), east || slices.Contains(f.Sites, "east")
			}
			return nil
		}
		r.run(AwaitingCommit, Paused)
		if asked != c.asked || !east {
			t.Errorf("%s: nobody is asked: %t, east: %t", name, asked, east)
		}
		if level := r.m.State().Fences["shop"][Nobody].Level; !asked && level != None {
			t.Errorf("%s: the consent counts as %s", name, level)
		}
	}
}

// TestAWordIsForNobodyElse: with it, a source that is lost still needs a proof or a
// consent of its own, and is what people are asked for.
func TestAWordIsForNobodyElse(t *testing.T) {
	by := map[string]string{"nobody": "ann"}
	r, _ := promoted(t, plan.Failover, map[string]map[string]string{"shop": by, "cart": by})
	r.answer = func(f Effect) *Event {
		if f.Step != nil && f.Step.Kind == plan.KindFence {
			return &Event{Kind: Looked, Outcome: NoAnswer}
		}
		return nil
	}
	r.run(Paused)
	r.never("act scale/shop")
	if waits := strings.Join(r.m.Waits(), " "); !strings.Contains(waits, "nothing proves that site east has stopped") {
		t.Error(waits)
	}
	var sites []string
	for _, o := range r.m.State().Offers() {
		if o.Kind == Consent {
			sites = append(sites, o.Site)
		}
	}
	if !slices.Equal(sites, []string{"east"}) {
		t.Errorf("offered: %v", sites)
	}
	if why := r.says(Consent, func(e *Event) { e.Site, e.Text = "east", "east" }); why != "" {
		t.Fatal(why)
	}
	r.pass(AwaitingCommit)
}
