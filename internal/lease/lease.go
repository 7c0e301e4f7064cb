// Package lease decides which site may write. Per application it keeps epochs,
// numbers that only grow, each a write-once object in the vault: whoever
// writes the next number first is the one writer, and every lower one is
// superseded. No clock takes part in that decision.
package lease

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
)

var (
	// ErrSuperseded says that a newer epoch than the one held exists. The site
	// stops writing. The error is a *SupersededError.
	ErrSuperseded = errors.New("superseded by a newer epoch")
	// ErrLost says that someone else claimed the number first.
	ErrLost = errors.New("epoch was claimed by another")
)

// SupersededError says who holds the newest epoch.
type SupersededError struct {
	Application string
	Held        int64 // the epoch that the caller holds
	Current     Epoch
}

// Error implements error.
func (e *SupersededError) Error() string {
	text := fmt.Sprintf("%s: epoch %d is superseded by epoch %d of site %s", e.Application, e.Held, e.Current.Number, e.Current.Claim.Site)
	if e.Current.Claim.Cluster != "" { // another may bear the site's name
		text += " (cluster " + e.Current.Claim.Cluster + ")"
	}
	return text
}

// Is makes errors.Is(err, ErrSuperseded) true.
func (e *SupersededError) Is(target error) bool { return target == ErrSuperseded }

// GivenBack ends the request of a claim by which a run that rolled back returned
// the epoch to the site that it had taken it from.
const GivenBack = "/back"

// Claim is what a site writes to become the one writer.
type Claim struct {
	Site string `json:"site"`
	// Cluster tells apart clusters that bear the site's name one after the
	// other; see Identity. Empty in claims of versions that knew none.
	Cluster string    `json:"cluster,omitempty"`
	Holder  string    `json:"holder"` // who acts: a run, a person, an agent
	Reason  string    `json:"reason"`
	At      time.Time `json:"at"` // by the claimer's clock, for people
	// Accepted are the ids of the points that were visible and good before the
	// claim. Points of lower epochs that are not among them are quarantined.
	Accepted []string `json:"accepted"`
	// Previous is the number that the claim supersedes; 0 for the first.
	// Epochs.Claim fills it in.
	Previous int64 `json:"previous"`
	// Request names the attempt. Claiming again with the same one, after an
	// unknown outcome, returns the epoch that was won by it.
	Request string `json:"request"`
	// Terms are the lease terms under which the site holds the epoch
	// (docs/decisions/0011-runs.md); nil: it keeps no lease, and no wait proves
	// that it has stopped.
	Terms *Terms `json:"terms,omitempty"`
	// Promotion is there when the claim was made as a second copy became the
	// vault: it says on whose word. It is nil in all other claims.
	Promotion *Promotion `json:"promotion,omitempty"`
}

// Promotion is whose word a claim rests on that no run and no person made, but
// a site that came over from a lost vault to what was its second copy.
type Promotion struct {
	From string `json:"from"` // id of the lost vault
	// Seen is the epoch that the site held there. 0: the epoch is nobody's, and
	// stands for those of the lost vault that nobody may hold any more.
	Seen int64 `json:"seen,omitempty"`
	// Known is there where the epoch is nobody's: the newest epoch of the lost
	// vault that the site which claimed it had read. A lower one does not count.
	Known int64 `json:"known,omitempty"`
}

// Armed tells whether a person put the application under its lease by this claim,
// and no run brought it here by it.
func (c Claim) Armed() bool {
	return c.Terms != nil && strings.HasPrefix(c.Request, ArmedRequest) && strings.HasPrefix(c.Reason, ArmedReason)
}

// ArmedRequest and ArmedReason begin the request and the reason of claims by
// which a person arms a plan.
const (
	ArmedRequest = "armed-"
	ArmedReason  = "armed by plan "
)

// Terms say for how long a site may write without asking the vault.
type Terms struct {
	LeaseMillis int64 `json:"leaseMillis"` // after it began to ask
	BoundMillis int64 `json:"boundMillis"` // then, until no writer runs
	DriftPPM    int64 `json:"driftPPM"`    // of any clock
	// Peers are all other sites of the plan, where they together may stand in for a silent vault
	// (docs/decisions/0039-promises.md). None: the vault's answer alone renews the lease.
	Peers []Peer `json:"peers,omitempty"`
}

// Peer is a site that may be asked to stay passive for a lease.
type Peer struct {
	Site    string `json:"site"`
	Cluster string `json:"cluster"` // that bore the name then: an older one may live on, and would promise for ever
	Address string `json:"address"` // host:port
}

