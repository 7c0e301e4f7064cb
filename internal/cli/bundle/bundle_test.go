package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/process"
)

const planted = "Xk29-planted-Value"

// Secrets that no pattern knows are found because davit-system's are known.
func TestBundleHoldsNoSecret(t *testing.T) {
	text := unpacked(t, clusterWithSecrets())
	for _, secret := range []string{
		planted, base64.StdEncoding.EncodeToString([]byte(planted)), "AGE-SECRET-KEY-1QQPQ", "hunter2hunter2",
		"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzYSJ9.c2lnbmF0dXJl", "topsecretenv",
	} {
		if strings.Contains(text, secret) {
			t.Errorf("the bundle holds %q", secret)
		}
	}
	for _, kept := range []string{"s3://bucket/davit", "capture begins", "davit-support/logs/davit-agent-1_agent.log", `pods "davit-hold-1" not found`, "davit-support/applications/davit-system_shop.yaml"} {
		if !strings.Contains(text, kept) {
			t.Errorf("the bundle lacks %q", kept)
		}
	}
}

// The negative control: a redactor that knows nothing lets the planted value
// through, so the test above sees it.
func TestUnknownValuePasses(t *testing.T) {
	if got := NewRedactor(nil).Redact([]byte("message " + planted)); !bytes.Contains(got, []byte(planted)) {
		t.Fatalf("redacted without knowing: %s", got)
	}
}

func TestRedactPatterns(t *testing.T) {
	r := NewRedactor(nil)
	for text, gone := range map[string]string{
		"key AGE-SECRET-KEY-1ABCDEF0":                                        "ABCDEF0",
		"Authorization: Bearer abcdefgh12345678":                             "abcdefgh12345678",
		"https://user:pa55w0rd@host/":                                        "pa55w0rd",
		"GET /?X-Amz-Signature=deadbeef&x=1":                                 "deadbeef",
		`{"password": "s3cr3tword"}`:                                         "s3cr3tword",
		`"{\"secretKey\":\"s3cr3tword\"}"`:                                   "s3cr3tword",
		"secretAccessKey=s3cr3tword":                                         "s3cr3tword",
		"id AKIAABCDEFGHIJKLMNOP":                                            "AKIAABCDEFGHIJKLMNOP",
		"-----BEGIN EC PRIVATE KEY-----\nMHc=\n-----END EC PRIVATE KEY-----": "MHc=",
		"- name: DB_PASSWORD\n  value: x1y2\n":                               "x1y2",
	} {
		got := string(r.Redact([]byte(text)))
		if strings.Contains(got, gone) || !strings.Contains(got, Redacted) {
			t.Errorf("%q became %q", text, got)
		}
	}
	for _, plain := range []string{"secretName: vault-main", "recovery key of project default", "password rotation is due"} {
		if got := string(r.Redact([]byte(plain))); got != plain {
			t.Errorf("%q became %q", plain, got)
		}
	}
}

func clusterWithSecrets() client.Client {
	system := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: name}
	}
	app := &v1alpha1.Application{ObjectMeta: system("shop")}
	app.Annotations = map[string]string{lastApplied: "password=" + planted, "note": "b64 " + base64.StdEncoding.EncodeToString([]byte(planted))}
	app.Spec.Hooks = []v1alpha1.Hook{{Name: "q", Before: []string{"psql", "password=hunter2hunter2"}}}
	return fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(
		&v1alpha1.Vault{ObjectMeta: metav1.ObjectMeta{Name: "main"}, Spec: v1alpha1.VaultSpec{URL: "s3://bucket/davit"}},
		app,
		&corev1.Secret{ObjectMeta: system("vault-main"), Data: map[string][]byte{"secretKey": []byte(planted)}},
		&corev1.Pod{
			ObjectMeta: system("davit-agent-1"),
			Spec: corev1.PodSpec{Containers: []corev1.Container{{
				Name: "agent", Env: []corev1.EnvVar{{Name: "S3_TOKEN", Value: "topsecretenv"}},
			}}},
			Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "agent", RestartCount: 1}}},
		},
		&corev1.Pod{
			ObjectMeta: system("davit-hold-1"),
			Status:     corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "hold"}}},
		},
	).Build()
}

func unpacked(t *testing.T, c client.Client) string {
	t.Helper()
	var archive, all bytes.Buffer
	report, err := Write(context.Background(), &archive, Source{
		Objects: c, Now: time.Unix(0, 0), Versions: map[string]string{"davit": "test"},
		OpenLog: func(_ context.Context, l Log) (io.ReadCloser, error) {
			if l.Pod == "davit-hold-1" { // it went after it was listed: nothing is missing of it
				return nil, fmt.Errorf("read log of %s: %w", l.Pod, apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, l.Pod))
			}
			if l.Previous {
				return nil, errors.New("no previous log, key " + planted)
			}
			return io.NopCloser(strings.NewReader("capture begins " + planted + "\nkey AGE-SECRET-KEY-1QQPQ\ntoken eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzYSJ9.c2lnbmF0dXJl\n")), nil
		},
	})
	if err != nil || !report.SecretsKnown || len(report.Missing) != 1 {
		t.Fatalf("report %+v, %v", report, err)
	}
	zr, err := gzip.NewReader(&archive)
	if err != nil {
		t.Fatal(err)
	}
	tr := tar.NewReader(zr)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return all.String() + strings.Join(report.Missing, "\n")
		}
		if err != nil {
			t.Fatal(err)
		}
		all.WriteString(h.Name + "\n")
		if _, err := io.Copy(&all, tr); err != nil {
			t.Fatal(err)
		}
	}
}
