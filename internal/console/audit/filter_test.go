package audit

import (
	"testing"
	"time"
)

func TestFilter(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	r := Record{At: at, By: "user/anna", Action: "member.set", Object: "vera", Refused: "no"}
	for name, c := range map[string]struct {
		filter Filter
		want   bool
	}{
		"all":               {Filter{}, true},
		"by":                {Filter{By: "user/anna"}, true},
		"by the name alone": {Filter{By: "anna"}, true},
		"by a beginning":    {Filter{By: "user/*"}, true},
		"by another":        {Filter{By: "ann"}, false},
		"by a robot":        {Filter{By: "robot/*"}, false},
		"action":            {Filter{Action: "member.*"}, true},
		"another action":    {Filter{Action: "member"}, false},
		"object":            {Filter{Object: "vera"}, true},
		"another object":    {Filter{Object: "bob"}, false},
		"refused":           {Filter{Refused: true}, true},
		"since":             {Filter{Since: at, Until: at}, true},
		"since later":       {Filter{Since: at.Add(time.Millisecond)}, false},
		"until earlier":     {Filter{Until: at.Add(-time.Millisecond)}, false},
		"one does not fit":  {Filter{By: "anna", Action: "login"}, false},
	} {
		if got := c.filter.Match(r); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	r.Refused, r.By = "", "console"
	if (Filter{Refused: true}).Match(r) || !(Filter{By: "console"}).Match(r) {
		t.Error("a record that was not refused, or has no slash")
	}
}
