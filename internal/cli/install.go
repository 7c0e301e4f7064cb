package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/view"
	"davit.dev/davit/internal/install"
)

func (e *env) installCommand() *cobra.Command {
	var opts install.Options
	var dryRun, wait bool
	cmd := &cobra.Command{
		Use:   "install --site NAME",
		Short: "Put Davit into a cluster, or upgrade it",
		Long: `Puts Davit into the cluster: namespace davit-system, definitions, accounts and rights, the agent and a node process on
every node. Installing again upgrades. --site names the cluster in every vault it will use and cannot change later.`,
		Args: args(cobra.NoArgs, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.NoWait, opts.Timeout = !wait, e.global.timeout
			return e.runInstall(cmd, opts, dryRun)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.SiteName, "site", "", "name of this site (required)")
	flags.StringVar(&opts.FailureDomain, "failure-domain", "", "what this site shares its fate with, such as a building or a region")
	flags.StringVar(&opts.Image, "image", "", "container image of Davit")
	flags.StringVar(&opts.Registry, "registry", "", "take the image from this registry instead, for sites that cannot reach the original")
	flags.StringVar(&opts.ImagePullPolicy, "image-pull-policy", "", "Always, IfNotPresent or Never")
	flags.StringSliceVar(&opts.ImagePullSecrets, "image-pull-secret", nil, "name of a Secret in davit-system for the registry")
	flags.Int32Var(&opts.Replicas, "replicas", 1, "agents, of which one leads")
	flags.StringVar(&opts.KubeletRoot, "kubelet-root", "", "the kubelet's directory on the nodes (default: /var/lib/kubelet)")
	flags.StringSliceVar(&opts.HostPathRoots, "host-path-root", nil, "directory of the nodes below which hostPath volumes may be read and written")
	flags.StringVar(&opts.LogLevel, "log-level", "", "debug, info, warn or error")
	flags.BoolVar(&wait, "wait", true, "wait until agent and node processes are ready")
	flags.BoolVar(&dryRun, "dry-run", false, "print what would be applied; with -o yaml for kubectl or git")
	return cmd
}

func (e *env) runInstall(cmd *cobra.Command, opts install.Options, dryRun bool) error {
	if opts.SiteName == "" {
		return exit.Usage("choose a short name that no other site has, such as east", "--site is missing")
	}
	objects, err := install.Render(opts)
	if err != nil {
		return exit.AsUsage(err)
	}
	if dryRun {
		return e.print(view.Rendered(objects))
	}
	ctx, cancel := e.working(cmd)
	defer cancel()
	c, err := e.cluster()
	if err != nil {
		return err
	}
	start := e.now()
	if err := c.Install(ctx, opts, func(step string) { e.progress.Step("%s", step) }); err != nil {
		return err
	}
	return e.print(view.Installed{Site: opts.SiteName, Objects: len(objects), Took: e.now().Sub(start), Ready: !opts.NoWait, Next: e.named("`vault add NAME URL`")})
}

func (e *env) uninstallCommand() *cobra.Command {
	var opts install.UninstallOptions
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Take Davit out of a cluster; vaults and applications stay",
		Long: `Removes Davit from the cluster. Applications go on running, and what is in the vaults stays there, to be found again by
"install" and "vault add --join". --keep-data also keeps Davit's objects and the way to the vaults.`,
		Args: args(cobra.NoArgs, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Timeout = e.global.timeout
			return e.runUninstall(cmd, opts, yes, dryRun)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&opts.KeepData, "keep-data", false, "keep definitions, objects, Secrets and the namespace")
	flags.BoolVar(&opts.Force, "force", false, "also while a capture or restore is under way")
	flags.BoolVar(&yes, "yes", false, "do not ask")
	flags.BoolVar(&dryRun, "dry-run", false, "print what would be removed")
	return cmd
}

func (e *env) runUninstall(cmd *cobra.Command, opts install.UninstallOptions, yes, dryRun bool) error {
	ctx, cancel := e.working(cmd)
	defer cancel()
	if dryRun {
		return e.dryUninstall(opts)
	}
	c, err := e.cluster()
	if err != nil {
		return err
	}
	site, err := access.LocalSite(ctx, c)
	if err != nil {
		return err
	}
	if !yes {
		e.progress.Note("This ends the protection of every application at site %s. Recovery points in vaults stay.", site.Name)
		if err := e.askFor(site.Name, "the site's name"); err != nil {
			return err
		}
	}
	err = c.Uninstall(ctx, opts, func(step string) { e.progress.Step("%s", step) })
	if errors.Is(err, install.ErrBusy) {
		return exit.Refuse("look with `status`; --force goes on regardless", "%v", err)
	}
	if err != nil {
		return err
	}
	return e.print(view.Done(fmt.Sprintf("Davit is removed from site %s. What is in its vaults stays there.", site.Name)))
}

func (e *env) dryUninstall(opts install.UninstallOptions) error {
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
	return e.print(gone)
}