// TermsOf are those under which a site holds what a plan moves: nil where people declare. As long as the vault does
// not know which cluster bears the name of each other site, nobody is asked: the vault's answer alone renews the lease.
func TermsOf(ctx context.Context, p *vault.Project, f plan.Fence, site string) (*Terms, error) {
	if f.Lease <= 0 {
		return nil, nil //nolint:nilnil // no terms is what a site without a lease claims under
	}
	t := &Terms{LeaseMillis: f.Lease.Milliseconds(), BoundMillis: f.Bound.Milliseconds(), DriftPPM: f.Drift}
	for _, name := range slices.Sorted(maps.Keys(f.Peers)) {
		if !f.Promises || name == site {
			continue
		}
		id, err := Bearer(ctx, p, name)
		if err != nil {
			return nil, err
		}
		if id.Cluster == "" {
			t.Peers = nil
			return t, nil
		}
		t.Peers = append(t.Peers, Peer{Site: name, Cluster: id.Cluster, Address: f.Peers[name]})
	}
	return t, nil
}

// Equal tells whether two claims bind alike.
func (t *Terms) Equal(other *Terms) bool {
	if t == nil || other == nil {
		return t == other
	}
	return t.LeaseMillis == other.LeaseMillis && t.BoundMillis == other.BoundMillis && t.DriftPPM == other.DriftPPM && slices.Equal(t.Peers, other.Peers)
}

// Ends tells whether the lease of these terms is over after a wait once a site has claimed, and promises
// nothing any more: one that no peer's promise goes around. Where there are peers, it has to be one of them:
// that very cluster, as its hold is read there.
func (t *Terms) Ends(target Identity) bool {
	return len(t.Peers) == 0 || target.Cluster != "" && slices.ContainsFunc(t.Peers, func(p Peer) bool { return p.Site == target.Site && p.Cluster == target.Cluster })
}

// Epoch is one number and who claimed it. Number 0 is nobody's: the
// application has never been claimed.
type Epoch struct {
	Number int64
	Claim  Claim
}

// Ledger is where epochs are kept. *vault.Project is one.
type Ledger interface {
	// EpochNumbers returns the application's numbers, ascending.
	EpochNumbers(ctx context.Context, app string) ([]int64, error)
	// ReadEpoch reads what was written for a number into v.
	ReadEpoch(ctx context.Context, app string, n int64, v any) error
	// WriteEpoch writes v for a free number; vault.ErrExists says it is taken.
	WriteEpoch(ctx context.Context, app string, n int64, v any) error
}

var _ Ledger = (*vault.Project)(nil)

// Epochs are the epochs of all applications in a ledger.
type Epochs struct{ ledger Ledger }

// New returns the epochs in a ledger.
func New(ledger Ledger) *Epochs { return &Epochs{ledger} }

// record is what is stored for an epoch. The number stands inside as well.
type record struct {
	Number int64 `json:"number"`
	Claim
}

// Current returns the newest epoch, number 0 if there is none.
func (e *Epochs) Current(ctx context.Context, app string) (Epoch, error) {
	numbers, err := e.ledger.EpochNumbers(ctx, app)
	if err != nil {
		return Epoch{}, fmt.Errorf("read epoch of %s: %w", app, err)
	}
	if len(numbers) == 0 {
		return Epoch{}, nil
	}
	return e.read(ctx, app, numbers[len(numbers)-1])
}

func (e *Epochs) read(ctx context.Context, app string, n int64) (Epoch, error) {
	var r record
	if err := e.ledger.ReadEpoch(ctx, app, n, &r); err != nil {
		return Epoch{}, fmt.Errorf("read epoch %d of %s: %w", n, app, err)
	}
	if r.Number != n {
		return Epoch{}, fmt.Errorf("read epoch %d of %s: %w: it says %d", n, app, vault.ErrDamaged, r.Number)
	}
	return Epoch{Number: n, Claim: r.Claim}, nil
}

