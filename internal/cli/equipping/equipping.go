// Package equipping makes a cluster without Davit one at which a run can be carried: it
// puts Davit there and gives it the way into the vault, as the first steps of a run. It
// does what `install` and `vault add --join` do, with what the run was told.
package equipping

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/spf13/pflag"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/admission"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/installation"
	"davit.dev/davit/internal/cli/wiring"
	"davit.dev/davit/internal/install"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/vault"
)

// defaultVault is what the Vault object is called unless --vault says so.
const defaultVault = "main"

// Way is what a person says of it.
type Way struct {
	// Install does it without asking.
	Install bool
	// Options are those of install; the site's name is the run's target.
	Options install.Options
	// ReplaceLost takes the site's name from a cluster that is lost.
	ReplaceLost bool
}

// Flags adds the flags.
func (w *Way) Flags(flags *pflag.FlagSet) {
	flags.BoolVar(&w.Install, "install", false, "where this cluster has no Davit: install it first, and join the vault of --vault-url, without asking")
	flags.BoolVar(&w.ReplaceLost, "replace-lost-site", false, "with --install: the cluster that bore this site's name is lost, and this one replaces it")
	installation.Flags(flags, &w.Options)
}

// Host is what the command line gives.
type Host struct {
	Err     io.Writer
	Now     func() time.Time
	Step    func(format string, args ...any)
	Quiet   func() // ends what is shown of progress
	AskFor  func(name, what string) error
	Timeout func() time.Duration
	// Cluster opens the cluster anew: its kinds are others once Davit is there.
	Cluster func() (wiring.Cluster, error)
	Opener  func() *access.Opener
}

// Need is what a cluster lacks for a run.
type Need struct {
	Site  string `json:"site"`
	Davit bool   `json:"install"` // it is to be installed
	Vault string `json:"vault,omitempty"`
	Image string `json:"image,omitempty"`
	// Anew says that it is there already, and not ready. Its failure domain and the number
	// of its agents stay what they were.
	Anew     bool `json:"anew,omitempty"`
	domain   string
	replicas int32
}

// Told says in words what is done first.
func (n *Need) Told() []string {
	var all []string
	switch {
	case n.Anew:
		all = append(all, fmt.Sprintf("Davit, which is not ready here, is installed anew as site %s, from %s, with what this command says of the nodes and no more", n.Site, n.Image))
	case n.Davit:
		all = append(all, fmt.Sprintf("Davit is installed into this cluster, as site %s, from %s", n.Site, n.Image))
	}
	if n.Vault != "" {
		all = append(all, fmt.Sprintf("site %s joins the vault, as %s", n.Site, n.Vault))
	}
	return all
}

// Nothing refuses a run at a cluster without Davit for which no vault was named.
func Nothing() error {
	return exit.Refuse("give --vault-url, --recovery-key-file and what else leads to the vault; a run with --install and --image then puts Davit here first", "this cluster has no Davit, and so no vault")
}

// Ask is a run that is wanted.
type Ask struct {
	Address *access.Address
	Flags   *pflag.FlagSet
	Way     *Way
	// Site is what the cluster is to be called; empty: it knows.
	Site string
}

// Look says what the cluster lacks to carry a run, nil if that is nothing, and refuses
// what could not be put right. Nothing is changed. The vault was opened: what is wrong
// with its address or key has been said.
func (h *Host) Look(ctx context.Context, c wiring.Cluster, in *access.Opened, a Ask) (*Need, error) {
	there, err := look(ctx, c)
	if err != nil {
		return nil, err
	}
	n := &Need{Site: a.Site, Davit: there.missing() || a.Way.Install && !there.ready, domain: there.domain, replicas: there.replicas}
	n.Anew = n.Davit && !there.missing()
	if there.site != "" {
		n.Site = there.site
	}
	if a.Address.URL != "" && !there.vaults {
		n.Vault = defaultVault
		if name := h.Opener().Vault; name != "" {
			n.Vault = name
		}
	}
	if !n.Davit && n.Vault == "" {
		return nil, nil
	}
	if n.Davit {
		if n.Image = a.Way.Options.Shown(); n.Image == "" {
			return nil, exit.Refuse("give --image IMAGE, from where this cluster can pull it, and --install; or `install` it by hand", "this cluster has no Davit that could carry the run")
		}
		if err := mayInstall(ctx, c); err != nil {
			return nil, err
		}
	}
	return n, h.possible(ctx, c, in, n, a)
}

