package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/wiring"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"davit":         func() { os.Exit(fakeMain("davit")) },
		"kubectl-davit": func() { os.Exit(fakeMain("kubectl-davit")) },
	})
}

func fakeMain(name string) int {
	streams := Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	if os.Getenv("FAKE_CLUSTER") == "real" { // the scripts for real clusters
		return Main(append([]string{name}, os.Args[1:]...), streams)
	}
	return fakeDavit(append([]string{name}, os.Args[1:]...), streams, os.Getenv)
}

var scriptCommands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	// exits CODE COMMAND...: the command ends with exactly this code.
	"exits": func(ts *testscript.TestScript, neg bool, args []string) {
		got := runDavit(ts, args[1:])
		if (got != args[0]) != neg {
			ts.Fatalf("exit code %s, want %s", got, args[0])
		}
	},
	// answers FILE: what the next command reads from its standard input.
	"answers": func(ts *testscript.TestScript, _ bool, args []string) {
		ts.Setenv("ANSWERS", ts.MkAbs(args[0]))
	},
	// seedpoint APP AGE: a recovery point in the vault; $POINT is its name.
	"seedpoint": func(ts *testscript.TestScript, _ bool, args []string) {
		age, err := time.ParseDuration(args[1])
		ts.Check(err)
		id, err := seedPoint(ts.Getenv("FAKE_CLUSTER"), args[0], age)
		ts.Check(err)
		ts.Setenv("POINT", id)
	},
	// seedplan NAME.yaml: a plan in the vault that no cluster has.
	"seedplan": func(ts *testscript.TestScript, _ bool, args []string) {
		ts.Check(seedPlan(ts.Getenv("FAKE_CLUSTER"), ts.MkAbs(args[0])))
	},
	// seedleft RUN: a run of plan shop in the vault that is over and left something to people.
	"seedleft": func(ts *testscript.TestScript, _ bool, args []string) {
		ts.Check(seedLeft(ts.Getenv("FAKE_CLUSTER"), args[0]))
	},
	// flip GLOB: changes a byte in the middle of one matching file.
	"flip": func(ts *testscript.TestScript, _ bool, args []string) {
		files, err := filepath.Glob(ts.MkAbs(args[0]))
		ts.Check(err)
		if len(files) == 0 {
			ts.Fatalf("nothing matches %s", args[0])
		}
		text, err := os.ReadFile(files[0])
		ts.Check(err)
		text[len(text)/2] ^= 1
		ts.Check(os.Chmod(files[0], 0o600))
		ts.Check(os.WriteFile(files[0], text, 0o600))
	},
	// flipeach CODE DIRECTORY COMMAND...: with a byte of any one file in the
	// directory changed, the command ends with this code.
	"flipeach": func(ts *testscript.TestScript, _ bool, args []string) {
		tried := 0
		ts.Check(filepath.WalkDir(ts.MkAbs(args[1]), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			whole, err := os.ReadFile(path)
			ts.Check(err)
			spoiled := bytes.Clone(whole)
			spoiled[len(whole)/2] ^= 1
			ts.Check(os.Chmod(path, 0o600))
			ts.Check(os.WriteFile(path, spoiled, 0o600))
			if got := runDavit(ts, args[2:]); got != args[0] {
				ts.Fatalf("%s changed: exit code %s, want %s", path, got, args[0])
			}
			ts.Check(os.WriteFile(path, whole, 0o600))
			tried++
			return nil
		}))
		if tried < 8 {
			ts.Fatalf("only %d files in %s", tried, args[1])
		}
	},
	// nosecret FILE KEYFILE: the key in KEYFILE stands nowhere in FILE.
	"nosecret": func(ts *testscript.TestScript, _ bool, args []string) {
		for line := range strings.Lines(ts.ReadFile(args[1])) {
			line = strings.TrimSpace(line)
			if line != "" && !strings.HasPrefix(line, "#") && strings.Contains(ts.ReadFile(args[0]), line) {
				ts.Fatalf("%s holds the secret", args[0])
			}
		}
	},
}

// inDirectory guards the process's own directory: scripts run side by side.
var inDirectory sync.Mutex

