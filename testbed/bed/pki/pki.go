// Package pki makes the certificates of a bed, laid out as kubeadm does.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"davit.dev/davit/testbed/bed/host"
)

const certLife = 10 * 365 * 24 * time.Hour

// Authority signs certificates. Its files are <dir>/<name>.crt and <dir>/<name>.key.
type Authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	now  time.Time
}

// Leaf says what a certificate is for.
type Leaf struct {
	Name   string // file name without extension
	CN     string
	Groups []string
	Hosts  []string // DNS names and addresses; none means a client certificate
}

// OpenAuthority loads the authority at dir/name, or makes it: a site keeps its identity over kill and revive.
func OpenAuthority(dir, name, cn string, now time.Time) (*Authority, error) {
	a := &Authority{dir: dir, now: now}
	crt, key := filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	if err := a.load(crt, key); err == nil {
		return a, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key of %s: %w", cn, err)
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: cn},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(certLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		return nil, fmt.Errorf("sign authority %s: %w", cn, err)
	}
	// The key goes first: a certificate on disk means that its key is there too.
	if err := writeKey(key, k); err != nil {
		return nil, err
	}
	if err := writePEM(crt, "CERTIFICATE", der, 0o644); err != nil {
		return nil, err
	}
	return a, a.load(crt, key)
}

func (a *Authority) load(crt, key string) error {
	c, err := readPEM(crt)
	if err != nil {
		return err
	}
	if a.cert, err = x509.ParseCertificate(c); err != nil {
		return fmt.Errorf("parse %s: %w", crt, err)
	}
	k, err := readPEM(key)
	if err != nil {
		return err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(k)
	if err != nil {
		return fmt.Errorf("parse %s: %w", key, err)
	}
	a.key, _ = parsed.(*ecdsa.PrivateKey)
	if a.key == nil {
		return fmt.Errorf("parse %s: not an ECDSA key; remove the instance with 'bed down' and start anew", key)
	}
	return nil
}

// Issue writes <dir>/<name>.{crt,key} unless they exist.
func (a *Authority) Issue(l Leaf) error {
	crt := filepath.Join(a.dir, l.Name+".crt")
	if _, err := os.Stat(crt); err == nil {
		return nil
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("generate key of %s: %w", l.Name, err)
	}
	der, err := x509.CreateCertificate(rand.Reader, l.template(a.now), a.cert, k.Public(), a.key)
	if err != nil {
		return fmt.Errorf("sign %s: %w", l.Name, err)
	}
	if err := writeKey(filepath.Join(a.dir, l.Name+".key"), k); err != nil {
		return err
	}
	return writePEM(crt, "CERTIFICATE", der, 0o644)
}

func (l Leaf) template(now time.Time) *x509.Certificate {
	t := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: l.CN, Organization: l.Groups},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(certLife),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if len(l.Hosts) == 0 {
		return t
	}
	t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	for _, h := range l.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return t
}

// writeServiceAccountKey makes the pair that signs and checks service account tokens.
func writeServiceAccountKey(dir string) error {
	pub := filepath.Join(dir, "sa.pub")
	if _, err := os.Stat(pub); err == nil {
		return nil
	}
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("generate service account key: %w", err)
	}
	if err := writeKey(filepath.Join(dir, "sa.key"), k); err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		return fmt.Errorf("encode service account key: %w", err)
	}
	return writePEM(pub, "PUBLIC KEY", der, 0o644)
}

// WriteSite lays out the files as kubeadm does, because that is what tools that save a control plane look for.
func WriteSite(dir, site string, net host.Subnet, now time.Time) error {
	ca, err := OpenAuthority(dir, "ca", "kubernetes", now)
	if err != nil {
		return err
	}
	etcd, err := OpenAuthority(filepath.Join(dir, "etcd"), "ca", "etcd-ca", now)
	if err != nil {
		return err
	}
	for _, l := range []Leaf{
		{Name: "server", CN: site, Hosts: []string{"localhost", "127.0.0.1", net.Address()}},
		{Name: "apiserver-etcd-client", CN: "kube-apiserver-etcd-client"},
	} {
		if err := etcd.Issue(l); err != nil {
			return err
		}
	}
	for _, l := range siteLeaves(site, net) {
		if err := ca.Issue(l); err != nil {
			return err
		}
	}
	return writeServiceAccountKey(dir)
}

func siteLeaves(site string, net host.Subnet) []Leaf {
	api := []string{
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
		"localhost", "127.0.0.1", net.Address(), net.APIService(), site + ".bed",
	}
	return []Leaf{
		{Name: "apiserver", CN: "kube-apiserver", Hosts: api},
		{Name: "apiserver-kubelet-client", CN: "kube-apiserver-kubelet-client", Groups: []string{"system:masters"}},
		{Name: "admin", CN: "kubernetes-admin", Groups: []string{"system:masters"}},
		{Name: "controller-manager", CN: "system:kube-controller-manager"},
		{Name: "scheduler", CN: "system:kube-scheduler"},
		{Name: "kube-proxy", CN: "system:kube-proxy"},
		{Name: "kubelet", CN: "system:node:" + site, Groups: []string{"system:nodes"}, Hosts: []string{site, "127.0.0.1", net.Address()}},
	}
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		panic(err) // crypto/rand does not fail on Linux
	}
	return n
}

func writeKey(path string, key crypto.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return writePEM(path, "PRIVATE KEY", der, 0o600)
}

func writePEM(path, kind string, der []byte, mode fs.FileMode) error {
	return host.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}

func readPEM(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read certificate or key: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("read %s: no PEM block; remove the instance with 'bed down' and start anew", path)
	}
	return block.Bytes, nil
}
