package point_test

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"davit.dev/davit/internal/point"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// drawPoints draws points around epoch, some of each sort.
func drawPoints(t *rapid.T) []point.Point {
	n := rapid.IntRange(0, 20).Draw(t, "points")
	points := make([]point.Point, n)
	for i := range points {
		flag := func(name string) bool { return rapid.IntRange(0, 4).Draw(t, name) == 0 }
		points[i] = point.Point{
			ID:      fmt.Sprintf("p%02d", i),
			Instant: epoch.Add(time.Duration(rapid.IntRange(-100, 100).Draw(t, "instant")) * time.Minute),
			Epoch:   rapid.Int64Range(0, 4).Draw(t, "epoch"),
			Pinned:  flag("pinned"), Quarantined: flag("quarantined"), Deleting: flag("deleting"), Damaged: flag("damaged"),
		}
		if flag("verified") {
			points[i].Verified = epoch
		}
	}
	return points
}

func TestKeep(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		points := drawPoints(t)
		rules := point.Retention{
			KeepLast: rapid.IntRange(0, 6).Draw(t, "keepLast"),
			MaxAge:   time.Duration(rapid.IntRange(0, 120).Draw(t, "maxAge")) * time.Minute,
		}
		decisions := point.Keep(points, rules, epoch)
		if len(decisions) != len(points) {
			t.Fatalf("%d decisions on %d points", len(decisions), len(points))
		}
		newest, hasNewest := point.Newest(points, epoch.Add(time.Minute))
		good, verified := 0, false
		for i, d := range decisions {
			if i > 0 && newer(d.Point, decisions[i-1].Point) {
				t.Fatal("decisions are not newest first")
			}
			if d.Reason == "" {
				t.Errorf("%s: no reason", d.Point.ID)
			}
			p := d.Point
			counts := p.Good() && !p.Instant.After(epoch.Add(time.Minute))
			must := p.Pinned || p.Damaged || rules == point.Retention{} ||
				hasNewest && p.ID == newest.ID ||
				p.Instant.After(epoch.Add(time.Minute)) ||
				counts && !verified && !p.Verified.IsZero() ||
				counts && good < rules.KeepLast ||
				rules.MaxAge > 0 && epoch.Sub(p.Instant) < rules.MaxAge
			if p.Deleting && d.Keep {
				t.Errorf("%s is being deleted and kept", p.ID)
			}
			if !p.Deleting && must && !d.Keep {
				t.Errorf("%+v expired: %s", p, d.Reason)
			}
			if d.Until.IsZero() == strings.HasPrefix(d.Reason, "younger than ") || !d.Until.IsZero() && (d.Until.Sub(p.Instant) != rules.MaxAge || !d.Until.After(epoch)) {
				t.Errorf("%+v kept until %s: %s", p, d.Until, d.Reason)
			}
			if p.Good() && !must && d.Keep {
				t.Errorf("%+v kept: %s", p, d.Reason)
			}
			if counts {
				good++
				verified = verified || !p.Verified.IsZero()
			}
		}
		again := point.Keep(kept(decisions), rules, epoch)
		if len(kept(again)) != len(again) {
			t.Error("a second pass expires more at the same moment")
		}
	})
}

func kept(decisions []point.Decision) []point.Point {
	var points []point.Point
	for _, d := range decisions {
		if d.Keep {
			points = append(points, d.Point)
		}
	}
	return points
}

// newer is the order that the rules promise: epochs before clocks.
func newer(a, b point.Point) bool {
	return a.Epoch > b.Epoch || (a.Epoch == b.Epoch && a.Instant.After(b.Instant))
}

func TestNewest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		points := drawPoints(t)
		asOf := epoch.Add(time.Duration(rapid.IntRange(-120, 120).Draw(t, "asOf")) * time.Minute)
		newest, ok := point.Newest(points, asOf)
		for _, p := range points {
			if p.Good() && !p.Instant.After(asOf) && (!ok || newer(p, newest)) {
				t.Fatalf("Newest = %+v, %v; %+v is better", newest, ok, p)
			}
		}
		if ok && (!newest.Good() || newest.Instant.After(asOf)) {
			t.Errorf("Newest = %+v may not be offered", newest)
		}
		slices.Reverse(points)
		if again, _ := point.Newest(points, asOf); again.ID != newest.ID {
			t.Errorf("Newest depends on the order: %s, %s", newest.ID, again.ID)
		}
	})
}

