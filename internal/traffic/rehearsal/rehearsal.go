// Package rehearsal asks the servers of a plan's records whether they would
// take a site's updates, by signed updates that take away what is not there:
// nothing changes.
package rehearsal

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/traffic/names"
)

// Ask asks every server of every record of the plan.
func Ask(ctx context.Context, p *plan.Plan, open names.Open) []preflight.Name {
	var wait sync.WaitGroup
	var records []asked
	for _, t := range p.Traffic {
		records = append(records, asked{t.Name, t.Object, t.Record})
	}
	for _, s := range p.Steps {
		records = append(records, asked{s.Name, s.Object, s.Record})
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
	traffic, object string
	record          *plan.Record
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
	if err != nil {
		var refused *names.RefusedError
		n.Err, n.Refused = err.Error(), errors.As(err, &refused)
		if n.Refused {
			n.Err, n.Do = refused.What, refused.Do
		}
	}
	return n
}
