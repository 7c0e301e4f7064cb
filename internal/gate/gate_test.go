package gate

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lab is two networks with a cable between them: a pod at 10.9.0.1, the world
// at 10.9.0.2 and 10.9.0.3.
type lab struct{ pod, world string }

func newLab(t *testing.T) lab {
	t.Helper()
	skip := t.Skipf
	if os.Getenv("DAVIT_CI") != "" { // what fences by the network is not left out there
		skip = t.Fatalf
	}
	if os.Geteuid() != 0 {
		skip("needs root: it makes networks")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		skip("needs the command ip")
	}
	l := lab{fmt.Sprintf("davit-gate-%d-a", os.Getpid()), fmt.Sprintf("davit-gate-%d-b", os.Getpid())}
	for _, line := range []string{
		"netns add " + l.pod, "netns add " + l.world,
		"-n " + l.pod + " link add eth0 type veth peer name eth0 netns " + l.world,
		"-n " + l.pod + " addr add 10.9.0.1/24 dev eth0", "-n " + l.world + " addr add 10.9.0.2/24 dev eth0", "-n " + l.world + " addr add 10.9.0.3/24 dev eth0",
		"-n " + l.pod + " link set lo up", "-n " + l.pod + " link set eth0 up", "-n " + l.world + " link set eth0 up",
	} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			_ = exec.Command("ip", "netns", "del", l.pod).Run()
			_ = exec.Command("ip", "netns", "del", l.world).Run()
			skip("cannot make networks here: ip %s: %v: %s", line, err, out)
		}
	}
	t.Cleanup(func() {
		_ = exec.Command("ip", "netns", "del", l.pod).Run()
		_ = exec.Command("ip", "netns", "del", l.world).Run()
	})
	return l
}

// in runs a function inside a network.
func in(t *testing.T, name string, do func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		f, err := os.Open("/run/netns/" + name)
		if err == nil {
			defer f.Close()
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			do()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// echo answers every line on an address inside a network.
func echo(t *testing.T, network, address string) {
	t.Helper()
	in(t, network, func() {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					lines := bufio.NewScanner(c)
					for lines.Scan() {
						fmt.Fprintln(c, lines.Text())
					}
				}()
			}
		}()
	})
}

