package remote

import (
	"context"
	"slices"
	"strings"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/remote/seen"
	"davit.dev/davit/internal/console/fleet"
)

// seenKinds are what a console knows of a fleet and keeps no documents of, by the words
// for it. They are shown, and cannot be applied.
var seenKinds = map[string]string{
	"site": "Site", "sites": "Site", "run": "Run", "runs": "Run", "restore": "Restore", "restores": "Restore",
	"point": "RecoveryPoint", "points": "RecoveryPoint", "recoverypoint": "RecoveryPoint", "recoverypoints": "RecoveryPoint",
}

// askedSeen tells whether `get` is asked for what a console only knows, and for which
// by name; none is all.
func askedSeen(given []string) (kind string, names []string, known bool, err error) {
	if len(given) == 0 {
		return "", nil, false, nil
	}
	for i, word := range given {
		before, after, cut := strings.Cut(word, "/")
		is := seenKinds[strings.ToLower(before)]
		switch {
		case i == 0 && is == "":
			return "", nil, false, nil
		case i == 0:
			kind = is
		case cut != strings.Contains(given[0], "/"), cut && is != kind:
			return "", nil, true, exit.Usage("`get sites`, `get run NAME`, or `get run/NAME run/NAME`", "one kind of what the console knows of the fleet, at a time")
		}
		switch {
		case cut:
			names = append(names, after)
		case i > 0:
			names = append(names, word)
		}
	}
	return kind, names, true, nil
}

func (h Host) getSeen(ctx context.Context, s *session, kind string, names []string) error {
	all, columns, err := h.seen(ctx, s, kind)
	if err != nil {
		return h.explain(err)
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(o seen.Object) bool { return o.Metadata.Name == name }) {
			return exit.Refuse("`get "+strings.ToLower(kind)+"s` lists what is known", "project %s has no %s %s", s.Project, strings.ToLower(kind), name)
		}
	}
	if len(names) > 0 {
		all = slices.DeleteFunc(all, func(o seen.Object) bool { return !slices.Contains(names, o.Metadata.Name) })
	}
	return h.Print(seen.Objects{Items: all, Columns: columns, One: len(names) == 1})
}

// seen are all of a kind that a console knows of.
func (h Host) seen(ctx context.Context, s *session, kind string) (all []seen.Object, columns []output.Column, err error) {
	now := h.Now()
	add := func(name string, status any, cells ...string) {
		all = append(all, seen.Object{APIVersion: v1alpha1.GroupVersion.String(), Kind: kind, Metadata: seen.Metadata{Name: name}, Status: status, Cells: append([]string{name}, cells...)})
	}
	if kind == "Restore" {
		asked, err := s.Restorations(ctx, s.Project, "")
		for _, r := range asked {
			if !r.DryRun {
				add(r.Name, r, r.Application, r.Site, r.State, output.Age(r.At, now))
			}
		}
		return all, output.Columns("NAME", "APPLICATION", "SITE", "STATE", "AGE"), err
	}
	f, err := s.Fleet(ctx, s.Project)
	if err != nil {
		return nil, nil, err
	}
	if f.Known == nil {
		return nil, nil, exit.Refuse("ask again in a minute", "the console has not read the vault yet")
	}
	switch kind {
	case "Site":
		for _, site := range f.Known.Sites {
			add(site.Name, site, output.Age(site.Seen, now), strings.Join(site.Holds, ","), site.Davit, site.Kube)
		}
		return all, output.Columns("NAME", "LAST SIGN", "HOLDS", "DAVIT", "KUBERNETES"), nil
	case "Run":
		for _, r := range f.Known.Runs {
			add(r.Run, r, string(r.Verb), r.Plan, string(r.State), r.From, r.To, output.Age(r.Begun, now))
		}
		return all, output.Columns("NAME", "VERB", "PLAN", "STATE", "FROM", "TO", "AGE"), nil
	}
	for _, a := range f.Known.Applications {
		for _, p := range a.Points {
			add(p.ID, p, a.Name, p.Site, p.Consistency, offered(p), output.Age(p.Verified, now), output.Age(p.Instant, now))
		}
	}
	return all, output.Columns("NAME", "APPLICATION", "SITE", "CONSISTENCY", "OFFERED", "VERIFIED", "AGE"), nil
}

func offered(p fleet.Point) string {
	if p.Good {
		return "yes"
	}
	return "no: " + p.Why
}
