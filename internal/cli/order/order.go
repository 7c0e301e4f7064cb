// Package order is what a person orders of a restore, by flags: it reads them,
// checks them, and makes of them what a recovery or a Restore object wants.
package order

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/equipping"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/objects"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/vault"
)

// Restore is what `restore` was asked.
type Restore struct {
	access.Address
	equipping.Way
	// Options are filled by Complete.
	Options recovery.Options
	// Name is what was given: an application or a point.
	Name string
	// TakeOver, AsClone, DryRun, Yes and Background are the flags of these names.
	TakeOver, AsClone, DryRun, Yes, Background bool
	// Drawn is how the order is shown: text, dot, or not.
	Drawn string
	// Insecure are registries that are asked for images without TLS.
	Insecure []string
	// Limit bounds a restore in the background; 0 does not.
	Limit time.Duration
	// Account is the one whose rights a restore in the background has.
	Account string
	// Site is this site's name, where the cluster does not know it.
	Site string

	asOf, existing, nodePorts, gitOps         string
	namespaces, storageClasses, existingKinds []string
	transforms                                []string
}

// Flags binds the flags of `restore`.
func (o *Restore) Flags(flags *pflag.FlagSet) {
	flags.StringVar(&o.asOf, "as-of", "", "the newest point not after this time: 2026-01-31T15:04:05Z, or 10m for ten minutes ago")
	flags.BoolVar(&o.TakeOver, "take-over", false, "move the right to write to this site")
	flags.BoolVar(&o.AsClone, "as-clone", false, "make a copy; needs --map-namespace")
	flags.StringSliceVar(&o.namespaces, "map-namespace", nil, "FROM=TO; may be repeated")
	flags.StringSliceVar(&o.storageClasses, "map-storage-class", nil, "FROM=TO; may be repeated")
	flags.StringArrayVar(&o.transforms, "transform", nil, "file with rules that change objects on their way; may be repeated")
	flags.BoolVar(&o.Options.NoOverlays, "no-overlays", false, "leave out this site's overlays")
	flags.StringVar(&o.Options.MirrorImagesFrom, "mirror-images-from", "", "take images from this mirror, host[:port][/path]")
	flags.StringSliceVar(&o.Insecure, "insecure-registry", nil, "mirror, host[:port], that is asked for images without TLS")
	flags.StringVar(&o.existing, "existing", "skip", "what happens to objects that exist already and differ: skip, update, replace or exact")
	flags.StringSliceVar(&o.existingKinds, "existing-kind", nil, "KIND=POLICY: another policy for one kind, such as secrets=replace; may be repeated")
	flags.StringVar(&o.nodePorts, "node-ports", "", "node ports of Services: preserve (the default, where they are free) or reassign (the default of a copy)")
	flags.StringVar(&o.gitOps, "gitops", "keep", "objects that Flux or Argo CD make from git: keep (restored like any other), skip (left to git) or suspend (restored while these are suspended)")
	flags.StringSliceVar(&o.Options.IncludeKinds, "include-kinds", nil, `restore only these kinds: resource.group, "*" allowed`)
	flags.StringSliceVar(&o.Options.ExcludeKinds, "exclude-kinds", nil, "leave these kinds out")
	flags.StringSliceVar(&o.Options.RestoreStatusOf, "restore-status-of", nil, "kinds whose status is restored too")
	flags.BoolVar(&o.Options.Again, "again", false, "roll volumes back again that the same restore rolled back before and did not end whole")
	flags.BoolVar(&o.Options.AcceptFuzzy, "accept-fuzzy", false, "allow a point whose volumes were read while they were written")
	flags.BoolVar(&o.Options.AcceptQuarantined, "accept-quarantined", false, "allow the quarantined point that is named")
	flags.BoolVar(&o.Options.Force, "accept-damaged", false, "allow the named point although verification found damage in it")
	flags.DurationVar(&o.Options.ReadyTimeout, "ready-timeout", 0, "how long to wait for workloads (default: 10m)")
	flags.IntVar(&o.Options.Workers, "workers", 0, "objects restored at a time (default: 64)")
	flags.BoolVar(&o.DryRun, "dry-run", false, "check everything, say what would be done, change nothing")
	flags.StringVar(&o.Drawn, "order", "", "with --dry-run: show in what order objects come, and why: text, or dot for Graphviz")
	flags.BoolVar(&o.Options.Diff, "diff", false, "with --dry-run: show what would change in each object")
	flags.BoolVar(&o.Yes, "yes", false, "do not ask")
	flags.BoolVar(&o.Background, "background", false, "have the agent do it, through a Restore object, and follow it")
	flags.StringVar(&o.Account, "service-account", "davit-restore", "with --background: account in davit-system whose rights are used")
	flags.StringVar(&o.Site, "site", "", "name of this site, where the cluster does not know it")
	o.Way.Flags(flags)
}

