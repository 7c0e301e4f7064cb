package equipping

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"

	authz "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/admission"
	"davit.dev/davit/internal/cli/enrolment"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/selftest"
	"davit.dev/davit/internal/cli/wiring"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/version"
)

// again is what to do about a step that failed: each looks first at what is there.
const again = "mend the cause and give the same command again: what is there stays, and the rest is done"

// Equip puts into the cluster what it lacks, and waits until Davit's processes are
// ready. Killed, it is given again: Look then finds what is still missing.
func (h *Host) Equip(ctx context.Context, n *Need, a Ask, yes bool) error {
	c, err := h.Cluster()
	if err != nil {
		return err
	}
	if n.Davit {
		opts := a.Way.Options
		opts.SiteName, opts.Timeout = n.Site, h.Timeout()
		opts.FailureDomain, opts.Replicas = cmp.Or(opts.FailureDomain, n.domain), n.replicas
		if err := c.Install(ctx, opts, func(step string) { h.Step("installing Davit: %s", step) }); err != nil {
			return exit.Hint(err, again)
		}
		if c, err = h.Cluster(); err != nil {
			return err
		}
	}
	if n.Vault == "" {
		return nil
	}
	return h.join(ctx, c, n, a, yes)
}

// Anew is Equip, and opens the cluster as it is then.
func (h *Host) Anew(ctx context.Context, n *Need, a Ask, yes bool) (wiring.Cluster, error) {
	if err := h.Equip(ctx, n, a, yes); err != nil {
		return nil, err
	}
	return h.Cluster()
}

// join gives the site the way into the vault.
func (h *Host) join(ctx context.Context, c wiring.Cluster, n *Need, a Ask, yes bool) error {
	request := &admission.Request{
		Project: a.Address.Project, RecoveryKey: a.Address.RecoveryKey, Join: true,
		ReplaceLost: a.Way.ReplaceLost, Confirm: Lost(h.Err, h.Quiet, h.AskFor, yes),
	}
	key, err := request.PrepareKey()
	if err != nil {
		return err
	}
	cfg, err := h.Opener().Config(a.Address, a.Flags)
	if err != nil {
		return err
	}
	door := Door{Name: n.Vault, Address: a.Address, First: true}
	if request.Sign, err = door.Admissible(ctx, c); err != nil {
		return err
	}
	request.Sign.Time = h.Now().UTC()
	store, err := h.Opener().Store(ctx, cfg)
	if err != nil {
		return err
	}
	h.Step("testing %s", store)
	if report := selftest.Run(ctx, store, h.Now); report.Err() != nil {
		return exit.Hint(exit.OfVault(fmt.Errorf("test vault: %w", report.Err())), again)
	}
	h.Step("joining project %s", a.Address.Project)
	keyring, err := request.Enter(ctx, store, key)
	if err != nil {
		return err
	}
	object := &v1alpha1.Vault{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Vault"},
		ObjectMeta: metav1.ObjectMeta{Name: n.Vault},
		Spec:       v1alpha1.VaultSpec{URL: cfg.URL, Project: a.Address.Project, SecretName: "vault-" + n.Vault, CABundle: string(cfg.CA)},
	}
	return exit.Hint(admission.Save(ctx, c, object, cfg, keyring), again)
}

// Lost has a person say that the cluster that bore a site's name is lost. quiet ends what
// is shown of progress.
func Lost(to io.Writer, quiet func(), ask func(name, what string) error, yes bool) func(vault.SiteStatus) error {
	return func(lost vault.SiteStatus) error {
		if yes {
			return nil
		}
		quiet()
		fmt.Fprintf(to, "Give this cluster the name of site %s, which another cluster bears.\n", lost.Site)
		fmt.Fprintf(to, "  Now:   cluster %s, last heard of at %s. If it comes back, it captures nothing any more; what it runs is\n", lost.Cluster, output.Time(lost.Written))
		fmt.Fprintf(to, "         fenced only once it is taken over.\n")
		fmt.Fprintf(to, "  Then:  this one, which holds no application before it has taken it over.\n")
		return ask(lost.Site, "the site's name")
	}
}

