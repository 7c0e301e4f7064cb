package ui

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"davit.dev/davit/internal/console/restoration"
	"davit.dev/davit/internal/console/ui/assets"
	"davit.dev/davit/internal/uplink"
)

// Every text has a contrast of 4.5 or more against what it stands on, by day
// and by night (WCAG 2.2, AA).
func TestContrast(t *testing.T) {
	text, err := assets.Files.ReadFile("style.css")
	if err != nil {
		t.Fatal(err)
	}
	schemes := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(string(text), -1)
	if len(schemes) != 2 {
		t.Fatalf("%d schemes", len(schemes))
	}
	for n, scheme := range schemes {
		colour := map[string]float64{}
		for _, c := range regexp.MustCompile(`--([a-z-]+): #([0-9a-f]{6})`).FindAllStringSubmatch(scheme[1], -1) {
			colour[c[1]] = luminance(t, c[2])
		}
		for _, pair := range []string{
			"text ground", "text card", "quiet ground", "quiet card", "link ground", "link card", "good good-ground", "warn warn-ground", "bad bad-ground",
			"text good-ground", "text warn-ground", "text bad-ground", "link good-ground", "link warn-ground", "link bad-ground", "bad card", "bad ground", "button-text button", "focus ground",
		} {
			names := strings.Fields(pair)
			front, okFront := colour[names[0]]
			back, okBack := colour[names[1]]
			ratio := (max(front, back) + 0.05) / (min(front, back) + 0.05)
			if !okFront || !okBack || ratio < 4.5 {
				t.Errorf("scheme %d: %s has a contrast of %.2f", n+1, pair, ratio)
			}
		}
	}
}

func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	sum := 0.0
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(hex[2*i:2*i+2], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		c := float64(n) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		sum += weight * c
	}
	return sum
}

// Nobody is sent elsewhere by a link to the login.
func TestLocal(t *testing.T) {
	for next, want := range map[string]string{
		"/p/acme?live=1": "/p/acme?live=1", "": "/", "https://evil.example.com/": "/", "//evil.example.com": "/", `/\evil.example.com`: "/", "/\tx": "/", "p": "/", "javascript:x": "/",
	} {
		if got := local(next); got != want {
			t.Errorf("%q leads to %q", next, got)
		}
	}
}

// What a dry run found is shown by what is lost first, with each difference, and none
// of it is taken for markup; without a check that fails it can be begun.
func TestRestorationPage(t *testing.T) {
	d := restorationData{May: true, Restore: restoration.Shown{ID: "one", Application: "shop", Site: "east", DryRun: true, State: uplink.Planned, Over: true, Existing: "exact", Command: "davit restore"}}
	d.Restore.Preview = &uplink.Preview{Counts: map[string]int{"prune": 1, "update": 1}, Account: "davit-restore", Left: 3, Cut: 2}
	d.Parts = []part{
		{Action: "prune", Says: "deleted", Tone: "bad", Count: 1, Objects: []uplink.Planning{{Object: "ConfigMap shop/new", Action: "prune"}}},
		{Action: "update", Says: "changed", Tone: "warn", Count: 1, Objects: []uplink.Planning{{Object: "ConfigMap shop/conf", Action: "update", Diff: "-  a: <b>\n+  a: c\n"}}},
	}
	render := func() string {
		var out strings.Builder
		if err := pages.ExecuteTemplate(&out, "restoration", page{Project: "acme", User: "rita", Form: "f", Data: d}); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	text := render()
	for _, says := range []string{"&lt;b&gt;", "ConfigMap shop/new", "3 are not shown", "2 differences are not shown", `name="confirm"`, "Restore it in its place", "/p/acme/restores/one/begin"} {
		if !strings.Contains(text, says) {
			t.Errorf("no %q in %s", says, text)
		}
	}
	if strings.Contains(text, "a: <b>") || strings.Index(text, "shop/new") > strings.Index(text, "shop/conf") {
		t.Error(text)
	}
	d.Restore.Preview.Checks = []uplink.Check{{Severity: "error", Message: "no room"}}
	if text := render(); strings.Contains(text, `name="confirm"`) || !strings.Contains(text, "no room") {
		t.Error(text)
	}
	d.Restore = restoration.Shown{State: uplink.Warned, Outcome: &uplink.Outcome{RTO: 90_000, Warnings: []string{"slow"}, More: 2}}
	if text := render(); !strings.Contains(text, "1 m 30 s") || !strings.Contains(text, "and 2 more") {
		t.Error(text)
	}
}
