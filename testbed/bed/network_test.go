package bed

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"davit.dev/davit/testbed/bed/host"
)

func TestFarEnd(t *testing.T) {
	const lo = "1: lo: <LOOPBACK> mtu 65536 qdisc noop state DOWN mode DEFAULT group default qlen 1000\\    link/loopback 00:00:00:00:00:00\n"
	for links, want := range map[string]string{
		lo + "2: eth0@if15: <BROADCAST,MULTICAST> mtu 1500 qdisc noop state DOWN": "15",
		lo + "2: eth1@if15: <BROADCAST,MULTICAST> mtu 1500":                       "",
		lo:                       "",
		"":                       "",
		"2: eth0@if":             "",
		"2: eth0: <UP> mtu 1500": "",
	} {
		if got := farEnd(links); got != want {
			t.Errorf("%q: %q, want %q", links, got, want)
		}
	}
}

// TestLinkAfterAnUncleanEnd raises a node's link where an earlier bed of the name left something: a namespace whose link goes
// elsewhere, with a process in it; one end of a link, whose other one is gone from where it should be; or nothing. A link
// that is whole stays, and what runs behind it.
func TestLinkAfterAnUncleanEnd(t *testing.T) {
	if os.Getenv("DAVIT_BED") == "" {
		t.Skip("needs root, and makes network namespaces; set DAVIT_BED=1")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	// Subnets that no bed is given.
	n := &node{instance: "selflink", name: "east", dir: filepath.Join(dir, "east"), logs: dir, net: host.Subnet{Index: 101}}
	earlier := &node{instance: "selflink", name: "east", dir: n.dir, logs: dir, net: host.Subnet{Index: 102}}
	t.Cleanup(func() {
		for _, n := range []*node{n, earlier} {
			_ = n.killAll(context.WithoutCancel(ctx))
			_ = n.removeNetwork(context.WithoutCancel(ctx))
		}
	})
	up := func() {
		t.Helper()
		check(t, n.linkUp(ctx))
		if _, err := net.DialTimeout("tcp", n.net.Address()+":1", 5*time.Second); !errors.Is(err, unix.ECONNREFUSED) {
			t.Fatalf("nobody says that nothing listens there: %v", err)
		}
	}
	behind := func(n *node) (ended chan error) {
		t.Helper()
		cmd := exec.CommandContext(ctx, "sleep", "1000")
		check(t, inNetns(n.netns(), cmd.Start))
		ended = make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		return ended
	}

	check(t, earlier.linkUp(ctx))
	ended := behind(earlier)
	up()
	if err := <-ended; err == nil {
		t.Error("what ran behind the earlier link was not killed")
	}
	if _, err := os.Stat("/sys/class/net/" + earlier.net.Veth()); err == nil {
		t.Error("the earlier link is left")
	}

	ended = behind(n)
	check(t, n.linkDown(ctx))
	up()
	select {
	case err := <-ended:
		t.Errorf("what ran behind the node's own link ended: %v", err)
	default:
	}
	check(t, n.killAll(ctx))

	// The name of the namespace goes, and the namespace stays, with whoever is in it.
	ended = behind(n)
	must(run(ctx, "ip", "netns", "del", n.netnsName()))(t)
	up()
	check(t, n.removeNetwork(ctx))
	cancel()
	<-ended
}
