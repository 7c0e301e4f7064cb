package api

import (
	"context"
	"errors"
	"fmt"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/evidence"
	"davit.dev/davit/internal/vault"
)

func reportRoutes() []route {
	return []route{
		{method: "GET", path: ofRun + "/report", summary: "A run's newest signed report, as the vault has it, checked once more", need: account.Read, out: evidence.Document{}, serve: report},
	}
}

// Reports reads a run's newest signed report from a project's vault, and checks it.
type Reports func(ctx context.Context, p *store.Project, run string) (*evidence.Document, error)

func report(c *call) (any, error) {
	return c.Reports.Find(c.ctx(), c.project, c.r.PathValue("run"))
}

// Find is a report for people, with what to do where there is none.
func (read Reports) Find(ctx context.Context, p *store.Project, run string) (*evidence.Document, error) {
	if vault.CheckName(run) != nil {
		return nil, store.ErrNotFound
	}
	d, err := read(ctx, p, run)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return nil, fmt.Errorf("%w: the vault has no report of run %s: davit runs report %s makes one", store.ErrRefused, run, run)
	case errors.Is(err, evidence.ErrForged):
		return nil, fmt.Errorf("%w: %w", store.ErrRefused, err)
	case errors.Is(err, vault.ErrUnavailable):
		return nil, fmt.Errorf("%w: the vault does not answer: try again, or davit runs report %s at a site", store.ErrRefused, run)
	}
	return d, err
}
