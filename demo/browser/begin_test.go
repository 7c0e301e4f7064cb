package browser

import (
	"bufio"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// agent runs a site's agent, which lets the console begin runs, until the test
// ends.
func agent(t *testing.T, dir, address, site string) {
	t.Helper()
	token := filepath.Join(dir, site+".token")
	enrol := exec.CommandContext(t.Context(), filepath.Join(top(t), "bin", "davit"), "console", "enrol", site, "--data", filepath.Join(dir, "console"), "--project", "acme", "--token-file", token)
	if out, err := enrol.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(filepath.Join(dir, "scene"), "agent", dir, address, site, token)
	says, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	connected, ended := make(chan struct{}), make(chan struct{})
	first := sync.OnceFunc(func() { close(connected) }) // it is said now and then
	var lines []string                                  // read when ended is closed
	go func() {
		defer close(ended)
		for s := bufio.NewScanner(says); s.Scan(); {
			if s.Text() == "connected" {
				first()
			}
			lines = append(lines, s.Text())
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("the agent ended: %v; it said %q", err, lines)
		}
	})
	select {
	case <-connected:
	case <-ended:
		t.Fatal("the agent ended")
	}
}

// Runs are begun from a plan's page with the keyboard and without scripts: after
// the plan's name was typed, once, and by nobody else's page.
func TestBegin(t *testing.T) {
	dir := t.TempDir()
	address := serveIn(t, dir)
	agent(t, dir, address, "east")
	p := start(t).open(t, false)
	p.look(desk, "light")
	p.login(address)
	const made = "/p/acme/documents?show=at%2Feast%2FProtectionPolicy%2Fdavit-system%2Fkept-in-git"
	p.visit(address + made)
	p.settled(address, made)
	p.inspect(made)
	p.holds(`document.querySelector("#there ~ table [aria-expanded]").nextElementSibling.textContent.includes('"every": "1h"')`)

	const plan = "/p/acme/plans/move"
	p.visit(address + plan)
	p.settled(address, plan)
	p.holds(`document.querySelectorAll("a.button[href*='/begin?verb=']").length === 4`)

	const move = plan + "/begin?verb=switchover"
	p.visit(address + move)
	p.inspect(move)
	p.holds(`!document.querySelector("form.stack").checkValidity()`) // the name is missing
	p.field("reason", "maintenance")
	p.press("Tab")
	p.holds(`document.activeElement.name === "confirm"`)
	p.typed("moves")
	p.loading(func() { p.press("Enter") })
	p.answers("a name that is none", 422)
	p.holds(`document.querySelector("[role=alert]").textContent.includes("was not typed exactly") && document.querySelector("[name=reason]").value === "maintenance"`)
	if said := p.complaints(); strings.Count(said, "\n") > 0 || !strings.Contains(said, "422") {
		t.Errorf("the browser says %q", said)
	}
	p.field("confirm", "move")
	p.press("Tab")
	p.holds(`document.activeElement.tagName === "BUTTON"`)
	p.loading(func() { p.press("Enter") })
	p.holds(`document.querySelector("[role=status]").textContent.includes("the site has no room: add a node")`)
	p.inspect(p.path(address))

	const drill = plan + "/begin?verb=drill"
	p.visit(address + drill)
	p.inspect(drill)
	var id string
	p.eval(`document.querySelector("[name=id]").value`, &id)
	for range 2 { // the same form, sent twice
		p.loading(func() { p.field("reason", "practice"); p.press("Enter") })
		p.answers("a drill", 200)
		p.picture("request-created")
		p.visit(address + drill)
		p.holds(`location.search === "?verb=drill"`)
		p.eval(`document.querySelector("[name=id]").value = "`+id+`"`, nil)
	}
	p.eval(`document.querySelector("form.stack [name=form]").remove()`, nil) // as a page that does not know the session's secret
	p.loading(func() { p.field("reason", "not mine"); p.press("Enter") })
	p.answers("a form without the secret", 403)
	p.strange(address)

	p.visit(address + plan)
	p.holds(`location.pathname === "` + plan + `"`)
	var rows []string
	p.eval(`[...document.querySelectorAll("td[data-label=Run]:has(a[href*='/requests/'])")].map((e) => e.textContent + e.nextElementSibling.textContent)`, &rows)
	if len(rows) != 2 || !strings.HasPrefix(rows[0], "move-drill-") || !strings.HasSuffix(rows[0], "created") || !strings.HasPrefix(rows[1], "move-switchover-") || !strings.HasSuffix(rows[1], "refused") {
		t.Errorf("asked for: %q", rows)
	}
	p.complaints() // of what was refused
	p.inspect(plan)
}

// field types into a field of the page.
func (p *tab) field(name, text string) {
	p.t.Helper()
	p.fieldOf("form.stack", name, text)
}

// path is that of the page that is open.
func (p *tab) path(address string) string {
	p.t.Helper()
	var at string
	p.eval(`location.href`, &at)
	return strings.TrimPrefix(at, address)
}

// strange sends a form from a page that is not the console's, in the browser that is
// logged in there.
func (p *tab) strange(address string) {
	p.t.Helper()
	file := filepath.Join(p.t.TempDir(), "page.html")
	page := `<!doctype html><html lang="en"><title>x</title><form class="stack" method="post" action="` + address + `/p/acme/plans/move/begin">` +
		`<input type="hidden" name="verb" value="drill"><input type="hidden" name="to" value="east"><input type="hidden" name="id" value="0123456789abcdef"><input name="reason"></form>`
	if err := os.WriteFile(file, []byte(page), 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.visit((&url.URL{Scheme: "file", Path: file}).String())
	p.loading(func() { p.field("reason", "not ours"); p.press("Enter") })
	var said string
	p.eval(`document.title + " " + document.body.textContent`, &said)
	if strings.Contains(p.path(address), "/requests/") {
		p.t.Errorf("another's page begins a run: %s", said)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.status < 400 && !strings.Contains(said, "Log in") {
		p.t.Errorf("another's page is answered %d: %s", p.status, said)
	}
}
