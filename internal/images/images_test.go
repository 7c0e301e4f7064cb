package images_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"davit.dev/davit/internal/images"
	"davit.dev/davit/internal/point"
)

// serve starts a real registry, in memory, behind a door that may refuse.
func serve(t *testing.T, door func(*http.Request) int) (host string) {
	t.Helper()
	kept := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if door != nil {
			if code := door(r); code != 0 {
				w.Header().Set("WWW-Authenticate", `Basic realm="davit"`)
				w.WriteHeader(code)
				return
			}
		}
		kept.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// push puts a random image, or an index of several, into a registry.
func push(t *testing.T, reference string, platforms int64) point.Image {
	t.Helper()
	ref, err := name.ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	if platforms > 1 {
		index, err := random.Index(1024, 2, platforms)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.WriteIndex(ref, index); err != nil {
			t.Fatal(err)
		}
		digest, err := index.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return point.Image{Reference: reference, Digest: digest.String()}
	}
	image, err := random.Image(1024, 2)
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
	return point.Image{Reference: reference, Digest: digest.String()}
}

func TestCopy(t *testing.T) {
	for _, platforms := range []int64{1, 3} {
		t.Run(fmt.Sprintf("%d platforms", platforms), func(t *testing.T) {
			own, there := serve(t, nil), serve(t, nil)
			image := push(t, own+"/team/app:v1", platforms)
			push(t, own+"/team/app:v1", 1) // the tag moves on
			m := images.Mirror{Base: there + "/davit"}
			if err := m.Has(t.Context(), image); !errors.Is(err, images.ErrAbsent) {
				t.Errorf("before: %v, want ErrAbsent", err)
			}
			got, err := m.Copy(t.Context(), image, images.Registries{})
			if err != nil {
				t.Fatal(err)
			}
			want := images.Copied{Name: there + "/davit/" + strings.ReplaceAll(own, ":", "-") + "/team/app:v1", Digest: image.Digest}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("copied (-want +got):\n%s", diff)
			}
			if err := m.Has(t.Context(), image); err != nil {
				t.Errorf("after: %v", err)
			}
			pulled, err := name.ParseReference(got.Name)
			if err != nil {
				t.Fatal(err)
			}
			if found, err := remote.Get(pulled); err != nil || found.Digest.String() != image.Digest {
				t.Errorf("the copy's tag is %v (%v), want %s", found, err, image.Digest)
			}
			if again, err := m.Copy(t.Context(), image, images.Registries{}); err != nil || !again.Present {
				t.Errorf("again: %+v, %v; want it there already", again, err)
			}
		})
	}
}

func TestCopyRefuses(t *testing.T) {
	own, there := serve(t, nil), serve(t, nil)
	closed := serve(t, func(*http.Request) int { return http.StatusUnauthorized })
	readOnly := serve(t, func(r *http.Request) int {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			return http.StatusForbidden
		}
		return 0
	})
	image := push(t, own+"/app:v1", 1)
	for _, test := range []struct {
		name  string
		image point.Image
		to    string
		want  error
	}{
		{"no digest", point.Image{Reference: image.Reference}, there, images.ErrNoDigest},
		{"gone", point.Image{Reference: own + "/other:v1", Digest: image.Digest}, there, images.ErrAbsent},
		{"no way in", point.Image{Reference: closed + "/app:v1", Digest: image.Digest}, there, images.ErrDenied},
		{"mirror not writable", image, readOnly, images.ErrDenied},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := images.Mirror{Base: test.to}.Copy(t.Context(), test.image, images.Registries{})
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	for base, ok := range map[string]bool{
		"registry.example.com": true, "registry.example.com/a/b": true, "localhost/x": true, "10.0.0.1:5000": true, "registry:5000/x": true,
		"": false, "registry": false, "library/nginx": false, "https://registry.example.com": false, "registry.example.com/x@y": false,
	} {
		if err := (images.Mirror{Base: base}).Check(); (err == nil) != ok {
			t.Errorf("%q: %v", base, err)
		}
	}
}

func TestName(t *testing.T) {
	m := images.Mirror{Base: "r.example.com:5000/davit/"}
	for reference, want := range map[string]string{
		"nginx":                   "r.example.com:5000/davit/index.docker.io/library/nginx:latest",
		"quay.io/org/app:v1":      "r.example.com:5000/davit/quay.io/org/app:v1",
		"east.example:5000/app:2": "r.example.com:5000/davit/east.example-5000/app:2",
	} {
		if got, err := m.Name(point.Image{Reference: reference}); err != nil || got != want {
			t.Errorf("%s: %s (%v), want %s", reference, got, err, want)
		}
	}
}

