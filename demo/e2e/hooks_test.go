package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// holding keeps /tmp/held in the pod for as long as its input is open.
const holding = `touch /tmp/held; echo DAVIT HELD; while read -r line; do test -e /tmp/held && echo DAVIT HELD; done; rm -f /tmp/held`

// hooksOf is a file with hooks, for davit protect.
func hooksOf(t *testing.T, yaml string) string {
	t.Helper()
	path := t.TempDir() + "/hooks.yaml"
	if err := os.WriteFile(path, []byte("hooks:\n"+yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// inPod runs a command in the application's pod.
func (a *app) inPod(t *testing.T, command string) string {
	t.Helper()
	return strings.TrimSpace(try(t, east, "-n", a.name, "exec", "db-0", "-c", "db", "--", "sh", "-c", command))
}

// weakBackup captures the application; warnings may say that it was not held.
func (a *app) weakBackup(t *testing.T) pointView {
	t.Helper()
	var p pointView
	out := davit(t, east, "", "backup", a.name, "--wait", "--timeout", "4m", "-o", "json")
	if out.code != 0 && out.code != 4 {
		t.Fatalf("backup ended with %d: %s", out.code, out.all())
	}
	out.read(t, &p)
	return p
}

// heldAtRest takes points whose pod is held, and some whose hold is lost in
// one way or another.
func heldAtRest(t *testing.T) {
	a := &app{}
	a.deploy(t)
	for _, tt := range []struct{ name, command, consistency, says string }{
		{"holds", holding, "application", "at rest 1 pod for"},
		{"says it and ends", "echo DAVIT HELD", "crash", "not proven: hook quiet in " + a.name + "/db-0: it held before the cuts, but afterwards: the command ended by itself"},
		{"loses the lock", "rm -f /tmp/held; " + strings.Replace(holding, "echo DAVIT HELD;", "echo DAVIT HELD; rm /tmp/held;", 1), "crash", "the command did not answer"},
		{"kills its own pod", "echo DAVIT HELD; kill 1; cat > /dev/null", "crash", "not proven"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := hooksOf(t, "- name: quiet\n  podSelector: {matchLabels: {app: db}}\n  hold: {command: [sh, -c, '"+tt.command+"']}\n")
			a.protect(t, "-f", file)
			p := a.weakBackup(t)
			if p.Consistency != tt.consistency {
				t.Errorf("point is %s, want %s", p.Consistency, tt.consistency)
			}
			davit(t, east, a.vault, "describe", p.ID).want(t, 0, tt.says)
			eventually(t, 3*time.Minute, "the pod was let go", func() (bool, string) {
				got := a.inPod(t, "test -e /tmp/held || echo free")
				return got == "free", got
			})
		})
	}
	// One that cannot hold at all fails the capture, and says why.
	a.protect(t, "-f", hooksOf(t, "- name: quiet\n  podSelector: {matchLabels: {app: db}}\n  hold: {command: [sh, -c, 'echo no such database; exit 1']}\n"))
	davit(t, east, "", "backup", a.name, "--wait", "--timeout", "4m").want(t, 1, "no such database")
	inOrder(t, a)
}

// inOrder gives the pod a second container and has two hooks say in one file of its volume where they run:
// each runs in the container that it names, the lower order first before the cut, and last after it.
func inOrder(t *testing.T, a *app) {
	t.Helper()
	kubectl(t, east, "-n", a.name, "patch", "statefulset", "db", "-p", `{"spec": {"template": {"spec": {"containers": [{"name": "side",
		"image": "davit.test/bedtool:1", "imagePullPolicy": "IfNotPresent", "env": [{"name": "ME", "value": "side"}],
		"command": ["sh", "-c", "trap exit TERM; while :; do sleep 1; done"], "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}}}}`)
	kubectl(t, east, "-n", a.name, "rollout", "status", "statefulset/db", "--timeout=3m")
	// Not in the order in which they are to run.
	a.protect(t, "-f", hooksOf(t, `
- name: second
  order: 2
  podSelector: {matchLabels: {app: db}}
  container: db
  before: [sh, -c, "echo before 2 in ${ME:-db} >> /data/told"]
  after: [sh, -c, "echo after 2 in ${ME:-db} >> /data/told"]
- name: first
  order: 1
  podSelector: {matchLabels: {app: db}}
  container: side
  before: [sh, -c, "echo before 1 in ${ME:-db} >> /data/told"]
  after: [sh, -c, "echo after 1 in ${ME:-db} >> /data/told"]
`))
	a.backup(t)
	told, want := a.inPod(t, "cat /data/told"), "before 1 in side\nbefore 2 in db\nafter 2 in db\nafter 1 in side"
	if told != want {
		t.Errorf("the hooks ran as\n%s\nwant\n%s", told, want)
	}
}

// oddCommands run as hooks by exec: one never ends, one says far too much. The
// one fails the capture in time, the other costs the agent nothing.
func oddCommands(t *testing.T) {
	a := &app{}
	a.deploy(t)
	before := func(command, timeout string) string {
		return hooksOf(t, "- name: odd\n  podSelector: {matchLabels: {app: db}}\n  timeout: "+timeout+"\n  before: [sh, -c, '"+command+"']\n  after: [touch, /tmp/after]\n")
	}
	// How the agents ended, if they did, and the most memory that they had. One that a busy
	// machine let stand still gives up its lease, and ends with 1.
	agents := func() (ends string, peak int64) {
		peak = agentsPeak(t)
		return kubectl(t, east, "-n", system, "get", "pods", "-l", "app.kubernetes.io/name=davit-agent", "-o", "jsonpath={range .items[*]}{.metadata.name}={.status.containerStatuses[*].lastState.terminated.exitCode} {end}"), peak
	}
	were, had := agents()
	a.protect(t, "-f", before("echo begun; sleep 1000", "5s"))
	davit(t, east, "", "backup", a.name, "--wait", "--timeout", "4m").want(t, 1, "hook odd", "5s")
	eventually(t, 3*time.Minute, "the pod was let go", func() (bool, string) {
		got := a.inPod(t, "test -e /tmp/after && echo free")
		return got == "free", got
	})
	a.protect(t, "-f", before("dd if=/dev/zero bs=1M count=1024", "4m"))
	if p := a.weakBackup(t); p.Phase != "Available" {
		t.Errorf("after a hook that said a gigabyte the point is %+v", p)
	}
	got, peak := agents()
	if got != were && !strings.Contains(got, "=1 ") || !strings.Contains(were, "=") {
		t.Errorf("the agents ended as %s, before as %s", got, were)
	}
	if peak == 0 || peak > had+256 {
		t.Errorf("the agent had %d MiB at the most, %d before the hook said a gigabyte", peak, had)
	}
}

// heldByTheDead kills the agent while it holds an application at rest, by a
// session and by a command. Nobody may stay at rest.
func heldByTheDead(t *testing.T) {
	a := &app{}
	a.deploy(t)
	a.protect(t, "-f", hooksOf(t, `
- name: pause
  podSelector: {matchLabels: {app: db}}
  before: [touch, /tmp/paused]
  after: [rm, -f, /tmp/paused]
- name: quiet
  order: 1
  podSelector: {matchLabels: {app: db}}
  hold: {command: [sh, -c, '`+holding+`']}
- name: slow
  order: 2
  podSelector: {matchLabels: {app: db}}
  before: [sleep, "25"]
`))
	var asked pointView
	davit(t, east, "", "backup", a.name, "-o", "json").want(t, 0).read(t, &asked)
	eventually(t, 3*time.Minute, "the pod is held", func() (bool, string) {
		got := a.inPod(t, "test -e /tmp/held && test -e /tmp/paused && echo held")
		return got == "held", got
	})
	for _, pid := range pidsOf(t, "agent") {
		if p, err := os.FindProcess(pid); err == nil {
			_ = p.Kill()
		}
	}
	// Else the next agent would begin again.
	if _, err := rig.Kubectl(context.Background(), east, "-n", system, "delete", "recoverypoint", asked.ID, "--wait=false"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 3*time.Minute, "the pod was let go", func() (bool, string) {
		got := a.inPod(t, "test -e /tmp/held || test -e /tmp/paused || echo free")
		return got == "free", got
	})
	eventually(t, 3*time.Minute, "nothing is owed", func() (bool, string) {
		got := try(t, east, "-n", system, "get", "configmaps", "-l", "davit.dev/owed", "-o", "name")
		return got == "", got
	})
}

// databases are a MariaDB and a Redis server, each with a writer of its own
// that begins when /tmp/go is there: not in a copy. MariaDB gets each number
// into a table of InnoDB, which is safe by itself, and then into one of Aria,
// which is not; Redis counts a, and then b. What MariaDB is, an annotation says, and what Redis is, its image.
const databases = `
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s, labels: {davit-e2e: "true"}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: mariadb, namespace: %[1]s}
spec:
  serviceName: mariadb
  selector: {matchLabels: {app: mariadb}}
  template:
    metadata: {labels: {app: mariadb}, annotations: {davit.dev/profile: mariadb}}
    spec:
      terminationGracePeriodSeconds: 5
      securityContext: {runAsUser: 10001, runAsGroup: 10001, fsGroup: 10001, fsGroupChangePolicy: OnRootMismatch}
      containers:
      - name: mariadb
        image: %[2]s
        imagePullPolicy: IfNotPresent
        env: [{name: MYSQL_UNIX_PORT, value: /tmp/mysqld.sock}]
        startupProbe: {exec: {command: [mariadb, bank, -e, "select * from innodb, aria limit 1"]}, periodSeconds: 2, timeoutSeconds: 5, failureThreshold: 300}
        command:
        - sh
        - -ec
        - |
          if [ ! -d /data/mysql ]; then
            rm -rf /data/new
            mariadb-install-db --no-defaults --datadir=/data/new --skip-name-resolve --skip-test-db --auth-root-authentication-method=socket --auth-root-socket-user=app > /dev/null
            mv /data/new /data/mysql
          fi
          printf "create database if not exists bank;\ncreate table if not exists bank.innodb (n int primary key) engine=InnoDB;\ncreate table if not exists bank.aria (n int primary key) engine=Aria transactional=0;\n" > /tmp/init.sql
          (
            until [ -e /tmp/go ]; do sleep 1; done
            n=0
            while n=$((n + 1)); do echo "insert into innodb values ($n); insert into aria values ($n);"; done | mariadb bank
          ) &
          exec mariadbd --no-defaults --datadir=/data/mysql --socket=/tmp/mysqld.sock --pid-file=/tmp/pid --skip-networking --innodb-buffer-pool-size=16M --key-buffer-size=1M --aria-pagecache-buffer-size=8M --performance-schema=OFF --init-file=/tmp/init.sql
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], storageClassName: reflink, resources: {requests: {storage: 512Mi}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: redis, namespace: %[1]s}
spec:
  serviceName: redis
  selector: {matchLabels: {app: redis}}
  template:
    metadata: {labels: {app: redis}}
    spec:
      terminationGracePeriodSeconds: 5
      securityContext: {runAsUser: 10001, runAsGroup: 10001, fsGroup: 10001, fsGroupChangePolicy: OnRootMismatch}
      containers:
      - name: redis
        image: %[3]s
        imagePullPolicy: IfNotPresent
        env: [{name: REDISCLI_AUTH, value: secret}]
        startupProbe: {exec: {command: [redis-cli, ping]}, periodSeconds: 2, failureThreshold: 300}
        command:
        - sh
        - -ec
        - |
          (
            until [ -e /tmp/go ]; do sleep 1; done
            while :; do echo "INCR a"; echo "INCR b"; done | redis-cli > /dev/null
          ) &
          exec redis-server --dir /data --appendonly yes --requirepass secret
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], storageClassName: reflink, resources: {requests: {storage: 256Mi}}}
`

// counts are what both databases hold: rows of InnoDB and of Aria, a and b of
// Redis. Tables that need a repair are an error.
func counts(t *testing.T, namespace string) (n [4]int64) {
	t.Helper()
	eventually(t, 3*time.Minute, "the databases of "+namespace+" answer", func() (bool, string) {
		sql := try(t, east, "-n", namespace, "exec", "mariadb-0", "--", "mariadb", "-N", "-B", "bank", "-e", "select count(*) from innodb; select count(*) from aria")
		keys := try(t, east, "-n", namespace, "exec", "redis-0", "--", "redis-cli", "MGET", "a", "b")
		got, err := fmt.Sscan(sql+" "+keys, &n[0], &n[1], &n[2], &n[3])
		return got == 4 && err == nil, sql + keys
	})
	return n
}

// profiled takes points of databases that profiles bring to rest, under load,
// and looks at what comes back.
func profiled(t *testing.T) {
	a := &app{name: short(t), vault: common}
	refs := map[string]string{}
	for _, name := range []string{"app-mariadb", "app-redis"} {
		var err error
		if refs[name], err = rig.Load(t.Context(), east, name); err != nil {
			t.Fatal(err)
		}
	}
	// Under a name by which people know it: nothing else says what the container is.
	const redis = "davit.test/redis:7"
	if _, err := rig.Bed.Site(east).Containerd(t.Context(), "images", "tag", "--force", refs["app-redis"], redis); err != nil {
		t.Fatal(err)
	}
	removeNamespace(t, east, a.name)
	apply(t, east, fmt.Sprintf(databases, a.name, refs["app-mariadb"], redis))
	t.Cleanup(func() { unprotect(east, a.name) })
	for _, pod := range []string{"mariadb-0", "redis-0"} {
		eventually(t, 3*time.Minute, pod+" is ready", func() (bool, string) {
			got := try(t, east, "-n", a.name, "get", "pod", pod, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
			return got == "True", got
		})
		kubectl(t, east, "-n", a.name, "exec", pod, "--", "touch", "/tmp/go")
	}
	a.protect(t, "--freeze", "required", "--freeze-window", busyWindow)
	for i := range 2 {
		var before [4]int64
		eventually(t, 3*time.Minute, "the writers write", func() (bool, string) {
			now := counts(t, a.name)
			was := before
			before = now
			return was[1] > 0 && was[3] > 0 && now[1] > was[1] && now[3] > was[3], fmt.Sprint(was, now)
		})
		p := a.backup(t)
		if p.Consistency != "application" {
			t.Fatalf("point is %s: %s", p.Consistency, davit(t, east, a.vault, "describe", p.ID).all())
		}
		davit(t, east, a.vault, "describe", p.ID).want(t, 0, "at rest 2 pods for", "profile mariadb held", "profile redis held")
		copied := fmt.Sprintf("%s-%d", a.name, i)
		removeNamespace(t, east, copied)
		davit(t, east, a.vault, "restore", p.ID, "--as-clone", "--map-namespace", a.name+"="+copied, "--yes").want(t, 0)
		n := counts(t, copied)
		t.Logf("acknowledged before: %v; in point %s: %v", before, p.ID, n)
		if n[0]-n[1] > 1 || n[0] < n[1] || n[1] < before[1] || n[2]-n[3] > 1 || n[2] < n[3] || n[3] < before[3] {
			t.Errorf("point %s: %v, and %v had been acknowledged before it", p.ID, n, before)
		}
		if got := kubectl(t, east, "-n", copied, "exec", "mariadb-0", "--", "mariadb", "-N", "-B", "bank", "-e", "check table aria, innodb extended"); strings.Count(got, "\tstatus\tOK") != 2 {
			t.Errorf("tables of point %s: %s", p.ID, got)
		}
	}
	notProfiled(t, a)
}

// notProfiled is the control: one of the databases is left alone, as its pod asks, and then both are. What is not
// held is not called held, and where nothing is, the point is not called consistent for the application.
func notProfiled(t *testing.T, a *app) {
	t.Helper()
	var last pointView
	for _, name := range []string{"mariadb", "redis"} {
		kubectl(t, east, "-n", a.name, "annotate", "--overwrite", "pod", name+"-0", "davit.dev/profile=none")
		last = a.weakBackup(t)
		if said := davit(t, east, a.vault, "describe", last.ID).want(t, 0).all(); strings.Contains(said, "profile "+name) {
			t.Errorf("%s was left alone, and point %s says:\n%s", name, last.ID, said)
		}
	}
	if last.Consistency != "crash" {
		t.Errorf("point %s is %s, and nothing was held", last.ID, last.Consistency)
	}
}

// agentsPeak is the most memory that an agent of the bed has had, in MiB.
func agentsPeak(t *testing.T) (peak int64) {
	t.Helper()
	for _, pid := range pidsOf(t, "agent") {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		for line := range strings.Lines(string(text)) {
			var kib int64
			if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
				peak = max(peak, kib>>10)
			}
		}
	}
	return peak
}
