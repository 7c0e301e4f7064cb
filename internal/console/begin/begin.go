// Package begin is how runs are begun from the console: it looks whether whoever
// asks may, and whether the site could, keeps the request, and waits a little for
// what the site's agent says of it. The site decides; what is known here only
// spares people the way.
package begin

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/commission"
	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/ahead"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/entry"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/uplink"
)

const (
	// Life is how long a site may take to begin what it is asked for. A person who
	// waits asks again; nobody is to be surprised by what was asked long ago.
	Life = 2 * time.Minute
	// Patience is how long whoever asks waits for the site's answer.
	Patience = 20 * time.Second
	maxText  = 1024
)

// Ask is what somebody asks for.
type Ask struct {
	// ID makes the same again be the same request; empty: it is another.
	ID     string
	Plan   string
	Verb   plan.Verb
	To     string // empty: where the plan would go now
	Reason string
	Lost   []string
	Asked  bool // that a site was asked to stop is fence enough
	Points map[string]string
	AsOf   time.Time
}

// Desk takes what people ask for.
type Desk struct {
	Door  *entry.Door
	Fleet func(p *store.Project) fleet.Known
}

// Verbs are those that can be asked for.
func Verbs() []plan.Verb {
	return []plan.Verb{plan.Failover, plan.Switchover, plan.Failback, plan.Drill}
}

// Moves tells whether a verb takes more than a drill does.
func Moves(v plan.Verb) bool { return v != plan.Drill }

// Need is what it takes to ask for a verb: people who may protect may drill, and a
// robot's token says that it may begin runs.
func Need(who entry.Who, v plan.Verb) account.Permission {
	if !Moves(v) && who.Token == nil {
		return account.Protect
	}
	return account.Recover
}

// Take keeps what somebody asks for, and returns what the site says of it if it does
// so soon: a request without a state has no answer yet.
func (d *Desk) Take(ctx context.Context, p *store.Project, who entry.Who, act audit.Act, a Ask) (store.Request, error) {
	if err := a.check(); err != nil {
		return store.Request{}, err
	}
	if err := d.Door.May(ctx, who, p, Need(who, a.Verb)); err != nil {
		return store.Request{}, err
	}
	// What was asked before is answered as it stands: it may be under way by now.
	if old, err := p.Requested(ctx, a.ID); err == nil && old.By == act.By && old.Plan == a.Plan {
		return d.await(ctx, p, old)
	}
	k := d.Fleet(p)
	found, err := know(k, a.Plan)
	if err != nil {
		return store.Request{}, err
	}
	a.To = cmp.Or(a.To, found.To)
	if err := a.fits(found); err != nil {
		return store.Request{}, err
	}
	if why := Unable(k, a.To, a.Verb); why != "" {
		return store.Request{}, fmt.Errorf("%w: %s. Begin it there: `%s`", store.ErrRefused, why, a.Command())
	}
	if busy := Busy(k, a.Plan, a.To, a.Verb); busy != "" {
		return store.Request{}, fmt.Errorf("%w: run %s of plan %s is under way: wait until it is over, or end it", store.ErrConflict, busy, a.Plan)
	}
	r, what, err := a.request(who.InRuns(p.Name), act.At)
	if err != nil {
		return r, err
	}
	if r, err = p.Request(ctx, act, r, what); err != nil {
		return r, err
	}
	return d.await(ctx, p, r)
}

// await waits a little for the site's answer.
func (d *Desk) await(ctx context.Context, p *store.Project, r store.Request) (store.Request, error) {
	return entry.Await(ctx, d.Door, p, Patience, func(ctx context.Context) (store.Request, error) { return p.Requested(ctx, r.ID) })
}

// know finds a plan.
func know(k fleet.Known, name string) (*ahead.Plan, error) {
	if k.Snapshot == nil || k.Snapshot.Ahead == nil {
		return nil, fmt.Errorf("%w: the console has not read the plans in the vault yet: ask again in a minute, or begin it at the site", store.ErrRefused)
	}
	found, ok := k.Snapshot.Ahead.Plan(name)
	if !ok {
		return nil, fmt.Errorf("find plan %s: %w", name, store.ErrNotFound)
	}
	return found, nil
}

// Unable says why a site's agent cannot be asked now; empty: it can.
func Unable(k fleet.Known, site string, v plan.Verb) string {
	i := slices.IndexFunc(k.Agents, func(a fleet.Agent) bool { return a.Site == site })
	allow := "; `davit enrol --runs drill` or `--runs all` at the site, with a new token, lets it"
	switch {
	case i < 0:
		return fmt.Sprintf("no agent of site %s calls this console", site)
	case !k.Agents[i].Connected:
		return fmt.Sprintf("the agent of site %s is not connected", site)
	case k.Agents[i].Runs == "":
		return fmt.Sprintf("the agent of site %s is too old to be asked for runs", site)
	case k.Agents[i].Runs == uplink.RunsAll, k.Agents[i].Runs == uplink.RunsDrill && v == plan.Drill:
		return ""
	case k.Agents[i].Runs == uplink.RunsDrill:
		return fmt.Sprintf("site %s lets the console begin drills only", site) + allow
	}
	return fmt.Sprintf("site %s does not let the console begin runs", site) + allow
}

// Busy names a run that is in the way, as far as the vault says.
func Busy(k fleet.Known, of, to string, v plan.Verb) string {
	if k.Snapshot == nil {
		return ""
	}
	for _, r := range k.Snapshot.Runs {
		passed := r.Verb == plan.Drill && (v != plan.Drill || r.To != to)
		if r.Plan == of && !r.Over && !passed {
			return r.Run
		}
	}
	return ""
}

