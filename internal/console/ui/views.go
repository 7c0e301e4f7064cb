package ui

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/ahead"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/placement"
	"davit.dev/davit/internal/console/restoration"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/console/ui/drawing"
	"davit.dev/davit/internal/vault"
)

// seen is what pages about a fleet have.
type seen struct {
	Known fleet.Known
	Now   time.Time
	Live  bool
	Turn  string // where it is the other way round with refreshing
}

func (v *visit) look() seen {
	s := seen{Known: v.Fleet(v.project), Now: v.Door.Now(), Live: v.r.FormValue("live") == "1"}
	s.Turn = v.again("live", map[bool]string{true: "0", false: "1"}[s.Live])
	v.page.Refresh = s.Live
	v.page.Live = "/p/" + v.project.Name + "/live"
	return s
}

type projectItem struct {
	Name, Role              string
	Applications, Protected int
	Tasks                   int
	Silent                  bool
	Old                     string // why what is known may be old though the vault answers
}

// task is one of a project.
type task struct {
	fleet.Task
	Project string
	// Where names the project where there are several.
	Where string
}

type projectRun struct {
	fleet.Run
	Project string
}

type startData struct {
	Items         []projectItem
	Faults        map[string]error
	Verdict, Tone string
	Silent        []string
	Tasks         []task
	More          int
	Running       []projectRun
	Now           time.Time
}

// projectsPage is the first page: is everything protected, what is not, what is
// running, what to do now, over all projects that one may see.
func projectsPage(v *visit) error {
	all, faults, err := v.Door.Projects(v.ctx(), v.who)
	if err != nil {
		return err
	}
	d := startData{Faults: faults, Now: v.Door.Now()}
	var sum fleet.Snapshot
	for _, p := range all {
		role, err := v.Door.Role(v.ctx(), v.who, p)
		if err != nil {
			return err
		}
		item := projectItem{Name: p.Name, Role: string(role)}
		known := v.Fleet(p)
		if item.Silent = known.Silent(); item.Silent {
			d.Silent = append(d.Silent, p.Name)
		}
		item.Old = known.Old()
		if s := known.Snapshot; s != nil {
			tasks := s.Tasks(d.Now)
			item.Applications, item.Protected, item.Tasks = len(s.Applications), s.Count(d.Now)[fleet.Protected], len(tasks)
			sum.Applications = append(sum.Applications, s.Applications...)
			d.add(p.Name, tasks, s.Runs, len(all) > 1)
		}
		d.Items = append(d.Items, item)
	}
	d.Verdict, d.Tone = verdict(&sum, d.Now)
	if len(d.Silent) > 0 {
		d.Tone = "bad"
	}
	d.urgent()
	d.Items, d.Running = cut(v, "projects", mostRows, d.Items), cut(v, "running", mostTasks, d.Running)
	return v.show(http.StatusOK, "projects", "Projects", d)
}

// urgent has the most urgent of all projects come first, as many as are shown.
func (d *startData) urgent() {
	slices.SortStableFunc(d.Tasks, func(a, b task) int { return fleet.Urgency(a.Task, b.Task) })
	if d.More = max(0, len(d.Tasks)-mostTasks); d.More > 0 {
		d.Tasks = d.Tasks[:mostTasks]
	}
}

func (d *startData) add(project string, tasks []fleet.Task, runs []fleet.Run, several bool) {
	for _, t := range tasks {
		one := task{Task: t, Project: project}
		if several {
			one.Where = project + ": "
		}
		d.Tasks = append(d.Tasks, one)
	}
	for _, r := range runs {
		if !r.Over {
			d.Running = append(d.Running, projectRun{r, project})
		}
	}
}

type fleetData struct {
	seen
	Verdict, Tone string
	Tasks         []task
	Running       []fleet.Run
	Applications  []fleet.Application
	States        []fleet.State
	Query, State  string
	Sort          string
	Down          bool
	Map           template.HTML
	Sites         []fleet.Site
	Agents        []fleet.Agent
}

// mostHeld is how many applications are named of those that a site holds.
const mostHeld = 8

// Held are the first of those, and Unnamed how many others there are.
func (d fleetData) Held(s fleet.Site) []string { return s.Holds[:min(len(s.Holds), mostHeld)] }

// Unnamed is how many of those that a site holds Held leaves out.
func (d fleetData) Unnamed(s fleet.Site) int { return max(0, len(s.Holds)-mostHeld) }

// Column is a column of the table of applications, and what sorts by it.
type Column struct{ Key, Name string }

// Columns are those of the table of applications.
func (d fleetData) Columns() []Column {
	return []Column{
		{"name", "Application"}, {"state", "State"}, {"lost", "Lost if its site is lost now"}, {"verified", "Verified"}, {"level", "Level"}, {"drill", "Last drill"}, {"site", "Site"}, {"", "Plan"},
	}
}

