// Package fence decides, on one node and by itself, which applications may run
// there: it needs neither the agent nor the API server. What it learnt of
// epochs is a record that outlives the process and the machine; how long a
// lease lasts is known only as long as the machine runs. It is pure: time is
// passed in, as the time since the machine started.
package fence

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// AnnotationReturned is on an Application of which a run that was rolled back gave this site's
// epoch back, with the number. It counts until this site has claimed a higher one.
const AnnotationReturned = "davit.dev/returned-epoch"

// AnnotationLetGo is on an Application that a run no longer holds at rest, with the order: who
// is about to hold it for an older one finds it changed.
const AnnotationLetGo = "davit.dev/let-go"

// Unmark drops from the annotations of an Application what is about this site alone.
func Unmark(annotations map[string]string) {
	delete(annotations, AnnotationReturned)
	delete(annotations, AnnotationLetGo)
}

// Format is the version of the record that this version writes.
const Format = 1

// Terms are those of a lease, as the claim of an epoch says them.
type Terms struct {
	// Lease is how long the site may write after it began to ask for the newest
	// epoch and was told that it is its own.
	Lease time.Duration `json:"lease"`
	// Bound is how long a node may take from then until no writer runs.
	Bound time.Duration `json:"bound"`
	// Drift is how many parts in a million a clock may run fast or slow.
	Drift int64 `json:"drift"`
	// Peers are those who together may stand in for a silent vault.
	Peers []Peer `json:"peers,omitempty"`
}

// Peer is the cluster of another site, and where it is asked.
type Peer struct {
	Site    string `json:"site"`
	Cluster string `json:"cluster"`
	Address string `json:"address"`
}

// Application is what a node knows of one application.
type Application struct {
	// Name is the application's name in the vault.
	Name string `json:"name"`
	// Held is the newest epoch that this site ever held, Newest the newest that
	// the node knows of, Holder whose that is, for people.
	Held   int64  `json:"held,omitempty"`
	Newest int64  `json:"newest,omitempty"`
	Holder string `json:"holder,omitempty"`
	// Below, unless zero, is the fence: nothing of the application runs here
	// under a lower epoch.
	Below int64 `json:"below,omitempty"`
	// Returned, unless zero, is the newest epoch of which the cluster told that a run gives it
	// back: nothing of the application runs here under it or a lower one.
	Returned int64 `json:"returned,omitempty"`
	// Terms are nil under human declaration: then silence stops nothing.
	Terms *Terms `json:"terms,omitempty"`
	// TermsOf is the epoch that the terms are of. It is above Newest where the
	// cluster told of them and the vault has not answered since.
	TermsOf int64 `json:"termsOf,omitempty"`
	// Document is the Application object as it was last seen: what is covered.
	Document json.RawMessage `json:"document,omitempty"`
}

// Record is what a node knows, and keeps across restarts.
type Record struct {
	Format int `json:"format"`
	// Cluster is the UID of the cluster that all this is of, Site its name.
	Cluster string `json:"cluster,omitempty"`
	Site    string `json:"site,omitempty"`
	// Applications are sorted by name.
	Applications []Application `json:"applications"`
	// World is what else decides what belongs to whom, as whoever keeps the
	// record wrote it down.
	World json.RawMessage `json:"world,omitempty"`
}

// Answer is what the vault said of one application.
type Answer struct {
	Newest, Held int64
	Holder       string
	Terms        *Terms
	// Asked is when the question was begun, on the clock that leases run by.
	Asked time.Duration
}

// Leases are the ends of leases, by application. They are void after a restart
// of the machine, with the clock that they are of.
type Leases map[string]time.Duration

// Find returns an application's entry; nil if there is none.
func (r *Record) Find(name string) *Application {
	at, found := slices.BinarySearchFunc(r.Applications, name, func(a Application, n string) int { return strings.Compare(a.Name, n) })
	if !found {
		return nil
	}
	return &r.Applications[at]
}

// Ensure returns an application's entry, made if there was none.
func (r *Record) Ensure(name string) *Application {
	if a := r.Find(name); a != nil {
		return a
	}
	at, _ := slices.BinarySearchFunc(r.Applications, name, func(a Application, n string) int { return strings.Compare(a.Name, n) })
	r.Applications = slices.Insert(r.Applications, at, Application{Name: name})
	return &r.Applications[at]
}

// Forget drops all applications but those named: they are protected here no
// more, and nobody's epoch is theirs. One that is under a lease is kept: other
// sites go by that it stops when the lease is over.
func (r *Record) Forget(but map[string]bool) {
	r.Applications = slices.DeleteFunc(r.Applications, func(a Application) bool { return !but[a.Name] && a.Terms == nil })
}

// strangerFor is how long an application may run, on a node that was never told
// by the vault that it may, from when the node hears that it is under a lease.
const strangerFor = time.Second

// Hear takes note of the terms under which this site claimed an epoch, as the
// cluster tells them. They bind at once, and give no right to write that the
// vault did not give: a node that the vault told before that the site may write
// has one lease to hear it again, any other next to nothing. It tells whether
// the record changed.
func (r *Record) Hear(name string, epoch int64, terms Terms, now time.Duration, leases Leases) (changed bool) {
	app := r.Ensure(name)
	if epoch <= app.Newest || epoch <= app.TermsOf {
		return false
	}
	grace := min(strangerFor, terms.Lease)
	if app.Held > 0 && app.Held == app.Newest {
		grace = terms.Lease
	}
	app.Terms, app.TermsOf = &terms, epoch
	leases[name] = now + grace
	return true
}

