package quiescer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"davit.dev/davit/internal/quiesce"
)

// maxHeader bounds the headers of an answer, in bytes.
const maxHeader = 64 << 10

// asker asks pods, and nobody else: it follows no redirection, uses no proxy,
// keeps no connection for a later pod that has the same address, and takes a
// bounded answer. A pod's certificate is for names that nobody asks it by.
var asker = &http.Client{
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Transport: &http.Transport{
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: maxHeader,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // who answers is known by its address, as with the kubelet's probes
	},
}

// ask carries out a request. Its address is that of a pod, never what the hook
// or an endpoint says.
func (r *Runner) ask(ctx context.Context, t quiesce.Target, h *quiesce.HTTP) (string, error) {
	pod, port, err := r.answers(ctx, t, h)
	if err != nil {
		return "", err
	}
	if pod.Spec.HostNetwork {
		return "", fmt.Errorf("pod %s/%s has its node's address: what answers there may be the node, which no hook may ask", pod.Namespace, pod.Name)
	}
	if err := hasAddress(pod); err != nil {
		return "", err
	}
	return send(ctx, h, net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(int(port))))
}

// hasAddress tells whether what a pod's status calls its address is its own.
// The status of one that ended, or whose node is lost, keeps it while another
// pod has it. One that ended is gone; one that is deleted goes, and is not
// asked, but whoever is owed something in it waits until it is gone.
func hasAddress(pod *corev1.Pod) error {
	running := func(s corev1.ContainerStatus) bool { return s.State.Running != nil }
	switch {
	case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		return fmt.Errorf("%w: pod %s/%s has ended", quiesce.ErrGone, pod.Namespace, pod.Name)
	case pod.DeletionTimestamp != nil:
		return fmt.Errorf("pod %s/%s is being deleted: its address may be another pod's", pod.Namespace, pod.Name)
	case pod.Status.PodIP == "":
		return fmt.Errorf("pod %s/%s has no address yet", pod.Namespace, pod.Name)
	case pod.Status.Phase != corev1.PodRunning || !slices.ContainsFunc(pod.Status.ContainerStatuses, running):
		return fmt.Errorf("pod %s/%s runs no container: its address may be another pod's", pod.Namespace, pod.Name)
	}
	return nil
}

// answers finds the pod to ask, and its port.
func (r *Runner) answers(ctx context.Context, t quiesce.Target, h *quiesce.HTTP) (*corev1.Pod, int32, error) {
	if h.Service != "" {
		return r.behind(ctx, t.Namespace, h)
	}
	pod, err := r.same(ctx, t)
	if err != nil {
		return nil, 0, err
	}
	port, err := portOf(pod, h.Port)
	return pod, port, err
}

// behind finds a ready pod that a Service selects. Its endpoints are not
// asked: whoever may write those may point them anywhere.
func (r *Runner) behind(ctx context.Context, namespace string, h *quiesce.HTTP) (*corev1.Pod, int32, error) {
	service, err := r.clients.Kubernetes.CoreV1().Services(namespace).Get(ctx, h.Service, metav1.GetOptions{})
	if err != nil {
		return nil, 0, fmt.Errorf("read service %s/%s: %w", namespace, h.Service, err)
	}
	if len(service.Spec.Selector) == 0 || service.Spec.Type == corev1.ServiceTypeExternalName {
		return nil, 0, fmt.Errorf("service %s/%s selects no pods, and so may lead anywhere: name one that does", namespace, h.Service)
	}
	i := slices.IndexFunc(service.Spec.Ports, func(p corev1.ServicePort) bool {
		return p.Name == h.Port || strconv.Itoa(int(p.Port)) == h.Port
	})
	if i < 0 {
		return nil, 0, fmt.Errorf("service %s/%s has no port %s", namespace, h.Service, h.Port)
	}
	target := service.Spec.Ports[i].TargetPort.String()
	if target == "" || target == "0" {
		target = strconv.Itoa(int(service.Spec.Ports[i].Port))
	}
	pods, err := r.clients.Kubernetes.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: labels.SelectorFromSet(service.Spec.Selector).String()})
	if err != nil {
		return nil, 0, fmt.Errorf("list pods of service %s/%s: %w", namespace, h.Service, err)
	}
	for j := range pods.Items {
		if pod := &pods.Items[j]; ready(pod) {
			port, err := portOf(pod, target)
			return pod, port, err
		}
	}
	return nil, 0, fmt.Errorf("no pod that service %s/%s selects is ready", namespace, h.Service)
}

func ready(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// portOf is the number of a pod's port.
func portOf(pod *corev1.Pod, port string) (int32, error) {
	if n, err := strconv.ParseUint(port, 10, 16); err == nil && n > 0 {
		return int32(n), nil
	}
	for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		for _, p := range c.Ports {
			if p.Name == port && port != "" {
				return p.ContainerPort, nil
			}
		}
	}
	return 0, fmt.Errorf("pod %s/%s has no port %q", pod.Namespace, pod.Name, port)
}

// send makes the request to an address and returns the answer's body, cut to a
// bounded size.
func send(ctx context.Context, h *quiesce.HTTP, address string) (string, error) {
	path, err := url.ParseRequestURI(h.Path)
	if err != nil {
		return "", fmt.Errorf("read path of hook: %w", err)
	}
	to := url.URL{Scheme: h.Scheme, Host: address, Path: path.Path, RawPath: path.RawPath, RawQuery: path.RawQuery}
	title := h.Method + " " + to.Scheme + "://" + to.Host + to.Path // a query may hold a secret
	request, err := http.NewRequestWithContext(ctx, h.Method, to.String(), strings.NewReader(h.Body))
	if err != nil {
		return "", errors.New(title + " is no request that can be made")
	}
	for _, header := range h.Headers {
		request.Header.Add(header.Name, header.Value)
		if strings.EqualFold(header.Name, "Host") {
			request.Host = header.Value
		}
	}
	answer, err := asker.Do(request)
	if err != nil {
		var failed *url.Error // names the query, too
		if errors.As(err, &failed) {
			err = failed.Err
		}
		return "", fmt.Errorf("%s: %w", title, err)
	}
	defer answer.Body.Close() //nolint:errcheck // it was read as far as it is wanted
	text, readErr := io.ReadAll(io.LimitReader(answer.Body, maxOutput))
	var out output
	_, _ = out.Write(text)
	switch {
	case !welcome(h.Status, answer.StatusCode):
		return out.String(), fmt.Errorf("%s was answered with %s: %s", title, answer.Status, out.tail())
	case readErr != nil:
		return out.String(), fmt.Errorf("read answer of %s: %w", title, readErr)
	}
	return out.String(), nil
}

func welcome(wanted []int32, status int) bool {
	if len(wanted) == 0 {
		return status >= 200 && status <= 299
	}
	return slices.Contains(wanted, int32(status)) //nolint:gosec // three digits
}
