package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// DNSEndpoints is the resource that external-dns reads.
const DNSEndpoints = "dnsendpoints.externaldns.k8s.io"

// EndpointKey reads NAMESPACE/NAME.
func EndpointKey(endpoint string) (namespace, name string, ok bool) {
	namespace, name, _ = strings.Cut(endpoint, "/")
	return namespace, name, validName(namespace) && validName(name) && !strings.Contains(namespace, ".")
}

// endpoint checks a record that external-dns keeps. It takes nothing away that the other
// site's external-dns made (it must not: see docs/traffic.md), so the kinds of
// records have to be the same everywhere.
func (c *checker) endpoint(where string, r *Record) {
	if r.Provider != ProviderExternalDNS {
		c.say(where, "only external-dns reads an endpoint", "remove endpoint, or write provider: external-dns")
		return
	}
	if _, _, ok := EndpointKey(r.Endpoint); !ok {
		c.say(where, fmt.Sprintf("its endpoint %q is no DNSEndpoint", r.Endpoint), "write NAMESPACE/NAME of the one that holds this name at every site")
	}
	if r.Secret != "" {
		c.say(where, "external-dns has a key of its own, and nothing reads secret "+r.Secret, "remove secret")
	}
	if len(r.Servers) == 0 {
		c.say(where, "nobody would tell whether external-dns has moved the name", "name the zone's servers under servers, each with watch: true")
	}
	var first, of string
	for i, site := range sorted(r.To) {
		kinds := RecordKinds(r.To[site])
		switch {
		case i == 0:
			first, of = kinds, site
		case kinds != first:
			c.say(where+" at site "+site, fmt.Sprintf("the name has %s, and %s at site %s: external-dns would leave both", kinds, first, of), "give the same kinds of records at all sites")
		}
	}
}

// RecordKind is the kind of record that holds a value.
func RecordKind(value string) string {
	addr, err := netip.ParseAddr(value)
	switch {
	case err != nil:
		return "CNAME"
	case addr.Is4():
		return "A"
	}
	return "AAAA"
}

// RecordKinds are the kinds that values need, for people.
func RecordKinds(values []string) string {
	var kinds []string
	for _, v := range values {
		kinds = append(kinds, RecordKind(v))
	}
	slices.Sort(kinds)
	return strings.Join(slices.Compact(kinds), " and ")
}
