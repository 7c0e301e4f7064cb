// Package takeover_test puts two consoles to the test as they are: processes of the
// built command, on a vault in a directory and on a real S3 server, with agents
// that speak the real protocol. The two are cut from each other all the time: they
// share the vault and call each other never, so only the vault's state is varied.
// It takes what leases take, and so runs in the stage that has a bed.
package takeover_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"davit.dev/davit/internal/console/lead"
)

// The active console is killed, stopped and woken, and ended, while documents are
// written and events happen.
func TestActiveIsLost(t *testing.T) {
	t.Parallel()
	r := newRig(t, directory(t))
	agents := r.agents(20)
	var mu sync.Mutex
	next := 0
	w := r.write(func() {
		mu.Lock()
		a := agents[next%len(agents)]
		next++
		mu.Unlock()
		a.happen(t)
	})
	w.more(r.a, 20)

	begun := time.Now()
	r.signal(r.a, syscall.SIGKILL)
	took := r.takes(r.b, begun)
	r.back(agents, r.b)
	t.Logf("killed: taken over in %s, all %d agents back in %s", took, len(agents), time.Since(begun).Round(time.Millisecond))
	w.kept(r.b)
	w.more(r.b, 10)
	r.serve(r.a)
	w.caughtUp("a", func() bool { return r.passive(r.a) && r.metric(r.a, "follow_seconds") < 2 })

	// What is asked of a console that stands still is answered by one that woke up.
	begun = time.Now()
	r.signal(r.b, syscall.SIGSTOP)
	late := r.late(r.b, 8)
	took = r.takes(r.a, begun)
	r.signal(r.b, syscall.SIGCONT)
	for i, code := range late() {
		if code == http.StatusOK {
			t.Errorf("the console that woke up acknowledged document %d", i)
		}
	}
	until(t, "passive again", func() bool { return r.passive(r.b) && r.metric(r.b, "active") == 0 })
	r.back(agents, r.a)
	t.Logf("stopped: taken over in %s, all agents back in %s", took, time.Since(begun).Round(time.Millisecond))
	w.kept(r.a)
	w.more(r.a, 10)
	w.caughtUp("b", func() bool { return r.metric(r.b, "follow_seconds") < 2 })

	begun = time.Now()
	r.signal(r.a, syscall.SIGTERM)
	took = r.takes(r.b, begun)
	r.back(agents, r.b)
	t.Logf("ended: taken over in %s, all agents back in %s", took, time.Since(begun).Round(time.Millisecond))
	w.more(r.b, 10)
	w.stop()
	w.kept(r.b)
	r.delivered(agents, r.b)
	r.commanded(agents, w.all())
}

// late asks a console that does not answer now for several documents, and returns
// what it answers when it does; 0: nothing.
func (r *rig) late(c *console, n int) (answers func() []int) {
	codes := make([]int, n)
	var asked sync.WaitGroup
	for i := range codes {
		asked.Go(func() {
			ctx, cancel := context.WithTimeout(r.t.Context(), patience)
			defer cancel()
			if code, err := r.put(ctx, c, fmt.Sprintf("late-%d", i)); err == nil {
				codes[i] = code
			}
		})
	}
	return func() []int { asked.Wait(); return codes }
}

// The vault is shut, mute, full and slow: for the active console, for the passive
// one, for both.
func TestVaultOfOne(t *testing.T) {
	t.Parallel()
	r := newRig(t, server(t))
	agents := r.agents(4)
	w := r.write(func() {})
	w.more(r.a, 5)

	r.replaced(w, shut)
	r.harmless(w, mute)
	r.silenced(w, mute)
	r.replaced(w, full)
	r.harmless(w, full)
	r.silenced(w, full)

	now, other := r.who()
	for _, c := range []*console{now, other, now} { // one, both, the other
		if c.way.is(slow) {
			c.way.be(open)
		} else {
			c.way.be(slow)
		}
		before := len(w.all())
		until(t, "written to a slow vault", func() bool { return len(w.all()) >= before+2 })
	}
	other.way.be(open)
	now, _ = r.who()
	r.back(agents, now)
	w.stop()
	w.kept(now)
	r.commanded(agents, w.all())
}

// who is active, and who is not.
func (r *rig) who() (active, other *console) {
	r.t.Helper()
	until(r.t, "active: any", func() bool { return r.active(r.a) || r.active(r.b) })
	if r.active(r.a) {
		return r.a, r.b
	}
	return r.b, r.a
}

