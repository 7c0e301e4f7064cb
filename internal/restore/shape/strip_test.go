package shape

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var stripCases = []struct {
	name       string
	kind       schema.GroupKind
	opts       Options
	have, want string
}{
	{
		"metadata", KindConfigMap,
		Options{},
		`{"metadata":{"name":"a","uid":"u","resourceVersion":"1","generation":2,"creationTimestamp":"t","managedFields":[],"selfLink":"s","generateName":"g","ownerReferences":[{"uid":"x"}],"labels":{"k":"v","davit.dev/restore":"old"},"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"kept"}},"data":{"a":"b"},"status":{"x":1}}`,
		`{"metadata":{"name":"a","labels":{"k":"v"},"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"kept"}},"data":{"a":"b"}}`,
	},
	{
		"finalizers of controllers go, others stay", KindConfigMap,
		Options{},
		`{"metadata":{"name":"a","finalizers":["foregroundDeletion","shop.example.com/f"]}}`,
		`{"metadata":{"name":"a","finalizers":["shop.example.com/f"]}}`,
	},
	{
		"the node that takes up a class's snapshots is the source's",
		schema.GroupKind{Group: "groupsnapshot.storage.k8s.io", Kind: "VolumeGroupSnapshotClass"},
		Options{},
		`{"metadata":{"name":"a","labels":{"snapshot.storage.kubernetes.io/managed-by":"east","k":"v"}},"driver":"d"}`,
		`{"metadata":{"name":"a","labels":{"k":"v"}},"driver":"d"}`,
	},
	{
		"held at rest when it was captured", KindStatefulSet,
		Options{},
		`{"metadata":{"name":"a","annotations":{"davit.dev/replicas-before-fence":"3","davit.dev/claims-when-scaled-before-fence":"Delete"}},"spec":{"replicas":0,"persistentVolumeClaimRetentionPolicy":{"whenScaled":"Retain"}}}`,
		`{"metadata":{"name":"a"},"spec":{"replicas":3,"persistentVolumeClaimRetentionPolicy":{"whenScaled":"Delete"}}}`,
	},
	{
		"started by somebody after it was stopped", KindDeployment,
		Options{},
		`{"metadata":{"name":"a","annotations":{"davit.dev/replicas-before-fence":"3","k":"v"}},"spec":{"replicas":2}}`,
		`{"metadata":{"name":"a","annotations":{"k":"v"}},"spec":{"replicas":2}}`,
	},
	{
		"of its own at zero", KindDeployment,
		Options{},
		`{"metadata":{"name":"a"},"spec":{"replicas":0}}`,
		`{"metadata":{"name":"a"},"spec":{"replicas":0}}`,
	},
	{
		"suspended by the fence", KindCronJob,
		Options{},
		`{"metadata":{"name":"a","annotations":{"davit.dev/suspended-by-fence":"true"}},"spec":{"suspend":true}}`,
		`{"metadata":{"name":"a"},"spec":{}}`,
	},
	{
		"sent to no node", KindDaemonSet,
		Options{},
		`{"metadata":{"name":"a","annotations":{"davit.dev/node-selector-before-fence":"{\"disk\":\"ssd\"}"}},"spec":{"template":{"spec":{"nodeSelector":{"davit.dev/superseded":"true"}}}}}`,
		`{"metadata":{"name":"a"},"spec":{"template":{"spec":{"nodeSelector":{"disk":"ssd"}}}}}`,
	},
	{
		"namespace", KindNamespace,
		Options{},
		`{"metadata":{"name":"a","labels":{"kubernetes.io/metadata.name":"a"}},"spec":{"finalizers":["kubernetes"]}}`,
		`{"metadata":{"name":"a"}}`,
	},
	{
		"service", KindService,
		Options{},
		`{"metadata":{"name":"a"},"spec":{"clusterIP":"10.0.0.1","clusterIPs":["10.0.0.1"],"healthCheckNodePort":3,"loadBalancerIP":"1.2.3.4","ports":[{"port":1,"nodePort":30000}]}}`,
		`{"metadata":{"name":"a"},"spec":{"loadBalancerIP":"1.2.3.4","ports":[{"port":1}]}}`,
	},
	{
		"headless service, node ports preserved", KindService,
		Options{NodePorts: true},
		`{"metadata":{"name":"a"},"spec":{"clusterIP":"None","clusterIPs":["None"],"healthCheckNodePort":3,"ports":[{"port":1,"nodePort":30000}]}}`,
		`{"metadata":{"name":"a"},"spec":{"clusterIP":"None","clusterIPs":["None"],"healthCheckNodePort":3,"ports":[{"port":1,"nodePort":30000}]}}`,
	},
	{
		"claim", KindClaim,
		Options{Classes: map[string]string{"gold": "fast"}},
		`{"metadata":{"name":"a","annotations":{"pv.kubernetes.io/bind-completed":"yes","volume.kubernetes.io/selected-node":"n","mine":"1","davit.dev/filled-from":"x"},"finalizers":["kubernetes.io/pvc-protection"]},"spec":{"volumeName":"pv","storageClassName":"gold","dataSource":{"kind":"VolumeSnapshot"},"dataSourceRef":{"kind":"VolumeSnapshot"},"accessModes":["ReadWriteOnce"]},"status":{}}`,
		`{"metadata":{"name":"a","annotations":{"mine":"1"}},"spec":{"storageClassName":"fast","accessModes":["ReadWriteOnce"]}}`,
	},
	{
		"stateful set's templates follow the class mapping", KindStatefulSet,
		Options{Classes: map[string]string{"gold": "fast"}},
		`{"metadata":{"name":"a"},"spec":{"volumeClaimTemplates":[{"metadata":{"name":"d","creationTimestamp":null},"spec":{"storageClassName":"gold"},"status":{"phase":"Pending"}}]}}`,
		`{"metadata":{"name":"a"},"spec":{"volumeClaimTemplates":[{"metadata":{"name":"d"},"spec":{"storageClassName":"fast"}}]}}`,
	},
	{
		"pod", KindPod,
		Options{},
		`{"metadata":{"name":"a"},"spec":{"nodeName":"n","priority":5,"priorityClassName":"high","containers":[{"name":"c","volumeMounts":[{"name":"kube-api-access-1"},{"name":"d"}]}],"initContainers":[{"name":"i","volumeMounts":[{"name":"kube-api-access-1"}]}],"volumes":[{"name":"kube-api-access-1","projected":{}},{"name":"d"}]}}`,
		`{"metadata":{"name":"a"},"spec":{"priorityClassName":"high","containers":[{"name":"c","volumeMounts":[{"name":"d"}]}],"initContainers":[{"name":"i"}],"volumes":[{"name":"d"}]}}`,
	},
	{
		"job", KindJob,
		Options{},
		`{"metadata":{"name":"a","labels":{"controller-uid":"u","app":"x"}},"spec":{"selector":{"matchLabels":{"controller-uid":"u"}},"template":{"metadata":{"labels":{"controller-uid":"u","batch.kubernetes.io/controller-uid":"u","job-name":"a","app":"x"}}}}}`,
		`{"metadata":{"name":"a","labels":{"app":"x"}},"spec":{"template":{"metadata":{"labels":{"app":"x"}}}}}`,
	},
	{
		"job with its own selector", KindJob,
		Options{},
		`{"metadata":{"name":"a"},"spec":{"manualSelector":true,"selector":{"matchLabels":{"a":"b"}}}}`,
		`{"metadata":{"name":"a"},"spec":{"manualSelector":true,"selector":{"matchLabels":{"a":"b"}}}}`,
	},
	{
		"deployment", KindDeployment,
		Options{},
		`{"metadata":{"name":"a","annotations":{"deployment.kubernetes.io/revision":"3"}},"spec":{"replicas":3}}`,
		`{"metadata":{"name":"a"},"spec":{"replicas":3}}`,
	},
	{
		"service account", KindAccount,
		Options{},
		`{"metadata":{"name":"a"},"secrets":[{"name":"t"}],"imagePullSecrets":[{"name":"p"}]}`,
		`{"metadata":{"name":"a"},"imagePullSecrets":[{"name":"p"}]}`,
	},
	{
		"a secret that asks for a token", KindSecret,
		Options{},
		`{"metadata":{"name":"ci","annotations":{"kubernetes.io/service-account.name":"ci","kubernetes.io/service-account.uid":"u"},"labels":{"kubernetes.io/legacy-token-last-used":"2026-01-02"}},"type":"kubernetes.io/service-account-token","data":{"token":"eA==","ca.crt":"eA=="}}`,
		`{"metadata":{"name":"ci","annotations":{"kubernetes.io/service-account.name":"ci"}},"type":"kubernetes.io/service-account-token"}`,
	},
	{
		"any other secret", KindSecret,
		Options{},
		`{"metadata":{"name":"db","annotations":{"kubernetes.io/service-account.uid":"u"}},"type":"Opaque","data":{"token":"eA=="}}`,
		`{"metadata":{"name":"db","annotations":{"kubernetes.io/service-account.uid":"u"}},"type":"Opaque","data":{"token":"eA=="}}`,
	},
	{
		"shapes nobody expects", KindPod,
		Options{},
		`{"metadata":{"name":5,"labels":[],"finalizers":"x"},"spec":{"volumes":"none","containers":{"a":1}}}`,
		`{"metadata":{"name":5,"finalizers":"x"},"spec":{"volumes":"none","containers":{"a":1}}}`,
	},
}

