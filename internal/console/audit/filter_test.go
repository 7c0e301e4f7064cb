package audit

import (
	"context"
	"errors"
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

// A part of a log goes on where the one before came to, and however few records are
// wanted, a bounded number is looked at.
func TestSelect(t *testing.T) {
	const length = reads + 2*stride + 7
	looked := 0
	read := func(_ context.Context, before int64, limit int) (all []Record, err error) {
		if before <= 0 {
			before = length + 1
		}
		for n := before - 1; n > 0 && len(all) < limit; n-- {
			all = append(all, Record{Sequence: n, Action: map[bool]string{true: "rare"}[n == 5 || n == length-3]})
		}
		looked += len(all)
		return all, nil
	}
	for name, c := range map[string]struct {
		filter Filter
		at     int64
		limit  int
		want   Part // of Records the number counts
		found  int
		looked int
	}{
		"all":              {Filter{}, 0, 10, Part{At: length - 9}, 10, 10},
		"the last of all":  {Filter{}, 8, 10, Part{At: 1, End: true}, 7, 7},
		"one":              {Filter{Action: "rare"}, 0, 1, Part{At: length - 3}, 1, stride},
		"in bounds":        {Filter{Action: "rare"}, 0, 2, Part{At: length - reads + 1}, 1, reads},
		"from there on":    {Filter{Action: "rare"}, length - reads + 1, 2, Part{At: 1, End: true}, 1, 2*stride + 7},
		"none in what is":  {Filter{Action: "none"}, 900, 2, Part{At: 1, End: true}, 0, 899},
		"nothing is there": {Filter{}, 1, 2, Part{At: 1, End: true}, 0, 0},
	} {
		looked = 0
		got, err := c.filter.Select(t.Context(), read, c.at, c.limit)
		if err != nil || got.At != c.want.At || got.End != c.want.End || len(got.Records) != c.found || looked != c.looked {
			t.Errorf("%s: at %d, end %t, %d found of %d; %v", name, got.At, got.End, len(got.Records), looked, err)
		}
	}
	fault := errors.New("no")
	if _, err := (Filter{}).Select(t.Context(), func(context.Context, int64, int) ([]Record, error) { return nil, fault }, 0, 1); !errors.Is(err, fault) {
		t.Error(err)
	}
}
