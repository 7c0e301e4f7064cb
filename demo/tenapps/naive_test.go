package tenapps

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/testbed/apps"
)

// bundle is what a simple tool takes of an application: every object of its namespace as the API server shows it, and a
// copy of the files of its volumes, each read while it is written.
type bundle struct {
	objects []object
	files   map[string]string // tars by the claims' names
}

type object map[string]any

func (o object) kind() string             { return fmt.Sprint(o["kind"]) }
func (o object) metadata() map[string]any { m, _ := o["metadata"].(map[string]any); return m }
func (o object) name() string             { return fmt.Sprint(o.metadata()["name"]) }

// kindsFirst is the order in which such tools create kinds; all others follow by name.
var kindsFirst = []string{"ServiceAccount", "Secret", "ConfigMap", "LimitRange", "ResourceQuota", "Pod", "ReplicaSet", "Service", "Endpoints"}

// copies is where a naive backup keeps its files.
func copies() string { return filepath.Join(rig.Work, "naive") }

// captureNaively does what `kubectl get -o json` and tar can.
func captureNaively(ctx context.Context, dir string, p apps.Place) (bundle, error) {
	b := bundle{files: map[string]string{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return b, err
	}
	kinds, err := p.Kubectl(ctx, "", "api-resources", "--namespaced", "--verbs=list,create", "-o", "name")
	if err != nil {
		return b, err
	}
	wanted := slices.DeleteFunc(strings.Fields(kinds), func(kind string) bool { return strings.HasPrefix(kind, "events") })
	out, err := p.Kubectl(ctx, "", "-n", p.Namespace, "get", strings.Join(wanted, ","), "-o", "json")
	if err != nil {
		return b, err
	}
	var list struct{ Items []object }
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return b, fmt.Errorf("read objects: %w", err)
	}
	for _, o := range list.Items {
		delete(o.metadata(), "resourceVersion")
		delete(o.metadata(), "uid")
		b.objects = append(b.objects, o)
		if o.kind() != "PersistentVolumeClaim" {
			continue
		}
		spec, _ := o["spec"].(map[string]any)
		path := filepath.Join(dir, o.name()+".tar")
		if err := mounted(east, fmt.Sprint(spec["volumeName"]), func(mount string) error {
			return tarred("-C", mount, "-cf", path, ".")
		}); err != nil {
			return b, err
		}
		b.files[o.name()] = path
	}
	return b, nil
}

// mounted calls fn with the directory at which a volume is mounted at a site.
func mounted(site, volume string, fn func(string) error) error {
	found, err := filepath.Glob(filepath.Join(rig.Bed.Site(site).KubeletRoot(), "pods", "*", "volumes", "*", volume, "mount"))
	if err != nil || len(found) == 0 {
		return errors.Join(err, fmt.Errorf("volume %s is mounted nowhere at %s", volume, site))
	}
	return fn(found[0])
}

// tarred runs tar. That a file changes while it is read is what a live copy is like.
func tarred(args ...string) error {
	out, err := exec.Command("tar", append([]string{"--numeric-owner", "--sparse"}, args...)...).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("tar %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// restoreNaively creates claims and fills them, then everything else kind by kind. It says what could not be created.
// The claims alone are spared what would make the whole thing pointless: the names of volumes that are lost.
func restoreNaively(ctx context.Context, b bundle, p apps.Place) (refused []string, err error) {
	if _, err := p.Kubectl(ctx, "", "create", "namespace", p.Namespace); err != nil {
		return nil, err
	}
	for _, o := range b.objects {
		if o.kind() != "PersistentVolumeClaim" {
			continue
		}
		if err := fillNaively(ctx, o, b.files[o.name()], p); err != nil {
			return nil, err
		}
	}
	rest := slices.DeleteFunc(slices.Clone(b.objects), func(o object) bool { return o.kind() == "PersistentVolumeClaim" })
	slices.SortStableFunc(rest, func(x, y object) int {
		if d := rank(x) - rank(y); d != 0 {
			return d
		}
		return strings.Compare(x.kind(), y.kind())
	})
	for _, o := range rest {
		body, err := json.Marshal(o)
		if err != nil {
			return nil, err
		}
		if _, err := p.Kubectl(ctx, string(body), "create", "-f", "-"); err != nil && !strings.Contains(err.Error(), "AlreadyExists") {
			said := strings.Split(strings.TrimSpace(err.Error()), "\n")
			refused = append(refused, fmt.Sprintf("%s %s: %s", o.kind(), o.name(), said[len(said)-1]))
		}
	}
	return refused, nil
}

func rank(o object) int {
	if at := slices.Index(kindsFirst, o.kind()); at >= 0 {
		return at
	}
	return len(kindsFirst)
}

// fillNaively makes a claim like the captured one and extracts the files into it, through a pod that holds it.
func fillNaively(ctx context.Context, claim object, files string, p apps.Place) error {
	spec, _ := claim["spec"].(map[string]any)
	delete(spec, "volumeName")
	fresh, err := json.Marshal(object{
		"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": spec,
		"metadata": map[string]any{"name": claim.name(), "namespace": p.Namespace, "labels": claim.metadata()["labels"]},
	})
	if err != nil {
		return err
	}
	holder := fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: fill, namespace: %s}, spec: {
  terminationGracePeriodSeconds: 0, containers: [{name: hold, image: "davit.test/bedtool:1", imagePullPolicy: Never, command: [sleep, "600"], volumeMounts: [{name: v, mountPath: /v}]}],
  volumes: [{name: v, persistentVolumeClaim: {claimName: %s}}]}}`, p.Namespace, claim.name())
	for _, manifest := range []string{string(fresh), holder} {
		if _, err := p.Kubectl(ctx, manifest, "create", "-f", "-"); err != nil {
			return err
		}
	}
	if _, err := p.Kubectl(ctx, "", "-n", p.Namespace, "wait", "pod/fill", "--for=condition=Ready", "--timeout=4m"); err != nil {
		return err
	}
	volume, err := p.Kubectl(ctx, "", "-n", p.Namespace, "get", "pvc", claim.name(), "-o", "jsonpath={.spec.volumeName}")
	if err != nil {
		return err
	}
	if err := mounted(west, volume, func(mount string) error { return tarred("-C", mount, "-xpf", files) }); err != nil {
		return err
	}
	_, err = p.Kubectl(ctx, "", "-n", p.Namespace, "delete", "pod", "fill", "--timeout=4m")
	return err
}

// naively tells what a naive restore makes of an application. What goes wrong is its result, not the test's.
func naively(t *testing.T, l loss) {
	ctx, there := t.Context(), place(west, l.app)
	if err := vacate(ctx, west, l.app); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	refused, err := restoreNaively(ctx, *l.naive, there)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range refused {
		t.Log("not created:", r)
	}
	r := row{app: l.app.Name, naive: true, restore: time.Since(start), result: "recovered"}
	waiting, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if err := l.app.Await(waiting, there); err != nil {
		r.result = "does not start: " + lastLine(err)
	} else if err := l.app.Check(ctx, there, l.known); err != nil {
		r.result = "runs, but: " + lastLine(err)
	} else if len(refused) > 0 {
		r.result = "runs and has its data, but lacks " + strings.Join(refused, "; ")
	}
	if r.result != "recovered" {
		evidence(t, there)
	}
	r.usable = time.Since(start)
	results.add(r)
}

func lastLine(err error) string {
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	return fmt.Sprintf("%.300s", lines[len(lines)-1])
}

// soak asks for what is too long for every run.
func soak() bool { return os.Getenv("DAVIT_SOAK") != "" }
