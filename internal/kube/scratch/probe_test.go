package scratch

import (
	"net/url"
	"testing"

	"davit.dev/davit/api/v1alpha1"
)

func TestAddressOfAnHTTPProbe(t *testing.T) {
	for path, want := range map[string]string{
		"":                "https://api/ns/services/http:web:80/proxy/",
		"/":               "https://api/ns/services/http:web:80/proxy/",
		"/healthz":        "https://api/ns/services/http:web:80/proxy/healthz",
		"/a/?b=c&d=%2F":   "https://api/ns/services/http:web:80/proxy/a/?b=c&d=%2F",
		"/with space/%41": "https://api/ns/services/http:web:80/proxy/with%20space/%2541",
	} {
		u, err := url.Parse("https://api/ns/services/" + proxied(v1alpha1.HTTPProbe{Service: "web", Port: "80"}) + "/proxy")
		if err != nil {
			t.Fatal(err)
		}
		if extend(u, path); u.String() != want {
			t.Errorf("%q: %s, want %s", path, u, want)
		}
	}
	if got := proxied(v1alpha1.HTTPProbe{Service: "web"}); got != "web" {
		t.Errorf("without a port: %s", got)
	}
	if got := proxied(v1alpha1.HTTPProbe{Service: "web", Scheme: "https"}); got != "https:web:" {
		t.Errorf("https without a port: %s", got)
	}
}
