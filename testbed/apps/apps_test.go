package apps

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"davit.dev/davit/testbed/images"
)

// TestManifests renders every application and sees that it is whole.
func TestManifests(t *testing.T) {
	for _, a := range All() {
		t.Run(a.Name, func(t *testing.T) {
			var applied strings.Builder
			p := Place{
				Namespace: "here", Images: map[string]string{},
				Kubectl: func(_ context.Context, stdin string, _ ...string) (string, error) {
					applied.WriteString(stdin)
					return "", nil
				},
			}
			if err := a.Deploy(t.Context(), p); err == nil {
				t.Error("Deploy() without images: no error")
			}
			for _, image := range a.Images {
				if !slices.Contains(images.Names(), image) {
					t.Errorf("there is no image %s", image)
				}
				p.Images[image] = "bed/" + image
			}
			if err := a.Deploy(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			for _, w := range a.workloads {
				_, name, _ := strings.Cut(w, "/")
				if !strings.Contains(applied.String(), "name: "+name) {
					t.Errorf("the manifests lack %s", w)
				}
			}
			for _, kind := range a.established {
				if !strings.Contains(applied.String(), "name: "+kind) {
					t.Errorf("the manifests lack the definition %s", kind)
				}
			}
		})
	}
}

// TestCheckSees makes sure that no check is content with an application that answers nothing.
func TestCheckSees(t *testing.T) {
	for _, a := range All() {
		ctx, cancel := context.WithCancel(t.Context())
		p := Place{Namespace: "here", Kubectl: func(context.Context, string, ...string) (string, error) {
			cancel() // no patience
			return "", nil
		}}
		if err := a.Check(ctx, p, nil); err == nil {
			t.Errorf("%s: the check finds nothing wrong with silence", a.Name)
		}
		p.Kubectl = func(context.Context, string, ...string) (string, error) { return "", errors.New("gone") }
		if err := a.Check(ctx, p, nil); err == nil {
			t.Errorf("%s: the check finds nothing wrong with an application that is gone", a.Name)
		}
	}
}

// TestRemoveWithoutOperator removes an application whose operator was stopped: what waits for it would stay for ever.
func TestRemoveWithoutOperator(t *testing.T) {
	released := false
	p := Place{Namespace: "here", Kubectl: func(_ context.Context, _ string, args ...string) (string, error) {
		switch line := strings.Join(args, " "); {
		case strings.Contains(line, " patch ") && strings.Contains(line, `"finalizers":null`):
			released = true
		case strings.Contains(line, " get beacons.lighthouse.example.com "):
			if released {
				return "", errors.New(`the server doesn't have a resource type "beacons"`)
			}
			return "beacon.lighthouse.example.com/red", nil
		case strings.Contains(line, " get crd/beacons.lighthouse.example.com ") && !released:
			return "customresourcedefinition.apiextensions.k8s.io/beacons.lighthouse.example.com", nil
		}
		return "", nil
	}}
	if err := lighthouse.Remove(t.Context(), p); err != nil || !released {
		t.Errorf("Remove() = %v, finalizers taken off: %v", err, released)
	}
	still := lighthouse
	still.held = nil
	released = false
	ctx, cancel := context.WithCancel(t.Context())
	kubectl := p.Kubectl
	p.Kubectl = func(ctx context.Context, stdin string, args ...string) (string, error) {
		if slices.Contains(args, "get") {
			cancel() // no patience
		}
		return kubectl(ctx, stdin, args...)
	}
	if err := still.Remove(ctx, p); err == nil {
		t.Error("Remove() that takes no finalizers off: no error, though its definition is still there")
	}
}
