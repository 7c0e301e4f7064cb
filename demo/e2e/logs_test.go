package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// logged are servers that profiles leave alone, because what they acknowledge
// is in a log on disk: three members of etcd, and RabbitMQ with a quorum queue
// and a classic one. Each has a writer that begins when /tmp/go is there, not
// in a copy, and keeps in /tmp/acked the last number that was acknowledged.
// Numbers go up by one, so that a gap shows.
const logged = `
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s, labels: {davit-e2e: "true"}}
---
apiVersion: v1
kind: Service
metadata: {name: etcd, namespace: %[1]s}
spec: {clusterIP: None, publishNotReadyAddresses: true, selector: {app: etcd}, ports: [{port: 2380}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: etcd, namespace: %[1]s}
spec:
  serviceName: etcd
  replicas: 3
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: etcd}}
  template:
    metadata: {labels: {app: etcd}, annotations: {davit.dev/profile: etcd}}
    spec:
      terminationGracePeriodSeconds: 5
      securityContext: {runAsUser: 10001, runAsGroup: 10001, fsGroup: 10001, fsGroupChangePolicy: OnRootMismatch}
      containers:
      - name: etcd
        image: %[2]s
        imagePullPolicy: IfNotPresent
        env:
        - {name: ETCDCTL_API, value: "3"}
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: ETCD_NAME, value: $(POD)}
        - {name: ETCD_DATA_DIR, value: /data/etcd}
        - {name: ETCD_LISTEN_CLIENT_URLS, value: "http://127.0.0.1:2379"}
        - {name: ETCD_ADVERTISE_CLIENT_URLS, value: "http://127.0.0.1:2379"}
        - {name: ETCD_LISTEN_PEER_URLS, value: "http://0.0.0.0:2380"}
        - {name: ETCD_INITIAL_ADVERTISE_PEER_URLS, value: "http://$(POD).etcd:2380"}
        - {name: ETCD_INITIAL_CLUSTER, value: "etcd-0=http://etcd-0.etcd:2380,etcd-1=http://etcd-1.etcd:2380,etcd-2=http://etcd-2.etcd:2380"}
        - {name: ETCD_HEARTBEAT_INTERVAL, value: "500"}
        - {name: ETCD_ELECTION_TIMEOUT, value: "5000"}
        readinessProbe: {exec: {command: [etcdctl, get, any]}, periodSeconds: 3, timeoutSeconds: 5}
        command:
        - sh
        - -ec
        - |
          (
            until [ -e /tmp/go ]; do sleep 1; done
            n=0
            while n=$((n + 1)); do
              until etcdctl --command-timeout=60s put "$POD/$n" $n > /dev/null; do sleep 1; done
              echo $n > /tmp/next && mv /tmp/next /tmp/acked
            done
          ) &
          exec etcd
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], storageClassName: reflink, resources: {requests: {storage: 256Mi}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: rabbitmq, namespace: %[1]s}
data:
  enabled_plugins: "[rabbitmq_mqtt]."
  rabbitmq.conf: |
    vm_memory_high_watermark.absolute = 256MB
    disk_free_limit.absolute = 16MB
    log.console.level = warning
  queues.json: |
    {"queues": [
      {"vhost": "/", "name": "quorum", "durable": true, "auto_delete": false, "arguments": {"x-queue-type": "quorum"}},
      {"vhost": "/", "name": "classic", "durable": true, "auto_delete": false, "arguments": {}}],
    "bindings": [
      {"vhost": "/", "source": "amq.topic", "destination": "quorum", "destination_type": "queue", "routing_key": "numbers", "arguments": {}},
      {"vhost": "/", "source": "amq.topic", "destination": "classic", "destination_type": "queue", "routing_key": "numbers", "arguments": {}}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: rabbitmq, namespace: %[1]s}
spec:
  serviceName: rabbitmq
  selector: {matchLabels: {app: rabbitmq}}
  template:
    metadata: {labels: {app: rabbitmq}, annotations: {davit.dev/profile: rabbitmq}}
    spec:
      terminationGracePeriodSeconds: 5
      securityContext: {runAsUser: 10001, runAsGroup: 10001, fsGroup: 10001, fsGroupChangePolicy: OnRootMismatch}
      containers:
      - name: rabbitmq
        image: %[3]s
        imagePullPolicy: IfNotPresent
        env:
        - {name: RABBITMQ_NODENAME, value: rabbit@localhost}
        - {name: RABBITMQ_CONFIG_FILE, value: /etc/bed/rabbitmq.conf}
        - {name: RABBITMQ_ENABLED_PLUGINS_FILE, value: /etc/bed/enabled_plugins}
        - {name: RABBITMQ_MNESIA_BASE, value: /data/mnesia}
        - {name: RABBITMQ_LOG_BASE, value: /tmp}
        - {name: RABBITMQ_LOGS, value: "-"}
        - {name: RABBITMQ_PID_FILE, value: /tmp/rabbitmq.pid}
        - {name: RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS, value: "+S 2:1 +sbwt none +sbwtdcpu none +sbwtdio none"}
        command: [sh, -ec, 'umask 077; printf NOTHINGSTAYSLIKEACOOKIE > "$HOME/.erlang.cookie"; exec rabbitmq-server']
        readinessProbe: {tcpSocket: {port: 1883}, periodSeconds: 2, timeoutSeconds: 5}
        volumeMounts: [{name: data, mountPath: /data}, {name: config, mountPath: /etc/bed}]
      - name: writer
        image: %[4]s
        imagePullPolicy: IfNotPresent
        command:
        - sh
        - -c
        - |
          until [ -e /tmp/go ]; do sleep 1; done
          n=0
          while n=$((n + 1)); do
            until timeout 90 mosquitto_pub -h 127.0.0.1 -q 1 -t numbers -m $n; do sleep 1; done
            echo $n > /tmp/next && mv /tmp/next /tmp/acked
          done
      volumes: [{name: config, configMap: {name: rabbitmq}}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], storageClassName: reflink, resources: {requests: {storage: 256Mi}}}
`

