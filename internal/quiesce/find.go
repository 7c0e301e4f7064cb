package quiesce

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/labels"
)

// Find looks for the hooks' pods, before anything is held still.
func (q *Quiescence) Find(ctx context.Context) error {
	if len(q.spec.Hooks) == 0 && (q.spec.Profile == nil || q.ports.Runner == nil) {
		return nil
	}
	if q.ports.Runner == nil {
		return fmt.Errorf("hook %s: nothing here can run hooks", q.spec.Hooks[0].Name)
	}
	pods, err := q.pods(ctx)
	if err != nil {
		return err
	}
	var own []Pod
	for _, p := range pods {
		q.known[p.UID] = true
		if q.spec.Own == nil || q.spec.Own(p.Namespace, p.Name) {
			own = append(own, p)
		}
	}
	hooked := map[string]bool{} // pods in which hooks of the application act
	for i := range q.spec.Hooks {
		if h := &q.spec.Hooks[i]; h.Apart() {
			if err := q.findApart(h); err != nil {
				return err
			}
		} else if err := q.findHook(h, own, hooked); err != nil {
			return err
		}
	}
	for _, p := range own {
		if !hooked[p.UID] {
			q.findProfile(p)
		}
	}
	return nil
}

// pods lists all pods, by name.
func (q *Quiescence) pods(ctx context.Context) ([]Pod, error) {
	pods, err := q.ports.Runner.Pods(ctx, q.spec.Namespaces)
	if err != nil {
		return nil, fmt.Errorf("find pods of hooks: %w", err)
	}
	slices.SortFunc(pods, func(a, b Pod) int { return cmp.Compare(a.Key(), b.Key()) })
	return pods, nil
}

func (q *Quiescence) findHook(h *Hook, pods []Pod, hooked map[string]bool) error {
	q.holds = q.holds || h.Hold != nil
	found := 0
	for _, p := range pods {
		if !h.Pods.Matches(labels.Set(p.Labels)) {
			continue
		}
		container, err := p.Container(h.Container)
		if err != nil {
			return fmt.Errorf("find pods of hook %s: %w", h.Name, err)
		}
		hooked[p.UID] = true
		if q.place(h, p, container) {
			found++
		}
	}
	if found == 0 {
		nowhere := fmt.Sprintf("hook %s ran nowhere: no running pod matches its podSelector %q", h.Name, h.Pods)
		q.ports.Report.Warn("", nowhere)
		if h.Hold != nil {
			q.lose(nowhere)
		}
	}
	return nil
}

// findApart notes where a hook acts that is of no pod.
func (q *Quiescence) findApart(h *Hook) error {
	t := Target{Namespace: h.Namespace, Of: cmp.Or(h.Before.of(), h.After.of())}
	if t.Namespace == "" && len(q.spec.Namespaces) == 1 {
		t.Namespace = q.spec.Namespaces[0]
	}
	switch {
	case t.Namespace == "":
		return fmt.Errorf("hook %s says no namespace, and the application has %d: give one of them", h.Name, len(q.spec.Namespaces))
	case !slices.Contains(q.spec.Namespaces, t.Namespace):
		return fmt.Errorf("hook %s acts in namespace %s, which is not the application's", h.Name, t.Namespace)
	}
	q.places = append(q.places, &place{hook: h, target: t})
	return nil
}

// findProfile chooses a profile for a pod that has no hook.
func (q *Quiescence) findProfile(p Pod) {
	if q.spec.Profile == nil {
		return
	}
	h, container, err := q.spec.Profile(p)
	if err != nil {
		q.ports.Report.Warn("pods "+p.Key(), err.Error())
		q.loseProfile(p, err)
	}
	if err == nil && h != nil {
		q.holds = q.holds || h.Hold != nil
		q.place(h, p, container)
	}
}

// loseProfile says that a pod for which somebody asked for a profile has none.
func (q *Quiescence) loseProfile(p Pod, err error) {
	q.lose(fmt.Sprintf("nothing brings pod %s to rest: %v", p.Key(), err))
}

// place notes that a hook acts in a pod, if it can.
func (q *Quiescence) place(h *Hook, p Pod, container string) bool {
	if p.Unfit == "" {
		t := Target{Namespace: p.Namespace, Pod: p.Name, UID: p.UID, Container: container}
		q.places = append(q.places, &place{hook: h, target: t})
		return true
	}
	if h.rests() {
		what := "did nothing"
		if h.Hold != nil {
			what = "does not hold"
		}
		q.lose(fmt.Sprintf("%s %s in %s, which %s", h.title(), what, p.Key(), p.Unfit))
	}
	return false
}

// compare finds pods that came or were replaced since Find, and that nobody
// brought to rest.
func (q *Quiescence) compare(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	pods, err := q.pods(ctx)
	if err != nil {
		q.lose(fmt.Sprintf("whether the pods are still the same is not known: %v", err))
		return
	}
	for _, p := range pods {
		if q.known[p.UID] {
			continue
		}
		h, err := q.holderOf(p)
		if err != nil {
			q.loseProfile(p, err)
		}
		if h != nil {
			q.lose(fmt.Sprintf("%s: pod %s appeared after the others had been brought to rest", h.title(), p.Key()))
		}
	}
}

// holderOf is the hook that would have brought a pod to rest. The error is Profile's.
func (q *Quiescence) holderOf(p Pod) (*Hook, error) {
	for i := range q.spec.Hooks {
		if h := &q.spec.Hooks[i]; h.rests() && !h.Apart() && h.Pods.Matches(labels.Set(p.Labels)) {
			return h, nil
		}
	}
	if q.spec.Profile == nil {
		return nil, nil
	}
	h, _, err := q.spec.Profile(p)
	if err != nil || h == nil || !h.rests() {
		return nil, err
	}
	return h, nil
}
