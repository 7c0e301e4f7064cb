package preflight

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"davit.dev/davit/internal/plan"
)

// mapped says what something of another site is called at the target.
func (in *Input) mapped(kind plan.MappingKind) func(string) string {
	to := map[string]string{}
	for _, s := range in.Plan.Sites {
		if s.Name != in.To {
			continue
		}
		for _, m := range s.Mappings {
			if m.Kind == kind {
				to[m.From] = m.To
			}
		}
	}
	return func(name string) string { return cmp.Or(to[name], name) }
}

// checkClasses looks whether the target has the storage classes of all
// volumes, by the names that the plan's mappings give them, and room where their drivers tell.
func checkClasses(in *Input) []Finding {
	s := in.Sites[in.To]
	if s == nil {
		return in.unknownSite(in.To)
	}
	if why := s.Unread["storageClasses"]; why != "" {
		return []Finding{unknown(in.To, "grant the right to list storageclasses", "its storage classes could not be read: %s", why)}
	}
	mapped := in.mapped(plan.MapStorageClass)
	sizes, users := map[string]int64{}, map[string][]string{}
	for _, n := range in.known() {
		for _, v := range n.Volumes {
			class := mapped(v.Class)
			sizes[class] += v.Bytes
			users[class] = append(users[class], v.Namespace+"/"+v.Claim)
		}
	}
	var all []Finding
	var names []string
	for class := range users {
		names = append(names, class)
	}
	slices.Sort(names)
	for _, class := range names {
		if f, bad := s.judgeClass(class, sizes[class], users[class]); bad {
			all = append(all, f)
		}
	}
	all = append(all, in.danglingClasses(s)...)
	if len(all) == 0 {
		return []Finding{ok(in.To, "has all %d storage classes of the points", len(names))}
	}
	return all
}

func (s *Site) judgeClass(class string, size int64, users []string) (Finding, bool) {
	i := slices.IndexFunc(s.Classes, func(c Class) bool { return c.Name == class || class == "" && c.Default })
	switch {
	case i < 0 && class == "":
		return fail(s.Name, "make one of its storage classes the default", "there is no default storage class for %s", some(users)), true
	case i < 0:
		return fail(s.Name, "make the class there, map it in the plan, or write an overlay of the site (docs/restore.md)", "there is no storage class %s, which %s need", class, some(users)), true
	case s.Classes[i].Room >= 0 && size > s.Classes[i].Room:
		room := s.Classes[i].Room
		return fail(s.Name, "add storage", "%s too little of storage class %s: %s needed, %s free", Size(size-room), s.Classes[i].Name, Size(size), Size(room)), true
	}
	return Finding{}, false
}

// danglingClasses finds mappings to classes that are not there.
func (in *Input) danglingClasses(s *Site) []Finding {
	var all []Finding
	for _, site := range in.Plan.Sites {
		for _, m := range site.Mappings {
			if site.Name == in.To && m.Kind == plan.MapStorageClass && !slices.ContainsFunc(s.Classes, func(c Class) bool { return c.Name == m.To }) {
				all = append(all, fail(in.To, "name a class that is there", "the plan maps storage class %s to %s, which is not there", m.From, m.To))
			}
		}
	}
	return all
}

// checkKinds looks whether the target serves every kind of the points in the
// version that its objects are written in, unless the point brings the definition along.
func checkKinds(in *Input) []Finding {
	s := in.Sites[in.To]
	if s == nil {
		return in.unknownSite(in.To)
	}
	if why := s.Unread["apis"]; why != "" {
		return []Finding{unknown(in.To, "see kubectl get apiservices there", "what it serves could not be read: %s", why)}
	}
	var all []Finding
	count := 0
	for _, n := range in.known() {
		for _, k := range n.Kinds {
			count++
			versions, served := s.APIs[k.Resource]
			switch {
			case slices.Contains(versions, k.Version) || k.Defined:
			case served:
				all = append(all, fail(in.To, "install a version that serves "+k.Version, "serves %s as %s, and the point has it as %s (%d objects)", k.Resource, strings.Join(versions, ", "), k.Version, k.Count).of(n.Application))
			default:
				all = append(all, fail(in.To, "install its definition there", "does not serve %s, and the point does not bring its definition (%d objects)", k.Resource, k.Count).of(n.Application))
			}
		}
	}
	if len(all) == 0 {
		all = append(all, ok(in.To, "serves all %d kinds of the points", count))
	}
	return append(all, in.olderCluster(s)...)
}

// olderCluster warns of a target that is older than the source.
func (in *Input) olderCluster(target *Site) []Finding {
	source := in.Sites[in.From]
	if source == nil || minor(target.Kubernetes) < 0 || minor(target.Kubernetes) >= minor(source.Kubernetes) {
		return nil
	}
	return []Finding{warn(in.To, "upgrade the target first, and the source after it", "Kubernetes %s is older than the source's %s: fields may be dropped", target.Kubernetes, source.Kubernetes)}
}

// minor is the minor version of "v1.34.1"; -1 if it is none.
func minor(version string) int {
	var major, n int
	if _, err := fmt.Sscanf(version, "v%d.%d", &major, &n); err != nil {
		return -1
	}
	return major*1000 + n
}

// checkImages looks whether the target can have every image of the points.
func checkImages(in *Input) []Finding {
	s := in.Sites[in.To]
	if s == nil {
		return in.unknownSite(in.To)
	}
	var all []Finding
	count := 0
	for _, n := range in.known() {
		for _, i := range n.Images {
			count++
			if f, bad := in.judgeImage(s, in.there(i)); bad {
				all = append(all, f.of(n.Application))
			}
		}
	}
	if len(all) == 0 {
		return []Finding{ok(in.To, "can have all %d images of the points", count)}
	}
	return all
}