var logPods = [4]string{"etcd-0", "etcd-1", "etcd-2", "rabbitmq-0"}

// inLogs runs a command where a pod's writer is.
func inLogs(t *testing.T, namespace, pod, container, command string) string {
	t.Helper()
	return try(t, east, "-n", namespace, "exec", pod, "-c", container, "--", "sh", "-c", command)
}

// acked are the last numbers that were acknowledged to each writer.
func acked(t *testing.T, namespace string) (n [4]int) {
	t.Helper()
	for i, pod := range logPods {
		container := "etcd"
		if pod == "rabbitmq-0" {
			container = "writer"
		}
		_, _ = fmt.Sscan(inLogs(t, namespace, pod, container, "cat /tmp/acked"), &n[i])
	}
	return n
}

// ackedMore waits until every writer has written on.
func ackedMore(t *testing.T, namespace string) [4]int {
	t.Helper()
	before := acked(t, namespace)
	now := before
	eventually(t, 3*time.Minute, "the writers write", func() (bool, string) {
		now = acked(t, namespace)
		for i := range now {
			if now[i] < before[i]+20 {
				return false, fmt.Sprint(before, now)
			}
		}
		return true, ""
	})
	return now
}

// gapless reads how many different numbers there are and the largest of them,
// which is the same if none is missing.
func gapless(out string) (n int, ok bool) {
	var count, largest int
	if got, err := fmt.Sscan(out, &count, &largest); got != 2 || err != nil {
		return 0, false
	}
	return largest, count == largest
}

// counted prints what gapless reads, of the lines before it.
const counted = " | sort -nu > /tmp/numbers; wc -l < /tmp/numbers; tail -n 1 /tmp/numbers"

