package takeover_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"davit.dev/davit/internal/cli/access"
	cli "davit.dev/davit/internal/cli/console"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/wiring"
	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/store"
)

// clockFile names, in the environment, the file that says by how much the clock of a
// console is wrong. Programs in Go read the clock from the kernel's page, past any library
// that could be put before it, so this test's own binary serves the console: as the command
// does, with another clock.
const clockFile = "DAVIT_TEST_CLOCK"

// jumped is a time of which the wall's clock says something else, by whole seconds, and the
// steady one nothing: as where somebody has set the clock. The package time makes none.
func jumped(t time.Time, wrong time.Duration) time.Time {
	was := t
	*(*uint64)(unsafe.Pointer(&t)) += uint64(wrong/time.Second) << 30 // the seconds, beside what is steady
	if t.Sub(was) != 0 || t.Round(0).Sub(was.Round(0)) != wrong.Truncate(time.Second) {
		panic("the package time has its times otherwise than this test knows")
	}
	return t
}

// serveByClock is the console's command with a clock that jumps when the file changes.
func serveByClock(file string) int {
	var mu sync.Mutex
	var looked time.Time
	var wrong time.Duration
	now := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(looked) > 10*time.Millisecond {
			looked = time.Now()
			text, err := os.ReadFile(file)
			if d, parseErr := time.ParseDuration(string(text)); err == nil && parseErr == nil {
				wrong = d
			}
		}
		return jumped(time.Now(), wrong)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cmd := cli.Command(cli.Host{
		Err: os.Stderr, Now: now, Opener: func() *access.Opener { return &access.Opener{Store: wiring.Real{}.Store, Getenv: os.Getenv} },
	})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(os.Args[2:])
	err := cmd.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return exit.Code(err)
}

// elsewhere runs a program with steady clocks that are ten days ahead of this machine's, as on
// one that was started earlier; empty where that cannot be done.
func elsewhere(t *testing.T) []string {
	const days = 10 * 24 * 60 * 60
	with := []string{"unshare", "--time", "--monotonic", strconv.Itoa(days), "--boottime", strconv.Itoa(days)}
	text, err := exec.CommandContext(t.Context(), with[0], append(with[1:], "cat", "/proc/uptime")...).CombinedOutput()
	var up float64
	if _, scanErr := fmt.Sscanf(string(text), "%g", &up); err != nil || scanErr != nil || up < days {
		t.Logf("both consoles go by one steady clock: %v %.80s", err, text)
		return nil
	}
	return with
}

// goes has a console's clock be wrong by so much from now on.
func (r *rig) goes(c *console, wrong time.Duration) {
	r.t.Helper()
	r.must(os.WriteFile(c.clock+".new", []byte(wrong.String()), 0o600))
	r.must(os.Rename(c.clock+".new", c.clock))
}

// let logs anna in at a console, which takes it until that goes by a clock that is wrong by
// so much, and has her be who asks for everything.
func (s *stage) let(c *console, wrong time.Duration) {
	s.t.Helper()
	until(s.t, "logged in by that clock: "+c.name, func() bool {
		var in api.LoggedIn
		if s.insist(c, "", "POST", "/login", map[string]string{"name": "anna", "password": password}, func(text []byte) bool { return json.Unmarshal(text, &in) == nil }) != nil {
			return false
		}
		s.token = in.Token
		off := time.Until(in.Expires.Add(-store.SessionLife)) - wrong
		return off.Abs() < 10*time.Minute && s.known(c, in.Token) // and not by a clock that jumped meanwhile
	})
}

// known tells whether a console lets somebody in by a session.
func (s *stage) known(c *console, session string) bool {
	code := 0
	until(s.t, "answered", func() bool {
		ctx, cancel := context.WithTimeout(s.t.Context(), askLimit)
		defer cancel()
		code, _, _ = s.ask(ctx, c, session, http.MethodGet, "/api/v1/projects/"+project+"/whoami", "")
		return code == http.StatusOK || code == http.StatusUnauthorized
	})
	return code == http.StatusOK
}

// again has those who come by the lines call anew.
func (s *stage) again(all ...*agent) {
	s.t.Helper()
	connected := func(want bool) func() bool {
		return func() bool {
			for _, a := range all {
				if a.status().Connected != want {
					return false
				}
			}
			return true
		}
	}
	for _, l := range s.lines {
		l.be(shut)
	}
	until(s.t, "cut off", connected(false))
	for _, l := range s.lines {
		l.be(open)
	}
	for _, a := range all {
		until(s.t, "back: "+a.Site, func() bool { return a.status().Connected })
	}
}

// drill has a run begin and end.
func (s *stage) drill(name string, at *console) {
	s.t.Helper()
	p := s.play(name, scene{site: "west", ends: "Completed"})
	s.begin(p, at)
	if err := s.finish(p, at); err != nil {
		s.t.Errorf("%s: %v", name, err)
	}
}

