package protect

import (
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/hook"
	"davit.dev/davit/internal/cli/objects"
	"davit.dev/davit/internal/vault"
)

// New are the two objects for an application of the name before any flag.
func New(name string) (*v1alpha1.Application, *v1alpha1.ProtectionPolicy, error) {
	if err := vault.CheckName(name); err != nil || len(name) > 63 || strings.Contains(name, ".") { // in the vault, a dot follows a tenant's namespace
		return nil, nil, exit.Usage("want at most 63 lower-case letters, digits and '-'", "application name %q is not valid", name)
	}
	app, policy := &v1alpha1.Application{}, &v1alpha1.ProtectionPolicy{}
	app.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Application"}
	policy.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "ProtectionPolicy"}
	app.Namespace, app.Name = v1alpha1.SystemNamespace, name
	policy.Namespace, policy.Name = v1alpha1.SystemNamespace, name
	app.Spec.Volumes = v1alpha1.VolumeCapture{Mode: v1alpha1.VolumeSnapshot, Freeze: v1alpha1.FreezeAuto}
	app.Spec.Profiles = v1alpha1.ProfilesAuto
	return app, policy, nil
}

// Apply changes what the flags say in the two objects, and nothing else. Every
// fault of a flag by itself is said here; Check says those of the whole.
func (o *Flags) Apply(app *v1alpha1.Application, policy *v1alpha1.ProtectionPolicy) error {
	if err := o.takeBack(); err != nil {
		return err
	}
	for _, apply := range []func() error{
		func() error { return o.namespacesOf(app) },
		func() error { return o.selectionOf(&app.Spec) },
		func() error { return o.volumesOf(&app.Spec) },
		func() error { return o.restOf(&app.Spec) },
		func() error { return o.schedule(&policy.Spec) },
		func() error { return o.retention(&policy.Spec.Retention) },
		func() error { return o.keeping.Apply(&policy.Spec) },
	} {
		if err := apply(); err != nil {
			return err
		}
	}
	return nil
}

// takeBack makes the flags that --unset names ones that were given with their
// defaults.
func (o *Flags) takeBack() error {
	for _, name := range o.unset {
		name = strings.TrimLeft(name, "-")
		flag := o.set.Lookup(name)
		switch {
		case name == "file" || name == "test-probes":
			return exit.Usage("`--unset hook` and `--unset test-probe` take them back", "--unset %s: a file is not kept, only what it said", name)
		case flag == nil || !o.own[name]:
			return exit.Usage("name a flag of `protect`, without --", "--unset %s: there is no such flag to take back", name)
		case flag.Changed:
			return exit.Usage("", "--%s is given and taken back", name)
		}
	}
	for _, name := range o.unset {
		o.set.Lookup(strings.TrimLeft(name, "-")).Changed = true
	}
	o.unset = nil
	return nil
}

// GivesPolicy says that a flag changes the policy.
func (o *Flags) GivesPolicy() bool {
	prefixes := []string{"every", "cron", "time-zone", "rpo", "rto", "max-age", "capture-", "keep-", "verify-", "test-"}
	for name := range o.own {
		if o.set.Changed(name) && slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) }) {
			return true
		}
	}
	return false
}

// replace writes a value whose flag was given.
func replace[T any](o *Flags, flag string, field *T, value T) {
	if o.set.Changed(flag) {
		*field = value
	}
}

// replaceRead does so with a value that is read from text, and may be wrong.
func replaceRead[T any](o *Flags, flag string, field *T, read func() (T, error)) error {
	if !o.set.Changed(flag) {
		return nil
	}
	value, err := read()
	if err == nil {
		*field = value
	}
	return err
}

func (o *Flags) namespacesOf(app *v1alpha1.Application) error {
	spec := &app.Spec
	if slices.Contains(o.namespaces, v1alpha1.SystemNamespace) {
		return exit.Usage("", "%s is Davit's own namespace: it comes back by install and vault add --join", v1alpha1.SystemNamespace)
	}
	replace(o, "namespace", &spec.Namespaces, o.namespaces)
	replace(o, "exclude-namespaces", &spec.ExcludeNamespaces, o.notNamespaces)
	err := replaceRead(o, "namespace-selector", &spec.NamespaceSelector, func() (*metav1.LabelSelector, error) {
		if o.namespaceSelector == "" {
			return nil, nil
		}
		return selector("namespace-selector", o.namespaceSelector)
	})
	if len(spec.Namespaces) == 0 && spec.NamespaceSelector == nil {
		spec.Namespaces = []string{app.Name}
	}
	return err
}

