package scratch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/install"
	"davit.dev/davit/internal/standby"
)

const (
	// entrances bounds the nodes that are asked, and entranceTimeout how long each has.
	entrances       = 8
	entranceTimeout = 3 * time.Second
)

// Entrances asks the node processes, through the API server's proxy, for a path of their
// probe for load balancers. Those that do not answer are left out; if none does, the
// error says why.
func (c *Cluster) Entrances(ctx context.Context, path string) ([]standby.Entrance, error) {
	list, err := c.clients.Kubernetes.CoreV1().Pods(v1alpha1.SystemNamespace).List(ctx, metav1.ListOptions{LabelSelector: install.NameLabel + "=" + install.NodeName})
	if err != nil {
		return nil, fmt.Errorf("list pods of Davit's nodes: %w", err)
	}
	var ready []*corev1.Pod
	for i := range list.Items {
		for _, cond := range list.Items[i].Status.Conditions {
			if cond.Type == corev1.PodReady && cond.Status == corev1.ConditionTrue && len(ready) < entrances {
				ready = append(ready, &list.Items[i])
			}
		}
	}
	answers, errs := make([]*standby.Entrance, len(ready)), make([]error, len(ready))
	var asking sync.WaitGroup
	for i, pod := range ready {
		asking.Go(func() { answers[i], errs[i] = c.entrance(ctx, pod, path) })
	}
	asking.Wait()
	var said []standby.Entrance
	for _, a := range answers {
		if a != nil {
			said = append(said, *a)
		}
	}
	if len(said) > 0 || len(ready) == 0 {
		return said, nil
	}
	return nil, errors.Join(errs...)
}

func (c *Cluster) entrance(ctx context.Context, pod *corev1.Pod, path string) (*standby.Entrance, error) {
	ctx, cancel := context.WithTimeout(ctx, entranceTimeout)
	defer cancel()
	r := c.clients.Kubernetes.CoreV1().RESTClient().Get().Namespace(pod.Namespace).Resource("pods").
		Name("http:" + pod.Name + ":" + strconv.Itoa(install.NodeMetrics)).SubResource("proxy")
	address := r.URL()
	extend(address, path)
	status, body, err := c.get(ctx, address)
	switch {
	case err != nil:
		return nil, fmt.Errorf("ask node %s: %w", pod.Spec.NodeName, err)
	case status == http.StatusOK:
		return &standby.Entrance{Node: pod.Spec.NodeName, Active: true}, nil
	case status == http.StatusServiceUnavailable && strings.HasPrefix(body, "passive: "):
		return &standby.Entrance{Node: pod.Spec.NodeName, Why: strings.TrimSpace(body)}, nil
	case status == http.StatusForbidden: // says the API server: no node does
		err = apierrors.NewForbidden(corev1.Resource("pods/proxy"), pod.Name, errors.New(strings.TrimSpace(body)))
		return nil, fmt.Errorf("ask node %s: %w", pod.Spec.NodeName, err)
	}
	return nil, fmt.Errorf("ask node %s: answered %d: %s", pod.Spec.NodeName, status, strings.TrimSpace(body))
}