func TestRPO(t *testing.T) {
	points := []point.Point{{ID: "a", Instant: epoch}, {ID: "b", Instant: epoch.Add(time.Minute), Quarantined: true}}
	if age, ok := point.RPO(points, epoch.Add(5*time.Minute)); !ok || age != 5*time.Minute {
		t.Errorf("RPO = %v, %v; want 5m: quarantined points do not count", age, ok)
	}
	if age, ok := point.RPO(points, epoch.Add(-time.Hour)); !ok || age != 0 {
		t.Errorf("RPO with a clock behind = %v, %v; want 0", age, ok)
	}
	if _, ok := point.RPO(nil, epoch); ok {
		t.Error("RPO of nothing is known")
	}
	if !point.Overdue(nil, time.Hour, epoch) || point.Overdue(points, time.Hour, epoch) || !point.Overdue(points, time.Minute, epoch.Add(time.Hour)) {
		t.Error("Overdue: want true without points, false within the objective, true beyond")
	}
	if loss := point.Loss(points[0], epoch.Add(time.Second)); loss != time.Second {
		t.Errorf("Loss = %v", loss)
	}
}

var dnsName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

func TestNewID(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		app := rapid.StringMatching(`[a-z0-9]([-a-z0-9]{0,60}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,60}[a-z0-9])?){0,3}`).Draw(t, "app")
		ms := rapid.Int64Range(0, 200*365*24*3600*1000)
		a, b := time.UnixMilli(ms.Draw(t, "a")), time.UnixMilli(ms.Draw(t, "b"))
		random := rapid.SliceOfN(rapid.Byte(), 12, 12).Draw(t, "random")
		first, err := point.NewID(app, a, bytes.NewReader(random))
		if err != nil {
			t.Fatal(err)
		}
		second, err := point.NewID(app, b, bytes.NewReader(random[6:]))
		if err != nil {
			t.Fatal(err)
		}
		if len(first) > 253 || !dnsName.MatchString(first) {
			t.Errorf("%q is no DNS-1123 subdomain", first)
		}
		if at, ok := point.IDTime(first); !ok || !at.Equal(a) {
			t.Errorf("IDTime(%q) = %v, %v; want %v", first, at, ok, a)
		}
		if a.Before(b) && first >= second {
			t.Errorf("%q does not sort before %q", first, second)
		}
	})
	if _, err := point.NewID("shop", epoch, strings.NewReader("")); err == nil {
		t.Error("an id without randomness")
	}
	for _, id := range []string{"", "shop", "shop-x-y", strings.Repeat("-", 40)} {
		if _, ok := point.IDTime(id); ok {
			t.Errorf("IDTime(%q) found a time", id)
		}
	}
}

func TestNext(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		minutes := rapid.IntRange(-1000, 1000)
		now := epoch
		last := epoch.Add(time.Duration(minutes.Draw(t, "last")) * time.Minute)
		every := time.Duration(rapid.IntRange(1, 500).Draw(t, "every")) * time.Minute
		next := point.Next(last, every, now)
		if next.Before(now) || next.After(now.Add(every)) {
			t.Errorf("Next = %v, want from now to one interval later", next)
		}
		if !last.After(now) && next.After(now) && !next.Equal(last.Add(every)) {
			t.Errorf("Next = %v, want the last start and one interval", next)
		}
		if d := point.Spread("shop", every); d < 0 || d >= every || d != point.Spread("shop", every) {
			t.Errorf("Spread = %v of %v", d, every)
		}
	})
	if next := point.Next(time.Time{}, time.Hour, epoch); !next.Equal(epoch) {
		t.Errorf("the first run is at %v, want at once", next)
	}
}

func TestWeakest(t *testing.T) {
	all := []point.Consistency{point.Application, point.Crash, point.PerVolume, point.Fuzzy}
	for i, a := range all {
		for j, b := range all {
			if got, want := point.Weakest(a, b), all[max(i, j)]; got != want {
				t.Errorf("Weakest(%s, %s) = %s, want %s", a, b, got, want)
			}
			if got, want := a.AtLeast(b), i <= j; got != want {
				t.Errorf("%s.AtLeast(%s) = %v", a, b, got)
			}
		}
	}
	if point.Weakest() != point.Application || point.Weakest("odd", point.Crash) != point.Fuzzy {
		t.Error("Weakest of nothing is application, of the unknown fuzzy")
	}
}

