package traffic

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"davit.dev/davit/internal/failover"
)

func TestGuardKeepsWhatItSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-z0-9][a-z0-9.-]{0,40}`)
		g := Guard{
			Site: rapid.StringMatching(`[a-z0-9.-]{0,20}`).Draw(t, "site"), Run: name.Draw(t, "run"), Sequence: rapid.Int64Min(1).Draw(t, "seq"),
			Epochs: rapid.MapOfN(name, rapid.Int64Min(1), 0, 5).Draw(t, "epochs"), Was: Sort(rapid.SliceOfN(name, 0, 3).Draw(t, "was")),
		}
		text, err := g.Strings()
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseGuard(text)
		if err != nil {
			t.Fatal(err)
		}
		again, _ := back.Strings()
		if !slices.Equal(again, text) {
			t.Fatalf("%v, was %v", again, text)
		}
	})
}

func TestGuardsThatCannotBe(t *testing.T) {
	good := []string{"davit1", "site=west", "run=r", "seq=3"}
	if _, err := ParseGuard(good); err != nil {
		t.Fatal(err)
	}
	for want, text := range map[string][]string{
		"not Davit's":         {"v=spf1 -all"},
		"seq is missing":      good[:3],
		"not a positive":      {"davit1", "site=west", "run=r", "seq=0"},
		"is there twice":      append(slices.Clone(good), "run=q"),
		"use a newer davit":   append(slices.Clone(good), "colour=red"),
		"is not key=value":    append(slices.Clone(good), "red"),
		"number: \"1e3\"":     append(slices.Clone(good), "epoch.shop=1e3"),
		"\"epoch.\" is not k": append(slices.Clone(good), "epoch.=1"),
	} {
		if _, err := ParseGuard(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := (Guard{Run: strings.Repeat("r", 300), Sequence: 1}).Strings(); err == nil {
		t.Error("a string of 300 bytes was written")
	}
}

// TestWhatIsWrittenCanBeRead: also of an application that has no epoch yet.
func TestWhatIsWrittenCanBeRead(t *testing.T) {
	m := Move{Name: "www", To: []string{"192.0.2.2"}, Site: "west", Token: failover.Token{Run: "r", Sequence: 3, Epochs: map[string]int64{"shop": 7, "new": 0}}}
	for _, g := range []Guard{m.After(Seen{}), m.Sealed(Seen{})} {
		text, err := g.Strings()
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseGuard(text)
		if err != nil {
			t.Fatal(err)
		}
		if !back.shows(m.Token.Epochs) {
			t.Errorf("%q does not show %v", text, m.Token.Epochs)
		}
	}
	m.Token.Sequence = 0 // nothing was ordered: no guard can say so
	if text, err := m.Sealed(Seen{}).Strings(); err == nil {
		t.Errorf("%q was written", text)
	}
}

// TestEpochsOnlyGrow gives orders of several runs to one name, in any order,
// and wants: none below the newest epoch moves it, and none that is not newer than
// what its run did last.
func TestEpochsOnlyGrow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sites := map[string][]string{"east": {"192.0.2.1"}, "west": {"192.0.2.2"}}
		s := Seen{Values: []string{"192.0.2.1"}}
		var epoch int64
		newest := map[string]int64{}
		for range rapid.IntRange(1, 20).Draw(t, "orders") {
			run := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "run")
			n, seq := rapid.Int64Range(1, 5).Draw(t, "epoch"), rapid.Int64Range(1, 9).Draw(t, "seq")
			site := rapid.SampledFrom([]string{"east", "west"}).Draw(t, "site")
			m := Move{Name: "www", To: sites[site], Site: site, Known: []string{"192.0.2.1", "192.0.2.2"}, Token: failover.Token{Run: run, Sequence: seq, Epochs: map[string]int64{"shop": n}}}
			v, _ := m.Judge(s)
			if v != Moves {
				continue
			}
			if n < epoch || s.Guard != nil && s.Guard.Run == run && seq <= newest[run] {
				t.Fatalf("an old order moves it: %+v on %+v", m, s.Guard)
			}
			g := m.After(s)
			if rapid.Bool().Draw(t, "look") {
				g = m.Sealed(s)
			} else {
				s.Values = m.To
			}
			text, err := g.Strings()
			if err != nil {
				t.Fatal(err)
			}
			epoch, newest[run] = n, seq
			s.Guard, s.Text = &g, text
		}
	})
}

// TestANameThatWasLedByHand: a roll-back puts back what the run's guard remembers. Where the run has left none, it knows
// of nothing to put back: only who led the name can tell (docs/traffic.md).
func TestANameThatWasLedByHand(t *testing.T) {
	east, west := []string{"192.0.2.1"}, []string{"192.0.2.2"}
	token := func(seq int64) failover.Token {
		return failover.Token{Run: "r", Sequence: seq, Epochs: map[string]int64{"shop": 5}}
	}
	act := Move{Name: "www.example.com", Zone: "example.com", To: west, Known: append(slices.Clone(east), west...), Site: "west", Token: token(7)}
	undo := act
	undo.Token = token(12)
	for name, tt := range map[string]struct {
		guard *Guard
		want  []string
	}{
		"no guard":         {nil, west},
		"of another run":   {&Guard{Site: "east", Run: "q", Sequence: 40, Epochs: map[string]int64{"shop": 4}}, west},
		"of the run's own": {new(act.Sealed(Seen{Values: east})), east},
	} {
		seen := Seen{Values: west, Guard: tt.guard}
		if v, why := undo.Return(seen); v != Moves {
			t.Fatalf("%s: %s %s", name, v, why)
		}
		if values, _ := undo.Back(seen); !slices.Equal(values, tt.want) {
			t.Errorf("%s: it is left at %v, want %v", name, values, tt.want)
		}
	}
}

// TestATakenBackNameIsMovedNoMore: a move that was not known to succeed is taken back once its epoch went back, under the
// newer one, however far it came. Whatever of it comes later is refused by that.
func TestATakenBackNameIsMovedNoMore(t *testing.T) {
	east, west := []string{"192.0.2.1"}, []string{"192.0.2.2"}
	move := func(seq, epoch int64) Move {
		return Move{
			Name: "www.example.com", Zone: "example.com", To: west, Known: append(slices.Clone(east), west...), Site: "west",
			Token: failover.Token{Run: "r", Sequence: seq, Epochs: map[string]int64{"shop": epoch}},
		}
	}
	act, undo := move(7, 5), move(12, 6)
	half := act.After(Seen{Values: east})
	for name, seen := range map[string]Seen{
		"it never came":      {Values: east},
		"it came":            {Values: west, Guard: &half},
		"its guard did":      {Values: east, Guard: &half, Apart: true},
		"it was looked for":  {Values: east, Guard: new(act.Sealed(Seen{Values: east}))},
		"of a run of before": {Values: east, Guard: &Guard{Site: "east", Run: "q", Sequence: 40, Epochs: map[string]int64{"shop": 4}}},
	} {
		if v, why := undo.Return(seen); v != Moves {
			t.Fatalf("%s: %s %s", name, v, why)
		}
		values, guard := undo.Back(seen)
		if !slices.Equal(values, east) {
			t.Errorf("%s: it goes back to %v", name, values)
		}
		seen.Values, seen.Guard = values, &guard
		if v, why := undo.Return(seen); v != Stands {
			t.Errorf("%s: taken back, it is %s %s", name, v, why)
		}
		if v, _ := act.Judge(seen); v != Superseded {
			t.Errorf("%s: the move that comes late is %s", name, v)
		}
	}
}

func TestGuardNames(t *testing.T) {
	for name, want := range map[string]string{"www.example.com": "_davit.www.example.com", "*.apps.example.com": "_davit-any.apps.example.com"} {
		if got := GuardName(name); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// FuzzParseGuard: what is read can be written, and means the same.
func FuzzParseGuard(f *testing.F) {
	f.Add("davit1 site=west run=r seq=3 epoch.shop=7 was=192.0.2.1")
	f.Add("v=spf1 -all")
	f.Fuzz(func(t *testing.T, text string) {
		g, err := ParseGuard(strings.Split(text, " "))
		if err != nil {
			return
		}
		again, err := g.Strings()
		if err != nil {
			return // longer than a server would hold
		}
		if _, err := ParseGuard(again); err != nil {
			t.Errorf("%q is read and not read again: %v", text, err)
		}
	})
}
