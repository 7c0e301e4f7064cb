package protection_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/kube/mover"
	"davit.dev/davit/internal/kube/quiescer"
	"davit.dev/davit/internal/kube/source"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/quiesce"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
)

// writes commits numbered rows without pause and keeps what was acknowledged
// outside the database.
const writes = `until psql -qh /tmp -U postgres shop -c 'create table ledger (id serial primary key, note text)'; do sleep 0.2; done
while true; do psql -qtAh /tmp -U postgres shop -c "insert into ledger (note) values (repeat('x', 200)) returning id" >> /ack/ledger; done`

// TestBedPostgres captures a PostgreSQL that commits without pause into the
// bed's S3 server, and starts a second PostgreSQL on what was cut.
func TestBedPostgres(t *testing.T) {
	if os.Getenv("DAVIT_TEST_BED") == "" || os.Getenv("S3_ENDPOINT") == "" || os.Getenv("DAVIT_TEST_DB_IMAGE") == "" {
		t.Skip("needs a site of the test bed: set DAVIT_TEST_BED=1, DAVIT_TEST_KUBECONFIG, DAVIT_TEST_DB_IMAGE and what bed env prints")
	}
	clients, err := kube.Kubeconfig(os.Getenv("DAVIT_TEST_KUBECONFIG"), "")
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t, clients: clients, project: bedProject(t)}
	ns := b.namespace()
	b.database(ns, "db", "data", writes)
	before := b.acknowledged(ns)

	p := b.protector()
	app := v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: ns, Namespace: ns}, Spec: v1alpha1.ApplicationSpec{Vault: "v"}}
	s, err := p.ClaimFirst(t.Context(), app.VaultName(), "test")
	if err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	m, err := p.Capture(t.Context(), protection.CaptureRequest{Application: app, Trigger: "manual", Held: s.Held})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("captured %d objects in %s, cut within %s, acknowledged before: %d, in the cut: %d, warnings %v",
		m.Objects, time.Since(started).Round(time.Millisecond), m.CutBy.Sub(m.Instant), before, b.rows, m.Warnings)
	if b.rows < before {
		t.Errorf("the cut holds %d rows, %d were acknowledged before the capture", b.rows, before)
	}
	if m.Consistency != point.Crash || len(m.Images) == 0 {
		t.Errorf("consistency %s, images %+v", m.Consistency, m.Images)
	}
	if after := b.acknowledged(ns); after <= before {
		t.Errorf("the writer stood still: %d, then %d", before, after)
	}
	if err := b.project.VerifyObjects(t.Context(), m, nil); err != nil {
		t.Error(err)
	}
}

// bedProject makes a project in a bucket that goes with the test.
func bedProject(t *testing.T) *vault.Project {
	t.Helper()
	endpoint := os.Getenv("S3_ENDPOINT")
	key, secret := os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY")
	c, err := minio.New(strings.TrimPrefix(endpoint, "http://"), &minio.Options{Creds: credentials.NewStaticV4(key, secret, "")})
	if err != nil {
		t.Fatal(err)
	}
	bucket := fmt.Sprintf("protection-test-%d", time.Now().UnixNano())
	if err := c.MakeBucket(t.Context(), bucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	store, err := backend.Open(t.Context(), backend.Config{URL: "s3://" + bucket + "?insecureHTTP=true&endpoint=" + endpoint, AccessKey: key, SecretKey: secret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		var keys []string
		_ = store.List(ctx, "", func(o vault.ObjectInfo) error { keys = append(keys, o.Key); return nil })
		for _, k := range keys {
			_ = store.Delete(ctx, k)
		}
		if err := c.RemoveBucket(ctx, bucket); err != nil {
			t.Error(err)
		}
	})
	identity, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	project, err := vault.CreateProject(t.Context(), store, "default", identity.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// bed is what the test needs of a site. It reads cuts in the mover's place, by
// starting a database on them.
type bed struct {
	t       *testing.T
	clients *kube.Clients
	project *vault.Project
	rows    int64 // found in the cut
}

func (b *bed) protector() *protection.Protector {
	b.t.Helper()
	cluster, err := source.NewCluster(b.clients)
	if err != nil {
		b.t.Fatal(err)
	}
	return protection.New(protection.Options{
		Project: b.project, Site: "east", Cluster: cluster, Hooks: quiescer.New(b.clients),
		Volumes: source.NewVolumes(b.clients, b.clients, b, source.VolumeOptions{Vault: "v", Site: "east"}),
	})
}

func (b *bed) namespace() string {
	b.t.Helper()
	api := b.clients.Kubernetes.CoreV1().Namespaces()
	system := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.SystemNamespace}}
	if _, err := api.Create(b.t.Context(), system, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		b.t.Fatal(err)
	}
	ns, err := api.Create(b.t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "protection-test-"}}, metav1.CreateOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := api.Delete(context.Background(), ns.Name, metav1.DeleteOptions{}); err != nil {
			b.t.Error(err)
		}
	})
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: ptr.To("reflink"),
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("512Mi")}},
		},
	}
	if _, err := b.clients.Kubernetes.CoreV1().PersistentVolumeClaims(ns.Name).Create(b.t.Context(), claim, metav1.CreateOptions{}); err != nil {
		b.t.Fatal(err)
	}
	return ns.Name
}

