package pki

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"davit.dev/davit/testbed/bed/host"
)

func loadCert(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	return must(x509.ParseCertificate(must(readPEM(path))(t)))(t)
}

func TestSitePKI(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	net := host.Subnet{Index: 42}
	check(t, WriteSite(dir, "east", net, now))
	roots := x509.NewCertPool()
	roots.AddCert(loadCert(t, filepath.Join(dir, "ca.crt")))
	server := x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, host := range []string{net.Address(), net.APIService(), "127.0.0.1", "kubernetes.default.svc", "east.bed"} {
		server.DNSName = host
		if _, err := loadCert(t, filepath.Join(dir, "apiserver.crt")).Verify(server); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	server.DNSName = "west.bed"
	if _, err := loadCert(t, filepath.Join(dir, "apiserver.crt")).Verify(server); err == nil {
		t.Error("the certificate is good for a host it does not name")
	}
	client := x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	node := loadCert(t, filepath.Join(dir, "kubelet.crt"))
	if _, err := node.Verify(client); err != nil || node.Subject.CommonName != "system:node:east" || node.Subject.Organization[0] != "system:nodes" {
		t.Errorf("kubelet is %s: %v", node.Subject, err)
	}
	if _, err := loadCert(t, filepath.Join(dir, "etcd", "server.crt")).Verify(client); err == nil {
		t.Error("the cluster's authority vouches for etcd's certificates")
	}
}

func TestSitePKIIsKept(t *testing.T) {
	dir := t.TempDir()
	check(t, WriteSite(dir, "east", host.Subnet{Index: 42}, time.Now()))
	before := snapshot(t, dir)
	check(t, WriteSite(dir, "east", host.Subnet{Index: 42}, time.Now().Add(time.Hour)))
	after := snapshot(t, dir)
	if len(before) < 20 {
		t.Errorf("only %d files", len(before))
	}
	for path, data := range before {
		if after[path] != data {
			t.Errorf("%s changed", path)
		}
		if st := must(os.Stat(path))(t); filepath.Ext(path) == ".key" && st.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, st.Mode())
		}
	}
}

func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	check(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		files[path] = string(data)
		return err
	}))
	return files
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		check(t, err)
		return v
	}
}
