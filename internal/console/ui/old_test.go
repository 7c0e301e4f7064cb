package ui

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/vault"
)

// What is said of what is known is what is so: a vault that is read is not silent, what
// is not read yet is neither protected nor lost, and what is old has its age.
func TestSaysWhatIsTrue(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	good := []fleet.Point{{Good: true, Instant: now, Verified: now}}
	s := &fleet.Snapshot{At: now, Applications: []fleet.Application{{Name: "shop", Read: now, Points: good}, {Name: "wiki", Read: now.Add(-9 * time.Minute), Points: good, Stale: "not now"}}}
	half := *s
	half.Unread, half.Applications = 1, append(half.Applications[:2:2], fleet.Application{Name: "mail", Unread: true})
	shows := func(k fleet.Known) string {
		t.Helper()
		d := fleetData{seen: seen{Known: k, Now: now}}
		if k.Snapshot != nil {
			d.Verdict, d.Tone = verdict(k.Snapshot, now)
			d.Applications = k.Snapshot.Applications
		}
		var out strings.Builder
		if err := pages.ExecuteTemplate(&out, "fleet", page{Project: "acme", User: "vera", Data: d}); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	const silent, old = "The vault is silent", "not whole, or old"
	for name, c := range map[string]struct {
		known fleet.Known
		says  []string
		never []string
	}{
		"well":              {fleet.Known{Snapshot: s}, []string{"All 2 applications are protected.", "as of 9 m ago"}, []string{silent, old, "not read yet"}},
		"begun":             {fleet.Known{Unread: true, Reading: now}, []string{"is being read for the first time"}, []string{"silent", "not answered"}},
		"since the restart": {fleet.Known{Snapshot: s, Unread: true}, []string{old, "since the console started"}, []string{silent}},
		"half":              {fleet.Known{Snapshot: &half, Unread: true}, []string{old, "2 of 3 applications have been read so far", "1 have not been read yet", "not read yet"}, []string{silent, "could not be recovered"}},
		"silent":            {fleet.Known{Snapshot: s, Fault: "the vault did not answer within 1m0s"}, []string{silent, "within 1m0s"}, []string{old}},
	} {
		text := shows(c.known)
		for _, says := range c.says {
			if !strings.Contains(text, says) {
				t.Errorf("%s: no %q in %s", name, says, text)
			}
		}
		for _, says := range c.never {
			if strings.Contains(text, says) {
				t.Errorf("%s: it says %q", name, says)
			}
		}
	}
}

// A run that is not known with its steps is read when it is looked at.
func TestRunOnDemand(t *testing.T) {
	brief := fleet.Run{Result: failover.Result{Run: "old"}, Over: true, Brief: true}
	s := &fleet.Snapshot{Runs: []fleet.Run{{Result: failover.Result{Run: "new"}, Over: true}, brief}, Earlier: 1}
	var asked []string
	err := error(nil)
	v := &visit{r: httptest.NewRequest("GET", "/", nil), Server: &Server{Run: func(_ context.Context, _ *store.Project, name string) (fleet.Run, error) {
		asked = append(asked, name)
		return fleet.Run{Result: failover.Result{Run: name, Steps: []failover.StepResult{{Name: "restore"}}}}, err
	}}}
	look := func(name string, steps int, want error) {
		t.Helper()
		r, err := v.runNow(s, name)
		if !errors.Is(err, want) || err == nil && len(r.Steps) != steps {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	look("new", 0, nil)
	look("old", 1, nil)
	look("older", 1, nil)
	err = vault.ErrUnavailable
	look("old", 0, nil)
	if v.page.Problem == "" {
		t.Error("nothing says that its steps are missing")
	}
	look("older", 0, vault.ErrUnavailable)
	err = vault.ErrNotFound
	look("none", 0, store.ErrNotFound)
	s.Earlier, err = 0, nil
	look("none", 0, store.ErrNotFound)
	if got := strings.Join(asked, " "); got != "old older old older none" {
		t.Errorf("it asked the vault for %s", got)
	}
}
