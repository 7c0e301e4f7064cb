package install

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/wait"

	"davit.dev/davit/internal/kube"
)

// Names of a console that is installed. It has a namespace of its own, so that
// neither Davit's privileges there nor its removal are the console's.
const (
	ConsoleNamespace = "davit-console"
	ConsoleName      = "davit-console"
	// ConsoleSecret holds the way to the console's vault, ConsoleAuthority what
	// vouches for the console, which is no secret.
	ConsoleSecret    = "davit-console-vault"
	ConsoleAuthority = "davit-console-ca"
	// ConsoleAuthorityKey is the key of the ConfigMap ConsoleAuthority.
	ConsoleAuthorityKey = "ca.pem"
	consolePort         = 8443
)

// Keys of ConsoleSecret.
const (
	ConsoleURLKey      = "url"
	ConsoleAccessKey   = "accessKey"
	ConsoleSecretKey   = "secretKey"
	ConsoleSessionKey  = "sessionToken"
	ConsoleVaultCAKey  = "ca.crt"
	ConsoleIdentityKey = "identity"
	ConsoleIDKey       = "console"
)

// ConsoleOptions say how a console is installed. What is left out has a default.
type ConsoleOptions struct {
	// Image, Registry, ImagePullPolicy and ImagePullSecrets are as in Options; the
	// Secrets are in the console's namespace.
	Image            string
	Registry         string
	ImagePullPolicy  string
	ImagePullSecrets []string
	// Replicas are the consoles, of which one is active; default 2.
	Replicas int32
	// ServiceType is ClusterIP (default), NodePort or LoadBalancer.
	ServiceType string
	// URL is where people and agents find the console, https://NAME:PORT. Its port
	// is the Service's, or the nodes'. Only a ClusterIP has one by itself.
	URL string
	// Names are more names for the console's certificate.
	Names []string
	// TLSSecret and OIDCSecret name Secrets in the console's namespace: a
	// certificate to use instead, and oidc.yaml with what belongs to it.
	TLSSecret  string
	OIDCSecret string
	// VaultURL is the address of the vault; its port may be gone to.
	VaultURL string
	// EgressPorts are more TCP ports that the console may go to, besides those of
	// its vault and 443.
	EgressPorts []int32
	// Way is what the pods need to come by the console's state; nil: it is in the
	// cluster already, and stays.
	Way *ConsoleWay
	// Timeout bounds the wait for the active one; default 5m. NoWait skips it.
	Timeout time.Duration
	NoWait  bool
}

// ConsoleWay is what is kept in the cluster of the way to a console's state.
type ConsoleWay struct {
	Secret    map[string][]byte
	Authority []byte // PEM
}

func (o ConsoleOptions) withDefaults() ConsoleOptions {
	shared := Options{Image: o.Image, Registry: o.Registry}.withDefaults()
	o.Image, o.Registry = shared.Image, ""
	if o.Replicas == 0 {
		o.Replicas = 2
	}
	if o.ServiceType == "" {
		o.ServiceType = string(corev1.ServiceTypeClusterIP)
	}
	if o.URL == "" {
		o.URL = fmt.Sprintf("https://%s.%s.svc:%d", ConsoleName, ConsoleNamespace, consolePort)
	}
	if o.Timeout == 0 {
		o.Timeout = installBudget
	}
	return o
}

// Address is where the console is found, by default or as given.
func (o ConsoleOptions) Address() string { return o.withDefaults().URL }

// Check says what is wrong with the options, all of it at once.
func (o ConsoleOptions) Check() error {
	var errs []error
	if o.Replicas < 0 || o.Replicas > 3 {
		errs = append(errs, fmt.Errorf("replicas %d: want 1 to 3", o.Replicas))
	}
	if err := (Options{SiteName: "any", ImagePullPolicy: o.ImagePullPolicy}).Check(); err != nil {
		errs = append(errs, errors.Unwrap(err))
	}
	switch corev1.ServiceType(o.ServiceType) {
	case "", corev1.ServiceTypeClusterIP:
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort:
		if o.URL == "" {
			errs = append(errs, fmt.Errorf("a Service of type %s has no name by itself: give --url https://NAME:PORT", o.ServiceType))
		}
	default:
		errs = append(errs, fmt.Errorf("service type %q: want ClusterIP, NodePort or LoadBalancer", o.ServiceType))
	}
	if _, _, err := hostPort(o.Address()); err != nil {
		errs = append(errs, err)
	} else if _, port, _ := hostPort(o.Address()); o.ServiceType == string(corev1.ServiceTypeNodePort) && (port < 1024 || port > 65535) {
		errs = append(errs, fmt.Errorf("address %s: want a port of those that nodes give to Services, by default 30000 to 32767", o.URL))
	}
	for _, name := range []string{o.TLSSecret, o.OIDCSecret} {
		if why := validation.IsDNS1123Subdomain(name); name != "" && len(why) > 0 {
			errs = append(errs, fmt.Errorf("secret %q: %s", name, strings.Join(why, ", ")))
		}
	}
	for _, p := range o.EgressPorts {
		if p < 1 || p > 65535 {
			errs = append(errs, fmt.Errorf("port %d: want 1 to 65535", p))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("check install options: %w", err)
	}
	return nil
}

// hostPort splits an https address.
func hostPort(address string) (host string, port int32, err error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" {
		return "", 0, fmt.Errorf("address %.200q: want https://NAME:PORT", address)
	}
	if u.Port() == "" {
		return u.Hostname(), 443, nil
	}
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("address %.200q: want https://NAME:PORT", address)
	}
	return u.Hostname(), int32(n), nil
}

