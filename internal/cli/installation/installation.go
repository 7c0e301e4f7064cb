// Package installation is the command line's `install` and `uninstall`: Davit put
// into a cluster, and taken out of it.
package installation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/enrolment"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/view"
	"davit.dev/davit/internal/cli/wiring"
	"davit.dev/davit/internal/install"
	"davit.dev/davit/internal/uplink"
)

// Host is what the command line gives its commands.
type Host struct {
	// Args checks that there are no arguments.
	Args cobra.PositionalArgs
	// Bounded ends with the command's time, Timeout is what it was given.
	Bounded func(*cobra.Command) (context.Context, context.CancelFunc)
	Timeout func() time.Duration
	Cluster func() (wiring.Cluster, error)
	Now     func() time.Time
	Print   func(output.Result) error
	Step    func(format string, args ...any)
	Note    func(format string, args ...any)
	// Ask has a person type a word.
	Ask func(word, what string) error
	// Named puts the program's name into commands that a text quotes.
	Named func(string) string
}

// Flags adds the flags that say from where Davit comes, and how the nodes are.
func Flags(flags *pflag.FlagSet, opts *install.Options) {
	flags.StringVar(&opts.FailureDomain, "failure-domain", "", "what this site shares its fate with, such as a building or a region")
	flags.StringVar(&opts.Image, "image", "", "container image of Davit (default: "+install.DefaultImage+")")
	flags.StringVar(&opts.Registry, "registry", "", "take the image from this registry instead, for sites that cannot reach the original")
	flags.StringVar(&opts.ImagePullPolicy, "image-pull-policy", "", "Always, IfNotPresent or Never")
	flags.StringSliceVar(&opts.ImagePullSecrets, "image-pull-secret", nil, "name of a Secret in davit-system for the registry")
	flags.StringVar(&opts.KubeletRoot, "kubelet-root", "", "the kubelet's directory on the nodes (default: /var/lib/kubelet)")
	flags.StringSliceVar(&opts.HostPathRoots, "host-path-root", nil, "directory of the nodes below which hostPath volumes may be read and written")
	flags.StringVar(&opts.RuntimeSocket, "cri-socket", "", "the container runtime's socket on the nodes (default: they look for it); none: nodes fence nothing by themselves")
}

// Install makes `install`.
func Install(h Host) *cobra.Command {
	var opts install.Options
	var dryRun, wait bool
	var way enrolment.Way
	cmd := &cobra.Command{
		Use:   "install --site NAME",
		Short: "Put Davit into a cluster, or upgrade it",
		Long: `Puts Davit into the cluster: namespace davit-system, definitions, accounts and rights, the agent and a node process on
every node. Installing again upgrades. --site names the cluster in every vault it will use and cannot change later.`,
		Args: h.Args,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.NoWait, opts.Timeout = !wait, h.Timeout()
			return h.install(cmd, opts, way, dryRun)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.SiteName, "site", "", "name of this site (required)")
	Flags(flags, &opts)
	flags.Int32Var(&opts.Replicas, "replicas", 1, "agents, of which one leads")
	flags.StringVar(&opts.DiskRead, "disk-read", "", "bound on the bytes per second that backups read of each node's volumes, such as 100Mi; at least 64Ki")
	flags.StringVar(&opts.DiskWrite, "disk-write", "", "bound on the bytes per second that restores write to each node's volumes; at least 64Ki")
	flags.Int32Var(&opts.PeerPort, "peer-port", 0, "port of every node at which the other sites of plans with fence.promises ask this one to stay passive, such as 8084; 0: none")
	flags.StringVar(&opts.LogLevel, "log-level", "", "debug, info, warn or error")
	flags.BoolVar(&wait, "wait", true, "wait until agent and node processes are ready")
	way.Flags(flags)
	flags.BoolVar(&dryRun, "dry-run", false, "print what would be applied; with -o yaml for kubectl or git")
	return cmd
}

