package vantage

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"davit.dev/davit/internal/declare"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/vault"
)

// Post is a vantage point. It is used by one goroutine.
type Post struct {
	// Name is the vantage point's, Cluster that of a site.
	Name, Cluster string
	// Plans are those that are declared automatically, as far as they are known.
	Plans func(ctx context.Context, p *vault.Project) ([]*plan.Plan, error)
	// Idle tells, when Plans has been asked, that nothing need be looked at or said;
	// nil never does.
	Idle func() bool
	// Ask asks a plan's probe; nil asks none.
	Ask func(ctx context.Context, c plan.Check) error
	Now func() time.Time
	Log *slog.Logger

	process string
	begun   time.Time
	watch   *Watch
	own     rival
	number  int64
	said    []View
	trouble string
}

// rival is another process that serves the same name.
type rival struct {
	process string
	number  int64
	since   time.Duration
	seen    bool
}

// Views are what it said last; empty while another process speaks, or the
// vault does not answer.
func (p *Post) Views() []View { return slices.Clone(p.said) }

// Run looks again and again until ctx is done. open gives the project.
func (p *Post) Run(ctx context.Context, open func(context.Context) (*vault.Project, error)) {
	tick := time.NewTicker(Every)
	defer tick.Stop()
	for {
		p.round(ctx, open)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (p *Post) round(ctx context.Context, open func(context.Context) (*vault.Project, error)) {
	limited, cancel := context.WithTimeout(ctx, gap-time.Second)
	defer cancel()
	project, err := open(limited)
	if err == nil {
		err = p.Look(limited, project)
	} else {
		p.miss()
	}
	text := ""
	if err != nil && ctx.Err() == nil {
		text = err.Error()
	}
	if text != p.trouble && text != "" {
		p.Log.Warn("vantage point: it sees nothing", "vantage", p.Name, "error", err)
	}
	if text == "" && p.trouble != "" {
		p.Log.Info("vantage point: the vault answers again", "vantage", p.Name)
	}
	p.trouble = text
}

func (p *Post) miss() {
	p.said = nil
	if p.watch != nil {
		p.watch.Miss()
	}
}

// Look looks once, and says what it sees. An error is that the vault does not
// answer, or is not as it should be.
func (p *Post) Look(ctx context.Context, project *vault.Project) error {
	if p.watch == nil {
		p.watch, p.begun, p.process = NewWatch(), p.Now(), strings.ToLower(rand.Text()[:12])
	}
	reading, cancel := context.WithTimeout(ctx, patience) // leaves time to speak
	plans, err := p.Plans(reading, project)
	cancel()
	if err != nil {
		p.live(ctx, project)
		return err
	}
	if p.Idle != nil && p.Idle() {
		p.miss()
		return nil
	}
	hearing, cancel := context.WithTimeout(ctx, patience)
	words, bad, err := Hear(hearing, project)
	cancel()
	if err != nil {
		p.live(ctx, project)
		return err
	}
	for _, why := range bad {
		err = why
	}
	now := p.Now().Sub(p.begun)
	p.watch.Look(now, words)
	if p.yields(now, words) {
		p.said = nil
		return err
	}
	views := p.watch.Views(now, p.Name)
	p.probe(ctx, plans, views)
	if failed := p.say(ctx, project, words[p.Name], views); failed != nil {
		p.miss()
		return failed
	}
	p.tell(views)
	p.said = views
	return err
}

// say says views, by a word that is newer than its own last and the vault's.
func (p *Post) say(ctx context.Context, project *vault.Project, last Word, views []View) error {
	p.number = max(p.number+1, last.Number+1, p.Now().UnixMilli())
	return Say(ctx, project, Word{Vantage: p.Name, Cluster: p.Cluster, Process: p.process, Number: p.number, At: p.Now().UTC(), Views: views})
}

// live says that it lives, and nothing of others, although something of the vault
// cannot be read: who has spoken once and falls silent is taken for lost. What
// keeps it from doing so is the vault's trouble, which the caller reports.
func (p *Post) live(ctx context.Context, project *vault.Project) {
	p.miss()
	words := map[string]Word{}
	switch last, err := hear(ctx, project, p.Name); {
	case err == nil:
		words[p.Name] = last
	case errors.Is(err, vault.ErrNotFound) && p.number == 0: // it never spoke, and need not
		return
	case !errors.Is(err, vault.ErrNotFound) && !errors.Is(err, vault.ErrDamaged):
		return
	}
	if !p.yields(p.Now().Sub(p.begun), words) {
		_ = p.say(ctx, project, words[p.Name], nil)
	}
}

// yields tells whether another process speaks under the name.
func (p *Post) yields(now time.Duration, words map[string]Word) bool {
	w, ok := words[p.Name]
	if !ok || w.Process == p.process {
		p.own = rival{}
		return false
	}
	if !p.own.seen || p.own.process != w.Process || w.Number > p.own.number {
		p.own = rival{process: w.Process, number: w.Number, since: now, seen: true}
	}
	return now-p.own.since < yield
}

// probe asks what the plans ask of sites that give no sign of life: one that
// answers lives.
func (p *Post) probe(ctx context.Context, plans []*plan.Plan, views []View) {
	if p.Ask == nil {
		return
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range views {
		v := &views[i]
		if v.View == declare.Alive {
			continue
		}
		for _, pl := range plans {
			check, ok := pl.Declaration.Probes[v.Site]
			if !ok {
				continue
			}
			check.Timeout = min(check.Timeout, patience)
			all.Go(func() {
				err := p.Ask(ctx, check)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					v.Answers = append(v.Answers, pl.Name)
					return
				case v.View == declare.Lost && len(v.Why) < maxWhy:
					v.Why += "; " + short(err.Error())
				}
				v.Silent = append(v.Silent, pl.Name)
			})
		}
	}
	all.Wait()
	for i := range views {
		slices.Sort(views[i].Answers)
		slices.Sort(views[i].Silent)
	}
}

func short(s string) string {
	if len(s) > maxWhy/2 {
		s = strings.ToValidUTF8(s[:maxWhy/2], "")
	}
	return s
}

// tell logs what changed.
func (p *Post) tell(views []View) {
	for _, v := range views {
		i := slices.IndexFunc(p.said, func(old View) bool { return old.Site == v.Site })
		if i < 0 || p.said[i].View != v.View {
			p.Log.Info("vantage point: a site", "vantage", p.Name, "site", v.Site, "view", v.View, "why", v.Why, "answers", v.Answers)
		}
	}
}
