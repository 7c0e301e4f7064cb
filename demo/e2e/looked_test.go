package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// plugin runs davit the way kubectl does, by the name of the plugin, with
// nothing but KUBECONFIG.
func plugin(t *testing.T, site string, args ...string) outcome {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), rig.KubectlPath(), append([]string{"davit"}, args...)...)
	s3 := rig.Bed.S3()
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(rig.Root, "bin")+":"+os.Getenv("PATH"),
		"KUBECONFIG="+rig.Bed.Site(site).Kubeconfig(), "DAVIT_ACCESS_KEY="+s3.AccessKey, "DAVIT_SECRET_KEY="+s3.SecretKey)
	cmd.WaitDelay = 5 * time.Second
	return finish(t, cmd)
}

// lookedAt uses davit as a plugin of kubectl: it looks at an application, at
// what its points and restores had to say, and restores the older one by its time.
func lookedAt(t *testing.T) {
	a := &app{}
	sum := a.deploy(t)
	a.protect(t)
	first := a.backup(t)
	kubectl(t, east, "-n", a.name, "patch", "configmap", "settings", "-p", `{"data":{"colour":"red"}}`)
	second := a.backup(t)

	plugin(t, east, "version").want(t, 0)
	plugin(t, east, "status").want(t, 0, "east", a.name)
	plugin(t, east, "points", a.name).want(t, 0, first.ID, second.ID)
	plugin(t, east, "describe", a.name).want(t, 0, a.name, common)
	plugin(t, east, "describe", second.ID, "--vault", common).want(t, 0, "data-db-0")
	plugin(t, east, "logs", "backup", second.ID, "--vault", common).want(t, 0, "no warnings")
	plugin(t, east, "logs", "backups").want(t, 2, "kubectl davit")

	copied := a.name + "-copy"
	removeNamespace(t, west, copied)
	then := second.Instant.Add(-time.Millisecond).Format(time.RFC3339Nano)
	var r report
	plugin(t, west, append(a.cloneArgs(copied, "--as-of", then, "--vault", common), "-o", "json")...).want(t, 0).read(t, &r)
	if r.Point != first.ID {
		t.Errorf("as of %s it restored %s, want %s", then, r.Point, first.ID)
	}
	if got := a.sum(t, west, copied); got != sum {
		t.Errorf("the data is %s, want %s", got, sum)
	}
	if got := kubectl(t, west, "-n", copied, "get", "configmap", "settings", "-o", "jsonpath={.data.colour}"); got != "green" {
		t.Errorf("the setting is %q, which it was only later", got)
	}
	plugin(t, west, "logs", "restore", a.name).want(t, 0, first.ID, "Steps")
	long := first.Instant.Add(-time.Hour).Format(time.RFC3339Nano)
	plugin(t, west, append(a.cloneArgs(copied, "--as-of", long, "--vault", common), "--dry-run")...).want(t, 3, "hint:")
	if strings.Contains(plugin(t, east, "status", "-o", "json").want(t, 0).out, rig.Bed.S3().SecretKey) {
		t.Error("status tells the vault's secret key")
	}
}
