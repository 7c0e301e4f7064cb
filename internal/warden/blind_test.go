package warden

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"davit.dev/davit/internal/containers"
	"davit.dev/davit/internal/fence"
)

// remembers gives the rig's warden a memory of the runtime, and returns what is signalled.
func (r *rig) remembers() (*Memory, *[]string) {
	m := Remember(r.machine, r.store, func() time.Duration { return r.now })
	signals := new([]string)
	r.w.opts.Runtime, r.w.opts.Last = m, m
	r.w.opts.End = func(pods []containers.Sandbox, signal syscall.Signal) error {
		for _, p := range pods {
			*signals = append(*signals, p.ID+" "+signal.String())
		}
		return nil
	}
	return m, signals
}

func (r *rig) leased(app string, lease time.Duration) {
	r.learn(app, fence.Answer{Newest: 1, Held: 1, Asked: r.now, Terms: &fence.Terms{Lease: lease}})
}

// TestALeaseThatIsOverWhileTheRuntimeIsDead: what it said last is cut off, asked to end and killed, and nothing
// of it is proof before it says so itself. Pods of others are left alone. The control is a runtime
// that never said anything.
func TestALeaseThatIsOverWhileTheRuntimeIsDead(t *testing.T) {
	for name, seen := range map[string]bool{"seen before": true, "never seen": false} {
		r := newRig(t, newMachine("a"), "shop")
		r.add("b", "bank", "pod-b")
		r.leased("shop", 10*time.Second)
		last, signals := r.remembers()
		r.w.first = false
		if seen {
			if _, err := last.Sandboxes(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		r.broken = errors.New("the disk is full")
		if st := r.look(); len(r.cut) != 0 || len(st.Applications) != 0 {
			t.Fatalf("%s: within the lease: %+v", name, st)
		}
		r.now += 10 * time.Second
		for range 4 {
			st := r.look()
			held := st.Applications["shop"]
			if held.Reason != fence.LeaseOver || st.Problem == nil || r.cut["a"] != seen || r.cut["b"] || seen != (held.Running > 0) {
				t.Errorf("%s: %+v, cut off %v", name, st, r.cut)
			}
		}
		if want := []string{"a terminated", "a killed", "a killed", "a killed"}; seen && !slices.Equal(*signals, want) || !seen && len(*signals) > 0 {
			t.Errorf("%s: signalled %v", name, *signals)
		}
		r.broken = nil
		if st := r.look(); st.Problem != nil || !r.cut["a"] || r.live["c-a"] != "" {
			t.Errorf("%s: the runtime is back: %+v, live %v", name, st, r.live)
		}
		r.leased("shop", 10*time.Second)
		if r.look(); r.cut["a"] {
			t.Errorf("%s: renewed, and still cut off", name)
		}
	}
}

// TestARuntimeThatHangs keeps nothing from being cut off and killed within what nodes promise, also
// when the lease ends while it is asked, and by the watchdog, which has never looked itself.
func TestARuntimeThatHangs(t *testing.T) {
	const lease, grace = 10 * time.Second, 3 * time.Second
	for name, c := range map[string]struct {
		watchdog bool
		busy     bool // another application is fenced: the runtime is being asked when the lease ends
		within   time.Duration
	}{
		"the node process":                {within: 5 * time.Second},
		"the node process, asking":        {busy: true, within: 5 * time.Second},
		"the watchdog, 2 s after the end": {watchdog: true, within: 8 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, newMachine("a"), "shop", "bank")
				start := time.Now().Add(-time.Second)
				now := func() time.Duration { return time.Since(start) }
				r.now = now()
				r.leased("shop", lease)
				if c.busy {
					r.learn("bank", superseded())
				}
				end := r.now + lease
				last := Remember(r.machine, r.store, now)
				if _, err := last.Sandboxes(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := last.Keep(t.Context()); err != nil {
					t.Fatal(err)
				}
				cut, killed := time.Duration(0), time.Duration(0)
				opts := Options{
					Store: r.store, Gates: r.machine, Now: now, Grace: grace, Log: slog.New(slog.DiscardHandler),
					End: func(_ []containers.Sandbox, s syscall.Signal) error {
						if cut == 0 && r.cut["a"] {
							cut = now()
						}
						if killed == 0 && s == syscall.SIGKILL {
							killed = now()
						}
						return nil
					},
				}
				if c.watchdog {
					last = Remember(r.machine, r.store, now)
					opts.Acts = func() bool { return now() > end+2*time.Second }
				}
				opts.Runtime, opts.Last = hangs{last}, last
				ctx, cancel := context.WithTimeout(t.Context(), lease+10*time.Second)
				defer cancel()
				w := New(opts)
				w.Run(ctx)
				if cut < end || killed < cut || killed > end+c.within {
					t.Errorf("the lease ended at %s: cut off at %s, killed at %s", end, cut, killed)
				}
			})
		})
	}
}

