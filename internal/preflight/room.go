package preflight

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"davit.dev/davit/internal/plan"
)

// checkCapacity looks whether what the newest points hold fits beside what runs
// at the target, first in all, then node by node. What operators make besides
// is not in the points and not counted.
func checkCapacity(in *Input) []Finding {
	s := in.Sites[in.To]
	if s == nil {
		return in.unknownSite(in.To)
	}
	if why := s.Unread["nodes"]; why != "" {
		return []Finding{unknown(in.To, "grant the right to list nodes and pods", "its nodes could not be read: %s", why)}
	}
	nodes := s.open()
	var want, free Room
	var pods []Pods
	for _, n := range in.known() {
		for _, p := range n.Pods {
			p.Where = in.placed(p.Where)
			if !s.Labelled {
				p.Where = nil
			}
			fit := int64(len(slices.DeleteFunc(slices.Clone(nodes), func(n Node) bool { return !n.takes(p.Where) })))
			if p.EveryNode {
				p.Count *= fit
			} else if fit == 0 && len(nodes) > 0 { // no room helps: the check of labels says so
				continue
			}
			pods = append(pods, p)
			want = want.plus(p.Each, p.Count)
		}
	}
	for _, n := range nodes {
		free = free.plus(n.Free, 1)
	}
	also := ""
	if c := s.closed(); c != "" {
		also = "; not counted: " + c
	}
	if lack := lacks(want, free); lack != "" {
		return []Finding{fail(in.To, "add nodes, free room, or leave applications out of the plan", "%s%s", lack, also)}
	}
	if left := place(nodes, pods); len(left) > 0 {
		return []Finding{fail(in.To, "free room on one node, or add a larger one", "there is room in all, but on no single node for %s%s", some(left), also)}
	}
	return []Finding{ok(in.To, "needs %s, %s are free%s", want, free, also)}
}

// plus adds n times another room.
func (r Room) plus(o Room, n int64) Room {
	return Room{r.CPU + o.CPU*n, r.Memory + o.Memory*n, r.Pods + max(o.Pods, 1)*n}
}

// String writes it for people.
func (r Room) String() string {
	return fmt.Sprintf("%s CPU, %s and %d pods", cores(r.CPU), Size(r.Memory), r.Pods)
}

// lacks says what is too little, and by how much.
func lacks(want, free Room) string {
	var all []string
	say := func(what string, want, free int64, write func(int64) string) {
		if free = max(free, 0); want > free {
			all = append(all, fmt.Sprintf("%s%s too few: %s needed, %s free", write(want-free), what, write(want), write(free)))
		}
	}
	say(" CPU", want.CPU, free.CPU, cores)
	say(" of memory", want.Memory, free.Memory, Size)
	say(" pods", want.Pods, free.Pods, func(n int64) string { return strconv.FormatInt(n, 10) })
	return strings.Join(all, "; ")
}

// place puts pods on nodes, the largest first, each where there is most room, and
// returns the workloads for whose pods no node is left.
func place(nodes []Node, pods []Pods) []string {
	pods = slices.Clone(pods)
	slices.SortStableFunc(pods, func(a, b Pods) int {
		if c := b.Each.Memory - a.Each.Memory; c != 0 {
			return sign(c)
		}
		return sign(b.Each.CPU - a.Each.CPU)
	})
	free := make([]Room, len(nodes))
	for i, n := range nodes {
		free[i] = n.Free
	}
	var left []string
	for _, p := range pods {
		for range min(p.Count, mostPods) {
			if !placeOne(nodes, free, p) {
				left = append(left, p.Namespace+"/"+p.Workload)
				break
			}
		}
	}
	return left
}

// mostPods bounds how many pods of one workload are placed.
const mostPods = 10_000

func placeOne(nodes []Node, free []Room, p Pods) bool {
	best, pod := -1, p.Each
	for i, f := range free {
		if !nodes[i].takes(p.Where) || pod.CPU > max(f.CPU, 0) || pod.Memory > max(f.Memory, 0) || f.Pods < 1 {
			continue
		}
		if best < 0 || f.Memory > free[best].Memory || f.Memory == free[best].Memory && f.CPU > free[best].CPU {
			best = i
		}
	}
	if best < 0 {
		return false
	}
	free[best] = Room{free[best].CPU - pod.CPU, free[best].Memory - pod.Memory, free[best].Pods - 1}
	return true
}

