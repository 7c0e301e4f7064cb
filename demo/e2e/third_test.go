package e2e

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"
)

// What a third site changes is in docs/plans.md, "Three sites and more". It is seen here where it costs
// least: while others wait for what is said of a site that comes and goes.

// thirdSite brings north up meanwhile, which is gone when the test ends. up has Davit put there, once it is
// up, and it join the vault of all tests; joined waits for that.
func thirdSite(t *testing.T) (up, joined func()) {
	t.Helper()
	began := time.Now()
	ready := make(chan error, 1)
	go func() { ready <- rig.AddSite(t.Context(), north) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Minute)
		defer cancel()
		if err := rig.Bed.RemoveSite(ctx, north); err != nil {
			t.Errorf("take %s away: %v", north, err)
		}
	})
	var member chan error
	up = func() {
		t.Helper()
		if err := <-ready; err != nil {
			t.Fatalf("bring %s up: %v", north, err)
		}
		t.Logf("%s was wanted %s after its begin, and is up", north, time.Since(began).Round(time.Second))
		member = make(chan error, 1)
		go func() {
			err := rig.Equip(t.Context(), north)
			if err == nil {
				err = rig.Settled(t.Context(), north)
			}
			if err == nil {
				err = addCommon(t.Context(), north, "--join")
			}
			member <- err
		}()
	}
	joined = func() {
		t.Helper()
		defer took(t, time.Now(), north+" joins")
		if err := <-member; err != nil {
			t.Fatalf("have %s join: %v", north, err)
		}
	}
	return up, joined
}

// watchedByThree has north know the plan, and waits until it is a vantage point. Readiness has a row for each site
// that the application could go to.
func (s *till) watchedByThree(t *testing.T, file string) {
	t.Helper()
	kubectl(t, north, "apply", "-f", file)
	eventually(t, 3*time.Minute, "west hears that north sees east", func() (bool, string) {
		got := try(t, west, "get", "recoveryplan", s.name, "-o", `jsonpath={range .status.declaration.observers[*]}{.name}={.view} {.why}; {end}`)
		return strings.Contains(got, "north=alive"), got
	})
	if got := try(t, north, "get", "recoveryplan", s.name, "-o", `jsonpath={.status.conditions[?(@.type=="Declares")].reason}`); got != "" {
		t.Errorf("north says %q of declaring: west is the next, and never two are", got)
	}
	var ready struct {
		Applications []struct{ Application, Site string }
	}
	davit(t, west, s.vault, "readiness", s.name, "-o", "json").want(t, 0).read(t, &ready)
	var sites []string
	for _, row := range ready.Applications {
		sites = append(sites, row.Site)
	}
	if slices.Sort(sites); !slices.Equal(sites, []string{north, west}) {
		t.Errorf("readiness has rows for %v", sites)
	}
}

// onToTheThird moves what was failed over to west on to north, while east, where it came from, lives: east and west
// both stop for good under north's epoch, nothing that west ever acknowledged is lost, never do two write, and all three sites show the
// same recovery points.
func (s *till) onToTheThird(t *testing.T, file, over string) {
	t.Helper()
	var point time.Time
	for _, p := range s.points(t, west) {
		if p.ID == s.run(t, over).Applications[0].Point {
			point = p.Instant
		}
	}
	s.sells(t, west)
	davit(t, north, s.vault, "failback", "-f", file, "--dry-run").want(t, 3, "site north never ran it", "use switchover")
	davit(t, north, s.vault, "switchover", "-f", file, "--lost", west, "--dry-run").want(t, 3, "goes from that site")
	davit(t, north, s.vault, "switchover", "-f", file, "--dry-run").want(t, 0, "from site west to site north", "Nothing is lost")
	var r runView
	davit(t, north, s.vault, "switchover", "-f", file, "--yes", "-o", "json").want(t, 0).read(t, &r)
	if r.State != "AwaitingCommit" || r.Applications[0].Epoch != 4 || r.Level != "proven" && r.Level != "timed-out lease" {
		t.Fatalf("%+v", r)
	}
	t.Logf("RTO of the move on to north: %s, fence %s", r.Applications[0].RTO, r.Level)
	s.sells(t, north)
	s.neverBoth(t, west, north)
	s.neverBoth(t, east, north)
	theirs := s.at(west)
	for _, ack := range s.kept(t, north, point) {
		if slices.Contains(theirs, ack) {
			t.Errorf("order %d, acknowledged at west, was lost in peace", ack.ID)
		}
	}
	davit(t, north, s.vault, "runs", "commit", r.Run).want(t, 0, "Completed")
	for _, site := range []string{east, west} {
		eventually(t, 3*time.Minute, site+" is fenced at the epoch of north, and runs nothing", func() (bool, string) {
			got := s.status(t, site, "role") + " " + s.status(t, site, "epoch") + " " + s.replicas(t, site)
			return got == "Superseded 4 0", got
		})
	}
	s.sameEverywhere(t, r.stepOf("sync/"+s.name).Point)
}

// run is what the vault knows of a run.
func (s *till) run(t *testing.T, name string) (r runView) {
	t.Helper()
	davit(t, west, s.vault, "runs", "show", name, "-o", "json").want(t, 0).read(t, &r)
	return r
}

// sameEverywhere waits until all three sites show the same points, this one among them.
func (s *till) sameEverywhere(t *testing.T, want string) {
	t.Helper()
	eventually(t, 3*time.Minute, "all three sites show the same recovery points", func() (bool, string) {
		var shown []string
		for _, site := range []string{east, west, north} {
			var ids []string
			for _, p := range s.points(t, site) {
				if p.Phase == "Available" {
					ids = append(ids, p.ID)
				}
			}
			slices.Sort(ids)
			shown = append(shown, strings.Join(ids, " "))
		}
		same := len(slices.Compact(slices.Clone(shown))) == 1
		return same && want != "" && strings.Contains(shown[0], want), strings.Join(shown, "; ")
	})
}
