// Package kube opens the way to one Kubernetes cluster: a bundle of clients
// that every adapter shares, and what the cluster says of itself. The adapters
// of the engines' ports live in its sub-packages.
package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"

	davitversion "davit.dev/davit/internal/version"
)

// unlimited switches the client's own rate limiter off. The API server's
// priority and fairness rules decide who waits.
const unlimited = -1

// Clients are all the clients of one cluster that act as one user. They share
// one HTTP client, and are safe for use by several goroutines.
type Clients struct {
	RESTConfig *rest.Config
	Dynamic    dynamic.Interface
	// Discovery always asks the server; nothing is remembered.
	Discovery  discovery.DiscoveryInterface
	Kubernetes kubernetes.Interface
	// Mapper finds the resource of a kind, from a memory that Reset empties:
	// call it after CRDs were made, and when a kind is not found.
	Mapper meta.ResettableRESTMapper
}

// New makes clients from a configuration, which it copies. The configuration's
// own rate limits are switched off.
func New(cfg *rest.Config) (*Clients, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.QPS, cfg.Burst, cfg.RateLimiter = unlimited, 0, nil
	cfg.WarningHandler = rest.NoWarnings{} // they are about our choice of versions, not for whoever runs davit
	cfg.UserAgent = "davit/" + davitversion.String()
	hc, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("make cluster client: %w", err)
	}
	return build(cfg, hc)
}

func build(cfg *rest.Config, hc *http.Client) (*Clients, error) {
	c := &Clients{RESTConfig: cfg}
	var errs [3]error
	c.Dynamic, errs[0] = dynamic.NewForConfigAndClient(cfg, hc)
	c.Kubernetes, errs[1] = kubernetes.NewForConfigAndClient(cfg, hc)
	disc, err := discovery.NewDiscoveryClientForConfig(cfg) // has a timeout of its own
	errs[2] = err
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("make cluster client: %w", err)
	}
	c.Discovery = disc
	c.Mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(disc))
	return c, nil
}

// ErrKubeconfig says that no kubeconfig names a cluster.
var ErrKubeconfig = errors.New("read kubeconfig")

// Kubeconfig opens the cluster of a kubeconfig file. An empty path means the
// usual places ($KUBECONFIG, then ~/.kube/config), an empty context the
// file's current one.
func Kubeconfig(path, contextName string) (*Clients, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = path
	if err := missing(path, os.Getenv(clientcmd.RecommendedConfigPathEnvVar)); err != nil {
		return nil, err
	}
	overrides := &clientcmd.ConfigOverrides{CurrentContext: contextName}
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides).ClientConfig()
	switch {
	case clientcmd.IsEmptyConfig(err) && os.Getenv(clientcmd.RecommendedConfigPathEnvVar) != "":
		return nil, fmt.Errorf("%w: KUBECONFIG names %s, which says no cluster", ErrKubeconfig, os.Getenv(clientcmd.RecommendedConfigPathEnvVar))
	case clientcmd.IsEmptyConfig(err): // the library's own words name a variable that nothing here reads
		return nil, fmt.Errorf("%w: there is none in the usual places", ErrKubeconfig)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrKubeconfig, err)
	}
	return New(cfg)
}

// missing says that none of the files is there that a person named: by path,
// or else in KUBECONFIG, which may name several.
func missing(path, variable string) error {
	if path != "" {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: there is no file %s", ErrKubeconfig, path)
		}
		return nil
	}
	var named []string
	for _, file := range filepath.SplitList(variable) {
		if file == "" {
			continue
		}
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		named = append(named, file)
	}
	if len(named) == 0 {
		return nil
	}
	return fmt.Errorf("%w: KUBECONFIG names %s, and there is no such file", ErrKubeconfig, strings.Join(named, ", "))
}

// InCluster opens the cluster this process runs in, as its service account.
func InCluster() (*Clients, error) {
	cfg, err := rest.InClusterConfig()
	if err != nil {
		return nil, fmt.Errorf("read the pod's service account: %w", err)
	}
	// The API server is near: to compress each page of a list takes it longer than to
	// send it, and its cores are what a capture waits for.
	cfg.DisableCompression = true
	return New(cfg)
}

// Open is Kubeconfig when a path or context is given or a usual kubeconfig
// exists, else InCluster.
func Open(path, contextName string) (*Clients, error) {
	c, err := Kubeconfig(path, contextName)
	if err == nil || path != "" || contextName != "" {
		return c, err
	}
	inside, insideErr := InCluster()
	if insideErr != nil {
		return nil, err
	}
	return inside, nil
}

// Impersonate returns clients that act as another user with this bundle's
// credentials. Groups are those the API server gives the user; for a service
// account they come by themselves.
func (c *Clients) Impersonate(user string, groups ...string) (*Clients, error) {
	cfg := rest.CopyConfig(c.RESTConfig)
	cfg.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: groups}
	return New(cfg)
}

// ServiceAccountUser is the user name of a service account, for Impersonate.
func ServiceAccountUser(namespace, name string) string {
	return "system:serviceaccount:" + namespace + ":" + name
}

// ServerVersion is the cluster's version, such as "v1.34.1". The context's
// deadline bounds the call.
func (c *Clients) ServerVersion(ctx context.Context) (string, error) {
	raw, err := c.Discovery.RESTClient().Get().AbsPath("/version").Do(ctx).Raw()
	if err != nil {
		return "", fmt.Errorf("read cluster version: %w", err)
	}
	var info version.Info
	if err := json.Unmarshal(raw, &info); err != nil {
		return "", fmt.Errorf("read cluster version: %w", err)
	}
	return info.GitVersion, nil
}

// ClusterID tells this cluster from every other one for as long as it lives:
// the UID of its kube-system namespace, which no cluster can be without. A
// cluster that is rebuilt has another one; one that is restored from a copy of
// its etcd has the same.
func (c *Clients) ClusterID(ctx context.Context) (string, error) {
	ns, err := c.Kubernetes.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("read which cluster this is: %w", err)
	}
	return string(ns.UID), nil
}
