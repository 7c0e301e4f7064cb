package bed

import (
	"os"
	"path/filepath"
	"testing"

	"davit.dev/davit/testbed/bed/host"
)

func TestParseStartTime(t *testing.T) {
	const tail = " 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20"
	for stat, want := range map[string]string{
		"7 (a) S" + tail:             "777",
		"7 (a) b) S (c) S" + tail:    "777",
		"7 (dead) Z" + tail:          "", // a zombie runs no more
		"7 (short) S 1 2 3":          "",
		"no parenthesis":             "",
		"7 (tmux: server) S" + tail:  "777",
		"7 (evil) S 1 2 3) S" + tail: "777",
	} {
		if got := parseStartTime(stat); got != want {
			t.Errorf("%q: got %q, want %q", stat, got, want)
		}
	}
}

func TestReadPIDRefusesAnotherProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.pid")
	mine := pidRecord{PID: os.Getpid(), Start: startTime(os.Getpid()), Boot: bootID()}
	for name, c := range map[string]struct {
		rec  pidRecord
		want bool
	}{
		"this process":         {mine, true},
		"same pid, other time": {pidRecord{mine.PID, "1", mine.Boot}, false},
		"other boot":           {pidRecord{mine.PID, mine.Start, "other"}, false},
		"no such process":      {pidRecord{1 << 30, "", mine.Boot}, false},
	} {
		check(t, host.WriteJSON(path, c.rec))
		if _, got := readPID(path); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestCgroupUnder(t *testing.T) {
	const root = "/davit-bed/dev/east"
	for line, want := range map[string]bool{
		"0::/davit-bed/dev/east/daemons":          true,
		"4:memory:/other\n0::/davit-bed/dev/east": true,
		"0::/davit-bed/dev/east2/daemons":         false,
		"0::/davit-bed/dev":                       false,
		"":                                        false,
	} {
		if got := cgroupUnder(line, root); got != want {
			t.Errorf("%q: got %v", line, got)
		}
	}
}
