package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// Where a pod finds what it needs to talk to the API server.
const accountDir = "/var/run/secrets/kubernetes.io/serviceaccount/"

// object is an API object as JSON has it.
type object = map[string]any

// cluster is a client of the API server.
type cluster struct {
	base, namespace string
	http            *http.Client
	trusted         bool // the API server knows the webhook's certificate
}

// statusError is an answer other than success.
type statusError struct {
	code int
	text string
}

// Error implements error.
func (s *statusError) Error() string { return fmt.Sprintf("%d: %s", s.code, s.text) }

func isCode(err error, code int) bool {
	var s *statusError
	return errors.As(err, &s) && s.code == code
}

func inCluster() (*cluster, error) {
	ca, err := os.ReadFile(accountDir + "ca.crt")
	if err != nil {
		return nil, fmt.Errorf("read the cluster's authority: %w", err)
	}
	namespace, err := os.ReadFile(accountDir + "namespace")
	if err != nil {
		return nil, fmt.Errorf("read namespace: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &cluster{
		base:      "https://" + net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")),
		namespace: string(namespace),
		http: &http.Client{
			Timeout:   10 * time.Second,
			Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}},
		},
	}, nil
}

// account is the operator's own name to the API server.
func (c *cluster) account() string { return "system:serviceaccount:" + c.namespace + ":lighthouse" }

// path is the address of a namespaced collection; group is empty for the core.
func (c *cluster) path(group, version, resource string, name ...string) string {
	root := "/apis/" + group
	if group == "" {
		root = "/api"
	}
	return strings.Join(append([]string{root, version, "namespaces", c.namespace, resource}, name...), "/")
}

// call sends body, if any, and decodes the answer into an object.
func (c *cluster) call(ctx context.Context, method, path, contentType string, body any) (object, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	// The kubelet renews the token.
	token, err := os.ReadFile(accountDir + "token")
	if err != nil {
		return nil, fmt.Errorf("read token: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+string(token))
	req.Header.Set("Content-Type", contentType)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		return nil, fmt.Errorf("%s %s: %w", method, path, &statusError{resp.StatusCode, string(text)})
	}
	var o object
	if err := json.Unmarshal(text, &o); err != nil {
		return nil, fmt.Errorf("decode answer to %s %s: %w", method, path, err)
	}
	return o, nil
}

func (c *cluster) get(ctx context.Context, path string) (object, error) {
	return c.call(ctx, http.MethodGet, path, "application/json", nil)
}

func (c *cluster) create(ctx context.Context, path string, o object) (object, error) {
	return c.call(ctx, http.MethodPost, path, "application/json", o)
}

// merge patches an object.
func (c *cluster) merge(ctx context.Context, path string, patch object) error {
	_, err := c.call(ctx, http.MethodPatch, path, "application/merge-patch+json", patch)
	return err
}

// at returns what is under the keys, or nil.
func at(o object, keys ...string) any {
	var v any = o
	for _, k := range keys {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[k]
	}
	return v
}

// text is at for strings.
func text(o object, keys ...string) string {
	s, _ := at(o, keys...).(string)
	return s
}

// items are the objects of a list.
func items(o object) []object {
	list, _ := o["items"].([]any)
	var all []object
	for _, v := range list {
		if m, ok := v.(map[string]any); ok {
			all = append(all, m)
		}
	}
	return all
}
