package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/console/document"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/placement"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/uplink"
)

// Annotations of what a site has that the console did not make.
const (
	AnnotationAt     = "davit.dev/at-site"
	AnnotationMadeBy = "davit.dev/made-by"
)

var siteQuery = parameter{"site", "instead, what people or git made at this site, or with * at all of them, as its agent says"}

// mirrored are such objects of a kind, in a namespace or with "" in all.
func (c *call) mirrored(k *document.Kind, namespace, site string) (all []fleet.Mirrored) {
	if site == "*" {
		site = ""
	}
	for _, m := range c.Fleet(c.project).Mirrored(k.Name, site) {
		if namespace == "" || m.Namespace == namespace {
			all = append(all, m)
		}
	}
	return all
}

func mirror(m fleet.Mirrored) Object {
	o := Object{APIVersion: v1alpha1.GroupVersion.String(), Kind: m.Kind, Spec: m.Spec}
	o.Metadata.Name, o.Metadata.Namespace = m.Name, m.Namespace
	o.Metadata.Annotations = map[string]string{AnnotationAt: m.Site, AnnotationMadeBy: m.Maker()}
	if len(o.Spec) == 0 {
		o.Spec = json.RawMessage("{}")
		o.Metadata.Annotations[AnnotationMadeBy] += "; what it says was too large to be told"
	}
	return o
}

// atSites is the one of a name. Where sites say different things, one has to be named.
func (c *call) atSites(k *document.Kind, key store.Key, site string) (Object, error) {
	var found []fleet.Mirrored
	for _, m := range c.mirrored(k, key.Namespace, site) {
		if m.Name == key.Name {
			found = append(found, m)
		}
	}
	if len(found) == 0 {
		return Object{}, fmt.Errorf("%s: %w", key, store.ErrNotFound)
	}
	o, sites, differ := mirror(found[0]), []string{found[0].Site}, false
	for _, m := range found[1:] {
		sites = append(sites, m.Site)
		differ = differ || !bytes.Equal(m.Spec, found[0].Spec)
	}
	if differ {
		return Object{}, fmt.Errorf("%w: sites %s have different ones of %s: name one of them (--site, or ?site=)", store.ErrConflict, strings.Join(sites, ", "), key)
	}
	o.Metadata.Annotations[AnnotationAt] = strings.Join(sites, ",")
	return o, nil
}

// taken refuses to bring a document to a site where others than the console make the object: it
// would not be obeyed there. One that is for the site already is changed: the other sites need it.
func (c *call) taken(k *document.Kind, key store.Key, body json.RawMessage) error {
	there := c.Agents.Foreign(c.project, uplink.Key(key))
	if len(there) == 0 {
		return nil
	}
	docs, at, err := c.project.Documents(c.ctx(), "", "")
	if err != nil {
		return err
	}
	var was []string
	if i := slices.IndexFunc(docs, func(d store.Document) bool { return d.Key == key }); i >= 0 {
		was, docs[i].Body = placement.New(docs, at).Of[key], body
	} else {
		docs = append(docs, store.Document{Key: key, Body: body})
	}
	sites := placement.New(docs, at).Of[key]
	for _, m := range there {
		if !slices.Contains(sites, m.Site) || slices.Contains(was, m.Site) {
			continue
		}
		err := fmt.Errorf("%w: at site %s %s is made by %s", store.ErrConflict, m.Site, key, m.Maker())
		switch {
		case m.Git != "":
			return fmt.Errorf("%w: change it there, or have the document be for other sites", err)
		case m.Console != "":
			return fmt.Errorf("%w: take another name", err)
		}
		in := ""
		if key.Namespace != "" {
			in = " -n " + key.Namespace
		}
		return fmt.Errorf("%w: change it there, or hand it over to the console: kubectl label %s%s %s %s=%s", err, strings.ToLower(k.Name), in, key.Name, v1alpha1.LabelConsole, uplink.ProjectLabel(c.project.Name))
	}
	return nil
}
