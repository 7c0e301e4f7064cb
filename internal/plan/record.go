package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Record is a name in the DNS that clients use: where it leads while each
// site is active, and who serves its zone.
type Record struct {
	Zone string `json:"zone"`
	// TTL is how long resolvers may keep it; DefaultTTL where it is zero.
	TTL time.Duration `json:"ttl,omitempty"`
	// To is where the name leads, by site: addresses, or one other name.
	To map[string][]string `json:"to"`
	// Provider keeps the zone; name servers that take dynamic updates where it
	// is empty.
	Provider Provider `json:"provider,omitempty"`
	// Servers are those that are asked and told: all that serve the zone. Where a
	// provider keeps it, they are only asked.
	Servers []NameServer `json:"servers,omitempty"`
	// Secret names the Secret with what may update the zone, in Davit's
	// namespace at every site. External-dns has its own.
	Secret string `json:"secret"`
	// Endpoint is the DNSEndpoint that external-dns reads, NAMESPACE/NAME at every site.
	Endpoint string `json:"endpoint,omitempty"`
}

// Provider is what keeps a zone.
type Provider string

// The providers.
const (
	ProviderRFC2136    Provider = ""
	ProviderRoute53    Provider = "route53"
	ProviderCloudflare Provider = "cloudflare"
	ProviderAzure      Provider = "azure"
	ProviderGoogle     Provider = "google"
	// ProviderExternalDNS is a controller in the site's cluster.
	ProviderExternalDNS Provider = "external-dns"
)

// services are the providers that are no name servers.
var services = []Provider{ProviderRoute53, ProviderCloudflare, ProviderAzure, ProviderGoogle, ProviderExternalDNS}

// DefaultTTL is the time to live of a record that gives none.
const DefaultTTL = 30 * time.Second

// NameServer is an authoritative server of a record's zone.
type NameServer struct {
	Address string `json:"address"` // host or host:port
	// Watch marks a secondary: it gets the zone from another server, so it is
	// asked and not told.
	Watch bool `json:"watch,omitempty"`
}

// Life is how long resolvers may keep the record.
func (r *Record) Life() time.Duration {
	if r.TTL == 0 {
		return DefaultTTL
	}
	return r.TTL
}

// ByHand is how people lead a step's name to a site.
func (s Step) ByHand(site string) string {
	to := "site " + site
	if s.Record != nil && len(s.Record.To[site]) > 0 {
		to += " (" + strings.Join(s.Record.To[site], ", ") + ")"
	}
	return fmt.Sprintf("lead %s to %s by hand, and leave Davit's guard beside it as it is", s.Object, to)
}

// record checks where a dns step or traffic leads.
func (c *checker) record(where string, kind Kind, object string, r *Record) {
	switch {
	case kind == KindGate && (!validName(object) || len(object) > 63):
		c.say(where, fmt.Sprintf("%q is no name of a gate", object), "use at most 63 lower-case letters, digits, '-' and '.'")
		return
	case kind != KindDNS && r != nil:
		c.say(where, fmt.Sprintf("a %s has no record", kind), "remove record, or make the kind dns")
		return
	case kind != KindDNS:
		return
	case r == nil:
		c.say(where, "it has no record", "say zone, to, servers and secret under record")
		return
	}
	name, zone := strings.TrimSuffix(object, "."), strings.TrimSuffix(r.Zone, ".")
	switch {
	case !hostName(strings.TrimPrefix(name, "*."), true):
		c.say(where, fmt.Sprintf("%q is not a name in the DNS", object), "write it as www.example.com; capitals are not used")
	case !hostName(zone, true):
		c.say(where, fmt.Sprintf("%q is not a zone in the DNS", r.Zone), "write it as example.com")
	case name != zone && !strings.HasSuffix(name, "."+zone):
		c.say(where, fmt.Sprintf("%s is not in zone %s", object, r.Zone), "name the zone that its servers serve")
	}
	if r.TTL < 0 || r.TTL > 24*time.Hour || r.TTL%time.Second != 0 {
		c.say(where, fmt.Sprintf("its TTL of %s cannot be", r.TTL), "use whole seconds up to a day; 30s is good")
	}
	if r.Provider == ProviderExternalDNS || r.Endpoint != "" {
		c.endpoint(where, r)
	} else if r.Secret == "" {
		c.say(where, "it has no secret", "name the Secret with the key that may update the zone")
	} else if !validName(r.Secret) {
		c.say(where, fmt.Sprintf("%q is not the name of a Secret", r.Secret), "name the Secret with the key that may update the zone")
	}
	c.leads(where, name == zone, r)
	c.servers(where, r)
}

