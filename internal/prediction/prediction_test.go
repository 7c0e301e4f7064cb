package prediction_test

import (
	"testing"
	"time"

	"davit.dev/davit/internal/prediction"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func past(plan, verb string, at int, rto ...time.Duration) prediction.Past {
	p := prediction.Past{Plan: plan, Verb: verb, At: t0.Add(time.Duration(at) * time.Hour), RTO: map[string]time.Duration{}}
	for i, d := range rto {
		p.RTO[[]string{"a", "b"}[i]] = d
	}
	return p
}

func TestOfRun(t *testing.T) {
	both := []string{"a", "b"}
	for name, c := range map[string]struct {
		past           []prediction.Past
		apps           []string
		known          bool
		typical, worst time.Duration
		basis          string
	}{
		"none":          {nil, both, false, 0, 0, "no history"},
		"another plan":  {[]prediction.Past{past("other", "failover", 1, 5, 6)}, both, false, 0, 0, "no history"},
		"not all up":    {[]prediction.Past{past("p", "failover", 1, 5)}, both, false, 0, 0, "no history"},
		"no apps":       {[]prediction.Past{past("p", "failover", 1, 5)}, nil, false, 0, 0, "no history"},
		"one":           {[]prediction.Past{past("p", "failover", 1, 5, 6)}, both, true, 6, 6, "one run of the verb failover"},
		"three":         {[]prediction.Past{past("p", "failover", 1, 5, 6), past("p", "failover", 2, 9, 1), past("p", "failover", 3, 7, 7)}, both, true, 7, 9, "3 runs of the verb failover"},
		"drills only":   {[]prediction.Past{past("p", "drill", 1, 5, 6)}, both, true, 6, 6, "one run of the verb drill, which claims, fences and moves nothing"},
		"moves first":   {[]prediction.Past{past("p", "drill", 2, 5, 6), past("p", "switchover", 1, 8, 8)}, both, true, 8, 8, "one run of the verb switchover"},
		"one app of it": {[]prediction.Past{past("p", "failover", 1, 5, 60)}, []string{"a"}, true, 5, 5, "one run of the verb failover"},
	} {
		got := prediction.OfRun(c.past, "p", "failover", c.apps)
		if got.Known != c.known || got.Typical != c.typical || got.Worst != c.worst || got.Basis != c.basis {
			t.Errorf("%s: %+v", name, got)
		}
	}
	var many []prediction.Past
	for i := range 2 * prediction.Considered {
		many = append(many, past("p", "failover", i, time.Duration(100-i), 1))
	}
	if got := prediction.OfRun(many, "p", "failover", both); got.Runs != prediction.Considered || got.Worst != 90 || !got.Last.Equal(t0.Add(19*time.Hour)) {
		t.Errorf("old runs count: %+v", got)
	}
}

func TestOfCopies(t *testing.T) {
	tests := map[string][]time.Duration{"a": {3, 9, 5}, "b": {7}}
	if got := prediction.OfCopies(tests, []string{"a", "b"}); !got.Known || got.Typical != 7 || got.Worst != 9 || got.Runs != 4 {
		t.Errorf("%+v", got)
	}
	for _, apps := range [][]string{nil, {"a", "c"}} {
		if got := prediction.OfCopies(tests, apps); got.Known || got.Basis != "no history" {
			t.Errorf("%v: %+v", apps, got)
		}
	}
}

func TestOfPoints(t *testing.T) {
	at := func(cut, whole int) prediction.Point {
		return prediction.Point{Instant: t0.Add(time.Duration(cut) * time.Minute), Whole: t0.Add(time.Duration(whole) * time.Minute)}
	}
	points := []prediction.Point{at(20, 21), at(0, 1), at(10, 12)}
	if got := prediction.OfPoints(points, t0.Add(25*time.Minute)); !got.Known || got.Typical != 12*time.Minute || got.Worst != 12*time.Minute || got.Points != 3 {
		t.Errorf("%+v", got)
	}
	if got := prediction.OfPoints(points, t0.Add(time.Hour)); got.Worst != 40*time.Minute {
		t.Errorf("captures stopped, and that is not seen: %+v", got)
	}
	if got := prediction.OfPoints(points[:1], t0); got.Known {
		t.Errorf("%+v", got)
	}
}

func TestAgainst(t *testing.T) {
	for _, c := range []struct {
		known            bool
		worst, objective time.Duration
		met              bool
		words            string
	}{
		{true, 5, 0, true, "no objective"},
		{false, 0, 5, true, "not known whether it keeps the objective"},
		{true, 6, 5, false, "beyond the objective"},
		{true, 5, 5, true, "within the objective"},
	} {
		if met, words := prediction.Against(c.known, c.worst, c.objective); met != c.met || words != c.words {
			t.Errorf("%+v: %t %s", c, met, words)
		}
	}
}
