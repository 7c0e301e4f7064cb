package traffic

import "fmt"

// Standing is what a site knows of an application, by whatever it heard last.
// Silence of the vault changes nothing in it.
type Standing struct {
	Application string
	// Known says that the application is protected here, and that the vault was
	// ever heard about it.
	Known bool
	// Active says that this site holds the newest epoch that it heard of.
	Active bool
	Epoch  int64
	Holder string // the site that holds it
	// Restoring says that it is only being brought here, Held that runs keep it at rest.
	Restoring, Held bool
	// Closed is a gate that was asked about and is not open here.
	Closed string
}

// Active says whether a site may tell load balancers to send clients: whether
// it holds all of the applications and nothing keeps them from being used. If
// not, why.
func Active(all []Standing) (bool, string) {
	if len(all) == 0 {
		return false, "no application is named: ask for /active/APPLICATION"
	}
	for _, s := range all {
		switch {
		case !s.Known:
			return false, fmt.Sprintf("%s: this site knows nothing of it: is it protected here, and named as in the vault (davit status)?", s.Application)
		case !s.Active:
			return false, fmt.Sprintf("%s: site %s holds it, under epoch %d", s.Application, s.Holder, s.Epoch)
		case s.Restoring:
			return false, fmt.Sprintf("%s: it is being restored here", s.Application)
		case s.Held:
			return false, fmt.Sprintf("%s: a run holds it at rest", s.Application)
		case s.Closed != "":
			return false, fmt.Sprintf("%s: gate %s is not open here", s.Application, s.Closed)
		}
	}
	return true, ""
}
