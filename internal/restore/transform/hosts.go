package transform

import (
	"errors"
	"fmt"
	"maps"
	"strings"

	"davit.dev/davit/internal/restore/shape"
)

func compileHosts(rule Rule) (action, error) {
	if len(rule.Hosts) == 0 {
		return nil, nil
	}
	if len(rule.Hosts) > maxMappings {
		return nil, fmt.Errorf("hosts: %d mappings are more than %d", len(rule.Hosts), maxMappings)
	}
	for _, m := range rule.Hosts {
		if err := checkHosts(m); err != nil {
			return nil, fmt.Errorf("hosts: from %q to %q: %w", m.From, m.To, err)
		}
	}
	return func(o Object) (bool, error) {
		relevant := false
		eachHost(o, func(host string) string {
			to, mapped := mapHost(rule.Hosts, host)
			relevant = relevant || mapped
			return to
		})
		return relevant, nil
	}, nil
}

func checkHosts(m Mapping) error {
	from, to := strings.HasPrefix(m.From, "."), strings.HasPrefix(m.To, ".")
	switch {
	case strings.Trim(m.From, ".") == "" || strings.Trim(m.To, ".") == "":
		return errors.New("one of them is empty")
	case from != to:
		return errors.New("a suffix, which begins with a dot, can only become a suffix")
	case strings.ContainsAny(m.From+m.To, "/: \t\n"):
		return errors.New("want host names, without scheme, port and path")
	case strings.ToLower(m.From+m.To) != m.From+m.To:
		return errors.New("host names are written in lower case")
	}
	return nil
}

// mapHost replaces a whole name, or else the longest suffix. mapped is also
// true when the host is what a mapping would make.
func mapHost(hosts []Mapping, host string) (to string, mapped bool) {
	best := -1
	for i, m := range hosts {
		suffix := strings.HasPrefix(m.From, ".")
		if host == m.To || suffix && strings.HasSuffix(host, m.To) {
			mapped = true
		}
		if host == m.From {
			return m.To, true
		}
		if suffix && strings.HasSuffix(host, m.From) && (best < 0 || len(m.From) > len(hosts[best].From)) {
			best = i
		}
	}
	if best < 0 {
		return host, mapped
	}
	m := hosts[best]
	if strings.HasSuffix(m.To, m.From) && strings.HasSuffix(host, m.To) {
		return host, true // .example.com to .west.example.com has been done
	}
	return strings.TrimSuffix(host, m.From) + m.To, true
}

// eachHost replaces the host names by which an Ingress, a Gateway or a route
// is reached from outside.
func eachHost(o Object, replace func(string) string) {
	spec := shape.Child(o.Document, "spec")
	switch o.Kind.Group {
	case shape.GroupNetworking, "extensions":
		if o.Kind.Kind != "Ingress" {
			return
		}
		for _, rule := range shape.Items(spec, "rules") {
			replaceField(rule, "host", replace)
		}
		for _, tls := range shape.Items(spec, "tls") {
			replaceList(tls, "hosts", replace)
		}
	case shape.GroupGateway:
		replaceList(spec, "hostnames", replace) // of every kind of route
		for _, listener := range shape.Items(spec, "listeners") {
			replaceField(listener, "hostname", replace)
		}
		for _, rule := range shape.Items(spec, "rules") {
			for _, filter := range shape.Items(rule, "filters") {
				replaceField(shape.Child(filter, "requestRedirect"), "hostname", replace)
			}
		}
	}
}

func replaceField(d shape.Document, field string, replace func(string) string) {
	if host := shape.Text(d, field); host != "" {
		d[field] = replace(host)
	}
}

func replaceList(d shape.Document, field string, replace func(string) string) {
	list, _ := d[field].([]any)
	for i, v := range list {
		if host, ok := v.(string); ok && host != "" {
			list[i] = replace(host)
		}
	}
}

func compileClasses(rule Rule) (action, error) {
	if len(rule.StorageClasses) == 0 {
		return nil, nil
	}
	classes := maps.Clone(rule.StorageClasses)
	return func(o Object) (bool, error) { return shape.MapClasses(o.Kind, o.Document, classes), nil }, nil
}
