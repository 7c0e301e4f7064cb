// Package install puts Davit into a cluster and takes it out again: the CRDs,
// the accounts with their rights, the agent, the node processes and the alert
// rules. Everything is applied server-side under the field manager "davit", so
// that installing again upgrades, and what people changed in other fields stays.
package install

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/dynamic"

	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/kube/vaults"
)

// FieldManager owns the fields that Install applies.
const FieldManager = "davit"

// Names of what Install makes in davit-system.
const (
	AgentName     = "davit-agent"
	NodeName      = "davit-node"
	CaptureName   = "davit-capture"
	RestoreName   = "davit-restore"
	AlertsName    = "davit-alerts"
	PartOfLabel   = "app.kubernetes.io/part-of"
	NameLabel     = "app.kubernetes.io/name"
	LocalLabel    = "davit.dev/local" // "true" on the Site object of the cluster itself
	partOf        = "davit"
	AgentMetrics  = 8080
	AgentHealth   = 8081
	NodeMetrics   = 8082
	NodeHealth    = 8083
	defaultRoot   = "/var/lib/kubelet"
	DefaultImage  = "davit.dev/davit:dev" // unless Options say another
	installBudget = 5 * time.Minute
)

// Options say what to install. Only SiteName must be set.
type Options struct {
	// Image is the container image, by default davit.dev/davit:dev.
	Image string
	// Registry replaces the image's registry and path before its last
	// element, for clusters that cannot reach the original.
	Registry string
	// ImagePullPolicy is the pods' pull policy: Always, IfNotPresent or
	// Never; by default what Kubernetes chooses.
	ImagePullPolicy string
	// ImagePullSecrets name Secrets in davit-system.
	ImagePullSecrets []string
	// Replicas of the agent, one of which leads; default 1.
	Replicas int32
	// KubeletRoot is the kubelet's directory on the nodes.
	KubeletRoot string
	// HostPathRoots are directories of the nodes below which volumes of type
	// hostPath may be read and written.
	HostPathRoots []string
	// PeerPort is the port of every node at which other sites ask this one for promises; 0: none.
	PeerPort int32
	// DiskRead and DiskWrite bound the bytes per second that each node reads of
	// volumes in backups, and writes to them in restores, such as 100Mi. Empty is
	// no bound.
	DiskRead, DiskWrite string
	// RuntimeSocket is the container runtime's socket on the nodes. Empty: the
	// node processes look for it; "none": they fence nothing.
	RuntimeSocket string
	// SiteName names the site, the same in every vault. FailureDomain says
	// what the site shares its fate with.
	SiteName      string
	FailureDomain string
	// LogLevel is debug, info, warn or error; default info.
	LogLevel string
	// Timeout bounds the wait for readiness; default 5m. NoWait skips it.
	Timeout time.Duration
	NoWait  bool
}

// Shown is the image that the options name, and empty where they name none.
func (o Options) Shown() string {
	if o.Image == "" && o.Registry == "" {
		return ""
	}
	return o.withDefaults().Image
}

// withDefaults fills in what was left out.
func (o Options) withDefaults() Options {
	if o.Image == "" {
		o.Image = DefaultImage
	}
	if o.Registry != "" {
		o.Image = strings.TrimSuffix(o.Registry, "/") + "/" + path.Base(o.Image)
		o.Registry = ""
	}
	if o.Replicas == 0 {
		o.Replicas = 1
	}
	if o.KubeletRoot == "" {
		o.KubeletRoot = defaultRoot
	}
	if o.LogLevel == "" {
		o.LogLevel = "info"
	}
	if o.Timeout == 0 {
		o.Timeout = installBudget
	}
	return o
}

