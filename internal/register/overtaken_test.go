package register_test

import (
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/register"
	"davit.dev/davit/internal/vault"
)

// TestARunWhoseTargetIsLostKeepsNoOtherFromBeginning: it is carried at its target alone, so that nobody
// ends it. Once its applications were claimed by others, it moves none of them any more. The controls are runs that
// may: whose claim stands, that lack one application, as those that have begun to claim, of which something was heard not long ago, and whose target
// lives, as one that waits for its commit there; and one of which an epoch cannot be read, which ends no start of others.
func TestARunWhoseTargetIsLostKeepsNoOtherFromBeginning(t *testing.T) {
	for name, tt := range map[string]struct {
		by, request string // who claimed since; empty: nobody
		silent      time.Duration
		lives       time.Duration // how long ago its target gave a sign of life; zero: never
		damaged     bool          // the newest epoch
		blank       bool          // it never came to look at the sites
		idle        bool          // it did, and has begun no step
		left        bool          // out
	}{
		"taken over by the source": {by: "east", request: "restore", silent: time.Hour, left: true},
		"given back by itself":     {by: "east", request: "one" + lease.GivenBack, silent: time.Hour, left: true},
		"its target is lost":       {by: "east", request: "restore", silent: time.Hour, lives: time.Hour, left: true},
		"its target lives":         {by: "east", request: "restore", silent: time.Hour, lives: time.Minute},
		"its own claim":            {by: "west", request: "one", silent: time.Hour},
		"nobody claimed":           {silent: time.Hour},
		"a moment ago":             {by: "east", request: "restore", silent: time.Minute},
		"no epoch can be read":     {by: "east", request: "restore", silent: time.Hour, damaged: true},

		"it never looked":                          {silent: time.Hour, blank: true, left: true},
		"it never looked, and may yet":             {silent: time.Minute, blank: true},
		"it never looked, and its target lives":    {silent: time.Hour, lives: time.Minute, blank: true},
		"it never looked, and its target does not": {silent: time.Hour, lives: 10 * time.Minute, blank: true, left: true},

		"it began nothing":                       {silent: time.Hour, idle: true, left: true},
		"it began nothing, and may yet":          {silent: time.Minute, idle: true},
		"it began nothing, and its target lives": {silent: time.Hour, lives: time.Minute, idle: true},
	} {
		p, _, now := faultyProject(t)
		claim := func(n int64, site, request string) {
			t.Helper()
			if _, err := lease.New(p).Claim(t.Context(), "db", n, lease.Claim{Site: site, Request: request, At: *now}); err != nil {
				t.Fatal(err)
			}
		}
		claim(1, "east", "first")
		begun(t, p, "one")
		j, _, err := journal.Open(t.Context(), p, "one", "test2")
		if err != nil {
			t.Fatal(err)
		}
		facts := &failover.Facts{Epochs: map[string]failover.Held{"db": {Number: 1, Site: "east"}}}
		entries := []failover.Entry{
			{Kind: failover.Took, By: "test2"}, {Kind: failover.Evaluated, Facts: facts}, {Kind: failover.Approved, By: "bob"}, {Kind: failover.Intended, Step: "claim/db"},
		}
		switch {
		case tt.blank:
			entries = entries[:1]
		case tt.idle:
			entries = entries[:3]
		}
		if err := j.Append(t.Context(), entries); err != nil {
			t.Fatal(err)
		}
		if tt.by != "" {
			claim(2, tt.by, tt.request)
		}
		if tt.damaged {
			if err := p.Store().Put(t.Context(), newestEpoch(t, p), strings.NewReader("damaged"), 7); err != nil {
				t.Fatal(err)
			}
		}
		*now = now.Add(tt.silent - tt.lives)
		if tt.lives > 0 {
			if err := p.Heartbeat(t.Context(), vault.SiteStatus{Site: "west"}); err != nil {
				t.Fatal(err)
			}
		}
		*now = now.Add(tt.lives)
		states, err := register.New(p).States(t.Context(), "shop", "")
		if err != nil || (names(states) == "") != tt.left {
			t.Errorf("%s: under way: %q, %v", name, names(states), err)
		}
	}
}

func newestEpoch(t *testing.T, p *vault.Project) (key string) {
	t.Helper()
	err := p.Store().List(t.Context(), p.Root()+"epochs/", func(o vault.ObjectInfo) error {
		key = o.Key
		return nil
	})
	if err != nil || key == "" {
		t.Fatal("no epoch", err)
	}
	return key
}
