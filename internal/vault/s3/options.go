package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/lock"
)

// defaultStall is how long a connection may make no progress in either direction.
const defaultStall = 30 * time.Second

// Options are where the bucket is and how to get in.
type Options struct {
	// Endpoint is a URL, http or https, or a bare host[:port], which means
	// https. Empty means Amazon's for the region.
	Endpoint string
	Bucket   string
	Prefix   string // within the bucket; slashes at its ends do not matter
	Region   string // empty: asked of Amazon, "us-east-1" elsewhere
	// PathStyle puts the bucket into the path instead of the host name, as
	// most servers other than Amazon's need.
	PathStyle bool

	AccessKey, SecretKey string
	SessionToken         string // optional

	CA           []byte // PEM; trusted besides the system's roots
	InsecureHTTP bool   // allows an endpoint without TLS

	// Lock says how objects are locked as they are written.
	Lock lock.Policy

	// Stall is how long a connection may make no progress; 0 means 30 s.
	Stall time.Duration
}

// maxPrefix leaves room for a vault's keys in the 1024 bytes of S3's.
const maxPrefix = 120

const amazon = "s3.amazonaws.com"

// address splits the endpoint into what the client wants and checks the options.
func (o Options) address() (host string, secure bool, err error) {
	if o.Bucket == "" {
		return "", false, errors.New("no bucket given: want s3://BUCKET/PREFIX")
	}
	if o.AccessKey == "" || o.SecretKey == "" {
		return "", false, errors.New("access key or secret key is missing")
	}
	if err := o.checkPrefix(); err != nil {
		return "", false, err
	}
	endpoint := o.Endpoint
	if endpoint == "" {
		endpoint = amazon
	}
	if !strings.Contains(endpoint, "://") {
		endpoint = "https://" + endpoint
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.User != nil || u.RawQuery != "" {
		return "", false, fmt.Errorf("endpoint %q: want https://HOST[:PORT]", o.Endpoint)
	}
	switch {
	case u.Scheme == "https":
		return u.Host, true, nil
	case u.Scheme == "http" && o.InsecureHTTP:
		return u.Host, false, nil
	case u.Scheme == "http":
		return "", false, fmt.Errorf("endpoint %q has no TLS: use https, or add ?insecureHTTP=true to the address to allow plain HTTP", o.Endpoint)
	}
	return "", false, fmt.Errorf("endpoint %q: want https://HOST[:PORT]", o.Endpoint)
}

func (o Options) checkPrefix() error {
	prefix := strings.Trim(o.Prefix, "/")
	if prefix == "" {
		return nil
	}
	if len(prefix) > maxPrefix {
		return fmt.Errorf("prefix of %d bytes: want at most %d", len(prefix), maxPrefix)
	}
	if err := vault.CheckKey(prefix); err != nil {
		return fmt.Errorf("prefix: %w", err)
	}
	return nil
}

func (o Options) prefix() string {
	if prefix := strings.Trim(o.Prefix, "/"); prefix != "" {
		return prefix + "/"
	}
	return ""
}

func (o Options) region() string {
	if o.Region == "" && o.Endpoint != "" && !strings.HasSuffix(o.Endpoint, "amazonaws.com") {
		return "us-east-1"
	}
	return o.Region
}

// transport is HTTP whose connections do not outlive their silence.
func (o Options) transport(secure bool) (*http.Transport, error) {
	stall := o.Stall
	if stall <= 0 {
		stall = defaultStall
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &stallConn{Conn: conn, stall: stall}, nil
		},
		MaxIdleConnsPerHost: 32,
		IdleConnTimeout:     stall,
		TLSHandshakeTimeout: 10 * time.Second,
		DisableCompression:  true, // objects come as they are
	}
	if !secure {
		return t, nil
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if len(o.CA) > 0 && !roots.AppendCertsFromPEM(o.CA) {
		return nil, errors.New("CA holds no certificate: want PEM")
	}
	t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return t, nil
}

// stallConn breaks a connection on which neither direction moves. Progress in
// one direction also prolongs a call that waits in the other: a long upload
// does not time out the reader of its answer.
type stallConn struct {
	net.Conn
	stall time.Duration
}

func (c *stallConn) Read(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Write sends in pieces, so that a slow line that moves is no stall.
func (c *stallConn) Write(p []byte) (written int, err error) {
	const piece = 64 << 10
	for len(p) > 0 && err == nil {
		if err = c.SetDeadline(time.Now().Add(c.stall)); err != nil {
			return written, err
		}
		var n int
		n, err = c.Conn.Write(p[:min(len(p), piece)])
		written += n
		p = p[n:]
	}
	return written, err
}
