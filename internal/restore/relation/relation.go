// Package relation reads from single objects what they need of others, by name:
// what a pod mounts and runs as, whom a binding grants what, which Service a
// webhook asks.
package relation

import (
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/shape"
)

// Ref names another object.
type Ref struct {
	Kind            schema.GroupKind
	Namespace, Name string // no namespace for what is in none
}

// Subject is somebody who is granted something.
type Subject struct {
	Group           bool
	Namespace, Name string
}

// Facts are what the order of a restore knows of one object.
type Facts struct {
	Names    []Ref     // what it names, and cannot do without
	Subjects []Subject // of a binding

	// Of what makes pods:
	Account string            // that they run as, in their own namespace
	Claims  bool              // whether they mount any
	Words   []string          // that their commands and environment hold
	Labels  map[string]string // of the pods

	Selector map[string]string // of a Service
	Backends []Ref             // Services that answer for it: an API's, a webhook's
	// Converts are the Services that convert objects of a definition; its
	// objects are kept in version Stored.
	Converts []Ref
	Stored   string

	Order string // what its annotation says of its place
}

// Read reads one object, which is in a namespace or in none; nil says that
// there is nothing to know.
func Read(kind schema.GroupKind, namespace string, d shape.Document) *Facts {
	f := &Facts{Order: shape.Text(d, "metadata", "annotations", shape.AnnotationOrder)}
	if spec := shape.PodSpecOf(kind, d); spec != nil {
		f.pods(kind, namespace, d, spec)
		return f
	}
	switch kind {
	case shape.KindService:
		f.Selector = texts(shape.Child(d, "spec", "selector"))
	case shape.KindRoleBinding, shape.KindClusterRoleBinding:
		f.binding(namespace, d)
	case shape.KindCRD:
		f.definition(d)
	case shape.KindAPIService:
		f.Backends = service(shape.Child(d, "spec", "service"))
	default:
		for _, hook := range shape.Items(d, "webhooks") {
			f.Backends = append(f.Backends, service(shape.Child(hook, "clientConfig", "service"))...)
		}
		if f.Order == "" && len(f.Backends) == 0 {
			return nil
		}
	}
	return f
}

// ReadHead is Read for kinds of which the head says all that there is to know.
func ReadHead(kind schema.GroupKind, h shape.Head) *Facts {
	f := &Facts{Order: h.Metadata.Annotations[shape.AnnotationOrder]}
	if kind == shape.KindSecret && h.Type == shape.TokenSecret { // without its account, it is deleted
		f.Names = []Ref{{shape.KindAccount, h.Metadata.Namespace, h.Metadata.Annotations[shape.AnnotationAccount]}}
	}
	if f.Order == "" && f.Names == nil {
		return nil
	}
	return f
}

func service(d shape.Document) []Ref {
	if name := shape.Text(d, "name"); name != "" {
		return []Ref{{shape.KindService, shape.Text(d, "namespace"), name}}
	}
	return nil
}

func texts(d shape.Document) map[string]string {
	all := map[string]string{}
	for k, v := range d {
		if s, ok := v.(string); ok {
			all[k] = s
		}
	}
	return all
}

func (f *Facts) definition(d shape.Document) {
	if shape.Text(d, "spec", "conversion", "strategy") == "Webhook" {
		f.Converts = service(shape.Child(d, "spec", "conversion", "webhook", "clientConfig", "service"))
	}
	for _, v := range shape.Items(d, "spec", "versions") {
		if stored, _ := v["storage"].(bool); stored {
			f.Stored = shape.Text(v, "name")
		}
	}
}

func (f *Facts) binding(namespace string, d shape.Document) {
	role := Ref{Kind: schema.GroupKind{Group: shape.GroupRBAC, Kind: shape.Text(d, "roleRef", "kind")}, Name: shape.Text(d, "roleRef", "name")}
	if role.Kind.Kind == "Role" {
		role.Namespace = namespace
	}
	f.Names = append(f.Names, role)
	for _, s := range shape.Items(d, "subjects") {
		subject := Subject{Group: shape.Text(s, "kind") == "Group", Namespace: shape.Text(s, "namespace"), Name: shape.Text(s, "name")}
		switch shape.Text(s, "kind") {
		case "ServiceAccount":
			f.Names = append(f.Names, Ref{shape.KindAccount, subject.Namespace, subject.Name})
			fallthrough
		case "Group":
			f.Subjects = append(f.Subjects, subject)
		}
	}
}

