// Package preflight judges, long before a disaster, whether a recovery plan
// will work: facts in, findings out. Whoever gathers the facts is elsewhere.
// Each check is one function with an id; each of its findings has a verdict, a
// reason and, unless all is well, a remedy. What is not known is said to be
// unknown, and facts that have aged prove nothing well.
package preflight

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/plan"
)

// Verdict is what a check found.
type Verdict string

// The verdicts, from the best.
const (
	OK      Verdict = "ok"
	Unknown Verdict = "unknown" // nobody could tell
	Warn    Verdict = "warn"    // it will work, but worse than it should
	Fail    Verdict = "fail"    // it will not work
)

var ranks = []Verdict{OK, Unknown, Warn, Fail}

// Worse tells whether a verdict is worse than another.
func (v Verdict) Worse(than Verdict) bool { return slices.Index(ranks, v) > slices.Index(ranks, than) }

// Finding is what a check has to say of one thing.
type Finding struct {
	Check       string  `json:"check"`
	Verdict     Verdict `json:"verdict"`
	Site        string  `json:"site,omitempty"`
	Application string  `json:"application,omitempty"`
	Reason      string  `json:"reason"`
	Remedy      string  `json:"remedy,omitempty"`
}

// Where is what the finding is about.
func (f Finding) Where() string {
	return strings.Trim(f.Application+"@"+f.Site, "@")
}

// Input is everything that is known. What is missing makes findings unknown.
type Input struct {
	Now  time.Time
	Plan *plan.Plan
	// From holds the applications now, To is where they would go.
	From, To string
	// Coming says that Davit is put to the target before the run begins: what that brings need
	// not be there yet.
	Coming bool
	Sites  map[string]*Site
	// Silence says of sites without facts why there are none.
	Silence map[string]string
	Needs   []Need
	Vault   Vault
	// Names are the plan's records as their servers answered, asked from the
	// target; nil where nobody asked.
	Names []Name
	// Registries are answers by Image.Key.
	Registries map[string]Registry
	// Voices are who a plan counts on that is declared automatically, by their names, and Agree
	// is how many vantage points must agree; nil where nobody asked. Early says that nobody need
	// have spoken yet: the plan is not in the vault, or came there a moment ago.
	Voices map[string]Voice
	Agree  int
	Early  bool
	// Promised are the applications of a plan that wants promises, as the vault has them, and
	// Bearers the clusters that bear its sites' names; nil where nobody looked.
	Promised []Promised
	Bearers  map[string]string
}

// Vault is the vault as the one who judges sees it.
type Vault struct {
	Err   string // why it did not answer, or could not be opened
	KeyID string // the newest data key
	// Skew is the judge's clock minus the vault's.
	Skew      time.Duration
	SkewKnown bool
	Domain    string // its failure domain, as its Vault object says; "": nobody said
}

// Name is one record at one server.
type Name struct {
	Traffic, Object, Server string
	Watched                 bool          // it is asked, and not told
	TTL                     time.Duration // as served now; zero: there is none
	Err                     string        // why it is refused, or the server is silent
	Refused                 bool          // the server said no
	Do                      string
}

// Registry is what the image's own registry, or a mirror, says.
type Registry struct {
	Present bool
	Absent  bool // it answered and has no such image
	Why     string
}

// Check is one check.
type Check struct {
	ID    string
	About string
	// facts says that what it finds of a site rests on that site's facts.
	facts bool
	run   func(*Input) []Finding
}

// Checks are all checks, in the order of the report.
func Checks() []Check {
	return []Check{
		{"facts", "what is known of each site, and how old that is", false, checkFacts},
		{"vault", "the vault answers, and every site has its newest key", false, checkVault},
		{"failure-domain", "the vault is not lost together with the source", true, checkDomain},
		{"clock", "the clocks of sites and vault agree", false, checkClocks},
		{"epochs", "one site holds each application, and no epoch is missing", false, checkEpochs},
		{"recovery-point", "each application has a newest point, within its RPO", false, checkPoints},
		{"capacity", "the target has room for what the newest points hold", true, checkCapacity},
		{"storage-classes", "the target has every storage class, mapped ones included", true, checkClasses},
		{"ingress-classes", "the target has every class of Ingresses and Gateways, mapped ones included", true, checkDoors},
		{"node-labels", "the target has nodes with the labels by which pods choose them", true, checkLabels},
		{"kinds", "the target serves every kind in a version of the points", true, checkKinds},
		{"images", "the target can have every image", true, checkImages},
		{"step-images", "the target can have the images of the plan's own commands", true, checkStepImages},
		{"steps", "what the plan's own steps rely on is there", true, checkSteps},
		{"quotas", "quotas at the target leave room", true, checkQuotas},
		{"rights", "whoever restores at the target may do so", true, checkRights},
		{"dns", "the zone's servers take the target's updates", false, checkNames},
		{"ttl", "resolvers let go of the old address soon enough", false, checkTTL},
		{"declaration", "those speak on whom an automatic declaration counts", false, checkDeclared},
		{"promises", "the sites that a plan asks to stay passive while the vault is silent would promise it", false, checkPromises},
		{"outside", "what applications need besides answers the target", false, checkOutside},
	}
}

