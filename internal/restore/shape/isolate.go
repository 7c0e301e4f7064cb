package shape

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// ownVolumes are the sources of volumes that a pod shares with no other.
var ownVolumes = []string{
	"name", "emptyDir", "configMap", "secret", "projected", "downwardAPI", "persistentVolumeClaim", "ephemeral", "csi", "image", "gitRepo",
}

// UnfitForCopy says why an object cannot come into an isolated copy, or
// nothing: it would write to what the original writes to.
func UnfitForCopy(kind schema.GroupKind, d Document) string {
	if kind == KindClaim {
		if class, set := Child(d, "spec")["storageClassName"].(string); set && class == "" {
			return "the claim names no storage class, so a copy could bind to a volume that exists"
		}
		return ""
	}
	spec := PodSpecOf(kind, d)
	for _, v := range Items(spec, "volumes") {
		for source := range v {
			if !slices.Contains(ownVolumes, source) && !onlyRead(spec, v, source) {
				return fmt.Sprintf("its volume %s (%s) is shared with the original, and a copy could write to it", Text(v, "name"), source)
			}
		}
	}
	return ""
}

// ClaimSpecs are what an object asks of volumes: a claim itself, or the claims
// that are made for a workload's pods.
func ClaimSpecs(kind schema.GroupKind, d Document) (specs []Document) {
	if kind == KindClaim {
		return []Document{Child(d, "spec")}
	}
	for _, template := range Items(Child(d, "spec"), "volumeClaimTemplates") {
		specs = append(specs, Child(template, "spec"))
	}
	for _, v := range Items(PodSpecOf(kind, d), "volumes") {
		if spec := Child(v, "ephemeral", "volumeClaimTemplate", "spec"); spec != nil {
			specs = append(specs, spec)
		}
	}
	return specs
}

// onlyRead tells whether no container may write to a volume.
func onlyRead(spec, volume Document, source string) bool {
	if readOnly, _ := Child(volume, source)["readOnly"].(bool); readOnly {
		return true
	}
	for _, list := range []string{"containers", "initContainers"} {
		for _, c := range Items(spec, list) {
			for _, m := range Items(c, "volumeMounts") {
				if readOnly, _ := m["readOnly"].(bool); Text(m, "name") == Text(volume, "name") && !readOnly {
					return false
				}
			}
		}
	}
	return true
}

// Isolate takes out of an object what reaches out of a copy, and returns what a
// person should know about it. originals are the namespaces that were captured.
func Isolate(kind schema.GroupKind, d Document, originals []string) (notes []string) {
	switch kind {
	case KindService:
		notes = isolateService(d)
	case KindCronJob, KindJob:
		if spec := Child(d, "spec"); spec != nil {
			spec["suspend"] = true
		}
		if kind == KindJob {
			notes = append(notes, "the Job is suspended: a copy does its work not a second time")
		}
	}
	notes = append(notes, isolatePods(PodSpecOf(kind, d))...)
	texts := []any{d}
	if kind == (schema.GroupKind{Kind: "Secret"}) {
		texts = append(texts, secretTexts(d))
	}
	if found := namedIn(texts, originals); len(found) > 0 {
		notes = append(notes, "it names "+Names(found, 4)+", which is the original: what runs in the copy may reach it")
	}
	return notes
}

// isolateService leaves a Service its cluster IP alone.
func isolateService(d Document) (notes []string) {
	spec := Child(d, "spec")
	switch Text(spec, "type") {
	case "LoadBalancer", "NodePort":
		notes = append(notes, "the Service is of type ClusterIP in the copy, not "+Text(spec, "type"))
		spec["type"] = "ClusterIP"
	case "ExternalName":
		notes = append(notes, "the Service stands for "+Text(spec, "externalName")+", which the copy uses as well")
	}
	Drop(spec, nil, "externalIPs", "externalTrafficPolicy", "loadBalancerIP", "loadBalancerClass",
		"loadBalancerSourceRanges", "allocateLoadBalancerNodePorts")
	ReleasePorts(d)
	annotations := Child(d, "metadata", "annotations")
	for key := range annotations {
		if strings.HasPrefix(key, "external-dns.alpha.kubernetes.io/") {
			delete(annotations, key)
		}
	}
	return notes
}

// isolatePods keeps pods off the node's own network.
func isolatePods(spec Document) (notes []string) {
	if on, _ := spec["hostNetwork"].(bool); on {
		notes = append(notes, "its pods have a network of their own in the copy, not the node's")
		delete(spec, "hostNetwork")
		if Text(spec, "dnsPolicy") == "ClusterFirstWithHostNet" {
			spec["dnsPolicy"] = "ClusterFirst"
		}
		for _, list := range []string{"containers", "initContainers"} {
			dropHostPorts(spec, list) // the API server set them to the containers' own
		}
		return notes
	}
	for _, list := range []string{"containers", "initContainers"} {
		if dropHostPorts(spec, list) {
			notes = append(notes, "its pods have no ports of the node in the copy")
		}
	}
	return notes
}

func dropHostPorts(spec Document, list string) (any bool) {
	for _, c := range Items(spec, list) {
		for _, port := range Items(c, "ports") {
			if port["hostPort"] != nil {
				delete(port, "hostPort")
				delete(port, "hostIP")
				any = true
			}
		}
	}
	return any
}

// namedIn finds DNS names of Services in the captured namespaces, as in
// db.shop, db.shop:5432 and db.shop.svc.cluster.local.
func namedIn(v any, namespaces []string) (found []string) {
	seen := map[string]bool{}
	walkText(v, func(text string) {
		for _, ns := range namespaces {
			if names(text, ns) && !seen[ns] {
				seen[ns] = true
				found = append(found, "*."+ns+".svc")
			}
		}
	})
	slices.Sort(found)
	return found
}

// names tells whether a text has ".namespace" behind a name, and at its own end.
func names(text, namespace string) bool {
	for rest := text; ; {
		before, after, found := strings.Cut(rest, "."+namespace)
		if !found {
			return false
		}
		if before != "" && inName(before[len(before)-1]) && (after == "" || strings.HasPrefix(after, ".svc") || after[0] != '.' && !inName(after[0])) {
			return true
		}
		rest = after
	}
}

// inName tells whether a byte may be part of a DNS label.
func inName(b byte) bool {
	return b == '-' || b == '_' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
}

// secretTexts are a Secret's values in the clear, to look for names in.
func secretTexts(d Document) any {
	var all []any
	for _, value := range Child(d, "data") {
		if text, ok := value.(string); ok {
			if raw, err := base64.StdEncoding.DecodeString(text); err == nil {
				all = append(all, string(raw))
			}
		}
	}
	return all
}

func walkText(v any, fn func(string)) {
	switch v := v.(type) {
	case string:
		fn(v)
	case map[string]any:
		for key, child := range v {
			if key != "annotations" && key != "managedFields" {
				walkText(child, fn)
			}
		}
	case []any:
		for _, child := range v {
			walkText(child, fn)
		}
	}
}