// vaultPort is the TCP port of a vault's address.
func vaultPort(address string) int32 {
	u, err := url.Parse(address)
	if err != nil {
		return 443
	}
	endpoint, err := url.Parse(u.Query().Get("endpoint"))
	if err != nil || endpoint.Host == "" {
		return 443
	}
	if _, text, err := net.SplitHostPort(endpoint.Host); err == nil {
		if n, err := strconv.ParseUint(text, 10, 16); err == nil {
			return int32(n)
		}
	}
	if endpoint.Scheme == "http" {
		return 80
	}
	return 443
}

// InstallConsole applies everything that RenderConsole returns, in order, and
// waits until one of the consoles is active and the others follow.
func InstallConsole(ctx context.Context, clients *kube.Clients, opts ConsoleOptions, progress Progress) error {
	objects, err := RenderConsole(opts)
	if err != nil {
		return err
	}
	opts = opts.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, opts.Timeout)
	defer cancel()
	in := installer{clients: clients, progress: progress}
	progress.say("namespace, Service and consoles")
	if err := in.applyAll(ctx, objects); err != nil {
		return fmt.Errorf("install console: %w", err)
	}
	if opts.NoWait {
		return nil
	}
	return in.awaitConsole(ctx, opts)
}

// awaitConsole waits until the pods are those of this install, run, and one of
// them is active.
func (in installer) awaitConsole(ctx context.Context, opts ConsoleOptions) error {
	var state string
	var stuck stuckFor
	err := wait.PollUntilContextCancel(ctx, look, true, func(ctx context.Context) (bool, error) {
		now, ready := in.consoleState(ctx)
		if now != state {
			state = now
			in.progress.say("%s", now)
		}
		if ready {
			return true, nil
		}
		return false, stuck.look(time.Now(), in.hopeless(ctx, ConsoleNamespace, opts.Image))
	})
	if errors.Is(err, errStuck) {
		return fmt.Errorf("the console is installed but will not get ready: %s: %w", state, err)
	}
	if err != nil {
		return fmt.Errorf("the console is installed but not active after %s: %s%s", opts.Timeout, state, in.podTroubles(context.WithoutCancel(ctx), ConsoleNamespace))
	}
	return nil
}

func (in installer) consoleState(ctx context.Context) (string, bool) {
	d, err := in.clients.Kubernetes.AppsV1().Deployments(ConsoleNamespace).Get(ctx, ConsoleName, metav1.GetOptions{})
	if err != nil {
		return err.Error(), false
	}
	pods, err := in.clients.Kubernetes.CoreV1().Pods(ConsoleNamespace).List(ctx, metav1.ListOptions{LabelSelector: NameLabel + "=" + ConsoleName})
	if err != nil {
		return err.Error(), false
	}
	run, waits := int32(0), false
	for i := range pods.Items {
		switch pod := &pods.Items[i]; {
		case gone(pod):
		case consoleRuns(pod):
			run++
		default:
			waits = true
		}
	}
	fresh := d.Status.ObservedGeneration >= d.Generation && d.Status.UpdatedReplicas == *d.Spec.Replicas && d.Status.Replicas == *d.Spec.Replicas
	text := fmt.Sprintf("%d of %d consoles run, %d active", run, *d.Spec.Replicas, d.Status.ReadyReplicas)
	return text, fresh && run == *d.Spec.Replicas && !waits && d.Status.ReadyReplicas == 1
}

// gone tells whether a pod is on its way out, as one whose node is lost is for as long
// as the node is, or was evicted. Others are in its place.
func gone(pod *corev1.Pod) bool {
	return !pod.DeletionTimestamp.IsZero() || pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded
}

func consoleRuns(pod *corev1.Pod) bool {
	for _, c := range pod.Status.ContainerStatuses {
		if c.State.Running == nil {
			return false
		}
	}
	return len(pod.Status.ContainerStatuses) > 0
}

// UninstallConsole takes the console out of a cluster. What the vault has of it
// stays, and can be joined or installed again.
func UninstallConsole(ctx context.Context, clients *kube.Clients, opts ConsoleOptions, progress Progress) error {
	if opts.Timeout == 0 {
		opts.Timeout = installBudget
	}
	ctx, cancel := context.WithTimeout(ctx, opts.Timeout)
	defer cancel()
	objects, err := toUnstructured(consoleNamespace())
	if err != nil {
		return err
	}
	in := installer{clients: clients, progress: progress}
	progress.say("removing namespace %s", ConsoleNamespace)
	_, err = clients.Kubernetes.CoreV1().Namespaces().Get(ctx, ConsoleNamespace, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err == nil {
		err = in.removeAll(ctx, objects, "Namespace")
	}
	if err == nil {
		err = in.awaitGone(ctx, objects, "Namespace")
	}
	if err != nil {
		return fmt.Errorf("uninstall console: %w", err)
	}
	return nil
}

// ConsoleObjects are what UninstallConsole removes.
func ConsoleObjects() ([]unstructured.Unstructured, error) {
	return RenderConsole(ConsoleOptions{Way: &ConsoleWay{}})
}
