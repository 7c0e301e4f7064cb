package remote_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/restoration"
	"davit.dev/davit/internal/console/steer"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/uplink"
)

func foretold() restoration.Shown {
	return restoration.Shown{ID: "id", Application: "shop", Point: "shop-1", Site: "east", DryRun: true, State: uplink.Planned, Over: true, Preview: &uplink.Preview{
		Site: "east", Point: "shop-1", Account: "davit-restore", Left: 3,
		Objects: []uplink.Planning{{Object: "ConfigMap shop/conf", Action: "update", Diff: "-  a: b\n+  a: c\n"}, {Object: "Service shop/web", Action: "unchanged"}},
	}}
}

// What is given on the command line is what the console is asked for, and how it ends
// says what became of it.
func TestRestoreAsks(t *testing.T) {
	a := newAsks(t)
	a.answer(http.StatusCreated, foretold())
	a.want(0, "", "restore shop --existing update --dry-run --diff", "nothing was changed", "update", "ConfigMap shop/conf", "+  a: c", "3 more")
	a.want(0, "", "restore shop --as-clone --map-namespace shop=copy --map-storage-class fast=slow --site west --reason look --dry-run")
	a.want(0, "", "restore shop-20260102-030405123-bcdfgh --dry-run --project other -o json", `"action": "update"`)
	paths, _ := a.asked()
	const path = "POST /api/v1/projects/acme/applications/shop/restores"
	if want := []string{path, path, strings.Replace(path, "acme", "other", 1)}; !slices.Equal(paths, want) {
		t.Errorf("%q, want %q", paths, want)
	}
	for i, says := range []string{`"dryRun":true,"existing":"update"}`, `"site":"west","dryRun":true,"clone":true,"namespaces":{"shop":"copy"},"storageClasses":{"fast":"slow"},"reason":"look"}`, `"point":"shop-20260102-030405123-bcdfgh","dryRun":true,"existing":"skip"}`} {
		if !strings.HasSuffix(a.raw[i], says) {
			t.Errorf("%s, want %s", a.raw[i], says)
		}
	}
	for severity, code := range map[string]int{"error": 3, "warning": 4} { // as the restore itself would end
		stopped := foretold()
		stopped.Preview.Checks = []uplink.Check{{Severity: severity, Message: "no room"}}
		a.answer(http.StatusCreated, stopped)
		a.want(code, "", "restore shop --dry-run", "no room")
	}
	over := foretold()
	over.State, over.DryRun, over.Preview, over.Outcome = uplink.Completed, false, nil, &uplink.Outcome{Restored: 7, RTO: 41_000}
	a.answer(http.StatusCreated, over)
	a.want(0, "shop\n", "restore shop --existing exact --wait", "Type the application's name, shop", "shop is restored at site east", "7 restored", "41")
	for state, code := range map[string]int{uplink.Warned: 4, uplink.Failed: 1, uplink.Refused: 3, restoration.Unknown: 1} {
		over.State, over.Why, over.Do = state, "no room", "make room"
		a.answer(http.StatusCreated, over)
		a.want(code, "", "restore shop --wait")
	}
}

// What is not confirmed or means nothing at a console is not asked for.
func TestRestoreAsksNothing(t *testing.T) {
	a := newAsks(t)
	a.answer(http.StatusCreated, foretold())
	for args, says := range map[string]string{
		"--take-over": "--take-over means nothing", "--as-of 10m": "--as-of means nothing", "--vault-url s3://b/p": "--vault-url means nothing", "--diff": "needs --dry-run", "--as-clone": "needs other namespaces",
		"--map-namespace shop=x": "keeps its namespaces", "--as-clone --map-namespace shop=x --existing replace": "overwrites nothing", "--background": "--background means nothing", "--workers 3": "--workers means nothing",
	} {
		a.want(2, "", "restore shop "+args, says)
	}
	a.want(3, "", "restore shop --existing replace", "not confirmed")
	if paths, _ := a.asked(); len(paths) > 0 {
		t.Errorf("the console was asked: %v", paths)
	}
}

