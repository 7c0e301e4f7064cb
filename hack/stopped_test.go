package hack_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stand writes scripts in the place of what hack/test starts. Tests tell of themselves, and
// never end.
func stand(t *testing.T) (dir, began string) {
	t.Helper()
	dir = t.TempDir()
	script, err := os.ReadFile("test")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`gotestsum_version=(\S+)`).FindSubmatch(script)
	if version == nil {
		t.Fatal("hack/test does not say which gotestsum it runs")
	}
	began = filepath.Join(dir, "began")
	for name, text := range map[string]string{
		"hack/test":    string(script),
		"hack/bed-env": "#!/bin/bash\necho export DAVIT_TEST_INSTANCE=$DAVIT_TEST_INSTANCE DAVIT_TEST_S3=http://a:b@c DAVIT_TEST_KUBECONFIG=/a/b/c/d\n",
		"hack/fuzz":    "#!/bin/bash\necho parsers $$ >>" + began + "\nsleep 600\n",
		"bin/bed":      "#!/bin/bash\necho bed \"$@\" >>" + began + "\n",
		"tools/make":   "#!/bin/bash\n",
		"tools/go":     "#!/bin/bash\necho davit.dev/davit/demo/$1\n",
		"demo/go.mod":  "",
		"cache/tools/gotestsum-" + string(version[1]) + "/gotestsum": "#!/bin/bash\necho \"${@: -1}\" \"${@: -3:1}\" $$ >>" + began + "\nsleep 600 & wait\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil { //nolint:gosec // it is run
			t.Fatal(err)
		}
	}
	return dir, began
}

// waitFor looks until ask says that what it asks for is so.
func waitFor(t *testing.T, what string, ask func() bool) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); !ask(); time.Sleep(20 * time.Millisecond) { // between looks
		if time.Now().After(limit) {
			t.Fatal("waited in vain: " + what)
		}
	}
}

// TestStopped: whoever presses Ctrl-C while tests run on a bed leaves nothing behind that
// runs beside them, in whatever session it is, and no bed but the one that is looked at.
func TestStopped(t *testing.T) {
	for _, tool := range []string{"bash", "setsid", "nice"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	dir, began := stand(t)
	cmd := exec.Command(filepath.Join(dir, "hack", "test"), "bed")
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "tools")+":"+os.Getenv("PATH"), "DAVIT_CACHE="+filepath.Join(dir, "cache"), "DAVIT_TEST_INSTANCE=one", "DAVIT_FUZZ=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // as a terminal has it
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := func() string {
		text, err := os.ReadFile(began)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return string(text)
	}
	groups := map[int]bool{cmd.Process.Pid: true}
	t.Cleanup(func() {
		for group := range groups {
			_ = syscall.Kill(-group, syscall.SIGKILL)
		}
	})
	waitFor(t, "the lanes run", func() bool { return strings.Count(said(), "\n") >= 5 })
	var pids []int
	for line := range strings.Lines(said()) {
		words := strings.Fields(line)
		var pid int
		if _, err := fmt.Sscan(words[len(words)-1], &pid); err != nil {
			t.Fatal(line)
		}
		pids = append(pids, pid)
		if group, err := syscall.Getpgid(pid); err == nil {
			groups[group] = true
		}
	}
	if len(groups) != 5 {
		t.Errorf("%d groups of processes run: one Ctrl-C would reach them anyway\n%s", len(groups), said())
	}
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("it runs on")
	}
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("it ended with %d, want 130", code)
	}
	for i, pid := range pids {
		waitFor(t, strings.Split(said(), "\n")[i]+" has ended", func() bool {
			status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
			return err != nil || strings.Contains(string(status), ") Z ")
		})
	}
	if got := said(); strings.Count(got, "bed --instance one2 down") != 1 || strings.Contains(got, "bed --instance one down") {
		t.Errorf("which beds are down:\n%s", got)
	}
}

// TestUnlisted: where nobody knows what there is to test, no bed is brought up, and the run has failed.
func TestUnlisted(t *testing.T) {
	for name, tools := range map[string]string{"go fails": "[ $1 != list ]", "it names nothing": ""} {
		t.Run(name, func(t *testing.T) {
			dir, began := stand(t)
			if err := os.WriteFile(filepath.Join(dir, "tools", "go"), []byte("#!/bin/bash\n"+tools+"\n"), 0o700); err != nil { //nolint:gosec // it is run
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, filepath.Join(dir, "hack", "test"), "bed")
			cmd.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "tools")+":"+os.Getenv("PATH"), "DAVIT_CACHE="+filepath.Join(dir, "cache"), "DAVIT_TEST_INSTANCE=one")
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) } // else what it began is left
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "no packages are known to test") {
				t.Errorf("it ended with %v, and said:\n%s", err, out)
			}
			if said, err := os.ReadFile(began); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("it began: %s %v", said, err)
			}
		})
	}
}
