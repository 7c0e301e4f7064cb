package declare_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/declare"
)

const second = time.Second

var rule = declare.Rule{Vantages: []string{"west", "north", "witness"}, Agree: 2, For: 30 * second, Block: time.Hour, Fresh: 15 * second}

// world plays vantage points that look at east every five seconds, and west,
// which decides every second.
type world struct {
	d       *declare.Decider
	now     time.Duration
	numbers map[string]int64
	state   declare.State
}

func newWorld(r declare.Rule) *world {
	return &world{d: declare.New("east", r), numbers: map[string]int64{}, state: declare.State{Vault: true}}
}

func (w *world) say(vantage string, v declare.View) {
	w.numbers[vantage]++
	w.d.Hear(w.now, declare.Sighting{Vantage: vantage, Site: "east", Number: w.numbers[vantage], View: v})
}

// play lets them look for so long; view says what each sees. It returns when
// east was declared lost first, and the last decision.
func (w *world) play(length time.Duration, view func(now time.Duration, vantage string) declare.View) (declared time.Duration, last declare.Decision) {
	declared = -1
	for end := w.now + length; w.now < end; w.now += second {
		if w.now%(5*second) == 0 {
			for _, v := range rule.Vantages {
				if seen := view(w.now, v); seen != "" {
					w.say(v, seen)
				}
			}
		}
		if last = w.d.Decide(w.now, w.state); last.Declare && declared < 0 {
			declared = w.now
		}
	}
	return declared, last
}

func all(v declare.View) func(time.Duration, string) declare.View {
	return func(time.Duration, string) declare.View { return v }
}

// only says lost at some vantage points, and another view elsewhere.
func only(other declare.View, lost ...string) func(time.Duration, string) declare.View {
	return func(_ time.Duration, vantage string) declare.View {
		if strings.Contains(strings.Join(lost, " "), vantage) {
			return declare.Lost
		}
		return other
	}
}

func TestWhoDeclares(t *testing.T) {
	flapping := func(now time.Duration, _ string) declare.View {
		if now%(25*second) < 20*second {
			return declare.Lost
		}
		return declare.Alive
	}
	hasty := rule
	hasty.For = 0
	lax := rule
	lax.Agree = 1
	for name, c := range map[string]struct {
		rule declare.Rule
		view func(time.Duration, string) declare.View
		want time.Duration
	}{
		"all see it":                        {rule, all(declare.Lost), 35 * second},
		"two of three, the third lies":      {rule, only(declare.Alive, "west", "north"), 35 * second},
		"one lies":                          {rule, only(declare.Alive, "witness"), -1},
		"one sees it, others are blind":     {rule, only(declare.Blind, "west"), -1},
		"one sees it, others are silent":    {rule, only("", "west"), -1},
		"one decides, says the rule":        {lax, only(declare.Alive, "witness"), -1},
		"the vault is silent for all":       {rule, all(declare.Blind), -1},
		"flapping":                          {rule, flapping, -1},
		"flapping, the hysteresis is taken": {hasty, flapping, 5 * second}, // the negative control
	} {
		if got, last := newWorld(c.rule).play(10*time.Minute, c.view); got != c.want {
			t.Errorf("%s: declared at %s, want %s; %s", name, got, c.want, last.Why)
		}
	}
}

// TestWithoutTheQuorum is the negative control of it: one that lies, or is cut off
// alone, has the site failed over that the others see.
func TestWithoutTheQuorum(t *testing.T) {
	for need, want := range map[int]time.Duration{2: -1, 1: 35 * second} {
		w := newWorld(rule)
		w.d.LetDecide(need)
		if got, last := w.play(10*time.Minute, only(declare.Alive, "witness")); got != want {
			t.Errorf("%d decide: declared at %s, want %s; %s", need, got, want, last.Why)
		}
	}
}

// TestWhatKeepsItFromDeclaring although all agree.
func TestWhatKeepsItFromDeclaring(t *testing.T) {
	for name, c := range map[string]struct {
		state  declare.State
		person bool
		want   string
	}{
		"nothing":             {declare.State{Vault: true}, false, ""},
		"long after a run":    {declare.State{Vault: true, Ended: true, SinceRun: time.Hour}, false, ""},
		"the vault":           {declare.State{}, false, "does not answer"},
		"a run":               {declare.State{Vault: true, Running: "r1"}, false, "r1 is not over"},
		"soon after a run":    {declare.State{Vault: true, Ended: true, SinceRun: time.Minute}, true, "for 1h0m0s after one"},
		"approvals":           {declare.State{Vault: true, Approvals: true}, true, "approve"},
		"it would go back":    {declare.State{Vault: true, Moved: true}, true, "never automatic"},
		"no lease":            {declare.State{Vault: true, Unleased: []string{"db"}}, true, "no lease of db"},
		"too much to be lost": {declare.State{Vault: true, Late: []string{"db"}}, true, "RPO allows: db"},
	} {
		w := newWorld(rule)
		w.state = c.state
		_, last := w.play(2*time.Minute, all(declare.Lost))
		if last.Declare != (c.want == "") || last.Person != c.person || !strings.Contains(last.Why, c.want) {
			t.Errorf("%s: %+v", name, last)
		}
	}
}