// replaced has the active console's way to the vault be such that another takes over.
func (r *rig) replaced(w *writer, how string) {
	r.t.Helper()
	active, other := r.who()
	begun := time.Now()
	active.way.be(how)
	took := r.takes(other, begun)
	// It lives by what it saw last, on a machine that is busy also when it is asked:
	// that it acknowledges nothing in the old epoch is what kept finds below.
	until(r.t, "active no more: "+active.name, func() bool { return !r.active(active) })
	r.t.Logf("vault %s for the active one: taken over in %s", how, took)
	w.kept(other)
	w.more(other, 3)
	active.way.be(open)
	w.caughtUp(active.name, func() bool { return r.passive(active) && r.metric(active, "follow_seconds") < 2 })
}

// harmless has the passive console's way be so for longer than it waits for a sign
// of life: it takes nothing over, unless the active one gave none, as on a machine
// that let it stand still for as long.
func (r *rig) harmless(w *writer, how string) {
	r.t.Helper()
	active, other := r.who()
	epoch, lapsed := r.metric(active, "epoch"), r.lapses(active)
	other.way.be(how)
	if how != full { // who can read has all
		until(r.t, "behind", func() bool { return r.metric(other, "follow_seconds") > 10 })
	}
	w.more(active, 3)
	other.way.be(open)
	w.caughtUp(other.name, func() bool {
		return r.passive(other) && r.metric(other, "follow_seconds") < 2 || r.active(other)
	})
	excuse := lapsed()
	switch got := r.metric(other, "epoch"); {
	case got == epoch:
	case excuse == "":
		r.t.Errorf("%s: a passive console that was cut off took over: epoch %g, then %g", how, epoch, got)
	default:
		r.t.Logf("%s: the passive console took over rightly, epoch %g, then %g: %s", how, epoch, got, excuse)
	}
	now, _ := r.who()
	w.kept(now)
}

// lapses watches an active console until it is asked for what it saw: why another
// may take over from it. Empty: it was active all the time, until it was replaced.
func (r *rig) lapses(c *console) (excuse func() string) {
	stop, ended, why := make(chan struct{}), make(chan struct{}), ""
	go func() {
		defer close(ended)
		for last := time.Now(); why == ""; time.Sleep(between) { // between two looks
			at := time.Now()
			code, text := r.state(c, "/healthz/active")
			replaced := strings.Contains(text, "the active one is at")
			if gap := time.Since(last); gap > lead.Lease {
				why = fmt.Sprintf("console %s was not heard to be active for %s", c.name, gap.Round(time.Millisecond))
			}
			switch {
			case code == http.StatusOK:
				last = at
			case replaced:
				return
			case code != 0:
				why = fmt.Sprintf("console %s said %q", c.name, text)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	return func() string { close(stop); <-ended; return why }
}

// silenced has both ways be so: nothing is decided until they are open.
func (r *rig) silenced(w *writer, how string) {
	r.t.Helper()
	r.a.way.be(how)
	r.b.way.be(how)
	until(r.t, "silent", func() bool { return !r.active(r.a) && !r.active(r.b) })
	before := len(w.all())
	for _, c := range []*console{r.a, r.b} {
		ctx, cancel := context.WithTimeout(r.t.Context(), patience)
		if code, err := r.put(ctx, c, "silent"); err != nil || code != http.StatusServiceUnavailable && code != http.StatusGatewayTimeout {
			r.t.Errorf("%s: console %s answers %d, %v", how, c.name, code, err)
		}
		cancel()
	}
	if after := len(w.all()); after != before {
		r.t.Errorf("%s: %d were acknowledged while nobody was active", how, after-before)
	}
	begun := time.Now()
	r.a.way.be(open)
	r.b.way.be(open)
	now, _ := r.who()
	r.t.Logf("vault %s for both: console %s is active %s after it answers", how, now.name, time.Since(begun).Round(time.Millisecond))
	w.kept(now)
	w.more(now, 3)
}

// Both machines are lost, with all that they had. The command brings the console back
// from the vault alone, and agents come back with the certificates that they have.
func TestBothAreLost(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]func(*testing.T) place{"directory": directory, "S3": server} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, at(t))
			agents := r.agents(4)
			before := make([][]byte, len(agents))
			for i, a := range agents {
				before[i] = a.certificate(t)
			}
			w := r.write(func() {})
			w.more(r.a, 20)
			r.signal(r.a, syscall.SIGKILL)
			r.signal(r.b, syscall.SIGKILL)
			w.stop()
			r.must(errors.Join(os.RemoveAll(r.a.dir), os.RemoveAll(r.b.dir)))
			begun := time.Now()
			r.must(r.run(r.a, append([]string{"console", "restore", "--data", r.a.dir, "--recovery-key-file", r.dir + "/key"}, r.place.flags...)...))
			r.serve(r.a)
			took := r.takes(r.a, begun)
			r.back(agents, r.a)
			t.Logf("restored: active in %s, all %d agents back in %s", took, len(agents), time.Since(begun).Round(time.Millisecond))
			for i, a := range agents {
				if !bytes.Equal(before[i], a.certificate(t)) {
					t.Errorf("site %s was let in anew", a.Site)
				}
			}
			w.kept(r.a)
			r.commanded(agents, w.all())
			if err := r.run(r.b, append([]string{"console", "restore", "--data", r.a.dir, "--recovery-key-file", r.dir + "/key"}, r.place.flags...)...); err == nil {
				t.Error("it restores over a console that is there")
			}
			if name == "directory" {
				r.goesBack(w)
			}
		})
	}
}

