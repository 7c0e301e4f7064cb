package planning

import (
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/plan"
)

// Problem is one thing that is wrong.
type Problem struct {
	Where string `json:"where"`
	What  string `json:"what"`
	Do    string `json:"do"`
}

// Verdict is what `plan validate` found.
type Verdict struct {
	Plan     string    `json:"plan"`
	Valid    bool      `json:"valid"`
	Problems []Problem `json:"problems"`
	// Steps is how many steps a run has, by verb.
	Steps map[string]int `json:"steps,omitempty"`
}

func verdict(p *plan.Plan) Verdict {
	v := Verdict{Plan: p.Name, Problems: []Problem{}}
	for _, problem := range p.Check() {
		v.Problems = append(v.Problems, Problem(problem))
	}
	v.Valid = len(v.Problems) == 0
	if !v.Valid {
		return v
	}
	v.Steps = map[string]int{}
	for _, verb := range plan.Verbs() {
		if g, err := p.Graph(verb); err == nil {
			v.Steps[string(verb)] = len(g.Steps)
		}
	}
	return v
}

// Document implements output.Result.
func (v Verdict) Document() any { return v }

// Text implements output.Result.
func (v Verdict) Text(t *output.Text) {
	if v.Valid {
		t.Line("Plan %s is valid: %d steps in a failover, %d in a switchover, %d in a drill.", v.Plan, v.Steps["failover"], v.Steps["switchover"], v.Steps["drill"])
		return
	}
	t.Line("Plan %s has %s:", v.Plan, output.Plural(int64(len(v.Problems)), "problem"))
	for _, p := range v.Problems {
		t.Line("- %s: %s: %s", p.Where, p.What, p.Do)
	}
}

// Step is one step of a drawing.
type Step struct {
	Name       string   `json:"name"`
	Kind       string   `json:"kind"`
	Wave       int      `json:"wave"`
	Side       string   `json:"side"`
	Timeout    string   `json:"timeout"`
	OnError    string   `json:"onError"`
	AfterFence bool     `json:"afterFence,omitempty"`
	NoWayBack  bool     `json:"noWayBack,omitempty"`
	After      []string `json:"after,omitempty"`
}

// Drawing is a plan's graph.
type Drawing struct {
	Plan  string `json:"plan"`
	Verb  string `json:"verb"`
	Steps []Step `json:"steps"`
	text  string
}

func drawing(g *plan.Graph) Drawing {
	d := Drawing{Plan: g.Plan, Verb: string(g.Verb), text: g.Text()}
	for wave, indices := range g.Waves {
		for _, i := range indices {
			s := g.Steps[i]
			d.Steps = append(d.Steps, Step{s.Name, string(s.Kind), wave + 1, string(s.Side), s.Timeout.String(), string(s.OnError), s.Activates(), s.NoWayBack, s.After})
		}
	}
	return d
}

// Document implements output.Result.
func (d Drawing) Document() any { return d }

// Text implements output.Result.
func (d Drawing) Text(t *output.Text) { t.Line("%s", d.text) }

// Change is one difference.
type Change struct {
	Path string `json:"path"`
	Old  string `json:"old,omitempty"`
	New  string `json:"new,omitempty"`
	line string
}

// Changes is what `plan diff` found.
type Changes struct {
	Changes []Change `json:"changes"`
}

func changes(old, now *plan.Plan) Changes {
	c := Changes{Changes: []Change{}}
	for _, change := range plan.Diff(old, now) {
		c.Changes = append(c.Changes, Change{change.Path, change.Old, change.New, change.String()})
	}
	return c
}

// Document implements output.Result.
func (c Changes) Document() any { return c }

// Text implements output.Result.
func (c Changes) Text(t *output.Text) {
	if len(c.Changes) == 0 {
		t.Line("The plans say the same.")
	}
	for _, change := range c.Changes {
		t.Line("%s", change.line)
	}
}