func (o *Flags) selectionOf(spec *v1alpha1.ApplicationSpec) error {
	replace(o, "workload", &spec.Workloads, o.workloads)
	replace(o, "include-kinds", &spec.IncludeKinds, o.include)
	replace(o, "exclude-kinds", &spec.ExcludeKinds, o.exclude)
	if o.set.Changed("selector") {
		labels, err := selectorsOf("selector", o.selectors)
		if err != nil {
			return err
		}
		spec.Selector, spec.Selectors = nil, nil
		if len(labels) > 0 {
			spec.Selector, spec.Selectors = &labels[0], labels[1:]
		}
	}
	return replaceRead(o, "pods", &spec.PodSelectors, func() ([]metav1.LabelSelector, error) { return selectorsOf("pods", o.pods) })
}

func (o *Flags) volumesOf(spec *v1alpha1.ApplicationSpec) error {
	v := &spec.Volumes
	if o.freezeWindow != 0 && (o.freezeWindow < time.Second || o.freezeWindow > time.Minute) {
		return exit.Usage("", "--freeze-window %s is not between 1s and 60s", o.freezeWindow)
	}
	replace(o, "snapshot-class", &v.SnapshotClass, o.snapshotClass)
	replace(o, "group-snapshot-class", &v.GroupSnapshotClass, o.groupClass)
	replace(o, "freeze-window", &v.FreezeWindow, objects.Duration(o.freezeWindow))
	if err := replaceRead(o, "volumes", &v.Mode, func() (v1alpha1.VolumeMode, error) { return volumeMode(o.volumes) }); err != nil {
		return err
	}
	if err := replaceRead(o, "freeze", &v.Freeze, func() (v1alpha1.FreezeMode, error) { return freezeMode(o.freeze) }); err != nil {
		return err
	}
	if err := replaceRead(o, "changed-blocks", &v.ChangedBlocks, func() (v1alpha1.ChangedBlocksMode, error) { return changedBlocksMode(o.changedBlocks) }); err != nil {
		return err
	}
	if err := replaceRead(o, "include-volumes", &v.Include, func() ([]v1alpha1.VolumeRule, error) {
		return volumeRules("include-volumes", o.includeVolumes)
	}); err != nil {
		return err
	}
	return replaceRead(o, "exclude-volumes", &v.Exclude, func() ([]v1alpha1.VolumeRule, error) {
		return volumeRules("exclude-volumes", o.excludeVolumes)
	})
}

func (o *Flags) restOf(spec *v1alpha1.ApplicationSpec) error {
	if err := replaceRead(o, "profiles", &spec.Profiles, func() (v1alpha1.ProfileMode, error) { return profileMode(o.profiles) }); err != nil {
		return err
	}
	if !o.set.Changed("hook") && !o.set.Changed("file") {
		return nil
	}
	hooks, err := hook.All(o.hooks, o.file)
	if err == nil {
		spec.Hooks = hooks
	}
	return err
}

func (o *Flags) schedule(spec *v1alpha1.ProtectionPolicySpec) error {
	switch {
	case o.every != 0 && o.cron != "":
		return exit.Usage("", "give --every or --cron, not both")
	case o.every != 0 && o.every < 10*time.Second:
		return exit.Usage("", "--every %s is less than 10s", o.every)
	case o.captureMax != 0 && (o.captureMax < time.Minute || o.captureMax > 168*time.Hour):
		return exit.Usage("", "--capture-timeout %s is not between 1m and 168h", o.captureMax)
	case o.rpo < 0 || o.rto < 0 || o.maxAge < 0:
		return exit.Usage("", "--rpo, --rto and --max-age cannot be negative")
	}
	s := &spec.Schedule
	replace(o, "every", &s.Every, objects.Duration(o.every))
	replace(o, "cron", &s.Cron, o.cron)
	if o.every != 0 { // the one that is given stands instead of the other
		s.Cron = ""
	}
	if o.cron != "" {
		s.Every = nil
	}
	replace(o, "time-zone", &s.TimeZone, o.zone)
	replace(o, "capture-timeout", &spec.CaptureTimeout, objects.Duration(o.captureMax))
	replace(o, "rpo", &spec.Objectives.RPO, objects.Duration(o.rpo))
	replace(o, "rto", &spec.Objectives.RTO, objects.Duration(o.rto))
	return nil
}

func (o *Flags) retention(r *v1alpha1.Retention) error {
	replace(o, "max-age", &r.MaxAge, objects.Duration(o.maxAge))
	for rule, field := range map[string]**int32{
		"last": &r.Last, "hourly": &r.Hourly, "daily": &r.Daily, "weekly": &r.Weekly, "monthly": &r.Monthly, "yearly": &r.Yearly,
	} {
		n := o.keep[rule]
		switch {
		case *n < 0:
			return exit.Usage("", "--keep-%s cannot be negative", rule)
		case *n == 0:
			n = nil // without the rule
		}
		replace(o, "keep-"+rule, field, n)
	}
	return nil
}