// leads checks where a record leads at each site.
func (c *checker) leads(where string, apex bool, r *Record) {
	sites := names(c.p.Sites, func(s Site) string { return s.Name })
	for _, site := range sorted(r.To) {
		c.known(where, "site", site, sites)
	}
	taken := map[string]string{}
	for _, site := range sites {
		values := r.To[site]
		at := where + " at site " + site
		if len(values) == 0 {
			c.say(at, "it does not say where the name leads", "give addresses, or one other name")
			continue
		}
		c.values(at, apex, values)
		key := strings.Join(slices.Sorted(slices.Values(values)), " ")
		if other := taken[key]; other != "" {
			c.say(at, "the name leads where it leads at site "+other, "give what only this site has")
		}
		taken[key] = site
	}
}

func (c *checker) values(at string, apex bool, values []string) {
	seen := map[string]bool{}
	for _, v := range values {
		addr, err := netip.ParseAddr(v)
		switch {
		case seen[v]:
			c.say(at, v+" is there twice", "remove one of them")
		case err == nil && (addr.Zone() != "" || addr.Is4In6() || addr.IsUnspecified() || addr.String() != v):
			c.say(at, fmt.Sprintf("%q is not an address that clients can use", v), "write a plain IPv4 or IPv6 address, lower case")
		case err != nil && !hostName(strings.TrimSuffix(v, "."), true):
			c.say(at, fmt.Sprintf("%q is neither an address nor a name", v), "give addresses, or one other name")
		case err != nil && len(values) > 1:
			c.say(at, "a name is given beside others", "give addresses only, or one name only")
		case err != nil && apex:
			c.say(at, "the zone's own name cannot lead to another name", "give addresses")
		}
		seen[v] = true
	}
}

func (c *checker) servers(where string, r *Record) {
	service := r.Provider != ProviderRFC2136
	if service && !slices.Contains(services, r.Provider) {
		c.say(where, fmt.Sprintf("the provider %q is not known", r.Provider), "use route53, cloudflare, azure, google or external-dns, or name servers that take dynamic updates under servers")
	}
	told, seen := 0, map[string]bool{}
	for i, s := range r.Servers {
		at := fmt.Sprintf("%s, server %d", where, i+1)
		if !serverAddress(s.Address) {
			c.say(at, fmt.Sprintf("%q is not an address of a server", s.Address), "write host or host:port")
		} else if seen[s.Address] {
			c.say(at, s.Address+" is there twice", "remove one of them")
		}
		seen[s.Address] = true
		if !s.Watch {
			told++
		}
		if service && !s.Watch {
			c.say(at, s.Address+" would be told what provider "+string(r.Provider)+" keeps", "write watch: true, so that it is only asked")
		}
	}
	if told == 0 && !service {
		c.say(where, "no server takes its updates", "give one without watch, or the provider that keeps the zone")
	}
}

// serverAddress tells whether it is a host, with or without a port.
func serverAddress(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	host := s
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		if n, err := strconv.ParseUint(s[i+1:], 10, 16); err != nil || n == 0 {
			return false
		}
		host = s[:i]
		if inner, ok := strings.CutPrefix(host, "["); ok {
			addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
			return err == nil && addr.Is6()
		}
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Is4()
	}
	return hostName(strings.TrimSuffix(host, "."), false)
}

// hostName tells whether it is a name that the DNS can hold, lower case.
func hostName(s string, dotted bool) bool {
	if len(s) > 240 || dotted && !strings.Contains(s, ".") {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}
