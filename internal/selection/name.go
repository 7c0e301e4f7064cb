package selection

import (
	"fmt"
	"strings"
)

// Name names objects: "deployment/web", "statefulset/pg-*", and in front, where
// an application spans several, the namespace: "shop/pod/db-0".
type Name struct {
	Namespace string // a name or a pattern; empty: any of the application's
	Kind      string // lower case, with ".group" where that must be said
	Name      string // a name or a pattern
	text      string
}

// short are the names that people type for kinds.
var short = map[string]string{
	"po": "pod", "deploy": "deployment", "sts": "statefulset", "ds": "daemonset", "rs": "replicaset",
	"rc": "replicationcontroller", "cj": "cronjob", "svc": "service", "cm": "configmap",
	"pvc": "persistentvolumeclaim", "sa": "serviceaccount", "ing": "ingress", "netpol": "networkpolicy",
}

// ParseName reads kind/name or namespace/kind/name.
func ParseName(text string) (Name, error) {
	n := Name{text: text}
	parts := strings.Split(text, "/")
	switch len(parts) {
	case 2:
		n.Kind, n.Name = parts[0], parts[1]
	case 3:
		n.Namespace, n.Kind, n.Name = parts[0], parts[1], parts[2]
		if err := CheckNamespace(n.Namespace); err != nil {
			return n, err
		}
	default:
		return n, fmt.Errorf("%w: workload %.80q: write kind/name, such as deployment/web, or namespace/kind/name", ErrInvalid, text)
	}
	n.Kind = strings.ToLower(n.Kind)
	if n.Kind == "" || n.Name == "" || strings.HasSuffix(n.Kind, ".") || strings.HasPrefix(n.Kind, ".") || strings.Contains(n.Kind, "*") {
		return n, fmt.Errorf("%w: workload %.80q: write kind/name, such as deployment/web; the name may hold '*'", ErrInvalid, text)
	}
	for i := range len(n.Name) {
		// RBAC and custom resources allow more than DNS names.
		if c := n.Name[i]; c <= ' ' || c == '%' || c == 0x7f {
			return n, fmt.Errorf("%w: workload %.80q: its name holds %q", ErrInvalid, text, c)
		}
	}
	if full := short[n.Kind]; full != "" {
		n.Kind = full
	}
	return n, nil
}

// String is as it was written.
func (n Name) String() string { return n.text }

// Is tells whether the name's kind is this one: "deployment", "deployments",
// and both with ".apps" behind, are all Deployment of apps.
func (n Name) Is(group, kind string) bool {
	word, wanted, dotted := strings.Cut(n.Kind, ".")
	if dotted && wanted != group {
		return false
	}
	kind = strings.ToLower(kind)
	return word == kind || word == plural(kind)
}

func plural(kind string) string {
	switch {
	case strings.HasSuffix(kind, "y") && !strings.HasSuffix(kind, "ay") && !strings.HasSuffix(kind, "ey"):
		return strings.TrimSuffix(kind, "y") + "ies"
	case strings.HasSuffix(kind, "s"), strings.HasSuffix(kind, "x"), strings.HasSuffix(kind, "ch"), strings.HasSuffix(kind, "sh"):
		return kind + "es"
	}
	return kind + "s"
}

// In tells whether the name may lie in a namespace.
func (n Name) In(namespace string) bool { return n.Namespace == "" || Glob(n.Namespace, namespace) }

// Matches tells whether the name covers an object.
func (n Name) Matches(group, kind, namespace, name string) bool {
	return n.Is(group, kind) && n.In(namespace) && Glob(n.Name, name)
}

// IsPod tells whether the name is of pods.
func (n Name) IsPod() bool { return n.Is("", "Pod") }
