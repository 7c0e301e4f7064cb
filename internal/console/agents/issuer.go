package agents

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"davit.dev/davit/internal/console/store"
)

// issuerOf begins the names under which a console keeps by which authority agents came.
const issuerOf = "agent.authority/"

// Issuer is the number of the authority whose certificate a site's agent called this
// console with last; 0: it has not called since there are more than one. Times would not
// tell: consoles that give certificates in turn have clocks of their own.
func Issuer(ctx context.Context, p *store.Project, site string) (int64, error) {
	data, _, err := p.Kept(ctx, issuerOf+site)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(data), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read by which authority %s came: %w", site, store.ErrDamaged)
	}
	return n, nil
}

// issuer is the number of the authority that vouches for who calls.
func (c *call) issuer() int64 {
	for _, chain := range c.chains {
		for _, a := range c.authorities {
			if a.Certificate.Equal(chain[len(chain)-1]) {
				return a.Number
			}
		}
	}
	return 0
}

// noteIssuer keeps by which authority an agent came, once there are more than one.
func (s *Server) noteIssuer(c *call) {
	if c.authorities[0].Number == 1 {
		return
	}
	ctx, now := c.r.Context(), c.issuer()
	if was, err := Issuer(ctx, c.project, c.who.Site); err == nil && was == now {
		return
	}
	if err := c.project.Keep(ctx, s.Now(), map[string][]byte{issuerOf + c.who.Site: strconv.AppendInt(nil, now, 10)}); err != nil && ctx.Err() == nil {
		s.Log.Warn("by which authority an agent came is not noted: it counts as one that is not over", "project", c.project.Name, "site", c.who.Site, "err", err)
	}
}
