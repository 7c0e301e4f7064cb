package agents

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/uplink"
)

// made is an object that people or git made at a site.
func made(name, says string) uplink.Object {
	o := object(name, "Protected")
	o.Git, o.Foreign, o.Spec = "Argo CD application shops", true, json.RawMessage(fmt.Sprintf(`{"policy":%q}`, says))
	return o
}

// says are what such objects of a site say, as the console has it.
func (w *world) says(project, site string) map[string]string {
	all := map[string]string{}
	for _, m := range (fleet.Known{Agents: w.server.Known(w.project(project))}).Mirrored("Application", site) {
		all[m.Name] = string(m.Spec)
	}
	return all
}

// What git and people make at a site is shown as it says: changed, gone, after a stream
// broke, after the console was started anew, also while the agent is away; and by no other
// project. What the console made is not.
func TestMirrored(t *testing.T) {
	w := newWorld(t)
	is := func(what string, want map[string]string) {
		t.Helper()
		until(t, what, func() bool { return maps.Equal(w.says("acme", "east"), want) })
	}
	l := w.enrolled("acme", "east")
	a := w.agent("east", l)
	a.Board.Put([]uplink.Object{made("one", "hourly"), made("two", "daily"), object("own", "Protected")})
	is("told", map[string]string{"one": `{"policy":"hourly"}`, "two": `{"policy":"daily"}`})
	if all := w.server.Foreign(w.project("acme"), made("one", "").Key); len(all) != 1 || all[0].Site != "east" || string(all[0].Spec) != `{"policy":"hourly"}` || all[0].Git == "" {
		t.Errorf("%+v", all)
	}
	for _, name := range []string{"own", "none"} {
		if all := w.server.Foreign(w.project("acme"), object(name, "").Key); len(all) > 0 {
			t.Errorf("%s: %+v", name, all)
		}
	}
	a.Board.Put([]uplink.Object{made("one", "weekly"), object("own", "Protected")})
	is("changed and gone", map[string]string{"one": `{"policy":"weekly"}`})
	for _, o := range w.server.Known(w.project("acme"))[0].Objects {
		if len(o.Spec) > 0 {
			t.Errorf("every page carries what %s says", o.Name)
		}
	}
	until(t, "kept", func() bool { // what is on its way as an agent goes comes again with it
		data, _, err := w.project("acme").Kept(t.Context(), specsOf+"east")
		return err == nil && strings.Contains(string(data), "weekly") && !strings.Contains(string(data), "daily")
	})
	a.stop()
	w.stop()
	w.start()
	is("remembered", map[string]string{"one": `{"policy":"weekly"}`})
	known, err := a.keep.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := w.agent("east", known)
	b.Board.Put([]uplink.Object{made("three", "never"), object("one", "Protected")}) // the console has been given the one
	is("told anew", map[string]string{"three": `{"policy":"never"}`})
	b.Board.Put(nil)
	is("all gone", map[string]string{})
	until(t, "not kept", func() bool {
		_, _, err := w.project("acme").Kept(t.Context(), specsOf+"east")
		return errors.Is(err, store.ErrNotFound)
	})
	if got := w.says("other", ""); len(got) > 0 {
		t.Errorf("the other project hears %v", got)
	}
}

// An agent says what its own site has, of its own project: of another's nothing is
// changed by what it says, whatever names it uses.
func TestMirroredApart(t *testing.T) {
	w := newWorld(t)
	agents := map[string]*agent{}
	for _, at := range []string{"acme/east", "acme/west", "other/east"} {
		project, site, _ := strings.Cut(at, "/")
		agents[at] = w.agent(site, w.enrolled(project, site))
		agents[at].Board.Put([]uplink.Object{made("shop", at)})
	}
	for at := range agents {
		project, site, _ := strings.Cut(at, "/")
		until(t, at+" heard", func() bool { return w.says(project, site)["shop"] == fmt.Sprintf(`{"policy":%q}`, at) })
	}
	agents["other/east"].Board.Put([]uplink.Object{made("shop", "forged"), made("planted", "forged")})
	until(t, "forged", func() bool { return len(w.says("other", "east")) == 2 })
	for _, at := range []string{"acme/east", "acme/west"} {
		project, site, _ := strings.Cut(at, "/")
		if got := w.says(project, site); len(got) != 1 || got["shop"] != fmt.Sprintf(`{"policy":%q}`, at) {
			t.Errorf("%s says %v", at, got)
		}
	}
	w.server.Remove(w.project("acme"), "east") // shut out, and come again
	until(t, "told anew", func() bool { return len(w.says("acme", "east")) == 1 })
}

// What is too much, or of no kind that says anything, ends the stream that says it, before
// it takes room.
func TestMirroredBounds(t *testing.T) {
	large := func(name string, size int) uplink.Object {
		o := made(name, "")
		o.Spec = json.RawMessage(`{"a":"` + strings.Repeat("x", size-8) + `"}`)
		return o
	}
	many := func(n int) (all []uplink.Object) {
		for i := range n {
			all = append(all, large(fmt.Sprint("o", i), uplink.MaxSpec))
		}
		return all
	}
	secret, text := made("s", "x"), made("t", "x")
	secret.Kind, text.Spec = "Secret", json.RawMessage(`"text"`)
	const fits = uplink.MaxSpecs / uplink.MaxSpec
	for name, c := range map[string]struct {
		objects []uplink.Object
		full    bool
		refused bool
	}{
		"as much as may be":         {many(fits), true, false},
		"too much at once":          {many(fits + 1), true, true},
		"too much, by and by":       {many(fits + 1), false, true},
		"one that is too large":     {[]uplink.Object{large("l", uplink.MaxSpec+1)}, true, true},
		"a Secret":                  {[]uplink.Object{secret}, true, true},
		"what is no object":         {[]uplink.Object{text}, false, true},
		"as much, said in its time": {many(fits), false, false},
	} {
		w := newWorld(t)
		p := &present{}
		s := &talk{call: &call{who: uplink.Identity{Site: "east"}}, server: w.server, room: &room{agents: map[string]*present{"east": p}}}
		p.talk = s
		var err error
		for _, f := range (uplink.State{Objects: c.objects, Full: c.full}).Frames() {
			f.More = f.More && c.full
			if err = s.state(f); err != nil {
				break
			}
		}
		if c.refused != errors.Is(err, uplink.ErrFrame) || !c.refused && (err != nil || len(p.specs) != len(c.objects)) {
			t.Errorf("%s: %v, %d kept", name, err, len(p.specs))
		}
	}
}
