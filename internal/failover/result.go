package failover

import (
	"time"

	"davit.dev/davit/internal/plan"
)

// Result is what a run reports: measured, step by step.
type Result struct {
	Run          string              `json:"run"`
	Plan         string              `json:"plan"`
	Verb         plan.Verb           `json:"verb"`
	State        Phase               `json:"state"`
	Why          string              `json:"why,omitempty"`
	Level        string              `json:"level,omitempty"`   // the weakest fence that was relied on
	Unheard      string              `json:"unheard,omitempty"` // see Facts
	Applications []ApplicationResult `json:"applications"`
	Steps        []StepResult        `json:"steps"`
	// Remaining is what people have to see to once the run is over.
	Remaining []Remaining `json:"remaining,omitempty"`
}

// ApplicationResult is what a run reports of an application.
type ApplicationResult struct {
	Name  string `json:"name"`
	Epoch int64  `json:"epoch,omitempty"`
	Level string `json:"level,omitempty"`
	// Fences say per former holder what was relied on.
	Fences map[string]string `json:"fences,omitempty"`
	Point  string            `json:"point,omitempty"`
	// RPO is how much of the application's time is lost. Lossless says that it
	// is zero because the source gave its last write.
	RPO      time.Duration `json:"rpo"`
	Lossless bool          `json:"lossless,omitempty"`
	RPOKnown bool          `json:"rpoKnown"`
	// RTO counts from when the run was asked for until the application was
	// ready, probed and reached. Zero while it is not.
	RTO time.Duration `json:"rto"`
}

// StepResult is what a run reports of a step.
type StepResult struct {
	Name     string        `json:"name"`
	Status   Status        `json:"status,omitempty"`
	Begun    time.Time     `json:"begun,omitzero"`
	Took     time.Duration `json:"took"`
	Attempts int           `json:"attempts"`
	Note     string        `json:"note,omitempty"`
	Undone   bool          `json:"undone,omitempty"`
	// Left says that a roll-back left it as it is, as somebody had claimed since, or leads it by hand; Note says who.
	Left  bool   `json:"left,omitempty"`
	Point string `json:"point,omitempty"` // that was made or restored
	Moved *Moved `json:"moved,omitempty"` // of volumes
}

// Result computes the report of a run.
func (s *State) Result() Result {
	r := Result{Run: s.Spec.Run, Plan: s.Spec.Plan, Verb: s.Spec.Verb, State: s.Shown(), Why: s.Why, Unheard: s.Unheard, Remaining: s.Remaining()}
	if s.Pause != nil && r.Why == "" {
		r.Why = s.Pause.Why
	}
	weakest := Proven
	for _, app := range s.Spec.Applications {
		a := s.application(app)
		if s.Spec.Verb.Moves() {
			weakest = min(weakest, s.Level(app))
			a.Level = s.Level(app).String()
		}
		r.Applications = append(r.Applications, a)
	}
	if s.Spec.Verb.Moves() {
		r.Level = weakest.String()
	}
	for _, step := range s.Spec.Steps {
		st := s.Steps[step.Name]
		result := StepResult{Name: step.Name, Status: st.Status, Begun: st.Begun, Took: st.Took, Attempts: st.Attempts, Note: st.Note, Undone: st.Undid && !st.Stands, Left: s.remains(step), Moved: st.Moved}
		if st.Point != nil {
			result.Point = st.Point.ID
		}
		r.Steps = append(r.Steps, result)
	}
	return r
}

func (s *State) application(app string) ApplicationResult {
	a := ApplicationResult{Name: app, Epoch: s.Epochs[app]}
	for _, site := range s.Facts.Holders[app] {
		if a.Fences == nil {
			a.Fences = map[string]string{}
		}
		a.Fences[site] = s.Fences[app][site].Level.String()
	}
	var up time.Time
	var synced *Point
	ready := false
	for _, step := range s.Spec.Steps {
		st := s.Steps[step.Name]
		if step.Application != app && step.Application != "" {
			continue
		}
		switch step.Kind {
		case plan.KindRestore, plan.KindPromote, plan.KindClone:
			s.lost(&a, st, synced)
		case plan.KindSync:
			a.Lossless, synced = st.Status == Succeeded, st.Point
		case plan.KindReady, plan.KindProbe, plan.KindDNS, plan.KindGate:
			if st.Status == Succeeded && st.End.After(up) {
				up = st.End
			}
			ready = ready || step.Kind == plan.KindReady && st.Status == Succeeded
		}
	}
	if ready {
		a.RTO = max(0, up.Sub(s.Spec.At))
	}
	return a
}

// lost measures the RPO by the point that the data came from.
func (s *State) lost(a *ApplicationResult, data *StepState, synced *Point) {
	if data.Point == nil || data.Status != Succeeded {
		return
	}
	lostAt := s.Spec.LostAt
	if lostAt.IsZero() {
		lostAt = s.Spec.At
	}
	a.Point, a.RPOKnown = data.Point.ID, true
	if synced != nil && data.Point.Instant.Before(synced.Instant) {
		a.Lossless = false // an older point was chosen
	}
	if !a.Lossless {
		a.RPO = max(0, lostAt.Sub(data.Point.Instant))
	}
}
