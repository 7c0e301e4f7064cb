package source

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"

	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/kube"
)

// maxOutput bounds what is kept of a command's output, in bytes.
const maxOutput = 64 << 10

// defaultContainer is how a pod says which of its containers people mean.
const defaultContainer = "kubectl.kubernetes.io/default-container"

// Hooks runs commands in containers, over WebSocket, or SPDY where the server
// has no better.
type Hooks struct{ clients *kube.Clients }

var _ capture.Hooks = (*Hooks)(nil)

// NewHooks runs commands with the rights of the clients.
func NewHooks(clients *kube.Clients) *Hooks { return &Hooks{clients} }

// Targets implements capture.Hooks.
func (h *Hooks) Targets(ctx context.Context, namespaces []string, hook capture.Hook) ([]capture.Target, error) {
	var targets []capture.Target
	for _, ns := range namespaces {
		pods, err := h.clients.Kubernetes.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{LabelSelector: hook.Pods.String()})
		if err != nil {
			return nil, fmt.Errorf("list pods of %s: %w", ns, err)
		}
		for i := range pods.Items {
			pod := &pods.Items[i]
			if pod.Status.Phase != corev1.PodRunning || pod.DeletionTimestamp != nil {
				continue
			}
			container, err := containerOf(pod, hook.Container)
			if err != nil {
				return nil, err
			}
			targets = append(targets, capture.Target{Namespace: ns, Pod: pod.Name, Container: container})
		}
	}
	return targets, nil
}

func containerOf(pod *corev1.Pod, name string) (string, error) {
	if name == "" {
		name = pod.Annotations[defaultContainer]
	}
	if name == "" {
		return pod.Spec.Containers[0].Name, nil
	}
	var names []string
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for _, c := range list {
			names = append(names, c.Name)
		}
	}
	if !slices.Contains(names, name) {
		return "", fmt.Errorf("pod %s/%s has no container %q: it has %s", pod.Namespace, pod.Name, name, strings.Join(names, ", "))
	}
	return name, nil
}

// Exec implements capture.Hooks.
func (h *Hooks) Exec(ctx context.Context, t capture.Target, command []string) (string, error) {
	req := h.clients.Kubernetes.CoreV1().RESTClient().Post().
		Namespace(t.Namespace).Resource("pods").Name(t.Pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: t.Container, Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	ws, err := remotecommand.NewWebSocketExecutor(h.clients.RESTConfig, http.MethodGet, req.URL().String())
	if err != nil {
		return "", fmt.Errorf("open exec: %w", err)
	}
	spdy, err := remotecommand.NewSPDYExecutor(h.clients.RESTConfig, http.MethodPost, req.URL())
	if err != nil {
		return "", fmt.Errorf("open exec: %w", err)
	}
	executor, err := remotecommand.NewFallbackExecutor(ws, spdy, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	if err != nil {
		return "", fmt.Errorf("open exec: %w", err)
	}
	var out output
	err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &out})
	var exit exec.CodeExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%q ended with code %d: %s", command[0], exit.Code, out.tail())
	}
	return out.String(), err
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
