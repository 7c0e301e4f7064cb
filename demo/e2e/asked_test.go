package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// askable is a web server that writes down what it is asked to do, its
// Service, and CronJobs that do well and badly.
const askable = `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: %[1]s}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: web
        image: davit.test/bedtool:1
        imagePullPolicy: IfNotPresent
        command:
        - sh
        - -c
        - |
          mkdir -p /tmp/www/cgi-bin
          for what in pause resume; do
            printf '#!/bin/sh\necho %%s >> /tmp/did\necho\necho %%sd\n' $what $what > /tmp/www/cgi-bin/$what
          done
          printf '#!/bin/sh\necho\nyes\n' > /tmp/www/cgi-bin/endless
          printf '#!/bin/sh\nsleep 60\n' > /tmp/www/cgi-bin/hang
          chmod +x /tmp/www/cgi-bin/*
          exec httpd -f -p 8080 -h /tmp/www
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: %[1]s}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
`

// cronJob is a suspended CronJob that runs a command.
const cronJob = `---
apiVersion: batch/v1
kind: CronJob
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  schedule: "0 0 1 1 *"
  suspend: true
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: do, image: "davit.test/bedtool:1", imagePullPolicy: IfNotPresent, command: [sh, -c, "%[3]s"]}]}}}}
`

// askedAround takes points around which pods, a Service and Jobs do something,
// well and badly. What was paused goes on, whatever happened.
func askedAround(t *testing.T) {
	a := &app{name: short(t)}
	a.more = fmt.Sprintf(askable, a.name)
	for name, command := range map[string]string{
		"flush": "echo flushed", "fails": "echo no such database; exit 1", "hangs": "echo waiting; sleep 600", "loud": "yes | head -c 200000",
	} {
		a.more += fmt.Sprintf(cronJob, a.name, name, command)
	}
	a.deploy(t)
	web := func(command string) string {
		return strings.TrimSpace(try(t, east, "-n", a.name, "exec", "deployment/web", "--", "sh", "-c", command))
	}
	eventually(t, 3*time.Minute, "the web server answers", func() (bool, string) {
		got := web("wget -qO- http://127.0.0.1:8080/ 2>&1; test -x /tmp/www/cgi-bin/hang && echo there")
		return strings.Contains(got, "there"), got
	})
	const pausing = "- name: pause\n  podSelector: {matchLabels: {app: web}}\n  beforeHTTP: {port: http, path: /cgi-bin/pause}\n  afterHTTP: {port: 8080, path: /cgi-bin/resume}\n"
	for _, tt := range []struct {
		name, hook string
		code       int
		says       string
	}{
		{"flushes", "beforeJob: {cronJob: flush}\n  afterHTTP: {service: web, port: 80, method: GET, path: /cgi-bin/resume}", 0, "more before in " + a.name + "/cronjob/flush: ok"},
		{"is loud", "beforeJob: {cronJob: loud}", 0, "more before in " + a.name + "/cronjob/loud: ok"},
		{"answers without end", "beforeHTTP: {service: web, port: 80, path: /cgi-bin/endless}", 0, "more before in " + a.name + "/service/web: ok"},
		{"fails", "beforeJob: {cronJob: fails}", 1, "no such database"},
		{"hangs", "timeout: 5s\n  beforeJob: {cronJob: hangs}", 1, "no end after 5s: job "},
		{"does not answer", "timeout: 3s\n  beforeHTTP: {service: web, port: 80, path: /cgi-bin/hang}", 1, "no end after 3s"},
		{"is not there", "beforeHTTP: {service: web, port: 80, path: /nothing}", 1, "was answered with 501"},
		{"is left out", "onError: Continue\n  beforeJob: {cronJob: nobody}", 4, `"nobody" not found`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			web("rm -f /tmp/did")
			a.protect(t, "-f", hooksOf(t, pausing+"- name: more\n  order: 1\n  "+tt.hook+"\n"))
			out := davit(t, east, "", "backup", a.name, "--wait", "--timeout", "4m", "-o", "json")
			if tt.code == 1 {
				out.want(t, 1, tt.says)
			} else {
				var p pointView
				out.want(t, tt.code).read(t, &p)
				davit(t, east, a.vault, "describe", p.ID).want(t, 0, tt.says, "pause after in")
			}
			did := strings.Fields(web("cat /tmp/did"))
			if len(did) < 2 || did[0] != "pause" || did[len(did)-1] != "resume" {
				t.Errorf("the web server was asked to %v", did)
			}
			if left := try(t, east, "-n", a.name, "get", "jobs,pods", "-l", "davit.dev/exclude=true", "-o", "name"); left != "" {
				t.Errorf("left behind: %s", left)
			}
		})
	}
}
