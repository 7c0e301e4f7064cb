package restore

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/shape"
)

// entry is what is remembered of one object of the point.
type entry struct {
	res       int // in the manifest
	namespace string
	name      string
	uid       string
	owners    []shape.Owner
	skip      string // why it is not restored; empty when it is
	warn      bool   // whether a person should know that it is not
	depth     int    // in the owner graph of its rank
}

// consumer is a workload of the point that mounts claims.
type consumer struct {
	spec, labels shape.Document
}

// index is what one pass over a recovery point remembers: names, UIDs and
// relations, never whole objects but the pod templates that mount claims.
type index struct {
	kinds   []schema.GroupKind // by resource
	entries [][]*entry         // by resource, in the order of the packs; nil where the kind is left out
	byUID   map[string]*entry
	// defined are the kinds that CRDs of the point define, with the versions
	// they will serve.
	defined  map[schema.GroupKind][]string
	services map[string]bool // namespace/name of Services that select pods
	classes  map[string]int  // claims by storage class, "" for the default
	claims   map[string]string
	// mounts finds the consumer of namespace/claim; templates those of
	// claims that a StatefulSet names, by namespace/template-set-.
	mounts    map[string]consumer
	templates map[string]consumer
	stored    map[schema.GroupKind]map[string]shape.Document // StorageClasses of the point, by name
	total     int64
}

