package restoration

import (
	"encoding/json"
	"fmt"
	"time"

	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/uplink"
)

// Shown is a restore that was asked for, as people and the API have it.
type Shown struct {
	ID          string `json:"id"`
	Application string `json:"application"`
	Point       string `json:"point"`
	Site        string `json:"site"`
	DryRun      bool   `json:"dryRun,omitempty"`
	// Name is what the Restore is called at the site, if it is begun.
	Name           string            `json:"name"`
	Clone          bool              `json:"clone,omitempty"`
	Namespaces     map[string]string `json:"namespaces,omitempty"`
	StorageClasses map[string]string `json:"storageClasses,omitempty"`
	Existing       string            `json:"existing"`
	By             string            `json:"by"`
	Reason         string            `json:"reason,omitempty"`
	At             time.Time         `json:"at"`
	Until          time.Time         `json:"until"`
	// State is asked (the site has not answered), unknown (nor in time), refused,
	// planned, running, completed, warned, failed or canceled.
	State string `json:"state"`
	// Cancelable says that it has not begun, as far as is known, and can be taken back;
	// Canceling that somebody asked for that, and the site has not answered.
	Cancelable bool `json:"cancelable,omitempty"`
	Canceling  bool `json:"canceling,omitempty"`
	// Over says that nothing more will be said of it.
	Over bool   `json:"over"`
	Why  string `json:"why,omitempty"`
	Do   string `json:"do,omitempty"`
	// Preview is what a dry run found, and Outcome what a restore did so far.
	Preview *uplink.Preview `json:"preview,omitempty"`
	Outcome *uplink.Outcome `json:"outcome,omitempty"`
	// Command does the same without the console, with the site's kubeconfig.
	Command string `json:"command"`
}

// States besides those that sites say.
const (
	Waiting = "asked"
	Unknown = "unknown"
)

// Blocked tells whether a dry run found what stops a restore.
func (s Shown) Blocked() bool {
	if s.Preview == nil {
		return false
	}
	for _, c := range s.Preview.Checks {
		if c.Severity == "error" {
			return true
		}
	}
	return false
}

// Show says how a restore stands. What a site said of a cluster's objects is for those
// alone who may restore: of others, it is left out.
func Show(r store.Restoration, now time.Time, whole bool) (Shown, error) {
	var o uplink.Restore
	if err := json.Unmarshal(r.Body, &o); err != nil {
		return Shown{}, fmt.Errorf("read restore %s: %w", r.ID, err)
	}
	s := Shown{
		ID: r.ID, Application: r.Application, Point: r.Point, Site: r.Site, DryRun: r.Dry, Name: r.Name, Clone: o.Clone, Namespaces: o.Namespaces, StorageClasses: o.StorageClasses,
		Existing: o.Existing, By: o.By, Reason: o.Reason, At: r.At, Until: r.Until, State: r.State, Over: r.Over(), Why: r.Why, Do: r.Do,
	}
	s.Command = Ask{Application: r.Application, Point: r.Point, Clone: o.Clone, Namespaces: o.Namespaces, StorageClasses: o.StorageClasses, Existing: o.Existing, DryRun: r.Dry}.Command()
	switch {
	case s.State == "" && r.Open(now):
		s.State, s.Why = Waiting, "the site's agent has not answered yet"
		if r.Dry {
			s.Why += ": it reads the point and what is there, which may take minutes"
		}
	case s.State == "" && r.Dry && now.Before(r.Until.Add(dryRuns)):
		s.State, s.Why = Waiting, "the site's agent has not answered yet: it may still be reading the point and what is there"
	case s.State == "":
		s.State, s.Why = Unknown, "the site's agent did not answer in time: it begins it no more, but may have begun it before"
		s.Do = "`kubectl -n davit-system get restore " + r.Name + "` with the kubeconfig of site " + r.Site + " says whether it has; the agent says so here too, when it is back"
		if r.Dry {
			s.Why, s.Do = "the site's agent did not answer in time", "ask again, when it is back"
		}
	}
	if !r.Dry && !s.Over {
		s.Cancelable, s.Canceling = !o.Cancel && !begun(r), o.Cancel && !begun(r)
		switch {
		case s.Canceling:
			s.Why = "the site's agent is asked to take it back, and has not answered yet"
		case o.Cancel:
			s.Why = "it had begun when it was to be taken back: it goes on"
		case s.State == uplink.Running && s.Cancelable:
			s.Why = "it waits at the site for others that run there"
		}
	}
	if len(r.Outcome) > 0 {
		s.Outcome = &uplink.Outcome{}
		if err := json.Unmarshal(r.Outcome, s.Outcome); err != nil {
			return s, fmt.Errorf("read restore %s: %w", r.ID, err)
		}
	}
	if s.Outcome != nil && !whole { // they name objects
		s.Outcome.More, s.Outcome.Warnings = s.Outcome.More+int64(len(s.Outcome.Warnings)), nil
	}
	if len(r.Preview) > 0 && whole {
		s.Preview = &uplink.Preview{}
		if err := json.Unmarshal(r.Preview, s.Preview); err != nil {
			return s, fmt.Errorf("read restore %s: %w", r.ID, err)
		}
	}
	if whole && r.Dry && r.State == uplink.Planned && len(r.Preview) == 0 {
		s.Why, s.Do = "what it found was lost with the console that had it: the vault does not keep it", "ask again"
	}
	return s, nil
}

// dryRuns is how much longer than to its beginning a dry run is waited for.
const dryRuns = 12 * time.Minute
