package browser

import (
	"strings"
	"testing"
)

// A recovery point is restored from the application's page with the keyboard and
// without scripts: what it contains, what that would do to each object, and, after
// the application's name was typed, the restore.
func TestRestore(t *testing.T) {
	dir := t.TempDir()
	address := serveIn(t, dir)
	agent(t, dir, address, "east")
	p := start(t).open(t, false)
	p.look(desk, "light")
	p.login(address)
	const app = "/p/acme/applications/shop"
	p.visit(address + app)
	p.settled(address, app)
	var form string
	p.eval(`document.querySelector("td a[href*='/restore?point=']").getAttribute("href")`, &form)
	p.visit(address + form)
	p.inspect(form)
	p.holds(`document.querySelector("[name='to.shop']").value === "shop-copy"`)
	place := strings.Replace(form, "?", "?as=place&site=east&", 1)
	p.visit(address + place)
	p.inspect(place)
	p.eval(`document.querySelector("[name=existing]").value = "exact"`, nil)
	p.loading(func() { p.field("reason", "it is red"); p.press("Enter") })
	p.answers("a dry run", 200)
	p.holds(`document.querySelector("[role=status]").textContent.includes("Nothing was changed")`)
	foretold := p.path(address)
	p.inspect(foretold)
	p.picture("restore-foretold")
	p.holds(`document.querySelector("h3 .chip.bad") && document.querySelector("pre.diff").textContent.includes("colour: green") && document.body.textContent.includes("3 are not shown")`)

	p.field("confirm", "shops")
	p.loading(func() { p.press("Enter") })
	p.answers("a name that is none", 422)
	p.holds(`document.querySelector("[role=alert]").textContent.includes("was not typed exactly")`)
	p.field("confirm", "shop")
	p.loading(func() { p.press("Enter") })
	p.answers("a restore", 200)
	p.holds(`!location.href.endsWith("/begin")`)
	restore := p.path(address)
	p.visit(address + restore)
	p.holds(`document.querySelector("[role=status]").textContent.includes("shop is restored at site east")`)
	p.complaints() // of what was refused
	p.inspect(restore)

	// One that waits at the site is taken back.
	p.visit(address + foretold)
	p.field("reason", "later")
	p.field("confirm", "shop")
	p.loading(func() { p.press("Enter") })
	p.answers("a restore that waits", 200)
	waits := p.path(address)
	p.visit(address + waits)
	p.holds(`document.querySelector("[role=status]").textContent.includes("It waits at site east")`)
	p.inspect(waits)
	p.picture("restore-waits")
	p.loading(func() { p.eval(`document.querySelector("form[action$='/cancel'] button").click()`, nil) })
	p.answers("taking it back", 200)
	p.visit(address + waits)
	p.holds(`document.querySelector("[role=status]").textContent.includes("It was taken back")`)

	p.visit(address + app)
	var rows []string
	p.eval(`[...document.querySelectorAll("td[data-label=Restore]")].map((e) => e.textContent + e.nextElementSibling.textContent)`, &rows)
	if len(rows) != 3 || !strings.Contains(strings.Join(rows, " "), "✕ canceled") || !strings.Contains(strings.Join(rows, " "), "✓ completed") || !strings.Contains(strings.Join(rows, " "), "dry run✓ planned") {
		t.Errorf("asked for: %q", rows)
	}
}
