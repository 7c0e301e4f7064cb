package console

import (
	"context"
	"time"

	"davit.dev/davit/internal/console/agents"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/uplink"
)

// Enrol makes a token that lets the agent of a site tell a project's console.
func Enrol(ctx context.Context, c *store.Console, act audit.Act, project, site string, life time.Duration) (uplink.Token, time.Time, error) {
	p, err := c.Project(ctx, project)
	if err != nil {
		return uplink.Token{}, time.Time{}, err
	}
	all, err := authorities(ctx, p)
	if err != nil {
		return uplink.Token{}, time.Time{}, err
	}
	return agents.NewToken(ctx, p, all[0], act, site, life)
}
