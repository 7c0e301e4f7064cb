package hack_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// compiler stands for go: what it builds says of each target what Go's own says then.
const compiler = `#!/bin/bash
case $1 in
env) echo "$PWD/cache" ;;
list) echo davit.dev/davit ;;
test)
	echo "$@" >>"$DAVIT_BEGAN"
	until [ "$1" = -o ]; do shift; done
	cat >"$2" <<'PROGRAM'
#!/bin/bash
hung='fuzzing process hung or terminated unexpectedly: exit status 2'
case "$*" in
*FuzzHangs*) echo "$hung"; exit 1 ;;
*FuzzHungOnce*) [ -e once ] || { touch once; echo "$hung"; exit 1; } ;;
*FuzzWritten*) echo "$hung"; echo 'Failing input written to testdata/fuzz/FuzzWritten/0'; exit 1 ;;
*FuzzStarved*) [ -e written ] || { touch written; echo "$hung"; echo 'Failing input written to testdata/fuzz/FuzzStarved/0'; exit 1; } ;;
*FuzzPanics*) [ -e panicked ] || { touch panicked; echo 'panic: no'; exit 1; } ;;
*FuzzBlind*) echo 'warning: the test binary was not built with coverage instrumentation, so fuzzing will run without coverage guidance and may be inefficient' ;;
esac
echo 'fuzz: elapsed: 1s, execs: 9 (9/sec), new interesting: 1 (total: 2)'
PROGRAM
	chmod +x "$2"
	;;
esac
`

// TestFuzz: what hung gets one second run, and if it passes that is told; nothing else does. An input that hangs hangs again.
func TestFuzz(t *testing.T) {
	script, err := os.ReadFile("fuzz")
	if err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]struct {
		passes bool
		says   string
		not    string
	}{
		"FuzzPasses":   {true, "FuzzPasses: fuzz: elapsed: 1s", "again"},
		"FuzzHungOnce": {true, "unsteady: internal/p FuzzHungOnce hung, and passed when it was run again", "fuzzing failed"},
		"FuzzHangs":    {false, "fuzzing failed: internal/p FuzzHangs", "unsteady"},
		"FuzzWritten":  {false, "fuzzing failed: internal/p FuzzWritten", "unsteady"},
		"FuzzStarved":  {true, "unsteady: internal/p FuzzStarved hung, and passed when it was run again", "fuzzing failed"},
		"FuzzPanics":   {false, "fuzzing failed: internal/p FuzzPanics", "again"},
		"FuzzBlind":    {false, "fuzzing failed: internal/p FuzzBlind", "again"},
	} {
		t.Run(target, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range map[string]string{
				"hack/fuzz":            string(script),
				"tools/go":             compiler,
				"internal/p/p_test.go": "func " + target + "(f *testing.F) {\n",
			} {
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o700); err != nil { //nolint:gosec // it is run
					t.Fatal(err)
				}
			}
			for _, args := range [][]string{{"init", "-q"}, {"add", "-A"}} {
				cmd := exec.Command("git", args...)
				cmd.Dir = dir
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			began := filepath.Join(dir, "began")
			cmd := exec.CommandContext(ctx, filepath.Join(dir, "hack", "fuzz"), "9")
			cmd.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "tools")+":"+os.Getenv("PATH"), "DAVIT_BEGAN="+began)
			out, err := cmd.CombinedOutput()
			if said := string(out); (err == nil) != want.passes || !strings.Contains(said, want.says) || strings.Contains(said, want.not) {
				t.Errorf("it ended with %v, and said:\n%s", err, said)
			}
			if built, err := os.ReadFile(began); err != nil || !strings.Contains(string(built), "-gcflags=davit.dev/davit/...=-d=libfuzzer") {
				t.Errorf("no counters in %q, %v", built, err)
			}
		})
	}
}
