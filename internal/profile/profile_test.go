package profile

import (
	"strings"
	"testing"

	"davit.dev/davit/internal/quiesce"
)

func podWith(annotation string, images ...string) quiesce.Pod {
	p := quiesce.Pod{Namespace: "shop", Name: "db-0", Annotations: map[string]string{}}
	for i, image := range images {
		p.Containers = append(p.Containers, quiesce.Container{Name: string(rune('a' + i)), Image: image})
	}
	if annotation != "" {
		p.Annotations[Annotation] = annotation
	}
	return p
}

func TestChoose(t *testing.T) {
	for _, tt := range []struct {
		pod             quiesce.Pod
		want, container string
	}{
		{podWith("", "nginx:1", "docker.io/library/mariadb:11.4@sha256:aa"), "mariadb", "b"},
		{podWith("", "localhost:5000/bitnami/mysql"), "mariadb", "a"},
		{podWith("", "mysqld-exporter:1"), "", ""},
		{podWith("", "mariadb-operator:1"), "", ""},
		{podWith("", "redis:7", "oliver006/redis_exporter"), "redis", "a"},
		{podWith("", "mongo:7"), "", ""}, // not proven
		{podWith("mongodb", "mongo:7"), "mongodb", "a"},
		{podWith("mongodb", "sidecar", "mongo:7"), "mongodb", "b"},
		{podWith("redis", "registry/our-own-cache:3"), "redis", "a"},
		{podWith("none", "redis:7"), "", ""},
		{podWith("", "postgres:17"), "postgresql", "a"},
		{podWith("", "shop/web:1"), "", ""},
	} {
		p, container, err := Choose(All(), tt.pod)
		got := ""
		if p != nil {
			got = p.Name
		}
		if err != nil || got != tt.want || container != tt.container {
			t.Errorf("%+v: %q in %q, %v; want %q in %q", tt.pod.Containers, got, container, err, tt.want, tt.container)
		}
	}
	if _, _, err := Choose(All(), podWith("oracle", "x")); err == nil || !strings.Contains(err.Error(), "davit profiles") {
		t.Errorf("no such profile: %v", err)
	}
}

func TestChooserSharesHooks(t *testing.T) {
	choose := Chooser()
	one, _, _ := choose(podWith("redis", "redis:7"))
	two, _, _ := choose(podWith("redis", "valkey:8"))
	if one == nil || one != two || !one.Continue || one.Hold.Ask == "" {
		t.Errorf("%+v, %+v", one, two)
	}
	if h, _, err := choose(podWith("", "postgres:17")); h != nil || err != nil {
		t.Errorf("a profile that does nothing: %+v, %v", h, err)
	}
}

func TestAll(t *testing.T) {
	names := ""
	for _, p := range All() {
		names += p.Name + " "
	}
	for _, want := range []string{"postgresql", "mariadb", "redis", "mongodb", "cassandra", "etcd", "rabbitmq", "elasticsearch"} {
		if !strings.Contains(names, want) {
			t.Errorf("no profile %s", want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"unknown field": `[{name: a, title: A, why: w, images: [a], holds: 1}]`,
		"no image":      `[{name: a, title: A, why: w}]`,
		"no reason":     `[{name: a, title: A, images: [a]}]`,
		"twice":         `[{name: a, title: A, why: w, images: [a]}, {name: a, title: A, why: w, images: [a]}]`,
		"reserved":      `[{name: none, title: A, why: w, images: [a]}]`,
		"empty hold":    `[{name: a, title: A, why: w, images: [a], hold: {}}]`,
		"long hold":     `[{name: a, title: A, why: w, images: [a], hold: {command: [x], limit: 1h}}]`,
		"timeout":       `[{name: a, title: A, why: w, images: [a], timeout: -1s}]`,
		"no list":       `{}`,
	} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(string(embedded))
	f.Fuzz(func(t *testing.T, text string) {
		all, err := Parse([]byte(text))
		if err != nil {
			return
		}
		for _, p := range all {
			if h := p.Hook(); h.Name == "" || p.Fits("") && len(p.Images) == 0 {
				t.Error("a profile of nothing")
			}
		}
	})
}
