package takeover_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/uplink/dial"
	"davit.dev/davit/internal/uplink/dial/dialtest"
	"davit.dev/davit/internal/uplink/outbox"
)

// fleetSize is how many agents TestFleet has; DAVIT_FLEET says another number, and
// then what was measured is told as rows of a table, with the bars beside it.
const fleetSize = 40

// TestFleet has agents in this process, over the real protocol, call two consoles
// that are processes of their own, as they would be on two cores: what they hold, how
// long one status round of all takes by the console's own record, and how long until
// all are back when the active one is killed.
func TestFleet(t *testing.T) {
	n, told := fleetSize, false
	if text := os.Getenv("DAVIT_FLEET"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1 {
			t.Fatalf("DAVIT_FLEET=%q: want how many agents", text)
		}
		told = true
	} else {
		t.Parallel() // nothing is measured then
	}
	r := newRig(t, directory(t))
	row := func(what, bar, format string, args ...any) {
		t.Helper()
		t.Logf("| %s | %s | %s |", what, fmt.Sprintf(format, args...), bar)
	}
	within := func(what string, took, bar time.Duration) {
		t.Helper()
		row(what, fmt.Sprintf("%.0f s", bar.Seconds()), "%.1f s: %s", took.Seconds(), verdict(took.Milliseconds(), bar.Milliseconds()))
	}
	if told { // what logging in took is given back within seconds
		a, b := r.rest(r.a), r.rest(r.b)
		row("idle console without sites, the other that follows it", "100 MiB", "%d MiB, %d MiB: %s", a, b, verdict(max(a, b), 100))
	}
	load := func() {
		t.Helper()
		text, err := os.ReadFile("/proc/loadavg")
		r.must(err)
		one, _, _ := strings.Cut(string(text), " ")
		row("load", "", "%s", one)
	}
	load()
	begun := time.Now()
	all := r.crowd(n)
	row(fmt.Sprintf("%d agents enrolled and connected", n), "", "%.1f s", time.Since(begun).Seconds())
	r.round(all, r.a, "first")
	within("one status round of all, by the console's record", r.round(all, r.a, "second"), 10*time.Second)
	most, bar := r.memory(r.a, "VmHWM"), crowdBar(n)
	row("console with all agents: memory now, at the most", fmt.Sprintf("%d MiB", bar), "%d MiB, %d MiB: %s", r.memory(r.a, "VmRSS"), most, verdict(most, bar))
	if !told && most > bar {
		t.Errorf("with %d agents it has %d MiB at the most, over %d MiB", n, most, bar)
	}
	if told {
		row("console with all agents, idle for a while: memory, its own without the program's pages", "", "%d MiB, %d MiB", r.rest(r.a), r.memory(r.a, "RssAnon"))
	}

	load()
	begun = time.Now()
	console, agents := r.spent(r.b), own()
	r.signal(r.a, syscall.SIGKILL)
	took := r.takes(r.b, begun)
	within("active console killed: the other is active after", took, 15*time.Second)
	r.back(all, r.b)
	within("and all agents are back at it after", time.Since(begun), time.Minute)
	row("processor time of that: of the console, of all agents", "", "%.1f s, %.1f s", (r.spent(r.b) - console).Seconds(), (own() - agents).Seconds())
	r.round(all, r.b, "third")

	// The only console there is, killed and started again: all reconnect at once.
	load()
	begun, agents = time.Now(), own()
	r.signal(r.b, syscall.SIGKILL)
	r.serve(r.b)
	r.takes(r.b, begun)
	row("the only console killed and started: active after", "", "%.1f s", time.Since(begun).Seconds())
	r.back(all, r.b)
	within("and all agents are back after", time.Since(begun), time.Minute)
	row("processor time of that: of the console, of all agents", "", "%.1f s, %.1f s", r.spent(r.b).Seconds(), (own() - agents).Seconds())
	r.round(all, r.b, "fourth")
	if !told {
		t.Log("DAVIT_FLEET=5000 has as many agents")
	}
}

// crowdBar is how many MiB a console may have with so many agents: 2 GiB with 5,000.
func crowdBar(agents int) int64 { return 400 + int64(agents)*1648/5000 }

// batch is how many agents one address may enrol at once.
const batch = 50

// crowd lets so many agents in. Each knows both consoles. They enrol from many
// addresses, of each of which a console takes few, and call it directly afterwards.
func (r *rig) crowd(n int) []*agent {
	r.t.Helper()
	var all []*agent
	for first := 0; first < n; first += batch {
		via := r.relay(first/batch, strings.TrimPrefix(r.a.url, "https://"))
		for _, l := range r.enrolled(first, min(first+batch, n), via) {
			l.link.URLs = []string{r.a.url, r.b.url}
			all = append(all, r.agent(l.site, l.link, nil, nil))
		}
	}
	r.back(all, r.a)
	return all
}

// letIn is an agent that has its certificate.
type letIn struct {
	site string
	link dial.Link
}

