package api

import (
	"strconv"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/steer"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
)

const ofRun = inProject + "/runs/{run}"

func steerRoutes() []route {
	return []route{
		{method: "GET", path: ofRun, summary: "A run as its journal has it now, what whoever asks may want of it, and what was asked of it last", need: account.Read, out: RunStanding{}, serve: runStanding},
		{
			method: "POST", path: ofRun + "/requests", summary: "Want something of a run: approve, pause, answer and the like; what is offered says which. Takes recover; of drills, protect from people who do not approve",
			need: account.Read, in: steer.Want{}, out: steer.Asked{}, serve: askRun,
		},
		{
			method: "GET", path: ofRun + "/logs", summary: "What the programs of a run's steps said, in the order in which the tries ended. Takes protect or recover",
			need: account.Read, query: []parameter{{"step", "of this step alone"}}, out: RunSaid{}, serve: runSaid,
		},
		{method: "GET", path: ofRun + "/requests/{number}", summary: "What became of something that was wanted", need: account.Read, out: steer.Asked{}, serve: runRequest},
	}
}

// RunStanding is a run now.
type RunStanding struct {
	Run fleet.Run `json:"run"`
	// Offers are what whoever asks may want of the run.
	Offers []failover.Offer `json:"offers"`
	// Asked are the newest requests, the newest first.
	Asked []steer.Asked `json:"asked"`
}

func runStanding(c *call) (any, error) {
	s, err := c.Steer.Look(c.ctx(), c.who, c.project, c.r.PathValue("run"))
	if err != nil {
		return nil, err
	}
	return RunStanding{Run: fleet.RunOf(s.State), Offers: append([]failover.Offer{}, s.Offers...), Asked: append([]steer.Asked{}, s.Asked...)}, nil
}

// RunSaid is what the steps of a run said.
type RunSaid struct {
	Said []journal.Words `json:"said"`
}

func runSaid(c *call) (any, error) {
	all, err := c.Steer.Said(c.ctx(), c.who, c.project, c.r.PathValue("run"), c.query("step"))
	if err != nil {
		return nil, err
	}
	return RunSaid{Said: all}, nil
}

func askRun(c *call) (any, error) {
	var w steer.Want
	if err := c.decode(&w); err != nil {
		return nil, err
	}
	a, err := c.Steer.Ask(c.ctx(), c.who, c.project, c.Door.Act(c.who, c.r), c.r.PathValue("run"), w)
	if err != nil {
		return nil, err
	}
	return created{a}, nil
}

func runRequest(c *call) (any, error) {
	n, err := strconv.ParseInt(c.r.PathValue("number"), 10, 64)
	if err != nil || n < 1 {
		return nil, store.ErrNotFound
	}
	return c.Steer.Request(c.ctx(), c.project, c.r.PathValue("run"), n)
}
