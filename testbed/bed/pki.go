package bed

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
)

const certLife = 10 * 365 * 24 * time.Hour

// authority signs certificates. Its files are <dir>/<name>.crt and <dir>/<name>.key.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	now  time.Time
}

// leaf says what a certificate is for.
type leaf struct {
	name   string // file name without extension
	cn     string
	groups []string
	hosts  []string // DNS names and addresses; none means a client certificate
}

// openAuthority loads the authority at dir/name, or makes it: a site keeps its identity over kill and revive.
func openAuthority(dir, name, cn string, now time.Time) (*authority, error) {
	a := &authority{dir: dir, now: now}
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

func (a *authority) load(crt, key string) error {
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

// issue writes <dir>/<name>.{crt,key} unless they exist.
func (a *authority) issue(l leaf) error {
	crt := filepath.Join(a.dir, l.name+".crt")
	if _, err := os.Stat(crt); err == nil {
		return nil
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("generate key of %s: %w", l.name, err)
	}
	der, err := x509.CreateCertificate(rand.Reader, l.template(a.now), a.cert, k.Public(), a.key)
	if err != nil {
		return fmt.Errorf("sign %s: %w", l.name, err)
	}
	if err := writeKey(filepath.Join(a.dir, l.name+".key"), k); err != nil {
		return err
	}
	return writePEM(crt, "CERTIFICATE", der, 0o644)
}

func (l leaf) template(now time.Time) *x509.Certificate {
	t := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: l.cn, Organization: l.groups},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(certLife),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if len(l.hosts) == 0 {
		return t
	}
	t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	for _, h := range l.hosts {
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

// writeSitePKI lays out the files as kubeadm does, because that is what tools that save a control plane look for.
func writeSitePKI(dir, site string, net Subnet, now time.Time) error {
	ca, err := openAuthority(dir, "ca", "kubernetes", now)
	if err != nil {
		return err
	}
	etcd, err := openAuthority(filepath.Join(dir, "etcd"), "ca", "etcd-ca", now)
	if err != nil {
		return err
	}
	for _, l := range []leaf{
		{name: "server", cn: site, hosts: []string{"localhost", "127.0.0.1", net.Address()}},
		{name: "apiserver-etcd-client", cn: "kube-apiserver-etcd-client"},
	} {
		if err := etcd.issue(l); err != nil {
			return err
		}
	}
	for _, l := range siteLeaves(site, net) {
		if err := ca.issue(l); err != nil {
			return err
		}
	}
	return writeServiceAccountKey(dir)
}

func siteLeaves(site string, net Subnet) []leaf {
	api := []string{
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
		"localhost", "127.0.0.1", net.Address(), net.APIService(), site + ".bed",
	}
	return []leaf{
		{name: "apiserver", cn: "kube-apiserver", hosts: api},
		{name: "apiserver-kubelet-client", cn: "kube-apiserver-kubelet-client", groups: []string{"system:masters"}},
		{name: "admin", cn: "kubernetes-admin", groups: []string{"system:masters"}},
		{name: "controller-manager", cn: "system:kube-controller-manager"},
		{name: "scheduler", cn: "system:kube-scheduler"},
		{name: "kube-proxy", cn: "system:kube-proxy"},
		{name: "kubelet", cn: "system:node:" + site, groups: []string{"system:nodes"}, hosts: []string{site, "127.0.0.1", net.Address()}},
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
	return writeFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
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
