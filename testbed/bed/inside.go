package bed

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Inside starts cmd as a part of a site or of the vault: in its network namespace, and in its cgroup, so that it dies
// with the member. The caller waits for it.
func (b *Bed) Inside(member string, cmd *exec.Cmd) error {
	n := b.member(member)
	if n == nil {
		return fmt.Errorf("find %q: no such member; instance %s has %v", member, b.instance, b.members())
	}
	return n.startInside(cmd)
}

func (n *node) startInside(cmd *exec.Cmd) error {
	cgroup, err := os.Open(n.cgroupPath("daemons"))
	if err != nil {
		return fmt.Errorf("open cgroup of %s: %w; is it up?", n.name, err)
	}
	defer cgroup.Close()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(cgroup.Fd())
	if err := n.enter(cmd.Start); err != nil {
		return fmt.Errorf("start %s in %s: %w", cmd.Path, n.name, err)
	}
	return nil
}

// Become replaces the calling process by a command inside a member.
func (b *Bed) Become(member string, argv []string) error {
	n := b.member(member)
	if n == nil {
		return fmt.Errorf("find %q: no such member; instance %s has %v", member, b.instance, b.members())
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return fmt.Errorf("find command: %w", err)
	}
	procs := n.cgroupPath("daemons") + "/cgroup.procs"
	if err := os.WriteFile(procs, []byte(strconv.Itoa(os.Getpid())), 0o200); err != nil {
		return fmt.Errorf("enter cgroup of %s: %w; is it up?", n.name, err)
	}
	return n.enter(func() error { return unix.Exec(path, argv, os.Environ()) })
}

// Dial connects to an IP address and port as a process of the site would.
func (s *Site) Dial(ctx context.Context, address string) (conn net.Conn, err error) {
	err = inNetns(s.netns(), func() error {
		var d net.Dialer
		conn, err = d.DialContext(ctx, "tcp", address)
		return err
	})
	return conn, err
}
