package document

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

const policy = `
apiVersion: davit.dev/v1alpha1
kind: ProtectionPolicy
metadata:
  name: hourly
  labels: {team: shop}
  annotations: {kubectl.kubernetes.io/last-applied-configuration: "{}"}
  resourceVersion: "7"
spec:
  schedule: {every: 1h}
  objectives: {rpo: 2h}
  retention: {last: 24}
`

const application = `
apiVersion: davit.dev/v1alpha1
kind: Application
metadata: {name: shop, namespace: team-a}
spec: {vault: main, policy: hourly}
status: {role: Active}
`

const plan = `
apiVersion: davit.dev/v1alpha1
kind: RecoveryPlan
metadata: {name: shop}
spec:
  sites: [{name: east}, {name: west}]
  applications: [{name: shop}]
  fence: {timeout: 1m}
`

const calling = plan + `
  steps:
    - {name: pool, kind: http, after: [ready/shop], timeout: 1m, call: {method: POST, url: "https://lb.example.com/pools/shop?to=west", expect: 202, body: x,
       headers: [{name: Accept, value: text/plain}, {name: Authorization, from: {secret: lb, key: token}}]}}
`

func TestTaken(t *testing.T) {
	d, err := Parse(t.Context(), []byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	if d.Kind.Name != "ProtectionPolicy" || d.Namespace != "davit-system" || d.Name != "hourly" || d.Revision != "7" {
		t.Errorf("%+v", d)
	}
	want := `{"metadata":{"labels":{"team":"shop"}},"spec":{"objectives":{"rpo":"2h"},"retention":{"last":24},"schedule":{"every":"1h"}}}`
	if string(d.Body) != want {
		t.Errorf("%s, want %s", d.Body, want)
	}
	d, err = Parse(t.Context(), []byte(application))
	if err != nil || d.Namespace != "team-a" || strings.Contains(string(d.Body), "Active") {
		t.Errorf("%+v, %v", d, err)
	}
	d, err = Parse(t.Context(), []byte(plan))
	if err != nil || d.Kind.Name != "RecoveryPlan" || d.Namespace != "" {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err = Parse(t.Context(), []byte(calling)); err != nil {
		t.Error(err)
	}
}

// What an API server would refuse is refused here, by the same words.
func TestRefused(t *testing.T) {
	swap := func(in, old, with string) string {
		out := strings.Replace(in, old, with, 1)
		if out == in {
			t.Fatalf("%q is not in the document", old)
		}
		return out
	}
	for name, c := range map[string]struct{ in, says string }{
		"no yaml":          {"\t{", "yaml"},
		"empty":            {"", "apiVersion and kind are missing"},
		"other kind":       {swap(policy, "ProtectionPolicy", "Secret"), `it is a "Secret"`},
		"other version":    {swap(policy, "v1alpha1", "v1"), "davit.dev/v1alpha1"},
		"unknown field":    {swap(policy, "retention:", "retentoin:"), "spec.retentoin"},
		"schema":           {swap(policy, "last: 24", "last: 0"), "spec.retention.last"},
		"type":             {swap(policy, "last: 24", "last: many"), "spec.retention.last"},
		"rule":             {swap(policy, "rpo: 2h", "rpo: 30m"), "that can never keep an RPO of 30m"},
		"missing":          {swap(application, "vault: main, ", ""), "spec.vault"},
		"rule on name":     {swap(application, "name: shop", "name: shop.web"), "must not contain a dot"},
		"name":             {swap(policy, "name: hourly", "name: Hourly"), "metadata.name"},
		"path in name":     {swap(policy, "name: hourly", "name: ../../x"), "metadata.name"},
		"namespace":        {swap(application, "team-a", "a.b"), "metadata.namespace"},
		"label":            {swap(policy, "team: shop", `team: "not a label!"`), "metadata.labels"},
		"twice":            {policy + "kind: ProtectionPolicy\n", "already set"},
		"plan field":       {swap(plan, "fence:", "fences:"), "fences"},
		"plan namespace":   {swap(plan, "name: shop}\nspec", "name: shop, namespace: x}\nspec"), "has no namespace"},
		"secret in a plan": {swap(calling, "from: {secret: lb, key: token}", "value: Bearer hunter2"), "take what it says from a Secret"},
		"name of a header": {swap(calling, "name: Accept", "name: 'Accept:'"), "headers[0].name"},
		"header is empty":  {swap(calling, "value: text/plain", "value: ''"), "says nothing"},
		"two bodies":       {swap(calling, "body: x", "body: x, bodyFrom: {secret: lb, key: body}"), "one of body and bodyFrom"},
		"two urls":         {swap(calling, "body: x", "body: x, urlFrom: {secret: lb, key: url}"), "one of url and urlFrom"},
		"plan problem":     {swap(plan, ", {name: west}", ""), "site"},
		"big":              {policy + strings.Repeat("#", MaxSize), "more than"},
	} {
		_, err := Parse(t.Context(), []byte(c.in))
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want it to say %q", name, err, c.says)
		}
	}
}

func TestKinds(t *testing.T) {
	for _, k := range Kinds() {
		raw, err := k.Schema()
		if err != nil || !json.Valid(raw) {
			t.Errorf("%s: %v", k.Name, err)
		}
		for _, name := range []string{k.Name, k.Plural, strings.ToUpper(k.Plural)} {
			if found, ok := Find(name); !ok || found != k {
				t.Errorf("%s is not found by %q", k.Name, name)
			}
		}
	}
	if _, ok := Find("secrets"); ok {
		t.Error("a console keeps secrets")
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{policy, application, plan} {
		f.Add([]byte(seed))
		// What checks a kind is compiled when the first of it comes: most of a second on a busy machine, and no input's work.
		if _, err := Parse(f.Context(), []byte(seed)); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := Parse(t.Context(), data)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Error(err)
			}
			return
		}
		if !json.Valid(d.Body) || d.Name == "" || d.Kind.Namespaced != (d.Namespace != "") {
			t.Errorf("%+v", d)
		}
	})
}

// Who names sites names them rightly, or is told before anything is kept.
func TestSites(t *testing.T) {
	with := func(text, sites string) []byte {
		return []byte(strings.Replace(text, "metadata: {name: shop", "metadata: {annotations: {davit.dev/sites: \""+sites+"\"}, name: shop", 1))
	}
	d, err := Parse(t.Context(), with(application, "east"))
	if err != nil {
		t.Fatal(err)
	}
	if p, err := PlaceOf(d.Kind.Name, d.Body); err != nil || len(p.Sites) != 1 || p.Sites[0] != "east" || p.Policy != "hourly" {
		t.Errorf("%+v, %v", p, err)
	}
	for _, bad := range [][]byte{with(application, "east,west"), with(application, ""), with(application, "East"), with(application, "east;west"), with(plan, "east")} {
		if _, err := Parse(t.Context(), bad); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "davit.dev/sites") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	d, err = Parse(t.Context(), []byte(plan))
	if err != nil {
		t.Fatal(err)
	}
	if p, err := PlaceOf(d.Kind.Name, d.Body); err != nil || strings.Join(p.Sites, " ") != "east west" {
		t.Errorf("%+v, %v", p, err)
	}
}
