package browser

import (
	_ "embed"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
)

//go:embed look.js
var look string

// heaviest is what a page may weigh with all that belongs to it, in bytes.
const heaviest = 100 << 10

// most is how many pages the sample data may have.
const most = 80

// phone and desk are widths of windows.
const (
	phone = 360
	desk  = 1280
)

// needed are pages that must be found by following links.
var needed = []string{
	"/", "/p/acme", "/p/acme/applications/shop", "/p/acme/applications/wiki", "/p/acme/runs", "/p/acme/runs/drill-shop-2",
	"/p/acme/plans", "/p/acme/plans/shop", "/p/acme/plans/shop?verb=drill", "/p/acme/plans/move", "/p/acme/plans/move/begin?verb=failover", "/p/acme/plans/shop/begin?verb=drill", "/p/acme/readiness", "/p/acme/events", "/p/acme?q=&sort=lost&state=",
	"/p/acme/documents", "/p/acme/sites/west", "/p/acme/vaults", "/p/acme/audit", "/p/acme/people", "/users", "/audit", "/backups", "/projects", "/projects/restore?name=acme", "/account",
}

// TestPages follows the links of the console, as a person without scripts does, and looks at each page by day and by night, at a desk and on a phone.
func TestPages(t *testing.T) {
	address := serve(t)
	b := start(t)
	p := b.open(t, false)
	p.look(desk, "light")
	p.visit(address + "/login")
	p.inspect("/login")
	p.login(address)
	queue, seen := []string{"/"}, map[string]bool{"/": true}
	for len(queue) > 0 {
		path := queue[0]
		queue = queue[1:]
		p.look(desk, "light")
		p.visit(address + path)
		p.settled(address, path)
		p.inspect(path)
		for _, next := range p.links(address) {
			// Tables are sorted, and graphs drawn, in many ways: some are enough.
			if !seen[next] && (!strings.Contains(next, "?") || slices.Contains(needed, next)) {
				seen[next] = true
				queue = append(queue, next)
			}
		}
	}
	if len(seen) > most {
		t.Errorf("%d pages: links lead on and on", len(seen))
	}
	for _, path := range needed {
		if !seen[path] {
			t.Errorf("no link leads to %s", path)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, asked := range p.asked {
		if u, err := url.Parse(asked); err != nil || "https://"+u.Host != address {
			t.Errorf("a page asked for %s", asked)
		}
	}
}

// A fleet of hundreds of applications is looked at as a small one is: in parts that are
// light before they are compressed, without scripts and with the keyboard.
func TestCrowd(t *testing.T) {
	address := serveIn(t, t.TempDir(), "300")
	p := start(t).open(t, false)
	p.look(desk, "light")
	p.login(address)
	const first, found = "/p/acme", "/p/acme?q=app-00&sort=-name&state="
	for said := false; !said; p.eval(`document.body.textContent.includes("1 to 50 of 302")`, &said) {
		p.visit(address + first)
	}
	weigh := func(path string) {
		var length int
		if p.eval(`new Blob([document.documentElement.outerHTML]).size`, &length); length > heaviest {
			t.Errorf("%s: weighs %d bytes before it is compressed", path, length)
		}
	}
	p.inspect(first + "?crowd") // by which pictures are called
	weigh(first)
	p.visit(address + found)
	weigh(found)
	p.holds(`document.querySelector("td[data-label=Application] a").textContent === "app-0099"`)
	p.eval(`document.querySelector("[rel=next][href*='applications=2']").focus()`, nil)
	p.loading(func() { p.press("Enter") })
	p.holds(`document.querySelector("td[data-label=Application] a").textContent === "app-0049" && document.body.textContent.includes("51 to 100 of 100")`)
	p.holds(`document.querySelector("[name=q]").value === "app-00"`)
	for _, path := range []string{"/p/acme/runs", "/p/acme/readiness", "/"} {
		p.visit(address + path)
		weigh(path)
	}
}

// settled comes again until the console has read the vault.
func (p *tab) settled(address, path string) {
	p.t.Helper()
	for {
		var silent bool
		p.eval(`document.body.textContent.includes("has not been read yet") || document.body.textContent.includes("not answered yet")`, &silent)
		if !silent {
			return
		}
		p.visit(address + path)
	}
}

// links are the pages of the console that a page leads to.
func (p *tab) links(address string) []string {
	p.t.Helper()
	var all, paths []string
	p.eval(`[...document.querySelectorAll("a[href]:not([download])")].map(a => a.href)`, &all)
	for _, link := range all {
		path, ours := strings.CutPrefix(link, address)
		path, _, _ = strings.Cut(path, "#")
		if ours && path != "" && !strings.Contains(path, "live=1") {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// finding is what look.js says of a page.
type finding struct {
	Faults []string
	Texts  int
	Stops  int // elements that the keyboard reaches
}

// inspect looks at the page that is open.
func (p *tab) inspect(path string) {
	p.t.Helper()
	name := strings.Trim(strings.NewReplacer("/", "-", "?", "-", "=", "-", "&", "-").Replace(path), "-")
	if name == "" {
		name = "start"
	}
	p.answers(path, 200)
	p.mu.Lock()
	weight := p.bytes
	p.mu.Unlock()
	if weight == 0 || weight > heaviest {
		p.t.Errorf("%s: weighs %d bytes, %d are the most", path, weight, heaviest)
	}
	stops := 0
	for _, width := range []int{desk, phone} {
		for _, scheme := range []string{"light", "dark"} {
			p.look(width, scheme)
			var f finding
			p.eval("("+look+")()", &f)
			stops = f.Stops
			for _, fault := range f.Faults {
				p.t.Errorf("%s, %d wide, %s: %s", path, width, scheme, fault)
			}
			if f.Texts == 0 {
				p.t.Errorf("%s: says nothing", path)
			}
			p.picture(fmt.Sprintf("%s-%d-%s", name, width, scheme))
		}
	}
	p.look(desk, "light")
	p.walk(path, stops)
	if all := p.complaints(); all != "" {
		p.t.Errorf("%s: the browser says %s", path, all)
	}
}

// answers checks the status that the page came with.
func (p *tab) answers(path string, want int) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.status != want {
		p.t.Errorf("%s: answers %d, want %d", path, p.status, want)
	}
}

// walk goes through the page with the keyboard: each stop must show that it has
// the focus, and all must be reached.
func (p *tab) walk(path string, stops int) {
	p.t.Helper()
	p.eval(`document.activeElement && document.activeElement.blur(); window.davitSeen = new Set()`, nil)
	for range stops + 3 {
		p.press("Tab")
		var at struct {
			Name  string
			Width float64
			Style string
			Ratio float64
			Count int
		}
		p.eval(focus, &at)
		if at.Name == "BODY" { // the browser's own controls come after the last
			continue
		}
		if at.Style == "none" || at.Width < 2 || at.Ratio < 3 {
			p.t.Errorf("%s: %s does not show that it has the focus: %+v", path, at.Name, at)
		}
	}
	var reached int
	p.eval("window.davitSeen.size", &reached)
	if reached < stops {
		p.t.Errorf("%s: the keyboard reaches %d of %d", path, reached, stops)
	}
}

//go:embed focus.js
var focus string

// With scripts, a page that is open is kept up to date without being loaded again,
// and what its reader has opened stays so.
func TestLive(t *testing.T) {
	address := serve(t)
	p := start(t).open(t, true)
	p.look(desk, "light")
	p.login(address)
	p.visit(address + "/p/acme/runs/drill-shop-2")
	p.settled(address, "/p/acme/runs/drill-shop-2")
	p.eval(`window.davitSeen = true; window.davitChanged = new Promise((done) => {
		const main = document.querySelector("main"), before = main.textContent;
		const look = () => main.textContent !== before && main.querySelector("[data-state]").textContent === "live" && done(true);
		new MutationObserver(look).observe(main, { childList: true, subtree: true, characterData: true });
		look();
	}); 0`, nil)
	var changed bool
	p.eval(`window.davitChanged`, &changed)
	var same bool
	if p.eval(`window.davitSeen === true && document.querySelectorAll("main").length === 1`, &same); !changed || !same {
		t.Error("the page was not kept up to date in place")
	}
	p.visit(address + "/p/acme") // the stream ends with the page
	if all := p.complaints(); all != "" {
		t.Errorf("the browser says %s", all)
	}
}

// A fault that is put into a page is found: the tests above can fail.
func TestLooker(t *testing.T) {
	b := start(t)
	p := b.open(t, false)
	for fault, page := range map[string]string{
		"contrast":   `<p style="color:#999;background:#fff">pale</p>`,
		"wider than": `<p style="width:2000px">wide</p>`,
		"no label":   `<input name="x">`,
		"no h1":      `<p>text</p>`,
		"of a drawing": `<svg viewBox="0 0 100 40" width="100" height="40"><rect width="100" height="40" fill="#000"/>` +
			`<text x="5" y="20" fill="#222">dark</text></svg>`,
	} {
		page = `<html lang="en"><title>x</title><main>` + page + `</main></html>`
		if fault != "no h1" {
			page = strings.Replace(page, "<main>", "<main><h1>x</h1>", 1)
		}
		file := t.TempDir() + "/page.html"
		if err := os.WriteFile(file, []byte("<!doctype html>"+page), 0o600); err != nil {
			t.Fatal(err)
		}
		p.look(phone, "light")
		p.visit("file://" + file)
		var f finding
		p.eval("("+look+")()", &f)
		if !slices.ContainsFunc(f.Faults, func(s string) bool { return strings.Contains(s, fault) }) {
			t.Errorf("%s: found only %q", fault, f.Faults)
		}
	}
}
