package ui

import (
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/placement"
	"davit.dev/davit/internal/console/store"
)

// seen is what pages about a fleet have.
type seen struct {
	Known fleet.Known
	Now   time.Time
	Live  bool
}

func (v *visit) look() seen {
	s := seen{Known: v.Fleet(v.project), Now: v.Door.Now(), Live: v.r.FormValue("live") == "1"}
	v.page.Refresh = s.Live
	return s
}

type projectItem struct {
	Name, Role              string
	Applications, Protected int
	Tasks                   int
	Silent                  bool
}

func projectsPage(v *visit) error {
	all, faults, err := v.Door.Projects(v.ctx(), v.who)
	if err != nil {
		return err
	}
	var items []projectItem
	for _, p := range all {
		role, err := v.Door.Role(v.ctx(), v.who, p)
		if err != nil {
			return err
		}
		item := projectItem{Name: p.Name, Role: string(role)}
		known := v.Fleet(p)
		item.Silent = known.Silent()
		if s := known.Snapshot; s != nil {
			now := v.Door.Now()
			item.Applications, item.Protected, item.Tasks = len(s.Applications), s.Count(now)[fleet.Protected], len(s.Tasks(now))
		}
		items = append(items, item)
	}
	return v.show(http.StatusOK, "projects", "Projects", struct {
		Items  []projectItem
		Faults map[string]error
	}{items, faults})
}

type fleetData struct {
	seen
	Verdict, Tone string
	Tasks         []fleet.Task
	Running       []fleet.Run
	Applications  []fleet.Application
	States        []fleet.State
	Query, State  string
}

func fleetPage(v *visit) error {
	d := fleetData{seen: v.look(), Query: strings.TrimSpace(v.r.FormValue("q")), State: v.r.FormValue("state"), States: fleet.States()}
	if s := d.Known.Snapshot; s != nil {
		d.Verdict, d.Tone = verdict(s, d.Now)
		d.Tasks = s.Tasks(d.Now)
		for _, r := range s.Runs {
			if !r.Over {
				d.Running = append(d.Running, r)
			}
		}
		for _, a := range s.Worst(d.Now) {
			if strings.Contains(a.Name+" "+a.Site, d.Query) && (d.State == "" || d.State == string(a.State(d.Now))) {
				d.Applications = append(d.Applications, a)
			}
		}
	}
	return v.show(http.StatusOK, "fleet", v.project.Name, d)
}

// verdict answers the first question: is everything protected?
func verdict(s *fleet.Snapshot, now time.Time) (text, tone string) {
	n, all := s.Count(now), len(s.Applications)
	switch {
	case all == 0:
		return "Nothing is protected yet.", "warn"
	case n[fleet.Unknown]+n[fleet.Unprotected] > 0:
		return fmt.Sprintf("%d of %d applications are protected. %d could not be recovered as far as is known.", n[fleet.Protected], all, n[fleet.Unknown]+n[fleet.Unprotected]), "bad"
	case n[fleet.Protected] < all:
		return fmt.Sprintf("%d of %d applications are protected.", n[fleet.Protected], all), "warn"
	}
	return fmt.Sprintf("All %d applications are protected.", all), "good"
}

func applicationPage(v *visit) error {
	d := struct {
		seen
		App    fleet.Application
		State  fleet.State
		Newest *fleet.Point
		Tasks  []fleet.Task
		Line   template.HTML
	}{seen: v.look()}
	name := v.r.PathValue("name")
	if d.Known.Snapshot == nil {
		return store.ErrNotFound
	}
	a, ok := d.Known.Snapshot.Application(name)
	if !ok {
		return store.ErrNotFound
	}
	d.App, d.State, d.Line = *a, a.State(d.Now), pointLine(a.Points, d.Now)
	if p, ok := a.Newest(); ok {
		d.Newest = &p
	}
	for _, t := range d.Known.Snapshot.Tasks(d.Now) {
		if t.About == "application" && t.Name == name {
			d.Tasks = append(d.Tasks, t)
		}
	}
	return v.show(http.StatusOK, "application", name, d)
}

func runsPage(v *visit) error { return v.show(http.StatusOK, "runs", "Runs", v.look()) }

func runPage(v *visit) error {
	d := struct {
		seen
		Run  fleet.Run
		Line template.HTML
	}{seen: v.look()}
	if d.Known.Snapshot == nil {
		return store.ErrNotFound
	}
	r, ok := d.Known.Snapshot.Run(v.r.PathValue("name"))
	if !ok {
		return store.ErrNotFound
	}
	d.Run, d.Line = *r, stepLine(r, d.Now)
	return v.show(http.StatusOK, "run", r.Run, d)
}

// documentItem is a document, and how it stands at the sites that it is for.
type documentItem struct {
	store.Document
	Sites []placement.Standing
}

func documentsPage(v *visit) error {
	all, _, err := v.project.Documents(v.ctx(), "", "")
	if err != nil {
		return err
	}
	stand, err := v.Placements(v.ctx(), v.project)
	if err != nil {
		return err
	}
	items := make([]documentItem, 0, len(all))
	for _, d := range all {
		items = append(items, documentItem{Document: d})
	}
	var going []placement.Standing
	for _, s := range stand {
		i := slices.IndexFunc(items, func(d documentItem) bool { return d.Key == s.Key() })
		if s.Gone || i < 0 {
			going = append(going, s)
			continue
		}
		items[i].Sites = append(items[i].Sites, s)
	}
	return v.show(http.StatusOK, "documents", "Documents", struct {
		Items []documentItem
		Going []placement.Standing
	}{items, going})
}

// auditPages is how many records a page of the audit log has.
const auditPages = 100

func auditPage(v *visit) error { return v.audit(v.project) }

func consoleAuditPage(v *visit) error {
	if err := v.administers(); err != nil {
		return err
	}
	return v.audit(v.Door.Console)
}

func (v *visit) audit(of store.Audited) error {
	before, err := strconv.ParseInt(v.r.FormValue("before"), 10, 64)
	if err != nil {
		before = 0
	}
	items, err := of.Audit(v.ctx(), before, auditPages)
	if err != nil {
		return err
	}
	tail, broken := of.VerifyAudit(v.ctx())
	d := struct {
		Items  any
		Length int64
		Hash   string
		Broken error
		Before int64
	}{Items: items, Length: tail.Sequence, Hash: tail.Hash, Broken: broken}
	if len(items) == auditPages {
		d.Before = items[len(items)-1].Sequence
	}
	return v.show(http.StatusOK, "audit", "Audit log", d)
}

// sortedScopes are the scopes that a robot may be given.
func sortedScopes[T ~string](all []T, not T) []T {
	return slices.DeleteFunc(slices.Clone(all), func(one T) bool { return one == not })
}
