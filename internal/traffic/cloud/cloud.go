// Package cloud moves names in zones that the services of clouds keep: Route 53,
// Cloudflare, Azure DNS and Google Cloud DNS, each by the few calls of its API
// that compare before they change (decision 22).
package cloud

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/traffic"
	"davit.dev/davit/internal/traffic/names"
)

// Again is how long to wait between questions: APIs refuse those who ask more often.
const Again = 4 * time.Second

// Options are for tests; zero means the usual.
type Options struct {
	Now func() time.Time
	// API and Login replace the addresses of the service, and of what gives out its tokens.
	API, Login string
	Client     *http.Client
}

// set is all records of one name and type, as the service keeps them.
type set struct {
	name, kind string // without the dot at the end; A, AAAA, CNAME or TXT
	ttl        int64
	values     []string          // as the service writes them
	handles    []string          // by which it knows the set, or each value
	proxied    bool              // Cloudflare answers in its stead
	meta       map[string]string // what Azure keeps beside it
	odd        string            // why it cannot be moved
}

// zone is a service's API for one zone.
type zone interface {
	// list returns the sets of those kinds at a name.
	list(ctx context.Context, name string, kinds ...string) ([]set, error)
	// change takes sets away and adds others, in one stroke if it can, and only if
	// those to be taken away are still as they were listed and none is in the way
	// of those to be added: else names.ErrChanged. The guard is the first of each.
	change(ctx context.Context, away, add []set) error
	// text is how it writes the strings of a TXT record.
	text(strings []string) string
}

// server is a zone as names.Server.
type server struct {
	provider plan.Provider
	zone     zone
	guarded  bool // what has aged is kept off by the handles of each set
	read     map[string]set
}

