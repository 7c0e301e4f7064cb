package quiescer

import (
	"context"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	remote "k8s.io/client-go/util/exec"

	"davit.dev/davit/internal/quiesce"
)

func TestOutputIsBounded(t *testing.T) {
	var o output
	for range 100 {
		if n, err := o.Write(make([]byte, 1024)); n != 1024 || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	if o.kept.Len() != maxOutput || !strings.Contains(o.String(), "(36864 bytes more)") {
		t.Errorf("kept %d bytes", o.kept.Len())
	}
}

func TestContainerOf(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n"},
		Spec: corev1.PodSpec{
			Containers:     []corev1.Container{{Name: "a"}, {Name: "b"}},
			InitContainers: []corev1.Container{{Name: "sidecar"}},
		},
	}
	for name, want := range map[string]string{"": "a", "b": "b", "sidecar": "sidecar"} {
		if got, err := podOf(pod, "").Container(name); got != want || err != nil {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
	if _, err := podOf(pod, "").Container("z"); err == nil || !strings.Contains(err.Error(), "a, b") {
		t.Errorf("unknown: %v", err)
	}
	pod.Annotations = map[string]string{defaultContainer: "b"}
	if got, err := podOf(pod, "").Container(""); got != "b" || err != nil {
		t.Errorf("default: %q, %v", got, err)
	}
}

func TestFitness(t *testing.T) {
	running := []corev1.ContainerStatus{{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	now := metav1.Now()
	for _, tt := range []struct {
		name  string
		pod   corev1.Pod
		unfit bool
		idle  bool
	}{
		{"runs", corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: running}}, false, false},
		{"ended", corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodFailed}}, false, true},
		{"waits for a node", corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodPending}}, true, true},
		{"starts", corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodPending, InitContainerStatuses: running}}, true, false},
		{"goes", corev1.Pod{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &now}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}, true, false},
	} {
		unfit, idle := fitness(&tt.pod)
		if (unfit != "") != tt.unfit || idle != tt.idle {
			t.Errorf("%s: unfit %q, idle %t", tt.name, unfit, idle)
		}
	}
}

// script opens a session on a shell of this machine.
func script(t *testing.T, h quiesce.Hold, text string) *session {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return open(ctx, h.WithDefaults(), func(ctx context.Context, in io.Reader, out, stderr io.Writer) error {
		cmd := exec.CommandContext(ctx, "sh", "-c", text)
		cmd.Stdout, cmd.Stderr, cmd.WaitDelay = out, stderr, time.Second
		pipe, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(pipe, in)
			_ = pipe.Close()
		}()
		err = cmd.Run()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
			err = remote.CodeExitError{Err: err, Code: exit.ExitCode()}
		}
		return err
	})
}

// holds is a command that does as it should.
const holds = `echo preparing; echo 'DAVIT HELD'; while read -r line; do [ "$line" = 'DAVIT CHECK' ] && echo 'DAVIT HELD'; done; echo released`

func TestSession(t *testing.T) {
	for _, tt := range []struct {
		name, text      string
		held, ask, shut string // part of the error, empty: none
	}{
		{"holds", holds, "", "", ""},
		{"ends with a code", holds + "; exit 3", "", "", "code 3"},
		{"exits 1 at once", "echo no such database; exit 1", "no such database", "0 times", "code 1"},
		{"never says it", "cat > /dev/null", "context", "0 times", ""},
		{"says it and ends", "echo 'DAVIT HELD'; exit 0", "?", "ended by itself", ""},
		{"is killed", "echo 'DAVIT HELD'; read -r line; kill -9 $$", "", "ended", "signal: killed"},
		{"does not answer", "echo 'DAVIT HELD'; cat > /dev/null", "", "did not answer", ""},
		{"says that it lost the lock", "echo 'DAVIT HELD'; read -r line; echo lost; exit 4", "", "code 4", "code 4"},
		{"answers before it is asked", "echo 'DAVIT HELD'; echo 'DAVIT HELD'; cat > /dev/null", "?", "before it was asked", ""},
		{"answers with something else", "echo 'DAVIT HELD'; while read -r line; do echo \"$line\"; done", "", "did not answer", ""},
		{"prints without end and without lines", "cat /dev/zero", "context", "0 times", "killed"},
		{"does not let go", "echo 'DAVIT HELD'; read -r line; echo 'DAVIT HELD'; while :; do sleep 1; done", "", "", "context"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := script(t, quiesce.Hold{Command: []string{"sh"}}, tt.text)
			soon := func(want string) context.Context {
				limit := 20 * time.Second
				if want == "context" || want == "did not answer" {
					limit = 200 * time.Millisecond // nothing will come
				}
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				t.Cleanup(cancel)
				return ctx
			}
			check := func(what string, err error, want string) {
				switch {
				case want == "?":
				case want == "" && err != nil:
					t.Errorf("%s: %v", what, err)
				case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
					t.Errorf("%s: %v, want %q", what, err, want)
				}
			}
			check("held", s.Held(soon(tt.held)), tt.held)
			if strings.Contains(tt.name, "ends") || strings.Contains(tt.name, "before") {
				<-s.seen(t, 2)
			}
			check("ask", s.Ask(soon(tt.ask)), tt.ask)
			if strings.HasPrefix(tt.name, "prints") {
				if len(s.Output()) > maxOutput+100 || len(s.line) > maxLine {
					t.Errorf("%d bytes of output are kept, %d of a line", len(s.Output()), len(s.line))
				}
				return
			}
			check("close", s.Close(soon(tt.shut)), tt.shut)
		})
	}
}

// seen waits until the marker was printed so often, or the session has ended.
func (s *session) seen(t *testing.T, times int) <-chan struct{} {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.wait(t.Context(), times)
	}()
	if strings.HasPrefix(t.Name(), "TestSession/ends_with") {
		closed := make(chan struct{})
		close(closed)
		return closed // it ends only when its input does
	}
	return done
}

func TestSessionIsOverWithItsLimit(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	s := open(ctx, quiesce.Hold{Command: []string{"sh"}}.WithDefaults(), func(ctx context.Context, _ io.Reader, _, _ io.Writer) error {
		<-ctx.Done()
		return ctx.Err()
	})
	<-s.ended
	if err := s.Ask(t.Context()); err == nil {
		t.Error("it answers after its limit")
	}
	if err := s.Held(t.Context()); err == nil || !strings.Contains(err.Error(), "limit of 1m0s") {
		t.Errorf("it ended with %v", err)
	}
}

func FuzzListener(f *testing.F) {
	f.Add([]byte("DAVIT HELD\n"), 3)
	f.Add([]byte(" DAVIT HELD \r\nx DAVIT HELD\nDAVIT HELD"), 1)
	f.Fuzz(func(t *testing.T, text []byte, size int) {
		size = max(size, 1)
		s := &session{marker: "DAVIT HELD", news: make(chan struct{}, 1)}
		want := 0
		lines := strings.Split(string(text), "\n")
		for _, line := range lines[:len(lines)-1] { // the last has not ended
			if len(line) <= maxLine && strings.TrimSpace(line) == s.marker {
				want++
			}
		}
		for len(text) > 0 {
			n := min(size, len(text))
			if got, err := (*listener)(s).Write(text[:n]); got != n || err != nil {
				t.Fatal(got, err)
			}
			text = text[n:]
		}
		if s.heard < want || len(s.line) > maxLine {
			t.Errorf("heard %d markers, want %d; %d bytes of a line", s.heard, want, len(s.line))
		}
	})
}
