// Package bed runs the test bed: real Kubernetes clusters ("sites") of one node or more and an S3 server ("vault"), each
// in a network namespace of one Linux host, that can be killed, revived and parted for real.
//
// It needs root and the Debian packages that Up checks for. README.md tells how it is used and what it is made of.
package bed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"davit.dev/davit/testbed/bed/firewall"
	"davit.dev/davit/testbed/bed/host"
)

// VaultName is the member that holds the S3 server.
const VaultName = "vault"

// DefaultInstance is the bed that commands use when none is named.
const DefaultInstance = "dev"

// Names end up in interface, cgroup and socket paths, all of which are short.
var validName = regexp.MustCompile(`^[a-z][a-z0-9]{0,11}$`)

// Bed is one instance: its sites and its vault. Several live side by side on a host.
type Bed struct {
	instance string
	dir      string
	fw       firewall.Firewall
	spec     spec
}

// spec is what must be the same on every start: certificates and data carry these addresses.
type spec struct {
	Sites []string `json:"sites"`
	// Workers are the nodes that sites have beside their first one, by site.
	Workers   map[string][]string    `json:"workers,omitempty"`
	Subnets   map[string]host.Subnet `json:"subnets"`
	AccessKey string                 `json:"accessKey"`
	SecretKey string                 `json:"secretKey"`
}

// Open finds an instance. It need not exist: Up creates it.
func Open(instance string) (*Bed, error) {
	if instance == "" {
		instance = DefaultInstance
	}
	if !validName.MatchString(instance) {
		return nil, fmt.Errorf("open bed %q: an instance name is 1 to 12 lower case letters and digits, a letter first", instance)
	}
	base := os.Getenv("DAVIT_BED_STATE")
	if base == "" {
		base = host.Dir
	}
	base, err := filepath.Abs(base)
	if err != nil {
		return nil, fmt.Errorf("find state directory: %w", err)
	}
	// The CSI driver's socket lies 40 characters below the kubelet's root, and a socket path may have 107.
	if longest := len(base) + len("/123456789012/123456789012/kubelet"); longest > 65 {
		return nil, fmt.Errorf("check state directory %s: too long for socket paths; set DAVIT_BED_STATE to one of at most 31 characters", base)
	}
	b := &Bed{instance: instance, dir: filepath.Join(base, instance), fw: firewall.New(instance)}
	return b, b.load()
}

// load reads what the instance has. Whoever uses the bed meanwhile sees what it had, or what it has, never nothing.
func (b *Bed) load() error {
	var now spec
	data, err := os.ReadFile(b.path("bed.json"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("read bed: %w", err)
	default:
		if err := json.Unmarshal(data, &now); err != nil {
			return fmt.Errorf("read %s: %w; remove the instance with 'bed down --instance %s'", b.path("bed.json"), err, b.instance)
		}
	}
	b.spec = now
	return nil
}

func (b *Bed) path(elem ...string) string { return filepath.Join(append([]string{b.dir}, elem...)...) }

func (b *Bed) lockPath() string { return filepath.Join(filepath.Dir(b.dir), "."+b.instance+".lock") }

// lock keeps everyone else away from the instance, and reads what it has now. That takes root, as all does that is done
// to a bed.
func (b *Bed) lock() (unlock func(), err error) {
	if err := checkRoot(); err != nil {
		return nil, err
	}
	if unlock, err = host.Lock(b.lockPath()); err != nil {
		return nil, err
	}
	if err := b.load(); err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

// Instance is the bed's name.
func (b *Bed) Instance() string { return b.instance }

// Dir is where the instance keeps its state.
func (b *Bed) Dir() string { return b.dir }

// Exists reports whether the instance has been brought up and not taken down since.
func (b *Bed) Exists() bool { return len(b.spec.Sites) > 0 }

// Sites returns the sites in the order they were asked for.
func (b *Bed) Sites() []*Site {
	sites := make([]*Site, 0, len(b.spec.Sites))
	for _, name := range b.spec.Sites {
		sites = append(sites, b.site(name))
	}
	return sites
}

// Site returns a site by name, or nil when the instance has none of that name.
func (b *Bed) Site(name string) *Site {
	if !slices.Contains(b.spec.Sites, name) {
		return nil
	}
	return b.site(name)
}

func (b *Bed) site(name string) *Site { return &Site{node: b.newNode(name), bed: b} }

func (b *Bed) newNode(name string) *node {
	return &node{instance: b.instance, name: name, dir: b.path(name), logs: b.path("logs", name), net: b.spec.Subnets[name]}
}

func (b *Bed) vault() *node { return b.newNode(VaultName) }

// nodes returns every member that has a namespace: the vault, the sites and their workers.
func (b *Bed) nodes() []*node {
	if !b.Exists() {
		return nil
	}
	list := []*node{b.vault()}
	for _, s := range b.Sites() {
		list = append(list, s.node)
		for _, w := range s.workers() {
			list = append(list, w.node)
		}
	}
	return list
}

// subnets are those of every member.
func (b *Bed) subnets() []host.Subnet {
	var all []host.Subnet
	for _, n := range b.nodes() {
		all = append(all, n.net)
	}
	return all
}

// LogDir is where the components of a site or of the vault write, one file each.
func (b *Bed) LogDir(member string) string { return b.path("logs", member) }

// Kill takes a site or the vault down the hard way: first the link, so that nothing still in a socket
// gets out, then SIGKILL for every process, those in containers included.
func (b *Bed) Kill(ctx context.Context, member string) error {
	unlock, n, err := b.lockMember(member)
	if err != nil {
		return err
	}
	defer unlock()
	all := b.withWorkers(n)
	for _, n := range all {
		if err := n.linkDown(ctx); err != nil {
			return err
		}
	}
	for _, n := range all {
		if err := n.killAll(ctx); err != nil {
			return err
		}
	}
	return nil
}

// withWorkers is a member with what is lost with it: the workers of a site.
func (b *Bed) withWorkers(n *node) []*node {
	all := []*node{n}
	if s := b.Site(n.name); s != nil {
		for _, w := range s.workers() {
			all = append(all, w.node)
		}
	}
	return all
}

// Revive starts a killed member again with the data it had.
func (b *Bed) Revive(ctx context.Context, member string) error {
	unlock, n, err := b.lockMember(member)
	if err != nil {
		return err
	}
	defer unlock()
	return b.startMember(ctx, n)
}

func (b *Bed) lockMember(member string) (unlock func(), n *node, err error) {
	if err := checkRoot(); err != nil {
		return nil, nil, err
	}
	n = b.member(member)
	if n == nil {
		return nil, nil, fmt.Errorf("find %q: no such member; instance %s has %v", member, b.instance, b.members())
	}
	// Shared, so that one site can be killed while another comes back.
	unlockBed, err := host.LockShared(b.lockPath())
	if err != nil {
		return nil, nil, err
	}
	unlockNode, err := host.Lock(filepath.Join(n.dir, ".lock"))
	if err != nil {
		unlockBed()
		return nil, nil, err
	}
	return func() { unlockNode(); unlockBed() }, n, nil
}

func checkRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("check rights: the bed makes namespaces, mounts and containers; run it as root")
	}
	return nil
}
