package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"davit.dev/davit/demo/stage"
)

// room is the namespace of a console that is installed.
const room = "davit-console"

// consoleInstalled has a console run in west, with east's agent calling it by its
// Service. Its process is killed, the pod of the active one goes with its volume, and
// then both pods at once: each time it comes back from the vault by itself, with what
// was written before, and hands on what is written then.
func consoleInstalled(t *testing.T) {
	address := bucket(t, "e2e-installed-"+run, "")
	key := addVault(t, "installed", address, []string{east}, "--project", "installed")
	c := &control{dir: t.TempDir(), secrets: t.TempDir(), address: net.JoinHostPort(rig.Bed.Site(west).Address(), "30843")}
	c.url = "https://" + c.address
	if err := os.WriteFile(filepath.Join(c.secrets, "password"), []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = rig.Kubectl(context.Background(), west, "delete", "namespace", room, "--ignore-not-found", "--wait=false")
	})
	shape := []string{"--image", stage.Image, "--service", "NodePort", "--url", c.url}
	vault := []string{"--vault-url", address, "--project", "installed", "--join", "--recovery-key-file", key}
	davit(t, west, "", append([]string{"install", "console"}, shape...)...).want(t, 2, "no console yet", "--vault-url")
	absent(t, west, room)
	davit(t, west, "", append(append([]string{"install", "console", "--admin", chief, "--password-file", filepath.Join(c.secrets, "password")}, shape...), vault...)...).want(t, 0, "active", c.url)
	c.rightless(t)

	ca := kubectl(t, west, "-n", room, "get", "configmap", "davit-console-ca", "-o", `jsonpath={.data.ca\.pem}`)
	if err := os.WriteFile(filepath.Join(c.dir, "ca.pem"), []byte(ca), 0o600); err != nil {
		t.Fatal(err)
	}
	c.enter(t)
	token := filepath.Join(c.secrets, "east.token")
	c.do(t, "--console", c.url, "agents", "token", east, "--token-file", token).want(t, 0)
	davit(t, east, "", "enrol", "--console", c.url, "--enrol-token-file", token, "--documents", "all").want(t, 0)
	t.Cleanup(func() {
		_, _ = rig.Kubectl(context.Background(), east, "-n", system, "delete", "secret", "davit-console", "--ignore-not-found")
		_, _ = rig.Kubectl(context.Background(), east, "-n", system, "delete", "protectionpolicies", "-l", "davit.dev/console=installed", "--ignore-not-found")
	})
	c.writes(t, "before")

	c.active(t)
	signal(t, c.pids(t), syscall.SIGKILL) // of both: each is started again with what it had
	c.again(t, "killed", "before")

	pod := c.active(t)
	begun := time.Now()
	kubectl(t, west, "-n", room, "delete", "pod", pod, "--grace-period=1", "--wait=false")
	c.again(t, "handed-over", "before", "killed")
	t.Logf("the active one's pod was lost: a document was taken %.1f s later", time.Since(begun).Seconds())
	eventually(t, 3*time.Minute, "the other one is active", func() (bool, string) { // the Service hears of it late
		next := c.active(t)
		return next != pod, next
	})

	begun = time.Now()
	kubectl(t, west, "-n", room, "delete", "pod", "--all", "--grace-period=1", "--wait=false")
	c.again(t, "from-nothing", "before", "killed", "handed-over")
	t.Logf("both pods were lost with their volumes: a document was taken %.1f s later", time.Since(begun).Seconds())

	// An upgrade needs no key, and keeps the state.
	davit(t, west, "", append([]string{"install", "console", "--replicas", "1"}, shape...)...).want(t, 0, "active")
	c.again(t, "upgraded", "before", "killed", "handed-over", "from-nothing")
	davit(t, west, "", "uninstall", "console", "--yes").want(t, 0, "vault keys remove age1")
	absent(t, west, room)
}

