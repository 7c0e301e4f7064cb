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

// firewall holds the instance's cuts. Sets make a cut one atomic change that also hits established flows.
type firewall struct{ table string }

func newFirewall(instance string) firewall { return firewall{"davit-bed-" + instance} }

// ruleset renders the table.
//
// Services of a site answer its own pods and the host, not other sites: clusters do not share Service addresses, and a
// test must not pass because they did. Packets for a site whose link is down must vanish: without its route they would
// follow the host's default route, where some gateways answer for everyone.
func (f firewall) ruleset(nodes []*node) string {
	var services, strays strings.Builder
	for _, n := range nodes {
		fmt.Fprintf(&services, "    ip daddr %s drop\n", n.net.ServiceCIDR())
		fmt.Fprintf(&strays, "    ip daddr { %s, %s, %s } oifname != %q drop\n", n.net.Address(), n.net.PodCIDR(), n.net.ServiceCIDR(), n.net.Veth())
	}
	return fmt.Sprintf(`table inet %[1]s {
  set pairs { type ifname . ifname; }
  set lone { type ifname; }
  chain forward { type filter hook forward priority -10; policy accept; }
  chain input { type filter hook input priority -10; policy accept; }
  chain output { type filter hook output priority -10; policy accept; }
}
flush chain inet %[1]s forward
flush chain inet %[1]s input
flush chain inet %[1]s output
table inet %[1]s {
  chain forward {
    iifname . oifname @pairs drop
%[2]s%[3]s  }
  chain input {
    iifname @lone drop
  }
  chain output {
    oifname @lone drop
%[3]s  }
}
`, f.table, services.String(), strays.String())
}

func (f firewall) exists(ctx context.Context) bool {
	_, err := run(ctx, "nft", "list", "table", "inet", f.table)
	return err == nil
}

// ensure writes the rules for the nodes the bed has now; cuts in force stay.
func (f firewall) ensure(ctx context.Context, nodes []*node) error {
	_, err := runInput(ctx, f.ruleset(nodes), "nft", "-f", "-")
	return err
}

func (f firewall) remove(ctx context.Context) error {
	if !f.exists(ctx) {
		return nil
	}
	_, err := run(ctx, "nft", "delete", "table", "inet", f.table)
	return err
}

// element renders the set and the members that part a from b; an empty interface name is the host.
func element(a, b string) (set, members string) {
	switch {
	case a == "":
		return "lone", fmt.Sprintf("{ %q }", b)
	case b == "":
		return "lone", fmt.Sprintf("{ %q }", a)
	}
	return "pairs", fmt.Sprintf("{ %q . %q, %q . %q }", a, b, b, a)
}

func (f firewall) cut(ctx context.Context, a, b string) error {
	set, members := element(a, b)
	_, err := run(ctx, "nft", "add", "element", "inet", f.table, set, members)
	return err
}

func (f firewall) heal(ctx context.Context, a, b string) error {
	set, members := element(a, b)
	// Deleting what is not there is an error in nft; adding it first makes the pair idempotent and still atomic.
	script := fmt.Sprintf("add element inet %[1]s %[2]s %[3]s\ndelete element inet %[1]s %[2]s %[3]s\n", f.table, set, members)
	_, err := runInput(ctx, script, "nft", "-f", "-")
	return err
}

func (f firewall) healAll(ctx context.Context) error {
	script := fmt.Sprintf("flush set inet %[1]s pairs\nflush set inet %[1]s lone\n", f.table)
	_, err := runInput(ctx, script, "nft", "-f", "-")
	return err
}

// Cut drops all traffic between two of: sites, "vault", "host". Established connections are cut as well.
func (b *Bed) Cut(ctx context.Context, x, y string) error {
	return b.partition(ctx, x, y, b.fw.cut)
}

// Heal ends the cut between two members.
func (b *Bed) Heal(ctx context.Context, x, y string) error {
	return b.partition(ctx, x, y, b.fw.heal)
}

// HealAll ends all cuts.
func (b *Bed) HealAll(ctx context.Context) error { return b.fw.healAll(ctx) }

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
