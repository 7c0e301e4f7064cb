package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/demo/stage"
)

// The sites, and the vault that both have from the start. North is there for who brings it up.
const (
	east   = "east"
	west   = "west"
	north  = "north"
	common = "e2e"
	system = "davit-system"
)

// rig is the stage that all tests share; TestMain sets it.
var rig *stage.Stage

// outcome is how a davit command ended.
type outcome struct {
	args     string
	code     int
	out, err string
}

// command makes a davit command without running it.
func command(ctx context.Context, site, vault string, args ...string) *exec.Cmd {
	args = append([]string{"--kubeconfig", rig.Bed.Site(site).Kubeconfig()}, args...)
	if vault != "" {
		args = append(args, "--vault", vault)
	}
	s3 := rig.Bed.S3()
	cmd := exec.CommandContext(ctx, filepath.Join(rig.Root, "bin", "davit"), args...)
	cmd.Env = append(os.Environ(), "DAVIT_ACCESS_KEY="+s3.AccessKey, "DAVIT_SECRET_KEY="+s3.SecretKey)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// davit runs a command to its end, whatever that is.
func davit(t *testing.T, site, vault string, args ...string) outcome {
	t.Helper()
	return finish(t, command(t.Context(), site, vault, args...))
}

func finish(t *testing.T, cmd *exec.Cmd) outcome {
	t.Helper()
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	defer took(t, time.Now(), "davit "+strings.Join(cmd.Args[3:], " "))
	err := cmd.Run()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatalf("run davit: %v", err)
	}
	o := outcome{strings.Join(cmd.Args[3:], " "), cmd.ProcessState.ExitCode(), out.String(), said.String()}
	keep(t, "davit "+o.args+"\n"+o.all())
	return o
}

// keep keeps what a process of a test said where DAVIT_TEST_SAID has it, for hack/verdict to
// look for secrets in.
func keep(t *testing.T, text string) {
	t.Helper()
	dir := os.Getenv("DAVIT_TEST_SAID")
	if dir == "" {
		return
	}
	f, err := os.OpenFile(filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "-")+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Errorf("keep what a process said: %v", err)
	}
}

// all is everything the command said, on one line for each.
func (o outcome) all() string { return o.out + o.err }

// want checks the exit code, and that each text was said. Spaces match any white space.
func (o outcome) want(t *testing.T, code int, texts ...string) outcome {
	t.Helper()
	if o.code != code {
		t.Errorf("davit %s ended with %d, want %d\n%s", o.args, o.code, code, o.all())
	}
	said := strings.Join(strings.Fields(o.all()), " ")
	for _, text := range texts {
		if !strings.Contains(said, text) {
			t.Errorf("davit %s did not say %q, but:\n%s", o.args, text, o.all())
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	return o
}

// read decodes the command's JSON.
func (o outcome) read(t *testing.T, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(o.out), into); err != nil {
		t.Fatalf("davit %s printed no JSON: %v\n%s", o.args, err, o.all())
	}
}

func kubectl(t *testing.T, site string, args ...string) string {
	t.Helper()
	defer took(t, time.Now(), "kubectl "+strings.Join(args, " "))
	out, err := rig.Kubectl(t.Context(), site, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// took logs what a test spent long on: where a run's time goes is to be seen.
func took(t *testing.T, since time.Time, what string) {
	t.Helper()
	if spent := time.Since(since); spent > 3*time.Second {
		t.Logf("%.1f s: %s", spent.Seconds(), what)
	}
}

// try is kubectl for questions that may get no answer yet.
func try(t *testing.T, site string, args ...string) string {
	t.Helper()
	out, err := rig.Kubectl(t.Context(), site, args...)
	if err != nil {
		return "error: " + err.Error()
	}
	return out
}

func apply(t *testing.T, site, yaml string) {
	t.Helper()
	if _, err := rig.KubectlIn(t.Context(), site, strings.NewReader(yaml), "apply", "--server-side", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for a condition; ask also says what it saw.
func eventually(t *testing.T, limit time.Duration, what string, ask func() (bool, string)) {
	t.Helper()
	defer took(t, time.Now(), what)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	err := stage.Wait(ctx, what, func(context.Context) (bool, string, error) {
		ok, saw := ask()
		return ok, saw, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// absent checks that a namespace was not made.
func absent(t *testing.T, site, namespace string) {
	t.Helper()
	if got := kubectl(t, site, "get", "namespace", namespace, "--ignore-not-found", "-o", "name"); got != "" {
		t.Errorf("%s exists at %s, although nothing should have changed", got, site)
	}
}

// removeNamespace removes one when the test ends, and does not wait.
func removeNamespace(t *testing.T, site, namespace string) {
	t.Cleanup(func() {
		_, _ = rig.Kubectl(context.Background(), site, "delete", "namespace", namespace, "--ignore-not-found", "--wait=false")
	})
}

// bucket makes an empty one and returns its address for davit. The endpoint is
// the bed's own unless another is given.
func bucket(t *testing.T, name, endpoint string) string {
	t.Helper()
	address, err := newBucket(name, endpoint)
	if err != nil {
		t.Fatal(err)
	}
	return address
}

func newBucket(name, endpoint string) (string, error) {
	s3 := rig.Bed.S3()
	if err := os.MkdirAll(filepath.Join(s3.DataDir, name), 0o700); err != nil {
		return "", fmt.Errorf("make bucket: %w", err)
	}
	if endpoint == "" {
		endpoint = s3.Endpoint
	}
	return fmt.Sprintf("s3://%s/davit?endpoint=%s&region=%s&pathStyle=true&insecureHTTP=true", name, endpoint, s3.Region), nil
}

// addVault gives sites a vault of the test's own; it is gone when the test ends.
func addVault(t *testing.T, name, address string, sites []string, flags ...string) (key string) {
	t.Helper()
	key = filepath.Join(t.TempDir(), name+".key")
	for i, site := range sites {
		args := append([]string{"vault", "add", name, address, "--recovery-key-file", key}, flags...)
		if i > 0 {
			args = append(args, "--join")
		}
		davit(t, site, "", args...).want(t, 0)
		t.Cleanup(func() { _, _ = rig.Kubectl(context.Background(), site, "delete", "vault", name, "--ignore-not-found") })
	}
	return key
}

// projectDir is where the S3 server keeps the project of a bucket.
func projectDir(bucket string) string {
	return filepath.Join(rig.Bed.S3().DataDir, bucket, "davit", "projects", "default")
}

// names are the directory's entries; none when it is not there.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// epochs counts an application's epochs in the vault itself.
func epochs(t *testing.T, bucket, app string) int {
	t.Helper()
	return len(names(t, filepath.Join(projectDir(bucket), "epochs", app)))
}

var unsafeName = regexp.MustCompile(`[^a-z0-9]+`)

// shorts are the names that short has given.
var shorts = struct {
	sync.Mutex
	of   map[*testing.T]string
	used map[string]int
}{of: map[*testing.T]string{}, used: map[string]int{}}

// short turns a test's name into one for a namespace and an application. A test that is
// run again gets another: in the vault, what an application was before it still is.
func short(t *testing.T) string {
	shorts.Lock()
	defer shorts.Unlock()
	if name, ok := shorts.of[t]; ok {
		return name
	}
	name := "e2e-" + unsafeName.ReplaceAllString(strings.ToLower(t.Name()[strings.LastIndex(t.Name(), "/")+1:]), "-")
	if shorts.used[t.Name()]++; shorts.used[t.Name()] > 1 {
		name += fmt.Sprintf("-%d", shorts.used[t.Name()])
	}
	shorts.of[t] = name
	return name
}