// Door is a vault that a cluster is to have.
type Door struct {
	Name    string // of the Vault object
	Address *access.Address
	Domain  string // the vault's failure domain
	First   bool   // of its project here, perhaps: it is no copy of a vault that is here
	Replace bool   // it may be there already
}

// Admissible says whether the cluster may have the vault, and returns who the site is.
// The time of the sign is for the caller to set.
func (d Door) Admissible(ctx context.Context, c wiring.Cluster) (vault.SiteStatus, error) {
	none := vault.SiteStatus{}
	if err := vault.CheckName(d.Name); err != nil {
		return none, exit.AsUsage(err)
	}
	site, err := access.LocalSite(ctx, c)
	if err != nil {
		return none, err
	}
	id, err := access.ClusterID(ctx, c)
	if err != nil {
		return none, err
	}
	if d.Domain != "" && d.Domain == site.Spec.FailureDomain {
		return none, exit.Refuse("use a vault that survives what destroys this site, or correct --failure-domain",
			"site %s and the vault are both in failure domain %q: they would be lost together", site.Name, d.Domain)
	}
	if inside := admission.InsideCluster(d.Address.URL, d.Address.Endpoint); inside != "" {
		return none, exit.Refuse("use a vault outside of all sites", "%s is a name inside the cluster: the vault would be lost with its site", inside)
	}
	if u, err := url.Parse(d.Address.URL); err == nil && u.Scheme == "file" {
		if err := c.CheckDirectory(ctx, u.Path); err != nil {
			return none, err
		}
	}
	if d.First {
		if err := enrolment.Beside(ctx, c, d.Address.Project); err != nil {
			return none, err
		}
	}
	err = c.Get(ctx, client.ObjectKey{Name: d.Name}, &v1alpha1.Vault{})
	switch {
	case err == nil && !d.Replace:
		return none, exit.Refuse("--replace --join gives it a new address and new credentials", "site %s has a vault %q already", site.Name, d.Name)
	case err != nil && !apierrors.IsNotFound(err):
		return none, fmt.Errorf("look for vault %s: %w", d.Name, err)
	}
	kube, err := c.ServerVersion(ctx)
	if err != nil {
		return none, err
	}
	return vault.SiteStatus{Site: site.Name, Cluster: id, AgentVersion: version.String(), KubeVersion: kube}, nil
}

// needed are some of the rights that an install takes: those that only administrators of
// a cluster have.
var needed = []authz.ResourceAttributes{
	{Resource: "namespaces"},
	{Group: "apiextensions.k8s.io", Resource: "customresourcedefinitions"},
	{Group: "rbac.authorization.k8s.io", Resource: "clusterroles"},
	{Group: "rbac.authorization.k8s.io", Resource: "clusterrolebindings"},
	{Group: "admissionregistration.k8s.io", Resource: "validatingadmissionpolicies"},
	{Group: "apps", Resource: "daemonsets", Namespace: v1alpha1.SystemNamespace},
	{Group: "apps", Resource: "deployments", Namespace: v1alpha1.SystemNamespace},
	{Resource: "secrets", Namespace: v1alpha1.SystemNamespace},
}

// mayInstall refuses whoever would be refused in the middle of an install.
func mayInstall(ctx context.Context, c client.Client) error {
	var lacks []string
	for _, what := range needed {
		what.Verb = "create"
		review := authz.SelfSubjectAccessReview{Spec: authz.SelfSubjectAccessReviewSpec{ResourceAttributes: &what}}
		if err := c.Create(ctx, &review); err != nil {
			return fmt.Errorf("ask whether you may install Davit: %w", err)
		}
		if !review.Status.Allowed {
			lacks = append(lacks, what.Resource)
		}
	}
	if len(lacks) == 0 {
		return nil
	}
	return exit.Refuse("use the kubeconfig of an administrator of this cluster", "this cluster has no Davit, and you may not install it: it takes the right to create %s", strings.Join(lacks, ", "))
}
