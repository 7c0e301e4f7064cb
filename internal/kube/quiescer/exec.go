package quiescer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"

	"davit.dev/davit/internal/quiesce"
)

// maxOutput bounds what is kept of a command's output, in bytes.
const maxOutput = 64 << 10

// Exec runs a command in a container and returns its output, both streams, cut
// to a bounded size. A non-zero exit is an error that names the code.
func (r *Runner) Exec(ctx context.Context, t quiesce.Target, command []string) (string, error) {
	var out output
	err := r.stream(ctx, t, command, remotecommand.StreamOptions{Stdout: &out, Stderr: &out})
	return out.String(), said(err, command, &out)
}

// said makes an exit code an error that shows what was printed.
func said(err error, command []string, out *output) error {
	var exit exec.CodeExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("%q ended with code %d: %s", command[0], exit.Code, out.tail())
	}
	return err
}

// stream runs a command to its end, over WebSocket, or SPDY where the server
// has no better.
func (r *Runner) stream(ctx context.Context, t quiesce.Target, command []string, streams remotecommand.StreamOptions) error {
	req := r.clients.Kubernetes.CoreV1().RESTClient().Post().
		Namespace(t.Namespace).Resource("pods").Name(t.Pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{
			Container: t.Container, Command: command, Stdin: streams.Stdin != nil, Stdout: true, Stderr: true,
		}, scheme.ParameterCodec)
	ws, err := remotecommand.NewWebSocketExecutor(r.clients.RESTConfig, http.MethodGet, req.URL().String())
	if err != nil {
		return fmt.Errorf("open exec: %w", err)
	}
	spdy, err := remotecommand.NewSPDYExecutor(r.clients.RESTConfig, http.MethodPost, req.URL())
	if err != nil {
		return fmt.Errorf("open exec: %w", err)
	}
	executor, err := remotecommand.NewFallbackExecutor(ws, spdy, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	if err != nil {
		return fmt.Errorf("open exec: %w", err)
	}
	return executor.StreamWithContext(ctx, streams)
}

// output keeps the first bytes that are written to it and counts the others.
type output struct {
	mu      sync.Mutex
	kept    strings.Builder
	dropped int64
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := min(len(p), maxOutput-o.kept.Len())
	o.kept.Write(p[:n])
	o.dropped += int64(len(p) - n)
	return len(p), nil
}

// note adds a line of Davit's own.
func (o *output) note(text string) { _, _ = o.Write([]byte(text + "\n")) }

// String is what was kept, as valid UTF-8.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := strings.ToValidUTF8(o.kept.String(), "\uFFFD")
	if o.dropped > 0 {
		text += fmt.Sprintf("\n(%d bytes more)", o.dropped)
	}
	return text
}

// tail is the end of the output, for an error message.
func (o *output) tail() string {
	const most = 300
	text := strings.TrimSpace(o.String())
	if len(text) > most {
		text = "..." + strings.ToValidUTF8(text[len(text)-most:], "")
	}
	if text == "" {
		return "it printed nothing"
	}
	return text
}

// input is a command's standard input. Writing to it never blocks.
type input struct {
	mu     sync.Mutex
	more   *sync.Cond
	text   []byte
	closed bool
}

func newInput() *input {
	in := &input{}
	in.more = sync.NewCond(&in.mu)
	return in
}

// Read implements io.Reader.
func (in *input) Read(p []byte) (int, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.text) == 0 && !in.closed {
		in.more.Wait()
	}
	if len(in.text) == 0 {
		return 0, io.EOF
	}
	n := copy(p, in.text)
	in.text = in.text[n:]
	return n, nil
}

func (in *input) send(text string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.text = append(in.text, text...)
	in.more.Signal()
}

func (in *input) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
	in.more.Broadcast()
}
