package vault

import (
	"testing"
	"time"
)

// TestPinnedByMarks has the marks of writers that say what they saw, of older
// ones that do not, and of both. byClocks is what the rule of the older ones
// would have said: wrong where their clocks differ.
func TestPinnedByMarks(t *testing.T) {
	at := func(seconds int) time.Time { return time.Unix(int64(seconds), 0) }
	pin := func(ordinal string, clock int, seen ...string) Mark {
		return Mark{Kind: MarkPinned, At: at(clock), Ordinal: ordinal, Seen: append([]string{}, seen...)}
	}
	unpin := func(ordinal string, clock int, seen ...string) Mark {
		m := pin(ordinal, clock, seen...)
		m.Kind = MarkUnpinned
		return m
	}
	old := func(m Mark) Mark { m.Seen = nil; return m }
	for name, test := range map[string]struct {
		marks          []Mark
		want, byClocks bool
	}{
		"nothing":                              {nil, false, false},
		"other marks":                          {[]Mark{{Kind: MarkVerified, At: at(1), Seen: nil}}, false, false},
		"pin":                                  {[]Mark{pin("a", 1)}, true, true},
		"unpin alone":                          {[]Mark{unpin("a", 1)}, false, false},
		"pin, unpin":                           {[]Mark{pin("a", 1), unpin("b", 2, "a")}, false, false},
		"unpin by a slow clock":                {[]Mark{pin("a", 9), unpin("b", 2, "a")}, false, true},
		"pin by a slow clock":                  {[]Mark{unpin("a", 9), pin("b", 2, "a")}, true, false},
		"unseen pin, unpin by a fast clock":    {[]Mark{pin("a", 1), pin("b", 2, "a"), unpin("c", 9, "a")}, true, false},
		"both seen":                            {[]Mark{pin("a", 1), pin("b", 2, "a"), unpin("c", 3, "a", "b")}, false, false},
		"pin, unpin, pin":                      {[]Mark{pin("a", 1), unpin("b", 2, "a"), pin("c", 3, "a", "b")}, true, true},
		"two unpins share the work":            {[]Mark{pin("a", 1), pin("b", 1), unpin("c", 3, "a"), unpin("d", 4, "b")}, false, false},
		"old: pin, unpin":                      {[]Mark{old(pin("a", 1)), old(unpin("b", 2))}, false, false},
		"old: unpin, pin":                      {[]Mark{old(unpin("a", 1)), old(pin("b", 2))}, true, true},
		"old: of one instant":                  {[]Mark{old(pin("a", 1)), old(unpin("b", 1))}, true, true},
		"old unpin, later pin by a slow clock": {[]Mark{old(unpin("a", 9)), pin("b", 1, "a")}, true, false},
		"old pin, new unpin by a slow clock":   {[]Mark{old(pin("a", 9)), unpin("b", 1, "a")}, false, true},
		"new pin, old unpin":                   {[]Mark{pin("a", 1), old(unpin("b", 2))}, false, false},
	} {
		if got := pinned(test.marks); got != test.want {
			t.Errorf("%s: pinned is %v", name, got)
		}
		if got := pinnedByClocks(test.marks); got != test.byClocks {
			t.Errorf("%s: by clocks it is %v", name, got)
		}
	}
}

// pinnedByClocks is how it was decided before marks said what they saw.
func pinnedByClocks(marks []Mark) bool {
	var pin, unpin time.Time
	for _, m := range marks {
		switch {
		case m.Kind == MarkPinned && m.At.After(pin):
			pin = m.At
		case m.Kind == MarkUnpinned && m.At.After(unpin):
			unpin = m.At
		}
	}
	return !pin.IsZero() && !unpin.After(pin)
}
