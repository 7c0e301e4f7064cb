package api

import (
	"cmp"
	"fmt"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/project"
	"davit.dev/davit/internal/console/store"
)

func projectRoutes() []route {
	return []route{
		{method: "GET", path: "/console/projects", summary: "All projects of the console, in numbers, for administrators: also those that are being made, or were removed", out: ProjectStates{}, serve: everyProject},
		{
			method: "POST", path: "/console/projects", summary: "Make a project in the vault of the console's first one, for administrators; the same again goes on with one that broke off",
			in: project.New{}, out: project.Made{}, serve: makeProject,
		},
		{
			method: "DELETE", path: "/console/projects/{name}", summary: "Remove a project from the console, for administrators: its users, tokens and agents are let in no more. Its vault and its sites keep what they have, and its name stays taken",
			query: []parameter{{"confirm", "the project's name once more"}}, out: project.Gone{}, serve: removeProject,
		},
		{
			method: "POST", path: "/console/projects/{name}/restore", summary: "Restore a project while all others are served, for administrators: to what people had defined at a time, or to what its vault has; also one that was removed",
			in: project.Ask{}, out: project.Restored{}, serve: restoreProject,
		},
	}
}

// ProjectStates are all projects.
type ProjectStates struct {
	Items []project.State `json:"items"`
}

func everyProject(c *call) (any, error) {
	if err := c.administers(); err != nil {
		return nil, err
	}
	all, err := c.Projects.List(c.ctx())
	return ProjectStates{Items: append([]project.State{}, all...)}, err
}

func makeProject(c *call) (any, error) {
	if err := c.administers(); err != nil {
		return nil, err
	}
	var in project.New
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	in.Admin = cmp.Or(in.Admin, c.who.Session.User.Name)
	made, err := c.Projects.Make(c.ctx(), c.Door.Act(c.who, c.r), in)
	if err != nil {
		return nil, err
	}
	return created{made}, nil
}

func removeProject(c *call) (any, error) {
	if err := c.administers(); err != nil {
		return nil, err
	}
	name := c.r.PathValue("name")
	if c.query("confirm") != name {
		return nil, fmt.Errorf("%w: nothing was removed: ?confirm= has to be the project's name", store.ErrRefused)
	}
	return c.Projects.Remove(c.ctx(), c.Door.Act(c.who, c.r), name)
}

func restoreProject(c *call) (any, error) {
	if err := c.administers(); err != nil {
		return nil, err
	}
	var in project.Ask
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	name := c.r.PathValue("name")
	if !in.Dry && in.Confirm != name {
		return nil, fmt.Errorf("%w: nothing was restored: confirm has to be the project's name", store.ErrRefused)
	}
	out, err := c.Projects.Restore(c.ctx(), c.Door.Act(c.who, c.r), name, in)
	if err != nil {
		return nil, err
	}
	if out.Back != nil {
		if _, err := c.Door.Project(c.ctx(), c.who, name, account.Audit); err != nil { // what is in the project is not his to see
			out.Back.Changes = nil
		}
	}
	return created{out}, nil
}
