package trial

import (
	"fmt"
	"regexp"
	"strings"

	"davit.dev/davit/api/v1alpha1"
)

// The CRD has the same rules. They are kept here as well: probes also come from
// files, and from policies that were stored before the rules.
var (
	nameOfService = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
	leadsOut      = regexp.MustCompile(`^[^?]*(/[.][.](/|[?]|$)|%2[eEfF]|%25)`)
)

// CheckHTTP refuses an HTTP probe that could lead out of its Service: the API
// server is asked with the rights of whoever tests, and its answer is told to
// people who have not got them.
func CheckHTTP(p v1alpha1.HTTPProbe) error {
	switch {
	case !nameOfService.MatchString(p.Service):
		return fmt.Errorf("service %q is no name of a Service", p.Service)
	case p.Port != "" && !nameOfService.MatchString(p.Port):
		return fmt.Errorf("port %q is neither a number nor a name", p.Port)
	case p.Scheme != "" && p.Scheme != "http" && p.Scheme != "https":
		return fmt.Errorf("scheme %q is neither http nor https", p.Scheme)
	case p.Path != "" && !strings.HasPrefix(p.Path, "/"):
		return fmt.Errorf("path %q does not begin with a slash", p.Path)
	case leadsOut.MatchString(p.Path):
		return fmt.Errorf("path %q: no \"..\", and none of %%2e, %%2f and %%25", p.Path)
	}
	return nil
}
