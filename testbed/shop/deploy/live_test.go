package deploy_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/testbed/shop/deploy"
	"davit.dev/davit/testbed/shop/internal/ledger"
)

const namespace = "shop-live"

// site runs kubectl against the cluster under test.
type site struct{ t *testing.T }

func kubectlPath() string {
	if path := os.Getenv("SHOP_TEST_KUBECTL"); path != "" {
		return path
	}
	return "kubectl"
}

func (s site) try(stdin string, args ...string) (string, error) {
	args = append([]string{"--kubeconfig", os.Getenv("SHOP_TEST_KUBECONFIG"), "-n", namespace}, args...)
	cmd := exec.CommandContext(s.t.Context(), kubectlPath(), args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

func (s site) kubectl(stdin string, args ...string) string {
	s.t.Helper()
	out, err := s.try(stdin, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s site) number(pod, query string) int64 {
	s.t.Helper()
	n, err := strconv.ParseInt(s.kubectl("", "exec", pod, "--", "psql", "-U", "postgres", "shop", "-Atc", query), 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// startLedger serves a ledger on an address of the host that pods reach.
func startLedger(t *testing.T) (*ledger.Ledger, string) {
	t.Helper()
	l, err := ledger.Open(filepath.Join(t.TempDir(), "ledger"))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(os.Getenv("SHOP_TEST_LEDGER_IP"), "0"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: l.Handler(), ReadHeaderTimeout: time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return l, "http://" + listener.Addr().String()
}

func (s site) deploy(p deploy.Params) {
	s.t.Helper()
	parts, err := deploy.Render(p)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, part := range parts {
		s.kubectl(string(part.YAML), "apply", "--server-side", "--force-conflicts", "-f", "-")
		s.kubectl("", "wait", "--for=condition=Established", "--timeout=3m", "crd/warehouses.shop.example.com", "crd/shelves.shop.example.com")
	}
	owned, err := deploy.RenderOwned(p, s.kubectl("", "get", deploy.Owner, "-o", "jsonpath={.metadata.uid}"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.kubectl(string(owned), "apply", "--server-side", "-f", "-")
	s.kubectl("", "rollout", "status", "statefulset/db", "--timeout=4m")
	s.kubectl("", "rollout", "status", "deployment/web", "--timeout=4m")
}

const clone = `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: clone}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Gi}}
  dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: live}
---
apiVersion: v1
kind: Pod
metadata: {name: clone}
spec:
  securityContext: {runAsUser: 999, runAsGroup: 999, fsGroup: 999, fsGroupChangePolicy: OnRootMismatch}
  containers:
  - name: postgres
    image: %s
    imagePullPolicy: IfNotPresent
    readinessProbe: {exec: {command: [pg_isready, -q]}, periodSeconds: 1}
    volumeMounts: [{name: data, mountPath: /var/lib/postgresql/data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: clone}}]
`

const snapshot = `
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {name: live}
spec: {source: {persistentVolumeClaimName: data-db-0}}
`

// TestLive runs the shop on a real site, takes a snapshot while orders are written, and starts a second database on a
// clone of it: every order acknowledged before the snapshot is there, and every order that is there is whole.
func TestLive(t *testing.T) {
	if os.Getenv("SHOP_TEST_KUBECONFIG") == "" {
		t.Skip("set SHOP_TEST_KUBECONFIG, _DB_IMAGE, _APP_IMAGE and _LEDGER_IP to run the shop on a site; see the README")
	}
	s := site{t}
	book, url := startLedger(t)
	p := deploy.Params{
		Namespace: namespace, LedgerURL: url, Rate: "200", NodePort: 30081,
		DatabaseImage: os.Getenv("SHOP_TEST_DB_IMAGE"), AppImage: os.Getenv("SHOP_TEST_APP_IMAGE"),
	}
	t.Cleanup(func() {
		cmd := exec.Command(kubectlPath(), "--kubeconfig", os.Getenv("SHOP_TEST_KUBECONFIG"), "delete", "namespace", namespace, "--ignore-not-found")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("delete namespace: %v: %s", err, out)
		}
	})
	s.deploy(p)
	s.kubectl("", "exec", "db-0", "--", "sh", "-c",
		`until [ "$(psql -U postgres shop -Atc 'select count(*) from orders')" -gt 500 ]; do :; done`)
	before := time.Now()
	s.kubectl(snapshot, "apply", "-f", "-")
	s.kubectl("", "wait", "volumesnapshot/live", "--for=jsonpath={.status.readyToUse}=true", "--timeout=3m")
	s.kubectl(fmt.Sprintf(clone, p.DatabaseImage), "apply", "-f", "-")
	s.kubectl("", "wait", "pod/clone", "--for=condition=Ready", "--timeout=4m")

	acked := book.Before(before)
	if len(acked) == 0 {
		t.Fatal("the ledger has no order from before the snapshot")
	}
	last := acked[len(acked)-1].ID
	if got := s.number("clone", fmt.Sprintf("select count(*) from orders where id <= %d", last)); got != last {
		t.Errorf("the clone has %d of the %d orders acknowledged before the snapshot", got, last)
	}
	broken := "select count(*) from orders where checksum <> encode(sha256(payload::bytea), 'hex')"
	if got := s.number("clone", broken); got != 0 {
		t.Errorf("the clone has %d broken orders", got)
	}
	s.kubectl("", "exec", "clone", "--", "pg_amcheck", "-U", "postgres", "-d", "shop", "--heapallindexed")
	if now := s.number("db-0", "select max(id) from orders"); now <= last {
		t.Errorf("the live database stands at order %d since the snapshot", now)
	}
}
