package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	readyLook  = 250 * time.Millisecond
	againPause = 2 * time.Second
)

// settleWorkloads tries again what a webhook refused, now that what serves it
// may run, and waits for the workloads.
func (e *Engine) settleWorkloads(ctx context.Context) error {
	deadline := e.clock.Now().Add(e.opts.ReadyTimeout)
	if len(e.later) > 0 {
		err := e.timed(StepAgain, func() error { return e.tryLater(ctx, deadline) })
		if err != nil {
			return stopped(ctx, err)
		}
	}
	err := e.timed(StepReady, func() error { return e.awaitReady(ctx, deadline) })
	return stopped(ctx, err)
}

// tryLater restores the postponed objects, by depth, until their webhook
// answers or time is up. Each try is a whole one: postpone refuses a second time,
// so that the last one records the failure.
func (e *Engine) tryLater(ctx context.Context, deadline time.Time) error {
	again := e.later
	for r := range rankCount {
		deepest, _ := e.extent(r)
		for depth := range deepest + 1 {
			want := func(en *entry) bool {
				return again[en] && rankOf(e.x.kinds[en.res]) == r && en.depth == depth
			}
			err := e.each(ctx, e.opts.Workers, want, func(ctx context.Context, en *entry, raw []byte) {
				e.restoreLate(ctx, en, raw, deadline)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *Engine) restoreLate(ctx context.Context, en *entry, raw []byte, deadline time.Time) {
	for e.clock.Now().Before(deadline) {
		p, err := e.prepare(ctx, en, raw)
		if err == nil {
			err = e.heldBack(p)
		}
		if err == nil {
			err = e.put(ctx, p)
		}
		if err == nil {
			e.step()
			return
		}
		if !webhookFailed(err) || e.clock.Sleep(ctx, againPause) != nil {
			break
		}
	}
	e.restoreObject(ctx, en, raw)
}

// laggard is a workload that is not ready, and why.
type laggard struct{ object, why string }

// waitedFor are the kinds whose readiness is waited for.
var waitedFor = []schema.GroupKind{kindStatefulSet, kindDeployment, kindDaemonSet, kindReplicaSet, kindController, kindPod}

// awaitReady waits for every workload that this restore made. Those that are
// not ready in time become warnings with the pods' own reason.
func (e *Engine) awaitReady(ctx context.Context, deadline time.Time) error {
	noted := ""
	for {
		lag, err := e.laggards(ctx, false)
		if err != nil && !transient(err) {
			return err
		}
		if err == nil && len(lag) == 0 {
			e.rec.count(func(r *Result) { r.Ready = true })
			return nil
		}
		if !e.clock.Now().Before(deadline) {
			return e.warnLaggards(ctx)
		}
		if note := waitingFor(lag); note != noted {
			noted = note
			e.progress.Note(note)
		}
		if err := e.clock.Sleep(ctx, readyLook); err != nil {
			return err
		}
	}
}

func waitingFor(lag []laggard) string {
	names := make([]string, 0, len(lag))
	for _, l := range lag {
		names = append(names, l.object)
	}
	return "waiting for " + list(names, 4)
}

func (e *Engine) warnLaggards(ctx context.Context) error {
	lag, err := e.laggards(ctx, true)
	if err != nil {
		return err
	}
	for _, l := range lag {
		e.rec.warn(l.object, "not ready after %s: %s", e.opts.ReadyTimeout, l.why)
	}
	return nil
}

// laggards are the workloads of this restore that are not ready yet.
func (e *Engine) laggards(ctx context.Context, explainThem bool) ([]laggard, error) {
	var lag []laggard
	for _, kind := range waitedFor {
		if !slices.Contains(e.x.kinds, kind) {
			continue
		}
		at, err := e.served(ctx, kind)
		if err != nil {
			return nil, err
		}
		for _, namespace := range e.targetNamespaces() {
			err := e.cluster.List(ctx, at, namespace, LabelRestore+"="+e.opts.ID, func(u *unstructured.Unstructured) error {
				if ready(kind, u.Object) {
					return nil
				}
				l := laggard{object: objectName(at, namespace, u.GetName())}
				if explainThem {
					l.why = e.whyNotReady(ctx, kind, u)
				}
				lag = append(lag, l)
				return nil
			})
			if err != nil {
				return nil, fmt.Errorf("look for workloads: %w", err)
			}
		}
	}
	return lag, nil
}

// ready tells whether a workload has the pods it asks for.
func ready(kind schema.GroupKind, d document) bool {
	generation, _ := number(d, "metadata", "generation")
	observed, _ := number(d, "status", "observedGeneration")
	replicas, set := number(d, "spec", "replicas")
	if !set {
		replicas = 1
	}
	have := func(field string) int64 { n, _ := number(d, "status", field); return n }
	switch kind {
	case kindDeployment:
		return observed >= generation && have("availableReplicas") >= replicas && have("updatedReplicas") >= replicas
	case kindStatefulSet, kindReplicaSet, kindController:
		return observed >= generation && have("readyReplicas") >= replicas
	case kindDaemonSet:
		return observed >= generation && have("numberReady") >= have("desiredNumberScheduled")
	case kindPod:
		return text(d, "status", "phase") == "Succeeded" || condition(d, "Ready") == "True"
	}
	return true
}

func condition(d document, kind string) string {
	for _, c := range items(d, "status", "conditions") {
		if text(c, "type") == kind {
			return text(c, "status")
		}
	}
	return ""
}

// whyNotReady asks the workload's pods.
func (e *Engine) whyNotReady(ctx context.Context, kind schema.GroupKind, u *unstructured.Unstructured) string {
	if kind == kindPod {
		return podReason(u.Object)
	}
	why, err := e.podsReason(ctx, u)
	if err != nil {
		return "its pods cannot be listed: " + err.Error()
	}
	if why != "" {
		return why
	}
	for _, c := range items(u.Object, "status", "conditions") {
		if text(c, "type") == "ReplicaFailure" || text(c, "status") == "False" {
			return text(c, "reason") + ": " + text(c, "message")
		}
	}
	return "it has no pods: see its events"
}

func (e *Engine) podsReason(ctx context.Context, u *unstructured.Unstructured) (string, error) {
	selector, err := selectorOf(u.Object)
	if err != nil {
		return "", err
	}
	at, err := e.served(ctx, kindPod)
	if err != nil {
		return "", err
	}
	var reasons []string
	err = e.cluster.List(ctx, at, u.GetNamespace(), selector, func(pod *unstructured.Unstructured) error {
		if !ready(kindPod, pod.Object) {
			reasons = append(reasons, "pod "+pod.GetName()+" "+podReason(pod.Object))
		}
		return nil
	})
	return list(reasons, 3), err
}

func selectorOf(d document) (string, error) {
	raw := child(d, "spec", "selector")
	var selector metav1.LabelSelector
	if child(raw, "matchLabels") == nil && raw["matchExpressions"] == nil {
		raw = document{"matchLabels": raw} // a ReplicationController's
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(raw, &selector); err != nil {
		return "", fmt.Errorf("read selector: %w", err)
	}
	s, err := metav1.LabelSelectorAsSelector(&selector)
	if err != nil {
		return "", fmt.Errorf("read selector: %w", err)
	}
	if s.Empty() {
		return "", errors.New("read selector: it is empty")
	}
	return s.String(), nil
}

// podReason is why a pod is not ready, in the cluster's own words.
func podReason(d document) string {
	for _, c := range items(d, "status", "conditions") {
		if text(c, "type") == "PodScheduled" && text(c, "status") == "False" {
			return "cannot be scheduled: " + text(c, "message")
		}
	}
	for _, field := range []string{"initContainerStatuses", "containerStatuses"} {
		for _, c := range items(d, "status", field) {
			if why := containerReason(c); why != "" {
				return why
			}
		}
	}
	for _, c := range items(d, "status", "conditions") {
		if text(c, "type") == "Ready" && text(c, "message") != "" {
			return "is not ready: " + text(c, "message")
		}
	}
	return "is in phase " + text(d, "status", "phase")
}

func containerReason(c document) string {
	name := text(c, "name")
	if reason := text(c, "state", "waiting", "reason"); reason != "" && reason != "PodInitializing" {
		why := fmt.Sprintf("container %s waits: %s: %s", name, reason, text(c, "state", "waiting", "message"))
		if strings.Contains(reason, "Image") || strings.Contains(reason, "ErrImagePull") {
			why = fmt.Sprintf("image %s cannot be pulled: %s: %s", text(c, "image"), reason, text(c, "state", "waiting", "message"))
		}
		return strings.TrimSuffix(why, ": ")
	}
	if code, ok := number(c, "state", "terminated", "exitCode"); ok && code != 0 {
		return fmt.Sprintf("container %s ended with %d: %s", name, code, text(c, "state", "terminated", "reason"))
	}
	return ""
}
