package bed

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// s3Client speaks to the vault through one of its endpoints, trusting the bed's CA and nothing else.
func s3Client(t *testing.T, info S3Info, endpoint string) *minio.Client {
	t.Helper()
	u := must(url.Parse(endpoint))(t)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(must(os.ReadFile(info.CAFile))(t))
	return must(minio.New(u.Host, &minio.Options{
		Creds:      credentials.NewStaticV4(info.AccessKey, info.SecretKey, ""),
		Secure:     u.Scheme == "https",
		Region:     info.Region,
		Transport:  &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true},
		MaxRetries: 1,
	}))(t)
}

const (
	bucket = "probe"
	object = "a/b"
)

// vaultSpeaks writes through TLS, reads without, and shows that both ports have one idea of what exists.
func vaultSpeaks(ctx context.Context, b *Bed, t *testing.T) {
	info := b.S3()
	secure, plain := s3Client(t, info, info.TLSEndpoint), s3Client(t, info, info.Endpoint)
	check(t, secure.MakeBucket(ctx, bucket, minio.MakeBucketOptions{}))
	once := minio.PutObjectOptions{}
	once.SetMatchETagExcept("*")
	must(secure.PutObject(ctx, bucket, object, strings.NewReader("first"), 5, once))(t)
	if _, err := plain.PutObject(ctx, bucket, object, strings.NewReader("other"), 5, once); minio.ToErrorResponse(err).StatusCode != http.StatusPreconditionFailed {
		t.Errorf("a second put-if-absent got %v", err)
	}
	if got := readObject(ctx, t, plain); got != "first" {
		t.Errorf("read %q", got)
	}
	if _, err := http.Get(info.TLSEndpoint); err == nil {
		t.Error("a client without the bed's CA trusts the vault")
	}
}

func readObject(ctx context.Context, t *testing.T, c *minio.Client) string {
	t.Helper()
	o := must(c.GetObject(ctx, bucket, object, minio.GetObjectOptions{}))(t)
	return string(must(io.ReadAll(o))(t))
}

func vaultKill(ctx context.Context, b *Bed, t *testing.T) {
	info := b.S3()
	check(t, b.Kill(ctx, VaultName))
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if ok, err := s3Client(t, info, info.Endpoint).BucketExists(short, bucket); err == nil {
		t.Errorf("a killed vault answers: %v", ok)
	}
	check(t, b.Revive(ctx, VaultName))
	if got := readObject(ctx, t, s3Client(t, info, info.TLSEndpoint)); got != "first" {
		t.Errorf("the revived vault has %q", got)
	}
}

// establishedCut shows that a cut stops a connection that already carries data, and that it goes on after healing.
func establishedCut(ctx context.Context, b *Bed, t *testing.T) {
	address := net.JoinHostPort(b.vault().net.Address(), strconv.Itoa(s3Port))
	conn := must(b.Site("north").Dial(ctx, address))(t)
	defer conn.Close()
	answers := bufio.NewReader(conn)
	ask := func() { must(io.WriteString(conn, "GET / HTTP/1.1\r\nHost: vault\r\n\r\n"))(t) }
	answer := func(within time.Duration) error {
		check(t, conn.SetReadDeadline(time.Now().Add(within)))
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	ask()
	check(t, answer(5*time.Second))
	check(t, b.Cut(ctx, "north", VaultName))
	ask()
	if err := answer(time.Second); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read over a cut connection: %v", err)
	}
	check(t, b.Heal(ctx, "north", VaultName))
	check(t, answer(10*time.Second))
}