// Complete checks the flags and fills in the options.
func (o *Restore) Complete(now time.Time) (err error) {
	o.Options.Mode, o.Options.Order = v1alpha1.RestoreInPlace, o.Drawn != ""
	switch {
	case o.TakeOver:
		o.Options.Mode = v1alpha1.RestoreTakeOver
	case o.AsClone:
		o.Options.Mode = v1alpha1.RestoreClone
	}
	switch {
	case o.TakeOver && o.AsClone:
		return exit.Usage("`restore --help` tells them apart", "give --take-over or --as-clone, not both")
	case o.AsClone && len(o.namespaces) == 0:
		return exit.Usage("give --map-namespace FROM=TO for each namespace", "--as-clone needs other namespaces, so that nobody takes the copy for the original")
	case o.TakeOver && len(o.namespaces) > 0:
		return exit.Usage("--as-clone makes a copy under other names", "--take-over keeps the namespaces")
	case o.Drawn != "" && o.Drawn != "text" && o.Drawn != "dot":
		return exit.Usage("", "--order %q is not text or dot", o.Drawn)
	case o.Drawn != "" && !o.DryRun:
		return exit.Usage("give --dry-run --order "+o.Drawn, "--order shows what would be done: it needs --dry-run")
	case o.Options.Diff && !o.DryRun:
		return exit.Usage("give --dry-run --diff", "--diff shows what would be done: it needs --dry-run")
	case o.Background && o.URL != "":
		return exit.Usage("", "--background works through this site's vaults: --vault-url does not go with it")
	}
	if o.Options.NamespaceMapping, err = Mapping("map-namespace", o.namespaces); err != nil {
		return err
	}
	if o.Options.StorageClassMapping, err = Mapping("map-storage-class", o.storageClasses); err != nil {
		return err
	}
	if o.Options.AsOf, err = Instant(o.asOf, now); err != nil {
		return err
	}
	if err := o.completeExisting(); err != nil {
		return err
	}
	if err := o.completeTransforms(); err != nil {
		return err
	}
	switch o.nodePorts {
	case "": // by mode
	case "preserve":
		o.Options.NodePorts = v1alpha1.NodePortPreserve
	case "reassign":
		o.Options.NodePorts = v1alpha1.NodePortReassign
	default:
		return exit.Usage("", "--node-ports %q is not preserve or reassign", o.nodePorts)
	}
	var known bool
	if o.Options.GitOps, known = gitOps[strings.ToLower(o.gitOps)]; !known {
		return exit.Usage("", "--gitops %q is not keep, skip or suspend", o.gitOps)
	}
	return o.completeTarget()
}

// gitOps are the words for what is done about objects that git holds.
var gitOps = map[string]v1alpha1.GitOpsPolicy{
	"": v1alpha1.GitOpsKeep, "keep": v1alpha1.GitOpsKeep, "skip": v1alpha1.GitOpsSkip, "suspend": v1alpha1.GitOpsSuspend,
}

// policies are the words for what happens to existing objects.
var policies = map[string]v1alpha1.ExistingPolicy{
	"skip": v1alpha1.ExistingSkip, "update": v1alpha1.ExistingUpdate,
	"replace": v1alpha1.ExistingReplace, "exact": v1alpha1.ExistingExact,
}

func (o *Restore) completeExisting() error {
	var ok bool
	if o.Options.Existing, ok = policies[strings.ToLower(o.existing)]; !ok {
		return exit.Usage("", "--existing %q is not skip, update, replace or exact", o.existing)
	}
	for _, pair := range o.existingKinds {
		kind, word, cut := strings.Cut(pair, "=")
		policy, known := policies[strings.ToLower(word)]
		if !cut || kind == "" || !known {
			return exit.Usage("write --existing-kind KIND=POLICY, such as secrets=replace; policies are skip, update, replace and exact", "--existing-kind %q is not valid", pair)
		}
		if o.Options.ExistingKinds == nil {
			o.Options.ExistingKinds = map[string]v1alpha1.ExistingPolicy{}
		}
		o.Options.ExistingKinds[kind] = policy
	}
	return nil
}

