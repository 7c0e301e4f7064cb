package bed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"davit.dev/davit/testbed/bed/host"
)

// linkName is the interface inside the namespace.
const linkName = "eth0"

// hostName stands for the host itself in Cut and Heal.
const hostName = "host"

func (n *node) netnsName() string { return n.instance + "-" + n.name }
func (n *node) netns() string     { return "/run/netns/" + n.netnsName() }

// linkUp makes namespace, veth pair, addresses and routes, or mends what is missing of them. It returns with the link up.
func (n *node) linkUp(ctx context.Context) error {
	if err := n.clearStale(ctx); err != nil {
		return err
	}
	if inode(n.netns()) == 0 {
		if _, err := run(ctx, "ip", "netns", "add", n.netnsName()); err != nil {
			return fmt.Errorf("create namespace: %w", err)
		}
	}
	veth := n.net.Veth()
	if _, err := os.Stat("/sys/class/net/" + veth); err != nil {
		if err := n.addVeth(ctx); err != nil {
			return err
		}
	}
	if _, err := run(ctx, "ip", "link", "set", veth, "up"); err != nil {
		return fmt.Errorf("raise link of %s: %w", n.name, err)
	}
	// The kernel drops the routes through a link that goes down.
	for _, cidr := range []string{n.net.PodCIDR(), n.net.ServiceCIDR()} {
		if _, err := run(ctx, "ip", "route", "replace", cidr, "via", n.net.Address(), "dev", veth); err != nil {
			return fmt.Errorf("route to %s: %w", n.name, err)
		}
	}
	return inNetns(n.netns(), func() error {
		return host.SetSysctls(map[string]string{
			"net/ipv4/ip_forward":              "1",
			"net/ipv4/conf/all/route_localnet": "1",
			"net/ipv4/ping_group_range":        "0\t2147483647",
		}, map[string]string{"net/bridge/bridge-nf-call-iptables": "1"})
	})
}

// clearStale takes away what a bed that ended uncleanly left under the node's names: one end of a link, or a namespace
// with a link to somewhere else. Whatever runs there serves nobody, and would keep the new one from its ports.
func (n *node) clearStale(ctx context.Context) error {
	index, _ := os.ReadFile("/sys/class/net/" + n.net.Veth() + "/ifindex")
	inside, err := run(ctx, "ip", "-n", n.netnsName(), "-o", "link", "show")
	theirs := farEnd(inside)
	switch {
	case len(index) > 0 && err == nil && theirs == strings.TrimSpace(string(index)):
		return nil // they are one link
	case len(index) > 0: // half of one
	case inode(n.netns()) == 0, err == nil && theirs == "":
		return nil // there is no link yet
	}
	if err := n.killAll(ctx); err != nil {
		return err
	}
	var linked error
	if theirs != "" { // the kernel takes a while to remove what was in a namespace
		_, linked = run(ctx, "ip", "-n", n.netnsName(), "link", "del", linkName)
	}
	if err := errors.Join(linked, n.removeNetwork(ctx)); err != nil {
		return fmt.Errorf("remove what is left of an earlier %s: %w", n.name, err)
	}
	return nil
}

// farEnd is the index of the host's end of the link in a namespace, by what 'ip -o link show' says there; empty without a link.
func farEnd(links string) string {
	_, rest, found := strings.Cut(links, ": "+linkName+"@if")
	end, _, whole := strings.Cut(rest, ":")
	if !found || !whole {
		return ""
	}
	return end
}

func (n *node) addVeth(ctx context.Context) error {
	veth := n.net.Veth()
	host := strings.Join([]string{
		"link add " + veth + " type veth peer name " + linkName + " netns " + n.netnsName(),
		"addr add " + n.net.Gateway() + "/24 dev " + veth,
	}, "\n")
	if _, err := runInput(ctx, host+"\n", "ip", "-batch", "-"); err != nil {
		return fmt.Errorf("create link of %s: %w", n.name, err)
	}
	inside := strings.Join([]string{
		"link set lo up",
		"addr add " + n.net.Address() + "/24 dev " + linkName,
		"link set " + linkName + " up",
		"route add default via " + n.net.Gateway(),
	}, "\n")
	if _, err := runInput(ctx, inside+"\n", "ip", "-n", n.netnsName(), "-batch", "-"); err != nil {
		return fmt.Errorf("configure link of %s: %w", n.name, err)
	}
	return nil
}

// linkDown cuts the node off: nothing that is still in a socket gets out any more.
func (n *node) linkDown(ctx context.Context) error {
	if _, err := os.Stat("/sys/class/net/" + n.net.Veth()); err != nil {
		return nil
	}
	_, err := run(ctx, "ip", "link", "set", n.net.Veth(), "down")
	return err
}

func (n *node) linkIsUp() bool {
	data, _ := os.ReadFile("/sys/class/net/" + n.net.Veth() + "/operstate")
	return strings.TrimSpace(string(data)) == "up"
}

// removeNetwork deletes link and namespace; the routes go with the link.
func (n *node) removeNetwork(ctx context.Context) error {
	var errs []error
	if _, err := os.Stat("/sys/class/net/" + n.net.Veth()); err == nil {
		_, err := run(ctx, "ip", "link", "del", n.net.Veth())
		errs = append(errs, err)
	}
	if _, err := os.Stat(n.netns()); err == nil {
		_, err := run(ctx, "ip", "netns", "del", n.netnsName())
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Cut drops all traffic between two of: sites, "vault", "host". Established connections are cut as well.
func (b *Bed) Cut(ctx context.Context, x, y string) error {
	return b.partition(ctx, x, y, b.fw.Cut)
}

// Heal ends the cut between two members.
func (b *Bed) Heal(ctx context.Context, x, y string) error {
	return b.partition(ctx, x, y, b.fw.Heal)
}

// HealAll ends all cuts.
func (b *Bed) HealAll(ctx context.Context) error { return b.fw.HealAll(ctx) }

func (b *Bed) partition(ctx context.Context, x, y string, act func(context.Context, string, string) error) error {
	ifx, err := b.veths(x, y)
	if err != nil {
		return err
	}
	ify, err := b.veths(y, x)
	if err != nil {
		return err
	}
	if x == y {
		return fmt.Errorf("cut %s from %s: name two different members of %v", x, y, append(b.members(), hostName))
	}
	for _, a := range ifx {
		for _, z := range ify {
			if err := act(ctx, a, z); err != nil {
				return err
			}
		}
	}
	return nil
}

// veths returns the host's interfaces of a member, or "" for the host. A site is parted from others with its workers,
// and from one of them as its first node.
func (b *Bed) veths(name, from string) ([]string, error) {
	if name == hostName {
		return []string{""}, nil
	}
	n := b.member(name)
	if n == nil {
		return nil, fmt.Errorf("find %q: no such member; instance %s has %v", name, b.instance, append(b.members(), hostName))
	}
	if slices.Contains(b.spec.Workers[name], from) {
		return []string{n.net.Veth()}, nil
	}
	var veths []string
	for _, m := range b.withWorkers(n) {
		veths = append(veths, m.net.Veth())
	}
	return veths, nil
}

func (b *Bed) members() []string {
	var names []string
	for _, n := range b.nodes() {
		names = append(names, n.name)
	}
	slices.Sort(names)
	return names
}

func (b *Bed) member(name string) *node {
	for _, n := range b.nodes() {
		if n.name == name {
			return n
		}
	}
	return nil
}
