package ui

import (
	"cmp"
	"fmt"
	"net/http"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/past"
	"davit.dev/davit/internal/console/project"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/console/ui/figure"
)

// everyProject is the page of all projects, for administrators.
func everyProject(v *visit) error {
	if err := v.administers(); err != nil {
		return err
	}
	all, err := v.Projects.List(v.ctx())
	if err != nil {
		return err
	}
	return v.show(http.StatusOK, "tenants", "Projects of the console", struct {
		Projects []project.State
		Now      time.Time
	}{cut(v, "projects", mostRows, all), v.Door.Now()})
}

func makeProject(v *visit) error {
	if err := v.administers(); err != nil {
		return err
	}
	in := project.New{Name: v.field("name"), Recovery: v.field("recovery"), Admin: cmp.Or(v.field("admin"), v.who.Session.User.Name)}
	made, err := v.Projects.Make(v.ctx(), v.Door.Act(v.who, v.r), in)
	if err != nil {
		return err
	}
	v.page.Done = fmt.Sprintf("Project %s was made in %s. Its admin is %s.", made.Name, made.Vault, made.Admin)
	return everyProject(v)
}

// removeProject takes a form in which the project's name is typed.
func removeProject(v *visit) error {
	if err := v.administers(); err != nil {
		return err
	}
	name := v.field("name")
	if v.field("confirm") != name {
		return fmt.Errorf("%w: nothing was removed: the project's name was not typed exactly", store.ErrRefused)
	}
	gone, err := v.Projects.Remove(v.ctx(), v.Door.Act(v.who, v.r), name)
	if err != nil {
		return err
	}
	was := "was removed"
	if gone.Before {
		was = "was removed before"
	}
	if gone.Vault == "" {
		v.page.Done = fmt.Sprintf("Project %s %s. What its vault has, if it was made there, stays.", gone.Name, was)
		return everyProject(v)
	}
	v.page.Done = fmt.Sprintf("Project %s %s. Its vault %s keeps all that is there: as far as is known, %d recovery points of %d applications. Its sites go on.", gone.Name, was, gone.Vault, gone.Points, gone.Applications)
	return everyProject(v)
}

// backData is the page by which a project is restored.
type backData struct {
	State project.State
	Now   time.Time
	// At is the time that was asked for, and Foretold what going back to it would change.
	At       string
	Foretold *project.Restored
}

// backPage is where an administrator restores a project.
func backPage(v *visit) error {
	if err := v.administers(); err != nil {
		return err
	}
	d, err := v.back(v.r.FormValue("name"))
	if err != nil {
		return err
	}
	return v.show(http.StatusOK, "tenant-back", "Restore project "+d.State.Name, d)
}

func (v *visit) back(name string) (backData, error) {
	all, err := v.Projects.List(v.ctx())
	if err != nil {
		return backData{}, err
	}
	for _, one := range all {
		if one.Name == name && one.Standing != string(store.Making) {
			return backData{State: one, Now: v.Door.Now()}, nil
		}
	}
	return backData{}, store.ErrNotFound
}

// restoreProject takes the forms of that page: without "dry" the project's name is typed.
func restoreProject(v *visit) error {
	if err := v.administers(); err != nil {
		return err
	}
	name, at := v.field("name"), v.field("at")
	ask := project.Ask{Dry: v.field("dry") != "", Confirm: v.field("confirm")}
	if v.field("to") == "time" {
		var err error
		if ask.At, err = instant(at); err != nil {
			return fmt.Errorf("%w: nothing was restored: %w", store.ErrRefused, err)
		}
	}
	if !ask.Dry && ask.Confirm != name {
		return fmt.Errorf("%w: nothing was restored: the project's name was not typed exactly", store.ErrRefused)
	}
	did, err := v.Projects.Restore(v.ctx(), v.Door.Act(v.who, v.r), name, ask)
	if err != nil {
		return err
	}
	if did.Back != nil {
		if _, err := v.Door.Project(v.ctx(), v.who, name, account.Audit); err != nil { // what is in the project is not his to see
			did.Back.Changes = nil
		}
	}
	if ask.Dry {
		d, err := v.back(name)
		if err != nil {
			return err
		}
		d.At, d.Foretold = at, &did
		return v.show(http.StatusOK, "tenant-back", "Restore project "+name, d)
	}
	v.page.Done = restored(did)
	return everyProject(v)
}

func restored(r project.Restored) string {
	switch {
	case r.Back != nil:
		return fmt.Sprintf("Project %s went back to what was defined at %s: %d changes. Its audit log has %d records of what was done since, which stay.", r.Name, figure.Stamp(r.Back.At), r.Changes, r.Back.Since) + unknown(r.Back)
	case r.Revived:
		return fmt.Sprintf("Project %s is the console's again, with all that its vault has.", r.Name)
	}
	return fmt.Sprintf("Project %s is what its vault has.", r.Name)
}

// unknown says what is not known any more.
func unknown(w *past.WentBack) string {
	if w.Short == "" {
		return ""
	}
	return " What was defined later than that, up to the time that was asked for, is not known any more: " + w.Short
}

// instant reads a time as people write it, in UTC.
func instant(text string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, time.DateTime, "2006-01-02 15:04", "2006-01-02T15:04"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%.40q is no time: write it such as 2026-01-31 15:04, in UTC", text)
}
