package scratch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/quiesce"
	"davit.dev/davit/internal/transcript"
	"davit.dev/davit/internal/trial"
)

const (
	maxBody = 1 << 20 // bytes of an answer that are looked at
	jobLook = 250 * time.Millisecond
	// tailLines are as many as are asked for of what a Job wrote: none is empty of what
	// ends it.
	tailLines = transcript.Most + 1
)

// Exec implements trial.Prober.
func (c *Cluster) Exec(ctx context.Context, namespace string, pod v1alpha1.PodChoice, command []string) (string, error) {
	selector, err := metav1.LabelSelectorAsSelector(&pod.Pods)
	if err != nil {
		return "", fmt.Errorf("read pod selector: %w", err)
	}
	pods, err := c.hooks.Pods(ctx, []string{namespace})
	if err != nil {
		return "", err
	}
	why := fmt.Errorf("no pod with labels %s runs in %s", selector, namespace)
	for _, p := range pods {
		if !selector.Matches(labels.Set(p.Labels)) {
			continue
		}
		if p.Unfit != "" {
			why = fmt.Errorf("pod %s %s", p.Key(), p.Unfit)
			continue
		}
		container, err := p.Container(pod.Container)
		if err != nil {
			return "", err
		}
		return c.hooks.Exec(ctx, quiesce.Target{Namespace: p.Namespace, Pod: p.Name, UID: p.UID, Container: container}, command)
	}
	return "", why
}

// HTTP implements trial.Prober, through the API server's proxy: redirections
// are answers, not followed.
func (c *Cluster) HTTP(ctx context.Context, namespace string, p v1alpha1.HTTPProbe) (int, string, error) {
	address, err := c.address(namespace, p)
	if err != nil {
		return 0, "", err
	}
	status, body, err := c.get(ctx, address)
	if err != nil {
		return 0, "", fmt.Errorf("ask %s: %w", p.Service, err)
	}
	return status, body, nil
}

// get asks for an address of the API server.
func (c *Cluster) get(ctx context.Context, address *url.URL) (int, string, error) {
	hc, err := rest.HTTPClientFor(c.clients.RESTConfig)
	if err != nil {
		return 0, "", fmt.Errorf("make client: %w", err)
	}
	asker := &http.Client{Transport: hc.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return 0, "", err
	}
	response, err := asker.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		return 0, "", fmt.Errorf("read the answer: %w", err)
	}
	return response.StatusCode, string(body), nil
}

// address is that of a Service's path at the API server. It never leaves the
// Service: the request carries rights that who wrote the probe has not.
func (c *Cluster) address(namespace string, p v1alpha1.HTTPProbe) (*url.URL, error) {
	if err := trial.CheckHTTP(p); err != nil {
		return nil, err
	}
	r := c.clients.Kubernetes.CoreV1().RESTClient().Get().Namespace(namespace).Resource("services").Name(proxied(p)).SubResource("proxy")
	if err := r.Error(); err != nil {
		return nil, fmt.Errorf("ask %s: %w", p.Service, err)
	}
	u := r.URL()
	extend(u, p.Path)
	return u, nil
}

// extend puts a probe's path and query behind the proxy's address. A path that
// is a slash stays one: without it the proxy answers with a redirection.
func extend(address *url.URL, path string) {
	path, address.RawQuery, _ = strings.Cut(path, "?")
	address.Path = strings.TrimSuffix(address.Path, "/") + "/" + strings.TrimPrefix(path, "/")
}

// proxied names a Service's port for the proxy: scheme:name:port.
func proxied(p v1alpha1.HTTPProbe) string {
	if p.Scheme == "" && p.Port == "" {
		return p.Service
	}
	scheme := p.Scheme
	if scheme == "" {
		scheme = "http"
	}
	return scheme + ":" + p.Service + ":" + p.Port
}

