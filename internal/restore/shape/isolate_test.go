package shape

import (
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/point"
)

func document(t *testing.T, text string) Document {
	t.Helper()
	var d Document
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestUnfitForCopy(t *testing.T) {
	pod := func(volume, mount string) string {
		return `{"spec":{"volumes":[{"name":"v",` + volume + `}],"containers":[{"volumeMounts":[{"name":"v"` + mount + `}]}]}}`
	}
	for name, c := range map[string]struct {
		kind schema.GroupKind
		text string
		fits bool
	}{
		"own volumes":              {KindPod, pod(`"emptyDir":{}`, ""), true},
		"claim":                    {KindPod, pod(`"persistentVolumeClaim":{"claimName":"c"}`, ""), true},
		"node's directory":         {KindPod, pod(`"hostPath":{"path":"/var/lib/db"}`, ""), false},
		"node's directory, read":   {KindPod, pod(`"hostPath":{"path":"/etc/localtime"}`, `,"readOnly":true`), true},
		"file server":              {KindPod, pod(`"nfs":{"server":"s","path":"/"}`, ""), false},
		"file server, read":        {KindPod, pod(`"nfs":{"server":"s","path":"/","readOnly":true}`, ""), true},
		"kind of a later version":  {KindPod, pod(`"quantumDisk":{}`, ""), false},
		"claim without a class":    {KindClaim, `{"spec":{"storageClassName":""}}`, false},
		"claim of the default one": {KindClaim, `{"spec":{}}`, true},
	} {
		if why := UnfitForCopy(c.kind, document(t, c.text)); (why == "") != c.fits {
			t.Errorf("%s: %q", name, why)
		}
	}
}

func TestOutsideOfCopy(t *testing.T) {
	for name, c := range map[string]struct {
		res point.Resource
		in  bool
	}{
		"Namespace":   {point.Resource{Kind: "Namespace"}, true},
		"ClusterRole": {point.Resource{Group: GroupRBAC, Kind: "ClusterRole"}, false},
		"Service":     {point.Resource{Kind: "Service", Namespaced: true}, true},
		"Ingress":     {point.Resource{Group: GroupNetworking, Kind: "Ingress", Namespaced: true}, false},
		"HTTPRoute":   {point.Resource{Group: GroupGateway, Kind: "HTTPRoute", Namespaced: true}, false},
		"Certificate": {point.Resource{Group: "cert-manager.io", Kind: "Certificate", Namespaced: true}, false},
		"custom":      {point.Resource{Group: "lighthouse.test", Kind: "Beacon", Namespaced: true}, true},
		// Their controllers delete the bucket, database or cluster with the copy's object.
		"bucket":         {point.Resource{Group: "s3.services.k8s.aws", Kind: "Bucket", Namespaced: true}, false},
		"database":       {point.Resource{Group: "sql.cnrm.cloud.google.com", Kind: "SQLInstance", Namespaced: true}, false},
		"account":        {point.Resource{Group: "storage.azure.com", Kind: "StorageAccount", Namespaced: true}, false},
		"managed":        {point.Resource{Group: "s3.aws.m.upbound.io", Kind: "Bucket", Namespaced: true}, false},
		"cluster":        {point.Resource{Group: "cluster.x-k8s.io", Kind: "Cluster", Namespaced: true}, false},
		"machine":        {point.Resource{Group: "infrastructure.cluster.x-k8s.io", Kind: "AWSMachine", Namespaced: true}, false},
		"pushed Secret":  {point.Resource{Group: "external-secrets.io", Kind: "PushSecret", Namespaced: true}, false},
		"fetched Secret": {point.Resource{Group: "external-secrets.io", Kind: "ExternalSecret", Namespaced: true}, true},
		"looks alike":    {point.Resource{Group: "notcluster.x-k8s.io", Kind: "Cluster", Namespaced: true}, true},
	} {
		if why := OutsideOfCopy(c.res); (why == "") != c.in {
			t.Errorf("%s: %q", name, why)
		}
	}
}

func TestOutsideByHead(t *testing.T) {
	for name, c := range map[string]struct {
		finalizers string
		in         bool
	}{
		"a claim on something composed": {`"finalizer.apiextensions.crossplane.io"`, false},
		"composed":                      {`"a/b","composite.apiextensions.crossplane.io"`, false},
		"a database":                    {`"databases.lighthouse.test/crossplane.io"`, true},
		"nothing":                       {"", true},
	} {
		var h Head
		if err := json.Unmarshal([]byte(`{"metadata":{"name":"a","finalizers":[`+c.finalizers+`]}}`), &h); err != nil {
			t.Fatal(err)
		}
		if why := OutsideByHead(h); (why == "") != c.in {
			t.Errorf("%s: %q", name, why)
		}
	}
}

func TestIsolate(t *testing.T) {
	service := document(t, `{"metadata":{"annotations":{"external-dns.alpha.kubernetes.io/hostname":"shop.example.com","a":"b"}},
		"spec":{"type":"NodePort","externalTrafficPolicy":"Local","ports":[{"port":80,"nodePort":30080}]}}`)
	notes := Isolate(KindService, service, nil)
	text, err := json.Marshal(service)
	if err != nil || string(text) != `{"metadata":{"annotations":{"a":"b"}},"spec":{"ports":[{"port":80}],"type":"ClusterIP"}}` || len(notes) != 1 {
		t.Errorf("%s %q %v", text, notes, err)
	}
	pod := document(t, `{"spec":{"hostNetwork":true,"dnsPolicy":"ClusterFirstWithHostNet","containers":[{"env":[{"value":"http://db.shop.svc/"}],"ports":[{"containerPort":80,"hostPort":80}]}]}}`)
	notes = Isolate(KindPod, pod, []string{"shop", "shop2"})
	text, err = json.Marshal(pod)
	if err != nil || strings.Contains(string(text), "host") || len(notes) != 2 || !strings.Contains(notes[1], "*.shop.svc") {
		t.Errorf("%s %q %v", text, notes, err)
	}
	job := document(t, `{"spec":{}}`)
	if Isolate(KindJob, job, nil); job["spec"].(map[string]any)["suspend"] != true {
		t.Errorf("%v", job)
	}
}

func TestInside(t *testing.T) {
	const text = `{"metadata":{"namespace":"shop"},"spec":{"namespace":"other","name":"shop","a":[{"targetNamespace":"shop"}],"watchNamespaces":["shop","other",1],"namespaceSelector":{"namespace":2}}}`
	const copied = `{"metadata":{"namespace":"shop"},"spec":{"a":[{"targetNamespace":"copy"}],"name":"shop","namespace":"other","namespaceSelector":{"namespace":2},"watchNamespaces":["copy","other",1]}}`
	for kind, want := range map[schema.GroupKind]bool{{Group: "lighthouse.test", Kind: "Beacon"}: true, {Group: "apps", Kind: "Beacon"}: false, {Group: "policy.k8s.io", Kind: "Beacon"}: false} {
		d := document(t, text)
		Namespaces{"shop": "copy"}.Inside(kind, d)
		if got, err := json.Marshal(d); err != nil || (string(got) == copied) != want {
			t.Errorf("%s: %s %v", kind, got, err)
		}
	}
}

func TestACopyThatNamesTheOriginal(t *testing.T) {
	secret := schema.GroupKind{Kind: "Secret"}
	for name, c := range map[string]struct {
		kind schema.GroupKind
		text string
		want bool
	}{
		"whole name":        {KindConfigMap, `{"data":{"a":"db.shop.svc.cluster.local"}}`, true},
		"namespace":         {KindConfigMap, `{"data":{"a":"db.shop"}}`, true},
		"port":              {KindConfigMap, `{"data":{"a":"postgres://u@db.shop:5432/x"}}`, true},
		"path":              {KindConfigMap, `{"data":{"a":"http://web.shop/x"}}`, true},
		"second":            {KindConfigMap, `{"data":{"a":"db.shopping db.shop"}}`, true},
		"Secret":            {secret, `{"data":{"a":"ZGIuc2hvcDo1NDMy"}}`, true},
		"another namespace": {KindConfigMap, `{"data":{"a":"db.shopping:5432 db.shop-2"}}`, false},
		"domain":            {KindConfigMap, `{"data":{"a":"www.shop.example.com"}}`, false},
		"no name before":    {KindConfigMap, `{"data":{"a":"/.shop/x"}}`, false},
		"Secret of no text": {secret, `{"data":{"a":"!"}}`, false},
		"Secret of another": {secret, `{"data":{"a":"ZGIub3RoZXI="}}`, false},
	} {
		notes := Isolate(c.kind, document(t, c.text), []string{"shop"})
		if (len(notes) == 1) != c.want || c.want && notes[0] != "it names *.shop.svc, which is the original: what runs in the copy may reach it" {
			t.Errorf("%s: %q", name, notes)
		}
	}
}

func FuzzIsolate(f *testing.F) {
	f.Add(`{"spec":{"type":"NodePort","template":{"spec":{"hostNetwork":true,"volumes":[{"name":1,"hostPath":null}],"containers":[{"ports":[{"hostPort":1}],"volumeMounts":[[]]}]}}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, kind := range []schema.GroupKind{KindService, KindPod, KindDeployment, KindCronJob, KindJob, KindClaim, KindConfigMap} {
			var d Document
			if json.Unmarshal([]byte(text), &d) != nil {
				return
			}
			UnfitForCopy(kind, d)
			Isolate(kind, d, []string{"shop"})
			if PodSpecOf(kind, d)["hostNetwork"] == true {
				t.Errorf("%s: on the node's network", kind)
			}
		}
	})
}
