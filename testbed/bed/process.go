package bed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"davit.dev/davit/testbed/bed/host"
)

// process is a daemon of the bed, started detached and found again through its pid file.
type process struct {
	name string
	argv []string
	env  []string
}

// pidRecord tells a process from a later one with the same pid: pids are reused, start times within a boot are not.
type pidRecord struct {
	PID   int    `json:"pid"`
	Start string `json:"start"`
	Boot  string `json:"boot"`
}

// startTime returns field 22 of /proc/<pid>/stat, or "" when there is no such process or it is a zombie.
func startTime(pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	return parseStartTime(string(data))
}

func parseStartTime(stat string) string {
	// The command name may hold spaces and parentheses, so count fields from the last parenthesis.
	_, rest, ok := cutLast(stat, ")")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return ""
	}
	return fields[19]
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func bootID() string {
	data, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data))
}

func readPID(path string) (pidRecord, bool) {
	var rec pidRecord
	data, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(data, &rec) != nil {
		return rec, false
	}
	return rec, rec.Boot == bootID() && rec.Start != "" && startTime(rec.PID) == rec.Start
}

// node is a network namespace with daemons in it: a site, or the vault.
type node struct {
	instance string
	name     string
	dir      string // state
	logs     string
	net      host.Subnet
	// at is where a worker has its state in its own mounts: the directory of its site; empty for all others.
	at   string
	held *os.File // a worker's mounts, while it is killed
}

func (n *node) pidFile(name string) string { return filepath.Join(n.dir, "run", name+".pid") }

// LogFile is where a component of the node writes.
func (n *node) logFile(name string) string { return filepath.Join(n.logs, name+".log") }

func (n *node) running(name string) bool {
	_, ok := readPID(n.pidFile(name))
	return ok
}

