package vault

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Runs returns the names of all runs that have a journal, sorted.
func (p *Project) Runs(ctx context.Context) ([]string, error) {
	tails, err := listKeys(ctx, p.store, p.at.runs(""))
	if err != nil {
		return nil, err
	}
	var runs []string
	for _, tail := range tails {
		run, _, ok := strings.Cut(tail, "/")
		if !ok || CheckName(run) != nil {
			continue // a stray object, which verify tells of
		}
		if len(runs) == 0 || runs[len(runs)-1] != run {
			runs = append(runs, run)
		}
	}
	return runs, nil
}

// RunNumbers returns the numbers of the records in a run's journal, ascending.
func (p *Project) RunNumbers(ctx context.Context, run string) ([]int64, error) {
	if err := CheckName(run); err != nil {
		return nil, fmt.Errorf("list journal: %w", err)
	}
	return p.numbers(ctx, p.at.runs(run))
}

// ReadRun reads a record of a run's journal.
func (p *Project) ReadRun(ctx context.Context, run string, n int64) ([]byte, error) {
	if err := CheckName(run); err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	return p.ReadSealed(ctx, p.at.run(run, n))
}

// WriteRun writes a record of a run's journal, or returns ErrExists: of all
// racing callers, one succeeds.
func (p *Project) WriteRun(ctx context.Context, run string, n int64, record []byte) error {
	if err := CheckName(run); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return p.WriteSealedOnce(ctx, p.at.run(run, n), record)
}

// RunAge is how long ago a record was put, by the vault's clock.
func (p *Project) RunAge(ctx context.Context, run string, n int64) (time.Duration, error) {
	o, err := p.store.Stat(ctx, p.at.run(run, n))
	if err != nil {
		return 0, fmt.Errorf("look at %s: %w", p.at.run(run, n), err)
	}
	clock, err := p.Clock(ctx)
	return clock.Sub(o.Modified), err
}