// Order is how the table is sorted, as links say it.
func (d fleetData) Order() string {
	if d.Down {
		return "-" + d.Sort
	}
	return d.Sort
}

// Link sorts by a column; where that is so already, the other way round.
func (d fleetData) Link(key string) string {
	if key == d.Sort && !d.Down {
		key = "-" + key
	}
	return "?" + url.Values{"sort": {key}, "q": {d.Query}, "state": {d.State}}.Encode()
}

// Level is the least level of readiness of an application; empty: not known.
func (d fleetData) Level(app string) string { return d.ahead().Level(app) }

// LastDrill is the newest drill of an application that says something; without one it has
// no time.
func (d fleetData) LastDrill(app string) (last ahead.Drill) {
	if d.Known.Snapshot != nil {
		last, _ = d.Known.Snapshot.LastDrill(app)
	}
	return last
}

// Aged tells whether what is known of an application is notably older than the rest.
func (d fleetData) Aged(a fleet.Application) bool {
	return a.Unread || a.Stale != "" || !a.Read.IsZero() && d.Known.Snapshot.At.Sub(a.Read) > 2*time.Minute
}

// PlansOf are the plans that an application moves by.
func (d fleetData) PlansOf(app string) []string { return d.ahead().Of(app) }

func fleetPage(v *visit) error {
	d := fleetData{seen: v.look(), Query: strings.TrimSpace(v.r.FormValue("q")), State: v.r.FormValue("state"), States: fleet.States()}
	d.Sort, d.Down = strings.CutPrefix(v.r.FormValue("sort"), "-")
	if s := d.Known.Snapshot; s != nil {
		d.Verdict, d.Tone = verdict(s, d.Now)
		d.Map = drawing.Sites(d.Known, d.Now)
		for _, t := range s.Tasks(d.Now) {
			d.Tasks = append(d.Tasks, task{Task: t, Project: v.project.Name})
		}
		for _, r := range s.Runs {
			if !r.Over {
				d.Running = append(d.Running, r)
			}
		}
		for _, a := range s.Worst(d.Now) {
			if finds(d.Query, a.Name, a.Site) && (d.State == "" || d.State == string(a.State(d.Now))) {
				d.Applications = append(d.Applications, a)
			}
		}
		d.sort()
		d.Sites = cut(v, "sites", mostCards, s.Sites)
	}
	d.Tasks, d.Running = cut(v, "tasks", mostTasks, d.Tasks), cut(v, "running", mostTasks, d.Running)
	d.Applications, d.Agents = cut(v, "applications", mostRows, d.Applications), cut(v, "agents", mostRows, d.Known.Agents)
	return v.show(http.StatusOK, "fleet", v.project.Name, d)
}

// sort sorts the applications, which come the worst first.
func (d *fleetData) sort() {
	drills, ranks := map[string]time.Time{}, map[string]string{} // looked up once each
	for _, a := range d.Applications {
		switch d.Sort {
		case "drill":
			drills[a.Name] = d.LastDrill(a.Name).At
		case "level":
			ranks[a.Name] = d.rank(a)
		}
	}
	by, known := map[string]func(a, b fleet.Application) int{
		"name":     func(a, b fleet.Application) int { return strings.Compare(a.Name, b.Name) },
		"state":    func(a, b fleet.Application) int { return 0 },
		"lost":     func(a, b fleet.Application) int { return cmp.Compare(d.lost(a), d.lost(b)) },
		"verified": func(a, b fleet.Application) int { return b.Proven().Compare(a.Proven()) },
		"level":    func(a, b fleet.Application) int { return strings.Compare(ranks[a.Name], ranks[b.Name]) },
		"drill":    func(a, b fleet.Application) int { return drills[a.Name].Compare(drills[b.Name]) },
		"site":     func(a, b fleet.Application) int { return strings.Compare(a.Site, b.Site) },
	}[d.Sort]
	if !known {
		d.Sort, d.Down = "", false
		return
	}
	slices.SortStableFunc(d.Applications, by)
	if d.Down {
		slices.Reverse(d.Applications)
	}
}

func (d *fleetData) lost(a fleet.Application) time.Duration {
	lost, known := a.Lost(d.Now)
	if !known {
		return math.MaxInt64
	}
	return lost
}

// rank sorts levels: none comes first.
func (d *fleetData) rank(a fleet.Application) string {
	return strings.TrimPrefix(d.Level(a.Name), "none")
}

