// Package index is what one pass over a recovery point remembers: names, UIDs
// and relations of its objects, and who mounts which claim.
package index

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/relation"
	"davit.dev/davit/internal/restore/shape"
)

// Entry is what is remembered of one object of the point.
type Entry struct {
	Res       int // in the manifest
	Namespace string
	Name      string
	UID       string
	Owners    []shape.Owner
	Skip      string // why it is not restored; empty when it is
	Warn      bool   // whether a person should know that it is not
	Depth     int    // in the owner graph of its rank
	Node      int32  // in the order of the restore; see package sequence
}

// Consumer is a workload of the point that mounts claims.
type Consumer struct {
	Spec, Labels shape.Document
}

// Index is what one pass over a recovery point remembers: names, UIDs and
// relations, never whole objects but the pod templates that mount claims.
type Index struct {
	Kinds   []schema.GroupKind // by resource
	Entries [][]*Entry         // by resource, in the order of the packs; nil where the kind is left out
	ByUID   map[string]*Entry
	// Defined are the kinds that CRDs of the point define, with the versions
	// they will serve.
	Defined map[schema.GroupKind][]string
	// DefinedBy is the kind that a CRD defines.
	DefinedBy map[*Entry]schema.GroupKind
	Versions  []string          // as captured, by resource
	sets      map[string]string // names of StatefulSets, by what their claims' names begin with
	services  map[string]bool   // namespace/name of Services that select pods
	Classes   map[string]int    // claims by storage class at the target, "" for the default
	Captured  map[string]bool   // storage classes of claims as captured
	claims    map[string]string
	// mounts finds the consumer of namespace/claim; templates those of
	// claims that a StatefulSet names, by namespace/template-set-.
	mounts    map[string]Consumer
	templates map[string]Consumer
	Stored    map[schema.GroupKind]map[string]shape.Document // StorageClasses of the point, by name
	// NamespaceLabels are the labels of the point's namespaces, by name.
	NamespaceLabels map[string]map[string]string
	// Facts are what single objects need, of those that may need something.
	Facts map[*Entry]*relation.Facts
	Total int64 // objects to restore
	// unwanted are the kinds that a person excluded, of those in the point.
	unwanted map[schema.GroupKind]bool
}

// Reader reads one recovery point.
type Reader struct {
	Source   port.Source
	Manifest *point.Manifest
	// LeftOut says why a kind is not restored at all, or nothing.
	LeftOut func(point.Resource) string
	// Git says why an object is left to git, or nothing; nil leaves none.
	Git func(kind schema.GroupKind, h shape.Head) string
	// Reshape makes of a claim, or of a workload that mounts claims, what it
	// will be at the target, by its resource in the manifest; nil changes nothing.
	Reshape func(resource int, d shape.Document) shape.Document
	// Unfit says why an inspected object cannot be in a copy, or nothing; a person
	// is told. Nil takes all, for it is no copy.
	Unfit func(kind schema.GroupKind, d shape.Document) string
}

