package promotion

import (
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/lease"
)

// Margin is by how much the first epochs of the new vault lie above all that is
// known of the lost one: a copy lags, and a claim that only a site knows which
// does not answer must not be above those of the new vault.
const Margin = 8

// Nobody is the name under which epochs are claimed that no site holds. The
// cluster in such a claim is the id of the lost vault, so none is ever it.
const Nobody = failover.Nobody

// App is what this site knows of an application from the lost vault.
type App struct {
	Name string
	// Seen is the newest epoch that it knows of, Held the newest that it held.
	Seen, Held int64
	// Leased says that the site ran it under a lease: it is stopped while the vault
	// is silent, and another site may have taken it over by that since.
	Leased bool
}

// holds tells whether this site's last word from the lost vault was that it may
// write, and no lease has an end to that.
func (a App) holds() bool { return a.Held > 0 && a.Held == a.Seen && !a.Leased }

// Verdict is who may write an application once this site has come over.
type Verdict string

// The verdicts.
const (
	// Here: this site goes on, for it held the newest epoch that is known.
	Here Verdict = "here"
	// Elsewhere: another site came over before, with a newer epoch of the lost
	// vault, or has taken the application over since.
	Elsewhere Verdict = "elsewhere"
	// NoOne: a site that comes over later and held it goes on; else somebody
	// takes it over.
	NoOne Verdict = "nobody"
)

// decision is what becomes of one application's epochs.
type decision struct {
	verdict Verdict
	// floor is up to which number epochs are nobody's; 0: none are written.
	floor int64
	// above is up to which number the present holder's claim is said again, so
	// that it is above all that this site has seen; 0: it is already.
	above int64
	claim bool // this site claims the next number then
}

// decide is the rule. base is the highest epoch of a point in the copy, known
// that of the lost vault that a site which came over before had read, current
// the newest epoch in the store.
func decide(app App, current lease.Epoch, base, known, margin int64, self lease.Identity) decision {
	word := current.Claim.Promotion
	nobodys := current.Number == 0 || word != nil && word.Seen == 0
	switch {
	case nobodys:
		d := decision{verdict: NoOne}
		if floor := max(base, app.Seen) + margin; floor > current.Number {
			d.floor = floor
		}
		// A copy that has points of a higher epoch has seen another site take over,
		// and so has a site that read a higher one.
		if app.holds() && app.Held >= max(base, known) {
			d.verdict, d.claim = Here, true
		} else if app.Seen > max(base, known) {
			d.floor = max(d.floor, current.Number+1) // who comes later is to know it
		}
		return d
	case self.Made(current.Claim):
		return decision{verdict: Here, above: above(app, current)}
	case word != nil && app.holds() && app.Held > word.Seen && app.Held >= known:
		return decision{verdict: Here, above: above(app, current), claim: true}
	}
	return decision{verdict: Elsewhere, above: above(app, current)}
}

func above(app App, current lease.Epoch) int64 {
	if app.Seen < current.Number {
		return 0
	}
	return app.Seen + 1
}
