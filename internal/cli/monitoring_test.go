package cli

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/yaml"

	"davit.dev/davit/config"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/node"
	"davit.dev/davit/internal/node/fencing"
	"davit.dev/davit/internal/reconcile/measure"
)

// described collects the names of metrics as they are registered.
type described struct {
	prometheus.Registerer
	names []string
}

var metricName = regexp.MustCompile(`fqName: "(\w+)"`)

func (d *described) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		descs := make(chan *prometheus.Desc, 8)
		c.Describe(descs)
		close(descs)
		for desc := range descs {
			d.names = append(d.names, metricName.FindStringSubmatch(desc.String())[1])
		}
	}
}

type alertRules struct {
	Groups []struct {
		Rules []struct {
			Alert, Expr string
			Annotations struct{ Summary, Action string }
		}
	}
}

// The alert rules ask for metrics that there are, tell people to give commands
// that there are, and are documented with every metric of the agent and of fences.
func TestAlertsAndMetrics(t *testing.T) {
	var known described
	measure.Register(&known)
	known.MustRegister(fencing.Collectors()...)
	known.MustRegister(node.Unreadable(t.TempDir()))
	page, err := os.ReadFile("../../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range known.names {
		if !strings.Contains(string(page), "\n| `"+name+"` |") {
			t.Errorf("docs/monitoring.md does not say what %s is", name)
		}
	}
	text, err := config.Files.ReadFile("alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var rules alertRules
	if err := yaml.Unmarshal(text, &rules); err != nil || len(rules.Groups) != 1 {
		t.Fatalf("%d groups, %v", len(rules.Groups), err)
	}
	root := (&env{program: "davit", now: time.Now, progress: &output.Progress{}}).root()
	label := regexp.MustCompile(`\{\{[^}]*\}\}`)
	for _, rule := range rules.Groups[0].Rules {
		if !strings.Contains(string(page), "\n| `"+rule.Alert+"` |") {
			t.Errorf("docs/monitoring.md does not say what %s means", rule.Alert)
		}
		for _, name := range regexp.MustCompile(`\bdavit_\w+`).FindAllString(rule.Expr, -1) {
			if !slices.Contains(known.names, strings.TrimSuffix(name, "_bucket")) {
				t.Errorf("%s asks for %s, which no part has", rule.Alert, name)
			}
		}
		commands := regexp.MustCompile(`\bdavit [a-z][^;,]*`).FindAllString(label.ReplaceAllString(rule.Annotations.Action, "NAME"), -1)
		if len(commands) == 0 && !strings.Contains(rule.Annotations.Action, "kubectl ") {
			t.Errorf("%s names no command: %q", rule.Alert, rule.Annotations.Action)
		}
		for _, command := range commands {
			cmd, rest, err := root.Find(strings.Fields(command)[1:])
			if err != nil || !cmd.Runnable() {
				t.Errorf("%s: %q is no command: %v", rule.Alert, command, err)
			} else if strings.Contains(command, "NAME") && rest[0] != "NAME" {
				t.Errorf("%s: %q: %s takes one name", rule.Alert, command, cmd.CommandPath())
			}
		}
	}
}
