package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// prometheus is a real one.
const prometheus = `
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s, labels: {davit-e2e: "true"}}
---
apiVersion: v1
kind: Pod
metadata: {name: prometheus, namespace: %[1]s}
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: 0
  securityContext: {runAsNonRoot: true, runAsUser: 10001, runAsGroup: 10001, fsGroup: 10001}
  containers:
  - name: prometheus
    image: %[2]s
    imagePullPolicy: IfNotPresent
    command: [prometheus, --config.file=/etc/prometheus-bed/prometheus.yml, --storage.tsdb.path=/data/tsdb]
    ports: [{name: web, containerPort: 9090}]
    readinessProbe: {httpGet: {port: web, path: /-/ready}, periodSeconds: 2}
    volumeMounts: [{name: config, mountPath: /etc/prometheus-bed}, {name: data, mountPath: /data}]
  volumes: [{name: config, configMap: {name: prometheus}}, {name: data, emptyDir: {}}]
`

// twoSites are rules tried on what one Prometheus reads of two sites: one is cut off
// and does not know yet that the other has taken over, and one that did knows of no
// point any more. The site that went on is well. Of two plans, one has come to take longer than its objective; of two
// others, the points of one have become rarer than its objective.
const twoSites = `
rule_files: [/etc/prometheus-bed/alerts.yaml]
evaluation_interval: 30s
tests:
- interval: 30s
  input_series:
  - {series: 'davit_newest_point_age_seconds{application="shop", instance="east"}', values: '600+30x20'}
  - {series: 'davit_rpo_objective_seconds{application="shop", instance="east"}', values: '300+0x20'}
  - {series: 'davit_newest_point_age_seconds{application="shop", instance="west"}', values: '10+0x20'}
  - {series: 'davit_rpo_objective_seconds{application="shop", instance="west"}', values: '300+0x20'}
  - {series: 'davit_points{application="till", instance="east"}', values: '0+0x60'}
  - {series: 'davit_application_role{application="till", instance="east", role="Active"}', values: '0+0x60'}
  - {series: 'davit_points{application="till", instance="west"}', values: '3+0x60'}
  - {series: 'davit_application_role{application="till", instance="west", role="Active"}', values: '1+0x60'}
  - {series: 'davit_points{application="bare", instance="west"}', values: '0+0x60'}
  - {series: 'davit_application_role{application="bare", instance="west", role="Active"}', values: '1+0x60'}
  - {series: 'davit_plan_predicted_rto_seconds{plan="slow", instance="west"}', values: '40+0x20 90+0x80'}
  - {series: 'davit_plan_rto_objective_seconds{plan="slow", instance="west"}', values: '60+0x100'}
  - {series: 'davit_plan_predicted_rto_seconds{plan="quick", instance="west"}', values: '40+0x100'}
  - {series: 'davit_plan_rto_objective_seconds{plan="quick", instance="west"}', values: '60+0x100'}
  - {series: 'davit_plan_predicted_rpo_seconds{plan="rare", instance="west"}', values: '200+0x20 400+0x80'}
  - {series: 'davit_plan_rpo_objective_seconds{plan="rare", instance="west"}', values: '300+0x100'}
  - {series: 'davit_plan_predicted_rpo_seconds{plan="often", instance="west"}', values: '200+0x100'}
  - {series: 'davit_plan_rpo_objective_seconds{plan="often", instance="west"}', values: '300+0x100'}
  promql_expr_test:
  - expr: count by (alertname, plan, instance) (ALERTS{alertname="DavitPredictedRTOTooLong", alertstate="firing"})
    eval_time: 45m
    exp_samples: [{labels: '{alertname="DavitPredictedRTOTooLong", plan="slow", instance="west"}', value: 1}]
  - expr: count by (alertname, plan, instance) (ALERTS{alertname="DavitPredictedRPOTooLong", alertstate="firing"})
    eval_time: 45m
    exp_samples: [{labels: '{alertname="DavitPredictedRPOTooLong", plan="rare", instance="west"}', value: 1}]
  - expr: count by (alertname, application, instance) (ALERTS{alertname="DavitRecoveryPointTooOld", alertstate="firing"})
    eval_time: 5m
    exp_samples: [{labels: '{alertname="DavitRecoveryPointTooOld", application="shop", instance="east"}', value: 1}]
  - expr: count by (alertname, application, instance) (ALERTS{alertname="DavitNoRecoveryPoint", alertstate="firing"})
    eval_time: 20m
    exp_samples: [{labels: '{alertname="DavitNoRecoveryPoint", application="bare", instance="west"}', value: 1}]
`

