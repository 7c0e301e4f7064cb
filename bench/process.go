package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// process is one process of davit's inside the site.
type process int

// watchdog is the part of the node process that is a process of its own.
const watchdog = "watchdog"

// watch finds the agent or the node process of the site, and forgets its peak
// so far.
func (b *bench) watch(command string) (process, error) { return b.watchAt(site, command) }

// watchAt is watch at any site of this bed.
func (b *bench) watchAt(at, command string) (process, error) {
	for p, args := range processes() {
		if len(args) < 3 || filepath.Base(args[0]) != "davit" || args[1] != command || args[2] == watchdog || !b.ours(at, p) {
			continue
		}
		return p, p.forget()
	}
	return 0, fmt.Errorf("davit %s does not run at %s", command, at)
}

// processes are all that run on this machine, with their arguments.
func processes() map[process][]string {
	all := map[process][]string{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return all
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue // no process
		}
		if line, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline")); err == nil { // else it is gone
			all[process(pid)] = strings.Split(string(line), "\x00")
		}
	}
	return all
}

// ours tells whether a process belongs to a site of this bed: its containers' mounts lie
// in the site's directory.
func (b *bench) ours(at string, p process) bool {
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", p))
	return err == nil && bytes.Contains(mounts, []byte(filepath.Join(b.stage.Bed.Dir(), at)+"/"))
}

// forget sets the peak back to what is used now.
func (p process) forget() error {
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p), []byte("5"), 0); err != nil {
		return fmt.Errorf("reset peak memory: %w", err)
	}
	return nil
}

// glance is how often a command's peak is read. It only grows, so that the last
// one misses little.
const glance = 50 * time.Millisecond

// observe follows the peak memory of a command until the returned function is
// called, which tells it. What the kernel says when a command has ended will not
// do: that counts what its parent had before the command took its own memory.
func observe(p process) func() int64 {
	var peak int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(glance)
		defer tick.Stop()
		for {
			if now, err := p.peak(); err == nil { // it may not have begun, or be gone
				peak = max(peak, now)
			}
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	return func() int64 {
		close(stop)
		<-stopped
		return peak
	}
}

// peak is the most memory the process has had, in bytes.
func (p process) peak() (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", p))
	if err != nil {
		return 0, fmt.Errorf("read peak memory (was the process restarted?): %w", err)
	}
	defer f.Close()
	for scan := bufio.NewScanner(f); scan.Scan(); {
		var kib int64
		if n, _ := fmt.Sscanf(scan.Text(), "VmHWM: %d kB", &kib); n == 1 {
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("read peak memory of process %d: not there", p)
}