// Overwrites tells whether live data may be replaced or deleted: a person
// confirms that.
func (o *Restore) Overwrites() bool {
	destroys := func(p v1alpha1.ExistingPolicy) bool {
		return p == v1alpha1.ExistingReplace || p == v1alpha1.ExistingExact
	}
	return destroys(o.Options.Existing) || slices.ContainsFunc(slices.Collect(maps.Values(o.Options.ExistingKinds)), destroys)
}

func (o *Restore) completeTarget() error {
	o.Options.Application = VaultApp(o.Name)
	if IsPoint(o.Name) {
		if !o.Options.AsOf.IsZero() {
			return exit.Usage("", "a point is named already: --as-of does not go with it")
		}
		o.Options.Application, o.Options.Point = AppOfPoint(o.Name), o.Name
	}
	if err := vault.CheckName(o.Options.Application); err != nil {
		return exit.AsUsage(err)
	}
	return nil
}

// Instant reads a time for --as-of: RFC 3339, a UTC time without zone,
// or how long ago.
func Instant(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(strings.TrimSuffix(s, " ago")); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05Z", "2006-01-02 15:04:05", "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02T15:04"} {
		if t, err := time.ParseInLocation(layout, s, time.UTC); err == nil {
			return t, nil
		}
	}
	return time.Time{}, exit.Usage("write 2026-01-31T15:04:05Z, \"2026-01-31 15:04\" (UTC) or 10m for ten minutes ago", "time %q is not valid", s)
}

// Mapping reads "from=to" pairs.
func Mapping(flag string, pairs []string) (map[string]string, error) {
	mapping := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		from, to, ok := strings.Cut(pair, "=")
		if !ok || vault.CheckName(from) != nil || vault.CheckName(to) != nil {
			return nil, exit.Usage("write --"+flag+" FROM=TO", "--%s %q is not valid", flag, pair)
		}
		if was, taken := mapping[from]; taken && was != to {
			return nil, exit.Usage("", "--%s maps %q to both %q and %q", flag, from, was, to)
		}
		mapping[from] = to
	}
	return mapping, nil
}

// VaultApp is the application's name in the vault for what a person typed.
func VaultApp(name string) string {
	if namespace, rest, ok := strings.Cut(name, "/"); ok {
		if namespace == v1alpha1.SystemNamespace {
			return rest
		}
		return namespace + "." + rest
	}
	return name
}

// IsPoint tells whether the name is a recovery point's and not an application's.
func IsPoint(name string) bool {
	_, ok := point.IDTime(name)
	return ok
}

// AppOfPoint takes the application's name out of a point's. Names of more than
// 200 characters are cut in points' names, and so need findPoint.
func AppOfPoint(id string) string {
	parts := strings.Split(id, "-")
	if len(parts) < 4 {
		return ""
	}
	return strings.Join(parts[:len(parts)-3], "-")
}

// Object is the same order as a Restore, for the agent to carry out.
func (o *Restore) Object(vaultName string, now time.Time) *v1alpha1.Restore {
	spec := v1alpha1.RestoreSpec{
		Vault: vaultName, Application: o.Options.Application, Point: o.Options.Point, Mode: o.Options.Mode,
		NamespaceMapping: o.Options.NamespaceMapping, StorageClassMapping: o.Options.StorageClassMapping,
		Existing: o.Options.Existing, ExistingKinds: o.Options.ExistingKinds, NodePorts: o.Options.NodePorts, GitOps: o.Options.GitOps, IncludeKinds: o.Options.IncludeKinds,
		ExcludeKinds: o.Options.ExcludeKinds, RestoreStatusOf: o.Options.RestoreStatusOf, AcceptFuzzy: o.Options.AcceptFuzzy, Again: o.Options.Again,
		Transforms: rules(o.Options.Transforms), NoOverlays: o.Options.NoOverlays, MirrorImagesFrom: o.Options.MirrorImagesFrom,
		ServiceAccountName: o.Account, ReadyTimeout: objects.Duration(o.Options.ReadyTimeout), Timeout: objects.Duration(o.Limit),
	}
	if !o.Options.AsOf.IsZero() {
		spec.AsOf = &metav1.Time{Time: o.Options.AsOf}
	}
	return &v1alpha1.Restore{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Restore"},
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: o.Options.Application + "-" + now.UTC().Format("20060102-150405")},
		Spec:       spec,
	}
}
