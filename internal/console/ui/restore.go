package ui

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/restoration"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/uplink"
)

type restoreData struct {
	seen
	App      fleet.Application
	Point    *restoration.Contents
	Fault    string // why what it contains is not known
	Sites    []string
	Site     string
	Clone    bool
	Existing string
	Policies []string
	Targets  map[string]string // namespaces of a copy, by the captured ones
	ID       string            // of the request
	Unable   string            // why the site's agent cannot be asked
	Command  string
	Problem  string
	Reason   string
}

// restoring is the form by which a restore, or its dry run, is asked for.
func (v *visit) restoring(ask restoration.Ask) (d restoreData, err error) {
	d = restoreData{seen: v.look(), Clone: ask.Clone, Existing: cmp.Or(ask.Existing, "skip"), Policies: restoration.Policies(), Reason: ask.Reason}
	v.page.Live, v.page.Refresh = "", false // nothing is typed twice
	if d.Known.Snapshot == nil {
		return d, store.ErrNotFound
	}
	a, ok := d.Known.Snapshot.Application(ask.Application)
	if !ok || !slices.ContainsFunc(a.Points, func(p fleet.Point) bool { return p.ID == ask.Point }) {
		return d, store.ErrNotFound
	}
	d.App = *a
	for _, s := range d.Known.Snapshot.Sites {
		d.Sites = append(d.Sites, s.Name)
	}
	d.Site = cmp.Or(ask.Site, a.Site)
	if d.Point, err = v.Restores.Contents(v.ctx(), v.project, a.Name, ask.Point); err != nil {
		d.Point, d.Fault = &restoration.Contents{Point: ask.Point}, err.Error()
	}
	d.Targets = map[string]string{}
	for _, ns := range d.Point.Namespaces {
		d.Targets[ns] = cmp.Or(ask.Namespaces[ns], ns+"-copy")
	}
	if ask.Clone {
		ask.Namespaces = d.Targets
	}
	d.Unable, d.Command = restoration.Unable(d.Known, d.Site, d.Clone), ask.Command()
	d.ID, err = account.NewID()
	return d, err
}

// askedFor reads a form of a restore, or the address that leads to it.
func (v *visit) askedFor() restoration.Ask {
	a := restoration.Ask{
		ID: v.r.FormValue("id"), Application: v.r.PathValue("name"), Point: v.r.FormValue("point"), Site: v.r.FormValue("site"), Clone: v.r.FormValue("as") != "place",
		Existing: v.r.FormValue("existing"), Reason: strings.TrimSpace(v.r.FormValue("reason")),
	}
	if a.Clone {
		a.Existing = ""
	}
	for key, values := range v.r.Form {
		if from, ok := strings.CutPrefix(key, "to."); ok && a.Clone && len(values) > 0 {
			if a.Namespaces == nil {
				a.Namespaces = map[string]string{}
			}
			a.Namespaces[from] = strings.TrimSpace(values[0])
		}
	}
	return a
}

// restorePage shows what a point contains, and the form that asks what a restore of it
// would do.
func restorePage(v *visit) error {
	d, err := v.restoring(v.askedFor())
	if err != nil {
		return err
	}
	return v.show(http.StatusOK, "restore", "Restore "+d.App.Name, d)
}

// previewRestore takes the form: it asks for a dry run.
func previewRestore(v *visit) error {
	ask := v.askedFor()
	ask.DryRun = true
	return v.takeRestore(ask, "Nothing was asked: ")
}

// takeRestore hands on what was asked for, and shows the form again where it is refused.
func (v *visit) takeRestore(ask restoration.Ask, not string) error {
	r, err := v.Restores.Take(v.ctx(), v.project, v.who, v.Door.Act(v.who, v.r), ask)
	if errors.Is(err, store.ErrRefused) || errors.Is(err, store.ErrConflict) {
		d, again := v.restoring(ask)
		if again != nil {
			return again
		}
		d.Problem = not + err.Error()
		return v.show(code(err), "restore", "Not restored", d)
	}
	if err != nil {
		return err
	}
	return v.then("/p/" + v.project.Name + "/restores/" + r.ID)
}

// part is what a dry run found of one kind.
type part struct {
	Action, Says, Tone string
	Count              int
	Objects            []uplink.Planning
}

