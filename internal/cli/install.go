package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/cli/output"
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
		return usageError("choose a short name that no other site has, such as east", "--site is missing")
	}
	objects, err := install.Render(opts)
	if err != nil {
		return asUsage(err)
	}
	if dryRun {
		return e.print(rendered(objects))
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
	return e.print(installed{Site: opts.SiteName, Objects: len(objects), Took: e.now().Sub(start), ready: !opts.NoWait, next: e.named("`vault add NAME URL`")})
}

// rendered are the objects of an install that was not carried out.
type rendered []unstructured.Unstructured

// Text lists them.
func (r rendered) Text(t *output.Text) {
	var rows [][]string
	for _, o := range r {
		rows = append(rows, []string{o.GetKind(), o.GetNamespace(), o.GetName()})
	}
	t.Table("", output.Columns("KIND", "NAMESPACE", "NAME"), rows)
}

// Document is all of them.
func (r rendered) Document() any {
	docs := output.Documents{}
	for _, o := range r {
		docs = append(docs, o.Object)
	}
	return docs
}

type installed struct {
	Site    string        `json:"site"`
	Objects int           `json:"objects"`
	Took    time.Duration `json:"took"`
	ready   bool
	next    string
}

func (i installed) Text(t *output.Text) {
	state := "applied"
	if i.ready {
		state = "ready"
	}
	t.Line("Davit is %s at site %s: %s in %s.", state, i.Site, output.Plural(int64(i.Objects), "object"), output.Duration(i.Took))
	t.Line("Next: %s", i.next)
}

func (i installed) Document() any { return i }

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
	site, err := localSite(ctx, c)
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
		return refuse("look with `status`; --force goes on regardless", "%v", err)
	}
	if err != nil {
		return err
	}
	return e.print(done(fmt.Sprintf("Davit is removed from site %s. What is in its vaults stays there.", site.Name)))
}

func (e *env) dryUninstall(opts install.UninstallOptions) error {
	objects, err := install.Render(install.Options{SiteName: "any"})
	if err != nil {
		return err
	}
	var gone rendered
	for _, o := range objects {
		kind := o.GetKind()
		if opts.KeepData && (kind == "Namespace" || kind == "CustomResourceDefinition") || kind == "Site" {
			continue
		}
		gone = append(gone, o)
	}
	return e.print(gone)
}

// done is a result of one sentence.
type done string

// Text is the sentence.
func (d done) Text(t *output.Text) { t.Line("%s", string(d)) }

// Document holds it.
func (d done) Document() any { return map[string]string{"result": string(d)} }
