package dial

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"davit.dev/davit/internal/uplink/beacon"
)

// Spread of attempts. One after the other calls each address once; that is a round.
// Between two calls of a round it is a second at the most. The rounds come at random
// within bounds that double up to soon, so that who was lost with its console finds the
// next one well within a minute of the other's taking over; and later, when that is
// not what keeps it, up to longest.
const (
	shortest = time.Second
	soon     = 16 * time.Second
	longest  = time.Minute
	// eager is for how many rounds the bound is soon at the most: about two minutes.
	eager = 12
)

// Pause waits at random, up to a second after attempt 0, and after later ones from half
// of a bound to the whole, so that thousands do not come at once.
func Pause(ctx context.Context, attempt int) {
	least, bound := 50*time.Millisecond, shortest
	if attempt > 0 {
		bound = min(shortest<<min(attempt, 6), soon)
		if attempt > eager {
			bound = min(soon<<min(attempt-eager, 6), longest)
		}
		least = bound / 2
	}
	timer := time.NewTimer(least + rand.N(bound-least))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// mostKnown is how many addresses are remembered that nobody gave.
const mostKnown = 4

// route is which address is called next.
type route struct {
	home  string   // who has welcomed last
	known []string // who has welcomed and was not given: the vault named it
	left  []string // to be called in this round, the next one first
	// first says that the round begins with home: the stream to it has ended, and it was
	// neither silent for long nor replaced. Else it is called last: a dead one takes its time.
	first  bool
	rounds int   // since the last welcome
	turn   int   // rounds that brought nothing, of all time: each takes the next authority
	fault  error // why the vault does not say where the active console is
}

// begin plans a round. named is where the vault says that the active console is.
func (r *route) begin(given []string, named string) {
	var all []string
	add := func(urls ...string) {
		for _, u := range urls {
			if u != "" && !slices.Contains(all, u) {
				all = append(all, u)
			}
		}
	}
	if r.first {
		add(r.home)
	}
	if named != r.home {
		add(named)
	}
	add(given...)
	add(r.known...)
	if i := slices.Index(all, r.home); !r.first && i >= 0 {
		all = append(slices.Delete(all, i, i+1), r.home)
	}
	r.left, r.first = all, false
}

// called says that an address was called, and whether it welcomed; gone, that it is not
// to be called first again.
func (r *route) called(base string, given []string, welcomed, gone bool) {
	if i := slices.Index(r.left, base); i >= 0 {
		r.left = slices.Delete(r.left, i, i+1)
	}
	if !welcomed {
		if len(r.left) == 0 {
			r.rounds++
			r.turn++
		}
		return
	}
	r.home, r.left, r.first, r.rounds = base, nil, !gone, 0
	if !slices.Contains(given, base) {
		r.known = slices.DeleteFunc(r.known, func(u string) bool { return u == base })
		r.known = append([]string{base}, r.known[:min(len(r.known), mostKnown-1)]...)
	}
}

// wait is the attempt of which Pause is to be made: the next address of a round is
// called at once.
func (r *route) wait() int {
	if len(r.left) > 0 {
		return 0
	}
	return r.rounds
}

// lookLimit is how long the vault is asked where the active console is.
const lookLimit = 15 * time.Second

// next is the address to be called. The vault is asked once a round, but not before
// home was called that may be there still.
func (c *Client) next(ctx context.Context, l Link) string {
	r := &c.route
	if len(r.left) == 0 {
		named := ""
		r.fault = nil
		if !r.first && (r.rounds > 0 || r.home != "") {
			named, r.fault = c.named(ctx, l)
		}
		r.begin(l.URLs, named)
	}
	if len(r.left) == 0 {
		return "" // none was given
	}
	return r.left[0]
}

// named is where the vault says that the active console is; empty: it does not say.
func (c *Client) named(ctx context.Context, l Link) (string, error) {
	if c.Vault == nil || len(l.Certificate) == 0 || l.Console == "" || l.Token != "" {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	r, err := c.Vault.Active(ctx, l)
	if errors.Is(err, beacon.ErrNone) {
		return "", nil // it was never said
	}
	if err == nil && (r.Console != l.Console || r.Epoch < l.Epoch) {
		err = fmt.Errorf("%w: it names epoch %d, and %d was heard", ErrStale, r.Epoch, l.Epoch)
	}
	if err == nil {
		err = CheckURL(r.URL)
	}
	if err != nil {
		return "", err
	}
	return r.URL, nil
}