// goesBack has the command undo what was written since a moment, while nothing is served.
func (r *rig) goesBack(w *writer) {
	r.t.Helper()
	back := func(at time.Time, flags ...string) error {
		args := append([]string{"console", "restore", "--data", r.a.dir, "--recovery-key-file", r.dir + "/key", "--at", at.Format(time.RFC3339Nano)}, r.place.flags...)
		return r.run(r.a, append(args, flags...)...)
	}
	at := time.Now()
	until(r.t, "written since", func() bool {
		code, err := r.put(r.t.Context(), r.a, "since")
		return err == nil && code == http.StatusOK
	})
	if err := back(at, "--replace"); err == nil {
		r.t.Error("it goes back while a console is active")
	}
	r.must(back(at, "--dry-run"))
	if !r.documents(r.a)["since"] {
		r.t.Error("a dry run changes something")
	}
	r.signal(r.a, syscall.SIGTERM)
	if err := back(at.Add(-24*time.Hour), "--replace"); err == nil {
		r.t.Error("it goes back to before there was anything")
	}
	r.must(back(at, "--replace"))
	r.must(r.run(r.a, append([]string{"console", "restore", "--list", "--recovery-key-file", r.dir + "/key"}, r.place.flags...)...))
	r.serve(r.a)
	until(r.t, "active: a", func() bool { return r.active(r.a) })
	if r.documents(r.a)["since"] {
		r.t.Error("what was written since is there")
	}
	w.kept(r.a)
}

// certificate is the one that an agent has now.
func (a *agent) certificate(t *testing.T) []byte {
	t.Helper()
	l, err := a.Keep.Load(t.Context())
	if err != nil || len(l.Certificate) == 0 {
		t.Fatalf("it has no certificate: %v", err)
	}
	return l.Certificate
}