// enrolled gets certificates for sites by an address.
func (r *rig) enrolled(from, to int, via string) []letIn {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	var running sync.WaitGroup
	defer func() { cancel(); running.Wait() }()
	keepers := map[string]*dialtest.Keeper{}
	for i := from; i < to; i++ {
		site := fmt.Sprintf("s%04d", i)
		var made struct{ Token string }
		r.call(r.a, r.token, http.MethodPost, "/projects/"+project+"/enrolments", map[string]any{"site": site, "minutes": 60}, &made)
		box, err := outbox.Open(filepath.Join(r.t.TempDir(), "outbox"), 0)
		r.must(err)
		keepers[site] = dialtest.Keep(dial.Link{URLs: []string{"https://" + via}, Token: made.Token, Documents: []string{dial.Everywhere}})
		c := &dial.Client{
			Site: site, Version: "test", Keep: keepers[site], Board: dial.NewBoard(), Outbox: box, Hands: &taker{names: map[string]bool{}}, Now: time.Now, Tell: func(dial.Status) {},
		}
		running.Go(func() { c.Run(ctx); _ = box.Close() })
	}
	var in []letIn
	until(r.t, "enrolled by "+via, func() bool {
		in = in[:0]
		for i := from; i < to; i++ {
			site := fmt.Sprintf("s%04d", i)
			l, err := keepers[site].Load(ctx)
			if err != nil || l.Token != "" || len(l.Certificate) == 0 {
				return false
			}
			in = append(in, letIn{site, l})
		}
		return true
	})
	return in
}

// relay passes connections on to a console from an address of its own.
func (r *rig) relay(number int, to string) (address string) {
	r.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") // which is in every console's certificate
	r.must(err)
	r.t.Cleanup(func() { _ = l.Close() })
	from := &net.TCPAddr{IP: net.IPv4(127, 93, byte(number>>8), byte(1+number&0x7f))}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go relayed(in, net.Dialer{LocalAddr: from}, to)
		}
	}()
	return l.Addr().String()
}

func relayed(in net.Conn, dialer net.Dialer, to string) {
	defer in.Close()
	out, err := dialer.Dial("tcp", to)
	if err != nil {
		return
	}
	defer out.Close()
	go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
	_, _ = io.Copy(in, out)
}

// round has every agent say a new state of three objects, and returns how long it
// took until the console had heard the last of them, by the times that it notes.
func (r *rig) round(all []*agent, at *console, state string) time.Duration {
	r.t.Helper()
	begun := time.Now()
	for _, a := range all {
		var objects []uplink.Object
		for _, name := range []string{"shop", "wiki", "mail"} {
			objects = append(objects, uplink.Object{Key: uplink.Key{Kind: "Application", Namespace: "davit-system", Name: name}, VaultName: name, State: state})
		}
		a.Board.Put(objects)
	}
	var last time.Time
	until(r.t, "told by all: "+state, func() bool {
		var list struct{ Items []fleet.Agent }
		r.call(at, r.robot, http.MethodGet, "/projects/"+project+"/agents", nil, &list)
		told := 0
		for _, a := range list.Items {
			if !a.Connected || len(a.Objects) != 3 || a.Objects[0].State != state {
				continue
			}
			told++
			for _, o := range a.Objects {
				if o.Heard.After(last) {
					last = o.Heard
				}
			}
		}
		return told == len(all)
	})
	return last.Sub(begun)
}

// rest is the least that a console's process has, in MiB, while nothing is asked of it.
func (r *rig) rest(c *console) int64 {
	r.t.Helper()
	least := r.memory(c, "VmRSS")
	for range 20 {
		time.Sleep(time.Second) // it is measured, nothing is waited for
		least = min(least, r.memory(c, "VmRSS"))
	}
	return least
}

// memory is what a console's process has, in MiB, by a line of its status.
func (r *rig) memory(c *console, line string) int64 {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(c.cmd.Process.Pid), "status"))
	r.must(err)
	for l := range strings.Lines(string(text)) {
		var kib int64
		if n, _ := fmt.Sscanf(l, line+": %d kB", &kib); n == 1 {
			return kib >> 10
		}
	}
	r.t.Fatalf("%s is not in the status of console %s", line, c.name)
	return 0
}

// spent is the processor time that a console's process has had. Other than what
// something takes it does not depend on what else the machine does.
func (r *rig) spent(c *console) time.Duration {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(c.cmd.Process.Pid), "stat"))
	r.must(err)
	_, rest, _ := strings.Cut(string(text), ") ") // after the name, which may be anything
	all := strings.Fields(rest)
	if len(all) < 13 {
		r.t.Fatalf("the times of console %s: %s", c.name, text)
	}
	var ticks int64
	for _, one := range all[11:13] { // in user and in system mode
		n, err := strconv.ParseInt(one, 10, 64)
		r.must(err)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond // as Linux tells it everywhere
}

// own is the processor time of this process, which has the agents.
func own() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
