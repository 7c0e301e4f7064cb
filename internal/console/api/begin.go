package api

import (
	"context"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/begin"
	"davit.dev/davit/internal/console/entry"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/plan"
)

// Begins takes what people ask sites to begin.
type Begins interface {
	Take(ctx context.Context, p *store.Project, who entry.Who, act audit.Act, a begin.Ask) (store.Request, error)
}

func beginRoutes() []route {
	return []route{
		{
			method: "POST", path: inProject + "/plans/{name}/runs", need: account.Read, in: NewRun{}, out: begin.Shown{}, serve: beginRun,
			summary: "Ask the target site's agent to begin a run: a drill takes the permission protect (a robot: recover), all others recover. The same id again is the same request",
		},
		{
			method: "GET", path: inProject + "/requests", summary: "The runs that sites were asked for, the newest first", need: account.Read,
			query: []parameter{{"plan", "only of this plan"}}, out: Requests{}, serve: requests,
		},
		{method: "GET", path: inProject + "/requests/{id}", summary: "What became of a run that a site was asked for: asked, created, refused or unknown", need: account.Read, out: begin.Shown{}, serve: request},
	}
}

// NewRun asks for a run.
type NewRun struct {
	// ID is chosen by whoever asks, 16 to 64 letters and digits: the same again
	// begins no second run. Without, one is made.
	ID   string `json:"id,omitempty"`
	Verb string `json:"verb"`
	// To is the target; default: where the plan would go now.
	To          string            `json:"to,omitempty"`
	Reason      string            `json:"reason,omitempty"`
	Lost        []string          `json:"lost,omitempty"`
	AcceptAsked bool              `json:"acceptAsked,omitempty"`
	Points      map[string]string `json:"points,omitempty"`
	AsOf        time.Time         `json:"asOf,omitzero"`
}

func beginRun(c *call) (any, error) {
	var in NewRun
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	id, err := chosen(in.ID)
	if err != nil {
		return nil, err
	}
	r, err := c.Begins.Take(c.ctx(), c.project, c.who, c.Door.Act(c.who, c.r), begin.Ask{
		ID: id, Plan: c.r.PathValue("name"), Verb: plan.Verb(in.Verb), To: in.To, Reason: in.Reason, Lost: in.Lost, Asked: in.AcceptAsked, Points: in.Points, AsOf: in.AsOf,
	})
	if err != nil {
		return nil, err
	}
	s, err := begin.Show(r, c.Door.Now())
	return created{s}, err
}

// Requests are runs that sites were asked for.
type Requests struct {
	Items []begin.Shown `json:"items"`
}

func requests(c *call) (any, error) {
	all, err := c.project.Requests(c.ctx(), c.query("plan"), 100)
	out := Requests{Items: []begin.Shown{}}
	for _, r := range all {
		s, err := begin.Show(r, c.Door.Now())
		if err != nil {
			return nil, err
		}
		out.Items = append(out.Items, s)
	}
	return out, err
}

func request(c *call) (any, error) {
	r, err := c.project.Requested(c.ctx(), c.r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return begin.Show(r, c.Door.Now())
}

// chosen is the id of a request: the one that was chosen, or a new one.
func chosen(id string) (string, error) {
	if id != "" {
		return id, nil
	}
	return account.NewID()
}
