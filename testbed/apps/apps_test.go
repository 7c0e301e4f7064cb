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
