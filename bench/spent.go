package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// spent is processor time. It does not depend on what else the machine does, as
// far as caches do not.
type spent struct {
	agent   time.Duration
	server  time.Duration // kube-apiserver and etcd of the site
	vault   time.Duration // the S3 server
	command time.Duration // davit's, where it is that which does the work
}

// measured is one side of a comparison: how long it took, and what it had others compute.
type measured struct {
	lap
	spent
}

// turn has the side do its work once more.
func (m *measured) turn(b *bench, agent process, work func() (time.Duration, error)) func() error {
	return func() error {
		before := b.spent(agent)
		took, err := work()
		after := b.spent(agent)
		m.add(took)
		m.agent += after.agent - before.agent
		m.server += after.server - before.server
		m.vault += after.vault - before.vault
		return err
	}
}

// spent is what the site's processes have had so far.
func (b *bench) spent(agent process) spent {
	s := spent{agent: agent.spent()}
	dir := b.stage.Bed.Dir() + "/"
	for p, args := range processes() {
		if !strings.Contains(strings.Join(args, " "), dir) { // another bed's
			continue
		}
		switch filepath.Base(args[0]) {
		case "kube-apiserver", "etcd":
			s.server += p.spent()
		case "versitygw":
			s.vault += p.spent()
		}
	}
	return s
}

// tick is the unit in which /proc/<pid>/stat counts.
const tick = 10 * time.Millisecond

// spent is the processor time that a process has had, 0 once it is gone.
func (p process) spent() time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
	if err != nil {
		return 0
	}
	// The second field is the program's name in brackets, and may have blanks.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	const user, system = 11, 12
	if len(fields) <= system {
		return 0
	}
	var sum time.Duration
	for _, field := range []int{user, system} {
		ticks, err := strconv.ParseInt(fields[field], 10, 64)
		if err != nil {
			return 0
		}
		sum += time.Duration(ticks) * tick
	}
	return sum
}