func TestLook(t *testing.T) {
	own, there := serve(t, nil), serve(t, nil)
	closed := serve(t, func(*http.Request) int { return http.StatusForbidden })
	dead := httptest.NewServer(nil)
	dead.Close()
	gone := strings.TrimPrefix(dead.URL, "http://")

	mirrored, onNodes, nowhere := push(t, own+"/mirrored:v1", 1), push(t, own+"/loaded:v1", 1), push(t, own+"/lost:v1", 1)
	m := images.Mirror{Base: there}
	if _, err := m.Copy(t.Context(), mirrored, images.Registries{}); err != nil {
		t.Fatal(err)
	}
	// What was pulled as something else is the same image all the same.
	elsewhere := func(i point.Image, host string) point.Image {
		i.Reference = strings.Replace(i.Reference, own, host, 1)
		return i
	}
	nodes := [][]string{
		{own + "/loaded@" + onNodes.Digest, "docker.io/library/plain:v1"},
		{"other.example/x@" + onNodes.Digest, "docker.io/library/plain:v1"},
	}
	list := []point.Image{mirrored, elsewhere(onNodes, gone), elsewhere(nowhere, gone), elsewhere(nowhere, closed), {Reference: "plain:v1"}, {Reference: own + "/typo:v1"}}
	type answer struct {
		Nodes            int
		Registry, Mirror images.Answer
		Safe, Why        bool
	}
	want := []answer{
		{0, images.Present, images.Present, true, false},
		{2, images.Unknown, images.Absent, true, true},
		{0, images.Unknown, images.Absent, false, true},
		{0, images.Denied, images.Absent, false, true},
		{2, images.Unknown, images.Absent, true, true},
		{0, images.Absent, images.Absent, false, true},
	}
	refuse := refuser{"index.docker.io"} // no test leaves the machine
	for i, w := range images.Look(t.Context(), list, nodes, images.Registries{Transport: refuse}, &m) {
		got := answer{w.Nodes, w.Registry, w.Mirror, w.Safe(len(nodes)), w.Why != ""}
		if diff := cmp.Diff(want[i], got); diff != "" {
			t.Errorf("%s (-want +got):\n%s(%s)", w.Reference, diff, w.Why)
		}
	}
}

type refuser struct{ host string }

func (r refuser) RoundTrip(q *http.Request) (*http.Response, error) {
	if q.URL.Hostname() == r.host {
		return nil, errors.New("refused")
	}
	return http.DefaultTransport.RoundTrip(q)
}

// TestPullSecretKeys: a Secret may name a registry as an address, by a pattern, and with the
// beginning of a path, and kubelets pull by all of these.
func TestPullSecretKeys(t *testing.T) {
	for _, c := range []struct {
		key, image string
		given      bool
	}{
		{"registry.example.com", "registry.example.com/team/app", true},
		{"https://registry.example.com", "registry.example.com/team/app", true},
		{"https://registry.example.com/v2/", "registry.example.com/team/app", true},
		{"registry.example.com/team", "registry.example.com/team/app", true},
		{"registry.example.com/team/app", "registry.example.com/team/app", true},
		{"*.example.com", "registry.example.com/team/app", true},
		{"registry.example.com:5000", "registry.example.com:5000/app", true},
		{"https://index.docker.io/v1/", "nginx", true},
		{"docker.io", "nginx", true},
		{"docker.io/library", "nginx", true},
		{"registry.example.com/team", "registry.example.com/teams/app", false},
		{"registry.example.com/app", "registry.example.com/team/app", false},
		{"registry.example.com", "registry.example.com:5000/app", false},
		{"*.com", "registry.example.com/app", false},
		{"example.com", "registry.example.com/app", false},
	} {
		keys, err := images.PullSecret(fmt.Appendf(nil, `{"auths":{%q:{"username":"robot","password":"secret"}}}`, c.key))
		if err != nil {
			t.Fatal(err)
		}
		ref, err := name.ParseReference(c.image)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := keys.Resolve(ref.Context()); err != nil || (got != authn.Anonymous) != c.given {
			t.Errorf("%s for %s: %v, %v", c.key, c.image, got, err)
		}
	}
	both := `{"auths":{"registry.example.com":{"username":"all","password":"x"},"https://registry.example.com/team":{"username":"team","password":"x"}}}`
	keys, err := images.PullSecret([]byte(both))
	if err != nil {
		t.Fatal(err)
	}
	ref, _ := name.ParseReference("registry.example.com/team/app") //nolint:errcheck // it is one, see above
	got, err := keys.Resolve(ref.Context())
	if err != nil {
		t.Fatal(err)
	}
	if as, err := got.Authorization(); err != nil || as.Username != "team" {
		t.Errorf("of two that fit: %+v, %v", as, err)
	}
}

func TestPullSecret(t *testing.T) {
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("robot:secret"))
	host := serve(t, func(r *http.Request) int {
		if r.Header.Get("Authorization") != want {
			return http.StatusUnauthorized
		}
		return 0
	})
	secret := fmt.Sprintf(`{"auths":{%q:{"auth":%q}},"credHelpers":{%q:"evil"}}`, host, base64.StdEncoding.EncodeToString([]byte("robot:secret")), host)
	keys, err := images.PullSecret([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	image := point.Image{Reference: host + "/app:v1"}
	if err := (images.Registries{}).Has(t.Context(), image); !errors.Is(err, images.ErrDenied) {
		t.Errorf("without credentials: %v, want ErrDenied", err)
	}
	if err := (images.Registries{Keys: images.Keys(keys)}).Has(t.Context(), image); !errors.Is(err, images.ErrAbsent) {
		t.Errorf("with credentials: %v, want ErrAbsent", err)
	}
	if _, err := images.PullSecret([]byte("{")); err == nil {
		t.Error("half a secret was read")
	}
}
