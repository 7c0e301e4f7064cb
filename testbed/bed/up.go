package bed

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/testbed/bed/host"
	"davit.dev/davit/testbed/bed/mount"
	"davit.dev/davit/testbed/build"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Options say what Up makes. The zero value is two sites, east and west, with all add-ons.
type Options struct {
	Sites   []string  // default: the sites the instance has, else east and west
	Install bool      // install missing Debian packages
	Bare    bool      // no CSI driver
	Log     io.Writer // progress; default: none
}

// needs maps a file that must be there to the Debian package that brings it.
var needs = []struct{ file, pkg string }{
	{"ip", "iproute2"},
	{"nft", "nftables"},
	{"containerd", "containerd"},
	{"runc", "runc"},
	{"/usr/lib/cni/bridge", "containernetworking-plugins"},
	{busybox, "busybox-static"},
	{"mkfs.xfs", "xfsprogs"},
	{"mkfs.ext4", "e2fsprogs"},
	{"conntrack", "conntrack"},
	{"losetup", "mount"},
	{"mmdebstrap", "mmdebstrap"},
}

// Up brings the instance to the state where every site is Ready and every add-on runs. It starts what is missing
// and leaves alone what runs; killed members are started again.
func (b *Bed) Up(ctx context.Context, opt Options) error {
	if opt.Log == nil {
		opt.Log = io.Discard
	}
	if err := checkRoot(); err != nil { // before packages are installed
		return err
	}
	if err := checkPackages(ctx, opt); err != nil {
		return err
	}
	unlock, err := b.lock()
	if err != nil {
		return err
	}
	defer unlock()
	bin, err := build.All(ctx, opt.Log)
	if err != nil {
		return err
	}
	var store *storage
	if !opt.Bare {
		if store, err = buildStorage(ctx, opt.Log); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := b.prepare(ctx, opt); err != nil {
		return err
	}
	return b.startMembers(ctx, b.nodes(), bin, store, opt.Log)
}

// startTimeout is far above what a slow host needs, and short enough to be told what hangs.
const startTimeout = 6 * time.Minute

// startMembers starts the vault, and sites with their workers and add-ons, side by side.
func (b *Bed) startMembers(ctx context.Context, nodes []*node, bin build.Set, store *storage, log io.Writer) error {
	g, gctx := errgroup.WithContext(ctx)
	for _, n := range nodes {
		if n.at != "" {
			continue // with its site
		}
		g.Go(func() error {
			start := time.Now()
			if err := b.startNode(gctx, n, bin); err != nil {
				return err
			}
			if s := b.Site(n.name); s != nil {
				fmt.Fprintf(log, "%s: node is Ready (%.1f s)\n", n.name, time.Since(start).Seconds())
				if err := s.installAddOns(gctx, bin, store); err != nil {
					return err
				}
			}
			fmt.Fprintf(log, "%s: up (%.1f s)\n", n.name, time.Since(start).Seconds())
			return nil
		})
	}
	return g.Wait()
}

func checkPackages(ctx context.Context, opt Options) error {
	var missing []string
	for _, n := range needs {
		if _, err := exec.LookPath(n.file); err != nil {
			missing = append(missing, n.pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if !opt.Install {
		return fmt.Errorf("check packages: missing %s; run 'bed up --install'", strings.Join(missing, " "))
	}
	fmt.Fprintf(opt.Log, "installing %s\n", strings.Join(missing, " "))
	return installPackages(ctx, missing)
}

// installPackages keeps Debian from starting daemons of its own: the bed runs one containerd per site.
func installPackages(ctx context.Context, pkgs []string) error {
	const policy = "/usr/sbin/policy-rc.d"
	if _, err := os.Stat(policy); err != nil {
		if err := os.WriteFile(policy, []byte("#!/bin/sh\nexit 101\n"), 0o755); err != nil {
			return fmt.Errorf("write %s: %w", policy, err)
		}
		defer os.Remove(policy)
	}
	if _, err := run(ctx, "apt-get", "update"); err != nil {
		return err
	}
	args := append([]string{"DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "--no-install-recommends"}, pkgs...)
	_, err := run(ctx, "env", args...)
	return err
}

// prepare makes what must exist before the first process: addresses, the state directory, keys, configuration, links.
func (b *Bed) prepare(ctx context.Context, opt Options) error {
	if err := b.settle(opt.Sites); err != nil {
		return err
	}
	if err := makeShared(b.dir); err != nil {
		return err
	}
	if err := b.writeVaultPKI(time.Now()); err != nil {
		return err
	}
	for _, s := range b.Sites() {
		if err := s.prepare(); err != nil {
			return err
		}
	}
	return b.fw.Ensure(ctx, b.subnets())
}

// settle fixes sites, subnets and credentials. Sites can be added to a bed, never changed.
func (b *Bed) settle(sites []string) error {
	if len(sites) == 0 && !b.Exists() {
		sites = []string{"east", "west"}
	}
	for _, s := range sites {
		if err := b.checkFree(s); err != nil {
			return err
		}
		if !validName.MatchString(s) || s == VaultName || s == hostName || s == "logs" {
			return fmt.Errorf("check site %q: a name is 1 to 12 lower case letters and digits, and none of vault, host, logs", s)
		}
		if !slices.Contains(b.spec.Sites, s) {
			b.spec.Sites = append(b.spec.Sites, s)
		}
	}
	if b.spec.AccessKey == "" {
		b.spec.AccessKey, b.spec.SecretKey = "bed"+newSecret(8), newSecret(20)
	}
	subnets := map[string]host.Subnet{}
	err := host.Update(func(r *host.Record) error {
		members := append([]string{VaultName}, b.spec.Sites...)
		for _, workers := range b.spec.Workers {
			members = append(members, workers...)
		}
		for _, name := range members {
			n, err := r.Allocate(b.instance+"/"+name, host.AddressInUse)
			if err != nil {
				return err
			}
			subnets[name] = n
		}
		return r.Raise()
	})
	if err != nil {
		return err
	}
	b.spec.Subnets = subnets
	return host.WriteJSON(b.path("bed.json"), b.spec)
}

// makeShared lets mounts made in a container under the state directory reach the host, as CSI drivers need, without
// changing the propagation of the host's root.
func makeShared(dir string) error {
	if mount.IsPoint(dir) {
		return nil
	}
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind state directory: %w", err)
	}
	if err := unix.Mount("", dir, "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("share state directory: %w", err)
	}
	return nil
}

func (b *Bed) values(s *Site) values {
	v := values{
		Instance: b.instance, Site: s.name, Dir: s.dir, Address: s.net.Address(), PodCIDR: s.net.PodCIDR(),
		DNSService: s.net.DNSService(), KubeletRoot: s.KubeletRoot(),
		PauseImage: PauseImage, ToolImage: ToolImage, CoreDNSImage: coreDNSImage, LocalPathImage: localPathImage,
		LocalPathDir: s.path("local"),
	}
	v.RegistryHosts = append(v.RegistryHosts, hostEntry{"registry.bed", s.Registry()})
	v.Names = append(v.Names, hostEntry{"registry.bed", s.net.Address()}, hostEntry{"vault.bed", b.vault().net.Address()})
	for _, other := range b.Sites() {
		v.RegistryHosts = append(v.RegistryHosts, hostEntry{other.Registry(), other.Registry()})
		v.Names = append(v.Names, hostEntry{other.name + ".bed", other.net.Address()})
	}
	return v
}

func (b *Bed) startNode(ctx context.Context, n *node, bin build.Set) error {
	if w := b.worker(n.name); w != nil {
		return w.startWorker(ctx, bin)
	}
	if err := n.linkUp(ctx); err != nil { // which may have to kill what was there, cgroups and all
		return err
	}
	if err := n.makeCgroups(); err != nil {
		return err
	}
	if n.name == VaultName {
		return b.startVault(ctx, bin)
	}
	return b.site(n.name).startSite(ctx, bin)
}

func (b *Bed) startMember(ctx context.Context, n *node) error {
	bin, err := build.All(ctx, io.Discard)
	if err != nil {
		return err
	}
	return b.startNode(ctx, n, bin)
}
