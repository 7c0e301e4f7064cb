package preflight

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Voice is what is known of one that a plan's automatic declaration counts on: a vantage
// point, or a site whose signs of life vantage points watch.
type Voice struct {
	// Spoke says that it ever said something in this vault, and At when it did last, by its
	// own clock.
	Spoke bool
	At    time.Time
	// Site says that its words are a site's signs of life.
	Site bool
	Err  string // why its last word cannot be read
}

// early is what to do about those who need not have spoken yet.
const early = "ask again when the plan has been in the vault for some minutes: agents speak once one is there that is declared automatically"

// hushed is how old the last word of a vantage point may be: all speak every few seconds.
const hushed = 10 * time.Minute

// checkDeclared looks, of a plan that is declared automatically, whether those speak whose
// silence and whose word decide. A site that never gave a sign of life is never taken for
// lost, and takes nothing over: without being told, nobody would know before the disaster.
func checkDeclared(in *Input) []Finding {
	d := in.Plan.Declaration
	switch {
	case !d.Automatic:
		return []Finding{ok("", "a person declares a site lost")}
	case in.Voices == nil:
		return []Finding{unknown("", "davit vault check", "nobody asked who has spoken in the vault")}
	}
	var all []Finding
	for _, s := range in.Plan.Sites {
		if f, amiss := in.unheard(s.Name); amiss {
			all = append(all, f)
		}
	}
	var never []string
	for _, name := range d.Vantages {
		switch v := in.Voices[name]; {
		case !v.Spoke:
			never = append(never, name)
		case v.Err != "":
			all = append(all, warn(name, "see its log, and whether it runs this version", "what vantage point %s said last cannot be read: %s", name, v.Err))
		case in.Now.Sub(v.At) > hushed && !slices.ContainsFunc(all, func(f Finding) bool { return f.Site == name }):
			all = append(all, warn(name, "look at its agent, or at its davit witness", "vantage point %s has said nothing for %s", name, Span(in.Now.Sub(v.At))))
		}
	}
	if len(never) > 0 {
		all = append(all, in.mute(never))
	}
	if len(all) == 0 {
		return []Finding{ok("", "all sites and %d vantage points speak in the vault", len(d.Vantages))}
	}
	return all
}

// unheard is a site of the plan that never gave a sign of life that counts.
func (in *Input) unheard(site string) (f Finding, amiss bool) {
	v := in.Voices[site]
	if v.Spoke && (v.Site || v.Err != "") {
		return f, false
	}
	means := "takes nothing over, and is never taken for lost"
	if site == in.From {
		means = "is never taken for lost, and nothing is declared, though it holds the applications"
	}
	if in.Early {
		return unknown(site, early, "site %s has given no sign of life in this vault yet", site), true
	}
	return warn(site, "`davit status` there: does its agent run, in this version, and with this vault? Until it speaks a person declares", "site %s has never given a sign of life in this vault: it %s", site, means), true
}

// mute is of vantage points that never spoke.
func (in *Input) mute(never []string) Finding {
	d := in.Plan.Declaration
	left := "the others are enough, and one fewer may fail"
	if len(d.Vantages)-len(never) < in.Agree {
		left = fmt.Sprintf("%d must agree, so nothing is ever declared", in.Agree)
	}
	if in.Early {
		return unknown("", early, "of vantage points %s have not spoken in this vault yet: %s", strings.Join(d.Vantages, ", "), some(never))
	}
	return warn("", "start their agents, or davit witness --name NAME; or name others in the plan", "of vantage points %s have never spoken in this vault: %s: %s", strings.Join(d.Vantages, ", "), some(never), left)
}