// there is an image as the plan's mappings have the target call it: by the longest prefix,
// of whole parts of its path.
func (in *Input) there(i Image) Image {
	full, best := fullName(i.Reference), plan.Mapping{}
	for _, s := range in.Plan.Sites {
		for _, m := range s.Mappings {
			from := strings.TrimSuffix(m.From, "/")
			rest, under := strings.CutPrefix(full, from)
			if s.Name == in.To && m.Kind == plan.MapImage && under && rest != "" && strings.ContainsRune("/:@", rune(rest[0])) && len(from) > len(best.From) {
				best = plan.Mapping{From: from, To: strings.TrimSuffix(m.To, "/")}
			}
		}
	}
	if best.From == "" {
		return i
	}
	return Image{Reference: best.To + strings.TrimPrefix(full, best.From), Digest: i.Digest}
}

func (in *Input) judgeImage(s *Site, i Image) (Finding, bool) {
	nodes, have, answer := len(s.open()), s.has(i), in.Registries[i.Key()]
	const remedy = "copy it with davit images mirror, or load it onto the nodes"
	switch {
	case nodes > 0 && have >= nodes:
		return Finding{}, false
	case in.Plan.Pull && answer.Present:
		return warn(s.Name, "davit images pull --plan "+in.Plan.Name+" there says why; its agent tries again within an hour",
			"%d of %d nodes are known to have %s, which the plan has them pull ahead of time", have, nodes, i.Reference), true
	case answer.Present:
		return Finding{}, false
	case answer.Absent && have == 0:
		return fail(s.Name, remedy, "no node has %s, and no registry: %s", i.Reference, answer.Why), true
	case answer.Absent:
		return warn(s.Name, remedy, "%d of %d nodes have %s, and no registry: %s", have, nodes, i.Reference, answer.Why), true
	}
	why := cmp.Or(answer.Why, "nobody asked its registry")
	return unknown(s.Name, remedy+"; or see why the registry does not answer", "%d of %d nodes have %s, and its registry is not known to: %s", have, nodes, i.Reference, why), true
}

// Wanting are the images that not every node of the target has, so that their
// registries matter.
func (in *Input) Wanting() []Image {
	all := StepImages(in.Plan)
	for _, n := range in.known() {
		for _, i := range n.Images {
			all = append(all, in.there(i))
		}
	}
	s := in.Sites[in.To]
	if s == nil {
		return all
	}
	nodes := len(s.open())
	return slices.DeleteFunc(all, func(i Image) bool { return nodes > 0 && s.has(i) >= nodes })
}

// StepImages are the images of the plan's own commands.
func StepImages(p *plan.Plan) []Image {
	var all []Image
	add := func(reference string) {
		if i := (Image{Reference: reference}); reference != "" && !slices.Contains(all, i) {
			all = append(all, i)
		}
	}
	for _, s := range p.Steps {
		for _, c := range []*plan.Command{s.Command, s.Undo} {
			if c != nil {
				add(c.Image)
			}
		}
		if s.Terraform != nil {
			add(s.Terraform.Image)
		}
	}
	return all
}

// checkStepImages looks at the images of the plan's own commands.
func checkStepImages(in *Input) []Finding {
	list := StepImages(in.Plan)
	if len(list) == 0 {
		return []Finding{ok("", "the plan runs no commands of its own")}
	}
	s := in.Sites[in.To]
	if s == nil {
		return in.unknownSite(in.To)
	}
	var all []Finding
	for _, i := range list {
		if f, bad := in.judgeImage(s, i); bad {
			all = append(all, f)
		}
	}
	if len(all) == 0 {
		return []Finding{ok(in.To, "can have all %d images of the plan's commands", len(list))}
	}
	return all
}

// secrets looks for those that the plan names.
func (in *Input) secrets() []Finding {
	s := in.Sites[in.To]
	if s == nil {
		return in.unknownSite(in.To)
	}
	if why := s.Unread["secrets"]; why != "" {
		return []Finding{unknown(in.To, "grant the right to list secrets in davit-system", "the plan's Secrets could not be looked for: %s", why)}
	}
	first := ""
	if in.Coming {
		first = "before Davit is there: kubectl create namespace davit-system, unless it exists, and "
	}
	var all []Finding
	for _, name := range Secrets(in.Plan) {
		if !slices.Contains(s.Secrets, name) {
			all = append(all, fail(in.To, first+"kubectl -n davit-system create secret generic "+name+" ... at the target", "the plan names Secret %s, which is not in davit-system there", name))
		}
	}
	return all
}

// Secrets are those of davit-system that the plan names.
func Secrets(p *plan.Plan) []string {
	var all []string
	for _, s := range p.Steps {
		for _, c := range []*plan.Command{s.Command, s.Undo} {
			if c != nil {
				all = append(all, c.Secrets...)
			}
		}
		all = append(all, s.Call.Secrets()...)
		if s.Record != nil {
			all = append(all, s.Record.Secret)
		}
		if t := s.Terraform; t != nil {
			all = append(append(all, t.Secret), t.Secrets...)
		}
		if s.ClusterAPI != nil {
			all = append(all, s.ClusterAPI.Kubeconfig)
		}
	}
	for _, t := range p.Traffic {
		if t.Record != nil {
			all = append(all, t.Record.Secret)
		}
	}
	all = slices.DeleteFunc(all, func(s string) bool { return s == "" })
	slices.Sort(all)
	return slices.Compact(all)
}
