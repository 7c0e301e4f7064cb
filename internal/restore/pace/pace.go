// Package pace times the parts of a restore that overlap: each begins with the
// first thing of it that is done, and ends with the last.
package pace

import (
	"sync"

	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/report"
)

// Parts are what is timed, by name.
type Parts struct {
	clock    port.Clock
	progress port.Progress
	record   *report.Recorder

	mu   sync.Mutex
	left map[string]int
	open map[string]*report.Step
}

// New begins with how many things every part has.
func New(clock port.Clock, progress port.Progress, record *report.Recorder, left map[string]int) *Parts {
	return &Parts{clock: clock, progress: progress, record: record, left: left, open: map[string]*report.Step{}}
}

// Begin says that one thing of a part begins.
func (p *Parts) Begin(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open[name] == nil {
		p.open[name] = &report.Step{Name: name, StartedAt: p.clock.Now()}
		p.progress.StepStarted(name)
	}
}

// Done says that one thing of a part is done.
func (p *Parts) Done(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left[name]--; p.left[name] == 0 {
		p.close(name, nil)
	}
}

// End closes what is open: the restore is over, perhaps with an error.
func (p *Parts) End(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range p.open {
		p.close(name, err)
	}
}

func (p *Parts) close(name string, err error) {
	s := p.open[name]
	if s == nil {
		return
	}
	delete(p.open, name)
	s.FinishedAt = p.clock.Now()
	s.Duration = s.FinishedAt.Sub(s.StartedAt)
	if err != nil {
		s.Message = err.Error()
	}
	p.progress.StepFinished(name, err)
	p.record.Count(func(r *report.Result) { r.Steps = append(r.Steps, *s) })
}