// Job implements trial.Prober.
func (c *Cluster) Job(ctx context.Context, namespace, name string, p v1alpha1.JobProbe) (string, error) {
	jobs := c.clients.Kubernetes.BatchV1().Jobs(namespace)
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1alpha1.LabelManagedBy: "davit"}},
		Spec: batchv1.JobSpec{BackoffLimit: ptr.To[int32](0), Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, ServiceAccountName: p.ServiceAccountName,
			Containers: []corev1.Container{{Name: "probe", Image: p.Image, Command: p.Command}},
		}}},
	}
	if _, err := jobs.Create(ctx, job, metav1.CreateOptions{}); err != nil {
		return "", fmt.Errorf("make Job %s: %w", name, err)
	}
	tick := time.NewTicker(jobLook)
	defer tick.Stop()
	for {
		live, err := jobs.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return "", fmt.Errorf("look at Job %s: %w", name, err)
		}
		for _, cond := range live.Status.Conditions {
			if cond.Status != corev1.ConditionTrue {
				continue
			}
			switch cond.Type {
			case batchv1.JobComplete:
				return c.output(ctx, namespace, name)
			case batchv1.JobFailed:
				text, err := c.output(ctx, namespace, name)
				return text, errors.Join(fmt.Errorf("the Job failed: %s: %s", cond.Message, strings.TrimSpace(text)), err)
			}
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("wait for Job %s: %w", name, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// output is what the Job's pod wrote.
func (c *Cluster) output(ctx context.Context, namespace, job string) (string, error) {
	var all strings.Builder
	err := c.written(ctx, namespace, job, corev1.PodLogOptions{LimitBytes: ptr.To[int64](maxBody)}, &all)
	return all.String(), err
}

// JobLog is the end of what a Job's pod wrote.
func (c *Cluster) JobLog(ctx context.Context, namespace, job string) (string, error) {
	var end transcript.Tail
	err := c.written(ctx, namespace, job, corev1.PodLogOptions{TailLines: ptr.To[int64](tailLines)}, &end)
	return said(&end), err
}

// JobTail listens to a Job's pod until its container has ended, or ctx has, and returns
// the end of what it wrote. It waits for a pod that has not started.
func (c *Cluster) JobTail(ctx context.Context, namespace, job string) string {
	heard := ""
	for ctx.Err() == nil {
		pods, err := c.clients.Kubernetes.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + job})
		if err == nil && len(pods.Items) == 0 && heard != "" {
			return heard
		}
		if err == nil && len(pods.Items) > 0 {
			pod := &pods.Items[0]
			if text := c.heard(ctx, pod); text != "" {
				heard = text
			}
			if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
				return heard
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(jobLook):
		}
	}
	return heard
}

// heard is the end of what a pod writes until its container ends.
func (c *Cluster) heard(ctx context.Context, pod *corev1.Pod) string {
	log, err := c.clients.Kubernetes.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{Follow: true, TailLines: ptr.To[int64](tailLines)}).Stream(ctx)
	if err != nil {
		return ""
	}
	defer log.Close()
	var end transcript.Tail
	_, _ = io.Copy(&end, log) // what was heard until then is told
	return said(&end)
}

// gone begins the one line that a kubelet gives for the log of a container that it has
// taken away, with no error, as if the program had written it.
const gone = "unable to retrieve container logs for "

// said is what a program wrote; nothing, if the kubelet had it no more.
func said(end *transcript.Tail) string {
	text := end.String()
	if strings.HasPrefix(text, gone) && !strings.Contains(strings.TrimSpace(text), "\n") {
		return ""
	}
	return text
}

// written copies what the Job's pod wrote; nothing, if there is no pod.
func (c *Cluster) written(ctx context.Context, namespace, job string, how corev1.PodLogOptions, to io.Writer) error {
	pods, err := c.clients.Kubernetes.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + job})
	if err != nil {
		return fmt.Errorf("list pods of Job %s: %w", job, err)
	}
	if len(pods.Items) == 0 {
		return nil
	}
	log, err := c.clients.Kubernetes.CoreV1().Pods(namespace).GetLogs(pods.Items[0].Name, &how).Stream(ctx)
	if err != nil {
		return fmt.Errorf("read output of Job %s: %w", job, err)
	}
	defer log.Close()
	if _, err := io.Copy(to, log); err != nil {
		return fmt.Errorf("read output of Job %s: %w", job, err)
	}
	return nil
}
