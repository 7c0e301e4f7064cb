package protection

import (
	"errors"
	"fmt"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/quiesce"
)

// hookMethod is that of a request that says none.
const hookMethod = "POST"

func hooksOf(hooks []v1alpha1.Hook) ([]quiesce.Hook, error) {
	var all []quiesce.Hook
	for i := range hooks {
		hook, err := hookOf(&hooks[i])
		if err != nil {
			return nil, fmt.Errorf("hook %s: %w", hooks[i].Name, err)
		}
		all = append(all, hook)
	}
	return all, nil
}

// CheckHook says what is wrong with a hook, as a capture would, or nil.
func CheckHook(h *v1alpha1.Hook) error {
	_, err := hookOf(h)
	return err
}

func hookOf(h *v1alpha1.Hook) (quiesce.Hook, error) {
	hook := quiesce.Hook{
		Name: h.Name, Order: h.Order, Namespace: h.Namespace, Container: h.Container, Continue: h.OnError == v1alpha1.HookContinue,
	}
	if h.Timeout != nil {
		hook.Timeout = h.Timeout.Duration
	}
	if hook.Timeout < 0 {
		return hook, fmt.Errorf("timeout %s is negative", hook.Timeout)
	}
	var err error
	if hook.Before, err = actionOf("before", h.Before, h.BeforeHTTP, h.BeforeJob); err != nil {
		return hook, err
	}
	if hook.After, err = actionOf("after", h.After, h.AfterHTTP, h.AfterJob); err != nil {
		return hook, err
	}
	if hook.Hold, err = holdOf(h.Hold); err != nil {
		return hook, err
	}
	if hook.Before == nil && hook.After == nil && hook.Hold == nil {
		return hook, errors.New("has neither before, after nor hold")
	}
	hook.Pods, err = podsOf(h, &hook)
	return hook, err
}

// podsOf chooses the pods in which a hook acts; nil where it acts in none.
func podsOf(h *v1alpha1.Hook, hook *quiesce.Hook) (labels.Selector, error) {
	if hook.Apart() {
		for _, a := range []*quiesce.Action{hook.Before, hook.After} {
			if a != nil && a.Job == nil && (a.HTTP == nil || a.HTTP.Service == "") {
				return nil, errors.New("acts in pods, and by a Job or a Service too: make two hooks of it, with an order")
			}
		}
		switch {
		case hook.Hold != nil:
			return nil, errors.New("holds in pods, and acts by a Job or a Service too: make two hooks of it, with an order")
		case h.PodSelector != nil || h.Container != "":
			return nil, errors.New("has a podSelector or a container, and Jobs and Services are of no pod: leave them out")
		}
		return nil, nil
	}
	switch {
	case h.Namespace != "":
		return nil, errors.New("has a namespace, which is for Jobs and Services: it acts in the pods of its podSelector, in all namespaces of the application")
	case h.PodSelector == nil:
		return nil, errors.New("has no podSelector")
	}
	pods, err := metav1.LabelSelectorAsSelector(h.PodSelector)
	if err != nil {
		return nil, fmt.Errorf("podSelector: %w", err)
	}
	return pods, nil
}

func actionOf(when string, command []string, http *v1alpha1.HookHTTP, job *v1alpha1.HookJob) (*quiesce.Action, error) {
	var all []quiesce.Action
	if len(command) > 0 {
		all = append(all, quiesce.Action{Command: command})
	}
	if http != nil {
		request, err := requestOf(http)
		if err != nil {
			return nil, fmt.Errorf("%sHTTP: %w", when, err)
		}
		all = append(all, quiesce.Action{HTTP: request})
	}
	if job != nil {
		if len(validation.IsDNS1123Subdomain(job.CronJob)) > 0 {
			return nil, fmt.Errorf("%sJob: %q is no name of a CronJob", when, job.CronJob)
		}
		all = append(all, quiesce.Action{Job: &quiesce.Job{CronJob: job.CronJob}})
	}
	switch len(all) {
	case 0:
		return nil, nil
	case 1:
		return &all[0], nil
	}
	return nil, fmt.Errorf("has more than one of %[1]s, %[1]sHTTP and %[1]sJob: make hooks of them, with an order", when)
}

// requestOf fills in what was left out, so that what is owed can be compared.
func requestOf(h *v1alpha1.HookHTTP) (*quiesce.HTTP, error) {
	r := &quiesce.HTTP{
		Service: h.Service, Port: h.Port.String(), Scheme: h.Scheme, Method: h.Method, Path: h.Path, Body: h.Body,
	}
	if r.Scheme == "" {
		r.Scheme = "http"
	}
	if r.Method == "" {
		r.Method = hookMethod
	}
	if r.Path == "" {
		r.Path = "/"
	}
	r.Status = append(r.Status, h.Status...)
	for _, header := range h.Headers {
		if textproto.TrimString(header.Name) != header.Name || header.Name == "" || strings.ContainsAny(header.Name+header.Value, "\r\n\x00") || strings.ContainsAny(header.Name, " :") {
			return nil, fmt.Errorf("header %q is none that can be sent", header.Name)
		}
		r.Headers = append(r.Headers, quiesce.Header(header))
	}
	return r, checkRequest(h, r)
}

func checkRequest(h *v1alpha1.HookHTTP, r *quiesce.HTTP) error {
	_, pathErr := url.ParseRequestURI(r.Path)
	n, _ := strconv.Atoi(r.Port)
	named := h.Port.Type == intstr.String && len(validation.IsValidPortName(r.Port)) == 0
	switch {
	case r.Scheme != "http" && r.Scheme != "https":
		return fmt.Errorf("scheme %q is not http or https", r.Scheme)
	case !named && (n < 1 || n > 65535):
		return fmt.Errorf("port %q is neither a number from 1 to 65535 nor a name", r.Port)
	case !strings.HasPrefix(r.Path, "/") || pathErr != nil:
		return fmt.Errorf("path %q does not begin with / or is no path", r.Path)
	case r.Service != "" && len(validation.IsDNS1035Label(r.Service)) > 0:
		return fmt.Errorf("service %q is no name of a Service", r.Service)
	}
	for _, s := range r.Status {
		if s < 200 || s > 599 {
			return fmt.Errorf("status %d is none that a request ends with", s)
		}
	}
	return nil
}

func holdOf(h *v1alpha1.HookHold) (*quiesce.Hold, error) {
	if h == nil {
		return nil, nil
	}
	hold := quiesce.Hold{Command: h.Command, Marker: h.Marker, Ask: h.Ask}
	if h.Limit != nil {
		hold.Limit = h.Limit.Duration
	}
	switch {
	case len(h.Command) == 0:
		return nil, errors.New("hold has no command")
	case hold.Limit < 0 || hold.Limit > quiesce.MaxLimit:
		return nil, fmt.Errorf("hold: limit %s is not between 0 and %s", hold.Limit, quiesce.MaxLimit)
	case strings.TrimSpace(h.Marker) != h.Marker || strings.ContainsAny(h.Marker, "\r\n"):
		return nil, fmt.Errorf("hold: marker %q is not one line without spaces around it, and would never be seen", h.Marker)
	case strings.ContainsAny(h.Ask, "\r\n"):
		return nil, fmt.Errorf("hold: ask %q is more than one line", h.Ask)
	}
	hold = hold.WithDefaults()
	return &hold, nil
}
