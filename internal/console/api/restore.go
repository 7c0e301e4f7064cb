package api

import (
	"context"
	"errors"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/entry"
	"davit.dev/davit/internal/console/restoration"
	"davit.dev/davit/internal/console/store"
)

// Restores takes what people ask sites to restore.
type Restores interface {
	Take(ctx context.Context, p *store.Project, who entry.Who, act audit.Act, a restoration.Ask) (store.Restoration, error)
	Cancel(ctx context.Context, p *store.Project, who entry.Who, act audit.Act, id string) (store.Restoration, error)
	Contents(ctx context.Context, p *store.Project, app, id string) (*restoration.Contents, error)
}

func restoreRoutes() []route {
	return []route{
		{
			method: "POST", path: inProject + "/applications/{name}/restores", need: restoration.Need, in: NewRestore{}, out: restoration.Shown{}, serve: beginRestore,
			summary: "Ask a site's agent to restore an application there, or with dryRun what that would do to each object. Takes the permission recover. The same id again is the same request",
		},
		{
			method: "GET", path: inProject + "/restores", summary: "The restores that sites were asked for, the newest first", need: account.Read,
			query: []parameter{{"application", "only of this application, by its name in the vault"}}, out: Restorations{}, serve: restorations,
		},
		{
			method: "GET", path: inProject + "/restores/{id}", need: account.Read, out: restoration.Shown{}, serve: restored,
			summary: "How a restore stands: asked, unknown, refused, planned, running, completed, warned, failed or canceled. What a dry run found is for those with the permission recover",
		},
		{
			method: "POST", path: inProject + "/restores/{id}/cancel", need: account.Read, out: restoration.Shown{}, serve: cancelRestore,
			summary: "Take a restore back that has not begun at its site. Takes the permission recover; how it stands then, the answer says",
		},
		{
			method: "GET", path: inProject + "/applications/{name}/points/{point}", need: account.Read, out: restoration.Contents{}, serve: contents,
			summary: "What a recovery point contains",
		},
	}
}

// NewRestore asks for a restore.
type NewRestore struct {
	// ID is chosen by whoever asks, 16 to 64 letters and digits: the same again
	// begins no second restore. Without, one is made.
	ID string `json:"id,omitempty"`
	// Point; default: the newest that may be offered.
	Point string `json:"point,omitempty"`
	// Site; default: that which holds the application.
	Site   string `json:"site,omitempty"`
	DryRun bool   `json:"dryRun,omitempty"`
	// Clone makes a copy in other namespaces, which are mapped from captured to wanted.
	Clone          bool              `json:"clone,omitempty"`
	Namespaces     map[string]string `json:"namespaces,omitempty"`
	StorageClasses map[string]string `json:"storageClasses,omitempty"`
	// Existing is skip (the default), update, replace or exact.
	Existing string `json:"existing,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

func beginRestore(c *call) (any, error) {
	var in NewRestore
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	id, err := chosen(in.ID)
	if err != nil {
		return nil, err
	}
	r, err := c.Restores.Take(c.ctx(), c.project, c.who, c.Door.Act(c.who, c.r), restoration.Ask{
		ID: id, Application: c.r.PathValue("name"), Point: in.Point, Site: in.Site, DryRun: in.DryRun, Clone: in.Clone, Namespaces: in.Namespaces,
		StorageClasses: in.StorageClasses, Existing: in.Existing, Reason: in.Reason,
	})
	if err != nil {
		return nil, err
	}
	s, err := restoration.Show(r, c.Door.Now(), true)
	return created{s}, err
}

// Restorations are restores that sites were asked for, without what dry runs found.
type Restorations struct {
	Items []restoration.Shown `json:"items"`
}

func restorations(c *call) (any, error) {
	all, err := c.project.Restorations(c.ctx(), c.query("application"), 100)
	out := Restorations{Items: []restoration.Shown{}}
	for _, r := range all {
		s, err := restoration.Show(r, c.Door.Now(), false)
		if err != nil {
			return nil, err
		}
		out.Items = append(out.Items, s)
	}
	return out, err
}

func restored(c *call) (any, error) {
	r, err := c.project.Restoration(c.ctx(), c.r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	err = c.Door.May(c.ctx(), c.who, c.project, restoration.Need)
	if err != nil && !errors.Is(err, entry.ErrForbidden) {
		return nil, err
	}
	return restoration.Show(r, c.Door.Now(), err == nil)
}

func cancelRestore(c *call) (any, error) {
	r, err := c.Restores.Cancel(c.ctx(), c.project, c.who, c.Door.Act(c.who, c.r), c.r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return restoration.Show(r, c.Door.Now(), true)
}

func contents(c *call) (any, error) {
	return c.Restores.Contents(c.ctx(), c.project, c.r.PathValue("name"), c.r.PathValue("point"))
}
