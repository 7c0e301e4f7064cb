// Package gate closes the network of pods with nftables, each in the pod's own
// network namespace: whatever plugin made the network, established flows and
// neighbours on the same bridge included. The rules are the kernel's: they stay
// when the process that set them dies, and go with the pod.
package gate

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The tables, both of family inet. A packet that either drops is dropped.
const (
	fenceTable   = "davit-fence"
	sandboxTable = "davit-sandbox"
)

// ErrHost says that what was named is the node's own network, and no pod's.
var ErrHost = errors.New("this is the network of the node")

// Net is a pod's network, held open.
type Net struct{ file *os.File }

// Open opens a network by its path as the node sees it, or by a process in it.
// The node's own network, and this process's, are refused: to close them would
// cut off more than a pod.
func Open(root, path string, pid int) (*Net, error) {
	var tries []string
	if path != "" {
		tries = append(tries, filepath.Join(root, path))
	}
	if pid > 1 {
		tries = append(tries, filepath.Join("/proc", strconv.Itoa(pid), "ns", "net"))
	}
	errs := []error{errors.New("open network of a pod")}
	for _, name := range tries {
		f, err := os.Open(name)
		if err == nil {
			err = check(f)
			if err == nil {
				return &Net{f}, nil
			}
			_ = f.Close()
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// notOurs are the node's network, as its first process and this one's parent
// see it, and this process's own. They are looked up once, when it starts: later a
// thread of it may be in a pod's.
var notOurs = func() (all []unix.Stat_t) {
	for _, name := range []string{"/proc/1/ns/net", "/proc/self/ns/net", "/proc/" + strconv.Itoa(os.Getppid()) + "/ns/net"} {
		var st unix.Stat_t
		if err := unix.Stat(name, &st); err == nil {
			all = append(all, st)
		}
	}
	return all
}()

// check makes sure that it is a network, and not the node's.
func check(f *os.File) error {
	var kind unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &kind); err != nil {
		return fmt.Errorf("look at %s: %w", f.Name(), err)
	}
	if kind.Type != unix.NSFS_MAGIC {
		return fmt.Errorf("%s is not a network namespace", f.Name())
	}
	var own unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &own); err != nil {
		return fmt.Errorf("look at %s: %w", f.Name(), err)
	}
	for _, theirs := range notOurs {
		if theirs.Ino == own.Ino && theirs.Dev == own.Dev {
			return fmt.Errorf("%w: %s", ErrHost, f.Name())
		}
	}
	return nil
}

// Close lets go of the network. Its rules stay.
func (n *Net) Close() error { return n.file.Close() }

// mostBytes bounds a transaction, which is sent at once: an address takes up to 28 bytes.
const mostBytes = 16 << 20

func (n *Net) conn() (*nftables.Conn, error) {
	c, err := nftables.New(nftables.WithNetNSFd(int(n.file.Fd())), nftables.WithSockOptions(func(c *netlink.Conn) error { return c.SetWriteBuffer(mostBytes) }))
	if err != nil {
		return nil, fmt.Errorf("open nftables of a pod: %w", err)
	}
	return c, nil
}

func table(name string) *nftables.Table {
	return &nftables.Table{Name: name, Family: nftables.TableFamilyINet}
}

// Cut drops all that goes in, out or through, but what the pod says to itself.
// It is one transaction, and changes nothing when it is done again.
func (n *Net) Cut() error {
	c, err := n.conn()
	if err != nil {
		return err
	}
	t := replace(c, fenceTable)
	for _, dir := range []struct {
		name string
		hook *nftables.ChainHook
		key  expr.MetaKey
	}{
		{"in", nftables.ChainHookInput, expr.MetaKeyIIFNAME},
		{"out", nftables.ChainHookOutput, expr.MetaKeyOIFNAME},
		{"through", nftables.ChainHookForward, 0},
	} {
		chain := base(c, t, dir.name, dir.hook)
		if dir.key != 0 {
			c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: loopback(dir.key)})
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("cut off a pod: %w", err)
	}
	return nil
}

// IsCut tells whether the rules of Cut are in place.
func (n *Net) IsCut() (bool, error) { return n.has(fenceTable, 3) }

// IsIsolated tells whether rules of Isolate are in place.
func (n *Net) IsIsolated() (bool, error) { return n.has(sandboxTable, 3) }

func (n *Net) has(name string, chains int) (bool, error) {
	c, err := n.conn()
	if err != nil {
		return false, err
	}
	all, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("look at the rules of a pod: %w", err)
	}
	found := 0
	for _, chain := range all {
		if chain.Table.Name == name && chain.Hooknum != nil && chain.Policy != nil && *chain.Policy == nftables.ChainPolicyDrop {
			found++
		}
	}
	return found == chains, nil
}

// Restore takes back what Cut did.
func (n *Net) Restore() error { return n.drop(fenceTable) }

// Release takes back what Isolate did.
func (n *Net) Release() error { return n.drop(sandboxTable) }

func (n *Net) drop(name string) error {
	c, err := n.conn()
	if err != nil {
		return err
	}
	c.AddTable(table(name)) // so that it is there to be deleted
	c.DelTable(table(name))
	if err := c.Flush(); err != nil {
		return fmt.Errorf("open the network of a pod again: %w", err)
	}
	return nil
}

// Reach is what a pod in a sandbox may speak to besides name servers.
type Reach struct {
	// Peers are the addresses of pods and services of the same sandbox.
	Peers []netip.Addr
	// Servers are what else is allowed, such as the API server.
	Servers []netip.AddrPort
}

// Isolate lets a pod begin connections to its peers and to name servers only.
// Whoever may come to it still can, over TCP: probes do. A connection that was
// begun before is cut off, unless it is to a peer.
func (n *Net) Isolate(r Reach) error {
	c, err := n.conn()
	if err != nil {
		return err
	}
	t := replace(c, sandboxTable)
	peers, err := newPeers(c, t, r.Peers)
	if err != nil {
		return err
	}
	in := base(c, t, "in", nftables.ChainHookInput)
	out := base(c, t, "out", nftables.ChainHookOutput)
	base(c, t, "through", nftables.ChainHookForward)
	add := func(chain *nftables.Chain, exprs []expr.Any) {
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: exprs})
	}
	add(in, loopback(expr.MetaKeyIIFNAME))
	for _, family := range []family{v4, v6} {
		add(in, peers.match(family, family.source))
	}
	add(in, established())
	add(in, beginning())
	add(in, neighbours())
	add(out, loopback(expr.MetaKeyOIFNAME))
	for _, family := range []family{v4, v6} {
		add(out, peers.match(family, family.destination))
	}
	for _, proto := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		add(out, append(toPort(proto, 53), accept()))
	}
	for _, server := range r.Servers {
		add(out, append(append(to(server.Addr()), toPort(unix.IPPROTO_TCP, server.Port())...), accept()))
	}
	add(out, answering())
	add(out, neighbours())
	if err := c.Flush(); err != nil {
		return fmt.Errorf("isolate a pod: %w", err)
	}
	return nil
}

// replace begins a transaction that leaves only what follows in the table.
func replace(c *nftables.Conn, name string) *nftables.Table {
	c.AddTable(table(name))
	c.DelTable(table(name))
	return c.AddTable(table(name))
}

func base(c *nftables.Conn, t *nftables.Table, name string, hook *nftables.ChainHook) *nftables.Chain {
	drop := nftables.ChainPolicyDrop
	return c.AddChain(&nftables.Chain{Name: name, Table: t, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityFilter, Policy: &drop})
}
