// Package endpoints moves names that external-dns keeps: it writes the
// DNSEndpoint of the site that is to be active, and takes away what one of a site
// says that was superseded. The object has the guard of the name; external-dns knows
// of no epochs (decision 30).
package endpoints

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/traffic"
	"davit.dev/davit/internal/traffic/names"
)

// Again is how long to wait between questions: external-dns looks once a minute,
// unless told otherwise.
const Again = 2 * time.Second

// Endpoint is one record in a DNSEndpoint.
type Endpoint struct {
	Name, Kind string
	TTL        int64
	Targets    []string
	// Odd is what else it has, that would be lost.
	Odd string
}

// Object is a DNSEndpoint.
type Object struct {
	Namespace, Name string
	// Version is what the API server compares; empty: there is none yet.
	Version string
	// Guard is the text of Davit's annotation; empty: the object is not Davit's.
	Guard string
	// Keeper is who else keeps the object as it has it; empty: nobody.
	Keeper    string
	Endpoints []Endpoint
}

// Objects are the DNSEndpoints of a cluster.
type Objects interface {
	// Get returns one; nil if there is none.
	Get(ctx context.Context, namespace, name string) (*Object, error)
	// Put writes one if it is still as its Version says, else names.ErrChanged. A dry
	// one is only judged.
	Put(ctx context.Context, o *Object, dry bool) error
	// List returns those that have Davit's label.
	List(ctx context.Context) ([]*Object, error)
}

// ErrAbsent says that the cluster has no such kind of objects.
var ErrAbsent = &names.RefusedError{
	Server: "the cluster", What: "serves no " + plan.DNSEndpoints + " (v1alpha1)",
	Do: "install external-dns there with its CRD and --source=crd, or have another provider keep the name",
}

// Open returns what keeps a record: the DNSEndpoint of the site whose objects these
// are, and the zone's servers, which are asked whether external-dns has done it.
func Open(r *plan.Record, objects Objects, asked []names.Server) *names.Service {
	namespace, name, _ := plan.EndpointKey(r.Endpoint)
	service := &names.Service{
		Servers: []names.Kept{{Server: &server{objects: objects, namespace: namespace, name: name, asked: asked}}},
		Guard:   execute.Guarded, Again: Again,
	}
	for _, s := range asked {
		service.Servers = append(service.Servers, names.Kept{Server: s, Watch: true})
	}
	return service
}

// server is a DNSEndpoint as names.Server.
type server struct {
	objects         Objects
	namespace, name string
	asked           []names.Server
	read            *Object
	borrowed        bool // where the name leads was asked of the zone's servers: the object does not say
}

// Name implements names.Server.
func (s *server) Name() string { return "DNSEndpoint " + s.namespace + "/" + s.name }

// Read implements names.Server.
func (s *server) Read(ctx context.Context, zone, name string) (traffic.Seen, error) {
	var seen traffic.Seen
	o, err := s.get(ctx, name)
	if err != nil {
		return seen, err
	}
	s.read, s.borrowed = o, false
	if o.Guard != "" {
		seen.Text = strings.Fields(o.Guard)
		if seen.Guard, err = traffic.ParseGuard(seen.Text); err != nil {
			return seen, s.refuse("has a guard that cannot be used", err.Error())
		}
	}
	for _, e := range o.Endpoints {
		seen.Values = append(seen.Values, e.Targets...)
		seen.TTL = time.Duration(e.TTL) * time.Second
	}
	seen.Values = traffic.Sort(seen.Values)
	if len(o.Endpoints) == 0 && (seen.Guard == nil || seen.Guard.Site == "") {
		s.borrowed = true
		seen.Values, seen.TTL = s.elsewhere(ctx, zone, name)
	}
	return seen, nil
}

// elsewhere is where the name leads by whatever another site's external-dns said,
// so that a roll-back can put it back. Of silent servers nobody knows.
func (s *server) elsewhere(ctx context.Context, zone, name string) ([]string, time.Duration) {
	for _, one := range s.asked {
		if seen, err := one.Read(ctx, zone, name); err == nil {
			return seen.Values, seen.TTL
		}
	}
	return nil, 0
}

// get reads the object, and refuses one that Davit may not write.
func (s *server) get(ctx context.Context, name string) (*Object, error) {
	o, err := s.objects.Get(ctx, s.namespace, s.name)
	if err != nil {
		return nil, s.named(err)
	}
	if o == nil {
		return &Object{Namespace: s.namespace, Name: s.name}, nil
	}
	if o.Guard == "" {
		return nil, s.refuse("was not made by Davit", "name another under endpoint, or hand it over as docs/traffic.md has it")
	}
	if o.Keeper != "" {
		return nil, s.refuse("is kept by "+o.Keeper+" too, which would put back what it has", "leave it out there")
	}
	for _, e := range o.Endpoints {
		switch {
		case !strings.EqualFold(strings.TrimSuffix(e.Name, "."), name):
			return nil, s.refuse("holds "+e.Name+" as well", "give "+name+" a DNSEndpoint of its own")
		case e.Odd != "":
			return nil, s.refuse(fmt.Sprintf("has a record with %s, which Davit would lose", e.Odd), "make it a plain record, or take the name out of the plan")
		}
	}
	return o, nil
}

// Swap implements names.Server. It writes over what Read found last.
func (s *server) Swap(ctx context.Context, m traffic.Move, seen traffic.Seen, values []string, guard traffic.Guard) error {
	text, err := guard.Strings()
	if err != nil {
		return s.refuse("was not written", err.Error())
	}
	next := *s.read
	next.Guard = strings.Join(text, " ")
	// What others publish stays theirs, until the guard says that it is this site's.
	if !s.borrowed || guard.Site != "" || !slices.Equal(values, seen.Values) {
		next.Endpoints = records(m.Name, int64(m.TTL/time.Second), values)
	}
	return s.named(s.objects.Put(ctx, &next, false))
}

// records are values as external-dns reads them.
func records(name string, ttl int64, values []string) []Endpoint {
	var out []Endpoint
	for _, kind := range []string{"A", "AAAA", "CNAME"} {
		e := Endpoint{Name: name, Kind: kind, TTL: max(1, ttl)}
		for _, v := range values {
			if plan.RecordKind(v) == kind {
				e.Targets = append(e.Targets, v)
			}
		}
		if len(e.Targets) > 0 {
			out = append(out, e)
		}
	}
	return out
}

// MayUpdate implements names.Server.
func (s *server) MayUpdate(ctx context.Context, _, name string) error {
	o, err := s.get(ctx, name)
	if err != nil {
		return err
	}
	if o.Guard == "" {
		o.Guard = "davit-asks"
	}
	return s.named(s.objects.Put(ctx, o, true))
}

func (s *server) refuse(what, do string) error {
	return &names.RefusedError{Server: s.Name(), What: what, Do: do}
}

// named has an error say which object is meant.
func (s *server) named(err error) error {
	var refused *names.RefusedError
	switch {
	case err == nil || errors.Is(err, names.ErrChanged):
		return err
	case errors.As(err, &refused):
		return s.refuse(refused.What, refused.Do)
	}
	return fmt.Errorf("%s: %w", s.Name(), err)
}
