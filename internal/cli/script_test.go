package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
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
	now := func() time.Time { return fakeNow }
	e := &env{Streams: streams, backend: fakeBackend{os.Getenv("FAKE_CLUSTER")}, now: now, getenv: os.Getenv}
	e.progress = output.NewProgress(e.Err, now)
	return e.run(context.Background(), append([]string{name}, os.Args[1:]...))
}

var scriptCommands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	// exits CODE COMMAND...: the command ends with exactly this code.
	"exits": func(ts *testscript.TestScript, neg bool, args []string) {
		err := ts.Exec(args[1], args[2:]...)
		got := "0"
		if err != nil {
			got = strings.TrimPrefix(err.Error(), "exit status ")
		}
		if (got != args[0]) != neg {
			ts.Fatalf("exit code %s, want %s", got, args[0])
		}
	},
	// seedpoint APP AGE: a recovery point in the vault; $POINT is its name.
	"seedpoint": func(ts *testscript.TestScript, _ bool, args []string) {
		age, err := time.ParseDuration(args[1])
		ts.Check(err)
		id, err := seedPoint(ts.Getenv("FAKE_CLUSTER"), args[0], age)
		ts.Check(err)
		ts.Setenv("POINT", id)
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

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", Cmds: scriptCommands, UpdateScripts: os.Getenv("DAVIT_UPDATE_GOLDEN") != "",
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
	c, err := realBackend{}.Cluster(kubeconfig, "")
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
