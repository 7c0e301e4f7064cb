// Package rehearsal asks the servers of a plan's records whether they would
// take a site's updates, by signed updates that take away what is not there:
// nothing changes.
package rehearsal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/traffic/rfc2136"
)

// Secrets reads a Secret of Davit's namespace at the site that would move the names.
type Secrets func(ctx context.Context, name string) (map[string][]byte, error)

// Ask asks every server of every record of the plan.
func Ask(ctx context.Context, p *plan.Plan, secrets Secrets, now func() time.Time) []preflight.Name {
	var all []preflight.Name
	var wait sync.WaitGroup
	add := func(traffic, object string, r *plan.Record) {
		if r == nil {
			return
		}
		for _, s := range r.Servers {
			all = append(all, preflight.Name{Traffic: traffic, Object: object, Server: s.Address, Watched: s.Watch})
		}
	}
	records := map[string]*plan.Record{}
	for _, t := range p.Traffic {
		add(t.Name, t.Object, t.Record)
		records[t.Name] = t.Record
	}
	for _, s := range p.Steps {
		add(s.Name, s.Object, s.Record)
		if s.Record != nil {
			records[s.Name] = s.Record
		}
	}
	for i := range all {
		wait.Go(func() { all[i] = one(ctx, all[i], records[all[i].Traffic], secrets, now) })
	}
	wait.Wait()
	return all
}

func one(ctx context.Context, n preflight.Name, r *plan.Record, secrets Secrets, now func() time.Time) preflight.Name {
	var key *rfc2136.Key
	if !n.Watched {
		k, err := read(ctx, r.Secret, secrets)
		if err != nil {
			n.Err, n.Do = err.Error(), "put the key into Secret "+r.Secret+" of davit-system at the target"
			return n
		}
		key = &k
	}
	server := rfc2136.NewServer(n.Server, key, now)
	seen, err := server.Read(ctx, r.Zone, n.Object)
	n.TTL = seen.TTL
	if err == nil && key != nil {
		err = server.MayUpdate(ctx, r.Zone, n.Object)
	}
	if err != nil {
		var refused *rfc2136.RefusedError
		n.Err, n.Refused = err.Error(), errors.As(err, &refused)
		if n.Refused {
			n.Err, n.Do = refused.What, refused.Do
		}
	}
	return n
}

func read(ctx context.Context, name string, secrets Secrets) (rfc2136.Key, error) {
	data, err := secrets(ctx, name)
	if err != nil {
		return rfc2136.Key{}, err
	}
	k, err := rfc2136.ParseKey(data)
	if err != nil {
		return k, fmt.Errorf("secret %s: %w", name, err)
	}
	return k, nil
}