func TestQuarantined(t *testing.T) {
	epochs := []point.Epoch{{Number: 1}, {Number: 3, Accepted: []string{"b"}}, {Number: 2, Accepted: []string{"a"}}}
	tests := []struct {
		p    point.Point
		want bool
	}{
		{point.Point{ID: "a", Epoch: 1}, false}, // accepted by 2
		{point.Point{ID: "b", Epoch: 1}, true},  // 3 is not the one that decides
		{point.Point{ID: "b", Epoch: 2}, false},
		{point.Point{ID: "c", Epoch: 2}, true},
		{point.Point{ID: "c", Epoch: 3}, false}, // the newest
		{point.Point{ID: "d", Epoch: 9}, false}, // newer than the list
		{point.Point{ID: "a", Epoch: 0}, true},  // 1 accepted nothing
	}
	for _, test := range tests {
		got := len(point.Quarantined([]point.Point{test.p}, epochs)) > 0
		if got != test.want {
			t.Errorf("%s of epoch %d: quarantined %v, want %v", test.p.ID, test.p.Epoch, got, test.want)
		}
	}
}

func TestCheck(t *testing.T) {
	good := func() *point.Manifest {
		pack := point.Pack{Key: "k", SHA256: strings.Repeat("0", 64), Size: 1, Count: 2}
		return &point.Manifest{
			FormatVersion: 1, ID: "i", Application: "a", Project: "p", Site: "s", Instant: epoch, Consistency: point.PerVolume,
			Resources: []point.Resource{{Resource: "secrets", Count: 2, Packs: []point.Pack{pack}}},
			Volumes:   []point.Volume{{Consistency: point.Crash}},
		}
	}
	if err := good().Check(); err != nil {
		t.Fatal(err)
	}
	spoil := map[string]func(*point.Manifest){
		"version":     func(m *point.Manifest) { m.FormatVersion = 0 },
		"id":          func(m *point.Manifest) { m.ID = "" },
		"epoch":       func(m *point.Manifest) { m.Epoch = -1 },
		"consistency": func(m *point.Manifest) { m.Consistency = "odd" },
		"instant":     func(m *point.Manifest) { m.Instant = time.Time{} },
		"cut":         func(m *point.Manifest) { m.CutBy = epoch.Add(-1) },
		"count":       func(m *point.Manifest) { m.Resources[0].Count = 3 },
		"sum":         func(m *point.Manifest) { m.Resources[0].Packs[0].SHA256 = "" },
		"twice":       func(m *point.Manifest) { m.Log = &m.Resources[0].Packs[0] },
		"volume":      func(m *point.Manifest) { m.Volumes[0].Consistency = point.Fuzzy },
		"errors":      func(m *point.Manifest) { m.Volumes[0].Snapshot.Errors = 1 },
	}
	for name, change := range spoil {
		m := good()
		change(m)
		if err := m.Check(); !errors.Is(err, point.ErrInvalid) {
			t.Errorf("%s: Check = %v, want ErrInvalid", name, err)
		}
	}
}

// A clock that was a day ahead left points of tomorrow. What is captured now must not go
// for them, by any rule: all that is wrong with them is their time.
func TestPointsYetToComeTakeNoPlace(t *testing.T) {
	points := []point.Point{{ID: "now", Instant: epoch}, {ID: "before", Instant: epoch.Add(-time.Hour)}}
	for i := range 3 {
		points = append(points, point.Point{ID: fmt.Sprint("tomorrow-", i), Instant: epoch.Add(time.Duration(24+i) * time.Hour), Verified: epoch})
	}
	for name, rules := range map[string]point.Retention{
		"last": {KeepLast: 1}, "age": {MaxAge: time.Minute}, "days": {Daily: 1}, "hours": {Hourly: 1},
	} {
		left := kept(point.Keep(points, rules, epoch))
		ids := make([]string, len(left))
		for i, p := range left {
			ids[i] = p.ID
		}
		if want := []string{"tomorrow-2", "tomorrow-1", "tomorrow-0", "now"}; !slices.Equal(ids, want) {
			t.Errorf("%s: kept are %q, want %q", name, ids, want)
		}
		// The control: when their time has come, they are as others.
		if left := kept(point.Keep(points, rules, epoch.AddDate(0, 0, 2))); len(left) != 1 {
			t.Errorf("%s: %d are kept when their time has come", name, len(left))
		}
	}
}

// The old site's clock may run ahead of the new holder's.
func TestNewestGoesByEpochBeforeClocks(t *testing.T) {
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	fast := point.Point{ID: "a", Epoch: 1, Instant: noon.Add(time.Hour)}
	later := point.Point{ID: "b", Epoch: 2, Instant: noon}
	if got, ok := point.Newest([]point.Point{later, fast}, time.Time{}); !ok || got.ID != later.ID {
		t.Errorf("newest is %s, want the point of the newer epoch", got.ID)
	}
}