func dial(t *testing.T, network, address string, patience time.Duration) (c net.Conn, err error) {
	t.Helper()
	in(t, network, func() { c, err = net.DialTimeout("tcp", address, patience) })
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// answers tells whether a connection still carries words both ways.
func answers(c net.Conn, patience time.Duration) bool {
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintln(c, "word"); err != nil {
		return false
	}
	buffer := make([]byte, 64)
	_, err := c.Read(buffer)
	return err == nil
}

const (
	long  = 20 * time.Second // for what must come
	short = 300 * time.Millisecond
)

func open(t *testing.T, l lab) *Net {
	t.Helper()
	n, err := Open("/", "/run/netns/"+l.pod, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCutDropsWhatIsEstablished(t *testing.T) {
	l := newLab(t)
	echo(t, l.world, "10.9.0.2:80")
	echo(t, l.pod, "127.0.0.1:81")
	c, err := dial(t, l.pod, "10.9.0.2:80", long)
	must(t, err)
	own, err := dial(t, l.pod, "127.0.0.1:81", long)
	must(t, err)
	if !answers(c, long) || !answers(own, long) {
		t.Fatal("nothing works before the cut: the test would prove nothing")
	}
	n := open(t, l)
	if is, err := n.IsCut(); err != nil || is {
		t.Fatalf("cut before the cut: %v, %v", is, err)
	}
	for range 2 { // done again it changes nothing
		must(t, n.Cut())
		if is, err := n.IsCut(); err != nil || !is {
			t.Fatalf("not cut: %v, %v", is, err)
		}
	}
	if answers(c, short) {
		t.Error("an established connection still carries words")
	}
	if _, err := dial(t, l.pod, "10.9.0.2:80", short); err == nil {
		t.Error("the pod still gets out")
	}
	if !answers(own, long) {
		t.Error("the pod cannot speak to itself, so it cannot end well")
	}
	must(t, n.Restore())
	must(t, n.Restore())
	fresh, err := dial(t, l.pod, "10.9.0.2:80", long)
	must(t, err)
	if !answers(fresh, long) {
		t.Error("after the fence the pod gets no answer")
	}
}

func TestIsolateLetsSpeakToPeersOnly(t *testing.T) {
	l := newLab(t)
	const production, peer = "10.9.0.2", "10.9.0.3"
	for _, a := range []string{production + ":80", production + ":53", production + ":443", peer + ":80"} {
		echo(t, l.world, a)
	}
	echo(t, l.pod, "10.9.0.1:80")
	before, err := dial(t, l.pod, production+":80", long) // the negative control: without it the copy reaches production
	must(t, err)
	if !answers(before, long) {
		t.Fatal("production does not answer: the test would prove nothing")
	}
	n := open(t, l)
	must(t, n.Isolate(Reach{Peers: []netip.Addr{netip.MustParseAddr(peer), netip.MustParseAddr("fd00::1")}, Servers: []netip.AddrPort{netip.MustParseAddrPort(production + ":443")}}))
	if is, err := n.IsIsolated(); err != nil || !is {
		t.Fatalf("not isolated: %v, %v", is, err)
	}
	if answers(before, short) {
		t.Error("a connection to production that was begun before still carries words")
	}
	if _, err := dial(t, l.pod, production+":80", short); err == nil {
		t.Error("the copy reaches production")
	}
	for _, a := range []string{peer + ":80", production + ":53", production + ":443"} {
		c, err := dial(t, l.pod, a, long)
		if err != nil || !answers(c, long) {
			t.Errorf("%s is not reached: %v", a, err)
		}
	}
	probe, err := dial(t, l.world, "10.9.0.1:80", long)
	must(t, err)
	if !answers(probe, long) {
		t.Error("a probe gets no answer")
	}
	must(t, n.Isolate(Reach{}))
	if _, err := dial(t, l.pod, peer+":80", short); err == nil {
		t.Error("one that is a peer no more is still reached")
	}
	must(t, n.Release())
	if _, err := dial(t, l.pod, production+":80", long); err != nil {
		t.Errorf("after the release: %v", err)
	}
}

// TestIsolateWithManyPeers: one message of the kernel's holds some 4,000 addresses, and what does not fit into it is
// not there; all messages at once hold some 10,000, if nobody asks for more.
func TestIsolateWithManyPeers(t *testing.T) {
	l := newLab(t)
	const peer = "10.9.0.3"
	echo(t, l.world, peer+":80")
	var peers []netip.Addr
	for v4, v6, i := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00::1"), 0; i < 20000; i++ {
		peers = append(peers, v4, v6)
		v4, v6 = v4.Next(), v6.Next()
	}
	n := open(t, l)
	must(t, n.Isolate(Reach{Peers: peers}))
	if _, err := dial(t, l.pod, peer+":80", short); err == nil { // the negative control
		t.Error("one that is no peer is reached")
	}
	must(t, n.Isolate(Reach{Peers: append(peers, netip.MustParseAddr(peer))}))
	c, err := dial(t, l.pod, peer+":80", long)
	if err != nil || !answers(c, long) {
		t.Errorf("the last of many peers is not reached: %v", err)
	}
}

func TestTheNodesOwnNetworkIsRefused(t *testing.T) {
	if _, err := Open("/", "", os.Getppid()); !errors.Is(err, ErrHost) {
		t.Errorf("the parent's network, which is the node's: %v, want ErrHost", err)
	}
	if _, err := Open("/", "/etc/passwd", 0); err == nil {
		t.Error("a file that is no network was opened as one")
	}
	if _, err := Open("/", "", 0); err == nil {
		t.Error("nothing was opened")
	}
}
