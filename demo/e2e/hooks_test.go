package e2e

import (
	"context"
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
			eventually(t, time.Minute, "the pod was let go", func() (bool, string) {
				got := a.inPod(t, "test -e /tmp/held || echo free")
				return got == "free", got
			})
		})
	}
	// One that cannot hold at all fails the capture, and says why.
	a.protect(t, "-f", hooksOf(t, "- name: quiet\n  podSelector: {matchLabels: {app: db}}\n  hold: {command: [sh, -c, 'echo no such database; exit 1']}\n"))
	davit(t, east, "", "backup", a.name, "--wait", "--timeout", "4m").want(t, 1, "no such database")
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
	eventually(t, 2*time.Minute, "the pod is held", func() (bool, string) {
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
	eventually(t, time.Minute, "nothing is owed", func() (bool, string) {
		got := try(t, east, "-n", system, "get", "configmaps", "-l", "davit.dev/owed", "-o", "name")
		return got == "", got
	})
}
