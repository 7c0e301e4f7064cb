package fleet

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/console/ahead"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/protection"
)

// book is what is remembered of a project, from round to round and over restarts.
type book struct {
	mu    sync.Mutex
	head  head
	apps  map[string]*memo
	sites map[string]*place
	runs  map[string]*tale
	ahead *ahead.View
	// stocked says that sites and runs are known: what is read of applications can be shown.
	stocked bool
	// changed are the names under which something has changed since it was kept.
	changed map[string]bool
}

// head is what a snapshot says beside its parts.
type head struct {
	Project string    `json:"project"`
	Vault   string    `json:"vault"`
	At      time.Time `json:"at"`
	Took    int64     `json:"tookMillis"`
	Calls   int64     `json:"calls"`
	Copy    bool      `json:"copy,omitempty"`
	// Whole is when the round began after which all was known; what was read in it, or
	// later, was known as of then, also if it has not been written down since.
	Whole time.Time `json:"whole,omitzero"`
}

// memo is what is remembered of an application. Nobody changes one that is in the book.
type memo struct {
	Application
	Seen    []*sighting                    `json:"seen"` // points, by id
	Spec    *v1alpha1.ProtectionPolicySpec `json:"spec,omitempty"`
	History []point.Epoch                  `json:"history,omitempty"`
	Marks   marks                          `json:"marks"`

	all    []Point   // as they are shown
	judged time.Time // when retention was
	filled time.Time // when it was read last, as far as something was new
	tried  time.Time // when it was looked at last, with whatever outcome
}

// marks stand for what an application consisted of when it was read.
type marks struct{ Points, Epochs, Documents uint64 }

// sighting is a recovery point as it was read.
type sighting struct {
	Mark        uint64 `json:"mark"`
	Point       Point  `json:"point"`
	Quarantined bool   `json:"quarantined,omitempty"` // by a mark
	Deleting    bool   `json:"deleting,omitempty"`
	Damaged     bool   `json:"damaged,omitempty"`
	Why         string `json:"why,omitempty"` // it is damaged, or quarantined
}

// place is what is remembered of a site.
type place struct {
	Site
	Mark uint64    `json:"mark"`
	Read time.Time `json:"read"`
}

// tale is what is remembered of a run.
type tale struct {
	Run
	Mark uint64 `json:"mark"`
	read time.Time
}

func newBook() *book {
	return &book{apps: map[string]*memo{}, sites: map[string]*place{}, runs: map[string]*tale{}, changed: map[string]bool{}}
}

// doubtful tells whether something of it was damaged, or could not be opened: that may
// be over though the vault lists the same.
func (m *memo) doubtful() bool {
	return m.Fault != "" || slices.ContainsFunc(m.Seen, func(s *sighting) bool { return s.Damaged })
}

// judgeEvery is how often it is judged anew what retention keeps of an application of
// which nothing has changed.
const judgeEvery = time.Minute

// judge says what people see of the points, newest first.
func (m *memo) judge(now time.Time) {
	m.judged = now
	summaries := make([]point.Point, 0, len(m.Seen))
	byID := make(map[string]*sighting, len(m.Seen))
	for _, s := range m.Seen {
		p := s.Point
		summaries = append(summaries, point.Point{
			ID: p.ID, Instant: p.Instant, Epoch: p.Epoch, Consistency: point.Consistency(p.Consistency), Verified: p.Verified, Pinned: p.Pinned,
			Quarantined: s.Quarantined, Deleting: s.Deleting, Damaged: s.Damaged,
		})
		byID[p.ID] = s
	}
	var rules point.Retention
	if m.Spec != nil {
		rules = protection.Rules(*m.Spec)
	}
	all := make([]Point, 0, len(m.Seen))
	for _, d := range point.Keep(point.Quarantine(summaries, m.History), rules, now) {
		p := byID[d.Point.ID].shown(d.Point)
		p.Kept, p.Because = d.Keep, d.Reason
		if !d.Until.IsZero() {
			p.Until = d.Until.UTC()
		}
		all = append(all, p)
	}
	if m.all == nil || !slices.Equal(all, m.all) {
		m.all = all
	}
}

func (s *sighting) shown(judged point.Point) Point {
	p := s.Point
	p.Good = judged.Good()
	switch {
	case judged.Deleting:
		p.Why = "it is being deleted"
	case judged.Damaged && s.Why != "":
		p.Why = "damaged: " + s.Why
	case judged.Damaged:
		p.Why = "damaged"
	case s.Quarantined:
		p.Why = "quarantined: " + s.Why
	case judged.Quarantined:
		p.Why = "written under an epoch that had been superseded"
	}
	return p
}

// mostWhole is how many runs of a plan that are over are kept with their steps, and
// mostRuns how many are kept at all: the newest. Those that are not over are kept
// always.
const (
	mostWhole = 20
	mostRuns  = 1000
)

