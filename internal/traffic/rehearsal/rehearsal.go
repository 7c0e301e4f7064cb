// Package rehearsal asks the servers of a plan's records whether they would
// take a site's updates, by signed updates that take away what is not there:
// nothing changes.
package rehearsal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/traffic"
	"davit.dev/davit/internal/traffic/names"
)

// Ask asks every server of every record of the plan.
func Ask(ctx context.Context, p *plan.Plan, open names.Open) []preflight.Name {
	var wait sync.WaitGroup
	var records []asked
	about := func(application string) (all []string) {
		for _, a := range p.Applications {
			if application == "" || a.Name == application {
				all = append(all, a.Name)
			}
		}
		return all
	}
	for _, t := range p.Traffic {
		records = append(records, asked{p.Name, t.Name, t.Object, t.Record, about(t.Application)})
	}
	for _, s := range p.Steps {
		records = append(records, asked{p.Name, s.Name, s.Object, s.Record, about(s.Application)})
	}
	answers := make([][]preflight.Name, len(records))
	for i, r := range records {
		if r.record == nil {
			continue
		}
		wait.Go(func() { answers[i] = r.all(ctx, open) })
	}
	wait.Wait()
	return slices.Concat(answers...)
}

// asked is a record of the plan.
type asked struct {
	plan, traffic, object string
	record                *plan.Record
	applications          []string
}

// holds is about how many bytes services keep in a TXT record: Route 53 4,000, Azure DNS and
// Cloudflare 4,096. Others keep more, or do not say.
const holds = 4000

// crowded says that the guard of a name that is moved for many applications is longer than that; empty:
// it is not.
func (a asked) crowded() string {
	p := a.record.Provider
	if p != plan.ProviderRoute53 && p != plan.ProviderAzure && p != plan.ProviderCloudflare {
		return ""
	}
	g := traffic.Guard{Run: a.plan + "-switchover-20060102-150405", Sequence: 10_000, Epochs: map[string]int64{}}
	for _, app := range a.applications {
		g.Epochs[app] = 100
	}
	for site, values := range a.record.To {
		if len(site) > len(g.Site) {
			g.Site = site
		}
		if len(values) > len(g.Was) {
			g.Was = values
		}
	}
	text, err := g.Strings()
	if err != nil {
		return err.Error()
	}
	if n := len(strings.Join(text, `" "`)); n > holds {
		return fmt.Sprintf("its guard names %d applications in %d bytes, and a TXT record takes about %d there", len(a.applications), n, holds)
	}
	return ""
}

// all asks everything that keeps the record.
func (a asked) all(ctx context.Context, open names.Open) []preflight.Name {
	service, err := open(ctx, a.record)
	if err != nil {
		n := preflight.Name{
			Traffic: a.traffic, Object: a.object, Server: cmp.Or(string(a.record.Provider), "its servers"),
			Err: err.Error(), Do: "put the key into Secret " + a.record.Secret + " of davit-system at the target",
		}
		return []preflight.Name{n}
	}
	all := make([]preflight.Name, len(service.Servers))
	var wait sync.WaitGroup
	for i, s := range service.Servers {
		wait.Go(func() { all[i] = a.one(ctx, s) })
	}
	wait.Wait()
	return all
}

func (a asked) one(ctx context.Context, s names.Kept) preflight.Name {
	n := preflight.Name{Traffic: a.traffic, Object: a.object, Server: s.Name(), Watched: s.Watch}
	seen, err := s.Read(ctx, a.record.Zone, a.object)
	n.TTL = seen.TTL
	if err == nil && !s.Watch {
		err = s.MayUpdate(ctx, a.record.Zone, a.object)
	}
	if why := a.crowded(); err == nil && !s.Watch && why != "" {
		n.Err, n.Do = why, "have fewer applications in the plan, or give each a name of its own (application in traffic)"
	}
	if err != nil {
		var refused *names.RefusedError
		n.Err, n.Refused = err.Error(), errors.As(err, &refused)
		if n.Refused {
			n.Err, n.Do = refused.What, refused.Do
		}
	}
	return n
}