func sign(n int64) int { return int(min(max(n, -1), 1)) }

func cores(milli int64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", float64(milli)/1000), "0"), ".")
}

// Size writes bytes in binary units.
func Size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, names, i := float64(n)/unit, "KMGTPE", 0
	for value >= 1023.95 && i < len(names)-1 {
		value /= unit
		i++
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", value), ".0") + " " + names[i:i+1] + "iB"
}

// checkQuotas looks whether quotas of the namespaces that the applications come
// into leave room. What is there now may be an older copy of the application,
// which a run replaces: then only the quota itself must be large enough.
func checkQuotas(in *Input) []Finding {
	s := in.Sites[in.To]
	if s == nil {
		return in.unknownSite(in.To)
	}
	if why := s.Unread["quotas"]; why != "" {
		return []Finding{unknown(in.To, "grant the right to list resourcequotas", "its quotas could not be read: %s", why)}
	}
	var all []Finding
	asked := 0
	for _, n := range in.known() {
		for _, q := range s.Quotas {
			want := n.inNamespace(q.Namespace, in.mapped(plan.MapNamespace))
			if want == nil {
				continue
			}
			asked++
			if f, bad := q.judge(want, in.To); bad {
				all = append(all, f.of(n.Application))
			}
		}
	}
	if len(all) == 0 {
		return []Finding{ok(in.To, "%d quotas concern these applications, and all leave room", asked)}
	}
	return all
}

// judge compares what is wanted with what a quota allows.
func (q Quota) judge(want map[string]int64, site string) (Finding, bool) {
	var never, perhaps []string
	for _, what := range quotaKeys(q.Hard) {
		need, hard, used := want[strings.TrimPrefix(what, "requests.")], q.Hard[what], q.Used[what]
		if strings.HasPrefix(what, "limits.") {
			need = want[what]
		}
		switch {
		case need == 0:
		case need > hard:
			never = append(never, fmt.Sprintf("%s by %s", what, amount(what, need-hard)))
		case need+used > hard:
			perhaps = append(perhaps, fmt.Sprintf("%s by %s", what, amount(what, need+used-hard)))
		}
	}
	where := "quota " + q.Namespace + "/" + q.Name
	switch {
	case len(never) > 0:
		return fail(site, "raise the quota at the target", "%s is too small: %s", where, strings.Join(never, ", ")), true
	case len(perhaps) > 0:
		return warn(site, "raise it, unless what is there now is an older copy of the application", "%s is too small beside what is there: %s", where, strings.Join(perhaps, ", ")), true
	}
	return Finding{}, false
}

func quotaKeys(hard map[string]int64) []string {
	var keys []string
	for k := range hard {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func amount(what string, n int64) string {
	switch {
	case strings.HasSuffix(what, "cpu"):
		return cores(n) + " CPU"
	case strings.HasSuffix(what, "memory"), strings.HasSuffix(what, "storage"):
		return Size(n)
	}
	return strconv.FormatInt(n, 10)
}

// inNamespace sums what the application brings into a namespace of the target,
// by the names that quotas use; nil if it brings nothing.
func (n Need) inNamespace(namespace string, mapped func(string) string) map[string]int64 {
	sum := map[string]int64{}
	for _, p := range n.Pods {
		if mapped(p.Namespace) != namespace || p.EveryNode {
			continue
		}
		sum["pods"] += p.Count
		sum["cpu"] += p.Each.CPU * p.Count
		sum["memory"] += p.Each.Memory * p.Count
		sum["limits.cpu"] += p.Limit.CPU * p.Count
		sum["limits.memory"] += p.Limit.Memory * p.Count
	}
	for _, v := range n.Volumes {
		if mapped(v.Namespace) == namespace {
			sum["persistentvolumeclaims"]++
			sum["storage"] += v.Bytes
		}
	}
	if len(sum) == 0 {
		return nil
	}
	return sum
}
