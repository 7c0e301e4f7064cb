// Package hook reads the hooks that a person gives to davit protect.
package hook

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/manuscript"
	"davit.dev/davit/internal/protection"
)

// All reads the hooks given one by one, and those of a file if one is named,
// and checks them together. Errors are usage errors.
func All(texts []string, file string) ([]v1alpha1.Hook, error) {
	var hooks []v1alpha1.Hook
	for _, text := range texts {
		hook, err := Parse(text)
		if err != nil {
			return nil, err
		}
		hooks = append(hooks, hook)
	}
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, exit.AsUsage(fmt.Errorf("read hooks: %w", err))
		}
		var content struct {
			Hooks []v1alpha1.Hook `json:"hooks"`
		}
		if err := manuscript.Read(text, &content, manuscript.Strict); err != nil {
			return nil, exit.AsUsage(fmt.Errorf("read hooks from %s: %w", file, err))
		}
		hooks = append(hooks, content.Hooks...)
	}
	return hooks, check(hooks)
}

func check(hooks []v1alpha1.Hook) error {
	names := map[string]bool{}
	for _, h := range hooks {
		switch {
		case h.Name == "" || names[h.Name]:
			return exit.Usage("", "each hook needs a name of its own; %q has none or shares it", h.Name)
		case h.PodSelector != nil && len(h.PodSelector.MatchLabels) == 0 && len(h.PodSelector.MatchExpressions) == 0:
			return exit.Usage("", "hook %s says no pods", h.Name)
		}
		if err := protection.CheckHook(&h); err != nil {
			return exit.Usage("", "hook %s: %v", h.Name, err)
		}
		names[h.Name] = true
	}
	return nil
}

// Parse reads "key=value; key=value"; the keys are those of docs/cli.md.
func Parse(text string) (v1alpha1.Hook, error) {
	hook := v1alpha1.Hook{}
	for field := range strings.SplitSeq(text, ";") {
		if strings.TrimSpace(field) == "" {
			continue
		}
		key, value, ok := strings.Cut(strings.TrimSpace(field), "=")
		value = strings.TrimSpace(value)
		if !ok || value == "" {
			return hook, exit.Usage("commands with ';' in them go into a file: -f", "--hook: %q is not key=value", field)
		}
		if err := set(&hook, strings.TrimSpace(key), value); err != nil {
			return hook, err
		}
	}
	return hook, nil
}

func set(hook *v1alpha1.Hook, key, value string) error {
	switch key {
	case "name":
		hook.Name = value
	case "pods":
		selector, err := metav1.ParseToLabelSelector(value)
		if err != nil {
			return exit.Usage("", "--hook: pods=%s: %v", value, err)
		}
		hook.PodSelector = selector
	case "container":
		hook.Container = value
	case "before":
		hook.Before = []string{"sh", "-c", value}
	case "after":
		hook.After = []string{"sh", "-c", value}
	case "hold":
		holdOf(hook).Command = []string{"sh", "-c", value}
	case "marker":
		holdOf(hook).Marker = value
	case "ask":
		holdOf(hook).Ask = value
	case "limit":
		d, err := time.ParseDuration(value)
		if err != nil || d <= 0 {
			return exit.Usage("", "--hook: limit=%s is no duration", value)
		}
		holdOf(hook).Limit = &metav1.Duration{Duration: d}
	case "order":
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil {
			return exit.Usage("", "--hook: order=%s is no whole number", value)
		}
		hook.Order = int32(n)
	case "timeout":
		d, err := time.ParseDuration(value)
		if err != nil || d <= 0 {
			return exit.Usage("", "--hook: timeout=%s is no duration", value)
		}
		hook.Timeout = &metav1.Duration{Duration: d}
	case "on-error":
		hook.OnError = v1alpha1.HookFailure(value)
		if hook.OnError != v1alpha1.HookFail && hook.OnError != v1alpha1.HookContinue {
			return exit.Usage("", "--hook: on-error=%s is not Fail or Continue", value)
		}
	default:
		return exit.Usage("", "--hook: %q is not name, pods, container, order, before, hold, marker, ask, limit, after, timeout or on-error", key)
	}
	return nil
}

// holdOf is the hook's hold, made when the first part of it is read.
func holdOf(hook *v1alpha1.Hook) *v1alpha1.HookHold {
	if hook.Hold == nil {
		hook.Hold = &v1alpha1.HookHold{}
	}
	return hook.Hold
}