// Read reads the whole point once.
func (r Reader) Read(ctx context.Context) (*Index, error) {
	n := len(r.Manifest.Resources)
	x := &Index{
		Kinds: make([]schema.GroupKind, n), Entries: make([][]*Entry, n), ByUID: map[string]*Entry{},
		Defined: map[schema.GroupKind][]string{}, DefinedBy: map[*Entry]schema.GroupKind{}, Versions: make([]string, n), sets: map[string]string{}, services: map[string]bool{}, Classes: map[string]int{}, Captured: map[string]bool{},
		claims: map[string]string{}, mounts: map[string]Consumer{}, templates: map[string]Consumer{},
		Stored:          map[schema.GroupKind]map[string]shape.Document{shape.KindClass: {}},
		NamespaceLabels: map[string]map[string]string{}, Facts: map[*Entry]*relation.Facts{},
		unwanted: map[schema.GroupKind]bool{},
	}
	parts := make([]*partial, n)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i, res := range r.Manifest.Resources {
		x.Kinds[i], x.Versions[i] = schema.GroupKind{Group: res.Group, Kind: res.Kind}, res.Version
		if why := r.LeftOut(res); why != "" {
			x.unwanted[x.Kinds[i]] = why == shape.Excluded
			continue
		}
		g.Go(func() (err error) {
			parts[i], err = r.readPartial(gctx, i, res)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("read recovery point %s: %w", r.Manifest.ID, err)
	}
	for i, p := range parts {
		if p != nil {
			x.add(i, p)
		}
	}
	x.settle()
	return x, nil
}

// partial is what one kind adds to the index.
type partial struct {
	entries []*Entry
	labels  map[string]map[string]string // of namespaces, by name
	full    []shape.Document             // of the kinds that are inspected, parallel to entries; else nil
	classes []string                     // of claims, as captured
	facts   map[*Entry]*relation.Facts
}

func (r Reader) readPartial(ctx context.Context, i int, res point.Resource) (*partial, error) {
	kind := schema.GroupKind{Group: res.Group, Kind: res.Kind}
	p := &partial{labels: map[string]map[string]string{}, facts: map[*Entry]*relation.Facts{}}
	err := r.Source.ReadResource(ctx, res, func(raw []byte) error {
		var h shape.Head
		if err := json.Unmarshal(raw, &h); err != nil {
			return fmt.Errorf("object %d of %s: %w", len(p.entries), kind, err)
		}
		en := &Entry{
			Res: i, Namespace: h.Metadata.Namespace, Name: h.Metadata.Name,
			UID: h.Metadata.UID, Owners: h.Metadata.Owners,
		}
		en.Skip, en.Warn = shape.SkipByHead(kind, h)
		if en.Skip == "" && r.Git != nil {
			en.Skip = r.Git(kind, h)
		}
		if en.Skip == "" && r.Unfit != nil {
			en.Skip = shape.OutsideByHead(h)
			en.Warn = en.Skip != ""
		}
		p.entries = append(p.entries, en)
		if kind == shape.KindNamespace {
			p.labels[en.Name] = h.Metadata.Labels
		}
		if !shape.Inspected[kind] {
			if facts := relation.ReadHead(kind, h); facts != nil {
				p.facts[en] = facts
			}
			return nil
		}
		d, err := shape.Decode(raw)
		if err != nil {
			return fmt.Errorf("object %d of %s: %w", len(p.entries), kind, err)
		}
		if en.Skip == "" {
			en.Skip, en.Warn = shape.SkipByBody(kind, d)
		}
		if en.Skip == "" && r.Unfit != nil {
			en.Skip = r.Unfit(kind, d)
			en.Warn = en.Skip != ""
		}
		p.full = append(p.full, r.look(p, i, kind, en, d))
		return nil
	})
	return p, err
}

// look takes from an inspected object, as it will be at the target, what the
// order of the restore needs, and returns what is kept of it for a while.
func (r Reader) look(p *partial, i int, kind schema.GroupKind, en *Entry, d shape.Document) shape.Document {
	if kind == shape.KindClaim {
		p.classes = append(p.classes, shape.Text(d, "spec", "storageClassName"))
	}
	// What a controller makes anew is not worth the work, unless it mounts claims.
	pods := shape.PodSpecOf(kind, d) != nil && (shape.KeepOnly(kind, d) != nil || !controlled(en))
	if r.Reshape != nil && (kind == shape.KindClaim || pods) {
		d = r.Reshape(i, d)
	}
	if facts := relation.Read(kind, en.Namespace, d); facts != nil {
		p.facts[en] = facts
	}
	return shape.KeepOnly(kind, d)
}

func controlled(en *Entry) bool {
	return slices.ContainsFunc(en.Owners, func(o shape.Owner) bool { return o.Controller })
}

func (x *Index) add(i int, p *partial) {
	x.Entries[i] = p.entries
	for _, class := range p.classes {
		x.Captured[class] = true
	}
	maps.Copy(x.NamespaceLabels, p.labels)
	maps.Copy(x.Facts, p.facts)
	for j, en := range p.entries {
		if en.UID != "" {
			x.ByUID[en.UID] = en
		}
		if j < len(p.full) && p.full[j] != nil {
			x.inspect(x.Kinds[i], en, p.full[j])
		}
	}
}

func (x *Index) inspect(kind schema.GroupKind, en *Entry, d shape.Document) {
	key := en.Namespace + "/" + en.Name
	switch kind {
	case shape.KindCRD:
		x.define(en, d)
	case shape.KindClass:
		x.Stored[shape.KindClass][en.Name] = d
	case shape.KindService:
		if len(shape.Child(d, "spec", "selector")) > 0 {
			x.services[key] = true
		}
	case shape.KindClaim:
		class := shape.Text(d, "spec", "storageClassName")
		if class == "" && shape.Child(d, "spec")["storageClassName"] != nil {
			break // it asks for a volume without a class, not for the default one
		}
		x.claims[key] = class
		if en.Skip == "" {
			x.Classes[class]++
		}
	}
	spec := shape.PodSpecOf(kind, d)
	c := Consumer{Spec: spec, Labels: shape.PodLabelsOf(kind, d)}
	for _, claim := range shape.ClaimsOf(spec) {
		if _, taken := x.mounts[en.Namespace+"/"+claim]; !taken || kind != shape.KindPod {
			x.mounts[en.Namespace+"/"+claim] = c
		}
	}
	for _, t := range shape.Items(d, "spec", "volumeClaimTemplates") {
		begin := en.Namespace + "/" + shape.Text(t, "metadata", "name") + "-" + en.Name + "-"
		x.templates[begin], x.sets[begin] = c, en.Name
	}
}

func (x *Index) define(en *Entry, d shape.Document) {
	kind := schema.GroupKind{Group: shape.Text(d, "spec", "group"), Kind: shape.Text(d, "spec", "names", "kind")}
	x.DefinedBy[en] = kind
	for _, v := range shape.Items(d, "spec", "versions") {
		if served, _ := v["served"].(bool); served {
			x.Defined[kind] = append(x.Defined[kind], shape.Text(v, "name"))
		}
	}
}

// ConsumerOf finds the workload of the point that will mount a claim.
func (x *Index) ConsumerOf(namespace, claim string) Consumer {
	if c, ok := x.mounts[namespace+"/"+claim]; ok {
		return c
	}
	if cut := strings.LastIndexByte(claim, '-'); cut >= 0 {
		return x.templates[namespace+"/"+claim[:cut+1]]
	}
	return Consumer{}
}

// SetOf is the name of the StatefulSet that makes claims of this name, or nothing.
func (x *Index) SetOf(namespace, claim string) string {
	return x.sets[namespace+"/"+claim[:strings.LastIndexByte(claim, '-')+1]]
}

// settle decides what needs the whole index: what controllers make again, and
// how deep each object lies in the owner graph.
func (x *Index) settle() {
	for i, entries := range x.Entries {
		kind := x.Kinds[i]
		for _, en := range entries {
			if en.Skip == "" {
				en.Skip = x.remade(kind, en)
			}
			if en.Skip == "" {
				x.Total++
				en.Depth = x.depth(en, map[string]bool{})
				continue
			}
			delete(x.Facts, en)
			if kind == shape.KindClaim {
				x.unclaim(en)
			}
		}
	}
}

// remade says who makes the object again, or nothing.
func (x *Index) remade(kind schema.GroupKind, en *Entry) string {
	if kind == (schema.GroupKind{Kind: "Endpoints"}) && x.services[en.Namespace+"/"+en.Name] {
		return "made anew by the Service's controller"
	}
	for _, o := range en.Owners {
		if kind == shape.KindClaim && o.GroupKind() == shape.KindPod && o.Controller {
			return "an ephemeral volume of pod " + o.Name
		}
		if !o.Controller || !shape.MadeByController[kind] {
			continue
		}
		if x.ByUID[o.UID] != nil {
			return "made anew by " + o.Kind + " " + o.Name
		}
		if x.unwanted[o.GroupKind()] { // alone, it would be what nobody wanted
			return "made by " + o.Kind + " " + o.Name + ", and that kind is excluded"
		}
	}
	return ""
}

func (x *Index) unclaim(en *Entry) {
	if class, ok := x.claims[en.Namespace+"/"+en.Name]; ok && x.Classes[class] > 0 {
		if x.Classes[class]--; x.Classes[class] == 0 {
			delete(x.Classes, class)
		}
	}
}

// depth is how many owners of the same rank stand above the object. A cycle,
// which outside data may hold, ends where it closes.
func (x *Index) depth(en *Entry, seen map[string]bool) int {
	if len(en.Owners) == 0 || en.UID == "" || seen[en.UID] {
		return 0
	}
	seen[en.UID] = true
	deepest := 0
	for _, o := range en.Owners {
		above := x.ByUID[o.UID]
		if above != nil && above != en && shape.RankOf(x.Kinds[above.Res]) == shape.RankOf(x.Kinds[en.Res]) {
			deepest = max(deepest, 1+x.depth(above, seen))
		}
	}
	return deepest
}
