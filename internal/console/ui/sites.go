package ui

import (
	"net/http"
	"slices"

	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/uplink"
)

// sitePage shows a site: its signs of life, its agent, and what that says is there.
func sitePage(v *visit) error {
	d := struct {
		seen
		Site  fleet.Site
		Agent *fleet.Agent
		Plans []string
		Tasks []fleet.Task
		// Holds are the applications that it may write, and Objects what its agent says is
		// there, as far as the page lists them.
		Holds   []string
		Objects []fleet.Heard
	}{seen: v.look(), Site: fleet.Site{Name: v.r.PathValue("name")}}
	name, found := d.Site.Name, false
	for i := range d.Known.Agents {
		if a := &d.Known.Agents[i]; a.Site == name {
			d.Agent, found = a, true
		}
	}
	if s := d.Known.Snapshot; s != nil {
		if i := slices.IndexFunc(s.Sites, func(site fleet.Site) bool { return site.Name == name }); i >= 0 {
			d.Site, found = s.Sites[i], true
		}
		for _, t := range s.Tasks(d.Now) {
			if t.About == "site" && t.Name == name {
				d.Tasks = append(d.Tasks, t)
			}
		}
		if s.Ahead != nil {
			for _, p := range s.Ahead.Plans {
				if got, err := p.Parse(); err == nil && slices.ContainsFunc(got.Sites, func(s plan.Site) bool { return s.Name == name }) {
					d.Plans = append(d.Plans, p.Name)
				}
			}
		}
	}
	if !found {
		return store.ErrNotFound
	}
	d.Holds = cut(v, "holds", mostRows, d.Site.Holds)
	if d.Agent != nil {
		d.Objects = cut(v, "objects", mostRows, d.Agent.Objects)
	}
	return v.show(http.StatusOK, "site", "Site "+name, d)
}

// reached is a vault as one site reaches it.
type reached struct {
	Site, Name, State, Why string
	uplink.Reach
}

// vaultsPage shows the project's vaults: their address without credentials, and how
// each site reaches them.
func vaultsPage(v *visit) error {
	d := struct {
		seen
		Points        int
		Bytes, Stored int64
		Newest        int64 // key version that any site knows
		Rows          []reached
	}{seen: v.look()}
	if s := d.Known.Snapshot; s != nil {
		for _, a := range s.Applications {
			d.Points += len(a.Points)
			for _, p := range a.Points {
				d.Bytes, d.Stored = d.Bytes+p.Bytes, d.Stored+p.Stored
			}
		}
	}
	for _, a := range d.Known.Agents {
		for _, o := range a.Vaults() {
			d.Rows = append(d.Rows, reached{Site: a.Site, Name: o.Name, State: o.State, Why: o.Why, Reach: *o.Vault})
			d.Newest = max(d.Newest, o.Vault.KeyVersion)
		}
	}
	d.Rows = cut(v, "rows", mostRows, d.Rows)
	return v.show(http.StatusOK, "vaults", "Vaults", d)
}