func (h Host) install(cmd *cobra.Command, opts install.Options, way enrolment.Way, dryRun bool) error {
	if opts.SiteName == "" {
		return exit.Usage("choose a short name that no other site has, such as east", "--site is missing")
	}
	objects, err := install.Render(opts)
	if err != nil {
		return exit.AsUsage(err)
	}
	var token uplink.Token
	if way.Given() {
		if token, err = way.Token(cmd.InOrStdin()); err != nil {
			return err
		}
	}
	if dryRun {
		return h.Print(view.Rendered(objects))
	}
	ctx, cancel := h.Bounded(cmd)
	defer cancel()
	c, err := h.Cluster()
	if err != nil {
		return err
	}
	start := h.Now()
	if err := c.Install(ctx, opts, func(step string) { h.Step("%s", step) }); err != nil {
		return err
	}
	if way.Given() {
		if err := way.Introduce(ctx, c, token); err != nil {
			return exit.Hint(err, "Davit is installed; `enrol` gives its agent the token")
		}
	}
	return h.Print(view.Installed{Site: opts.SiteName, Objects: len(objects), Took: h.Now().Sub(start), Ready: !opts.NoWait, Next: h.Named("`vault add NAME URL`")})
}

// Uninstall makes `uninstall`.
func Uninstall(h Host) *cobra.Command {
	var opts install.UninstallOptions
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Take Davit out of a cluster; vaults and applications stay",
		Long: `Removes Davit from the cluster. Applications go on running, and what is in the vaults stays there, to be found again by
"install" and "vault add --join". --keep-data also keeps Davit's objects and the way to the vaults.`,
		Args: h.Args,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Timeout = h.Timeout()
			return h.uninstall(cmd, opts, yes, dryRun)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&opts.KeepData, "keep-data", false, "keep definitions, objects, Secrets and the namespace")
	flags.BoolVar(&opts.Force, "force", false, "also while a capture or restore is under way, or a lease stands")
	flags.BoolVar(&yes, "yes", false, "do not ask")
	flags.BoolVar(&dryRun, "dry-run", false, "print what would be removed")
	return cmd
}

func (h Host) uninstall(cmd *cobra.Command, opts install.UninstallOptions, yes, dryRun bool) error {
	ctx, cancel := h.Bounded(cmd)
	defer cancel()
	if dryRun {
		return h.dryUninstall(opts)
	}
	c, err := h.Cluster()
	if err != nil {
		return err
	}
	site, err := access.LocalSite(ctx, c)
	if err != nil {
		return err
	}
	if !opts.Force {
		var apps v1alpha1.ApplicationList
		if err := c.List(ctx, &apps); err != nil && !meta.IsNoMatchError(err) && !apierrors.IsNotFound(err) {
			return fmt.Errorf("look for applications under a lease: %w", err)
		}
		if err := access.Unleased(apps.Items...); err != nil {
			return err
		}
	}
	if !yes {
		h.Note("This ends the protection of every application at site %s. Recovery points in vaults stay.", site.Name)
		if err := h.Ask(site.Name, "the site's name"); err != nil {
			return err
		}
	}
	err = c.Uninstall(ctx, opts, func(step string) { h.Step("%s", step) })
	if errors.Is(err, install.ErrBusy) {
		return exit.Refuse("look with `status`; --force goes on regardless", "%v", err)
	}
	if err != nil {
		return err
	}
	return h.Print(view.Done(fmt.Sprintf("Davit is removed from site %s. What is in its vaults stays there.", site.Name)))
}

func (h Host) dryUninstall(opts install.UninstallOptions) error {
	objects, err := install.Render(install.Options{SiteName: "any"})
	if err != nil {
		return err
	}
	var gone view.Rendered
	for _, o := range objects {
		kind := o.GetKind()
		if opts.KeepData && (kind == "Namespace" || kind == "CustomResourceDefinition") || kind == "Site" {
			continue
		}
		gone = append(gone, o)
	}
	return h.Print(gone)
}