// keptByLogs takes points of them under load and looks whether what had been
// acknowledged comes back: on each of the members of etcd, in both queues.
func keptByLogs(t *testing.T) {
	if os.Getenv("DAVIT_SOAK") == "" {
		t.Skip("set DAVIT_SOAK to prove the profiles of etcd and RabbitMQ")
	}
	a := &app{name: short(t), vault: common}
	refs := []any{a.name}
	for _, name := range []string{"app-etcd", "app-rabbitmq", "app-mosquitto"} {
		ref, err := rig.Load(t.Context(), east, name)
		if err != nil {
			t.Fatal(err)
		}
		refs = append(refs, ref)
	}
	removeNamespace(t, east, a.name)
	apply(t, east, fmt.Sprintf(logged, refs...))
	t.Cleanup(func() { unprotect(east, a.name) })
	for _, set := range []string{"etcd", "rabbitmq"} {
		kubectl(t, east, "-n", a.name, "rollout", "status", "statefulset/"+set, "--timeout=4m")
	}
	kubectl(t, east, "-n", a.name, "exec", "rabbitmq-0", "-c", "rabbitmq", "--", "rabbitmqctl", "import_definitions", "/etc/bed/queues.json")
	for _, pod := range logPods[:3] {
		kubectl(t, east, "-n", a.name, "exec", pod, "--", "touch", "/tmp/go")
	}
	kubectl(t, east, "-n", a.name, "exec", "rabbitmq-0", "-c", "writer", "--", "touch", "/tmp/go")
	a.protect(t, "--freeze", "required", "--freeze-window", busyWindow)
	for i := range 3 {
		before := ackedMore(t, a.name)
		p := a.backup(t)
		if p.Consistency != "crash" {
			t.Fatalf("point is %s: %s", p.Consistency, davit(t, east, a.vault, "describe", p.ID).all())
		}
		copied := fmt.Sprintf("%s-%d", a.name, i)
		removeNamespace(t, east, copied)
		davit(t, east, a.vault, "restore", p.ID, "--as-clone", "--map-namespace", a.name+"="+copied, "--yes").want(t, 0)
		t.Logf("acknowledged before point %s: %v", p.ID, before)
		hasKeys(t, copied, before)
		hasMessages(t, copied, before[3])
		kubectl(t, east, "delete", "namespace", copied, "--wait=false")
	}
}

// hasKeys looks into each member's own copy of what each writer put.
func hasKeys(t *testing.T, namespace string, before [4]int) {
	t.Helper()
	for w, writer := range logPods[:3] {
		for _, member := range logPods[:3] {
			var n int
			// One that was behind catches up with the others.
			eventually(t, 3*time.Minute, "keys of "+writer+" at "+member, func() (bool, string) {
				out := inLogs(t, namespace, member, "etcd", "etcdctl get --consistency=s --prefix "+writer+"/ --print-value-only"+counted)
				whole := false
				n, whole = gapless(out)
				return whole && n >= before[w], fmt.Sprintf("%q, where %d were acknowledged", out, before[w])
			})
			t.Logf("%s has 1 to %d of %s", member, n, writer)
		}
	}
	if out := inLogs(t, namespace, "etcd-0", "etcd", "etcdctl put after restore"); strings.TrimSpace(out) != "OK" {
		t.Errorf("the restored members take no new key: %s", out)
	}
}

// hasMessages takes what is in both queues.
func hasMessages(t *testing.T, namespace string, before int) {
	t.Helper()
	for _, queue := range []string{"quorum", "classic"} {
		var held string
		eventually(t, 3*time.Minute, queue+" queue", func() (bool, string) {
			out := inLogs(t, namespace, "rabbitmq-0", "rabbitmq", "rabbitmqctl -q list_queues --no-table-headers name messages state")
			for line := range strings.Lines(out) {
				if f := strings.Fields(line); len(f) == 3 && f[0] == queue && f[1] != "0" && f[2] == "running" {
					held = f[1]
				}
			}
			return held != "", out
		})
		out := inLogs(t, namespace, "rabbitmq-0", "rabbitmq",
			"timeout 120 amqp-consume -u amqp://guest:guest@127.0.0.1 -q "+queue+" -c "+held+" -p 100 -- sh -c 'cat; echo'"+counted)
		n, whole := gapless(out)
		t.Logf("the %s queue holds %s messages, with the numbers 1 to %d", queue, held, n)
		if !whole || n < before {
			t.Errorf("queue %s: %q, where %d were acknowledged", queue, out, before)
		}
	}
}
