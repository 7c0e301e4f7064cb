package api

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/placement"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/uplink"
)

// Agents are those that a console hears.
type Agents interface {
	Token(ctx context.Context, p *store.Project, act audit.Act, site string, life time.Duration) (uplink.Token, time.Time, error)
	Remove(p *store.Project, site string)
	Standings(ctx context.Context, p *store.Project) ([]placement.Standing, error)
	// Foreign are the objects of a name that others than the project's console made, by site.
	Foreign(p *store.Project, k uplink.Key) []fleet.Mirrored
}

func agentRoutes() []route {
	return []route{
		{method: "GET", path: inProject + "/agents", summary: "The agents of the sites, and what they say", need: account.Read, out: AgentList{}, serve: agentList},
		{method: "DELETE", path: inProject + "/agents/{site}", summary: "Shut a site's agent out; a new token lets it in again", need: account.Manage, out: ok{}, serve: removeAgent},
		{method: "POST", path: inProject + "/enrolments", summary: "Make a token that lets the agent of a site in, once; it is shown this once", need: account.Manage, in: NewEnrolment{}, out: Enrolment{}, serve: enrol},
		{
			method: "GET", path: inProject + "/events", summary: "What agents told of, oldest first; the newest ones unless after is given", need: account.Read,
			query: []parameter{{"site", "only of this site"}, {"after", "only those after this number"}, {"limit", "at most so many, 1000 at the most"}}, out: Events{}, serve: events,
		},
		{method: "GET", path: inProject + "/placements", summary: "How the documents stand at the sites that they are for", need: account.Read, out: Placements{}, serve: placements},
		{method: "GET", path: inProject + "/metrics", summary: "The agents, as text for Prometheus", need: account.Read, out: map[string]any{}, serve: metrics},
	}
}

// AgentList are the agents of a project.
type AgentList struct {
	Items []fleet.Agent `json:"items"`
}

func agentList(c *call) (any, error) {
	return AgentList{Items: append([]fleet.Agent{}, c.Fleet(c.project).Agents...)}, nil
}

func removeAgent(c *call) (any, error) {
	site := c.r.PathValue("site")
	if err := c.project.RemoveAgent(c.ctx(), c.Door.Act(c.who, c.r), site); err != nil {
		return nil, err
	}
	c.Agents.Remove(c.project, site)
	return ok{true}, nil
}

// Placements say how documents stand at sites.
type Placements struct {
	Items []placement.Standing `json:"items"`
}

func placements(c *call) (any, error) {
	all, err := c.Agents.Standings(c.ctx(), c.project)
	return Placements{Items: append([]placement.Standing{}, all...)}, err
}

// NewEnrolment asks for a token for a site's agent.
type NewEnrolment struct {
	Site    string `json:"site"`
	Minutes int    `json:"minutes"` // until it expires
}

// Enrolment is such a token.
type Enrolment struct {
	Site    string    `json:"site"`
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

func enrol(c *call) (any, error) {
	var in NewEnrolment
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if most := int(store.MaxEnrolmentLife / time.Minute); in.Minutes < 1 || in.Minutes > most {
		return nil, fmt.Errorf("%w: a token for an agent lives for 1 to %d minutes, not %d", store.ErrRefused, most, in.Minutes)
	}
	t, expires, err := c.Agents.Token(c.ctx(), c.project, c.Door.Act(c.who, c.r), in.Site, time.Duration(in.Minutes)*time.Minute)
	if err != nil {
		return nil, err
	}
	return created{Enrolment{Site: in.Site, Token: t.String(), Expires: expires}}, nil
}

// Events are a part of what agents told of.
type Events struct {
	Items []Event `json:"items"`
}

// Event is one of them.
type Event struct {
	// Number counts the project's events in the order in which they came.
	Number int64  `json:"number"`
	Site   string `json:"site"`
	uplink.Event
}

func events(c *call) (any, error) {
	limit, err := revision(c.query("limit"))
	if err != nil {
		return nil, err
	}
	if limit == 0 || limit > 1000 {
		limit = 1000
	}
	after := int64(-1)
	if text := c.query("after"); text != "" {
		if after, err = revision(text); err != nil {
			return nil, err
		}
	}
	all, err := c.project.AgentEvents(c.ctx(), c.query("site"), after, int(limit))
	if err != nil {
		return nil, err
	}
	out := Events{Items: []Event{}}
	for _, e := range all {
		one := Event{Number: e.Number, Site: e.Site}
		if err := json.Unmarshal(e.Body, &one.Event); err != nil {
			return nil, fmt.Errorf("read event %d: %w", e.Number, err)
		}
		out.Items = append(out.Items, one)
	}
	return out, nil
}

// metrics answers in the text format of Prometheus.
func metrics(c *call) (any, error) {
	now := c.Door.Now()
	var b strings.Builder
	all := c.Fleet(c.project).Agents
	for _, m := range []struct {
		name, help string
		value      func(fleet.Agent) float64
	}{
		{"davit_console_agent_connected", "1 while the agent of the site is connected.", func(a fleet.Agent) float64 {
			if a.Connected {
				return 1
			}
			return 0
		}},
		{"davit_console_agent_last_word_seconds", "How long ago the agent last said something.", func(a fleet.Agent) float64 { return now.Sub(a.Seen).Seconds() }},
		{"davit_console_agent_certificate_ends_seconds", "In how long the agent's certificate ends.", func(a fleet.Agent) float64 { return a.Ends.Sub(now).Seconds() }},
		{"davit_console_agent_objects", "How many objects the agent speaks of.", func(a fleet.Agent) float64 { return float64(len(a.Objects)) }},
	} {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s gauge\n", m.name, m.help, m.name)
		for _, a := range all {
			if !a.Seen.IsZero() {
				fmt.Fprintf(&b, "%s{project=%q,site=%q} %s\n", m.name, c.project.Name, a.Site, strconv.FormatFloat(m.value(a), 'f', -1, 64))
			}
		}
	}
	c.w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	if _, err := c.w.Write([]byte(b.String())); err != nil {
		c.Log.Debug("an answer was not taken", "err", err)
	}
	return nil, nil //nolint:nilnil // it was answered
}
