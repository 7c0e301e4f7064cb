package takeover_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// judge hears, one after the other, what consoles say of themselves, and says what may not be.
// Whoever hears asks nobody before the one before has answered: so what is said later was
// also meant later.
type judge struct {
	mu     sync.Mutex
	epoch  int64
	active string // of that epoch
	cut    map[string]bool
	fell   map[string]bool // active no more since it was cut from the vault
	faults []string
	said   int // answers of active ones
}

func newJudge() *judge { return &judge{cut: map[string]bool{}, fell: map[string]bool{}} }

// cuts notes whether a console has a way to the vault.
func (j *judge) cuts(name string, cut bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.cut[name], j.fell[name] = cut, false
}

// hear takes one answer: of the epoch in which a console says that it is active; 0: it does not.
func (j *judge) hear(name string, epoch int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	bad := func(format string, args ...any) { j.faults = append(j.faults, fmt.Sprintf(format, args...)) }
	if epoch == 0 {
		j.fell[name] = j.cut[name]
		return
	}
	j.said++
	switch {
	case j.fell[name]:
		bad("console %s says that it is active in epoch %d, which has no way to the vault and had said that it is not", name, epoch)
	case epoch < j.epoch:
		bad("console %s says that it is active in epoch %d, after console %s was in epoch %d", name, epoch, j.active, j.epoch)
	case epoch == j.epoch && name != j.active:
		bad("consoles %s and %s say that they are active in epoch %d", name, j.active, epoch)
	}
	if epoch >= j.epoch {
		j.epoch, j.active = epoch, name
	}
}

// The control: two that are active, and one that is again without the vault, are seen.
func TestTwoActiveAreSeen(t *testing.T) {
	for what, play := range map[string]struct {
		bad  bool
		play func(j *judge)
	}{
		"one after the other":  {false, func(j *judge) { j.hear("a", 1); j.hear("a", 0); j.hear("b", 2); j.hear("a", 0); j.hear("a", 3) }},
		"two at once":          {true, func(j *judge) { j.hear("a", 1); j.hear("b", 2); j.hear("a", 1) }},
		"two of one epoch":     {true, func(j *judge) { j.hear("a", 1); j.hear("b", 1) }},
		"again, while cut off": {true, func(j *judge) { j.hear("a", 1); j.cuts("a", true); j.hear("a", 1); j.hear("a", 0); j.hear("a", 1) }},
		"again, and healed":    {false, func(j *judge) { j.hear("a", 1); j.cuts("a", true); j.hear("a", 0); j.cuts("a", false); j.hear("a", 1) }},
	} {
		j := newJudge()
		play.play(j)
		if got := len(j.faults) > 0; got != play.bad {
			t.Errorf("%s: %q", what, j.faults)
		}
	}
}

// watch has a judge hear both consoles, past all that is cut, until the test ends.
func (r *rig) watch(j *judge) (stop func()) {
	ended, end := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			for _, c := range []*console{r.a, r.b} {
				code, text := r.state(c, "/healthz/active")
				var epoch int64
				if _, err := fmt.Sscanf(text, "active, epoch %d", &epoch); code == http.StatusOK && err == nil {
					j.hear(c.name, epoch)
				} else if code != 0 {
					j.hear(c.name, 0)
				}
			}
			select {
			case <-end:
				return
			case <-time.After(between): // between two looks
			}
		}
	}()
	stop = sync.OnceFunc(func() { close(end); <-ended })
	r.t.Cleanup(stop)
	return stop
}

// Two consoles, each with a way to the vault and a line to people and agents, with any of these
// cut: 16 states, of which one after the other is brought about and healed. In each there is
// one active console, or none if neither reaches the vault; people and agents are served by it
// if its line is open, and by nobody else; nobody says that he is active who has lost the vault;
// and what was acknowledged is there.
func TestPartitions(t *testing.T) {
	t.Parallel()
	at := server(t)
	at.lines = true
	r := newRig(t, at)
	agents := r.agents(4)
	w := r.write(func() {})
	w.more(r.a, 5)
	j := newJudge()
	stop := r.watch(j)
	for _, cut := range []string{"neither", "active", "passive", "both"} {
		active, other := r.who()
		begun := time.Now()
		var off []*console
		switch cut {
		case "active":
			off = []*console{active}
		case "passive":
			off = []*console{other}
		case "both":
			off = []*console{active, other}
		}
		for _, c := range off {
			j.cuts(c.name, true)
			c.way.be(shut)
		}
		var now *console
		switch cut {
		case "active":
			r.takes(other, begun)
			until(t, "active no more: "+active.name, func() bool { return !r.active(active) })
			now = other
		case "both":
			until(t, "silent", func() bool { return !r.active(r.a) && !r.active(r.b) })
		default:
			now = active
		}
		t.Logf("vault lost by %s: console %s is active after %s", cut, nameOf(now), time.Since(begun).Round(time.Millisecond))
		for _, lines := range [][2]bool{{true, true}, {false, true}, {false, false}, {true, false}} {
			r.served(w, agents, now, lines)
		}
		begun = time.Now()
		for _, c := range []*console{r.a, r.b} {
			j.cuts(c.name, false)
			c.line.be(open)
			c.way.be(open)
		}
		now, other = r.who()
		r.back(agents, now)
		w.more(now, 3)
		t.Logf("vault lost by %s: healed in %s, console %s is active", cut, time.Since(begun).Round(time.Millisecond), now.name)
		w.caughtUp(other.name, func() bool { return r.passive(other) && r.metric(other, "follow_seconds") < 2 })
		w.kept(now)
	}
	w.stop()
	stop()
	now, _ := r.who()
	w.kept(now)
	r.commanded(agents, w.all())
	if len(j.faults) > 0 {
		t.Error(strings.Join(j.faults, "\n"))
	}
	if j.said < 20 {
		t.Errorf("only %d times was heard that a console is active", j.said)
	}
}

func nameOf(c *console) string {
	if c == nil {
		return "none"
	}
	return c.name
}

// served has the lines of both consoles be open or cut, and waits until people and agents are
// served by the active one, if they reach it, and cut off from the others.
func (r *rig) served(w *writer, agents []*agent, now *console, lines [2]bool) {
	r.t.Helper()
	cut := map[string]bool{}
	for i, c := range []*console{r.a, r.b} {
		if lines[i] {
			c.line.be(open)
		} else {
			c.line.be(shut)
			cut[c.front] = true
		}
	}
	if now != nil && !cut[now.front] {
		r.back(agents, now)
		w.more(now, 2)
		return
	}
	until(r.t, "cut off", func() bool {
		for _, a := range agents {
			if s := a.status(); s.Connected {
				return false
			}
		}
		return true
	})
	w.rest.Lock() // what was under way has its answer
	before := len(w.all())
	w.rest.Unlock()
	for _, c := range []*console{r.a, r.b} {
		ctx, cancel := r.limited()
		if code, err := r.put(ctx, c, "nobody"); err == nil && code == http.StatusOK {
			r.t.Errorf("console %s acknowledges a document, lines %v, active %s", c.name, lines, nameOf(now))
		}
		cancel()
	}
	if after := len(w.all()); after != before {
		r.t.Errorf("%d documents were acknowledged, lines %v, active %s", after-before, lines, nameOf(now))
	}
}