// verdict answers the first question: is everything protected?
func verdict(s *fleet.Snapshot, now time.Time) (text, tone string) {
	n, all, unread := s.Count(now), len(s.Applications), 0
	for _, a := range s.Applications {
		if a.Unread {
			unread++
		}
	}
	lost := n[fleet.Unknown] + n[fleet.Unprotected] - unread
	switch {
	case all == 0:
		return "Nothing is protected yet.", "warn"
	case lost > 0:
		return fmt.Sprintf("%d of %d applications are protected. %d could not be recovered as far as is known.", n[fleet.Protected], all, lost) + notRead(unread), "bad"
	case unread > 0:
		return fmt.Sprintf("%d of %d applications are protected.", n[fleet.Protected], all) + notRead(unread), "warn"
	case n[fleet.Protected] < all:
		return fmt.Sprintf("%d of %d applications are protected.", n[fleet.Protected], all), "warn"
	}
	return fmt.Sprintf("All %d applications are protected.", all), "good"
}

func notRead(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" %d have not been read yet.", n)
}

// mostRestores is how many of those that were asked for a page shows.
const mostRestores = 8

func applicationPage(v *visit) error {
	d := struct {
		seen
		App    fleet.Application
		State  fleet.State
		Points []fleet.Point // those of App that the page lists
		Newest *fleet.Point
		Tasks  []fleet.Task
		Line   template.HTML
		Plans  []string
		// MayRestore says that whoever looks may restore, and Restores what was asked for.
		MayRestore bool
		Restores   []restoration.Shown
	}{seen: v.look(), MayRestore: v.page.May[string(restoration.Need)]}
	name := v.r.PathValue("name")
	if d.Known.Snapshot == nil {
		return store.ErrNotFound
	}
	a, ok := d.Known.Snapshot.Application(name)
	if !ok {
		return store.ErrNotFound
	}
	d.App, d.State, d.Line = *a, a.State(d.Now), drawing.Points(a.Points, d.Now)
	d.Points = cut(v, "points", mostRows, a.Points)
	if p, ok := a.Newest(); ok {
		d.Newest = &p
	}
	d.Plans = d.ahead().Of(name)
	for _, t := range d.Known.Snapshot.Tasks(d.Now) {
		if t.About == "application" && t.Name == name {
			d.Tasks = append(d.Tasks, t)
		}
	}
	asked, err := v.project.Restorations(v.ctx(), name, mostRestores)
	if err != nil {
		return err
	}
	for _, r := range asked {
		s, err := restoration.Show(r, d.Now, false)
		if err != nil {
			return err
		}
		d.Restores = append(d.Restores, s)
	}
	return v.show(http.StatusOK, "application", name, d)
}

type runsData struct {
	seen
	Runs         []fleet.Run
	Any          bool // there are some, though none may be like what is looked for
	Query, State string
	States       []string
}

// underWay asks for runs that are not over.
const underWay = "under way"

func runsPage(v *visit) error {
	d := runsData{seen: v.look(), Query: strings.TrimSpace(v.r.FormValue("q")), State: v.r.FormValue("state")}
	if s := d.Known.Snapshot; s != nil {
		d.Any = len(s.Runs) > 0
		for _, r := range s.Runs {
			state := cmp.Or(string(r.State), "Unknown")
			d.States = append(d.States, state)
			like := d.State == "" || d.State == state || d.State == underWay && !r.Over
			if like && finds(d.Query, r.Run, r.Plan, string(r.Verb), r.From, r.To, r.By, r.Why, r.Fault) {
				d.Runs = append(d.Runs, r)
			}
		}
	}
	slices.Sort(d.States)
	d.States = append([]string{underWay}, slices.Compact(d.States)...)
	d.Runs = cut(v, "runs", mostRows, d.Runs)
	return v.show(http.StatusOK, "runs", "Runs", d)
}

func runPage(v *visit) error { return v.run(http.StatusOK) }

// run shows a run, with what may be wanted of it.
func (v *visit) run(code int) error {
	d := struct {
		seen
		Run     fleet.Run
		Line    template.HTML
		HasPlan bool
		Steer   *steering
		Said    []said
		Mute    string // why what steps said cannot be read now
	}{seen: v.look()}
	if d.Known.Snapshot == nil {
		return store.ErrNotFound
	}
	r, err := v.runNow(d.Known.Snapshot, v.r.PathValue("name"))
	if err != nil {
		return err
	}
	d.Run = *r
	if code != http.StatusOK { // it answers a form, and cannot be asked for again
		v.page.Live, v.page.Refresh = "", false
	}
	acts := r.Fault == "" && (v.page.May[string(account.Protect)] || v.page.May[string(account.Recover)])
	if acts && (!r.Over || len(r.Remaining) > 0 || v.r.URL.Query().Has("asked")) {
		var err error
		if d.Steer, err = v.steering(&d.Run); err != nil {
			return err
		}
	}
	switch {
	case d.Steer != nil:
		d.Said = bySteps(d.Steer.Said)
	case acts:
		d.Said, d.Mute = v.said(r.Run)
	}
	d.Line = drawing.Steps(&d.Run, d.Now)
	_, d.HasPlan = d.ahead().Plan(r.Plan)
	return v.show(code, "run", r.Run, d)
}