// Claim makes the claimer the one writer by writing epoch n, which must be the
// current number and one. First list the visible points, then claim with them
// in Accepted.
//
// ErrLost says that another claimed n, ErrSuperseded that numbers above n
// exist. vault.ErrUnavailable leaves the outcome unknown: claim again with the
// same Request.
func (e *Epochs) Claim(ctx context.Context, app string, n int64, c Claim) (Epoch, error) {
	if c.Site == "" || c.Request == "" || n < 1 {
		return Epoch{}, fmt.Errorf("claim epoch %d of %s: number, site and request must be set", n, app)
	}
	current, err := e.Current(ctx, app)
	if err != nil {
		return Epoch{}, fmt.Errorf("claim epoch %d: %w", n, err)
	}
	switch {
	case current.Number >= n:
		return e.settle(app, n, current, c)
	case current.Number != n-1:
		return Epoch{}, fmt.Errorf("claim epoch %d of %s: the current one is %d, the next must follow it", n, app, current.Number)
	}
	c.Previous = current.Number
	err = e.ledger.WriteEpoch(ctx, app, n, record{Number: n, Claim: c})
	if errors.Is(err, vault.ErrExists) {
		if current, err = e.Current(ctx, app); err == nil {
			return e.settle(app, n, current, c)
		}
	}
	if err != nil {
		return Epoch{}, fmt.Errorf("claim epoch %d of %s: %w", n, app, err)
	}
	return Epoch{Number: n, Claim: c}, nil
}

// settle decides a claim of n where the current number is n or above.
func (e *Epochs) settle(app string, n int64, current Epoch, c Claim) (Epoch, error) {
	if current.Number > n {
		return Epoch{}, &SupersededError{Application: app, Held: n, Current: current}
	}
	if current.Claim.Request == c.Request && current.Claim.Site == c.Site && current.Claim.Cluster == c.Cluster {
		return current, nil // ours: its answer was lost
	}
	return Epoch{}, fmt.Errorf("claim epoch %d of %s: %w: site %s holds it", n, app, ErrLost, current.Claim.Site)
}

// Check returns a *SupersededError unless held is the newest epoch. It is the
// guard that every actuator, capture's publication included, calls before it acts.
func (e *Epochs) Check(ctx context.Context, app string, held int64) error {
	current, err := e.Current(ctx, app)
	if err != nil {
		return err
	}
	switch {
	case current.Number > held:
		return &SupersededError{Application: app, Held: held, Current: current}
	case current.Number < held:
		return fmt.Errorf("check epoch %d of %s: %w: the vault's newest is %d", held, app, vault.ErrDamaged, current.Number)
	}
	return nil
}

// History returns all epochs, oldest first.
func (e *Epochs) History(ctx context.Context, app string) ([]Epoch, error) {
	numbers, err := e.ledger.EpochNumbers(ctx, app)
	if err != nil {
		return nil, fmt.Errorf("read epochs of %s: %w", app, err)
	}
	epochs := make([]Epoch, 0, len(numbers))
	for i, n := range numbers {
		if n != int64(i)+1 {
			return nil, fmt.Errorf("read epochs of %s: %w: epoch %d is missing", app, vault.ErrDamaged, i+1)
		}
		epoch, err := e.read(ctx, app, n)
		if err != nil {
			return nil, err
		}
		epochs = append(epochs, epoch)
	}
	return epochs, nil
}

// Back reads epochs, the newest first, until each wants no more. That the newest cannot be read is
// an error at once. That an older one cannot, or is missing, is one when all the others were read:
// whoever has found what he looks for before needs it no more.
func (e *Epochs) Back(ctx context.Context, app string, each func(Epoch) (more bool)) error {
	numbers, err := e.ledger.EpochNumbers(ctx, app)
	if err != nil {
		return fmt.Errorf("read epochs of %s: %w", app, err)
	}
	var doubt error
	next := int64(0) // that must come now
	for i, n := range slices.Backward(numbers) {
		if next > n {
			doubt = fmt.Errorf("read epochs of %s: %w: epoch %d is missing", app, vault.ErrDamaged, next)
		}
		next = n - 1
		epoch, err := e.read(ctx, app, n)
		switch {
		case err == nil:
			if !each(epoch) {
				return nil
			}
		case i == len(numbers)-1 || !errors.Is(err, vault.ErrDamaged) && !errors.Is(err, vault.ErrNotFound):
			return err
		default:
			doubt = err
		}
	}
	if next > 0 {
		doubt = fmt.Errorf("read epochs of %s: %w: epoch %d is missing", app, vault.ErrDamaged, next)
	}
	return doubt
}

// Summaries reduces a history to what quarantine needs.
func Summaries(history []Epoch) []point.Epoch {
	all := make([]point.Epoch, 0, len(history))
	for _, epoch := range history {
		all = append(all, point.Epoch{Number: epoch.Number, Accepted: epoch.Claim.Accepted})
	}
	return all
}