// Return takes note that an epoch of this site's own is given back, as the cluster tells it. It
// tells whether the record changed.
func (r *Record) Return(name string, epoch int64) (changed bool) {
	app := r.Ensure(name)
	if epoch <= app.Returned {
		return false
	}
	app.Returned = epoch
	return true
}

// Floor is the epoch below which nothing of the application runs here; zero where any may.
func (a *Application) Floor() int64 {
	if a.Returned > 0 && a.Held <= a.Returned {
		return max(a.Below, a.Returned+1)
	}
	return a.Below
}

// Learn takes note of an answer. One that is older than what is known changes
// nothing: a fence is lifted only by an epoch of this site's own that is the
// newest. It tells whether the record changed.
func (r *Record) Learn(name string, a Answer, leases Leases) (changed bool) {
	app := r.Ensure(name)
	if a.Newest < app.Newest {
		return false
	}
	was := *app
	app.Newest, app.Held, app.Holder = a.Newest, max(a.Held, app.Held), a.Holder
	switch {
	case app.Held == 0 || app.Newest == 0:
	case app.Held < app.Newest:
		app.Below = app.Newest
	default:
		app.Below = 0
	}
	if app.Newest >= app.TermsOf { // else the answer is older than what the cluster told
		app.lease(a, leases)
	}
	return was.Held != app.Held || was.Newest != app.Newest || was.Holder != app.Holder || was.Below != app.Below || was.TermsOf != app.TermsOf || !sameTerms(was.Terms, app.Terms)
}

// lease takes the terms from an answer that is as new as all that is known.
func (a *Application) lease(answer Answer, leases Leases) {
	if answer.Terms == nil || a.Newest == 0 || a.Held != a.Newest {
		a.Terms, a.TermsOf = nil, 0
		return
	}
	// From before the question was sent: the answer may be that old.
	until := answer.Asked + answer.Terms.Lease
	if a.TermsOf == a.Newest { // answers to several questions, in any order
		until = max(until, leases[a.Name])
	}
	terms := *answer.Terms
	a.Terms, a.TermsOf, leases[a.Name] = &terms, a.Newest, until
}

func sameTerms(a, b *Terms) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Lease == b.Lease && a.Bound == b.Bound && a.Drift == b.Drift && slices.Equal(a.Peers, b.Peers)
}

// Asks are the peers that may prolong the application's lease, and the epoch under which they are asked:
// none before the vault itself said that it is the newest, and this site's own, nor once the lease is over.
// What holds a peer back lies in its cluster, and may be lost with it later: so a lease that is over
// comes back by the vault's answer alone.
func (a *Application) Asks(leases Leases, now time.Duration) ([]Peer, int64) {
	if a.Terms == nil || a.Held == 0 || a.Held != a.Newest || a.TermsOf != a.Newest || a.Why(leases, now) != Free {
		return nil, 0
	}
	return a.Terms.Peers, a.Newest
}

// Promised takes note that every peer has promised to stay passive, when it was asked under an epoch. The first
// was asked not before the time given: the lease counts from then. It tells whether the lease was prolonged.
func (r *Record) Promised(name string, epoch int64, asked, now time.Duration, leases Leases) bool {
	a := r.Find(name)
	if a == nil {
		return false
	}
	peers, of := a.Asks(leases, now)
	if len(peers) == 0 || of != epoch || asked+a.Terms.Lease <= leases[name] {
		return false
	}
	leases[name] = asked + a.Terms.Lease
	return true
}

// Reason is why an application may not run here now.
type Reason string

// The reasons.
const (
	Free       Reason = ""           // it may
	Superseded Reason = "superseded" // a newer epoch is known
	LeaseOver  Reason = "lease over" // the vault has been silent for too long
)

// Why tells whether an application may run at a time on the lease's clock.
func (a *Application) Why(leases Leases, now time.Duration) Reason {
	switch {
	case a.Floor() > 0:
		return Superseded
	case a.Terms != nil && now >= leases[a.Name]:
		return LeaseOver
	}
	return Free
}

// Leased tells whether any application is under a lease: then it may end at any
// moment.
func (r *Record) Leased() bool {
	return slices.ContainsFunc(r.Applications, func(a Application) bool { return a.Terms != nil })
}

// Fenced are the applications that may not run here now.
func (r *Record) Fenced(leases Leases, now time.Duration) map[string]Reason {
	all := map[string]Reason{}
	for i := range r.Applications {
		if why := r.Applications[i].Why(leases, now); why != Free {
			all[r.Applications[i].Name] = why
		}
	}
	return all
}

// AskEvery is how often an application's epoch is asked for: often enough that
// a lease is renewed twice before it is over.
func (a *Application) AskEvery(usual time.Duration) time.Duration {
	if a.Terms == nil {
		return usual
	}
	return max(min(usual, a.Terms.Lease/3), 100*time.Millisecond)
}