// pids are the processes of the console, which no other bed has at that address.
func (c *control) pids(t *testing.T) (all []int) {
	t.Helper()
	eventually(t, 3*time.Minute, "two consoles run", func() (bool, string) {
		entries, err := os.ReadDir("/proc")
		if err != nil {
			t.Fatal(err)
		}
		all = nil
		for _, e := range entries {
			line, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
			if pid, err := strconv.Atoi(e.Name()); err == nil && strings.Contains(string(line), "davit\x00console\x00--data=") && strings.Contains(string(line), c.url+"\x00") {
				all = append(all, pid)
			}
		}
		return len(all) == 2, fmt.Sprint(all)
	})
	return all
}

// rightless checks what the pods may do in the cluster: nothing.
func (c *control) rightless(t *testing.T) {
	t.Helper()
	pods := kubectl(t, west, "-n", room, "get", "pods", "-o", "json")
	if strings.Contains(pods, "kube-api-access") || strings.Contains(pods, "serviceAccountToken") {
		t.Error("the console's pods have a token of the cluster's")
	}
	if got := try(t, west, "auth", "can-i", "--list", "--as", "system:serviceaccount:"+room+":"+room, "-n", room, "--no-headers"); strings.Contains(got, "secrets") || strings.Contains(got, "pods") {
		t.Errorf("the console's account may: %s", got)
	}
	if got := try(t, east, "-n", system, "get", "pods", "-o", "json"); !strings.Contains(got, "kube-api-access") {
		t.Error("what was looked for in the console's pods is not in the agent's")
	}
}

// active is the pod that the Service leads to. It may lead to one more for as long as
// the kubelet asks no pod anew: on a machine that let the active one stand still.
func (c *control) active(t *testing.T) (pod string) {
	t.Helper()
	eventually(t, 3*time.Minute, "the Service leads to one console", func() (bool, string) {
		got := try(t, west, "-n", room, "get", "endpointslices", "-l", "kubernetes.io/service-name="+room, "-o",
			`jsonpath={range .items[*].endpoints[?(@.conditions.ready==true)]}{.targetRef.name}{"\n"}{end}`)
		names := strings.Fields(got)
		if len(names) == 1 {
			pod = names[0]
		}
		return len(names) == 1 && strings.HasPrefix(pod, room+"-"), got
	})
	return pod
}

// enter logs in.
func (c *control) enter(t *testing.T) {
	t.Helper()
	eventually(t, 3*time.Minute, "the console lets people in", func() (bool, string) {
		got := c.do(t, "login", "--console", c.url, "--ca-file", filepath.Join(c.dir, "ca.pem"), "--user", chief, "--password-file", filepath.Join(c.secrets, "password"))
		return got.code == 0, got.all()
	})
}

// writes has the console take a policy for east, and waits until it is there.
func (c *control) writes(t *testing.T, name string) {
	t.Helper()
	name = "installed-" + name
	file := filepath.Join(c.secrets, name+".yaml")
	text := fmt.Sprintf("apiVersion: davit.dev/v1alpha1\nkind: ProtectionPolicy\nmetadata: {name: %s, annotations: {davit.dev/sites: east}}\nspec: {schedule: {every: 1h}}\n", name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, 4*time.Minute, "the console takes "+name, func() (bool, string) {
		got := c.do(t, "--console", c.url, "apply", "-f", file)
		return got.code == 0, got.all()
	})
	eventually(t, 4*time.Minute, "east has "+name, func() (bool, string) {
		got := try(t, east, "-n", system, "get", "protectionpolicy", name, "-o", "name")
		return strings.HasPrefix(got, "protectionpolicy"), got
	})
}

// again checks that the console is back with what it had, in the session that there
// was, and that it goes on.
func (c *control) again(t *testing.T, name string, had ...string) {
	t.Helper()
	c.writes(t, name)
	var got outcome
	eventually(t, 4*time.Minute, "the console says what it has", func() (bool, string) { // whoever took it may have been on its way out
		got = c.do(t, "--console", c.url, "get", "policy", "-o", "name")
		return got.code == 0, got.all()
	})
	for _, one := range had {
		if !strings.Contains(got.out, "installed-"+one) {
			t.Errorf("%s is lost: %s", one, got.all())
		}
	}
}