// hangs is a runtime that never answers.
type hangs struct{ *Memory }

func (hangs) Sandboxes(ctx context.Context) ([]containers.Sandbox, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestWhatIsRemembered: each network is asked for once, no process of it is remembered, and another process
// finds all of it, as far as it has not seen better.
func TestWhatIsRemembered(t *testing.T) {
	m := newMachine("a", "b")
	m.host["b"] = true
	store := fence.Store{RunDir: t.TempDir(), Boot: "b"}
	now := time.Second
	remember := func() *Memory { return Remember(m, store, func() time.Duration { return now }) }
	first := remember()
	for range 3 {
		if _, err := first.Sandboxes(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := first.Keep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if m.located != 2 {
		t.Errorf("asked %d times for two networks", m.located)
	}
	known := func(m *Memory, pods int) {
		t.Helper()
		if got := m.last(); len(got) != pods {
			t.Fatalf("%d pods: %v", len(got), got)
		}
		if path, host := m.place("a"); path != "/run/netns/a" || host {
			t.Errorf("a is at %q, %v", path, host)
		}
		if _, host := m.place("b"); !host {
			t.Error("b is not the node's")
		}
	}
	known(first, 2)
	known(remember(), 2)
	m.add("c", "shop", "pod-c")
	now++
	looked := remember() // with its own eyes, and later
	if _, err := looked.Sandboxes(t.Context()); err != nil {
		t.Fatal(err)
	}
	known(looked, 3)
	m.broken = errors.New("dead")
	gates := KernelGates{Networks: looked, Root: t.TempDir()}
	if err := gates.Cut(t.Context(), "b"); !errors.Is(err, ErrHostNetwork) {
		t.Errorf("a pod of the node's network: %v", err)
	}
	store.Boot = "another"
	if got := remember().last(); len(got) != 0 {
		t.Errorf("of an earlier start of the machine: %v", got)
	}
}

func TestProcessesOfAPod(t *testing.T) {
	const uid = "0f0e9d6c-0c1e-4b7a-9a55-3f0f6f1f9a01"
	pod := containers.Sandbox{UID: uid, ID: "5a4db0"}
	proc := t.TempDir()
	for text, want := range map[string]bool{
		"0::/kubepods/burstable/pod" + uid + "/c0ffee\n": true,
		"0::/../../pod" + uid + "/c0ffee\n":              true,
		"0::/kubepods.slice/kubepods-pod0f0e9d6c_0c1e_4b7a_9a55_3f0f6f1f9a01.slice/cri-containerd-c0ffee.scope\n":                   true,
		"3:cpu:/\n2:pids:/kubepods.slice/kubepods-besteffort-pod0f0e9d6c_0c1e_4b7a_9a55_3f0f6f1f9a01.slice/crio-c0ffee.scope/sub\n": true,
		"0::/kubepods/burstable/pod" + uid + "/5a4db0\n":                                                                            false, // holds the namespaces
		"0::/kubepods.slice/kubepods-pod0f0e9d6c_0c1e_4b7a_9a55_3f0f6f1f9a01.slice/crio-conmon-c0ffee.scope\n":                      false,
		"0::/kubepods/burstable/pod1f0e9d6c-0c1e-4b7a-9a55-3f0f6f1f9a01/c0ffee\n":                                                   false,
		"0::/kubepods/burstable/pod" + uid + "0/c0ffee\n":                                                                           false,
		"0::/system.slice/containerd.service\n":                                                                                     false,
		"":                                                                                                                          false,
	} {
		if err := os.MkdirAll(filepath.Join(proc, "9"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(proc, strconv.Itoa(9), "cgroup"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := within(proc, 9, []containers.Sandbox{pod}); got != want {
			t.Errorf("%q: %v", text, got)
		}
		if within(proc, 9, []containers.Sandbox{{UID: "", ID: "x"}, {UID: "pod", ID: "x"}}) {
			t.Errorf("%q: of a pod without a UID", text)
		}
	}
}