// readIndex reads the whole point once.
func (e *Engine) readIndex(ctx context.Context) (*index, error) {
	n := len(e.m.Resources)
	x := &index{
		kinds: make([]schema.GroupKind, n), entries: make([][]*entry, n), byUID: map[string]*entry{},
		defined: map[schema.GroupKind][]string{}, services: map[string]bool{}, classes: map[string]int{},
		claims: map[string]string{}, mounts: map[string]consumer{}, templates: map[string]consumer{},
		stored: map[schema.GroupKind]map[string]shape.Document{shape.KindClass: {}},
	}
	parts := make([]*partial, n)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i, res := range e.m.Resources {
		x.kinds[i] = schema.GroupKind{Group: res.Group, Kind: res.Kind}
		if e.leftOut(res) != "" {
			continue
		}
		g.Go(func() (err error) {
			parts[i], err = e.readPartial(gctx, i, res)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("read recovery point %s: %w", e.m.ID, err)
	}
	for i, p := range parts {
		if p != nil {
			x.add(i, p)
		}
	}
	x.settle()
	return x, nil
}

// leftOut says why a kind is not restored at all, or nothing.
func (e *Engine) leftOut(res point.Resource) string {
	gr := schema.GroupResource{Group: res.Group, Resource: res.Resource}
	if why, ok := shape.NeverRestored[schema.GroupKind{Group: res.Group, Kind: res.Kind}]; ok {
		return why
	}
	switch {
	case shape.MatchesKind(e.opts.ExcludeKinds, gr):
		return "excluded"
	case res.Group == shape.GroupDavit && !shape.MatchesKind(e.opts.IncludeKinds, gr):
		return "Davit's own: the agent makes it from the vault"
	case len(e.opts.IncludeKinds) > 0 && !shape.MatchesKind(e.opts.IncludeKinds, gr) && res.Group+"/"+res.Kind != "/Namespace":
		return "not included"
	}
	return ""
}

// partial is what one kind adds to the index.
type partial struct {
	entries []*entry
	full    []shape.Document // of the kinds that are inspected, parallel to entries; else nil
}

func (e *Engine) readPartial(ctx context.Context, i int, res point.Resource) (*partial, error) {
	kind := schema.GroupKind{Group: res.Group, Kind: res.Kind}
	p := &partial{}
	err := e.source.ReadResource(ctx, res, func(raw []byte) error {
		var h shape.Head
		if err := json.Unmarshal(raw, &h); err != nil {
			return fmt.Errorf("object %d of %s: %w", len(p.entries), kind, err)
		}
		en := &entry{
			res: i, namespace: h.Metadata.Namespace, name: h.Metadata.Name,
			uid: h.Metadata.UID, owners: h.Metadata.Owners,
		}
		en.skip, en.warn = shape.SkipByHead(kind, h)
		p.entries = append(p.entries, en)
		if !shape.Inspected[kind] {
			return nil
		}
		d, err := shape.Decode(raw)
		if err != nil {
			return fmt.Errorf("object %d of %s: %w", len(p.entries), kind, err)
		}
		if en.skip == "" {
			en.skip, en.warn = shape.SkipByBody(kind, d)
		}
		p.full = append(p.full, shape.KeepOnly(kind, d))
		return nil
	})
	return p, err
}

func (x *index) add(i int, p *partial) {
	x.entries[i] = p.entries
	for j, en := range p.entries {
		if en.uid != "" {
			x.byUID[en.uid] = en
		}
		if j < len(p.full) && p.full[j] != nil {
			x.inspect(x.kinds[i], en, p.full[j])
		}
	}
}

func (x *index) inspect(kind schema.GroupKind, en *entry, d shape.Document) {
	key := en.namespace + "/" + en.name
	switch kind {
	case shape.KindCRD:
		x.define(d)
	case shape.KindClass:
		x.stored[shape.KindClass][en.name] = d
	case shape.KindService:
		if len(shape.Child(d, "spec", "selector")) > 0 {
			x.services[key] = true
		}
	case shape.KindClaim:
		class := shape.Text(d, "spec", "storageClassName")
		x.claims[key] = class
		if en.skip == "" {
			x.classes[class]++
		}
	}
	spec := shape.PodSpecOf(kind, d)
	c := consumer{spec: spec, labels: shape.PodLabelsOf(kind, d)}
	for _, claim := range shape.ClaimsOf(spec) {
		if _, taken := x.mounts[en.namespace+"/"+claim]; !taken || kind != shape.KindPod {
			x.mounts[en.namespace+"/"+claim] = c
		}
	}
	for _, t := range shape.Items(d, "spec", "volumeClaimTemplates") {
		x.templates[en.namespace+"/"+shape.Text(t, "metadata", "name")+"-"+en.name+"-"] = c
	}
}

func (x *index) define(d shape.Document) {
	kind := schema.GroupKind{Group: shape.Text(d, "spec", "group"), Kind: shape.Text(d, "spec", "names", "kind")}
	for _, v := range shape.Items(d, "spec", "versions") {
		if served, _ := v["served"].(bool); served {
			x.defined[kind] = append(x.defined[kind], shape.Text(v, "name"))
		}
	}
}

// consumerOf finds the workload of the point that will mount a claim.
func (x *index) consumerOf(namespace, claim string) consumer {
	if c, ok := x.mounts[namespace+"/"+claim]; ok {
		return c
	}
	if cut := strings.LastIndexByte(claim, '-'); cut >= 0 {
		return x.templates[namespace+"/"+claim[:cut+1]]
	}
	return consumer{}
}

// settle decides what needs the whole index: what controllers make again, and
// how deep each object lies in the owner graph.
func (x *index) settle() {
	for i, entries := range x.entries {
		kind := x.kinds[i]
		for _, en := range entries {
			if en.skip == "" {
				en.skip = x.remade(kind, en)
			}
			if en.skip == "" {
				x.total++
				en.depth = x.depth(en, map[string]bool{})
			} else if kind == shape.KindClaim {
				x.unclaim(en)
			}
		}
	}
}

// remade says who makes the object again, or nothing.
func (x *index) remade(kind schema.GroupKind, en *entry) string {
	if kind == (schema.GroupKind{Kind: "Endpoints"}) && x.services[en.namespace+"/"+en.name] {
		return "made anew by the Service's controller"
	}
	for _, o := range en.owners {
		if kind == shape.KindClaim && o.GroupKind() == shape.KindPod && o.Controller {
			return "an ephemeral volume of pod " + o.Name
		}
		if in := x.byUID[o.UID]; in != nil && o.Controller && shape.MadeByController[kind] {
			return "made anew by " + o.Kind + " " + o.Name
		}
	}
	return ""
}

func (x *index) unclaim(en *entry) {
	if class, ok := x.claims[en.namespace+"/"+en.name]; ok && x.classes[class] > 0 {
		if x.classes[class]--; x.classes[class] == 0 {
			delete(x.classes, class)
		}
	}
}

// depth is how many owners of the same rank stand above the object. A cycle,
// which outside data may hold, ends where it closes.
func (x *index) depth(en *entry, seen map[string]bool) int {
	if len(en.owners) == 0 || en.uid == "" || seen[en.uid] {
		return 0
	}
	seen[en.uid] = true
	deepest := 0
	for _, o := range en.owners {
		above := x.byUID[o.UID]
		if above != nil && above != en && shape.RankOf(x.kinds[above.res]) == shape.RankOf(x.kinds[en.res]) {
			deepest = max(deepest, 1+x.depth(above, seen))
		}
	}
	return deepest
}
