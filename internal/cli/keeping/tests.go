package keeping

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/objects"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/manuscript"
	"davit.dev/davit/internal/schedule"
	"davit.dev/davit/internal/trial"
)

// testFlags are those of `protect` about restore tests.
type testFlags struct {
	every   time.Duration
	cron    string
	newest  int32
	timeout time.Duration
	probes  Probes
	set     *pflag.FlagSet
}

// Probes are the flags that say what a restored copy is asked.
type Probes struct {
	texts []string
	file  string
}

// Register declares the flags, with a prefix before their names.
func (p *Probes) Register(flags *pflag.FlagSet, prefix string) {
	flags.StringArrayVar(&p.texts, prefix+"probe", nil, `what a restored copy is asked: "name=db; pods=app=db; sql=psql SELECT 1; expect=1"; may be repeated`)
	flags.StringVar(&p.file, prefix+"probes", "", `YAML file with a list "probes", written as in the ProtectionPolicy kind`)
}

// All reads the probes and checks them together.
func (p *Probes) All() ([]v1alpha1.RestoreProbe, error) {
	var all []v1alpha1.RestoreProbe
	for _, text := range p.texts {
		probe, err := parseProbe(text)
		if err != nil {
			return nil, err
		}
		all = append(all, probe)
	}
	if p.file != "" {
		text, err := os.ReadFile(p.file)
		if err != nil {
			return nil, exit.AsUsage(fmt.Errorf("read probes: %w", err))
		}
		var content struct {
			Probes []v1alpha1.RestoreProbe `json:"probes"`
		}
		if err := manuscript.Read(text, &content, manuscript.Strict); err != nil {
			return nil, exit.AsUsage(fmt.Errorf("read probes from %s: %w", p.file, err))
		}
		all = append(all, content.Probes...)
	}
	names := map[string]bool{}
	for _, probe := range all {
		if probe.Name == "" || names[probe.Name] {
			return nil, exit.Usage("", "each probe needs a name of its own; %q has none or shares it", probe.Name)
		}
		names[probe.Name] = true
	}
	return all, exit.AsUsage(trial.Check(all))
}

func (f *testFlags) register(flags *pflag.FlagSet) {
	flags.DurationVar(&f.every, "test-every", 0, "bring the newest point up as an isolated copy, with so long a pause in between, 1m or more")
	flags.StringVar(&f.cron, "test-cron", "", "five-field cron expression in UTC, instead of --test-every")
	flags.Int32Var(&f.newest, "test-newest", 0, "how many of the newest points to test each time (default: 1)")
	flags.DurationVar(&f.timeout, "test-timeout", 0, "how long the test of one point may take (default: 30m)")
	f.probes.Register(flags, "test-")
}

func (f *testFlags) apply(policy *v1alpha1.ProtectionPolicySpec) error {
	probes, err := f.probes.All()
	if err != nil {
		return err
	}
	switch {
	case f.every != 0 && f.cron != "":
		return exit.Usage("", "give --test-every or --test-cron, not both")
	case f.every != 0 && f.every < leastPause:
		return exit.Usage("", "--test-every %s is less than %s", f.every, leastPause)
	case f.newest < 0 || f.newest > 100:
		return exit.Usage("give 1 to 100", "--test-newest %d is not possible", f.newest)
	case f.timeout != 0 && f.timeout < 10*time.Second:
		return exit.Usage("", "--test-timeout %s is less than 10s", f.timeout)
	}
	if f.cron != "" {
		if _, err := schedule.Parse(0, f.cron, ""); err != nil {
			return exit.Usage("five fields: minute, hour, day of month, month, day of week", "--test-cron: %v", err)
		}
	}
	t := v1alpha1.RestoreTestPolicy{}
	if policy.RestoreTest != nil {
		t = *policy.RestoreTest
	}
	setSchedule(f.set, "test-", f.every, f.cron, &t.Every, &t.Cron)
	if f.set.Changed("test-newest") {
		t.Newest = number(f.newest)
	}
	if f.set.Changed("test-timeout") {
		t.Timeout = objects.Duration(f.timeout)
	}
	if f.set.Changed("test-probe") || f.set.Changed("test-probes") {
		t.Probes = probes
	}
	policy.RestoreTest = &t
	return nil
}

// parseProbe reads "key=value; key=value"; the keys are those of docs/cli.md.
func parseProbe(text string) (v1alpha1.RestoreProbe, error) {
	probe := v1alpha1.RestoreProbe{}
	fields := map[string]string{}
	for field := range strings.SplitSeq(text, ";") {
		if strings.TrimSpace(field) == "" {
			continue
		}
		key, value, ok := strings.Cut(strings.TrimSpace(field), "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if !ok || value == "" || fields[key] != "" {
			return probe, exit.Usage("what has ';' in it goes into a file: --probes", "probe: %q is not key=value, or is given twice", field)
		}
		fields[key] = value
	}
	take := func(key string) string {
		value := fields[key]
		delete(fields, key)
		return value
	}
	probe.Name, probe.Namespace, probe.Expect = take("name"), take("namespace"), take("expect")
	if limit := take("timeout"); limit != "" {
		d, err := time.ParseDuration(limit)
		if err != nil || d <= 0 {
			return probe, exit.Usage("", "probe: timeout=%s is no duration", limit)
		}
		probe.Timeout = &metav1.Duration{Duration: d}
	}
	if err := setQuestion(&probe, take); err != nil {
		return probe, err
	}
	for key := range fields {
		return probe, exit.Usage("keys: name, namespace, timeout, expect; exec or sql with pods, container, database, user; http with status; job with run",
			"probe %s: %q is not a key, or does not go with the others", probe.Name, key)
	}
	return probe, nil
}

