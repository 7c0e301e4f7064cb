// Package protect turns what a person gave `davit protect` into the objects
// that it makes, and finds every fault that can be found without a cluster.
package protect

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/hook"
	"davit.dev/davit/internal/cli/keeping"
	"davit.dev/davit/internal/cli/objects"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/schedule"
	"davit.dev/davit/internal/vault"
)

// Flags are what `protect` was asked.
type Flags struct {
	// DryRun and Wait are for the command itself.
	DryRun, Wait bool

	keeping keeping.Flags

	namespaces, notNamespaces []string
	namespaceSelector         string
	selectors, workloads      []string
	pods                      []string
	include, exclude          []string
	volumes, snapshotClass    string
	includeVolumes            []string
	excludeVolumes            []string
	freeze                    string
	freezeWindow              time.Duration
	profiles                  string
	hooks                     []string
	file                      string

	every      time.Duration
	cron, zone string
	rpo, rto   time.Duration
	maxAge     time.Duration
	keep       map[string]*int32 // by the name of the rule
}

// Bind adds the flags.
func (o *Flags) Bind(flags *pflag.FlagSet) {
	flags.StringSliceVarP(&o.namespaces, "namespace", "n", nil, `namespace to capture, "*" allowed; may be repeated (default: the one called APP)`)
	flags.StringVar(&o.namespaceSelector, "namespace-selector", "", "capture also the namespaces with these labels")
	flags.StringSliceVar(&o.notNamespaces, "exclude-namespaces", nil, `leave these namespaces out, "*" allowed`)
	flags.StringArrayVarP(&o.selectors, "selector", "l", nil, "capture only objects with these labels, and what they need; repeated: with any of them")
	flags.StringSliceVarP(&o.workloads, "workload", "w", nil, `capture single workloads or pods: KIND/NAME, "*" allowed in the name; may be repeated`)
	flags.StringArrayVar(&o.pods, "pods", nil, "capture the group of pods with these labels, their volumes and what they need; may be repeated")
	flags.StringSliceVar(&o.include, "include-kinds", nil, `capture only these kinds: resource.group, "*" allowed`)
	flags.StringSliceVar(&o.exclude, "exclude-kinds", nil, "leave these kinds out")
	flags.StringVar(&o.volumes, "volumes", "snapshot", "snapshot, snapshot-or-live (points become fuzzy) or none")
	flags.StringVar(&o.snapshotClass, "snapshot-class", "", "VolumeSnapshotClass to use (default: the driver's)")
	flags.StringVar(&o.freeze, "freeze", "auto", "hold all volumes still together while they are cut: auto, required (else no point) or never")
	flags.DurationVar(&o.freezeWindow, "freeze-window", 0, "hold them still for at most this long, 1s to 60s (default: 10s)")
	flags.StringVar(&o.profiles, "profiles", "auto", "bring known databases to rest while they are cut: auto (see davit profiles) or never")
	flags.StringArrayVar(&o.includeVolumes, "include-volumes", nil, "capture the data of these volumes only, see above; may be repeated")
	flags.StringArrayVar(&o.excludeVolumes, "exclude-volumes", nil, "leave the data of these volumes out, see above; may be repeated")
	flags.StringArrayVar(&o.hooks, "hook", nil, "command around the cut, see above; may be repeated")
	flags.StringVarP(&o.file, "file", "f", "", "YAML file with hooks")
	o.bindPolicy(flags)
	o.keeping.Register(flags)
	flags.BoolVar(&o.DryRun, "dry-run", false, "print what would be made; with -o yaml for kubectl or git")
	flags.BoolVar(&o.Wait, "wait", false, "wait for the first recovery point")
}

func (o *Flags) bindPolicy(flags *pflag.FlagSet) {
	flags.DurationVar(&o.every, "every", 0, "interval between captures, 10s or more")
	flags.StringVar(&o.cron, "cron", "", "five-field cron expression, instead of --every")
	flags.StringVar(&o.zone, "time-zone", "", "time zone of --cron, and of days, weeks, months and years to keep, such as Europe/Lisbon (default: UTC)")
	flags.DurationVar(&o.rpo, "rpo", 0, "how much time of work may be lost")
	flags.DurationVar(&o.rto, "rto", 0, "how long recovery may take")
	flags.DurationVar(&o.maxAge, "max-age", 0, "keep points younger than this")
	o.keep = map[string]*int32{}
	for _, rule := range []struct{ name, usage string }{
		{"last", "keep the newest so many points (default: 48, without any other rule)"},
		{"hourly", "keep the newest point of each of so many hours"},
		{"daily", "keep the newest point of each of so many days"},
		{"weekly", "keep the newest point of each of so many weeks, which begin on Monday"},
		{"monthly", "keep the newest point of each of so many months"},
		{"yearly", "keep the newest point of each of so many years"},
	} {
		o.keep[rule.name] = flags.Int32("keep-"+rule.name, 0, rule.usage)
	}
}

