package capture

import (
	"slices"
	"strings"
	"testing"

	"davit.dev/davit/internal/selection"
)

// wideCluster has cluster-scoped objects that nothing in its namespaces names.
const wideCluster = `
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: kube-system}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: config, namespace: shop}}
---
{apiVersion: v1, kind: Node, metadata: {name: n1}}
---
{apiVersion: v1, kind: PersistentVolume, metadata: {name: nobodys}}
---
{apiVersion: davit.dev/v1alpha1, kind: Vault, metadata: {name: main}}
---
{apiVersion: shop.example.com/v1, kind: Region, metadata: {name: north}}
---
{apiVersion: shop.example.com/v1, kind: Region, metadata: {name: excluded, labels: {davit.dev/exclude: "true"}}}
---
{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: regions.shop.example.com}, spec: {group: shop.example.com}}
---
{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: vaults.davit.dev}, spec: {group: davit.dev}}
---
{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: urgent}}
---
{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: system-node-critical}}
---
{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: of-the-system}, webhooks: [{clientConfig: {service: {namespace: kube-system}}}]}
---
{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: of-the-shop}, webhooks: [{clientConfig: {service: {namespace: shop}}}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: "system:node"}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: admin, labels: {kubernetes.io/bootstrapping: rbac-defaults}}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: auditor}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: unbound}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: csi}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: both}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: auditors}, roleRef: {kind: ClusterRole, name: auditor}, subjects: [{kind: Group, name: auditors}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: csi}, roleRef: {kind: ClusterRole, name: csi}, subjects: [{kind: ServiceAccount, name: csi, namespace: kube-system}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: both-of-system}, roleRef: {kind: ClusterRole, name: both}, subjects: [{kind: ServiceAccount, name: csi, namespace: kube-system}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: both}, roleRef: {kind: ClusterRole, name: both}, subjects: [{kind: User, name: ann}, {kind: ServiceAccount, name: csi, namespace: kube-system}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: "kubeadm:node"}, roleRef: {kind: ClusterRole, name: "system:node"}, subjects: [{kind: Group, name: "system:nodes"}]}
`

// TestAWholeClusterIsMoreThanItsNamespaces: what people made outside of all
// namespaces comes along, and only there.
func TestAWholeClusterIsMoreThanItsNamespaces(t *testing.T) {
	for what, tt := range map[string]struct {
		names   []string
		exclude []string
		want    string
	}{
		"the whole cluster": {
			[]string{"*"},
			nil,
			"auditor auditors both both of-the-shop regions.shop.example.com shop unbound urgent north",
		},
		"without a kind": {
			[]string{"*"},
			[]string{"regions.shop.example.com", "*.rbac.authorization.k8s.io"},
			"of-the-shop regions.shop.example.com shop urgent",
		},
		"a namespace":         {[]string{"shop"}, nil, "of-the-shop shop"},
		"those of one prefix": {[]string{"sh*"}, nil, "of-the-shop shop"},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, "")
			for _, k := range []Kind{
				{Kind: "Node", Resource: "nodes"},
				{Group: davitGroup, Kind: "Vault", Resource: "vaults"},
				{Group: "shop.example.com", Kind: "Region", Resource: "regions"},
			} {
				k.Version, k.Verbs = "v1", allVerbs
				w.kinds = append(w.kinds, k)
			}
			for doc := range strings.SplitSeq(wideCluster, "\n---\n") {
				w.put(parse(t, doc))
			}
			filter, err := ParseFilter(nil, tt.exclude)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.run(Spec{Filter: filter, Select: selection.Selection{Namespaces: selection.Namespaces{Names: tt.names}}}); err != nil {
				t.Fatal(err)
			}
			var got []string
			for kind, names := range w.written {
				if kind != "configmaps" {
					got = append(got, names...)
				}
			}
			want := strings.Fields(tt.want)
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("captured\n%q, want\n%q", got, want)
			}
		})
	}
}
