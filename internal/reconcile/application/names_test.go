package application

import (
	"context"
	"errors"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/traffic/endpoints"
)

// published is the DNSEndpoint of a site.
type published struct {
	object endpoints.Object
	fails  error
}

func (p *published) Get(context.Context, string, string) (*endpoints.Object, error) {
	return nil, errors.New("a site's agent lists them")
}

func (p *published) List(context.Context) ([]*endpoints.Object, error) {
	one := p.object
	return []*endpoints.Object{&one}, p.fails
}

func (p *published) Put(_ context.Context, o *endpoints.Object, _ bool) error {
	p.object = *o
	return nil
}

// TestSupersededPublishesNoName: a site's external-dns must not lead clients back to
// it, and that it may is told where people look.
func TestSupersededPublishesNoName(t *testing.T) {
	for name, c := range map[string]struct {
		sites   []string // of the epochs
		fails   error
		emptied bool
	}{
		"superseded":               {[]string{"east", "west"}, nil, true},
		"negative control: active": {[]string{"east"}, nil, false},
		"no answer":                {[]string{"east", "west"}, errors.New("no rights"), false},
	} {
		app := shop(v1alpha1.SystemNamespace, v1alpha1.ApplicationSpec{Namespaces: []string{"shop"}})
		s := newSite(t, "", app, web("shop"))
		s.claim("shop", c.sites...)
		names := &published{fails: c.fails, object: endpoints.Object{
			Namespace: "davit-system", Name: "www", Guard: "davit1 site=east run=by-hand seq=1 epoch.shop=1",
			Endpoints: []endpoints.Endpoint{{Name: "www.example.com", Kind: "A", TTL: 30, Targets: []string{"192.0.2.1"}}},
		}}
		s.Names = names
		got := s.reconcile(app)
		if emptied := len(names.object.Endpoints) == 0; emptied != c.emptied || emptied != strings.Contains(names.object.Guard, "epoch.shop=2") {
			t.Errorf("%s: %+v", name, names.object)
		}
		ready := meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || strings.Contains(ready.Message, "no rights") != (c.fails != nil) {
			t.Errorf("%s: %+v", name, ready)
		}
		if stopped := s.replicas("shop") == 0; stopped != (len(c.sites) > 1) {
			t.Errorf("%s: stopped %v", name, stopped)
		}
	}
}