// jumps has the clock of the active console jump, and that of the passive one the other way,
// and back: nobody takes over, and everything goes on.
func (s *stage) jumps(w *writer, name string, wrong time.Duration) {
	s.t.Helper()
	active, other := s.who()
	before, epoch, lapsed := s.token, s.metric(active, "epoch"), s.lapses(active)
	s.goes(active, wrong)
	s.goes(other, -wrong)
	s.let(active, wrong)
	during := s.token
	w.more(active, 5)
	s.back(s.all, active)
	fresh := s.byLines(active, name)
	until(s.t, "let in: "+name, func() bool { return fresh.status().Connected })
	s.again(append(s.lined, fresh)...)
	s.drill(name+"-while", active)
	s.lined = append(s.lined, fresh)

	s.goes(active, 0)
	s.goes(other, 0)
	s.let(active, 0)
	s.again(s.lined...)
	s.back(s.all, active)
	w.more(active, 5)
	s.drill(name+"-after", active)
	if !s.known(active, before) {
		s.t.Errorf("%s: the session of before is none any more", name)
	}
	if wrong > time.Hour && s.known(active, during) {
		s.t.Errorf("%s: a session lives until its life after the clock was right again is over, and longer by what that was wrong", name)
	}
	w.kept(active)
	switch why := lapsed(); {
	case s.metric(active, "epoch") == epoch:
	case why == "":
		s.t.Errorf("%s: another console took over: epoch %g, then %g", name, epoch, s.metric(active, "epoch"))
	default:
		s.t.Logf("%s: another console took over rightly: %s", name, why)
	}
	s.t.Logf("%s: all goes on", name)
}

// taken has a console take over whose clock is wrong.
func (s *stage) taken(w *writer, name string, wrong time.Duration) {
	s.t.Helper()
	lost, heir := s.who()
	s.goes(heir, wrong)
	begun := time.Now()
	s.signal(lost, syscall.SIGKILL)
	took := s.takes(heir, begun)
	s.let(heir, wrong)
	s.back(s.all, heir)
	s.t.Logf("%s: taken over in %s, agents back in %s", name, took, time.Since(begun).Round(time.Millisecond))
	w.more(heir, 5)
	fresh := s.byLines(heir, name)
	until(s.t, "let in: "+name, func() bool { return fresh.status().Connected })
	s.drill(name+"-while", heir)

	s.goes(heir, 0)
	s.let(heir, 0)
	s.lined = append(s.lined, fresh)
	s.again(s.lined...)
	w.more(heir, 5)
	s.drill(name+"-after", heir)
	// A site that is let in anew is let in, whenever it was the last time.
	anew := s.byLines(heir, name)
	until(s.t, "let in anew: "+name, func() bool { return anew.status().Connected })
	s.lined[len(s.lined)-1] = anew // the former is refused from now on
	w.kept(heir)
	s.serve(lost)
	w.caughtUp(lost.name, func() bool { return s.passive(lost) && s.metric(lost, "follow_seconds") < 2 })
}

// whole fails unless the audit log of each database here is.
func (s *stage) whole(c *console) {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(c.dir, "projects", "*.db"))
	s.must(err)
	for _, file := range append(files, filepath.Join(c.dir, "console.db")) {
		db, err := store.OpenAlone(s.t.Context(), file, strings.HasSuffix(file, "console.db"))
		s.must(err)
		if _, err := db.VerifyAudit(s.t.Context()); err != nil {
			s.t.Errorf("console %s: %v", c.name, err)
		}
		s.must(db.Close())
	}
}

// The clock of the wall jumps by an hour and by ten days, forward and back, at who is
// active, at who is passive, and at who takes over. From that alone nobody takes over. What
// was acknowledged stays; agents, those too that were let in meanwhile, come and come again;
// runs are begun; and what was let in by a wrong clock does not outlive it. The passive
// one's steady clock is another than everybody's, by days, as where machines were started
// at different times.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	at := directory(t)
	at.clocks = true
	s := newStage(t, at)
	close(s.sites["west"].hold)
	var made struct{ Secret string }
	s.call(s.a, s.token, "POST", "/projects/"+project+"/tokens", map[string]any{"name": "lasting", "scopes": []string{"read", "protect"}, "days": 60}, &made)
	s.robot = made.Secret
	w := s.write(func() {})
	w.more(s.a, 5)
	for _, jump := range []struct {
		name  string
		wrong time.Duration
	}{{"days-behind", -10 * 24 * time.Hour}, {"days-ahead", 10 * 24 * time.Hour}, {"hour-ahead", time.Hour}, {"hour-behind", -time.Hour}} {
		s.jumps(w, jump.name, jump.wrong)
	}
	s.taken(w, "heir-ahead", 10*24*time.Hour)
	s.taken(w, "heir-behind", -10*24*time.Hour)
	w.stop()
	active, other := s.who()
	w.kept(active)
	var backups api.Backups
	s.call(active, s.token, http.MethodPost, "/backups", nil, &backups)
	for _, b := range backups.Items {
		if b.Fault != "" || b.CheckFault != "" {
			t.Errorf("backup of %q: %s %s", b.Project, b.Fault, b.CheckFault)
		}
	}
	s.signal(other, syscall.SIGTERM)
	s.signal(active, syscall.SIGTERM)
	s.whole(s.a)
	s.whole(s.b)
}
