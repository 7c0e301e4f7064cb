package stage

import (
	"bufio"
	"os"
	"os/exec"
	"strconv"
	"testing"
)

// TestStopLedger: the ledger is gone when it was stopped, also one that does
// not heed; a process that only has its number runs on.
func TestStopLedger(t *testing.T) {
	for name, tt := range map[string]struct {
		script string
		called string
		stays  bool
	}{
		"heeds":        {"echo up; while :; do sleep 1; done", "ledger", false},
		"does not":     {"trap '' TERM; echo up; while :; do sleep 1; done", "ledger", false},
		"another's id": {"echo up; while :; do sleep 1; done", "baker", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("sh", "-c", tt.script, tt.called)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
			if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			s := &Stage{Work: t.TempDir()}
			if err := os.WriteFile(s.pidFile(), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := s.StopLedger(); err != nil {
				t.Fatal(err)
			}
			cmdline, err := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/cmdline")
			if runs := err == nil && len(cmdline) > 0; runs != tt.stays {
				t.Errorf("runs on: %v, want %v", runs, tt.stays)
			}
			if err := s.StopLedger(); err != nil {
				t.Errorf("stopped twice: %v", err)
			}
		})
	}
}