// Objects are the two objects for an application of the name. All that is wrong
// with them alone is said here.
func (o *Flags) Objects(name string, now time.Time) (*v1alpha1.Application, *v1alpha1.ProtectionPolicy, error) {
	if err := vault.CheckName(name); err != nil || len(name) > 63 || strings.Contains(name, ".") { // in the vault, a dot follows a tenant's namespace
		return nil, nil, exit.Usage("want at most 63 lower-case letters, digits and '-'", "application name %q is not valid", name)
	}
	if err := o.check(name, now); err != nil {
		return nil, nil, err
	}
	objectMeta := metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: name}
	app := &v1alpha1.Application{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Application"}, ObjectMeta: objectMeta,
	}
	var err error
	if app.Spec, err = o.application(name); err != nil {
		return nil, nil, err
	}
	if _, err := protection.SpecOf(app); err != nil {
		return nil, nil, exit.AsUsage(err)
	}
	policy := &v1alpha1.ProtectionPolicy{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "ProtectionPolicy"}, ObjectMeta: objectMeta,
		Spec: v1alpha1.ProtectionPolicySpec{
			Schedule:   v1alpha1.Schedule{Every: objects.Duration(o.every), Cron: o.cron, TimeZone: o.zone},
			Objectives: v1alpha1.Objectives{RPO: objects.Duration(o.rpo), RTO: objects.Duration(o.rto)},
			Retention: v1alpha1.Retention{
				MaxAge: objects.Duration(o.maxAge), Last: o.rule("last"), Hourly: o.rule("hourly"), Daily: o.rule("daily"),
				Weekly: o.rule("weekly"), Monthly: o.rule("monthly"), Yearly: o.rule("yearly"),
			},
		},
	}
	return app, policy, o.keeping.Apply(&policy.Spec)
}

// rule is how many a retention rule keeps; nil without the rule.
func (o *Flags) rule(name string) *int32 {
	if n := o.keep[name]; n != nil && *n > 0 {
		return n
	}
	return nil
}

func (o *Flags) application(name string) (v1alpha1.ApplicationSpec, error) {
	spec := v1alpha1.ApplicationSpec{
		Policy: name, Namespaces: o.namespaces, ExcludeNamespaces: o.notNamespaces, Workloads: o.workloads,
		IncludeKinds: o.include, ExcludeKinds: o.exclude, Volumes: v1alpha1.VolumeCapture{SnapshotClass: o.snapshotClass, FreezeWindow: objects.Duration(o.freezeWindow)},
	}
	var err error
	if spec.Volumes.Mode, err = volumeMode(o.volumes); err != nil {
		return spec, err
	}
	if spec.Volumes.Freeze, err = freezeMode(o.freeze); err != nil {
		return spec, err
	}
	if spec.Profiles, err = profileMode(o.profiles); err != nil {
		return spec, err
	}
	if spec.Hooks, err = hook.All(o.hooks, o.file); err != nil {
		return spec, err
	}
	if o.namespaceSelector != "" {
		if spec.NamespaceSelector, err = selector("namespace-selector", o.namespaceSelector); err != nil {
			return spec, err
		}
	}
	if len(spec.Namespaces) == 0 && spec.NamespaceSelector == nil {
		spec.Namespaces = []string{name}
	}
	labels, err := selectorsOf("selector", o.selectors)
	if err != nil {
		return spec, err
	}
	if len(labels) > 0 {
		spec.Selector, spec.Selectors = &labels[0], labels[1:]
	}
	if spec.PodSelectors, err = selectorsOf("pods", o.pods); err != nil {
		return spec, err
	}
	if spec.Volumes.Include, err = volumeRules("include-volumes", o.includeVolumes); err != nil {
		return spec, err
	}
	spec.Volumes.Exclude, err = volumeRules("exclude-volumes", o.excludeVolumes)
	return spec, err
}

func selectorsOf(flag string, texts []string) ([]metav1.LabelSelector, error) {
	var all []metav1.LabelSelector
	for _, text := range texts {
		s, err := selector(flag, text)
		if err != nil {
			return nil, err
		}
		all = append(all, *s)
	}
	return all, nil
}

func selector(flag, text string) (*metav1.LabelSelector, error) {
	s, err := metav1.ParseToLabelSelector(text)
	if err == nil && len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		err = fmt.Errorf("%q says nothing", text)
	}
	if err != nil {
		return nil, exit.Usage("write key=value,key2 in (a,b)", "--%s: %v", flag, err)
	}
	return s, nil
}

