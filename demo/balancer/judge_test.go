package balancer

import (
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
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
		"nobody, and again, after one is in": strings.Replace(moved, "\nclient west 200", "\nclient <NOSRV> 503\nclient <NOSRV> 503\nclient west 200", 1),
		"passed, and never taken in":         strings.Replace(moved, "Server www/west is UP. 1 active and 0 backup servers online. 0 sessions requeued, 0 total in queue.\nclient west 200", "client <NOSRV> 503\nclient <NOSRV> 503", 1),
		"taken in though it did not pass":    strings.Replace(moved, "Health check for server www/west succeeded", "nothing", 1),
		"taken out though it did not fail":   moved + "\nServer www/west is DOWN. 0 active",
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

// short is a log that HAProxy wrote on a machine that was busy, in the main job: three moves, in the last of which a client
// was told that there was no site after east had passed its probe, and before it was taken in. Lines that stand there many times are
// counted.
var short = []struct {
	times int
	line  string
}{
	{1210, "client west 200"},
	{1, `Health check for server www/west failed, reason: Layer7 wrong status, code: 503, info: "Service Unavailable", check duration: 13ms, status: 1/2 UP.`},
	{4, "client west 200"},
	{3, "client west 503"},
	{1, `Health check for server www/west failed, reason: Layer7 wrong status, code: 503, info: "Service Unavailable", check duration: 16ms, status: 0/1 DOWN.`},
	{1, "Server www/west is DOWN. 0 active and 0 backup servers left. 0 sessions active, 0 requeued, 0 remaining in queue."},
	{1, "proxy www has no server available!"},
	{706, "client <NOSRV> 503"},
	{1, "Health check for server www/east succeeded, reason: Layer7 check passed, code: 200, check duration: 54ms, status: 2/2 UP."},
	{1, "Server www/east is UP. 1 active and 0 backup servers online. 0 sessions requeued, 0 total in queue."},
	{205, "client east 200"},
	{1, `Health check for server www/east failed, reason: Layer7 wrong status, code: 503, info: "Service Unavailable", check duration: 1ms, status: 1/2 UP.`},
	{4, "client east 200"},
	{4, "client east 503"},
	{1, `Health check for server www/east failed, reason: Layer7 wrong status, code: 503, info: "Service Unavailable", check duration: 1ms, status: 0/1 DOWN.`},
	{1, "Server www/east is DOWN. 0 active and 0 backup servers left. 1 sessions active, 0 requeued, 0 remaining in queue."},
	{1, "proxy www has no server available!"},
	{1, "client east 503"},
	{426, "client <NOSRV> 503"},
	{1, "Health check for server www/west succeeded, reason: Layer7 check passed, code: 200, check duration: 24ms, status: 2/2 UP."},
	{1, "Server www/west is UP. 1 active and 0 backup servers online. 0 sessions requeued, 0 total in queue."},
	{379, "client west 200"},
	{1, `Health check for server www/west failed, reason: Layer7 wrong status, code: 502, info: "Bad Gateway", check duration: 1001ms, status: 1/2 UP.`},
	{1, `Health check for server www/west failed, reason: Layer7 wrong status, code: 502, info: "Bad Gateway", check duration: 1002ms, status: 0/1 DOWN.`},
	{1, "Server www/west is DOWN. 0 active and 0 backup servers left. 1 sessions active, 0 requeued, 0 remaining in queue."},
	{1, "proxy www has no server available!"},
	{1, "client west 503"},
	{123, "client <NOSRV> 503"},
	{1, "Health check for server www/east succeeded, reason: Layer7 check passed, code: 200, check duration: 29ms, status: 2/2 UP."},
	{1, "client <NOSRV> 503"},
	{1, "Server www/east is UP. 1 active and 0 backup servers online. 0 sessions requeued, 0 total in queue."},
	{444, "client east 200"},
}

// TestJudgeBusy: a site that passed its probe is not in yet, and whoever is turned away in between met no gap. Two are one.
func TestJudgeBusy(t *testing.T) {
	var log []string
	for _, l := range short {
		log = append(log, slices.Repeat([]string{l.line}, l.times)...)
	}
	met, err := judge(log, 2, 1, "west")
	if err != nil {
		t.Fatal(err)
	}
	if met.Served["west"] != 1593 || met.Served["east"] != 653 || met.Unheard != 9 || met.Closed != 1256 {
		t.Errorf("got %s", met)
	}
	in := slices.Index(log, short[28].line)
	for name, at := range map[string]int{"one more before the site is in": in + 1, "one after it": in + 3, "one among those it serves": len(log) - 1} {
		if met, err := judge(slices.Insert(slices.Clone(log), at, "client <NOSRV> 503"), 2, 1, "west"); err == nil {
			t.Errorf("%s is not seen: %s", name, met)
		}
	}
}

// TestJudgeReal has a real HAProxy move one client, who asks without end, to and fro.
func TestJudgeReal(t *testing.T) {
	if _, err := os.Stat(program); err != nil {
		if os.Getenv("DAVIT_CI") != "" {
			t.Fatal("haproxy is not installed: run hack/prepare")
		}
		t.Skip("haproxy is not installed (Debian package haproxy)")
	}
	var active atomic.Value
	active.Store("east")
	o := Options{Listen: "127.0.0.1:0", Question: "/", Interval: 20 * time.Millisecond, Fall: 2, Rise: 1}
	for _, name := range []string{"east", "west"} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if active.Load() != name {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}))
		defer s.Close()
		address := strings.TrimPrefix(s.URL, "http://")
		o.Sites = append(o.Sites, Site{Name: name, Clients: address, Asked: address})
	}
	free := httptest.NewServer(nil) // its port is HAProxy's next
	o.Listen = strings.TrimPrefix(free.URL, "http://")
	free.Close()
	b, err := Start(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Stop()
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	until := func(line string) {
		t.Helper()
		for from, end := b.Mark(), time.Now().Add(time.Minute); !slices.Contains(b.log.from(from), line); {
			if answer, err := client.Get("http://" + o.Listen); err == nil {
				_ = answer.Body.Close()
			}
			if time.Now().After(end) {
				t.Fatalf("HAProxy never wrote %q:\n%s", line, b.Log(from))
			}
		}
	}
	// west starts as one that clients are sent to, until it has been asked
	for !slices.ContainsFunc(b.log.from(0), func(l string) bool { return strings.HasPrefix(l, "Server www/west is DOWN") }) {
		until("client east 200")
	}
	mark := b.Mark()
	for range 10 {
		for _, to := range []string{"west", "east"} {
			active.Store("")
			until("client <NOSRV> 503")
			active.Store(to)
			until("client " + to + " 200")
		}
	}
	met, err := b.Judge(mark, "east")
	if err != nil {
		t.Errorf("%v:\n%s", err, b.Log(mark))
	}
	if len(met.Probes) != 40 || met.Served["west"] < 10 || met.Served["east"] < 10 || met.Closed < 20 {
		t.Errorf("got %s", met)
	}
}