// snapshot is what is known now. Nobody changes it any more.
func (b *book) snapshot() *Snapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.head
	s := &Snapshot{Project: h.Project, Vault: h.Vault, At: h.At, Took: h.Took, Calls: h.Calls, Copy: h.Copy, Sites: []Site{}, Applications: []Application{}, Runs: []Run{}, Ahead: b.ahead}
	holds := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(b.apps)) {
		m := b.apps[name]
		a := m.Application
		a.Points = m.all
		if a.Points == nil {
			a.Points = []Point{}
		}
		if a.Unread {
			s.Unread++
		}
		s.Applications = append(s.Applications, a)
		holds[a.Site] = append(holds[a.Site], name)
	}
	for _, name := range slices.Sorted(maps.Keys(b.sites)) {
		site := b.sites[name].Site
		site.Holds = append([]string{}, holds[name]...)
		s.Sites = append(s.Sites, site)
	}
	s.Runs, s.Earlier = b.shownRuns()
	return s
}

// shownRuns are the runs that are shown, newest first, and how many are not.
func (b *book) shownRuns() (all []Run, earlier int) {
	all = make([]Run, 0, len(b.runs))
	for _, name := range slices.Sorted(maps.Keys(b.runs)) {
		all = append(all, b.runs[name].Run)
	}
	slices.SortStableFunc(all, func(a, b Run) int { return b.Begun.Compare(a.Begun) })
	over := 0
	all = slices.DeleteFunc(all, func(r Run) bool {
		if r.Over {
			over++
		}
		return r.Over && over > mostRuns
	})
	return all, max(0, over-mostRuns)
}

// ended is how many runs are known to be over.
func (b *book) ended() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.runs {
		if r.Over {
			n++
		}
	}
	return n
}

// briefly is a run that is over without what takes room.
func briefly(r Run) Run {
	r.Brief, r.Planned, r.Steps = true, nil, []failover.StepResult{}
	return r
}

// What a book is kept under: its head, the names of what it has, and each of that.
const (
	headName  = "fleet"
	namesName = "fleet/names"
	aheadName = "fleet/ahead"
	appsName  = "fleet/applications/"
	sitesName = "fleet/sites/"
	runsName  = "fleet/runs/"
)

// names are what a book has.
type names struct {
	Applications []string `json:"applications"`
	Sites        []string `json:"sites"`
	Runs         []string `json:"runs"`
}

// unkept returns all that has changed since it was asked last, as it is to be kept;
// empty: it is gone.
func (b *book) unkept() (map[string][]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changed[headName] = true
	out := make(map[string][]byte, len(b.changed))
	for name := range b.changed {
		data, err := json.Marshal(b.part(name))
		if err != nil {
			return nil, err
		}
		if string(data) == "null" {
			data = []byte{}
		}
		out[name] = data
	}
	clear(b.changed)
	return out, nil
}

func (b *book) part(name string) any {
	switch name {
	case headName:
		return b.head
	case namesName:
		return names{slices.Sorted(maps.Keys(b.apps)), slices.Sorted(maps.Keys(b.sites)), slices.Sorted(maps.Keys(b.runs))}
	case aheadName:
		return b.ahead
	}
	if app, ok := strings.CutPrefix(name, appsName); ok {
		return b.apps[app]
	}
	if site, ok := strings.CutPrefix(name, sitesName); ok {
		return b.sites[site]
	}
	return b.runs[strings.TrimPrefix(name, runsName)]
}

// again has it kept with the next.
func (b *book) again(all map[string][]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name := range all {
		b.changed[name] = true
	}
}

// restore takes up what was kept. What cannot be read is learned again. It tells
// whether there is anything.
func (b *book) restore(kept func(name string) []byte, now time.Time) bool {
	into := func(name string, v any) bool { return json.Unmarshal(kept(name), v) == nil }
	var n names
	if !into(headName, &b.head) || !into(namesName, &n) {
		return false
	}
	for _, name := range n.Applications {
		var m memo
		if into(appsName+name, &m) && m.Name == name {
			if !m.Unread && m.Read.Before(b.head.Whole) {
				m.Read = b.head.Whole
			}
			if !m.Unread {
				m.judge(now)
			}
			b.apps[name] = &m
		}
	}
	for _, name := range n.Sites {
		var p place
		if into(sitesName+name, &p) && p.Name == name {
			b.sites[name] = &p
		}
	}
	for _, name := range n.Runs {
		var t tale
		if into(runsName+name, &t) && t.Run.Run == name {
			b.runs[name] = &t
		}
	}
	if !into(aheadName, &b.ahead) {
		b.ahead = nil
	}
	b.stocked = true
	return true
}
