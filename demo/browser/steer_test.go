package browser

import (
	"fmt"
	"strings"
	"testing"
)

// Runs are steered from their pages, without scripts: what cannot be taken back takes a
// word that is typed, and nothing is asked without it.
func TestSteering(t *testing.T) {
	address := serve(t)
	p := start(t).open(t, false)
	p.look(desk, "light")
	p.login(address)
	const waits, asks = "/p/acme/runs/failover-wiki-1", "/p/acme/runs/failover-wiki-2"
	p.visit(address + waits)
	p.settled(address, waits)
	p.send("approve", "")
	p.says("approve: asked; whoever carries the run has not answered yet")
	p.inspect("/steer/approve")
	p.visit(address + asks)
	p.settled(address, asks)
	p.inspect("/steer/asks")
	p.send("consent", "east")
	p.says("nothing was asked: type west")
	p.picture("steer-refused")
	if strings.Contains(p.text(), "What was asked last") {
		t.Error("it was asked without the word")
	}
	_ = p.complaints() // of the refusal, which is no page
	p.send("consent", "west")
	p.says("consent west: asked")
	p.says("What was asked last")
	p.inspect("/steer/consent")
}

// send sends the form of a run's page that asks for something, with a word typed.
func (p *tab) send(kind, word string) {
	p.t.Helper()
	form := fmt.Sprintf(`document.querySelector("form.row input[name=kind][value=%s]").form`, kind)
	if word != "" {
		p.eval(form+`.querySelector("[name=typed]").focus()`, nil)
		p.holds(`document.activeElement.name === "typed"`)
		p.typed(word)
	}
	p.eval(form+`.querySelector("button").focus()`, nil)
	p.holds(`document.activeElement === ` + form + `.querySelector("button")`)
	p.loading(func() { p.press("Enter") })
}

func (p *tab) text() (text string) {
	p.t.Helper()
	p.eval("document.body.innerText", &text)
	return text
}

func (p *tab) says(what string) {
	p.t.Helper()
	if text := p.text(); !strings.Contains(text, what) {
		p.picture("steer-says-not")
		p.t.Fatalf("it does not say %q: %s", what, text)
	}
}
