package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// dueOften is an application without a volume, whose policy asks for a point every few seconds.
const dueOften = `---
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s, labels: {davit-e2e: "true"}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: %[1]s}
data: {colour: green}
---
apiVersion: davit.dev/v1alpha1
kind: ProtectionPolicy
metadata: {name: %[1]s, namespace: davit-system}
spec: {schedule: {every: 20s}}
---
apiVersion: davit.dev/v1alpha1
kind: Application
metadata: {name: %[1]s, namespace: davit-system}
spec: {vault: %[2]s, policy: %[1]s, namespaces: [%[1]s]}
`

// taken is a recovery point as its object tells of it.
type taken struct {
	Metadata struct{ Name string }
	Spec     struct{ Application string }
	Status   struct {
		Phase, Step           string
		StartedAt, FinishedAt time.Time
	}
}

// takenAll are the points at east, by the name of the application, the oldest first.
func takenAll(t *testing.T) map[string][]taken {
	t.Helper()
	var list struct{ Items []taken }
	if err := json.Unmarshal([]byte(kubectl(t, east, "-n", system, "get", "recoverypoints", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	all := map[string][]taken{}
	for _, p := range list.Items {
		all[p.Spec.Application] = append(all[p.Spec.Application], p)
	}
	for _, points := range all {
		slices.SortFunc(points, func(a, b taken) int { return a.Status.StartedAt.Compare(b.Status.StartedAt) })
	}
	return all
}

// inTurn has twenty applications due at once, again and again, beside one whose capture hangs: each of them gets
// its points, and comes back, while that one is at it, and no application is captured twice at a time. It is for the soak: captures of
// twenty applications each 20 s leave the tests beside it, on two cores, too little.
func inTurn(t *testing.T) {
	if os.Getenv("DAVIT_SOAK") == "" {
		t.Skip("set DAVIT_SOAK to have twenty applications due at once, again and again")
	}
	hangs := &app{name: short(t) + "-hangs"}
	hangs.deploy(t)
	hangs.protect(t, "--every", "10s", "-f", hooksOf(t, "- name: hang\n  podSelector: {matchLabels: {app: db}}\n  timeout: 9m\n  before: [sh, -c, 'touch /tmp/begun; until test -e /tmp/go; do sleep 1; done']\n  after: [touch, /tmp/after]\n"))
	capturing := func() (ids []string) {
		for _, p := range takenAll(t)[hangs.name] {
			if p.Status.Phase == "Capturing" {
				ids = append(ids, p.Metadata.Name)
			}
		}
		return ids
	}
	eventually(t, 3*time.Minute, "a capture hangs", func() (bool, string) {
		got := hangs.inPod(t, "test -e /tmp/begun && echo hangs")
		return got == "hangs", got
	})
	stuck := capturing()
	if len(stuck) != 1 {
		t.Fatalf("captures of the one that hangs: %v", stuck)
	}
	// Asked for by a person, who goes first, but not beside the one that runs.
	davit(t, east, "", "backup", hangs.name).want(t, 0)

	var crowd []string
	var yaml strings.Builder
	for i := range 20 {
		name := fmt.Sprintf("%s-%02d", short(t), i)
		crowd = append(crowd, name)
		fmt.Fprintf(&yaml, dueOften, name, common)
		removeNamespace(t, east, name)
		t.Cleanup(func() { unprotect(east, name) })
	}
	apply(t, east, yaml.String())
	eventually(t, 5*time.Minute, "each of the others has two points", func() (bool, string) {
		all, behind := takenAll(t), []string{}
		for _, name := range crowd {
			n := 0
			for _, p := range all[name] {
				if p.Status.Phase == "Available" {
					n++
				}
			}
			if n < 2 {
				behind = append(behind, fmt.Sprintf("%s has %d", name, n))
			}
		}
		return len(behind) == 0, strings.Join(behind, ", ")
	})
	copied := crowd[7] + "-copy"
	removeNamespace(t, east, copied)
	davit(t, east, common, "restore", crowd[7], "--as-clone", "--map-namespace", crowd[7]+"="+copied, "--yes").want(t, 0)
	// The control: all the while, that one hung, and nothing of it began beside.
	if got := capturing(); !slices.Equal(got, stuck) {
		t.Errorf("the captures that hang are %v, and were %v: nothing was shown", got, stuck)
	}
	kubectl(t, east, "-n", hangs.name, "exec", "db-0", "-c", "db", "--", "touch", "/tmp/go")
	eventually(t, 3*time.Minute, "the one that hung has two points", func() (bool, string) {
		points := takenAll(t)[hangs.name]
		n := 0
		for _, p := range points {
			if p.Status.Phase == "Available" {
				n++
			}
		}
		return n >= 2, fmt.Sprintf("%+v", points)
	})
	for name, points := range takenAll(t) {
		if name != hangs.name && !slices.Contains(crowd, name) {
			continue
		}
		for i, p := range points[1:] {
			if before := points[i]; before.Status.Phase == "Available" && p.Status.Phase == "Available" && p.Status.StartedAt.Before(before.Status.FinishedAt.Truncate(time.Second)) {
				t.Errorf("%s began at %s, and %s was at it until %s", p.Metadata.Name, p.Status.StartedAt, before.Metadata.Name, before.Status.FinishedAt)
			}
		}
	}
}