// parts are the actions, what they mean, and how they are shown: what is lost first.
var parts = []part{
	{Action: "conflict", Says: "would fail", Tone: "bad"},
	{Action: "prune", Says: "deleted: the point does not have it", Tone: "bad"},
	{Action: "roll back", Says: "a volume that gets the point's data; what was written since is lost", Tone: "bad"},
	{Action: "replace", Says: "deleted and made anew", Tone: "bad"},
	{Action: "update", Says: "changed", Tone: "warn"},
	{Action: "suspend", Says: "stopped for the time of the restore", Tone: "warn"},
	{Action: "skip", Says: "left as it is", Tone: "warn"},
	{Action: "create", Says: "created", Tone: "good"},
	{Action: "continue", Says: "made by this restore before it was interrupted", Tone: "good"},
	{Action: "unchanged", Says: "there, and the same", Tone: "good"},
}

type restorationData struct {
	seen
	Restore  restoration.Shown
	Tone     string
	Parts    []part
	May      bool
	ID       string
	Problem  string
	Mapped   [][2]string
	Moved    string // what was typed wrongly
	Unable   string
	Terrible bool // live data may be lost
}

func restorationPage(v *visit) error { return v.restoration(http.StatusOK, "") }

// restoration shows how a restore stands, and of a dry run what it found and the form
// that begins it.
func (v *visit) restoration(code int, problem string) error {
	r, err := v.project.Restoration(v.ctx(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	d := restorationData{seen: v.look(), Problem: problem, May: v.page.May[string(restoration.Need)]}
	if d.Restore, err = restoration.Show(r, v.Door.Now(), d.May); err != nil {
		return err
	}
	s := d.Restore
	d.Tone = map[string]string{"completed": "good", "planned": "good", "refused": "bad", "failed": "bad", "canceled": "warn"}[s.State]
	if s.Blocked() {
		d.Tone = "bad"
	}
	d.Tone = cmp.Or(d.Tone, "warn")
	for _, from := range slices.Sorted(maps.Keys(s.Namespaces)) {
		d.Mapped = append(d.Mapped, [2]string{from, s.Namespaces[from]})
	}
	if p := s.Preview; p != nil {
		for _, one := range parts {
			one.Count = p.Counts[one.Action]
			for _, o := range p.Objects {
				if o.Action == one.Action {
					one.Objects = append(one.Objects, o)
				}
			}
			if one.Count > 0 {
				d.Parts = append(d.Parts, one)
			}
		}
	}
	d.Terrible = restoration.Ask{Existing: s.Existing}.Overwrites()
	d.Unable = restoration.Unable(d.Known, s.Site, s.Clone)
	v.page.Live += "?requests"
	v.page.Refresh = !s.Over && s.State != restoration.Unknown
	if s.Over { // nothing comes, and something may be typed
		v.page.Live = ""
	}
	if d.ID, err = account.NewID(); err != nil {
		return err
	}
	return v.show(code, "restoration", "Restore of "+s.Application, d)
}

// beginRestore takes the form beneath what a dry run found: the same restore is begun.
// The application's name, typed, is a person's word that he means it.
func beginRestore(v *visit) error {
	dry, err := v.project.Restoration(v.ctx(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	s, err := restoration.Show(dry, v.Door.Now(), true)
	if err != nil {
		return err
	}
	if v.field("confirm") != s.Application {
		return v.restoration(http.StatusUnprocessableEntity, "Nothing was begun: the application's name was not typed exactly.")
	}
	r, err := v.Restores.Take(v.ctx(), v.project, v.who, v.Door.Act(v.who, v.r), restoration.Ask{
		ID: v.field("id"), Application: s.Application, Point: s.Point, Site: s.Site, Clone: s.Clone, Namespaces: s.Namespaces, StorageClasses: s.StorageClasses,
		Existing: s.Existing, Reason: v.field("reason"),
	})
	if errors.Is(err, store.ErrRefused) || errors.Is(err, store.ErrConflict) {
		return v.restoration(code(err), fmt.Sprintf("Nothing was begun: %v", err))
	}
	if err != nil {
		return err
	}
	return v.then("/p/" + v.project.Name + "/restores/" + r.ID)
}

// cancelRestore takes a restore back that has not begun.
func cancelRestore(v *visit) error {
	r, err := v.Restores.Cancel(v.ctx(), v.project, v.who, v.Door.Act(v.who, v.r), v.r.PathValue("id"))
	if errors.Is(err, store.ErrRefused) {
		return v.restoration(code(err), fmt.Sprintf("It was not taken back: %v", err))
	}
	if err != nil {
		return err
	}
	return v.then("/p/" + v.project.Name + "/restores/" + r.ID)
}