// database runs PostgreSQL on a claim and, beside it, a client.
func (b *bed) database(ns, name, claim, client string) {
	b.t.Helper()
	mount := func(volume, path string) corev1.VolumeMount { return corev1.VolumeMount{Name: volume, MountPath: path} }
	image := os.Getenv("DAVIT_TEST_DB_IMAGE")
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: ptr.To[int64](5),
			SecurityContext:               &corev1.PodSecurityContext{RunAsUser: ptr.To[int64](999), RunAsGroup: ptr.To[int64](999), FSGroup: ptr.To[int64](999)},
			Containers: []corev1.Container{
				{
					Name: "postgres", Image: image,
					Env:          []corev1.EnvVar{{Name: "POSTGRES_PASSWORD", Value: "test"}},
					VolumeMounts: []corev1.VolumeMount{mount("data", "/var/lib/postgresql/data"), mount("tmp", "/tmp")},
				},
				{
					Name: "client", Image: image, Command: []string{"sh", "-c", client},
					VolumeMounts: []corev1.VolumeMount{mount("ack", "/ack"), mount("tmp", "/tmp")},
				},
			},
			Volumes: []corev1.Volume{
				{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}},
				{Name: "ack", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
				{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			},
		},
	}
	if _, err := b.clients.Kubernetes.CoreV1().Pods(ns).Create(b.t.Context(), pod, metav1.CreateOptions{}); err != nil {
		b.t.Fatal(err)
	}
}

// ask runs a command beside a database until it succeeds.
func (b *bed) ask(ctx context.Context, ns, pod string, command ...string) string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for {
		out, err := quiescer.New(b.clients).Exec(ctx, quiesce.Target{Namespace: ns, Pod: pod, Container: "client"}, command)
		if err == nil && strings.TrimSpace(out) != "" {
			return strings.TrimSpace(out)
		}
		if ctx.Err() != nil {
			b.t.Errorf("%q in %s/%s: %v: %s", command, ns, pod, err, out)
			return ""
		}
		time.Sleep(time.Second) // between tries, while it starts
	}
}

// acknowledged waits for some rows and returns the last that was acknowledged.
func (b *bed) acknowledged(ns string) int64 {
	b.t.Helper()
	return b.number(b.ask(b.t.Context(), ns, "db", "sh", "-c", "[ $(wc -l < /ack/ledger) -gt 50 ] && tail -1 /ack/ledger"))
}

func (b *bed) number(text string) int64 {
	b.t.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		b.t.Error(err)
	}
	return n
}

// Read implements source.Reader.
func (b *bed) Read(ctx context.Context, req mover.Request) (mover.Result, error) {
	pod := "check-" + req.Claim
	b.database(req.Namespace, pod, req.Claim, "sleep 3600")
	defer func() {
		err := b.clients.Kubernetes.CoreV1().Pods(req.Namespace).Delete(context.WithoutCancel(ctx), pod, metav1.DeleteOptions{})
		if err != nil {
			b.t.Error(err)
		}
	}()
	answer := b.ask(ctx, req.Namespace, pod, "psql", "-qtAh", "/tmp", "-U", "postgres", "shop", "-c", "select count(*) || ' ' || max(id) from ledger")
	count, last, _ := strings.Cut(answer, " ")
	if count != last {
		b.t.Errorf("the cut holds %s rows up to number %s", count, last)
	}
	b.rows = b.number(count)
	if got := b.ask(ctx, req.Namespace, pod, "sh", "-c", "pg_amcheck -h /tmp -U postgres --heapallindexed -d shop && echo sound"); got != "sound" {
		b.t.Errorf("pg_amcheck: %s", got)
	}
	return mover.Result{Snapshot: point.Snapshot{Repository: "east", ID: "checked", Bytes: b.rows}}, nil
}