// volumeRules reads rules such as "data-*", "class=fast" and
// "claims=data-*; class=fast; labels=tier=db".
func volumeRules(flag string, texts []string) ([]v1alpha1.VolumeRule, error) {
	var all []v1alpha1.VolumeRule
	for _, text := range texts {
		var rule v1alpha1.VolumeRule
		for part := range strings.SplitSeq(text, ";") {
			key, value, named := strings.Cut(strings.TrimSpace(part), "=")
			if !named {
				key, value = "claims", key
			}
			switch value = strings.TrimSpace(value); {
			case value == "":
				return nil, exit.Usage("write NAME, class=NAME or labels=SELECTOR, joined by \";\"", "--%s %q: a part of it says nothing", flag, text)
			case key == "claims":
				rule.Claims = append(rule.Claims, strings.Split(value, ",")...)
			case key == "class":
				rule.StorageClass = value
			case key == "labels":
				var err error
				if rule.Selector, err = selector(flag, value); err != nil {
					return nil, err
				}
			default:
				return nil, exit.Usage("write NAME, class=NAME or labels=SELECTOR, joined by \";\"", "--%s %q: %q is not claims, class or labels", flag, text, key)
			}
		}
		all = append(all, rule)
	}
	return all, nil
}

func (o *Flags) check(name string, now time.Time) error {
	switch {
	case o.every != 0 && o.cron != "":
		return exit.Usage("", "give --every or --cron, not both")
	case o.every != 0 && o.every < 10*time.Second:
		return exit.Usage("", "--every %s is less than 10s", o.every)
	case o.Wait && o.every == 0 && o.cron == "":
		return exit.Usage("give --every or --cron, or capture it with `backup "+name+" --wait` afterwards", "--wait waits for ever: nothing is captured without a schedule")
	case o.rpo < 0 || o.rto < 0 || o.maxAge < 0:
		return exit.Usage("", "--rpo, --rto and --max-age cannot be negative")
	case o.freezeWindow != 0 && (o.freezeWindow < time.Second || o.freezeWindow > time.Minute):
		return exit.Usage("", "--freeze-window %s is not between 1s and 60s", o.freezeWindow)
	case o.rpo > 0 && o.every > o.rpo:
		return exit.Usage("capture more often, or allow more to be lost",
			"--every %s can never keep --rpo %s: up to %s of work would be lost", o.every, o.rpo, o.every)
	}
	for rule, n := range o.keep {
		if *n < 0 {
			return exit.Usage("", "--keep-%s cannot be negative", rule)
		}
	}
	for _, namespace := range o.namespaces {
		if namespace == v1alpha1.SystemNamespace {
			return exit.Usage("", "%s is Davit's own namespace: it comes back by install and vault add --join", namespace)
		}
	}
	table, err := schedule.Parse(o.every, o.cron, o.zone)
	if err != nil {
		return exit.Usage("five fields: minute, hour, day of month, month, day of week", "--cron or --time-zone: %v", err)
	}
	if table == nil {
		return nil
	}
	gap := table.LongestGap(now)
	if o.cron != "" && gap == 0 {
		return exit.Usage("", "--cron %q names no two times within a year", o.cron)
	}
	if err := schedule.CheckObjective(o.rpo, gap, 0); err != nil {
		return exit.Usage("capture more often, or allow more to be lost", "--rpo: %v", err)
	}
	return nil
}

func volumeMode(s string) (v1alpha1.VolumeMode, error) {
	for mode, name := range map[v1alpha1.VolumeMode]string{
		v1alpha1.VolumeSnapshot: "snapshot", v1alpha1.VolumeSnapshotOrLive: "snapshot-or-live", v1alpha1.VolumeNone: "none",
	} {
		if s == name {
			return mode, nil
		}
	}
	return "", exit.Usage("", "--volumes %q is not snapshot, snapshot-or-live or none", s)
}

func freezeMode(s string) (v1alpha1.FreezeMode, error) {
	for _, mode := range []v1alpha1.FreezeMode{v1alpha1.FreezeAuto, v1alpha1.FreezeRequired, v1alpha1.FreezeNever} {
		if strings.EqualFold(s, string(mode)) {
			return mode, nil
		}
	}
	return "", exit.Usage("", "--freeze %q is not auto, required or never", s)
}

func profileMode(s string) (v1alpha1.ProfileMode, error) {
	for _, mode := range []v1alpha1.ProfileMode{v1alpha1.ProfilesAuto, v1alpha1.ProfilesNever} {
		if strings.EqualFold(s, string(mode)) {
			return mode, nil
		}
	}
	return "", exit.Usage("", "--profiles %q is not auto or never", s)
}
