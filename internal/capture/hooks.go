package capture

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"davit.dev/davit/internal/point"
)

// findTargets looks for the hooks' pods before anything is held still.
func (r *run) findTargets(ctx context.Context) error {
	r.targets = make([][]Target, len(r.spec.Hooks))
	for i, h := range r.spec.Hooks {
		if r.ports.Hooks == nil {
			return fmt.Errorf("hook %s: nothing here can run hooks", h.Name)
		}
		targets, err := r.ports.Hooks.Targets(ctx, r.spec.Namespaces, h)
		if err != nil {
			return fmt.Errorf("find pods of hook %s: %w", h.Name, err)
		}
		targets = slices.DeleteFunc(targets, func(t Target) bool { return !r.ownPod(t.Namespace, t.Pod) })
		if len(targets) == 0 {
			r.warn("", fmt.Sprintf("hook %s ran nowhere: no running pod matches its podSelector %q", h.Name, h.Pods))
		}
		r.targets[i] = targets
	}
	return nil
}

// beforeHooks runs the hooks in their order, each in all its pods at once. The
// first that fails and must not, ends it.
func (r *run) beforeHooks(ctx context.Context) error {
	for i, h := range r.spec.Hooks {
		if len(h.Before) == 0 {
			continue
		}
		r.step("running hook " + h.Name + " before the cut")
		if err := r.hook(ctx, h, r.targets[i], "before", h.Before); err != nil {
			return err
		}
	}
	return nil
}

// afterHooks undoes what the before-hooks did, in the opposite order: all of
// them, whatever failed, and even when the capture was called off.
func (r *run) afterHooks(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	var errs []error
	for i := len(r.spec.Hooks) - 1; i >= 0; i-- {
		h := r.spec.Hooks[i]
		if len(h.After) == 0 {
			continue
		}
		r.step("running hook " + h.Name + " after the cut")
		errs = append(errs, r.hook(ctx, h, r.targets[i], "after", h.After))
	}
	return errors.Join(errs...)
}

// hook runs one command in all pods and records how it went.
func (r *run) hook(ctx context.Context, h Hook, targets []Target, when string, command []string) error {
	errs := make([]error, len(targets))
	var wg sync.WaitGroup
	for i, t := range targets {
		wg.Go(func() { errs[i] = r.exec(ctx, h, t, when, command) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil && !h.Continue {
		return err
	}
	return nil
}

func (r *run) exec(ctx context.Context, h Hook, t Target, when string, command []string) error {
	timeout := h.Timeout
	if timeout <= 0 {
		timeout = defaultHookTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	started := r.opts.Now()
	output, err := r.ports.Hooks.Exec(ctx, t, command)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("no end after %s: %w", timeout, err)
	}
	outcome := point.Hook{Name: h.Name, Pod: t.Key(), When: when, Duration: r.opts.Now().Sub(started)}
	if err != nil {
		err = fmt.Errorf("run hook %s %s the cut in %s: %w", h.Name, when, t.Key(), err)
		outcome.Error = err.Error()
	}
	r.record(outcome, h, output, err)
	return err
}

func (r *run) record(outcome point.Hook, h Hook, output string, err error) {
	r.mu.Lock()
	r.res.Hooks = append(r.res.Hooks, outcome)
	r.mu.Unlock()
	text := fmt.Sprintf("hook %s, %s the cut, took %s", h.Name, outcome.When, outcome.Duration.Round(time.Millisecond))
	if output != "" {
		text += "; it printed:\n" + output
	}
	r.note("info", "pods "+outcome.Pod, text)
	switch {
	case err != nil && h.Continue:
		r.warn("pods "+outcome.Pod, err.Error())
	case err != nil:
		r.note("error", "pods "+outcome.Pod, err.Error())
	}
}