// Check says what is wrong with the options, all of it at once.
func (o Options) Check() error {
	var errs []error
	if why := validation.IsDNS1123Subdomain(o.SiteName); len(why) > 0 {
		errs = append(errs, fmt.Errorf("site name %q: %s", o.SiteName, strings.Join(why, ", ")))
	}
	if o.Replicas < 0 || o.Replicas > 5 {
		errs = append(errs, fmt.Errorf("replicas %d: want 1 to 5", o.Replicas))
	}
	switch o.ImagePullPolicy {
	case "", "Always", "IfNotPresent", "Never":
	default:
		errs = append(errs, fmt.Errorf("image pull policy %q: want Always, IfNotPresent or Never", o.ImagePullPolicy))
	}
	switch o.LogLevel {
	case "", "debug", "info", "warn", "error":
	default:
		errs = append(errs, fmt.Errorf("log level %q: want debug, info, warn or error", o.LogLevel))
	}
	if s := o.RuntimeSocket; s != "" && s != "none" && (!path.IsAbs(s) || path.Clean(s) != s) {
		errs = append(errs, fmt.Errorf("container runtime's socket %q: want a clean absolute path, or none", s))
	}
	for _, bound := range []string{o.DiskRead, o.DiskWrite} {
		if q, err := resource.ParseQuantity(bound); bound != "" && (err != nil || q.Value() < vaults.MinBandwidth) {
			errs = append(errs, fmt.Errorf("bound on the disk %q: want bytes per second, such as 100Mi, at least 64Ki", bound))
		}
	}
	if p := o.PeerPort; p != 0 && (p < 1024 || p > 65535 || p == NodeMetrics || p == NodeHealth) {
		errs = append(errs, fmt.Errorf("peer port %d: want one from 1024 on that nothing else of a node uses, such as 8084", p))
	}
	for _, dir := range append([]string{o.KubeletRoot}, o.HostPathRoots...) {
		if dir != "" && (!path.IsAbs(dir) || path.Clean(dir) != dir || dir == "/") {
			errs = append(errs, fmt.Errorf("directory %q: want a clean absolute path other than /", dir))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("check install options: %w", err)
	}
	return nil
}

// Progress is told, in a few words, what Install or Uninstall is doing.
type Progress func(step string)

func (p Progress) say(format string, args ...any) {
	if p != nil {
		p(fmt.Sprintf(format, args...))
	}
}

// Install applies everything that Render returns, in order, and waits until
// the agent and all node processes are ready.
func Install(ctx context.Context, clients *kube.Clients, opts Options, progress Progress) error {
	objects, err := Render(opts)
	if err != nil {
		return err
	}
	opts = opts.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, opts.Timeout)
	defer cancel()
	if err := refuseOtherSite(ctx, clients, opts); err != nil {
		return err
	}
	in := installer{clients: clients, progress: progress}
	for _, phase := range phases(objects) {
		progress.say("%s", phase.name)
		if err := in.applyAll(ctx, phase.objects); err != nil {
			return fmt.Errorf("install davit: %w", err)
		}
		if phase.definitions {
			if err := in.awaitDefinitions(ctx, phase.objects); err != nil {
				return fmt.Errorf("install davit: %w", err)
			}
		}
	}
	if opts.NoWait {
		return nil
	}
	return in.awaitReady(ctx, opts.Timeout, opts.Image)
}

// refuseOtherSite keeps a cluster from being given a second name: its epochs
// and volume repository in the vault are under the first.
func refuseOtherSite(ctx context.Context, clients *kube.Clients, opts Options) error {
	list, err := clients.Dynamic.Resource(siteResource).List(ctx, metav1.ListOptions{LabelSelector: LocalLabel + "=true"})
	if apierrors.IsNotFound(err) {
		return nil // the kind is not there: first install
	}
	if err != nil {
		return fmt.Errorf("look for an earlier install: %w", err)
	}
	for _, site := range list.Items {
		if site.GetName() != opts.SiteName {
			return fmt.Errorf("this cluster is site %q already: install with that name, or remove the Site object first and re-protect its applications", site.GetName())
		}
	}
	return nil
}

// phase is a batch of objects that do not need each other.
type phase struct {
	name        string
	definitions bool
	objects     []unstructured.Unstructured
}

// phases cuts the rendered objects, which are in order, where something must
// be established before the rest.
func phases(objects []unstructured.Unstructured) []phase {
	first := phase{name: "namespace and definitions", definitions: true}
	second := phase{name: "accounts, agent and node processes"}
	for _, o := range objects {
		switch o.GetKind() {
		case "Namespace", "CustomResourceDefinition":
			first.objects = append(first.objects, o)
		default:
			second.objects = append(second.objects, o)
		}
	}
	return []phase{first, second}
}

// installer holds what the steps share.
type installer struct {
	clients  *kube.Clients
	progress Progress
}

func (in installer) applyAll(ctx context.Context, objects []unstructured.Unstructured) error {
	for i := range objects {
		if err := in.apply(ctx, &objects[i]); err != nil {
			return fmt.Errorf("apply %s %s: %w", objects[i].GetKind(), objects[i].GetName(), err)
		}
	}
	return nil
}

func (in installer) apply(ctx context.Context, obj *unstructured.Unstructured) error {
	r, err := in.resource(obj)
	if err != nil {
		return err
	}
	_, err = r.Apply(ctx, obj.GetName(), obj, metav1.ApplyOptions{FieldManager: FieldManager, Force: true})
	return err
}

// resource finds where an object is kept; a kind just defined needs a second look.
func (in installer) resource(obj *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	gvk := obj.GroupVersionKind()
	mapping, err := in.clients.Mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if meta.IsNoMatchError(err) {
		in.clients.Mapper.Reset()
		mapping, err = in.clients.Mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	}
	if err != nil {
		return nil, err
	}
	all := in.clients.Dynamic.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		return all.Namespace(obj.GetNamespace()), nil
	}
	return all, nil
}
