// Package firewall parts the members of a bed from each other, with nftables on the host.
package firewall

import (
	"context"
	"fmt"
	"os/exec"
	"strings"

	"davit.dev/davit/testbed/bed/host"
)

// Firewall holds an instance's cuts. Sets make a cut one atomic change that also hits established flows.
type Firewall struct{ table string }

// New returns the firewall of an instance of the bed; nothing is changed.
func New(instance string) Firewall { return Firewall{"davit-bed-" + instance} }

// Table is the name of the table, of the family inet.
func (f Firewall) Table() string { return f.table }

// ruleset renders the table.
//
// Services of a site answer its own pods and the host, not other sites: clusters do not share Service addresses, and a
// test must not pass because they did. Packets for a site whose link is down must vanish: without its route they would
// follow the host's default route, where some gateways answer for everyone.
func (f Firewall) ruleset(subnets []host.Subnet) string {
	var services, strays strings.Builder
	for _, n := range subnets {
		fmt.Fprintf(&services, "    ip daddr %s drop\n", n.ServiceCIDR())
		fmt.Fprintf(&strays, "    ip daddr { %s, %s, %s } oifname != %q drop\n", n.Address(), n.PodCIDR(), n.ServiceCIDR(), n.Veth())
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

// Exists tells whether the table is there.
func (f Firewall) Exists(ctx context.Context) bool {
	return nft(ctx, "", "list", "table", "inet", f.table) == nil
}

// Ensure writes the rules for the members that the bed has now; cuts in force stay.
func (f Firewall) Ensure(ctx context.Context, subnets []host.Subnet) error {
	return nft(ctx, f.ruleset(subnets), "-f", "-")
}

// Remove takes the table away, if it is there.
func (f Firewall) Remove(ctx context.Context) error {
	if !f.Exists(ctx) {
		return nil
	}
	return nft(ctx, "", "delete", "table", "inet", f.table)
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

// Cut drops all packets between two of the host's interfaces, or one and the host itself, whose name is empty.
func (f Firewall) Cut(ctx context.Context, a, b string) error {
	set, members := element(a, b)
	return nft(ctx, "", "add", "element", "inet", f.table, set, members)
}

// Heal ends a cut, in force or not.
func (f Firewall) Heal(ctx context.Context, a, b string) error {
	set, members := element(a, b)
	// Deleting what is not there is an error in nft; adding it first makes the pair idempotent and still atomic.
	script := fmt.Sprintf("add element inet %[1]s %[2]s %[3]s\ndelete element inet %[1]s %[2]s %[3]s\n", f.table, set, members)
	return nft(ctx, script, "-f", "-")
}

// HealAll ends all cuts.
func (f Firewall) HealAll(ctx context.Context) error {
	script := fmt.Sprintf("flush set inet %[1]s pairs\nflush set inet %[1]s lone\n", f.table)
	return nft(ctx, script, "-f", "-")
}

// nft runs nft; the error carries what it said.
func nft(ctx context.Context, stdin string, args ...string) error {
	cmd := exec.CommandContext(ctx, "nft", args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run nft %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
