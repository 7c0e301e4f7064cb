package balancer

import (
	"strings"
	"testing"
)

// moved is what HAProxy writes when east dies, or turns passive, and west takes over.
const moved = `client east 200
client east 503
Health check for server www/east failed, reason: Layer4 timeout, check duration: 500ms, status: 1/2 UP.
client east 503
Health check for server www/east failed, reason: Layer7 wrong status, code: 503, info: "Service Unavailable", check duration: 0ms, status: 0/1 DOWN.
Server www/east is DOWN. 0 active and 0 backup servers left. 1 sessions active, 0 requeued, 0 remaining in queue.
proxy www has no server available!
client east 503
client <NOSRV> 503
Health check for server www/west succeeded, reason: Layer7 check passed, code: 200, check duration: 2ms, status: 2/2 UP.
Server www/west is UP. 1 active and 0 backup servers online. 0 sessions requeued, 0 total in queue.
client west 200`

func TestJudge(t *testing.T) {
	met, err := judge(strings.Split(moved, "\n"), 2, 1, "east")
	if err != nil {
		t.Fatal(err)
	}
	if met.Served["east"] != 1 || met.Served["west"] != 1 || met.Unheard != 3 || met.Closed != 1 || len(met.Probes) != 2 {
		t.Errorf("got %s", met)
	}
	const no, yes = "Health check for server www/west failed, reason: x, status: 0/1 DOWN.", "Health check for server www/east succeeded, reason: x, status: 2/2 UP."
	for name, forged := range map[string]string{
		"an error beforehand":                strings.Replace(moved, "client east 200", "client east 503\nclient east 200", 1),
		"two under way to the old site":      strings.Replace(moved, "client <NOSRV> 503", "client east 503", 1),
		"the old site is served from":        moved + "\nclient east 200",
		"the old site is active again":       moved + "\n" + yes,
		"nobody, although one is active":     moved + "\nclient <NOSRV> 503",
		"an error at the new site":           moved + "\nclient west 503\nclient west 200",
		"an error at the new site, the last": moved + "\nclient west 503",
		"the new site is taken out at once":  moved + "\n" + no,
		"one probe more takes it out":        strings.Replace(moved, "client east 503\nHealth", "client east 503\nHealth check for server www/east failed, reason: x, status: 1/2 UP.\nHealth", 1),
		"nothing at all":                     "",
	} {
		var log []string
		if forged != "" {
			log = strings.Split(forged, "\n")
		}
		if met, err := judge(log, 2, 1, "east"); err == nil {
			t.Errorf("%s is not seen: %s", name, met)
		}
	}
}