// start runs p in the node's namespace and cgroup unless it runs already.
func (n *node) start(p process) error {
	if n.running(p.name) {
		return nil
	}
	if err := os.MkdirAll(n.logs, 0o755); err != nil {
		return fmt.Errorf("create log directory: %w", err)
	}
	log, err := os.OpenFile(n.logFile(p.name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := n.startInside(cmd); err != nil {
		return err
	}
	pid := cmd.Process.Pid
	rec := pidRecord{PID: pid, Start: startTime(pid), Boot: bootID()}
	// Reap it should it end while this process lives: a zombie would look alive to those who only see the pid.
	go func() { _ = cmd.Wait() }()
	return host.WriteJSON(n.pidFile(p.name), rec)
}

// await polls ready until it holds, the component dies, or ctx ends.
func (n *node) await(ctx context.Context, name string, ready func() error) error {
	var last error
	for {
		if last = ready(); last == nil {
			return nil
		}
		if name != "" && !n.running(name) {
			return fmt.Errorf("start %s of %s: it ended; see %s: %s", name, n.name, n.logFile(name), tail(n.logFile(name), 3))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s of %s: %w: %w; see %s", name, n.name, ctx.Err(), last, n.logs)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// tail returns the last lines of a file, to put the cause next to the error.
func tail(path string, lines int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return strings.Join(all, "\n")
}

// inNetns runs f on a thread that is in the namespace at path; children started by f are born there.
// Entering by setns alone keeps the mount namespace: 'ip netns exec' would remount /sys and hide the cgroups.
func inNetns(path string, f func() error) error {
	target, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open namespace: %w", err)
	}
	defer target.Close()
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the runtime ends the thread with the goroutine, so no other code runs in the namespace.
		runtime.LockOSThread()
		if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter namespace %s: %w", path, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// run executes a short command and returns its output; the error carries what it said.
func run(ctx context.Context, name string, args ...string) (string, error) {
	return runInput(ctx, "", name, args...)
}

func runInput(ctx context.Context, stdin, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	if stdin != "" {
		cmd.Stdin = strings.NewReader(stdin)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("run %s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// Cgroups: the daemons of a node are born in one cgroup v2 tree, each container in a cgroup named after its id. The
// kernel kills a cgroup at once and nothing escapes by forking.

func cgroupMount() string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return "/sys/fs/cgroup"
	}
	return "/sys/fs/cgroup/unified"
}

// cgroup is the path of the node's tree inside a hierarchy.
func (n *node) cgroup() string { return "/davit-bed/" + n.instance + "/" + n.name }

func (n *node) cgroupPath(leaf string) string { return filepath.Join(cgroupMount(), n.cgroup(), leaf) }

func (n *node) makeCgroups() error {
	if err := os.MkdirAll(n.cgroupPath("daemons"), 0o755); err != nil {
		return fmt.Errorf("create cgroup: %w; the bed needs cgroup v2, alone or as the hybrid 'unified' mount", err)
	}
	return nil
}

// containerParent is where containerd puts the cgroups of containers whose pod has no cgroup of its own.
const containerParent = "/k8s.io/"

// containers lists the ids of the node's containers, those of dead ones that nobody has cleaned up included. The
// directories are containerd's own record and outlive it.
func (n *node) containers() []string {
	entries, _ := os.ReadDir(filepath.Join(n.dir, "containerd", "state", "io.containerd.runtime.v2.task", "k8s.io"))
	ids := make([]string, 0, len(entries))
	for _, e := range entries {
		ids = append(ids, e.Name())
	}
	return ids
}

// cgroups lists the roots of all cgroup trees of the node inside a hierarchy.
func (n *node) cgroups() []string {
	roots := []string{n.cgroup()}
	for _, id := range n.containers() {
		roots = append(roots, containerParent+id)
	}
	return roots
}

// killAll ends every process of the node with SIGKILL and returns when none is left. The cgroups go too: Linux 6.18
// kills at birth what is cloned into a cgroup that was once killed from one that was not. Frozen file systems thaw, as
// they do when a machine dies; what waits for one to thaw cannot even be killed.
func (n *node) killAll(ctx context.Context) error {
	release, err := n.holdMounts()
	if err != nil {
		return err
	}
	defer release()
	for try := 1; ; try++ {
		if try%5 == 0 {
			n.thawAll()
		}
		if err := n.killTrees(); err != nil {
			return err
		}
		left := n.pids()
		if len(left) == 0 && n.removeCgroups() {
			n.thawAll()
			return nil
		}
		for _, pid := range left {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("kill processes of %s: %w: still alive: %v", n.name, ctx.Err(), left)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// killTrees kills the daemons first: what starts containers must not see them die.
func (n *node) killTrees() error {
	for _, root := range n.cgroups() {
		err := os.WriteFile(filepath.Join(cgroupMount(), root, "cgroup.kill"), []byte("1"), 0o200)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("kill cgroup of %s: %w", n.name, err)
		}
	}
	return nil
}

// pids lists what lives in the node's cgroups of any hierarchy or in its network namespace. Someone's own shell inside the
// namespace counts: a lost site loses everything. The caller itself and its ancestors never count.
func (n *node) pids() []int {
	ns, roots := inode(n.netns()), n.cgroups()
	return processes(func(pid int) bool {
		return (ns != 0 && inode(fmt.Sprintf("/proc/%d/ns/net", pid)) == ns) || inCgroups(pid, roots)
	})
}

// containersLive reports whether any container of the node has a process.
func (n *node) containersLive() bool {
	roots := n.cgroups()[1:]
	return len(processes(func(pid int) bool { return inCgroups(pid, roots) })) > 0
}

// processes lists the live ones that match, without the caller and its ancestors.
func processes(match func(pid int) bool) []int {
	spare := ancestors()
	entries, _ := os.ReadDir("/proc")
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err == nil && !spare[pid] && startTime(pid) != "" && match(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func inCgroups(pid int, roots []string) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(roots, func(root string) bool { return cgroupUnder(string(data), root) })
}

// cgroupUnder reports whether any line of /proc/<pid>/cgroup is at or below root.
func cgroupUnder(procCgroup, root string) bool {
	for line := range strings.Lines(procCgroup) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) == 3 && (parts[2] == root || strings.HasPrefix(parts[2], root+"/")) {
			return true
		}
	}
	return false
}

func ancestors() map[int]bool {
	spare := map[int]bool{}
	for pid := os.Getpid(); pid > 1 && !spare[pid]; {
		spare[pid] = true
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			break
		}
		_, rest, _ := cutLast(string(data), ")")
		fields := strings.Fields(rest)
		if len(fields) < 2 {
			break
		}
		pid, _ = strconv.Atoi(fields[1])
	}
	return spare
}

func inode(path string) uint64 {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return 0
	}
	return st.Ino
}

// removeCgroups deletes the node's trees in every hierarchy and reports whether they are gone.
func (n *node) removeCgroups() bool {
	gone := true
	for _, root := range n.cgroups() {
		paths, _ := filepath.Glob("/sys/fs/cgroup/*" + root)
		for _, path := range append(paths, filepath.Join(cgroupMount(), root)) {
			removeCgroup(path)
			gone = gone && inode(path) == 0
		}
	}
	// The parents are shared; they go when the last user has gone.
	parent := filepath.Dir(filepath.Join(cgroupMount(), n.cgroup()))
	_, _ = os.Remove(parent), os.Remove(filepath.Dir(parent))
	return gone
}

// removeCgroup deletes a tree of cgroups, children first.
func removeCgroup(root string) {
	var dirs []string
	_ = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for _, dir := range slices.Backward(dirs) {
		_ = os.Remove(dir)
	}
}
