package profile

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mongosh plays the shell of a server that counts its locks in a file, as the
// real one does: they outlive whoever took them.
const mongosh = `#!/bin/sh
n=$(cat "$LOCKS")
case "$*" in
*fsyncLock\(\)*) echo $((n + 1)) > "$LOCKS" ;;
*fsyncUnlock\(\)*) [ "$n" -gt 0 ] && echo $((n - 1)) > "$LOCKS" ;;
*print*) [ "$n" -gt 0 ] && echo "DAVIT LOCKED" || echo "DAVIT FREE" ;;
*currentOp*) [ "$n" -gt 0 ] ;;
*) exit 2 ;;
esac
`

// mongod is a directory in which the profile's commands find such a shell.
type mongod struct {
	t       *testing.T
	dir     string
	profile *Profile
}

func newMongod(t *testing.T) *mongod {
	t.Helper()
	all := All()
	i := slices.IndexFunc(all, func(p Profile) bool { return p.Name == "mongodb" })
	m := &mongod{t: t, dir: t.TempDir(), profile: &all[i]}
	if err := os.WriteFile(filepath.Join(m.dir, "mongosh"), []byte(mongosh), 0o755); err != nil {
		t.Fatal(err)
	}
	m.lock("0")
	return m
}

func (m *mongod) lock(n string) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, "locks"), []byte(n), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

func (m *mongod) locks() string {
	m.t.Helper()
	text, err := os.ReadFile(filepath.Join(m.dir, "locks"))
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func (m *mongod) command(args []string) *exec.Cmd {
	cmd := exec.CommandContext(m.t.Context(), args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "PATH="+m.dir+":"+os.Getenv("PATH"), "TMPDIR="+m.dir, "LOCKS="+filepath.Join(m.dir, "locks"))
	return cmd
}

// hold begins a hold, and returns what ends its input and what it said first.
func (m *mongod) hold() (cmd *exec.Cmd, input io.Closer, said string) {
	m.t.Helper()
	cmd = m.command(m.profile.Hold.Command)
	in, err := cmd.StdinPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	said, _ = bufio.NewReader(out).ReadString('\n')
	return cmd, in, strings.TrimSpace(said)
}

func (m *mongod) after() (string, error) {
	if len(m.profile.After) == 0 {
		return "", nil
	}
	out, err := m.command(m.profile.After).CombinedOutput()
	return string(out), err
}

// TestMongodIsNotLeftLocked: a lock of the server's goes with the session, also
// with one that is killed; somebody else's lock stays.
func TestMongodIsNotLeftLocked(t *testing.T) {
	m := newMongod(t)
	cmd, input, said := m.hold()
	if said != "DAVIT HELD" || m.locks() != "1" {
		t.Fatalf("said %q with %s locks", said, m.locks())
	}
	// What undoes it leaves alone a session that lives, and owes it still.
	if out, err := m.after(); err == nil || m.locks() != "1" {
		t.Errorf("undone under a session that lives: %s, %v, %s locks", out, err, m.locks())
	}
	_ = input.Close()
	if err := cmd.Wait(); err != nil || m.locks() != "0" {
		t.Fatalf("after an orderly end: %v, %s locks", err, m.locks())
	}
	m.lock("1") // a person's
	if out, err := m.after(); err != nil || m.locks() != "1" {
		t.Errorf("a person's lock is off: %s, %v", out, err)
	}
	if cmd, input, said = m.hold(); said == "DAVIT HELD" || m.locks() != "1" {
		t.Errorf("held beside a person: %q, %s locks", said, m.locks())
	}
	_ = input.Close()
	if err := cmd.Wait(); err == nil || m.locks() != "1" {
		t.Errorf("a hold that failed: %v, %s locks", err, m.locks())
	}

	m.lock("0")
	if cmd, input, said = m.hold(); said != "DAVIT HELD" {
		t.Fatalf("said %q", said)
	}
	_ = cmd.Process.Kill()
	_ = input.Close()
	_ = cmd.Wait()
	if m.locks() != "1" {
		t.Fatalf("the kill harmed nobody: it proves nothing (%s locks)", m.locks())
	}
	for range 2 { // it may run twice
		if out, err := m.after(); err != nil || m.locks() != "0" {
			t.Errorf("left locked: %s, %v, %s locks", out, err, m.locks())
		}
	}
}
