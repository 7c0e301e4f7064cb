package vantage

import (
	"math/rand/v2"
	"testing"
	"time"

	"davit.dev/davit/internal/declare"
)

// schedule plays east, which lives, three vantage points and west, which decides,
// while the vault falls silent for everyone or for one of them, and processes
// stand still.
type schedule struct {
	random *rand.Rand
	rule   declare.Rule
	flaps  time.Duration // for how long east's way to the vault is cut at most
	// careless counts silence that was not watched: the negative control.
	careless bool
	dies     time.Duration // when east does; never if zero
}

var names = []string{"west", "north", "witness"}

// outage says until when something is away, and lets it go away now and then, but
// not again before it was back for a while.
func (s *schedule) outage(until, now, most time.Duration, every int) time.Duration {
	if until+2*Every < now && most > 0 && s.random.IntN(every) == 0 {
		return now + time.Duration(s.random.Int64N(int64(most)))
	}
	return until
}

// play returns when east was declared lost, or -1.
func (s *schedule) play(length time.Duration) time.Duration {
	words := map[string]Word{}
	decider := declare.New("east", s.rule)
	watches, away, ticks := map[string]*Watch{}, map[string]time.Duration{}, map[string]time.Duration{}
	everyone := append([]string{"east"}, names...)
	for _, name := range everyone {
		watches[name], ticks[name] = NewWatch(), time.Duration(s.random.IntN(5))*time.Second
	}
	var vaultAway, decides time.Duration
	for now := time.Duration(0); now < length; now += time.Second {
		vaultAway = s.outage(vaultAway, now, 3*time.Minute, 300)
		for _, name := range names {
			away[name] = s.outage(away[name], now, time.Minute, 200)
		}
		away["east"] = s.outage(away["east"], now, s.flaps, 120)
		for _, name := range everyone {
			watch := watches[name]
			if now%Every != ticks[name] || name == "east" && s.dies > 0 && now >= s.dies {
				continue
			}
			if vaultAway > now || away[name] > now {
				if !s.careless {
					watch.Miss()
				}
				continue
			}
			if s.careless {
				watch.begun, watch.last = true, now
			}
			word := Word{Vantage: name, Number: int64(now/time.Second) + 1}
			if name == "east" {
				word.Cluster = "e"
			} else {
				watch.Look(now, words)
				word.Views = watch.Views(now, name)
			}
			words[name] = word
		}
		if decides = s.outage(decides, now, 30*time.Second, 300); decides > now { // its process stands still
			continue
		}
		heard := vaultAway <= now && away["west"] <= now
		for _, name := range names {
			word := words[name]
			if sighting, ok := word.Sighting("shop", "east", false); ok && heard {
				decider.Hear(now, sighting)
			}
		}
		if decider.Decide(now, declare.State{Vault: heard}).Declare {
			return now
		}
	}
	return -1
}

// TestALiveSiteIsNotDeclaredLost whatever falls silent, and a dead one is. Without
// each of the checks some schedule shows the harm.
func TestALiveSiteIsNotDeclaredLost(t *testing.T) {
	rule := declare.Rule{Vantages: names, Agree: 2, For: 30 * time.Second, Block: time.Hour, Fresh: Fresh}
	hasty := rule
	hasty.For = 0
	declared := func(change func(*schedule)) (n int) {
		for seed := range uint64(25) {
			s := &schedule{random: rand.New(rand.NewPCG(seed, 21)), rule: rule, flaps: 20 * time.Second}
			change(s)
			if s.play(12*time.Minute) >= 0 {
				n++
			}
		}
		return n
	}
	if n := declared(func(*schedule) {}); n > 0 {
		t.Errorf("declared in %d schedules although it lives", n)
	}
	for _, length := range []time.Duration{Every, rule.For} { // the control differs in one thing
		n := declared(func(s *schedule) { s.rule.For = length })
		careless := declared(func(s *schedule) { s.careless, s.rule.For = true, length })
		t.Logf("for %s: %d, careless %d", length, n, careless)
		if n > 0 {
			t.Errorf("declared in %d schedules although it lives, for %s", n, length)
		}
		if careless == 0 && length == Every {
			t.Error("negative control: silence that was not watched counts, and nothing is seen of it")
		}
	}
	if n := declared(func(s *schedule) { s.flaps = 50 * time.Second }); n > 0 {
		t.Errorf("declared in %d schedules in which it was cut off for less than a minute", n)
	}
	if n := declared(func(s *schedule) { s.flaps, s.rule = 50*time.Second, hasty }); n == 0 {
		t.Error("negative control: without the hysteresis a flap is a loss, and nothing is seen of it")
	}
	if n := declared(func(s *schedule) { s.dies = time.Minute }); n < 23 {
		t.Errorf("a dead site was declared lost in %d of 25 schedules", n)
	}
}