// Command is what begins it without the console, with the target's kubeconfig.
func (a Ask) Command() string {
	words := []string{"davit", string(a.Verb), a.Plan}
	if a.To != "" {
		words = append(words, "--to", a.To)
	}
	for _, site := range a.Lost {
		words = append(words, "--lost", site)
	}
	if a.Asked {
		words = append(words, "--accept-asked")
	}
	if !a.AsOf.IsZero() {
		words = append(words, "--as-of", a.AsOf.UTC().Format(time.RFC3339))
	}
	for _, app := range slices.Sorted(maps.Keys(a.Points)) {
		words = append(words, "--point", app+"="+a.Points[app])
	}
	return strings.Join(words, " ")
}

// check refuses what makes no sense, whatever is known of the fleet.
func (a Ask) check() error {
	chosen := len(a.Points) > 0 || !a.AsOf.IsZero()
	var why string
	switch {
	case !slices.Contains(Verbs(), a.Verb):
		why = fmt.Sprintf("there is no run %.32q: only failover, switchover, failback and drill", a.Verb)
	case !entry.ValidID(a.ID, 16):
		why = "the request's id has other than 16 to 64 letters, digits, dashes and underscores"
	case len(a.Reason) > maxText:
		why = fmt.Sprintf("the reason has more than %d bytes", maxText)
	case a.Verb != plan.Failover && (len(a.Lost) > 0 || a.Asked):
		why = "only a failover has lost sites here: a planned move past one that held the applications before, and is gone for good, is given at its target"
	case len(a.Points) > 0 && !a.AsOf.IsZero():
		why = "give points or a time, not both"
	case chosen && a.Verb != plan.Failover && a.Verb != plan.Drill:
		why = "a planned move takes the point that its own sync makes"
	case chosen && a.Verb == plan.Drill && !a.AsOf.IsZero():
		why = "a drill takes points, not a time"
	}
	if why != "" {
		return fmt.Errorf("%w: %s", store.ErrRefused, why)
	}
	return nil
}

// fits refuses what the plan cannot be asked for.
func (a Ask) fits(found *ahead.Plan) error {
	of, err := found.Parse()
	if err != nil {
		return fmt.Errorf("%w: plan %s cannot be carried out: %w", store.ErrRefused, a.Plan, err)
	}
	known := func(site string) bool {
		return slices.ContainsFunc(of.Sites, func(s plan.Site) bool { return s.Name == site })
	}
	if !known(a.To) {
		return fmt.Errorf("%w: plan %s does not name site %q", store.ErrRefused, a.Plan, a.To)
	}
	for _, site := range a.Lost {
		if !known(site) || site == a.To {
			return fmt.Errorf("%w: %q is no site of plan %s that could be lost", store.ErrRefused, site, a.Plan)
		}
	}
	for app := range a.Points {
		if !slices.ContainsFunc(of.Applications, func(x plan.Application) bool { return x.Name == app }) {
			return fmt.Errorf("%w: a point is chosen for %q, which is not of plan %s", store.ErrRefused, app, a.Plan)
		}
	}
	return nil
}

// request is what is kept, and what the audit log says of it.
func (a Ask) request(by string, at time.Time) (store.Request, string, error) {
	body, err := json.Marshal(uplink.Begin{Verb: string(a.Verb), By: by, Reason: a.Reason, Lost: a.Lost, Asked: a.Asked, Points: a.Points, AsOf: a.AsOf})
	r := store.Request{ID: a.ID, Site: a.To, Plan: a.Plan, Run: commission.Name(a.Plan, a.Verb, at), Body: body, Until: at.Add(Life).UTC().Truncate(time.Millisecond)}
	what := a.Command() + " for " + by
	if a.Reason != "" {
		what += ": " + a.Reason
	}
	return r, what, err
}

// Shown is a request as people and the API have it.
type Shown struct {
	ID   string    `json:"id"`
	Plan string    `json:"plan"`
	Verb plan.Verb `json:"verb"`
	To   string    `json:"to"`
	// Run is what the run is called, if it is begun.
	Run    string    `json:"run"`
	By     string    `json:"by"`
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
	Until  time.Time `json:"until"`
	// State is created, refused, asked (the site has not answered), or unknown (nor
	// in time).
	State string `json:"state"`
	Why   string `json:"why,omitempty"`
	Do    string `json:"do,omitempty"`
}

// States besides those that sites say.
const (
	Waiting = "asked"
	Unknown = "unknown"
)

// Show says how a request stands.
func Show(r store.Request, now time.Time) (Shown, error) {
	var b uplink.Begin
	if err := json.Unmarshal(r.Body, &b); err != nil {
		return Shown{}, fmt.Errorf("read request %s: %w", r.ID, err)
	}
	s := Shown{ID: r.ID, Plan: r.Plan, Verb: plan.Verb(b.Verb), To: r.Site, Run: r.Run, By: b.By, Reason: b.Reason, At: r.At, Until: r.Until, State: r.State, Why: r.Why, Do: r.Do}
	switch {
	case s.State != "":
	case r.Open(now):
		s.State, s.Why = Waiting, "the site's agent has not answered yet"
	default:
		s.State = Unknown
		s.Why = "the site's agent did not answer in time: it begins it no more, but may have begun it before"
		s.Do = "`davit runs show " + r.Run + "` with the kubeconfig of site " + r.Site + " says whether it has; the agent says so here too, when it is back"
	}
	return s, nil
}
