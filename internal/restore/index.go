package restore

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"davit.dev/davit/internal/point"
)

// owner is one owner reference as captured.
type owner struct {
	UID        string `json:"uid"`
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	Controller bool   `json:"controller"`
	Block      bool   `json:"blockOwnerDeletion"`
}

func (o owner) groupKind() schema.GroupKind {
	return schema.FromAPIVersionAndKind(o.APIVersion, o.Kind).GroupKind()
}

// entry is what is remembered of one object of the point.
type entry struct {
	res       int // in the manifest
	namespace string
	name      string
	uid       string
	owners    []owner
	skip      string // why it is not restored; empty when it is
	warn      bool   // whether a person should know that it is not
	depth     int    // in the owner graph of its rank
}

// head is as much of an object as every kind has.
type head struct {
	Metadata struct {
		Name        string            `json:"name"`
		Namespace   string            `json:"namespace"`
		UID         string            `json:"uid"`
		Deletion    string            `json:"deletionTimestamp"`
		Owners      []owner           `json:"ownerReferences"`
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Type string `json:"type"` // of a Secret
}

// consumer is a workload of the point that mounts claims.
type consumer struct {
	spec, labels document
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
	stored    map[schema.GroupKind]map[string]document // StorageClasses of the point, by name
	total     int64
}

// readIndex reads the whole point once.
func (e *Engine) readIndex(ctx context.Context) (*index, error) {
	n := len(e.m.Resources)
	x := &index{
		kinds: make([]schema.GroupKind, n), entries: make([][]*entry, n), byUID: map[string]*entry{},
		defined: map[schema.GroupKind][]string{}, services: map[string]bool{}, classes: map[string]int{},
		claims: map[string]string{}, mounts: map[string]consumer{}, templates: map[string]consumer{},
		stored: map[schema.GroupKind]map[string]document{kindClass: {}},
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
	if why, ok := neverRestored[schema.GroupKind{Group: res.Group, Kind: res.Kind}]; ok {
		return why
	}
	switch {
	case matchesKind(e.opts.ExcludeKinds, gr):
		return "excluded"
	case res.Group == groupDavit && !matchesKind(e.opts.IncludeKinds, gr):
		return "Davit's own: the agent makes it from the vault"
	case len(e.opts.IncludeKinds) > 0 && !matchesKind(e.opts.IncludeKinds, gr) && res.Group+"/"+res.Kind != "/Namespace":
		return "not included"
	}
	return ""
}

// partial is what one kind adds to the index.
type partial struct {
	entries []*entry
	full    []document // of the kinds that are inspected, parallel to entries; else nil
}

// inspected are kinds whose bodies the index looks into.
var inspected = map[schema.GroupKind]bool{
	kindCRD: true, kindService: true, kindClaim: true, kindPod: true, kindJob: true, kindDeployment: true,
	kindStatefulSet: true, kindDaemonSet: true, kindReplicaSet: true, kindCronJob: true, kindClass: true,
	kindController: true,
}

func (e *Engine) readPartial(ctx context.Context, i int, res point.Resource) (*partial, error) {
	kind := schema.GroupKind{Group: res.Group, Kind: res.Kind}
	p := &partial{}
	err := e.source.ReadResource(ctx, res, func(raw []byte) error {
		var h head
		if err := json.Unmarshal(raw, &h); err != nil {
			return fmt.Errorf("object %d of %s: %w", len(p.entries), kind, err)
		}
		en := &entry{
			res: i, namespace: h.Metadata.Namespace, name: h.Metadata.Name,
			uid: h.Metadata.UID, owners: h.Metadata.Owners,
		}
		en.skip, en.warn = skipByHead(kind, h)
		p.entries = append(p.entries, en)
		if !inspected[kind] {
			return nil
		}
		d, err := decode(raw)
		if err != nil {
			return fmt.Errorf("object %d of %s: %w", len(p.entries), kind, err)
		}
		if en.skip == "" {
			en.skip, en.warn = skipByBody(kind, d)
		}
		p.full = append(p.full, keepOnly(kind, d))
		return nil
	})
	return p, err
}

// decode reads an object with whole numbers kept whole.
func decode(raw []byte) (document, error) {
	var d document
	if err := utiljson.Unmarshal(raw, &d); err != nil {
		return nil, fmt.Errorf("decode object: %w", err)
	}
	if child(d, "metadata") == nil {
		return nil, fmt.Errorf("decode object: no metadata in %.80q", raw)
	}
	return d, nil
}

// keepOnly forgets what the index does not need of an inspected object.
func keepOnly(kind schema.GroupKind, d document) document {
	switch kind {
	case kindService, kindClaim, kindCRD, kindClass:
		return d
	}
	spec := podSpecOf(kind, d)
	if len(claimsOf(spec)) == 0 && kind != kindStatefulSet {
		return nil
	}
	return d
}

// skipByHead decides on objects that are not restored whatever they hold.
func skipByHead(kind schema.GroupKind, h head) (why string, warn bool) {
	switch {
	case h.Metadata.Name == "":
		return "has no name", true
	case h.Metadata.Deletion != "":
		return "was being deleted when it was captured", true
	case h.Metadata.Labels[LabelManagedBy] != "":
		return "is a helper of Davit's own", false
	case kind == kindConfigMap && (h.Metadata.Name == "kube-root-ca.crt" || h.Metadata.Name == "openshift-service-ca.crt"):
		return "made by the cluster in every namespace", false
	case kind == kindSecret && h.Type == "kubernetes.io/service-account-token":
		return "tokens are made anew", false
	case h.Metadata.Annotations["kubernetes.io/config.mirror"] != "":
		return "a node's static pod", false
	case kind.Group == groupDiscovery && strings.HasSuffix(h.Metadata.Labels["endpointslice.kubernetes.io/managed-by"], ".k8s.io"):
		return "made anew by the Service's controller", false
	case kind.Group == groupAPIService && h.Metadata.Labels["kube-aggregator.kubernetes.io/automanaged"] != "":
		return "made by the API server", false
	}
	return "", false
}

// skipByBody decides on objects that would do their work a second time.
func skipByBody(kind schema.GroupKind, d document) (why string, warn bool) {
	switch kind {
	case kindPod:
		if phase := text(d, "status", "phase"); phase == "Succeeded" || phase == "Failed" {
			return "the pod had finished", false
		}
	case kindJob:
		for _, c := range items(d, "status", "conditions") {
			if t := text(c, "type"); text(c, "status") == "True" && (t == "Complete" || t == "Failed") {
				return "the Job had finished", false
			}
		}
	}
	return "", false
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

func (x *index) inspect(kind schema.GroupKind, en *entry, d document) {
	key := en.namespace + "/" + en.name
	switch kind {
	case kindCRD:
		x.define(d)
	case kindClass:
		x.stored[kindClass][en.name] = d
	case kindService:
		if len(child(d, "spec", "selector")) > 0 {
			x.services[key] = true
		}
	case kindClaim:
		class := text(d, "spec", "storageClassName")
		x.claims[key] = class
		if en.skip == "" {
			x.classes[class]++
		}
	}
	spec := podSpecOf(kind, d)
	c := consumer{spec: spec, labels: podLabelsOf(kind, d)}
	for _, claim := range claimsOf(spec) {
		if _, taken := x.mounts[en.namespace+"/"+claim]; !taken || kind != kindPod {
			x.mounts[en.namespace+"/"+claim] = c
		}
	}
	for _, t := range items(d, "spec", "volumeClaimTemplates") {
		x.templates[en.namespace+"/"+text(t, "metadata", "name")+"-"+en.name+"-"] = c
	}
}

func (x *index) define(d document) {
	kind := schema.GroupKind{Group: text(d, "spec", "group"), Kind: text(d, "spec", "names", "kind")}
	for _, v := range items(d, "spec", "versions") {
		if served, _ := v["served"].(bool); served {
			x.defined[kind] = append(x.defined[kind], text(v, "name"))
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

// claimsOf returns the claims that pods of this spec mount.
func claimsOf(spec document) []string {
	var names []string
	for _, v := range items(spec, "volumes") {
		if name := text(v, "persistentVolumeClaim", "claimName"); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// madeByController are kinds that their controller makes again, if it is in
// the point as well.
var madeByController = map[schema.GroupKind]bool{
	kindPod: true, kindReplicaSet: true, kindJob: true, kindController: true,
	{Group: groupDiscovery, Kind: "EndpointSlice"}: true, {Kind: "Endpoints"}: true,
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
			} else if kind == kindClaim {
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
		if kind == kindClaim && o.groupKind() == kindPod && o.Controller {
			return "an ephemeral volume of pod " + o.Name
		}
		if in := x.byUID[o.UID]; in != nil && o.Controller && madeByController[kind] {
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
		if above != nil && above != en && rankOf(x.kinds[above.res]) == rankOf(x.kinds[en.res]) {
			deepest = max(deepest, 1+x.depth(above, seen))
		}
	}
	return deepest
}