func TestStrip(t *testing.T) {
	for _, c := range stripCases {
		t.Run(c.name, func(t *testing.T) {
			have, want := mustDecode(t, c.have), mustDecode(t, c.want)
			Strip(c.kind, have, c.opts)
			if diff := cmp.Diff(want, have); diff != "" {
				t.Error(diff)
			}
			Strip(c.kind, have, c.opts)
			if diff := cmp.Diff(want, have); diff != "" {
				t.Error("stripping twice is not stripping once: " + diff)
			}
		})
	}
}

func mustDecode(t *testing.T, s string) Document {
	t.Helper()
	d, err := Decode([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

var renameCases = []struct {
	name       string
	kind       schema.GroupKind
	have, want string
}{
	{"namespace", KindNamespace, `{"metadata":{"name":"shop"}}`, `{"metadata":{"name":"copy"}}`},
	{"namespaced", KindSecret, `{"metadata":{"name":"shop","namespace":"shop"}}`, `{"metadata":{"name":"shop","namespace":"copy"}}`},
	{"another namespace", KindSecret, `{"metadata":{"namespace":"bank"}}`, `{"metadata":{"namespace":"bank"}}`},
	{
		"subjects",
		schema.GroupKind{Group: GroupRBAC, Kind: "ClusterRoleBinding"},
		`{"metadata":{},"subjects":[{"kind":"ServiceAccount","name":"a","namespace":"shop"},{"kind":"User","name":"system:serviceaccount:shop:a"},{"kind":"Group","name":"system:serviceaccounts:shop"},{"kind":"User","name":"shop"}]}`,
		`{"metadata":{},"subjects":[{"kind":"ServiceAccount","name":"a","namespace":"copy"},{"kind":"User","name":"system:serviceaccount:copy:a"},{"kind":"Group","name":"system:serviceaccounts:copy"},{"kind":"User","name":"shop"}]}`,
	},
	{
		"webhooks",
		schema.GroupKind{Group: GroupAdmission, Kind: "MutatingWebhookConfiguration"},
		`{"metadata":{},"webhooks":[{"clientConfig":{"service":{"namespace":"shop"}},"namespaceSelector":{"matchExpressions":[{"key":"kubernetes.io/metadata.name","values":["shop","bank"]}]}},{"clientConfig":{"url":"https://x"}}]}`,
		`{"metadata":{},"webhooks":[{"clientConfig":{"service":{"namespace":"copy"}},"namespaceSelector":{"matchExpressions":[{"key":"kubernetes.io/metadata.name","values":["copy","bank"]}]}},{"clientConfig":{"url":"https://x"}}]}`,
	},
	{
		"conversion of a CRD", KindCRD,
		`{"metadata":{},"spec":{"conversion":{"webhook":{"clientConfig":{"service":{"namespace":"shop"}}}}}}`,
		`{"metadata":{},"spec":{"conversion":{"webhook":{"clientConfig":{"service":{"namespace":"copy"}}}}}}`,
	},
	{
		"API service",
		schema.GroupKind{Group: GroupAPIService, Kind: "APIService"},
		`{"metadata":{},"spec":{"service":{"namespace":"shop"}}}`, `{"metadata":{},"spec":{"service":{"namespace":"copy"}}}`,
	},
	{
		"network policy",
		schema.GroupKind{Group: GroupNetworking, Kind: "NetworkPolicy"},
		`{"metadata":{"namespace":"shop"},"spec":{"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"shop"}}}]}]}}`,
		`{"metadata":{"namespace":"copy"},"spec":{"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"copy"}}}]}]}}`,
	},
	{
		"affinity", KindDeployment,
		`{"metadata":{"namespace":"shop"},"spec":{"template":{"spec":{"affinity":{"podAntiAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"podAffinityTerm":{"namespaces":["shop"]}}]}}}}}}`,
		`{"metadata":{"namespace":"copy"},"spec":{"template":{"spec":{"affinity":{"podAntiAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"podAffinityTerm":{"namespaces":["copy"]}}]}}}}}}`,
	},
	{
		"route",
		schema.GroupKind{Group: GroupGateway, Kind: "HTTPRoute"},
		`{"metadata":{"namespace":"shop"},"spec":{"parentRefs":[{"name":"g","namespace":"shop"}],"rules":[{"backendRefs":[{"namespace":"shop"}]}]}}`,
		`{"metadata":{"namespace":"copy"},"spec":{"parentRefs":[{"name":"g","namespace":"copy"}],"rules":[{"backendRefs":[{"namespace":"copy"}]}]}}`,
	},
}

func TestRename(t *testing.T) {
	r := Namespaces{"shop": "copy"}
	for _, c := range renameCases {
		t.Run(c.name, func(t *testing.T) {
			have := mustDecode(t, c.have)
			r.Rename(c.kind, have)
			if diff := cmp.Diff(mustDecode(t, c.want), have); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// FuzzShape feeds arbitrary JSON to everything that looks into objects.
func FuzzShape(f *testing.F) {
	for _, c := range stripCases {
		f.Add([]byte(c.have))
	}
	for _, c := range renameCases {
		f.Add([]byte(c.have))
	}
	f.Add([]byte(`{"metadata":{"labels":null,"annotations":7,"finalizers":[null]},"spec":{"volumes":[null,1],"template":{"spec":[]}}}`))
	kinds := []schema.GroupKind{{Kind: "Unknown"}}
	for k := range Ranks {
		kinds = append(kinds, k)
	}
	f.Fuzz(func(_ *testing.T, raw []byte) {
		for _, kind := range kinds {
			d, err := Decode(raw)
			if err != nil {
				return
			}
			Ready(kind, d)
			PodReason(d)
			Mounts(kind, d, "c")
			_, _ = SkipByBody(kind, d)
			Strip(kind, d, Options{Classes: map[string]string{"": "x"}})
			Namespaces{"": "x", "a": "b"}.Rename(kind, d)
			_, _ = SelectorOf(d)
		}
	})
}
