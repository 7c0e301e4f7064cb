package source

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fs"
)

// many is an API server with as many Secrets and ConfigMaps as one wishes, of
// which it makes a page at a time.
type many struct {
	each int
	text int // bytes in each object; 0: 1024
}

const manyRevision = "1000"

func (m many) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	kind := map[string]string{"/api/v1/namespaces/shop/secrets": "secrets", "/api/v1/namespaces/shop/configmaps": "configmaps"}[r.URL.Path]
	switch {
	case kind != "":
		m.page(w, r, kind)
	case r.URL.Path == "/version":
		fmt.Fprint(w, `{"major":"1","minor":"34","gitVersion":"v1.34.4"}`)
	case r.URL.Path == "/api":
		fmt.Fprint(w, `{"kind":"APIVersions","versions":["v1"]}`)
	case r.URL.Path == "/apis":
		fmt.Fprint(w, `{"kind":"APIGroupList","apiVersion":"v1","groups":[]}`)
	case r.URL.Path == "/api/v1":
		fmt.Fprint(w, `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"v1","resources":[
			{"name":"secrets","singularName":"secret","namespaced":true,"kind":"Secret","verbs":["create","get","list"]},
			{"name":"configmaps","singularName":"configmap","namespaced":true,"kind":"ConfigMap","verbs":["create","get","list"]},
			{"name":"namespaces","singularName":"namespace","namespaced":false,"kind":"Namespace","verbs":["create","get","list"]}]}`)
	case r.URL.Path == "/api/v1/namespaces":
		fmt.Fprintf(w, `{"kind":"NamespaceList","apiVersion":"v1","metadata":{"resourceVersion":"%s"},"items":[{"metadata":{"name":"shop","uid":"n"},"status":{"phase":"Active"}}]}`, manyRevision)
	default:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
	}
}

// page writes objects of 1 KiB of text that compresses by a quarter, as base64 does.
func (m many) page(w http.ResponseWriter, r *http.Request, kind string) {
	from, _ := strconv.Atoi(r.URL.Query().Get("continue"))
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	end, next := min(from+limit, m.each), ""
	if end < m.each {
		next = strconv.Itoa(end)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `{"kind":"List","apiVersion":"v1","metadata":{"resourceVersion":"%s","continue":"%s"},"items":[`, manyRevision, next)
	seed := uint64(from)*2654435761 + 1
	for i := from; i < end; i++ {
		if i > from {
			out.WriteByte(',')
		}
		fmt.Fprintf(&out, `{"metadata":{"name":"object-%06d","namespace":"shop","uid":"%s-%d","resourceVersion":"%d","creationTimestamp":"2026-03-01T12:00:00Z",
			"managedFields":[{"manager":"bench","operation":"Update","apiVersion":"v1","time":"2026-03-01T12:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:data":{".":{},"f:value":{}}}}]},"data":{"value":"`, i, kind, i, i+1)
		for range cmp.Or(m.text, 1024) {
			seed ^= seed << 13
			seed ^= seed >> 7
			seed ^= seed << 17
			out.WriteByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[seed>>58])
		}
		out.WriteString(`"}}`)
	}
	out.WriteString("]}")
	_, _ = w.Write(out.Bytes()) // the client says what it misses
}

// vaultSink writes what is captured into a vault, as the agent does.
type vaultSink struct{ w *vault.PointWriter }

func (s vaultSink) Resource(res point.Resource) capture.ObjectWriter { return s.w.Resource(res) }

// fileVault is a vault in a directory.
func fileVault(b *testing.B) *vault.Project {
	b.Helper()
	store, err := fs.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	key, err := vault.NewIdentity()
	if err == nil {
		_, err = vault.Init(b.Context(), store)
	}
	if err != nil {
		b.Fatal(err)
	}
	p, err := vault.CreateProject(b.Context(), store, "acme", key.Recipient())
	if err != nil {
		b.Fatal(err)
	}
	return p
}

// captureMany captures everything, and returns how many objects that were.
func captureMany(b *testing.B, cluster *Cluster, p *vault.Project, id string) int64 {
	b.Helper()
	w, err := p.NewWriter(b.Context(), "shop", id)
	if err != nil {
		b.Fatal(err)
	}
	spec := capture.Spec{Application: "shop", ID: id, Namespaces: []string{"shop"}, Mode: capture.ModeNone}
	got, err := capture.Run(b.Context(), spec, capture.Ports{Cluster: cluster, Sink: vaultSink{w}}, capture.Options{})
	if err != nil {
		b.Fatal(err)
	}
	return got.Objects
}

// peak is the most memory this process had since it was reset, in MiB.
func peak(b *testing.B) float64 {
	b.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Skip(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return kib / 1024
}

// BenchmarkMany captures 20,000 objects, or DAVIT_BENCH_OBJECTS, from an API server in this
// process into a vault in a directory: the most memory that the process had, with that server.
func BenchmarkMany(b *testing.B) {
	n := 20_000
	if asked, err := strconv.Atoi(os.Getenv("DAVIT_BENCH_OBJECTS")); err == nil {
		n = asked
	}
	server := httptest.NewServer(many{each: n / 2})
	defer server.Close()
	clients, err := kube.New(&rest.Config{Host: server.URL})
	if err != nil {
		b.Fatal(err)
	}
	cluster, err := NewCluster(clients)
	if err != nil {
		b.Fatal(err)
	}
	p := fileVault(b)
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		b.Skip(err)
	}
	for i := 0; b.Loop(); i++ {
		if got := captureMany(b, cluster, p, fmt.Sprintf("shop-20260301t12%04d-abcdef", i)); got != int64(n/2*2+1) {
			b.Fatalf("%d objects captured of %d", got, n/2*2+1)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "objects/s")
	b.ReportMetric(peak(b), "peak-MiB")
}