// Before is Look for a command that puts nothing there unless it is told to, nil then.
func (h *Host) Before(ctx context.Context, c wiring.Cluster, in *access.Opened, a Ask) (*Need, error) {
	if !a.Way.Install {
		return nil, nil
	}
	if in.Project.IsCopy() {
		return nil, exit.Refuse("`install`, then `vault add NAME URL --copy-of FIRST --join`", "this is a second copy of a vault: --install joins a vault itself")
	}
	n, err := h.Look(ctx, c, in, a)
	if n == nil || err != nil {
		return nil, err
	}
	if n.Site == "" {
		return nil, exit.Refuse("give --site NAME", "this cluster has no Davit, and does not know which site it is to be")
	}
	h.Quiet()
	for _, what := range n.Told() {
		fmt.Fprintf(h.Err, "First: %s.\n", what)
	}
	return n, nil
}

// possible refuses what Equip would fail at after it has changed something.
func (h *Host) possible(ctx context.Context, c wiring.Cluster, in *access.Opened, n *Need, a Ask) error {
	opts := a.Way.Options
	opts.SiteName = n.Site
	if err := opts.Check(); err != nil {
		return exit.AsUsage(err)
	}
	if n.Vault == "" {
		return nil
	}
	if err := vault.CheckName(n.Vault); err != nil {
		return exit.AsUsage(err)
	}
	if inside := admission.InsideCluster(a.Address.URL, a.Address.Endpoint); inside != "" {
		return exit.Refuse("give the address that all sites use", "%s is a name inside the cluster", inside)
	}
	if u, err := url.Parse(a.Address.URL); err == nil && u.Scheme == "file" {
		if err := c.CheckDirectory(ctx, u.Path); err != nil {
			return exit.Hint(err, "`install`, give Davit's pods that directory, and `vault add --join`; then the run")
		}
	}
	id, err := access.ClusterID(ctx, c)
	if err != nil {
		return err
	}
	return h.nameFree(ctx, in.Project, lease.Identity{Site: n.Site, Cluster: id}, a.Way.ReplaceLost)
}

// nameFree refuses a site's name that another cluster bears.
func (h *Host) nameFree(ctx context.Context, p *vault.Project, id lease.Identity, replace bool) error {
	err := lease.CheckName(ctx, p, id)
	var taken *lease.NameTakenError
	if !errors.As(err, &taken) {
		return err
	}
	silent, err := lease.Silence(ctx, p, taken.Sign)
	if err != nil {
		return err
	}
	if replace && silent >= lease.SilentAfter {
		return nil
	}
	return exit.Refuse(fmt.Sprintf("give --to a site of the plan whose name no other cluster bears; if that cluster is lost and this one replaces it, --replace-lost-site, once it has been silent for %s", lease.SilentAfter),
		"the vault knows site %s as another cluster (%s), which gave a sign of life %s ago", id.Site, taken.Sign.Cluster, silent.Round(time.Second))
}

// parts is what of Davit a cluster has.
type parts struct {
	site        string // its name; empty: it has none
	agent, node bool
	ready       bool // an agent and a node process are
	vaults      bool
	domain      string // the site's failure domain
	replicas    int32  // agents
}

func (p parts) missing() bool { return p.site == "" || !p.agent || !p.node }

// look counts what the caller may not see as there: whoever carries runs where Davit
// is may have few rights.
func look(ctx context.Context, c client.Client) (parts, error) {
	var p parts
	site, err := access.LocalSite(ctx, c)
	switch {
	case err == nil:
		p.site, p.domain = site.Name, site.Spec.FailureDomain
	case !absent(err) && !exit.IsRefusal(err):
		return p, err
	}
	var agent appsv1.Deployment
	var node appsv1.DaemonSet
	if p.agent, err = has(ctx, c, install.AgentName, &agent); err != nil {
		return p, err
	}
	if p.node, err = has(ctx, c, install.NodeName, &node); err != nil {
		return p, err
	}
	p.replicas = ptr.Deref(agent.Spec.Replicas, 0)
	p.ready = agent.Status.AvailableReplicas > 0 && node.Status.NumberReady > 0
	var vaults v1alpha1.VaultList
	err = c.List(ctx, &vaults)
	if err != nil && !absent(err) && !apierrors.IsForbidden(err) {
		return p, fmt.Errorf("list vaults: %w", err)
	}
	p.vaults = len(vaults.Items) > 0 || apierrors.IsForbidden(err)
	return p, nil
}

func has(ctx context.Context, c client.Client, name string, into client.Object) (bool, error) {
	err := c.Get(ctx, client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: name}, into)
	switch {
	case err == nil, apierrors.IsForbidden(err):
		return true, nil
	case absent(err):
		return false, nil
	}
	return false, fmt.Errorf("look whether Davit is here: %w", err)
}

func absent(err error) bool { return meta.IsNoMatchError(err) || apierrors.IsNotFound(err) }
