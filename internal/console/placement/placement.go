// Package placement says which sites a project's documents are for, what each
// site is still to be asked for, and how all of it stands.
package placement

import (
	"cmp"
	"context"
	"slices"
	"time"

	"davit.dev/davit/internal/console/document"
	"davit.dev/davit/internal/console/store"
)

// Index are a project's documents by the sites that they are for.
type Index struct {
	Revision int64
	Sites    map[string][]store.Document // by revision
	Of       map[store.Key][]string
	Why      map[store.Key]string // a document is for no site
}

// Read indexes a project's documents.
func Read(ctx context.Context, p *store.Project) (*Index, error) {
	all, revision, err := p.Documents(ctx, "", "")
	if err != nil {
		return nil, err
	}
	return New(all, revision), nil
}

const (
	whyNone   = "it names no site: give it the annotation davit.dev/sites"
	whyPolicy = "no application that names it is for a site, nor has it the annotation davit.dev/sites"
)

// New indexes documents: a plan is for the sites in its spec, an application for
// the one in its annotation, a policy for those in its annotation and those of
// the applications that name it.
func New(all []store.Document, revision int64) *Index {
	x := &Index{Revision: revision, Sites: map[string][]store.Document{}, Of: map[store.Key][]string{}, Why: map[store.Key]string{}}
	for _, d := range all {
		place, err := document.PlaceOf(d.Kind, d.Body)
		if err != nil { // it was kept by an older console, which did not ask
			x.Why[d.Key] = err.Error()
			continue
		}
		x.Of[d.Key] = append(x.Of[d.Key], place.Sites...)
		if place.Policy != "" {
			policy := store.Key{Kind: "ProtectionPolicy", Namespace: d.Namespace, Name: place.Policy}
			x.Of[policy] = append(x.Of[policy], place.Sites...)
		}
	}
	for _, d := range all {
		sites := x.Of[d.Key]
		slices.Sort(sites)
		sites = slices.Compact(sites)
		x.Of[d.Key] = sites
		for _, s := range sites {
			x.Sites[s] = append(x.Sites[s], d)
		}
		if len(sites) == 0 && x.Why[d.Key] == "" {
			x.Why[d.Key] = whyNone
			if d.Kind == "ProtectionPolicy" {
				x.Why[d.Key] = whyPolicy
			}
		}
	}
	for _, docs := range x.Sites {
		slices.SortFunc(docs, func(a, b store.Document) int { return cmp.Compare(a.Revision, b.Revision) })
	}
	return x
}

// Task is one thing that a site is to be asked for.
type Task struct {
	store.Handed
	Body []byte // none when it goes
	// Known is that it was noted already.
	Known bool
}

// Tasks are what a site is to be asked for, in the order of revisions: all it
// has not answered for, or, for an agent that holds nothing yet, all there is.
func (x *Index) Tasks(site string, handed []store.Handed, all bool) []Task {
	was := make(map[store.Key]store.Handed, len(handed))
	for _, h := range handed {
		was[h.Key] = h
	}
	var tasks []Task
	add := func(h store.Handed, body []byte) {
		old, noted := was[h.Key]
		known := noted && old.Asks(h)
		if all || !known || old.State == "" {
			tasks = append(tasks, Task{Handed: h, Body: body, Known: known})
		}
	}
	wanted := map[store.Key]bool{}
	for _, d := range x.Sites[site] {
		wanted[d.Key] = true
		add(store.Handed{Site: site, Key: d.Key, UID: d.UID, Revision: d.Revision, Generation: d.Generation}, d.Body)
	}
	for _, h := range handed {
		if wanted[h.Key] {
			continue
		}
		if !h.Gone {
			h.Gone, h.Revision = true, x.Revision
		}
		add(h, nil)
	}
	slices.SortStableFunc(tasks, func(a, b Task) int { return cmp.Compare(a.Revision, b.Revision) })
	return tasks
}

// States of a document at a site, besides those that agents say.
const (
	Waiting = "waiting"
	Nowhere = "nowhere"
)

// Standing is how a document stands at one site.
type Standing struct {
	Kind       string    `json:"kind"`
	Namespace  string    `json:"namespace,omitempty"`
	Name       string    `json:"name"`
	Site       string    `json:"site,omitempty"`
	Generation int64     `json:"generation,omitempty"`
	Revision   int64     `json:"revision,omitempty"`
	State      string    `json:"state"` // applied, waiting, conflict, refused or nowhere
	Why        string    `json:"why,omitempty"`
	Gone       bool      `json:"gone,omitempty"` // it was deleted, or is for that site no more
	At         time.Time `json:"at,omitzero"`    // when the site said so
}

// Key names the document.
func (s Standing) Key() store.Key {
	return store.Key{Kind: s.Kind, Namespace: s.Namespace, Name: s.Name}
}

// Standings say how all documents stand at all sites. silent says why a site does
// not answer; "" where it does.
func (x *Index) Standings(docs []store.Document, handed []store.Handed, silent func(site string) string) []Standing {
	type at struct {
		store.Key
		site string
	}
	was := make(map[at]store.Handed, len(handed))
	for _, h := range handed {
		was[at{h.Key, h.Site}] = h
	}
	var all []Standing
	for _, d := range docs {
		for _, site := range x.Of[d.Key] {
			h := was[at{d.Key, site}]
			delete(was, at{d.Key, site})
			if !h.Asks(store.Handed{Key: d.Key, UID: d.UID, Revision: d.Revision}) {
				h = store.Handed{}
			}
			h.Site, h.Key, h.Generation, h.Revision = site, d.Key, d.Generation, d.Revision
			all = append(all, standing(h, silent))
		}
		if len(x.Of[d.Key]) == 0 {
			all = append(all, Standing{Kind: d.Kind, Namespace: d.Namespace, Name: d.Name, Generation: d.Generation, Revision: d.Revision, State: Nowhere, Why: x.Why[d.Key]})
		}
	}
	for _, h := range was {
		if !h.Gone {
			h.Gone, h.State, h.Why, h.At = true, "", "", time.Time{}
		}
		all = append(all, standing(h, silent))
	}
	slices.SortFunc(all, func(a, b Standing) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Site, b.Site))
	})
	return all
}

func standing(h store.Handed, silent func(string) string) Standing {
	s := Standing{
		Kind: h.Kind, Namespace: h.Namespace, Name: h.Name, Site: h.Site, Generation: h.Generation, Revision: h.Revision,
		State: h.State, Why: h.Why, Gone: h.Gone, At: h.At.UTC(),
	}
	if h.At.IsZero() {
		s.At = time.Time{}
	}
	if s.State == "" {
		s.State, s.Why = Waiting, "its agent has not answered yet"
		if why := silent(h.Site); why != "" {
			s.Why = why
		}
	}
	return s
}
