package fleet

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	"davit.dev/davit/internal/uplink"
)

// Agent is a site's agent, and what it says of its cluster.
type Agent struct {
	Site      string    `json:"site"`
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since,omitzero"` // since when it is connected
	Seen      time.Time `json:"seen,omitzero"`  // its last word, by the console's clock
	Version   string    `json:"version,omitempty"`
	// Takes is that it takes documents; false while it never came.
	Takes bool `json:"takesDocuments"`
	// Runs says which runs the site lets the console begin: none, drill or all; ""
	// while it never came, or of an agent that cannot.
	Runs string `json:"runs,omitempty"`
	// Restores says likewise what the site lets the console restore: none, clone or all.
	Restores string `json:"restores,omitempty"`
	// Cancels is that it takes restores back.
	Cancels bool `json:"cancelsRestores,omitempty"`
	// Ends is when its certificate ends.
	Ends time.Time `json:"certificateEnds,omitzero"`
	// Objects are in their Order. Nobody changes them.
	Objects []Heard `json:"objects"`
	// Specs are what those of the objects say that the project's console did not make, as
	// JSON. Nobody changes it.
	Specs map[uplink.Key]json.RawMessage `json:"-"`
}

// Heard is what an agent said of an object, and when the console heard it.
type Heard struct {
	uplink.Object
	Heard time.Time `json:"heard"`
}

// Order is that of objects: by kind, namespace and name.
func Order(a, b uplink.Key) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// of are the objects of a kind.
func (a Agent) of(kind string) []Heard {
	from, _ := slices.BinarySearchFunc(a.Objects, kind, func(o Heard, kind string) int { return cmp.Compare(o.Kind, kind) })
	to := from
	for to < len(a.Objects) && a.Objects[to].Kind == kind {
		to++
	}
	return a.Objects[from:to]
}

// With adds what agents say. Where both say something, the vault counts, unless
// what the agent says is newer: a later sign of life, a higher epoch, or, of the
// site that holds the application, a later recovery point. Nobody changes what k
// holds.
func (k Known) With(agents []Agent) Known {
	k.Agents = agents
	if k.Snapshot == nil || len(agents) == 0 {
		return k
	}
	s := *k.Snapshot
	s.Sites, s.Applications = slices.Clone(s.Sites), slices.Clone(s.Applications)
	sites, apps := make(map[string]int, len(s.Sites)), make(map[string]int, len(s.Applications))
	for i := range s.Sites {
		sites[s.Sites[i].Name] = i
	}
	for i := range s.Applications {
		apps[s.Applications[i].Name] = i
	}
	for i := range agents {
		a := &agents[i]
		at, known := sites[a.Site]
		s.site(a, at, known)
		for _, o := range a.of("Application") {
			if at, known := apps[o.VaultName]; known { // else nothing of it could be recovered
				s.application(a, o, &s.Applications[at])
			}
		}
	}
	k.Snapshot = &s
	return k
}

func (s *Snapshot) site(a *Agent, at int, known bool) {
	if !known {
		if a.Seen.IsZero() { // it was let in, and never came
			return
		}
		s.Sites = append(s.Sites, Site{Name: a.Site, Holds: []string{}})
		at = len(s.Sites) - 1
	}
	if a.Seen.After(s.Sites[at].Seen) {
		s.Sites[at].Seen, s.Sites[at].Davit = a.Seen, a.Version
	}
}

func (s *Snapshot) application(of *Agent, o Heard, a *Application) {
	if o.Epoch > a.Epoch && o.Holder != "" {
		a.Site, a.Epoch, a.Since = o.Holder, o.Epoch, time.Time{}
	}
	if of.Site != a.Site {
		return
	}
	a.Git = o.Git
	newest, ok := a.Newest()
	if o.Point == "" || o.Instant.IsZero() || ok && !o.Instant.After(newest.Instant) || !o.Heard.After(s.At) {
		return
	}
	if slices.ContainsFunc(a.Points, func(p Point) bool { return p.ID == o.Point }) {
		return // the vault knows it, and says that it may not be offered
	}
	said := Point{ID: o.Point, Instant: o.Instant, Site: of.Site, Epoch: o.Epoch, Good: true, Kept: true, Because: "its agent says that it is there: the vault has not been read since"}
	a.Points = append([]Point{said}, a.Points...)
}

// Git names what makes an object from git, as the agents of sites say: of each site
// where one does, by the site; empty: people do, at sites or here.
func (k Known) Git(kind, namespace, name string) map[string]string {
	by, key := map[string]string{}, uplink.Key{Kind: kind, Namespace: namespace, Name: name}
	for i := range k.Agents {
		a := &k.Agents[i]
		at, there := slices.BinarySearchFunc(a.Objects, key, func(o Heard, key uplink.Key) int { return Order(o.Key, key) })
		if there && a.Objects[at].Git != "" {
			by[a.Site] = a.Objects[at].Git
		}
	}
	return by
}

// Mirrored is an object that others than the project's console made at a site.
type Mirrored struct {
	Site string
	Heard
	// Spec is what it says; none: it was too large to be told.
	Spec json.RawMessage
}

// Maker is who made it, for people.
func (m Mirrored) Maker() string {
	switch {
	case m.Git != "":
		return m.Git + " from git"
	case m.Console != "":
		return "the console of project " + m.Console
	}
	return "people, by hand"
}

// Mirrored are the objects of a kind, or with "" of all, that others than the project's
// console made, at one site or with "" at all: by kind, namespace, name and site.
func (k Known) Mirrored(kind, site string) (all []Mirrored) {
	for _, a := range k.Agents {
		for _, o := range a.Objects {
			if o.Foreign && (kind == "" || o.Kind == kind) && (site == "" || a.Site == site) {
				all = append(all, Mirrored{Site: a.Site, Heard: o, Spec: a.Specs[o.Key]})
			}
		}
	}
	slices.SortFunc(all, func(a, b Mirrored) int {
		return cmp.Or(Order(a.Key, b.Key), cmp.Compare(a.Site, b.Site))
	})
	return all
}

// Vaults are what a site's agent says of its project's vaults.
func (a Agent) Vaults() (all []Heard) {
	for _, o := range a.of("Vault") {
		if o.Vault != nil {
			all = append(all, o)
		}
	}
	return all
}

// RoundTrip is that of a small write to the vault from a site, as its agent measured it
// last; 0: not known.
func (k Known) RoundTrip(site string) time.Duration {
	i, there := slices.BinarySearchFunc(k.Agents, site, func(a Agent, site string) int { return cmp.Compare(a.Site, site) })
	if !there {
		return 0
	}
	for _, o := range k.Agents[i].of("Vault") {
		if o.Vault != nil && o.Vault.CopyOf == "" {
			return time.Duration(o.Vault.RoundTrip) * time.Microsecond
		}
	}
	return 0
}
