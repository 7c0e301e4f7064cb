package foresight_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"davit.dev/davit/internal/foresight"
	"davit.dev/davit/internal/images"
	"davit.dev/davit/internal/preflight"
)

// registries are one that never answers, and others that have nothing.
type registries struct{}

func (registries) RoundTrip(q *http.Request) (*http.Response, error) {
	if q.URL.Hostname() == "silent.example" {
		<-q.Context().Done()
	}
	if err := q.Context().Err(); err != nil {
		return nil, err
	}
	code := http.StatusNotFound
	if q.URL.Path == "/v2/" {
		code = http.StatusOK
	}
	return &http.Response{StatusCode: code, Header: http.Header{}, Body: http.NoBody, Request: q}, nil
}

// TestRegistriesAreAskedInTurn: several vaults' plans are judged at once, and one whose registry
// is silent takes no time from the others': they would be told for long that nobody knows.
func TestRegistriesAreAskedInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ask := foresight.Registries(images.Registries{Transport: registries{}, Keys: authn.NewMultiKeychain()}, 20*time.Second, time.Minute)
		image := func(host string) []preflight.Image { return []preflight.Image{{Reference: host + "/shop:1"}} }
		var silent, other map[string]preflight.Registry
		go func() { silent = ask(t.Context(), image("silent.example")) }()
		synctest.Wait()
		go func() { other = ask(t.Context(), image("other.example")) }()
		<-time.After(time.Minute)
		synctest.Wait()
		if r, told := silent["silent.example/shop:1"]; !told || r.Absent || r.Present {
			t.Errorf("the silent one: %+v", silent)
		}
		if !other["other.example/shop:1"].Absent {
			t.Errorf("the other one: %+v", other)
		}
	})
}