func setQuestion(probe *v1alpha1.RestoreProbe, take func(string) string) error {
	if command := take("exec"); command != "" {
		choice, err := podChoice(take)
		probe.Exec = &v1alpha1.ExecProbe{PodChoice: choice, Command: []string{"sh", "-c", command}}
		return err
	}
	if sql := take("sql"); sql != "" {
		client, query, ok := strings.Cut(sql, " ")
		if !ok || client != "psql" && client != "mysql" && client != "mariadb" {
			return exit.Usage("write sql=psql SELECT 1", "probe: sql=%s names no client: psql, mysql or mariadb, then the query", sql)
		}
		choice, err := podChoice(take)
		probe.SQL = &v1alpha1.SQLProbe{PodChoice: choice, Client: client, Query: strings.TrimSpace(query), Database: take("database"), User: take("user")}
		return err
	}
	if address := take("http"); address != "" {
		return setHTTP(probe, address, take("status"))
	}
	if image := take("job"); image != "" {
		probe.Job = &v1alpha1.JobProbe{Image: image}
		if command := take("run"); command != "" {
			probe.Job.Command = []string{"sh", "-c", command}
		}
	}
	return nil
}

// setHTTP reads SERVICE[:PORT][/PATH], with https:// before it if need be.
func setHTTP(probe *v1alpha1.RestoreProbe, address, status string) error {
	h := &v1alpha1.HTTPProbe{}
	if rest, ok := strings.CutPrefix(address, "https://"); ok {
		h.Scheme, address = "https", rest
	}
	address = strings.TrimPrefix(address, "http://")
	host, path, ok := strings.Cut(address, "/")
	if ok {
		h.Path = "/" + path
	}
	h.Service, h.Port, _ = strings.Cut(host, ":")
	if h.Service == "" {
		return exit.Usage("write http=SERVICE:PORT/PATH", "probe: http=%s names no Service", address)
	}
	if status != "" {
		if _, err := fmt.Sscanf(status, "%d", &h.Status); err != nil || h.Status < 100 || h.Status > 599 {
			return exit.Usage("", "probe: status=%s is no status", status)
		}
	}
	probe.HTTP = h
	return nil
}

func podChoice(take func(string) string) (v1alpha1.PodChoice, error) {
	choice := v1alpha1.PodChoice{Container: take("container")}
	labels := take("pods")
	if labels == "" {
		return choice, exit.Usage("add pods=app=db", "probe: exec and sql need pods=LABELS")
	}
	selector, err := metav1.ParseToLabelSelector(labels)
	if err != nil {
		return choice, exit.Usage("", "probe: pods=%s: %v", labels, err)
	}
	choice.Pods = *selector
	return choice, nil
}

// Tests says what a policy tests, and when; "" for one that tests nothing.
func Tests(p *v1alpha1.ProtectionPolicy) string {
	if p == nil || p.Spec.RestoreTest == nil {
		return ""
	}
	t := p.Spec.RestoreTest
	when := "at " + t.Cron + " UTC"
	if t.Every != nil {
		when = "every " + output.Duration(t.Every.Duration)
	}
	what := "the newest point"
	if n := ptr.Deref(t.Newest, 1); n > 1 {
		what = fmt.Sprintf("the newest %d points", n)
	}
	if len(t.Probes) == 0 {
		return fmt.Sprintf("%s, %s, no probes: ready workloads are the proof, where none is left out of the copy", when, what)
	}
	return fmt.Sprintf("%s, %s, %s", when, what, output.Plural(int64(len(t.Probes)), "probe"))
}

// Tested says when the schedule last tested a point and what came of it; "" if
// it never did.
func Tested(t *v1alpha1.RestoreTestStatus, now time.Time) string {
	if t == nil {
		return ""
	}
	text := ""
	if t.At != nil {
		outcome := "FAILED: " + t.Message
		switch {
		case t.Unproven != "":
			outcome = "nothing proven: " + t.Unproven
		case t.Passed:
			outcome = "passed"
			if t.RTO != nil {
				outcome += ", worked after " + output.Duration(t.RTO.Duration)
			}
		}
		text = fmt.Sprintf("%s, %s ago, %s: %s", output.Time(t.At.Time), output.Age(t.At.Time, now), t.Point, outcome)
	}
	if t.Error != "" && t.TriedAt != nil {
		if text != "" {
			text += "; "
		}
		text += fmt.Sprintf("tried without a verdict %s ago: %s", output.Age(t.TriedAt.Time, now), output.Short(t.Error, 200))
	}
	return text
}
