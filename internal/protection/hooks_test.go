package protection

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"davit.dev/davit/api/v1alpha1"
)

func TestHooks(t *testing.T) {
	pods := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	port := intstr.FromInt32(8080)
	job := &v1alpha1.HookJob{CronJob: "flush"}
	request := func(change func(*v1alpha1.HookHTTP)) *v1alpha1.HookHTTP {
		h := &v1alpha1.HookHTTP{Port: port}
		if change != nil {
			change(h)
		}
		return h
	}
	web := request(func(h *v1alpha1.HookHTTP) { h.Service = "web" })
	for name, tt := range map[string]struct {
		hook v1alpha1.Hook
		says string
	}{
		"request to pods":      {v1alpha1.Hook{PodSelector: pods, BeforeHTTP: request(nil), After: []string{"true"}}, ""},
		"request to a service": {v1alpha1.Hook{BeforeHTTP: web, AfterHTTP: web}, ""},
		"jobs":                 {v1alpha1.Hook{Namespace: "shop", BeforeJob: job, AfterHTTP: web}, ""},
		"no pods":              {v1alpha1.Hook{BeforeHTTP: request(nil)}, "no podSelector"},
		"pods of a job":        {v1alpha1.Hook{PodSelector: pods, BeforeJob: job}, "of no pod"},
		"namespace of pods":    {v1alpha1.Hook{PodSelector: pods, Namespace: "shop", Before: []string{"true"}}, "is for Jobs and Services"},
		"both":                 {v1alpha1.Hook{Before: []string{"true"}, AfterJob: job}, "make two hooks"},
		"hold and job":         {v1alpha1.Hook{BeforeJob: job, Hold: &v1alpha1.HookHold{Command: []string{"x"}}}, "make two hooks"},
		"two befores":          {v1alpha1.Hook{PodSelector: pods, Before: []string{"true"}, BeforeHTTP: request(nil)}, "more than one of before, beforeHTTP and beforeJob"},
		"no port":              {v1alpha1.Hook{PodSelector: pods, BeforeHTTP: &v1alpha1.HookHTTP{}}, "port"},
		"port too high":        {v1alpha1.Hook{PodSelector: pods, BeforeHTTP: &v1alpha1.HookHTTP{Port: intstr.FromInt32(70000)}}, "port"},
		"port with a host":     {v1alpha1.Hook{PodSelector: pods, BeforeHTTP: &v1alpha1.HookHTTP{Port: intstr.FromString("80@evil.example:80")}}, "port"},
		"path elsewhere":       {v1alpha1.Hook{PodSelector: pods, BeforeHTTP: request(func(h *v1alpha1.HookHTTP) { h.Path = "http://evil.example/" })}, "path"},
		"path with an at":      {v1alpha1.Hook{PodSelector: pods, BeforeHTTP: request(func(h *v1alpha1.HookHTTP) { h.Path = "@evil.example/" })}, "path"},
		"scheme":               {v1alpha1.Hook{PodSelector: pods, BeforeHTTP: request(func(h *v1alpha1.HookHTTP) { h.Scheme = "gopher" })}, "scheme"},
		"service elsewhere":    {v1alpha1.Hook{BeforeHTTP: request(func(h *v1alpha1.HookHTTP) { h.Service = "web.kube-system" })}, "no name of a Service"},
		"header of two lines":  {v1alpha1.Hook{PodSelector: pods, BeforeHTTP: request(func(h *v1alpha1.HookHTTP) { h.Headers = []v1alpha1.HookHeader{{Name: "a", Value: "b\r\nc: d"}} })}, "header"},
		"status":               {v1alpha1.Hook{PodSelector: pods, BeforeHTTP: request(func(h *v1alpha1.HookHTTP) { h.Status = []int32{0} })}, "status"},
		"job elsewhere":        {v1alpha1.Hook{BeforeJob: &v1alpha1.HookJob{CronJob: "../x"}}, "no name of a CronJob"},
	} {
		err := CheckHook(&tt.hook)
		if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", name, err, tt.says)
		}
	}
	hook, err := hookOf(&v1alpha1.Hook{PodSelector: pods, BeforeHTTP: request(nil)})
	if r := hook.Before; err != nil || r.String() != "POST /" || r.HTTP.Scheme != "http" || r.HTTP.Port != "8080" {
		t.Errorf("defaults: %+v, %v", r.HTTP, err)
	}
}
