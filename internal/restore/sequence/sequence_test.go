package sequence

import (
	"context"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/index"
	"davit.dev/davit/internal/restore/order"
	"davit.dev/davit/internal/restore/shape"
)

// source holds a point as YAML documents.
type source map[string][][]byte

func (s source) ReadResource(_ context.Context, res point.Resource, fn func([]byte) error) error {
	for _, raw := range s[res.Group+"/"+res.Kind] {
		if err := fn(raw); err != nil {
			return err
		}
	}
	return nil
}
func (source) CheckObjects(context.Context, *point.Manifest) error { return nil }
func (source) CheckVolume(context.Context, point.Volume) error     { return nil }

// sequenceOf puts documents in order.
func sequenceOf(t *testing.T, docs string) *Sequence {
	t.Helper()
	m, src := &point.Manifest{ID: "p"}, source{}
	for _, doc := range strings.Split(docs, "---\n") {
		raw, err := yaml.YAMLToJSON([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		d, err := shape.Decode(raw)
		if err != nil {
			t.Fatalf("%v in %s", err, doc)
		}
		gvk := schema.FromAPIVersionAndKind(shape.Text(d, "apiVersion"), shape.Text(d, "kind"))
		if key := gvk.Group + "/" + gvk.Kind; len(src[key]) == 0 {
			m.Resources = append(m.Resources, point.Resource{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind})
		}
		src[gvk.Group+"/"+gvk.Kind] = append(src[gvk.Group+"/"+gvk.Kind], raw)
	}
	x, err := index.Reader{Source: src, Manifest: m, LeftOut: func(point.Resource) string { return "" }}.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := Build(x)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// node finds one by its name.
func (s *Sequence) node(t *testing.T, name string) order.Node {
	t.Helper()
	for n := range order.Node(s.Graph.Len()) {
		if s.Name(n, nil) == name {
			return n
		}
	}
	t.Fatalf("no node %q", name)
	return 0
}

// waits tells whether one node waits for another, at once or through others.
func (s *Sequence) waits(n, first order.Node) bool {
	return slices.ContainsFunc(s.Graph.Needs(n), func(e order.Edge) bool { return e.To == first || s.waits(e.To, first) })
}

const shop = `
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: operator, namespace: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: mounted, namespace: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other, namespace: shop}
---
apiVersion: v1
kind: Secret
metadata: {name: password, namespace: shop, ownerReferences: [{apiVersion: shop.example.com/v1, kind: Till, name: main, uid: u-till}]}
---
apiVersion: v1
kind: Secret
metadata: {name: token, namespace: shop, annotations: {kubernetes.io/service-account.name: operator}}
type: kubernetes.io/service-account-token
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data-db-0, namespace: shop}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: archive, namespace: shop}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {selector: {app: db}}
---
apiVersion: v1
kind: LimitRange
metadata: {name: limits, namespace: limited}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: limited, namespace: limited}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec:
  serviceName: db
  template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c}]}}
  volumeClaimTemplates: [{metadata: {name: data}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  template:
    metadata: {labels: {app: web}}
    spec:
      volumes: [{name: v, configMap: {name: mounted}}]
      containers: [{name: c, env: [{name: DSN, value: "postgres://app@db-0.db.shop.svc:5432/x"}]}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: quiet, namespace: shop}
spec: {template: {spec: {containers: [{name: c}]}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: eager, namespace: shop, annotations: {davit.dev/restore-order: sooner}}
spec: {template: {spec: {containers: [{name: c}]}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: last, namespace: shop, annotations: {davit.dev/restore-order: later}}
spec: {template: {spec: {containers: [{name: c}]}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: away, namespace: elsewhere}
spec: {template: {spec: {containers: [{name: c}]}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: operator, namespace: shop}
spec: {template: {metadata: {labels: {app: operator}}, spec: {serviceAccountName: operator, containers: [{name: c}]}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: operator, namespace: shop}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: operator, namespace: shop}
roleRef: {kind: Role, name: operator}
subjects: [{kind: ServiceAccount, name: operator, namespace: shop}]
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: tills.shop.example.com}
spec: {group: shop.example.com, names: {kind: Till, plural: tills}, versions: [{name: v1, served: true, storage: true}]}
---
apiVersion: shop.example.com/v1
kind: Till
metadata: {name: main, namespace: shop, uid: u-till}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: flux, namespace: shop}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: early, namespace: shop, annotations: {davit.dev/restore-order: sooner}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web, namespace: shop}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: guard}
webhooks: [{name: w.example.com, clientConfig: {service: {namespace: shop, name: db}}}]
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: q, namespace: shop}
`

func TestRules(t *testing.T) {
	s := sequenceOf(t, shop)
	const (
		db, web, quiet, operator = "StatefulSet.apps shop/db", "Deployment.apps shop/web", "Deployment.apps shop/quiet", "Deployment.apps shop/operator"
		data, archive            = "PersistentVolumeClaim shop/data-db-0", "PersistentVolumeClaim shop/archive"
		till                     = "Till.shop.example.com shop/main"
		flux                     = "Kustomization.kustomize.toolkit.fluxcd.io shop/flux"
		guard                    = "ValidatingWebhookConfiguration.admissionregistration.k8s.io guard"
	)
	for _, c := range []struct {
		who, first string
		waits      bool
	}{
		{"ConfigMap shop/other", "Namespace shop", true},
		{db, data, true},
		{db, archive, false}, // not its own
		{db, "Service shop/db", true},
		{db, "ConfigMap shop/other", false},
		{web, "ConfigMap shop/mounted", true},
		{web, "ConfigMap shop/other", false},
		{web, db, true}, // it speaks of its Service
		{web, data, true},
		{web, archive, false},
		{quiet, archive, true}, // nobody knows what it is a client of
		{quiet, db, false},
		{"Deployment.apps shop/eager", archive, false},
		{"Deployment.apps shop/last", quiet, true},
		{"Deployment.apps elsewhere/away", data, false},
		{"Deployment.apps elsewhere/away", "Namespace shop", true}, // let run when all are there
		{operator, "RoleBinding.rbac.authorization.k8s.io shop/operator", true},
		{"RoleBinding.rbac.authorization.k8s.io shop/operator", "Role.rbac.authorization.k8s.io shop/operator", true},
		{operator, "ConfigMap shop/other", true}, // its account may look at it
		{operator, till, true},
		{operator, archive, true},
		{till, "CustomResourceDefinition.apiextensions.k8s.io tills.shop.example.com", true},
		{till, "Secret shop/password", true}, // its operator would make another
		{"Secret shop/password", till, false},
		{"Secret shop/token", "ServiceAccount shop/operator", true}, // else the cluster deletes it
		{"Secret shop/password", "ServiceAccount shop/operator", false},
		{till, data, true},
		{flux, db, true}, // by its profile
		{flux, operator, true},
		{operator, flux, false},
		{"Kustomization.kustomize.toolkit.fluxcd.io shop/early", db, false},
		{operator, "Kustomization.kustomize.toolkit.fluxcd.io shop/early", true},
		{"LimitRange limited/limits", "PersistentVolumeClaim limited/limited", true},
		{"HorizontalPodAutoscaler.autoscaling shop/web", web, true},
		{guard, "Service shop/db answers", true},
		{guard, "all workloads are ready", true},
		{"ResourceQuota shop/q", flux, true},
	} {
		if got := s.waits(s.node(t, c.who), s.node(t, c.first)); got != c.waits {
			t.Errorf("%s waits for %s: %t, want %t", c.who, c.first, got, c.waits)
		}
	}
	if b := s.Graph.Broken(); len(b) > 0 {
		t.Errorf("broken: %v", b)
	}
	if p := s.Problems(); len(p) > 0 {
		t.Errorf("problems: %v", p)
	}
	if !s.Named[s.node(t, "ConfigMap shop/mounted")] || s.Named[s.node(t, "ConfigMap shop/other")] {
		t.Error("what a pod mounts must come first, and nothing else")
	}
}

// An operator converts its own custom resources, and may look at them: they
// form a cycle, which is broken at what is only perhaps needed.
func TestOperatorThatConvertsItsResources(t *testing.T) {
	s := sequenceOf(t, `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: tills.shop.example.com}
spec:
  group: shop.example.com
  names: {kind: Till, plural: tills}
  versions: [{name: v1, served: true}, {name: v2, served: true, storage: true}]
  conversion: {strategy: Webhook, webhook: {clientConfig: {service: {namespace: shop, name: operator}}}}
---
apiVersion: shop.example.com/v1
kind: Till
metadata: {name: main, namespace: shop}
---
apiVersion: shop.example.com/v1
kind: Drawer
metadata: {name: left, namespace: shop}
---
apiVersion: v1
kind: Service
metadata: {name: operator, namespace: shop}
spec: {selector: {app: operator}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: operator}
subjects: [{kind: ServiceAccount, name: default, namespace: shop}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: operator, namespace: shop}
spec: {template: {metadata: {labels: {app: operator}}, spec: {containers: [{name: c}]}}}
`)
	const till, operator = "Till.shop.example.com shop/main", "Deployment.apps shop/operator"
	if !s.waits(s.node(t, till), s.node(t, operator)) || s.waits(s.node(t, operator), s.node(t, till)) {
		t.Error("what is converted must wait for who converts it, and not be waited for")
	}
	if !s.waits(s.node(t, operator), s.node(t, "Drawer.shop.example.com shop/left")) {
		t.Error("what is not converted must be there before the operator")
	}
	if b := s.Graph.Broken(); len(b) != 1 || b[0].To != s.node(t, till) {
		t.Errorf("broken: %v", b)
	}
}

func TestMisplacedAnnotations(t *testing.T) {
	s := sequenceOf(t, `
apiVersion: v1
kind: ConfigMap
metadata: {name: a, namespace: shop, annotations: {davit.dev/restore-order: later}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: b, namespace: shop, annotations: {davit.dev/restore-order: soon}}
spec: {template: {spec: {containers: [{name: c}]}}}
`)
	if p := s.Problems(); len(p) != 2 || !strings.Contains(p[0], "ConfigMap shop/a") || !strings.Contains(p[1], "Deployment.apps shop/b") {
		t.Errorf("problems: %v", p)
	}
}

func TestDrawing(t *testing.T) {
	var docs strings.Builder
	docs.WriteString(shop)
	for i := range 5 {
		docs.WriteString("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: many-" + string(rune('a'+i)) + ", namespace: shop}\n")
	}
	d := sequenceOf(t, docs.String()).Draw(nil)
	var rows []string
	for _, r := range d.Rows() {
		rows = append(rows, strings.Join(r, " | "))
	}
	text := strings.Join(rows, "\n")
	for _, want := range []string{
		"0 | Namespace shop | ",
		"6 of ConfigMap in shop | namespace shop is there (is in it)", // the five, and "other"
		"StatefulSet.apps shop/db (speaks of its Service)",
		"ConfigMap shop/mounted",
		"profile: it makes objects from git",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	dot := d.DOT()
	for _, want := range []string{
		`"StatefulSet.apps shop/db" -> "Deployment.apps shop/web" [label="speaks of its Service"];`,
		`"6 of ConfigMap in shop" -> "configuration of shop" [label="part of it"];`,
	} {
		if !strings.Contains(dot, want) {
			t.Errorf("no %q in:\n%s", want, dot)
		}
	}
	// Every end of an arrow is drawn, and it is drawn once.
	known := map[string]bool{}
	for _, n := range d.Nodes {
		if known[n.Name] {
			t.Errorf("%s is drawn twice", n.Name)
		}
		known[n.Name] = true
	}
	for _, n := range d.Nodes {
		for _, w := range n.After {
			if !known[w.Name] {
				t.Errorf("%s waits for %s, which is not drawn", n.Name, w.Name)
			}
		}
	}
}
