package externaldns

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"

	"davit.dev/davit/internal/traffic/endpoints"
	"davit.dev/davit/internal/traffic/names"
)

func object(t testing.TB, text string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := json.Unmarshal([]byte(text), &u.Object); err != nil {
		t.Fatal(err)
	}
	return u
}

func client(objects ...runtime.Object) Objects {
	return Objects{Client: fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{Resource: kind + "List"}, objects...)}
}

const made = `{"apiVersion":"externaldns.k8s.io/v1alpha1","kind":"DNSEndpoint","metadata":{"namespace":"davit-system","name":"www","resourceVersion":"7","annotations":{"davit.dev/name-guard":"g"%s},"labels":{"a":"b"%s}%s},"spec":{"endpoints":[{"dnsName":"www.example.com","recordType":"A","recordTTL":30,"targets":["192.0.2.1"]%s}]}}`

func of(annotations, labels, meta, record string) string {
	text := made
	for _, s := range []string{annotations, labels, meta, record} {
		text = strings.Replace(text, "%s", s, 1)
	}
	return text
}

// What is written is read again, and what Davit does not know stays.
func TestPut(t *testing.T) {
	c := client()
	want := &endpoints.Object{Namespace: "davit-system", Name: "www", Guard: "g", Endpoints: []endpoints.Endpoint{{Name: "www.example.com", Kind: "A", TTL: 30, Targets: []string{"192.0.2.1"}}}}
	if got, err := c.Get(t.Context(), "davit-system", "www"); got != nil || err != nil {
		t.Fatalf("%v, %v", got, err)
	}
	if err := c.Put(t.Context(), want, false); err != nil {
		t.Fatal(err)
	}
	if err := c.Put(t.Context(), want, false); !errors.Is(err, names.ErrChanged) {
		t.Errorf("made again: %v", err)
	}
	if got, err := c.Get(t.Context(), "davit-system", "www"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	c = client(object(t, of("", "", "", "")))
	if err := c.Put(t.Context(), &endpoints.Object{Namespace: "davit-system", Name: "www", Version: "7", Guard: "h"}, false); err != nil {
		t.Fatal(err)
	}
	u, err := c.Client.Resource(Resource).Namespace("davit-system").Get(t.Context(), "www", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	all, _, _ := unstructured.NestedSlice(u.Object, "spec", "endpoints")
	if len(all) > 0 || u.GetAnnotations()["davit.dev/name-guard"] != "h" || !reflect.DeepEqual(u.GetLabels(), map[string]string{"a": "b", "davit.dev/moves-name": "true", "davit.dev/exclude": "true"}) {
		t.Errorf("%v", u.Object)
	}
	if list, err := c.List(t.Context()); err != nil || len(list) != 1 || list[0].Guard != "h" {
		t.Errorf("%v, %v", list, err)
	}
	if err := c.Put(t.Context(), &endpoints.Object{Namespace: "davit-system", Name: "gone", Version: "7"}, false); !errors.Is(err, names.ErrChanged) {
		t.Errorf("of one that is gone: %v", err)
	}
}

func TestDecode(t *testing.T) {
	const field = `,"managedFields":[{"manager":"M","operation":"Apply","fieldsV1":{"f:spec":{"f:endpoints":{}}}}]`
	for name, c := range map[string]struct{ text, keeper, odd string }{
		"Davit's":      {of("", "", "", ""), "", ""},
		"by hand":      {of("", "", strings.Replace(field, "M", "kubectl-client-side-apply", 1), ""), "", ""},
		"applied":      {of("", "", strings.Replace(field, "M", "terraform", 1), ""), "field manager terraform", ""},
		"other fields": {of("", "", `,"managedFields":[{"manager":"external-dns","operation":"Update","subresource":"status","fieldsV1":{"f:status":{}}}]`, ""), "", ""},
		"from git":     {of("", `,"kustomize.toolkit.fluxcd.io/name":"x","kustomize.toolkit.fluxcd.io/namespace":"flux"`, "", ""), "Kustomization.kustomize.toolkit.fluxcd.io flux/x", ""},
		"owned":        {of("", "", `,"ownerReferences":[{"apiVersion":"v1","kind":"Service","name":"web","uid":"u"}]`, ""), "Service web", ""},
		"weighted":     {of("", "", "", `,"setIdentifier":"a"`), "", "a setIdentifier"},
		"proxied":      {of("", "", "", `,"providerSpecific":[{"name":"x","value":"y"}]`), "", "providerSpecific"},
		"labelled":     {of("", "", "", `,"labels":{"x":"y"}`), "", "labels"},
		"a TXT":        {strings.Replace(of("", "", "", ""), `"A"`, `"TXT"`, 1), "", `recordType "TXT"`},
	} {
		o, err := decode(object(t, c.text))
		if err != nil || o.Keeper != c.keeper || len(o.Endpoints) != 1 || o.Endpoints[0].Odd != c.odd || o.Version != "7" || o.Guard != "g" {
			t.Errorf("%s: %+v, %v", name, o, err)
		}
	}
	if _, err := decode(object(t, `{"spec":{"endpoints":"x"}}`)); err == nil {
		t.Error("nonsense was read")
	}
}

// FuzzDecode: whatever stands in the object, it is read or refused.
func FuzzDecode(f *testing.F) {
	f.Add(of("", "", "", ""))
	f.Add(`{"metadata":{"managedFields":[{"fieldsV1":null}]},"spec":{"endpoints":[null]}}`)
	f.Fuzz(func(_ *testing.T, text string) {
		u := &unstructured.Unstructured{}
		if json.Unmarshal([]byte(text), &u.Object) == nil && u.Object != nil {
			_, _ = decode(u)
		}
	})
}
