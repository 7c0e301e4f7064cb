package standby

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/restore/shape"
)

// states serves terraform's http backend: one state, and its lock.
type states struct {
	mu    sync.Mutex
	state []byte
	lock  []byte
}

func (s *states) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	switch {
	case r.Method == "LOCK" && s.lock != nil:
		w.WriteHeader(http.StatusLocked)
		_, _ = w.Write(s.lock)
	case r.Method == "LOCK":
		s.lock = body
	case r.Method == "UNLOCK":
		s.lock = nil
	case r.Method == http.MethodPost:
		s.state = body
	case r.Method == http.MethodDelete:
		s.state = nil
	case s.state == nil:
		w.WriteHeader(http.StatusNotFound)
	default:
		_, _ = w.Write(s.state)
	}
}

// bench is where the script of a terraform step runs: a program, its configuration
// and its state.
type bench struct {
	program string
	env     []string
	config  string
	backend []string
	// held locks the state as a run that died left it, and says whether it is locked.
	held   func(t *testing.T)
	locked func() bool
	// holder is who is named then.
	holder string
	made   func() bool // the state has something
}

func standIn(t *testing.T) bench {
	t.Helper()
	program, err := filepath.Abs("testdata/standin")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	there := func(name string) bool { _, err := os.Stat(filepath.Join(dir, name)); return err == nil }
	return bench{
		program: program, holder: "root@dead since 2026", env: []string{"STANDIN=" + dir}, config: "terraform {\n  backend \"http\" {}\n}\n",
		held: func(t *testing.T) {
			t.Helper()
			for name, text := range map[string]string{"id": "11-22", "who": "root@dead"} {
				if err := os.MkdirAll(filepath.Join(dir, "lock"), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, "lock", name), []byte(text+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		},
		locked: func() bool { return there("lock") }, made: func() bool { return there("state") },
	}
}

// itself is terraform, where this machine has it. What it applies needs no
// provider from elsewhere.
func itself(t *testing.T) bench {
	t.Helper()
	program, err := exec.LookPath("terraform")
	if err != nil {
		t.Skip("this machine has no terraform: the stand-in alone was tried")
	}
	kept := &states{}
	server := httptest.NewServer(kept)
	t.Cleanup(server.Close)
	return bench{
		program: program, holder: "somebody", // as this backend does not say who
		config: "terraform {\n  backend \"http\" {}\n}\nvariable \"size\" {\n  default = \"1\"\n}\n" +
			"resource \"terraform_data\" \"net\" {\n  triggers_replace = var.size\n}\n",
		backend: []string{"address", "lock_address", "unlock_address"},
		env:     []string{"CHECKPOINT_DISABLE=1", "ADDRESS=" + server.URL},
		held: func(*testing.T) {
			kept.mu.Lock()
			defer kept.mu.Unlock()
			kept.lock, _ = json.Marshal(map[string]string{"ID": "11-22", "Operation": "OperationTypeApply", "Who": "root@dead", "Version": "1", "Created": "2026-01-01T00:00:00Z"})
		},
		locked: func() bool { kept.mu.Lock(); defer kept.mu.Unlock(); return kept.lock != nil },
		made: func() bool {
			kept.mu.Lock()
			defer kept.mu.Unlock()
			return bytes.Contains(kept.state, []byte(`"terraform_data"`))
		},
	}
}

// script is the Job's command as it would run in its pod, with the places of this
// machine.
func (b bench) script(t *testing.T, what, config string, change func(*plan.Terraform)) *exec.Cmd {
	t.Helper()
	step := &plan.Terraform{Image: "i", Program: b.program, ConfigMap: "net", LockTimeout: time.Second}
	if change != nil {
		change(step)
	}
	address := ""
	for _, e := range b.env {
		address = strings.TrimPrefix(e, "ADDRESS=")
	}
	if len(b.backend) > 0 {
		step.Backend = map[string]string{}
		for _, key := range b.backend {
			step.Backend[key] = address
		}
	}
	work, files := filepath.Join(t.TempDir(), "work"), t.TempDir()
	if err := os.Mkdir(work, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(files, "main.tf"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	c := terraformCommand(step, what)
	cmd := exec.CommandContext(t.Context(), "/bin/sh", append([]string{"-c", terraformScript, "davit"}, c.Args...)...)
	cmd.Env = append(os.Environ(), b.env...)
	for key, value := range c.Env {
		cmd.Env = append(cmd.Env, key+"="+strings.NewReplacer(workPath, work, configPath, files).Replace(value))
	}
	return cmd
}

func (b bench) run(t *testing.T, what, config string, change func(*plan.Terraform)) string {
	t.Helper()
	out, _ := b.script(t, what, config, change).CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	said, spoke := strings.CutPrefix(lines[len(lines)-1], spoken)
	if !spoke {
		t.Fatalf("it did not say what came of it:\n%s", out)
	}
	return said
}

func sized(size string) func(*plan.Terraform) {
	return func(p *plan.Terraform) { p.Variables = map[string]string{"size": size} }
}

// TestTerraform goes through what can come of a terraform step, with a stand-in and
// with terraform itself.
func TestTerraform(t *testing.T) {
	for name, on := range map[string]func(*testing.T) bench{"stand-in": standIn, "terraform": itself} {
		t.Run(name, func(t *testing.T) {
			b := on(t)
			expect := func(what string, change func(*plan.Terraform), want string) {
				t.Helper()
				if got := b.run(t, what, b.config, change); !strings.HasPrefix(got, want) {
					t.Errorf("%s: %q, want %q", what, got, want)
				}
				if b.locked() {
					t.Errorf("%s left the state locked", what)
				}
			}
			expect("plan", nil, "only planned: 1 to add")
			if b.made() {
				t.Error("a drill made something")
			}
			expect("apply", nil, "applied: 1 added, 0 changed, 0 destroyed.")
			expect("apply", nil, "no changes")
			expect("plan", nil, "only planned: no changes")
			expect("plan", sized("2"), "only planned: 1 to add")
			expect("apply", nil, "no changes") // as the drill changed nothing
			b.held(t)
			for _, what := range []string{"apply", "destroy"} {
				got := b.run(t, what, b.config, sized("2"))
				for _, want := range []string{"locked by " + b.holder, "force-unlock 11-22", "retry the step"} {
					if !strings.Contains(got, want) {
						t.Errorf("%s of a locked state: %q lacks %q", what, got, want)
					}
				}
			}
			if got := b.run(t, "plan", b.config, nil); got != "only planned: no changes" {
				t.Errorf("a drill waits for a lock: %q", got)
			}
		})
	}
}

func TestTerraformIsTakenBack(t *testing.T) {
	for name, on := range map[string]func(*testing.T) bench{"stand-in": standIn, "terraform": itself} {
		t.Run(name, func(t *testing.T) {
			b := on(t)
			b.run(t, "apply", b.config, nil)
			if !b.made() {
				t.Fatal("nothing was made")
			}
			if got := b.run(t, "destroy", b.config, nil); got != "destroyed: 1 destroyed." || b.made() {
				t.Errorf("%q, still there: %t", got, b.made())
			}
		})
	}
}

// TestTheLockFileComesAlong: without it init takes whatever versions of providers there
// are that day. The step's files stand behind links, as those of a ConfigMap do.
func TestTheLockFileComesAlong(t *testing.T) {
	b := standIn(t)
	cmd := b.script(t, "plan", b.config, nil)
	var files, work string
	for _, e := range cmd.Env {
		if dir, is := strings.CutPrefix(e, "DAVIT_TF_CONFIG="); is {
			files = dir
		}
		if dir, is := strings.CutPrefix(e, "DAVIT_TF_WORK="); is {
			work = dir
		}
	}
	data := filepath.Join(files, "..2026")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	const name, text = ".terraform.lock.hcl", "# pinned\n"
	if err := os.WriteFile(filepath.Join(data, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"..data": "..2026", name: "..data/" + name} {
		if err := os.Symlink(to, filepath.Join(files, link)); err != nil {
			t.Fatal(err)
		}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got, err := os.ReadFile(filepath.Join(work, name)); err != nil || string(got) != text {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(work, "..2026")); !os.IsNotExist(err) {
		t.Errorf("the volume's own came along: %v", err)
	}
}

// TestNoTerraformBeginsOnceTimeIsOver: the site asks between two of its programs, when
// there is none to end; the next one would be killed in its middle.
func TestNoTerraformBeginsOnceTimeIsOver(t *testing.T) {
	b := standIn(t)
	cmd := b.script(t, "apply", b.config+"# sleep\n", nil)
	cmd.Args[2] = strings.Replace(terraformScript, "    run \"$DAVIT_TF\" apply", "    kill -TERM $$\n    run \"$DAVIT_TF\" apply", 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), spoken+"the step's time was over") || b.locked() || b.made() {
		t.Errorf("%v, locked: %t\n%s", err, b.locked(), out)
	}
}

// TestTerraformWithoutAPlaceForItsState is refused before anything is made: the next
// run would make all of it again.
func TestTerraformWithoutAPlaceForItsState(t *testing.T) {
	for name, on := range map[string]func(*testing.T) bench{"stand-in": standIn, "terraform": itself} {
		t.Run(name, func(t *testing.T) {
			b := on(t)
			b.backend = nil
			for _, text := range []string{"", "terraform {\n  backend \"local\" {}\n}\n"} {
				if got := b.run(t, "apply", text, nil); !strings.Contains(got, "has no backend") {
					t.Errorf("%q: %q", text, got)
				}
			}
			if got := b.run(t, "apply", "broken {\n", nil); !strings.HasPrefix(got, "init failed: ") || strings.Contains(got, "its log") {
				t.Errorf("broken: %q", got)
			}
			b.program = "no-such-program"
			if got := b.run(t, "apply", b.config, nil); !strings.Contains(got, "has no no-such-program") {
				t.Errorf("%q", got)
			}
		})
	}
}

// TestTerraformLetsGo: when the step's time is over, the site ends the Job, and the
// state is not left locked.
func TestTerraformLetsGo(t *testing.T) {
	for name, on := range map[string]func(*testing.T) bench{"stand-in": standIn, "terraform": itself} {
		t.Run(name, func(t *testing.T) {
			b := on(t)
			config := b.config + "# sleep\n"
			if name == "terraform" {
				config = strings.Replace(config, "triggers_replace = var.size", "provisioner \"local-exec\" {\n    command = \"exec sleep 600\"\n  }", 1)
			}
			cmd := b.script(t, "apply", config, nil)
			read, write := io.Pipe()
			cmd.Stdout, cmd.Stderr = write, write
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var said strings.Builder
			done := make(chan struct{})
			go func() {
				defer close(done)
				buffer, asked := make([]byte, 4096), false
				for {
					n, err := read.Read(buffer)
					said.Write(buffer[:n])
					if !asked && (strings.Contains(said.String(), "Still creating") || strings.Contains(said.String(), "Executing:")) {
						asked = true
						_ = cmd.Process.Signal(syscall.SIGTERM)
					}
					if err != nil {
						return
					}
				}
			}()
			err := cmd.Wait()
			_ = write.Close()
			<-done
			if err == nil || !strings.Contains(said.String(), spoken+"the step's time was over") || b.locked() {
				t.Errorf("%v, locked: %t\n%s", err, b.locked(), said.String())
			}
		})
	}
}

func applying(t *plan.Terraform) execute.Order {
	return execute.Order{Action: failover.Act, Run: "r", Verb: plan.Failover, Step: plan.Step{Name: "net", Kind: plan.KindInfra, Terraform: t, Timeout: 20 * time.Minute}}
}

// TestTerraformsJob: what it runs, with what, and for how long.
func TestTerraformsJob(t *testing.T) {
	config := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"namespace":"davit-system","name":"net"}}`
	secret := `{"apiVersion":"v1","kind":"Secret","metadata":{"namespace":"davit-system","name":"cloud"}}`
	c := newMemory(t, config, secret)
	c.changed = func(u *unstructured.Unstructured) {
		if u.GetKind() == "Job" {
			u.Object["status"] = map[string]any{"conditions": []any{map[string]any{"type": "Complete", "status": "True"}}}
		}
	}
	s := New(Options{Recovery: recovery.Deps{Cluster: c}, JobLog: func(context.Context, string, string) (string, error) {
		return "Apply complete!\ndavit: applied: 1 added\n", nil
	}})
	step := &plan.Terraform{Image: "tf:1", ConfigMap: "net", Secrets: []string{"cloud"}, Variables: map[string]string{"size": "3"}, Backend: map[string]string{"key": "west", "bucket": "b"}}
	for _, tc := range []struct {
		change func(*execute.Order)
		what   string
		note   string
	}{
		{func(*execute.Order) {}, "apply", ": applied: 1 added"},
		{func(o *execute.Order) { o.Run, o.Verb = "d", plan.Drill }, "plan", ": applied: 1 added"},
		{func(o *execute.Order) { o.Run, o.Action = "k", failover.Undo }, "", "kept"},
		{func(o *execute.Order) {
			destroyed := *step
			destroyed.Destroy, o.Run, o.Action, o.Step.Terraform = true, "u", failover.Undo, &destroyed
		}, "destroy", ": applied: 1 added"},
	} {
		clear(c.objects)
		for _, text := range []string{config, secret} {
			u := &unstructured.Unstructured{}
			if err := u.UnmarshalJSON([]byte(text)); err != nil {
				t.Fatal(err)
			}
			c.objects[keyOf(u.GroupVersionKind().GroupKind(), u.GetNamespace(), u.GetName())] = u
		}
		o := applying(step)
		tc.change(&o)
		got := commands(t.Context(), s, o)
		if got.Outcome != failover.Done || !strings.Contains(got.Note, tc.note) {
			t.Errorf("%s: %+v", tc.what, got)
		}
		var job *unstructured.Unstructured
		for _, u := range c.objects {
			if u.GetKind() == "Job" {
				job = u
			}
		}
		if (job != nil) != (tc.what != "") {
			t.Errorf("%s: Job %v", tc.what, job)
		}
		if job == nil {
			continue
		}
		spec := shape.Child(job.Object, "spec")
		limit, _ := shape.Number(spec, "activeDeadlineSeconds")
		pod := shape.Child(spec, "template", "spec")
		grace, _ := shape.Number(pod, "terminationGracePeriodSeconds")
		if limit != 1140 || grace != 60 {
			t.Errorf("%d s, and %d s to end, want all of 20 minutes", limit, grace)
		}
		text, _ := json.Marshal(pod)
		for _, want := range []string{`{"name":"DAVIT_TF_WHAT","value":"` + tc.what + `"}`, `{"name":"TF_VAR_size","value":"3"}`, `"-backend-config=bucket=b","-backend-config=key=west"`, `"configMap":{"defaultMode":365,"name":"net"}`, `"secretRef":{"name":"cloud"}`} {
			if !bytes.Contains(text, []byte(want)) {
				t.Errorf("%s: its pod lacks %s: %s", tc.what, want, text)
			}
		}
	}
}

// TestWhatTerraformLacks is said at once: a pod would wait for it without a word.
func TestWhatTerraformLacks(t *testing.T) {
	s := New(Options{Recovery: recovery.Deps{Cluster: newMemory(t)}})
	for want, step := range map[string]*plan.Terraform{
		"no ConfigMap net": {Image: "i", ConfigMap: "net"}, "no Secret tf": {Image: "i", Secret: "tf"}, "no Secret cloud": {Image: "i", Directory: "/x", Secrets: []string{"cloud"}},
	} {
		if got := commands(t.Context(), s, applying(step)); got.Outcome != failover.Refused || !strings.Contains(got.Note, want) {
			t.Errorf("%+v, want %s", got, want)
		}
	}
}