// monitored has a real Prometheus read agent and nodes where docs/monitoring.md says, by the
// rules that the cluster was given: all of them are evaluated, and one fires for an application whose
// points are too old, not for the one beside it, and ceases with a point.
func monitored(t *testing.T) {
	a, beside, ns := &app{name: short(t), vault: common}, &app{name: short(t) + "-beside", vault: common}, short(t)+"-prometheus"
	for app, rpo := range map[*app]string{a: "1m", beside: "12h"} {
		removeNamespace(t, east, app.name)
		apply(t, east, "{apiVersion: v1, kind: Namespace, metadata: {name: "+app.name+", labels: {davit-e2e: 'true'}}}")
		apply(t, east, "{apiVersion: v1, kind: ConfigMap, metadata: {name: settings, namespace: "+app.name+"}, data: {colour: green}}")
		app.protect(t, "--rpo", rpo)
		app.backup(t)
	}
	image, err := rig.Load(t.Context(), east, "app-prometheus")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(rig.Root, "docs", "monitoring.md"))
	if err != nil {
		t.Fatal(err)
	}
	config := "global: {scrape_interval: 2s, evaluation_interval: 2s}\nrule_files: [/etc/prometheus-bed/alerts.yaml]\nscrape_configs:\n"
	for _, job := range []string{"davit-agent", "davit-node"} {
		config += scraped(t, string(page), job)
	}
	rules := kubectl(t, east, "-n", system, "get", "configmap", "davit-alerts", "-o", `jsonpath={.data.alerts\.yaml}`)
	removeNamespace(t, east, ns)
	apply(t, east, "{apiVersion: v1, kind: Namespace, metadata: {name: "+ns+", labels: {davit-e2e: 'true'}}}")
	object, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "prometheus", "namespace": ns},
		"data": map[string]string{
			"prometheus.yml": config, "alerts.yaml": rules, "two-sites.yaml": twoSites,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, east, string(object))
	apply(t, east, fmt.Sprintf(prometheus, ns, image))
	p := prom{namespace: ns}
	p.evaluates(t, strings.Count(rules, "- alert:"))
	for _, job := range []string{"davit-agent", "davit-node"} {
		eventually(t, 3*time.Minute, "Prometheus reads "+job, func() (bool, string) {
			got := p.ask(t, `count(up{job="`+job+`"} == 1)`)
			return got != "" && got != "0", got
		})
	}
	kubectl(t, east, "-n", ns, "exec", "prometheus", "--", "promtool", "test", "rules", "/etc/prometheus-bed/two-sites.yaml")

	firing := func(app string) string {
		return p.ask(t, `count(ALERTS{alertname="DavitRecoveryPointTooOld", alertstate="firing", application="`+app+`"})`)
	}
	eventually(t, 5*time.Minute, "an alert fires for "+a.name, func() (bool, string) {
		return firing(a.name) == "1", p.ask(t, `davit_newest_point_age_seconds{application="`+a.name+`"}`)
	})
	if got := p.ask(t, `davit_newest_point_age_seconds{application="`+beside.name+`"}`); got == "" || firing(beside.name) != "" {
		t.Errorf("of %s, whose newest point is %q s old, an alert fires: %q", beside.name, got, firing(beside.name))
	}
	a.backup(t)
	eventually(t, 50*time.Second, "it fires no more", func() (bool, string) {
		got := firing(a.name)
		return got == "", got
	})
}

// scraped is how Prometheus reads the pods of a job: by what docs/monitoring.md has it find them by, the
// label and the name of a port. Debian's has no service discovery of Kubernetes.
func scraped(t *testing.T, page, job string) string {
	t.Helper()
	for _, want := range []string{"- job_name: " + job, "pod_label_app_kubernetes_io_name], regex: " + job + ", action: keep", "pod_container_port_name], regex: metrics, action: keep"} {
		if !strings.Contains(page, want) {
			t.Fatalf("docs/monitoring.md finds the pods of %s in another way: it has no %q", job, want)
		}
	}
	pods := kubectl(t, east, "-n", system, "get", "pods", "-l", "app.kubernetes.io/name="+job, "-o",
		`jsonpath={range .items[*]}{.status.podIP} {.spec.containers[*].ports[?(@.name=="metrics")].containerPort}{"\n"}{end}`)
	var targets []string
	for line := range strings.Lines(pods) {
		if fields := strings.Fields(line); len(fields) == 2 {
			targets = append(targets, fields[0]+":"+fields[1])
		}
	}
	if len(targets) == 0 {
		t.Fatalf("no pod of %s has a port for it: %q", job, pods)
	}
	return fmt.Sprintf("  - {job_name: %s, static_configs: [{targets: ['%s']}]}\n", job, strings.Join(targets, "', '"))
}

// prom is a Prometheus at east.
type prom struct{ namespace string }

// get asks its API, through that of the cluster.
func (p prom) get(t *testing.T, path string, into any) error {
	t.Helper()
	out, err := rig.Kubectl(t.Context(), east, "get", "--raw", "/api/v1/namespaces/"+p.namespace+"/pods/prometheus:9090/proxy/api/v1/"+path)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), into)
}

// ask is the value of the first series that a question has for an answer; empty if it has none.
func (p prom) ask(t *testing.T, query string) string {
	t.Helper()
	var answer struct {
		Data struct{ Result []struct{ Value [2]any } }
	}
	if err := p.get(t, "query?query="+url.QueryEscape(query), &answer); err != nil {
		return err.Error()
	}
	if len(answer.Data.Result) == 0 {
		return ""
	}
	return fmt.Sprint(answer.Data.Result[0].Value[1])
}

// evaluates waits until all of so many rules were evaluated, each without a fault.
func (p prom) evaluates(t *testing.T, want int) {
	t.Helper()
	eventually(t, 4*time.Minute, "Prometheus evaluates all rules", func() (bool, string) {
		var answer struct {
			Data struct {
				Groups []struct {
					Rules []struct{ Name, Health, LastError string }
				}
			}
		}
		if err := p.get(t, "rules", &answer); err != nil {
			return false, err.Error()
		}
		good, bad := 0, ""
		for _, g := range answer.Data.Groups {
			for _, r := range g.Rules {
				if r.Health == "ok" {
					good++
				} else {
					bad += fmt.Sprintf("%s: %s %s; ", r.Name, r.Health, r.LastError)
				}
			}
		}
		return good == want && want > 0, fmt.Sprintf("%d of %d: %s", good, want, bad)
	})
}