// runDavit runs a command and returns its exit code. Commands for the fake
// cluster run in this process: the race detector's start alone would cost more
// than all that they do. Those for real clusters, and kubectl-davit, are
// processes of their own.
func runDavit(ts *testscript.TestScript, args []string) string {
	dir := ts.Getenv("FAKE_CLUSTER")
	if dir == "real" || args[0] != "davit" {
		err := ts.Exec(args[0], args[1:]...)
		if err == nil {
			return "0"
		}
		return strings.TrimPrefix(err.Error(), "exit status ")
	}
	input, err := os.Open(cmp.Or(ts.Getenv("ANSWERS"), os.DevNull))
	ts.Check(err)
	defer input.Close()
	ts.Setenv("ANSWERS", "")
	inDirectory.Lock()
	defer inDirectory.Unlock()
	home, err := os.Getwd()
	ts.Check(err)
	ts.Check(os.Chdir(ts.MkAbs(".")))
	defer func() { ts.Check(os.Chdir(home)) }()
	streams := Streams{In: input, Out: ts.Stdout(), Err: ts.Stderr()}
	code := strconv.Itoa(fakeDavit(args, streams, ts.Getenv))
	if !documentedCode(ts, args, code) {
		ts.Fatalf("docs/cli.md does not say that this may end with %s", code)
	}
	return code
}

// documentedCode looks an exit code up in the command's section of docs/cli.md.
func documentedCode(ts *testscript.TestScript, args []string, code string) bool {
	if strings.Contains("0 1 2 3", code) { // of any command
		return true
	}
	cmd, _, err := (&env{program: "davit", now: time.Now, progress: &output.Progress{}}).root().Find(args[1:])
	ts.Check(err)
	_, section, _ := strings.Cut(commandsPage, "### "+cmd.CommandPath()+"\n")
	section, _, _ = strings.Cut(section, "\n##")
	_, codes, _ := strings.Cut(section, "May end with ")
	codes, _, _ = strings.Cut(codes, ".")
	return strings.Contains(codes, code)
}

// commandsPage is docs/cli.md.
var commandsPage = func() string {
	text, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		return "" // a process of a script's, which asks nothing of it
	}
	return string(text)
}()

func fakeDavit(args []string, streams Streams, getenv func(string) string) int {
	now := func() time.Time { return fakeNow }
	e := &env{Streams: streams, backend: fakeBackend{getenv("FAKE_CLUSTER"), streams.Out}, now: now, getenv: getenv, grace: time.Millisecond}
	return e.run(context.Background(), args)
}

func TestScripts(t *testing.T) {
	scripts, err := filepath.Abs("testdata/script") // commands change the directory
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: scripts, Cmds: scriptCommands, UpdateScripts: os.Getenv("DAVIT_UPDATE_GOLDEN") != "",
		Setup: func(e *testscript.Env) error {
			cluster := filepath.Join(e.WorkDir, "cluster")
			e.Setenv("FAKE_CLUSTER", cluster)
			if err := os.MkdirAll(cluster, 0o700); err != nil {
				return err
			}
			return os.MkdirAll(filepath.Join(e.WorkDir, "vault"), 0o700)
		},
	})
}

// TestRealCluster runs the scripts that need a cluster with Davit in it.
func TestRealCluster(t *testing.T) {
	kubeconfig := os.Getenv("DAVIT_TEST_KUBECONFIG")
	if kubeconfig == "" {
		t.Skip("DAVIT_TEST_KUBECONFIG names no cluster")
	}
	c, err := wiring.Real{}.Cluster(kubeconfig, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := access.LocalSite(t.Context(), c); exit.Code(err) == exit.Refused {
		t.Skip("the cluster has no Davit: ", err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/cluster", Cmds: scriptCommands,
		Setup: func(e *testscript.Env) error {
			e.Setenv("FAKE_CLUSTER", "real")
			e.Setenv("KUBECONFIG", kubeconfig)
			e.Setenv("UNIQUE", fmt.Sprint(time.Now().UnixNano()))
			return nil
		},
	})
}