// Judge runs all checks. Each says something, if only that all is well.
func Judge(in *Input) []Finding {
	var all []Finding
	for _, c := range Checks() {
		for _, f := range c.run(in) {
			f.Check = c.ID
			if c.facts {
				f = in.aged(f)
			}
			all = append(all, f)
		}
	}
	return all
}

// Worst is the worst verdict of findings; OK if there are none.
func Worst(all []Finding) Verdict {
	worst := OK
	for _, f := range all {
		if f.Verdict.Worse(worst) {
			worst = f.Verdict
		}
	}
	return worst
}

// Count counts findings by verdict.
func Count(all []Finding) map[Verdict]int {
	n := map[Verdict]int{}
	for _, f := range all {
		n[f.Verdict]++
	}
	return n
}

const (
	// Fresh is how long facts of a site are taken for what is so now.
	Fresh = 45 * time.Minute
	// Heed is how long a site may go on to publish that it runs what another
	// has claimed: it reads the vault every five seconds, and its facts are gathered
	// within two minutes.
	Heed = 3 * time.Minute
	// clockWarn and clockFail are how far clocks may be apart: ages are wrong
	// beyond the first, signed updates of names are refused beyond the second.
	clockWarn = 30 * time.Second
	clockFail = 5 * time.Minute
)

// aged says of a finding how old the facts are that it rests on. Old facts
// prove no longer that all is well; what they found wrong stays wrong.
func (in *Input) aged(f Finding) Finding {
	s := in.Sites[f.Site]
	if s == nil || s.Age(in.Now) <= Fresh {
		return f
	}
	f.Reason += fmt.Sprintf(" (as of %s ago)", Span(s.Age(in.Now)))
	if f.Verdict == OK {
		f.Verdict, f.Remedy = Unknown, "look why the agent of site "+f.Site+" publishes nothing newer, or give --other-kubeconfig of it"
	}
	return f
}

// unknownSite is the finding of a check that needs facts that are not there.
func (in *Input) unknownSite(site string) []Finding {
	why := in.Silence[site]
	if why == "" {
		why = "nothing is known of it"
	}
	return []Finding{{Verdict: Unknown, Site: site, Reason: why, Remedy: "run an agent of this version there, or give --other-kubeconfig of it"}}
}

// known are the needs that could be read.
func (in *Input) known() []Need {
	return slices.DeleteFunc(slices.Clone(in.Needs), func(n Need) bool { return n.Why != "" })
}

func ok(site, format string, args ...any) Finding {
	return Finding{Verdict: OK, Site: site, Reason: fmt.Sprintf(format, args...)}
}

func warn(site, remedy, format string, args ...any) Finding {
	return Finding{Verdict: Warn, Site: site, Reason: fmt.Sprintf(format, args...), Remedy: remedy}
}

func fail(site, remedy, format string, args ...any) Finding {
	return Finding{Verdict: Fail, Site: site, Reason: fmt.Sprintf(format, args...), Remedy: remedy}
}

func unknown(site, remedy, format string, args ...any) Finding {
	return Finding{Verdict: Unknown, Site: site, Reason: fmt.Sprintf(format, args...), Remedy: remedy}
}

// of names the application of a finding.
func (f Finding) of(application string) Finding {
	f.Application = application
	return f
}

// some names the first few of many.
func some(names []string) string {
	const shown = 5
	if len(names) <= shown {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:shown], ", "), len(names)-shown)
}

// Span writes a duration roughly, as ages are.
func Span(d time.Duration) string {
	two := func(big time.Duration, bigName string, small time.Duration, smallName string) string {
		if rest := d % big / small; rest > 0 {
			return fmt.Sprintf("%d%s%d%s", d/big, bigName, rest, smallName)
		}
		return fmt.Sprintf("%d%s", d/big, bigName)
	}
	const day = 24 * time.Hour
	switch {
	case d < 0:
		return "-" + Span(-d)
	case d < time.Minute:
		return d.Truncate(time.Second).String()
	case d < time.Hour:
		return two(time.Minute, "m", time.Second, "s")
	case d < 2*day:
		return two(time.Hour, "h", time.Minute, "m")
	}
	return fmt.Sprintf("%dd", d/day)
}
