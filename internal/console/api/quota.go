package api

import (
	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/quota"
)

func quotaRoutes() []route {
	return []route{
		{method: "GET", path: inProject + "/quota", summary: "What the project may have at most, and what it has", need: account.Read, out: Quota{}, serve: quotaOf},
		{method: "PUT", path: inProject + "/quota", summary: "Set what the project may have at most, for administrators of the console; 0 is no limit", need: account.Read, in: NewQuota{}, out: Quota{}, serve: setQuota},
	}
}

// Quota is what a project may have at most, and what it has.
type Quota struct {
	Limits quota.Numbers `json:"limits"`
	Used   quota.Numbers `json:"used"`
}

// NewQuota is what a project may have from now on.
type NewQuota struct {
	quota.Numbers
	// Seen are the limits that the writer saw: if they are others by now, nothing is set.
	Seen *quota.Numbers `json:"seen,omitempty"`
}

func quotaOf(c *call) (any, error) {
	limits, err := quota.Limits(c.ctx(), c.project)
	if err != nil {
		return nil, err
	}
	used, err := quota.Used(c.ctx(), c.project, c.Fleet(c.project).Snapshot, c.Door.Now())
	return Quota{Limits: limits, Used: used}, err
}

func setQuota(c *call) (any, error) {
	var in NewQuota
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if err := c.administers(); err != nil {
		return nil, err
	}
	if err := quota.Set(c.ctx(), c.project, c.Door.Act(c.who, c.r), in.Numbers, in.Seen); err != nil {
		return nil, err
	}
	return quotaOf(c)
}