// runNow is a run as it is known, or, where that has not all of it, as its journal says.
func (v *visit) runNow(s *fleet.Snapshot, name string) (*fleet.Run, error) {
	r, ok := s.Run(name)
	if ok && !r.Brief || !ok && s.Earlier == 0 || v.Run == nil {
		if !ok {
			return nil, store.ErrNotFound
		}
		return r, nil
	}
	whole, err := v.Run(v.ctx(), v.project, name)
	switch {
	case err == nil:
		return &whole, nil
	case ok: // its steps are not shown
		v.page.Problem = "What it did step by step cannot be read now: " + err.Error()
		return r, nil
	case errors.Is(err, vault.ErrNotFound), errors.Is(err, vault.ErrName):
		return nil, store.ErrNotFound
	}
	return nil, err
}

// documentItem is a document, and how it stands at the sites that it is for.
type documentItem struct {
	store.Document
	// Git is what makes it from git, by site.
	Git   map[string]string
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
	known := v.Fleet(v.project)
	d := documentsData{Any: len(all) > 0, Query: strings.TrimSpace(v.r.FormValue("q")), at: v.r.FormValue("show"), v: v}
	items, place := make([]documentItem, 0, len(all)), make(map[store.Key]int, len(all))
	for _, one := range all {
		place[one.Key] = len(items)
		items = append(items, documentItem{Document: one})
	}
	for _, s := range stand {
		i, found := place[s.Key()]
		if s.Gone || !found {
			d.Going = append(d.Going, s)
			continue
		}
		items[i].Sites = append(items[i].Sites, s)
	}
	slices.SortStableFunc(items, func(a, b documentItem) int { return cmp.Compare(a.rank(), b.rank()) })
	for _, one := range items {
		if finds(d.Query, one.Kind, one.Namespace, one.Name, one.By) {
			d.Items = append(d.Items, one)
		}
	}
	for _, m := range known.Mirrored("", "") {
		if one := (madeThere{m}); finds(d.Query, m.Kind, m.Namespace, m.Name, m.Site, m.Maker()) || d.at == one.id() {
			d.There = append(d.There, one)
		}
	}
	d.Any = d.Any || len(d.There) > 0
	d.Items, d.Going, d.There = cut(v, "documents", mostRows, d.Items), cut(v, "going", mostRows, d.Going), cut(v, "there", mostRows, d.There)
	for i, one := range d.Items {
		d.Items[i].Git = known.Git(one.Kind, one.Namespace, one.Name)
	}
	return v.show(http.StatusOK, "documents", "Documents", d)
}

type documentsData struct {
	Items []documentItem
	Going []placement.Standing
	// There are what others than the console made at sites.
	There []madeThere
	Any   bool // there are some, though none may be like what is looked for
	Query string
	at    string // the one that is shown whole
	v     *visit
}

// madeThere is what others than the console made at a site.
type madeThere struct{ fleet.Mirrored }

func (m madeThere) id() string {
	return "at/" + m.Site + "/" + m.Kind + "/" + m.Namespace + "/" + m.Name
}

// Text is what it says, to be read.
func (m madeThere) Text() string {
	var text bytes.Buffer
	if len(m.Spec) == 0 || json.Indent(&text, m.Spec, "", "  ") != nil {
		return "It is too large to be shown here."
	}
	return text.String()
}

func (d documentItem) id() string { return d.Kind + "/" + d.Namespace + "/" + d.Name }

// rank has documents come first that a site does not take.
func (d documentItem) rank() int {
	if slices.ContainsFunc(d.Sites, func(s placement.Standing) bool { return placed(s.State) == "bad" }) {
		return 0
	}
	return 1
}

// Whole tells whether a document is shown with its text, which may be long: one is.
func (d documentsData) Whole(one interface{ id() string }) bool { return d.at == one.id() }

// Show is the address of this page with a document's text, or, where that is so, without.
func (d documentsData) Show(one interface{ id() string }) string {
	if d.Whole(one) {
		return d.v.again("show", "")
	}
	return d.v.again("show", one.id())
}

// sortedScopes are the scopes that a robot may be given.
func sortedScopes[T ~string](all []T, not T) []T {
	return slices.DeleteFunc(slices.Clone(all), func(one T) bool { return one == not })
}
