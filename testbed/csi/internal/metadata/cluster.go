package metadata

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Cluster asks the API server.
type Cluster struct {
	URL    string
	Client *http.Client
	Token  func() (string, error)
}

const account = "/var/run/secrets/kubernetes.io/serviceaccount/"

// InCluster asks the API server of the pod that this runs in.
func InCluster() (*Cluster, error) {
	authority, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		return nil, fmt.Errorf("read the cluster's certificate: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, errors.New("read the cluster's certificate: there is none")
	}
	host := net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	return &Cluster{
		URL:    "https://" + host,
		Client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}},
		Token:  func() (string, error) { data, err := os.ReadFile(account + "token"); return string(data), err },
	}, nil
}

// errConflict says that somebody else has said otherwise.
var errConflict = errors.New("conflict")

// do sends an object and reads the answer. A patch is a server-side apply.
func (c *Cluster) do(ctx context.Context, method, path string, in, out any) error {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.URL+path, &body)
	if err != nil {
		return err
	}
	token, err := c.Token()
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", map[bool]string{true: "application/apply-patch+yaml", false: "application/json"}[method == "PATCH"])
	resp, err := c.Client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	switch {
	case resp.StatusCode == http.StatusConflict:
		return fmt.Errorf("%s %s: %w: %s", method, path, errConflict, data)
	case resp.StatusCode/100 != 2:
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, data)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, out)
}

// admit refuses who is not known by the token, or may not read snapshots of the namespace.
func (c *Cluster) admit(ctx context.Context, token, namespace string) error {
	var review struct {
		Status struct {
			Authenticated bool     `json:"authenticated"`
			Audiences     []string `json:"audiences"`
			User          struct {
				Username string              `json:"username"`
				UID      string              `json:"uid"`
				Groups   []string            `json:"groups"`
				Extra    map[string][]string `json:"extra"`
			} `json:"user"`
		} `json:"status"`
	}
	ask := map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
		"spec": map[string]any{"token": token, "audiences": []string{audience}},
	}
	if err := c.do(ctx, "POST", "/apis/authentication.k8s.io/v1/tokenreviews", ask, &review); err != nil {
		return status.Errorf(codes.Internal, "authenticate: %v", err)
	}
	if !review.Status.Authenticated || !slices.Contains(review.Status.Audiences, audience) {
		return status.Error(codes.Unauthenticated, "the token is not known, or not for this service")
	}
	user := review.Status.User
	var access struct {
		Status struct {
			Allowed bool `json:"allowed"`
		} `json:"status"`
	}
	ask = map[string]any{
		"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
		"spec": map[string]any{
			"user": user.Username, "uid": user.UID, "groups": user.Groups, "extra": user.Extra,
			"resourceAttributes": map[string]any{"verb": "get", "namespace": namespace, "group": "snapshot.storage.k8s.io", "version": "v1", "resource": "volumesnapshots"},
		},
	}
	if err := c.do(ctx, "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", ask, &access); err != nil {
		return status.Errorf(codes.Internal, "authorize: %v", err)
	}
	if !access.Status.Allowed {
		return status.Errorf(codes.PermissionDenied, "%s may not read snapshots of namespace %s", user.Username, namespace)
	}
	return nil
}

// snapshot returns what the driver calls a snapshot.
func (c *Cluster) snapshot(ctx context.Context, namespace, name, driver string) (string, error) {
	var snap struct {
		Status struct {
			ReadyToUse bool   `json:"readyToUse"`
			Content    string `json:"boundVolumeSnapshotContentName"`
		} `json:"status"`
	}
	const api = "/apis/snapshot.storage.k8s.io/v1"
	if err := c.do(ctx, "GET", api+"/namespaces/"+namespace+"/volumesnapshots/"+name, nil, &snap); err != nil {
		return "", status.Errorf(codes.NotFound, "%v", err)
	}
	if !snap.Status.ReadyToUse || snap.Status.Content == "" {
		return "", status.Errorf(codes.Unavailable, "snapshot %s/%s is not ready", namespace, name)
	}
	var content struct {
		Spec struct {
			Driver string `json:"driver"`
		} `json:"spec"`
		Status struct {
			Handle string `json:"snapshotHandle"`
		} `json:"status"`
	}
	if err := c.do(ctx, "GET", api+"/volumesnapshotcontents/"+snap.Status.Content, nil, &content); err != nil {
		return "", status.Errorf(codes.NotFound, "%v", err)
	}
	if content.Spec.Driver != driver || content.Status.Handle == "" {
		return "", status.Errorf(codes.InvalidArgument, "snapshot %s/%s is not of driver %s", namespace, name, driver)
	}
	return content.Status.Handle, nil
}

// Certificate makes one for a host that nobody else vouches for, and returns it as its own authority, too.
func Certificate(host string, now time.Time) (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("make key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "snapshot-metadata"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true,
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("make certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
