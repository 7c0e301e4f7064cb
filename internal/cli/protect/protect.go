// Package protect turns what a person gave `davit protect` into the objects
// that it makes or changes, and finds every fault in them.
package protect

import (
	"time"

	"github.com/spf13/pflag"

	"davit.dev/davit/internal/cli/keeping"
)

// Flags are what `protect` was asked.
type Flags struct {
	// DryRun and Wait are for the command itself.
	DryRun, Wait bool

	set   *pflag.FlagSet
	own   map[string]bool // the flags that stand in the documents
	unset []string

	keeping keeping.Flags

	namespaces, notNamespaces []string
	namespaceSelector         string
	selectors, workloads      []string
	pods                      []string
	include, exclude          []string
	volumes, snapshotClass    string
	groupClass                string
	includeVolumes            []string
	excludeVolumes            []string
	freeze                    string
	freezeWindow              time.Duration
	changedBlocks             string
	profiles                  string
	hooks                     []string
	file                      string

	every      time.Duration
	cron, zone string
	rpo, rto   time.Duration
	maxAge     time.Duration
	captureMax time.Duration
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
	flags.StringVar(&o.groupClass, "group-snapshot-class", "", "VolumeGroupSnapshotClass to cut all volumes of its driver with (default: the driver's, unless --snapshot-class is given)")
	flags.StringVar(&o.freeze, "freeze", "auto", "hold all volumes still together while they are cut: auto, required (else no point) or never")
	flags.DurationVar(&o.freezeWindow, "freeze-window", 0, "hold them still for at most this long, 1s to 60s (default: 10s)")
	flags.StringVar(&o.changedBlocks, "changed-blocks", "never", "read large files only where their volume's driver says that blocks were changed: auto (keeps a snapshot of each volume) or never")
	flags.StringVar(&o.profiles, "profiles", "auto", "bring known databases to rest while they are cut: auto (see davit profiles) or never")
	flags.StringArrayVar(&o.includeVolumes, "include-volumes", nil, "capture the data of these volumes only, see above; may be repeated")
	flags.StringArrayVar(&o.excludeVolumes, "exclude-volumes", nil, "leave the data of these volumes out, see above; may be repeated")
	flags.StringArrayVar(&o.hooks, "hook", nil, "command around the cut, see above; may be repeated")
	flags.StringVarP(&o.file, "file", "f", "", "YAML file with hooks, beside those of --hook")
	o.bindPolicy(flags)
	o.keeping.Register(flags)
	o.set, o.own = flags, map[string]bool{}
	flags.VisitAll(func(f *pflag.Flag) { o.own[f.Name] = true })
	flags.StringSliceVar(&o.unset, "unset", nil, "take back what this flag said before, such as hook or every; may be repeated")
	flags.BoolVar(&o.DryRun, "dry-run", false, "print what would be made; with -o yaml for kubectl or git")
	flags.BoolVar(&o.Wait, "wait", false, "wait for the first recovery point")
}

func (o *Flags) bindPolicy(flags *pflag.FlagSet) {
	flags.DurationVar(&o.every, "every", 0, "interval between captures, 10s or more")
	flags.StringVar(&o.cron, "cron", "", "five-field cron expression, instead of --every")
	flags.StringVar(&o.zone, "time-zone", "", "time zone of --cron, and of days, weeks, months and years to keep, such as Europe/Lisbon (default: UTC)")
	flags.DurationVar(&o.rpo, "rpo", 0, "how much time of work may be lost")
	flags.DurationVar(&o.rto, "rto", 0, "how long recovery may take")
	flags.DurationVar(&o.captureMax, "capture-timeout", 0, "stop a capture that takes longer, 1m to 168h (default: 24h)")
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