// pods reads what makes pods.
func (f *Facts) pods(kind schema.GroupKind, namespace string, d, spec shape.Document) {
	name := func(kind schema.GroupKind, in, name string) {
		if name != "" {
			f.Names = append(f.Names, Ref{kind, in, name})
		}
	}
	if f.Account = shape.Text(spec, "serviceAccountName"); f.Account == "" {
		f.Account = "default"
	}
	name(shape.KindAccount, namespace, f.Account)
	name(schema.GroupKind{Group: "scheduling.k8s.io", Kind: "PriorityClass"}, "", shape.Text(spec, "priorityClassName"))
	name(schema.GroupKind{Group: "node.k8s.io", Kind: "RuntimeClass"}, "", shape.Text(spec, "runtimeClassName"))
	for _, s := range shape.Items(spec, "imagePullSecrets") {
		name(shape.KindSecret, namespace, shape.Text(s, "name"))
	}
	for _, v := range shape.Items(spec, "volumes") {
		name(shape.KindConfigMap, namespace, shape.Text(v, "configMap", "name"))
		name(shape.KindSecret, namespace, shape.Text(v, "secret", "secretName"))
		name(shape.KindSecret, namespace, shape.Text(v, "csi", "nodePublishSecretRef", "name"))
		for _, p := range shape.Items(v, "projected", "sources") {
			name(shape.KindConfigMap, namespace, shape.Text(p, "configMap", "name"))
			name(shape.KindSecret, namespace, shape.Text(p, "secret", "name"))
		}
	}
	claims := shape.ClaimsOf(spec)
	for _, claim := range claims {
		name(shape.KindClaim, namespace, claim)
	}
	f.Claims = len(claims) > 0 || len(shape.Items(d, "spec", "volumeClaimTemplates")) > 0
	if kind == shape.KindStatefulSet {
		name(shape.KindService, namespace, shape.Text(d, "spec", "serviceName"))
	}
	words := map[string]bool{}
	for _, field := range []string{"initContainers", "containers"} {
		for _, c := range shape.Items(spec, field) {
			f.container(namespace, c, name)
			speak(c, words)
		}
	}
	f.Words = slices.Sorted(maps.Keys(words))
	f.Labels = texts(shape.PodLabelsOf(kind, d))
}

// container reads what the environment of one comes from.
func (f *Facts) container(namespace string, c shape.Document, name func(kind schema.GroupKind, in, name string)) {
	for _, from := range shape.Items(c, "envFrom") {
		name(shape.KindConfigMap, namespace, shape.Text(from, "configMapRef", "name"))
		name(shape.KindSecret, namespace, shape.Text(from, "secretRef", "name"))
	}
	for _, env := range shape.Items(c, "env") {
		name(shape.KindConfigMap, namespace, shape.Text(env, "valueFrom", "configMapKeyRef", "name"))
		name(shape.KindSecret, namespace, shape.Text(env, "valueFrom", "secretKeyRef", "name"))
	}
}

// mostWords bounds what is kept of one workload.
const mostWords = 512

// speak collects the words of a container's command and environment that could
// be names of hosts.
func speak(c shape.Document, words map[string]bool) {
	add := func(text string) {
		for _, word := range strings.FieldsFunc(strings.ToLower(text), notOfHost) {
			if word = strings.Trim(word, ".-"); word != "" && len(word) <= 253 && len(words) < mostWords {
				words[word] = true
			}
		}
	}
	for _, field := range []string{"command", "args"} {
		list, _ := c[field].([]any)
		for _, v := range list {
			if s, ok := v.(string); ok {
				add(s)
			}
		}
	}
	for _, env := range shape.Items(c, "env") {
		add(shape.Text(env, "value"))
	}
}

func notOfHost(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.'
}

// SpeaksOf finds the Services among a workload's words, as its namespace would
// resolve them: "db", "db.shop", "db-0.db.shop.svc.cluster.local".
func (f *Facts) SpeaksOf(namespace string, isService func(namespace, name string) bool) []Ref {
	var all []Ref
	for _, word := range f.Words {
		name, rest, dotted := strings.Cut(word, ".")
		if ref := found(namespace, name, rest, isService); ref != nil {
			all = append(all, *ref)
		} else if dotted { // a pod of a headless Service
			name, rest, _ = strings.Cut(rest, ".")
			if ref := found(namespace, name, rest, isService); ref != nil {
				all = append(all, *ref)
			}
		}
	}
	return all
}

func found(namespace, name, rest string, isService func(namespace, name string) bool) *Ref {
	if in, _, _ := strings.Cut(rest, "."); in != "" {
		namespace = in
	}
	if !isService(namespace, name) {
		return nil
	}
	return &Ref{shape.KindService, namespace, name}
}

// Selects tells whether a Service's selector chooses pods with these labels.
func Selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return len(selector) > 0
}
