// Package providers knows what keeps names in the DNS: name servers that take
// dynamic updates, the services of clouds, and external-dns.
package providers

import (
	"context"
	"fmt"
	"time"

	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/traffic/cloud"
	"davit.dev/davit/internal/traffic/endpoints"
	"davit.dev/davit/internal/traffic/names"
	"davit.dev/davit/internal/traffic/rfc2136"
)

// Secrets reads a Secret in Davit's namespace of the site that moves names.
type Secrets func(ctx context.Context, name string) (map[string][]byte, error)

// Open finds what keeps a record, with the key that its Secret holds. objects are
// the DNSEndpoints of the site that moves names.
func Open(secrets Secrets, objects endpoints.Objects, now func() time.Time) names.Open {
	return func(ctx context.Context, r *plan.Record) (*names.Service, error) {
		if r.Provider == plan.ProviderExternalDNS {
			return endpoints.Open(r, objects, watched(r, now)), nil
		}
		data, err := secrets(ctx, r.Secret)
		if err != nil {
			return nil, err
		}
		service, err := open(r, data, now)
		if err != nil {
			return nil, fmt.Errorf("secret %s: %w", r.Secret, err)
		}
		return service, nil
	}
}

func open(r *plan.Record, data map[string][]byte, now func() time.Time) (*names.Service, error) {
	if r.Provider == plan.ProviderRFC2136 {
		return rfc2136.Open(r, data, now)
	}
	server, guard, err := cloud.Open(r, data, cloud.Options{Now: now})
	if err != nil {
		return nil, err
	}
	service := &names.Service{Servers: []names.Kept{{Server: server}}, Guard: guard, Again: cloud.Again}
	for _, s := range watched(r, now) {
		service.Servers = append(service.Servers, names.Kept{Server: s, Watch: true})
	}
	return service, nil
}

// watched are the servers of a record that something else keeps: all are only asked,
// Plan.Check says so.
func watched(r *plan.Record, now func() time.Time) []names.Server {
	var all []names.Server
	for _, s := range r.Servers {
		all = append(all, rfc2136.NewServer(s.Address, nil, now))
	}
	return all
}
