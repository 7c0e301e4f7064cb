package ui

import (
	"cmp"
	"fmt"
	"net/http"
	"time"

	"davit.dev/davit/internal/console/project"
	"davit.dev/davit/internal/console/store"
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