// TestABreakBeginsAnew: silence of the vault, sightings that became old, and
// old ones that come again.
func TestABreakBeginsAnew(t *testing.T) {
	w := newWorld(rule)
	w.play(25*second, all(declare.Lost))
	w.state.Vault = false
	w.play(5*second, all(declare.Lost))
	w.state.Vault = true
	if got, _ := w.play(2*time.Minute, all(declare.Lost)); got != 60*second {
		t.Errorf("after a silence of the vault declared at %s", got)
	}
	w = newWorld(rule)
	w.play(25*second, all(declare.Lost))
	w.now += 20 * second // nobody looked, and nothing came
	if got, _ := w.play(2*time.Minute, all(declare.Lost)); got != 75*second {
		t.Errorf("after a pause declared at %s", got)
	}
	w = newWorld(rule)
	replay := func(now time.Duration, _ string) declare.View { return "" }
	w.play(10*second, all(declare.Lost))
	for range 60 {
		for _, v := range rule.Vantages {
			w.d.Hear(w.now, declare.Sighting{Vantage: v, Site: "east", Number: 1, View: declare.Lost})
		}
		if got, _ := w.play(second, replay); got >= 0 {
			t.Fatal("declared by sightings that came again")
		}
	}
	w.d.Hear(w.now, declare.Sighting{Vantage: "stranger", Site: "east", Number: 9, View: declare.Lost})
	w.d.Hear(w.now, declare.Sighting{Vantage: "west", Site: "north", Number: 9, View: declare.Lost})
	if d := w.d.Decide(w.now, w.state); !strings.HasPrefix(d.Why, "0 of 3") {
		t.Errorf("others, and of other sites: %s", d.Why)
	}
}

// TestDeadWordsDeclareNothing: whoever begins to decide finds words of vantage
// points that are no more, however short the time that they must agree for.
func TestDeadWordsDeclareNothing(t *testing.T) {
	short := rule
	short.For = 10 * second
	for name, c := range map[string]struct {
		live bool
		want time.Duration
	}{"dead": {false, -1}, "they speak on": {true, 15 * second}} {
		w := newWorld(short)
		w.numbers = map[string]int64{"west": 7, "north": 7, "witness": 7}
		got, last := w.play(time.Minute, func(now time.Duration, _ string) declare.View {
			if now > 0 && !c.live {
				return ""
			}
			return declare.Lost
		})
		if got != c.want {
			t.Errorf("%s: declared at %s, want %s; %s", name, got, c.want, last.Why)
		}
	}
}

func TestLook(t *testing.T) {
	const silent = 90 * second
	for o, want := range map[declare.Observation]declare.View{
		{Vault: true, HeartAge: time.Second}:          declare.Alive,
		{Vault: true, HeartAge: silent}:               declare.Lost,
		{Vault: true, HeartAge: silent, Serves: true}: declare.Alive,
		{HeartAge: time.Hour}:                         declare.Blind,
		{HeartAge: time.Hour, Serves: true}:           declare.Alive,
	} {
		if got := o.Look(silent); got != want {
			t.Errorf("%+v: %s, want %s", o, got, want)
		}
	}
}

// TestNothingIsDeclaredWithoutAgreement plays random schedules and asks, of each
// declaration, whether at every moment of the time before two vantage points had
// said lost, not too long ago.
func TestNothingIsDeclaredWithoutAgreement(t *testing.T) {
	declared := 0
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 7))
		w := newWorld(rule)
		type said struct {
			at   time.Duration
			view declare.View
		}
		history := map[string][]said{}
		silentUntil := time.Duration(0)
		lossy := r.IntN(100)
		for w.now = 0; w.now < 5*time.Minute; w.now += second {
			for _, v := range rule.Vantages {
				if r.IntN(5) == 0 {
					view := declare.Lost
					if r.IntN(300) < lossy {
						view = []declare.View{declare.Alive, declare.Blind}[r.IntN(2)]
					}
					w.say(v, view)
					history[v] = append(history[v], said{w.now, view})
				}
			}
			w.state.Vault = r.IntN(200) != 0
			if !w.state.Vault {
				silentUntil = w.now
			}
			if !w.d.Decide(w.now, w.state).Declare {
				continue
			}
			declared++
			for at := max(w.now-rule.For, 0); at <= w.now; at += second {
				agree := 0
				for _, v := range rule.Vantages {
					var last *said
					for i := range history[v] {
						if history[v][i].at <= at {
							last = &history[v][i]
						}
					}
					if last != nil && last.view == declare.Lost && at-last.at < rule.Fresh {
						agree++
					}
				}
				if agree < 2 || at <= silentUntil && silentUntil > 0 {
					t.Fatalf("seed %d: declared at %s, and at %s %d agreed", seed, w.now, at, agree)
				}
			}
			break
		}
	}
	if declared == 0 {
		t.Error("no schedule declares anything: the test sees nothing")
	}
}
