package fence

import (
	"strings"

	"davit.dev/davit/internal/selection"
)

// Owners are the workloads that made a pod, as its name and labels tell: what
// a node has to go by for a pod that the API server never told it of.
func Owners(pod *selection.Object) []selection.Object {
	own := func(child *selection.Object, group, kind, name string) selection.Object {
		child.Owner = &selection.Owner{Group: group, Kind: kind, Name: name}
		return selection.Object{Group: group, Kind: kind, Namespace: pod.Namespace, Name: name}
	}
	head, _, _ := cutLast(pod.Name)
	hash := pod.Labels["pod-template-hash"]
	switch {
	case hash != "" && strings.HasSuffix(head, "-"+hash):
		set := own(pod, "apps", "ReplicaSet", head)
		deployment := own(&set, "apps", "Deployment", strings.TrimSuffix(head, "-"+hash))
		return []selection.Object{set, deployment}
	case pod.Labels["statefulset.kubernetes.io/pod-name"] == pod.Name && head != "":
		return []selection.Object{own(pod, "apps", "StatefulSet", head)}
	case pod.Labels["batch.kubernetes.io/job-name"] != "":
		job := own(pod, "batch", "Job", pod.Labels["batch.kubernetes.io/job-name"])
		if name, minute, found := cutLast(job.Name); found && strings.Trim(minute, "0123456789") == "" && len(minute) >= 8 {
			return []selection.Object{job, own(&job, "batch", "CronJob", name)}
		}
		return []selection.Object{job}
	case pod.Labels["controller-revision-hash"] != "" && head != "":
		return []selection.Object{own(pod, "apps", "DaemonSet", head)}
	}
	return nil
}

func cutLast(name string) (head, tail string, found bool) {
	at := strings.LastIndexByte(name, '-')
	if at <= 0 {
		return "", name, false
	}
	return name[:at], name[at+1:], true
}
