package bed

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"davit.dev/davit/testbed/bed/pki"
	"davit.dev/davit/testbed/build"
)

// Ports of the S3 server.
const (
	s3Port     = 7070
	s3KeptPort = 7071
	s3TLSPort  = 7443
)

// S3Info is how the bed's S3 server is reached, from the host and from every site.
type S3Info struct {
	Endpoint    string `json:"endpoint"`    // plain HTTP
	TLSEndpoint string `json:"tlsEndpoint"` // HTTPS, signed by CAFile; the same data
	// KeptEndpoint is another server, with data of its own, whose buckets can
	// keep former versions: plain HTTP, the same keys. Users made at one are not
	// known at the other.
	KeptEndpoint string `json:"keptEndpoint"`
	CAFile       string `json:"caFile"`
	AccessKey    string `json:"accessKey"`
	SecretKey    string `json:"secretKey"`
	Region       string `json:"region"`
	DataDir      string `json:"dataDir"` // a directory is a bucket, a file an object
}

// S3 tells where the vault is. Buckets are made by those who use them.
func (b *Bed) S3() S3Info {
	v := b.vault()
	return S3Info{
		Endpoint:     fmt.Sprintf("http://%s:%d", v.net.Address(), s3Port),
		TLSEndpoint:  fmt.Sprintf("https://%s:%d", v.net.Address(), s3TLSPort),
		KeptEndpoint: fmt.Sprintf("http://%s:%d", v.net.Address(), s3KeptPort),
		CAFile:       filepath.Join(v.dir, "pki", "ca.crt"),
		AccessKey:    b.spec.AccessKey,
		SecretKey:    b.spec.SecretKey,
		Region:       "us-east-1",
		DataDir:      filepath.Join(v.dir, "data"),
	}
}

func (b *Bed) writeVaultPKI(now time.Time) error {
	v := b.vault()
	ca, err := pki.OpenAuthority(filepath.Join(v.dir, "pki"), "ca", "bed vault "+b.instance, now)
	if err != nil {
		return err
	}
	return ca.Issue(pki.Leaf{Name: "server", CN: "vault", Hosts: []string{"vault.bed", "localhost", "127.0.0.1", v.net.Address()}})
}

// startVault runs the S3 server and, in front of it, the one that ends TLS.
func (b *Bed) startVault(ctx context.Context, bin build.Set) error {
	v, info := b.vault(), b.S3()
	iam, kept, keptIAM, versions := filepath.Join(v.dir, "iam"), filepath.Join(v.dir, "kept"), filepath.Join(v.dir, "kept-iam"), filepath.Join(v.dir, "kept-versions")
	for _, dir := range []string{info.DataDir, iam, kept, keptIAM, versions} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("create vault directory: %w", err)
		}
	}
	pki := filepath.Join(v.dir, "pki")
	// In the environment rather than in the arguments, which everyone on the host can read.
	root := []string{"ROOT_ACCESS_KEY=" + info.AccessKey, "ROOT_SECRET_KEY=" + info.SecretKey}
	gateway := func(port int, iam string, args ...string) []string {
		return append([]string{bin.Path("versitygw"), "--port", fmt.Sprintf(":%d", port), "--region", info.Region, "--iam-dir", iam, "--quiet", "--keep-alive", "posix"}, args...)
	}
	for _, p := range []process{
		{name: "s3", argv: gateway(s3Port, iam, info.DataDir), env: root},
		{name: "s3-kept", argv: gateway(s3KeptPort, keptIAM, "--versioning-dir", versions, kept), env: root},
		{name: "s3-tls", argv: []string{
			bin.Path("bed-tls"), "-listen", fmt.Sprintf(":%d", s3TLSPort), "-to", fmt.Sprintf("127.0.0.1:%d", s3Port),
			"-cert", pki + "/server.crt", "-key", pki + "/server.key",
		}},
	} {
		if err := v.start(p); err != nil {
			return err
		}
	}
	for name, port := range map[string]int{"s3": s3Port, "s3-kept": s3KeptPort, "s3-tls": s3TLSPort} {
		address := net.JoinHostPort(v.net.Address(), strconv.Itoa(port))
		if err := v.await(ctx, name, func() error {
			c, err := net.DialTimeout("tcp", address, time.Second)
			if err != nil {
				return err
			}
			return c.Close()
		}); err != nil {
			return err
		}
	}
	return nil
}

func newSecret(bytes int) string {
	buf := make([]byte, bytes)
	_, _ = rand.Read(buf) // does not fail on Linux
	return hex.EncodeToString(buf)
}