// Runs are looked at and steered through the console.
func TestRunsAsk(t *testing.T) {
	a := newAsks(t)
	run := fleet.Run{Result: failover.Result{Run: "shop-drill-1", Plan: "shop", Verb: "drill", State: "Paused", Steps: []failover.StepResult{{Name: "net", Status: failover.Doing, Note: "its pod is on node n1"}}}, To: "west", Pause: "anna wants to look"}
	a.answer(http.StatusOK, api.Fleet{Known: &fleet.Snapshot{Runs: []fleet.Run{run}}})
	a.want(0, "", "runs ls", "shop-drill-1", "anna wants to look")
	a.answer(http.StatusOK, api.RunStanding{Run: run, Offers: []failover.Offer{{Kind: failover.Resume}}, Asked: []steer.Asked{{Kind: failover.Pausing, By: "anna@console/acme", Answered: true}}})
	a.want(0, "", "runs show shop-drill-1", "a drill of plan shop", "its pod is on node n1", "resume", "pause by anna@console/acme: taken")
	a.answer(http.StatusOK, api.RunSaid{Said: []journal.Words{{Step: "net", Kind: failover.Ended, Status: failover.Broke, Text: "no such zone"}}})
	a.want(0, "", "runs show shop-drill-1 --logs net", "net, Failed", "  no such zone")
	a.want(2, "", "runs show shop-drill-1 net", "a STEP is for --logs")
	a.answer(http.StatusOK, struct { // it answers whatever is asked
		api.RunSaid
		api.RunStanding
	}{api.RunSaid{Said: []journal.Words{}}, api.RunStanding{Run: run}})
	a.want(0, "", "runs show shop-drill-1 --logs net", "net of run shop-drill-1 has said nothing")
	a.want(3, "", "runs show shop-drill-1 --logs nte", `has no step "nte"`)
	a.answer(http.StatusCreated, steer.Asked{Number: 1, Answered: true, Refused: "it runs"})
	a.want(3, "", "runs resume shop-drill-1 --note go", "run shop-drill-1: it runs")
	a.want(3, "west\n", "runs consent shop-drill-1 west", "takes no consent now")
	answer := steer.Asked{Number: 1, Answered: true, Refused: "it runs"}
	a.answer(http.StatusCreated, struct { // it answers whatever is asked
		steer.Asked
		Offers []failover.Offer `json:"offers"`
	}{answer, []failover.Offer{{Kind: failover.Consent, Site: "west"}}})
	a.want(3, "", "runs resume shop-drill-1 --note go", "run shop-drill-1: it runs")
	a.want(3, "west\n", "runs consent shop-drill-1 west", "it runs")
	a.want(3, "", "runs consent shop-drill-1 west --yes", "it runs")
	a.want(3, "", "runs consent shop-drill-1 west", "not confirmed")
	a.want(3, "esat\n", "runs consent shop-drill-1 esat", `takes no consent about site "esat", only about west`)
	a.want(3, "", "runs rollback shop-drill-1 --lose west", "it runs")
	a.want(3, "", "runs answer shop-drill-1 call --failed", "it runs")
	a.want(2, "", "runs pause shop-drill-1 --vault-url s3://b/p", "means nothing at a console")
	var sent []string
	for _, text := range a.raw {
		if _, rest, ok := strings.Cut(text, `,"kind":`); ok {
			sent = append(sent, rest)
		}
	}
	want := fmt.Sprint([]string{`"resume","note":"go"}`, `"consent","site":"west","typed":"west"}`, `"consent","site":"west","typed":"west"}`, `"roll back","typed":"west"}`, `"answer","step":"call","failed":true}`})
	if fmt.Sprint(sent) != want {
		t.Errorf("%s, want %s", sent, want)
	}
}
