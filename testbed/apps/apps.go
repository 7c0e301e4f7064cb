// Package apps holds popular applications for the bed: the manifests of each, what puts known data into it through
// its own client, and what reads all of it back and writes some more. Nothing in them knows of Davit.
package apps

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"strings"
	"text/template"
	"time"
)

//go:embed manifests
var files embed.FS

var templates = template.Must(template.New("").Option("missingkey=error").ParseFS(files, "manifests/*.yaml"))

// App is one application. The zero value is not usable; All has them.
type App struct {
	Name   string   // of its manifests, manifests/<name>.yaml
	Images []string // of testbed/images
	Loaded string   // what Load writes, for people
	// workloads are what must be rolled out before it can be used: kind/name.
	workloads []string
	// established are kinds that must be served before the second part of the manifests.
	established []string
	// cluster are the objects outside of the namespace: kind/name. Those that could be in the way of the others are first.
	cluster []string
	// held are kinds whose objects have a finalizer that only the application's own operator takes off.
	held  []string
	load  func(context.Context, Place) (any, error)
	check func(context.Context, Place, any) error
	write func(context.Context, Place, int) error // nil: it writes by itself, or not at all
}

// All returns the applications, those first that start quickest.
func All() []App {
	return []App{redis, mosquitto, nats, etcd, postgres, lighthouse, prometheus, zookeeper, wordpress, rabbitmq}
}

// Kubectl runs kubectl with standard input and returns its standard output without white space around it.
type Kubectl func(ctx context.Context, stdin string, args ...string) (string, error)

// Place is where an application runs.
type Place struct {
	Namespace string
	Kubectl   Kubectl
	Images    map[string]string // references by the images' names
}

// Deploy applies the application's manifests and waits until it runs.
func (a App) Deploy(ctx context.Context, p Place) error {
	var all bytes.Buffer
	if err := templates.ExecuteTemplate(&all, a.Name+".yaml", p); err != nil {
		return fmt.Errorf("render %s: %w", a.Name, err)
	}
	if _, err := p.run(ctx, "", "create", "namespace", p.Namespace, "--save-config"); err != nil && !strings.Contains(err.Error(), "AlreadyExists") {
		return err
	}
	rest := all.String()
	if len(a.established) > 0 {
		var err error
		if rest, err = a.define(ctx, p, rest); err != nil {
			return err
		}
	}
	if _, err := p.run(ctx, rest, "apply", "--server-side", "-f", "-"); err != nil {
		return err
	}
	return a.Await(ctx, p)
}

// define applies the definitions, which stand first in the manifests, and returns the rest once they are served.
func (a App) define(ctx context.Context, p Place, manifests string) (string, error) {
	definitions, rest, _ := strings.Cut(manifests, "# ---- instances\n")
	if _, err := p.run(ctx, definitions, "apply", "--server-side", "-f", "-"); err != nil {
		return "", err
	}
	for _, kind := range a.established {
		if _, err := p.run(ctx, "", "wait", "--for=condition=Established", "--timeout=60s", "crd/"+kind); err != nil {
			return "", err
		}
	}
	return rest, nil
}

// Await waits until the application's workloads are rolled out.
func (a App) Await(ctx context.Context, p Place) error {
	for _, w := range a.workloads {
		if _, err := p.run(ctx, "", "rollout", "status", w, "--timeout=4m"); err != nil {
			return err
		}
	}
	return nil
}

// Remove takes the application away, its namespace and what it has outside of it. It needs nothing of the application
// to run for that: where another site took it over, its operator was stopped.
func (a App) Remove(ctx context.Context, p Place) error {
	for _, object := range a.cluster {
		if _, err := p.run(ctx, "", "delete", object, "--ignore-not-found", "--wait=false"); err != nil {
			return err
		}
	}
	if _, err := p.run(ctx, "", "delete", "namespace", p.Namespace, "--ignore-not-found", "--wait=false"); err != nil {
		return err
	}
	return within(ctx, 4*time.Minute, func(ctx context.Context) error { return a.gone(ctx, p) })
}

// gone is nil when nothing is left of the application. It takes the finalizers off what waits for the operator.
func (a App) gone(ctx context.Context, p Place) error {
	for _, kind := range a.held {
		left, err := p.run(ctx, "", "get", kind, "-o", "name")
		if err != nil && !strings.Contains(err.Error(), "the server doesn't have a resource type") && !strings.Contains(err.Error(), "NotFound") {
			return err
		}
		for _, object := range strings.Fields(left) {
			if _, err := p.run(ctx, "", "patch", object, "--type=merge", "-p", `{"metadata":{"finalizers":null}}`); err != nil && !strings.Contains(err.Error(), "NotFound") {
				return err
			}
		}
	}
	for _, object := range append(a.cluster[:len(a.cluster):len(a.cluster)], "namespace/"+p.Namespace) {
		left, err := p.run(ctx, "", "get", object, "--ignore-not-found", "-o", "name")
		if err != nil {
			return err
		}
		if left != "" {
			return fmt.Errorf("%s is still there", left)
		}
	}
	return nil
}

// Load writes known data and returns what Check needs to know of it.
func (a App) Load(ctx context.Context, p Place) (any, error) {
	known, err := a.load(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", a.Name, err)
	}
	return known, nil
}

// Writes says whether Write does anything: some applications write by themselves.
func (a App) Writes() bool { return a.write != nil }

// Write writes the n-th of what is not among the known data, so that the application is not at rest while it is captured.
func (a App) Write(ctx context.Context, p Place, n int) error {
	if a.write == nil {
		return nil
	}
	if err := a.write(ctx, p, n); err != nil {
		return fmt.Errorf("write to %s: %w", a.Name, err)
	}
	return nil
}

// Check reads all of the data back, and makes sure that the application takes new writes.
func (a App) Check(ctx context.Context, p Place, known any) error {
	if err := a.check(ctx, p, known); err != nil {
		return fmt.Errorf("check %s: %w", a.Name, err)
	}
	return nil
}

// Image is a reference, for the manifests.
func (p Place) Image(name string) (string, error) {
	if ref := p.Images[name]; ref != "" {
		return ref, nil
	}
	return "", fmt.Errorf("image %s was not built", name)
}

func (p Place) run(ctx context.Context, stdin string, args ...string) (string, error) {
	return p.Kubectl(ctx, stdin, append([]string{"-n", p.Namespace}, args...)...)
}

// sh runs a script in a pod's first container.
func (p Place) sh(ctx context.Context, pod, script string) (string, error) {
	return p.run(ctx, "", "exec", pod, "--", "sh", "-c", script)
}

// feed runs a command in a pod's first container with standard input.
func (p Place) feed(ctx context.Context, pod, stdin string, command ...string) (string, error) {
	return p.run(ctx, stdin, append([]string{"exec", "-i", pod, "--"}, command...)...)
}

// expect compares what a script in a pod prints with what it should.
func (p Place) expect(ctx context.Context, what, pod, script, want string) error {
	got, err := p.sh(ctx, pod, script)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if got != want {
		return fmt.Errorf("%s: %.300q, want %.300q", what, got, want)
	}
	return nil
}

// patience is for what follows within seconds once an application runs: links between its members, elections.
const patience = 90 * time.Second

// until asks again until the answer is no error.
func until(ctx context.Context, ask func(context.Context) error) error {
	return within(ctx, patience, ask)
}

// within asks until the answer is nil, or the time is over.
func within(ctx context.Context, limit time.Duration, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-tick.C:
		}
	}
}

// inTurn does one step after the other and ends at the first error.
func inTurn(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
