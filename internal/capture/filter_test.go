package capture

import (
	"errors"
	"strings"
	"testing"
)

func TestFilterMatch(t *testing.T) {
	for _, tt := range []struct {
		include, exclude string
		kind             string
		want             bool
	}{
		{"", "", "deployments.apps", true},
		{"deployments.apps", "", "deployments.apps", true},
		{"deployments.apps", "", "statefulsets.apps", false},
		{"deployments", "", "deployments.apps", false},
		{"secrets", "", "secrets", true},
		{"secrets", "", "secrets.example.com", false},
		{"*", "", "secrets", true},
		{"*", "", "orders.shop.example.com", true},
		{"*.shop.example.com", "", "orders.shop.example.com", true},
		{"*.shop.example.com", "", "orders.other.example.com", false},
		{"*.*.example.com", "", "orders.shop.example.com", true},
		{"*.apps", "", "secrets", false},
		{"", "secrets", "secrets", false},
		{"secrets", "secrets", "secrets", false},
		{"*", "*.apps", "deployments.apps", false},
		{"", "*maps", "configmaps", false},
		{"", "*maps", "configmap", true},
		{"", "config*s", "configmaps", false},
		{"*.apps,secrets", "", "secrets", true},
	} {
		f, err := ParseFilter(fields(tt.include), fields(tt.exclude))
		if err != nil {
			t.Fatalf("ParseFilter(%q, %q): %v", tt.include, tt.exclude, err)
		}
		resource, group, _ := strings.Cut(tt.kind, ".")
		if got := f.Match(resource, group); got != tt.want {
			t.Errorf("include %q exclude %q: Match(%s) = %t, want %t", tt.include, tt.exclude, tt.kind, got, tt.want)
		}
	}
}

func fields(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

func TestParseFilterRefuses(t *testing.T) {
	for _, text := range []string{"", ".", "a.", ".apps", "a..b", "Deployments.apps", "a b", "a/b", "a.b.", strings.Repeat("a", 400)} {
		if _, err := ParseFilter([]string{text}, nil); !errors.Is(err, ErrFilter) {
			t.Errorf("ParseFilter(%q) = %v, want ErrFilter", text, err)
		}
		if _, err := ParseFilter(nil, []string{text}); !errors.Is(err, ErrFilter) {
			t.Errorf("ParseFilter of excluded %q = %v, want ErrFilter", text, err)
		}
	}
}

func TestFilterUnmatchedSuggests(t *testing.T) {
	f, err := ParseFilter([]string{"deployments", "secrets"}, []string{"*.nowhere.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	got := f.unmatched([]Kind{{Resource: "secrets"}, {Group: "apps", Resource: "deployments"}})
	if len(got) != 2 || !strings.Contains(got[0], "did you mean deployments.apps?") || !strings.Contains(got[1], "excludeKinds") {
		t.Errorf("unmatched = %q", got)
	}
}

func FuzzParseFilter(f *testing.F) {
	for _, seed := range []string{"deployments.apps", "*", "*.a.b", "a*b*.c*d", "..", "**"} {
		f.Add(seed, "deployments", "apps")
	}
	f.Fuzz(func(t *testing.T, text, resource, group string) {
		filter, err := ParseFilter([]string{text}, nil)
		if err != nil {
			if !errors.Is(err, ErrFilter) {
				t.Errorf("ParseFilter(%q) = %v, not an ErrFilter", text, err)
			}
			return
		}
		matched := filter.Match(resource, group)
		if strings.Trim(text, "*.") == "" && text == "*" && !matched {
			t.Errorf("%q does not match %q.%q", text, resource, group)
		}
		both, err := ParseFilter([]string{text}, []string{text})
		if err != nil || both.Match(resource, group) {
			t.Errorf("%q included and excluded: err %v, or matches: exclusion must win", text, err)
		}
		if !strings.Contains(text, "*") {
			r, g, _ := strings.Cut(text, ".")
			if !filter.Match(r, g) {
				t.Errorf("%q does not match itself", text)
			}
		}
	})
}