// Open returns the service that keeps a record, with the keys in a Secret, and
// how well it keeps off what has aged.
func Open(r *plan.Record, secret map[string][]byte, o Options) (names.Server, execute.Guard, error) {
	if o.Client == nil {
		o.Client = &http.Client{Timeout: callTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	open, known := map[plan.Provider]func(keys, Options) (zone, error){
		plan.ProviderRoute53: openRoute53, plan.ProviderCloudflare: openCloudflare, plan.ProviderAzure: openAzure, plan.ProviderGoogle: openGoogle,
	}[r.Provider]
	if !known {
		return nil, "", fmt.Errorf("open zone: provider %q is not known: use a newer davit", r.Provider)
	}
	z, err := open(keys{r.Provider, strings.TrimSuffix(r.Zone, "."), secret}, o)
	if err != nil {
		return nil, "", fmt.Errorf("read keys of %s: %w", r.Provider, err)
	}
	s := &server{provider: r.Provider, zone: z, guarded: r.Provider == plan.ProviderAzure || r.Provider == plan.ProviderCloudflare}
	if s.guarded {
		return s, execute.Guarded, nil
	}
	return s, execute.Fenced, nil
}

// keys are what a Secret holds.
type keys struct {
	provider plan.Provider
	zone     string
	data     map[string][]byte
}

func (k keys) get(name string) string { return strings.TrimSpace(string(k.data[name])) }

// need returns values that must be there.
func (k keys) need(all ...string) ([]string, error) {
	out := make([]string, 0, len(all))
	var missing []string
	for _, name := range all {
		if k.get(name) == "" {
			missing = append(missing, name)
		}
		out = append(out, k.get(name))
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("%s missing: give the Secret %s", strings.Join(missing, ", "), strings.Join(all, ", "))
	}
	return out, nil
}

// plain refuses what is more than an id or a name: it becomes part of an address.
func plain(all ...string) error {
	for _, v := range all {
		odd := strings.ContainsFunc(v, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.():", r)
		})
		if odd || strings.Trim(v, ".") == "" {
			return errors.New("an id or a name holds what it cannot: give each alone, without spaces and slashes")
		}
	}
	return nil
}

// Name implements names.Server.
func (s *server) Name() string { return string(s.provider) }

// Read implements names.Server.
func (s *server) Read(ctx context.Context, _, name string) (traffic.Seen, error) {
	seen := traffic.Seen{Apart: s.provider == plan.ProviderAzure}
	s.read = map[string]set{}
	sets, err := s.zone.list(ctx, name, "A", "AAAA", "CNAME")
	if err != nil {
		return seen, s.named(err)
	}
	beside, err := s.zone.list(ctx, traffic.GuardName(name), "TXT")
	if err != nil {
		return seen, s.named(err)
	}
	for _, one := range append(sets, beside...) {
		if one.odd != "" {
			return seen, s.refuse(fmt.Sprintf("has a %s at %s that is %s", one.kind, one.name, one.odd), "make it a plain record, or take it out of the plan")
		}
		s.read[one.kind] = one
		if one.kind != "TXT" {
			seen.TTL = time.Duration(one.ttl) * time.Second
			seen.Values = append(seen.Values, one.values...)
		}
	}
	seen.Values = traffic.Sort(seen.Values)
	return s.guard(seen, traffic.GuardName(name))
}

func (s *server) guard(seen traffic.Seen, beside string) (traffic.Seen, error) {
	text, is := s.read["TXT"]
	if !is {
		return seen, nil
	}
	if len(text.values) != 1 {
		return seen, s.refuse(fmt.Sprintf("has %d TXT records at %s", len(text.values), beside), "remove those that Davit did not write")
	}
	seen.Text = split(text.values[0])
	guard, err := traffic.ParseGuard(seen.Text)
	if err != nil {
		return seen, s.refuse("serves a guard at "+beside+" that cannot be used", err.Error())
	}
	seen.Guard = guard
	return seen, nil
}

// Swap implements names.Server. It compares with what Read found last.
func (s *server) Swap(ctx context.Context, m traffic.Move, seen traffic.Seen, values []string, guard traffic.Guard) error {
	text, err := guard.Strings()
	if err != nil {
		return s.refuse("was not asked", err.Error())
	}
	ttl := max(1, int64(m.TTL/time.Second))
	var away []set
	add := []set{{name: traffic.GuardName(m.Name), kind: "TXT", ttl: ttl, values: []string{s.zone.text(text)}}}
	if old, is := s.read["TXT"]; is {
		away = append(away, old)
	}
	mark := guard.Run + " " + strconv.FormatInt(guard.Sequence, 10)
	for _, kind := range []string{"A", "AAAA", "CNAME"} {
		old, is := s.read[kind]
		next := set{name: m.Name, kind: kind, ttl: ttl, values: ofKind(kind, values), proxied: s.proxied(), meta: marked(old.meta, mark)}
		if slices.Equal(values, seen.Values) {
			if !is || !s.guarded {
				continue // the guard alone keeps off what was sent before
			}
			next.ttl, next.values = old.ttl, old.values // a new handle for the same
		}
		if is {
			away = append(away, old)
		}
		if len(next.values) > 0 {
			add = append(add, next)
		}
	}
	return s.named(s.zone.change(ctx, away, add))
}

func (s *server) proxied() bool {
	for _, one := range s.read {
		if one.proxied {
			return true
		}
	}
	return false
}

// marked is what is kept beside a set, with the order that writes it.
func marked(meta map[string]string, mark string) map[string]string {
	out := map[string]string{"davit": mark}
	for k, v := range meta {
		if k != "davit" {
			out[k] = v
		}
	}
	return out
}

// nobody is the handle of no set.
const nobody = "00000000000000000000000000000000"

// MayUpdate implements names.Server: it takes away what is not there, and wants to
// hear just that.
func (s *server) MayUpdate(ctx context.Context, _, name string) error {
	err := s.zone.change(ctx, []set{
		{name: traffic.GuardName(name), kind: "TXT", ttl: 1, values: []string{s.zone.text([]string{"davit-asks"})}, handles: []string{nobody}},
		{name: name, kind: "A", ttl: 1, values: []string{"0.0.0.0"}, handles: []string{nobody}},
	}, nil)
	if errors.Is(err, names.ErrChanged) {
		return nil
	}
	return s.named(err)
}

func (s *server) refuse(what, do string) error {
	return &names.RefusedError{Server: s.Name(), What: what, Do: do}
}

// named has an error say who is meant.
func (s *server) named(err error) error {
	var refused *names.RefusedError
	switch {
	case err == nil || errors.Is(err, names.ErrChanged):
		return err
	case errors.As(err, &refused):
		return s.refuse(refused.What, refused.Do)
	}
	return fmt.Errorf("ask %s: %w", s.provider, err)
}

// ofKind are the values that records of a kind hold.
func ofKind(kind string, values []string) []string {
	var out []string
	for _, v := range values {
		is := "CNAME"
		if strings.Contains(v, ":") {
			is = "AAAA"
		} else if strings.Trim(v, "0123456789.") == "" {
			is = "A"
		}
		if is == kind {
			out = append(out, v)
		}
	}
	return out
}

// quoted writes the strings of a TXT record as zone files do; none holds
// a quote, a backslash or a space (traffic.Guard.Strings).
func quoted(all []string) string { return `"` + strings.Join(all, `" "`) + `"` }

// split reads what quoted wrote, also where the service has left out the quotes.
func split(text string) []string {
	var out []string
	for field := range strings.FieldsSeq(text) {
		out = append(out, strings.Trim(field, `"`))
	}
	return out
}
