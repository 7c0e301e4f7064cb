package browser

import (
	"strings"
	"testing"
)

// recovery is the public half of a key that nobody has.
const recovery = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"

// An administrator makes a project on the console's page, removes it, brings it back, and has
// what people defined in another go back to a time: with the keyboard and without scripts, and
// nothing of that without its name typed.
func TestProjects(t *testing.T) {
	address := serve(t)
	p := start(t).open(t, false)
	p.look(desk, "light")
	p.login(address)
	p.visit(address + "/projects")
	p.settled(address, "/projects")
	says := func(text string) {
		t.Helper()
		p.answers(text, 200)
		p.holds(`[...document.querySelectorAll("[role=status]")].some((e) => e.textContent.includes(` + "`" + text + "`" + `))`)
	}
	confirmed := func(form, name string) {
		t.Helper()
		p.loading(func() { p.fieldOf(form, "confirm", name); p.press("Enter") })
	}
	p.fieldOf("form[action='/projects']", "name", "shop")
	p.fieldOf("form[action='/projects']", "recovery", recovery)
	p.loading(func() { p.press("Enter") })
	says("Project shop was made")
	p.inspect("/projects?made")

	const remove = "form[action='/projects/remove']"
	confirmed(remove, "shp")
	p.answers("a name that is none", 422)
	p.complaints() // of what was refused
	p.visit(address + "/projects")
	confirmed(remove, "shop")
	says("Project shop was removed")
	p.inspect("/projects?removed")

	p.loading(func() {
		p.eval(`[...document.querySelectorAll("a")].find((a) => a.textContent === "Bring it back…").click()`, nil)
	})
	back := p.path(address)
	p.inspect(back)
	confirmed("form[action='/projects/restore']", "shp")
	p.answers("a name that is none", 422)
	p.complaints()
	p.visit(address + back)
	confirmed("form[action='/projects/restore']", "shop")
	says("Project shop is the console's again")

	const acme = "/projects/restore?name=acme"
	for kept := false; !kept; p.eval(`document.body.textContent.includes("newest backup of its database is")`, &kept) {
		p.visit(address + acme)
	}
	p.inspect(acme)
	p.fieldOf("form:has([name=dry])", "at", "yesterday")
	p.loading(func() { p.press("Enter") })
	p.answers("a time that is none", 422)
	p.holds(`document.body.textContent.includes("write it such as")`)
	p.complaints()
	p.visit(address + acme)
	var now string
	p.eval(`new Date().toISOString()`, &now)
	p.fieldOf("form:has([name=dry])", "at", strings.Replace(now[:19], "T", " ", 1))
	p.loading(func() { p.press("Enter") })
	says("as it was defined then")
	p.inspect(acme + "&foretold")
}

// fieldOf types into a field of a form.
func (p *tab) fieldOf(form, name, text string) {
	p.t.Helper()
	p.eval(`(() => { const e = document.querySelector("`+form+` [name=`+name+`]"); e.focus(); e.select(); })()`, nil)
	p.holds(`document.activeElement.name === "` + name + `"`)
	p.typed(text)
}