// The databases of a console that is alone, and has two projects in two vaults, are damaged
// and removed while its process runs and while it does not. It brings them from the vaults,
// and nothing that was acknowledged in either project is lost. Where the vault of the project
// whose database it is does not answer, the other goes on without it.
func TestFilesAreLost(t *testing.T) {
	t.Parallel()
	r := newRig(t, directory(t))
	r.signal(r.b, syscall.SIGKILL) // nobody else could go on
	own, file := r.databases(), filepath.Join(t.TempDir(), "vault")
	second := r.writeIn(r.second(file), func() {})
	w := r.write(func() {})
	w.more(r.a, 10)
	second.more(r.a, 10)
	both := r.databases()
	if len(own) != 1 || len(both) != 2 {
		t.Fatal(own, both)
	}
	theirs := both[0]
	if theirs == own[0] {
		theirs = both[1]
	}
	for _, file := range []string{own[0], theirs, filepath.Join(r.a.dir, "console.db")} {
		for how, lose := range map[string]func(path string) error{
			"gone": os.Remove,
			"torn": func(path string) error { return os.Truncate(path, 5000) },
			"its log torn": func(path string) error {
				return errors.Join(os.Truncate(path+"-wal", 5000), os.Truncate(path, 9000)) // a checkpoint was under way
			},
			"flipped": flip,
		} {
			if file == theirs && (how == "torn" || how == "its log torn") { // it is a file like the first one's
				continue
			}
			r.must(lose(file))
			w.more(r.a, 10)
			second.more(r.a, 5)
			t.Logf("%s %s while it is served: goes on", filepath.Base(file), how)
			r.restarted(func() {
				if err := lose(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
			}, w, second)
			w.more(r.a, 5)
			second.more(r.a, 5)
			w.kept(r.a)
			second.kept(r.a)
			t.Logf("%s %s before it starts: goes on", filepath.Base(file), how)
		}
	}
	r.others(w, second, theirs, file)
	w.stop()
	second.stop()
	w.kept(r.a)
	second.kept(r.a)
}

// databases are the files of projects of console a.
func (r *rig) databases() []string {
	r.t.Helper()
	files, err := filepath.Glob(filepath.Join(r.a.dir, "projects", "*.db"))
	r.must(err)
	return files
}

// second gives console a another project, in a vault of its own.
func (r *rig) second(vault string) tenant {
	r.t.Helper()
	in := tenant{project: "second"}
	r.must(os.Mkdir(vault, 0o700))
	r.must(r.run(r.a, "console", "init", "--data", r.a.dir, "--admin", "anna", "--project", in.project, "--recovery-key-file", r.dir+"/key-second", "--vault-url", "file://"+vault))
	var made struct{ Secret string }
	until(r.t, "a project that can be changed", func() bool {
		ctx, cancel := r.limited()
		defer cancel()
		code, text, err := r.ask(ctx, r.a, r.token, "POST", "/api/v1/projects/second/tokens", `{"name":"writer","scopes":["read","protect"],"days":1}`)
		return err == nil && code == http.StatusCreated && json.Unmarshal(text, &made) == nil
	})
	in.token = made.Secret
	return in
}

// restarted kills console a, does something while nobody writes, and serves it again.
func (r *rig) restarted(between func(), all ...*writer) {
	r.t.Helper()
	for _, w := range all {
		w.rest.Lock()
		defer w.rest.Unlock()
	}
	r.signal(r.a, syscall.SIGKILL)
	between()
	r.serve(r.a)
	until(r.t, "active: a", func() bool { return r.active(r.a) })
}

// others loses the database of the second project while its vault is away, as the console
// starts and while it serves: the first project goes on, administrators are told, and once
// the vault is back all is there.
func (r *rig) others(w, second *writer, file, vault string) {
	r.t.Helper()
	told := func(standing string) bool {
		ctx, cancel := r.limited()
		defer cancel()
		var all struct {
			Items []struct{ Name, Standing string }
		}
		code, text, err := r.ask(ctx, r.a, r.token, "GET", "/api/v1/console/projects", "")
		return err == nil && code == http.StatusOK && json.Unmarshal(text, &all) == nil &&
			slices.ContainsFunc(all.Items, func(p struct{ Name, Standing string }) bool {
				return p.Name == second.in.project && p.Standing == standing
			})
	}
	until(r.t, "both are served", func() bool { return told("served") }) // the control
	for when, lose := range map[string]func(){
		"before it starts": func() {
			r.restarted(func() {
				r.must(os.Rename(vault, vault+".away"))
				r.must(os.Truncate(file, 5000))
			}, w, second)
		},
		"while it is served": func() {
			second.rest.Lock() // what is not acknowledged is nobody's loss
			defer second.rest.Unlock()
			r.must(os.Rename(vault, vault+".away"))
			r.must(flip(file))
		},
	} {
		lose()
		w.more(r.a, 10)
		until(r.t, "unreadable: the second", func() bool { return told("unreadable") })
		had := len(second.all())
		w.more(r.a, 10)
		if len(second.all()) != had {
			r.t.Error("it was written in what cannot be read")
		}
		r.must(os.Rename(vault+".away", vault))
		second.more(r.a, 5)
		w.kept(r.a)
		second.kept(r.a)
		r.t.Logf("the second's database %s, its vault away: the first goes on", when)
	}
}

// flip changes the head of each page but the first, in place.
func flip(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	for at := int64(4096); err == nil && at < info.Size(); at += 4096 {
		_, err = f.WriteAt(bytes.Repeat([]byte{0xee}, 16), at)
	}
	return errors.Join(err, f.Close())
}
