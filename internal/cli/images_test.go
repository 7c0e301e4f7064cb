package cli_test

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/imagery"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/point"
)

func registryServer(t *testing.T) (host string) {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// runImages runs `images` over a point with these images, on a cluster with one
// node that has none of them.
func runImages(t *testing.T, list []point.Image, args ...string) (out string, code int) {
	t.Helper()
	var b bytes.Buffer
	cluster := fake.NewClientBuilder().WithObjects(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}).Build()
	cmd := imagery.Command(imagery.Host{
		Bounded: func(cmd *cobra.Command) (context.Context, context.CancelFunc) {
			return context.WithCancel(cmd.Context())
		},
		Point: func(context.Context, *cobra.Command, *access.Address, string) (*point.Manifest, error) {
			return &point.Manifest{Application: "shop", ID: "shop-1", Images: list}, nil
		},
		Cluster: func() (client.Client, error) { return cluster, nil },
		Print:   func(r output.Result) error { return output.NewPrinter(output.Table, "davit", &b).Print(r) },
		Step:    func(string, ...any) {},
	})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	if err != nil {
		b.WriteString(err.Error())
	}
	code, _ = exit.Verdict(err)
	return b.String(), code
}

func TestImages(t *testing.T) {
	own, mirror := registryServer(t), registryServer(t)
	ref, err := name.ParseReference(own + "/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	image, err := random.Image(64, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image); err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	app := point.Image{Reference: own + "/app:v1", Digest: digest.String()}
	lost := point.Image{Reference: own + "/lost:v1", Digest: digest.String()}
	loaded := point.Image{Reference: own + "/loaded:v1"}
	for _, test := range []struct {
		name string
		list []point.Image
		args []string
		code int
		want []string
	}{
		{"all there", []point.Image{app}, []string{"shop"}, exit.OK, []string{"0 of 1", "present"}},
		{"one lost", []point.Image{app, lost}, []string{"shop"}, exit.Warnings, []string{"lost:v1 can be had nowhere", "1 image of 2 cannot"}},
		{"no images", nil, []string{"shop"}, exit.OK, []string{"names no images"}},
		{"dry run", []point.Image{app}, []string{"mirror", "shop", "--to", mirror, "--dry-run"}, exit.OK, []string{"would be copied"}},
		{"not copied by a dry run", []point.Image{app}, []string{"shop", "--mirror", mirror}, exit.OK, []string{"absent"}},
		{"mirror", []point.Image{app}, []string{"mirror", "shop", "--to", mirror}, exit.OK, []string{"copied", own + " -> " + mirror + "/"}},
		{"again", []point.Image{app}, []string{"mirror", "shop", "--to", mirror}, exit.OK, []string{"there already"}},
		{"seen in the mirror", []point.Image{app}, []string{"shop", "--mirror", mirror}, exit.OK, []string{"MIRROR"}},
		{"part of it", []point.Image{app, lost, loaded}, []string{"mirror", "shop", "--to", mirror}, exit.Failed, []string{"2 of 3 images were not copied", "digest is not known"}},
		{"no registry", []point.Image{app}, []string{"mirror", "shop", "--to", "west"}, exit.BadUsage, []string{"is no registry"}},
		{"nowhere to", []point.Image{app}, []string{"mirror", "shop"}, exit.BadUsage, []string{"--to is missing"}},
		{"bad secret name", []point.Image{app}, []string{"shop", "--pull-secret", "x"}, exit.BadUsage, []string{"is not valid"}},
		{"no secret", []point.Image{app}, []string{"shop", "--pull-secret", "a/b"}, exit.Failed, []string{"read pull secret a/b"}},
		{"nothing named", nil, nil, exit.BadUsage, []string{"takes one APP or POINT"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			out, code := runImages(t, test.list, test.args...)
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			for _, want := range test.want {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in:\n%s", want, out)
				}
			}
		})
	}
}
