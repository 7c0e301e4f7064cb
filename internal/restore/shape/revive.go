package shape

import (
	"encoding/json"
	"strconv"
)

// What Davit notes on what it stops, because its site was superseded or a run
// holds it at rest. A point of that time shows the workload stopped; who
// restores it wants what it was.
const (
	notedReplicas = "davit.dev/replicas-before-fence"
	notedClaims   = "davit.dev/claims-when-scaled-before-fence"
	notedPause    = "davit.dev/suspended-by-fence"
	notedSelector = "davit.dev/node-selector-before-fence"
)

// Halted says, as a difference, that Davit had stopped a workload: it may be
// what was captured, and does not run. Of others it says nothing.
func Halted(d Document) []string {
	notes := Child(d, "metadata", "annotations")
	if notes[notedReplicas] == nil && notes[notedPause] == nil && notes[notedSelector] == nil {
		return nil
	}
	return []string{"whether it runs: its site was superseded, or a run held it"}
}

// revive gives a workload that Davit had stopped what it had before.
func revive(d Document) {
	notes := Child(d, "metadata", "annotations")
	if notes == nil {
		return
	}
	spec := Child(d, "spec")
	if n, err := strconv.ParseInt(Text(notes, notedReplicas), 10, 32); err == nil && spec != nil {
		if now, set := Number(spec, "replicas"); set && now == 0 {
			spec["replicas"] = n
		}
	}
	if was := Text(notes, notedClaims); was != "" {
		if policy := Child(spec, "persistentVolumeClaimRetentionPolicy"); policy != nil {
			policy["whenScaled"] = was
		}
	}
	if Text(notes, notedPause) == "true" {
		Drop(spec, nil, "suspend")
	}
	var selector map[string]any
	if err := json.Unmarshal([]byte(Text(notes, notedSelector)), &selector); err == nil {
		if pod := Child(spec, "template", "spec"); pod != nil {
			pod["nodeSelector"] = selector
			DropEmpty(pod, "nodeSelector")
		}
	}
	Drop(notes, nil, notedReplicas, notedClaims, notedPause, notedSelector)
}

// SpareClaims has a StatefulSet that is to have fewer replicas than it has keep the claims
// of the others, where it would delete them, and tells whether it did. Pods that still end,
// as when a restore that was killed goes on, count: their claims would go with them.
func SpareClaims(want, live Document) bool {
	const policy, scaled = "persistentVolumeClaimRetentionPolicy", "whenScaled"
	replicas := func(d Document) int64 {
		if n, set := Number(d, "spec", "replicas"); set {
			return n
		}
		return 1
	}
	is := Text(want, "spec", policy, scaled)
	if is == "" {
		is = Text(live, "spec", policy, scaled)
	}
	pods, _ := Number(live, "status", "replicas")
	if is != "Delete" || replicas(want) >= max(replicas(live), pods) {
		return false
	}
	Merge(want, Document{"spec": Document{policy: Document{scaled: "Retain"}}})
	return true
}

// Rest has a StatefulSet run nothing and keep its claims. What Davit noted to start it
// again goes. It tells whether there was anything to change.
func Rest(d Document) bool {
	notes := Child(d, "metadata", "annotations")
	n, set := Number(d, "spec", "replicas")
	if set && n == 0 && notes[notedReplicas] == nil && notes[AnnotationBefore] == nil {
		return false
	}
	Drop(notes, nil, notedReplicas, notedClaims, AnnotationBefore)
	Merge(d, Document{"spec": Document{
		"replicas": int64(0), "persistentVolumeClaimRetentionPolicy": Document{"whenScaled": "Retain"},
	}})
	return true
}
