package dial

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"davit.dev/davit/internal/uplink/beacon"
	"davit.dev/davit/internal/uplink/outbox"
)

const (
	first, second = "https://first", "https://second"
	// takesOver is how long after the loss the second console is active, by issue and
	// measurement at the most.
	takesOver = 15 * time.Second
	// allBack is by when all agents are to be connected to it.
	allBack = time.Minute
)

// pair are two consoles, as agents see them, in the time of the test.
type pair struct {
	lost     time.Time
	silent   bool // the first is not heard of: neither its end, nor its refusals
	named    bool // the vault says who is active
	mu       sync.Mutex
	back     map[string]time.Duration
	calls    map[time.Duration]int // of the second, by tenth of a second
	welcomes chan struct{}
}

var errRefused = errors.New("connection refused")

// Active implements Vault.
func (p *pair) Active(context.Context, Link) (beacon.Record, error) {
	switch {
	case !p.named:
		return beacon.Record{}, errRefused
	case time.Since(p.lost) < takesOver:
		return beacon.Record{Console: "c", Epoch: 1, URL: first}, nil
	}
	return beacon.Record{Console: "c", Epoch: 2, URL: second}, nil
}

// call is a call of the agent of a site.
func (p *pair) call(ctx context.Context, site, base string) (welcomed bool, err error) {
	select {
	case <-time.After(20 * time.Millisecond): // on the way
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if base == second {
		return p.answer(ctx, site)
	}
	if left := time.Until(p.lost); left > 0 {
		p.welcomes <- struct{}{}
		if p.silent {
			left += 45 * time.Second
		}
		select {
		case <-time.After(left):
		case <-ctx.Done():
		}
		if p.silent {
			return true, errSilent
		}
		return true, errRefused
	}
	if p.silent {
		select {
		case <-time.After(dialLimit):
		case <-ctx.Done():
		}
	}
	return false, errRefused
}

// answer is that of the second console.
func (p *pair) answer(ctx context.Context, site string) (welcomed bool, err error) {
	since := time.Since(p.lost)
	p.mu.Lock()
	if since >= 0 {
		p.calls[since/(100*time.Millisecond)]++
	}
	p.mu.Unlock()
	if since < takesOver {
		return false, errors.New("this console is not the active one")
	}
	p.mu.Lock()
	p.back[site] = time.Since(p.lost)
	p.mu.Unlock()
	p.welcomes <- struct{}{}
	<-ctx.Done()
	return true, ctx.Err()
}

// After the active console is lost, be it that its end is heard of or not, all of a
// thousand agents are back at the other one within a minute, by its address or by
// what the vault says, and they do not come all at once.
func TestAllBack(t *testing.T) {
	const many, some = 1000, 200
	both, one := []string{first, second}, []string{first}
	for name, c := range map[string]struct {
		n             int
		given         []string
		silent, named bool
	}{
		"killed":                        {many, both, false, true},
		"killed, a silent vault":        {some, both, false, false},
		"killed, one address":           {many, one, false, true},
		"stopped":                       {some, both, true, true},
		"stopped, a silent vault":       {some, both, true, false},
		"stopped, one address":          {many, one, true, true},
		"killed, the other comes first": {some, []string{second, first}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			box, err := outbox.Open(filepath.Join(t.TempDir(), "outbox"), 0)
			if err != nil {
				t.Fatal(err)
			}
			defer box.Close()
			synctest.Test(t, func(t *testing.T) {
				now := time.Now()
				p := &pair{
					lost: now.Add(100 * time.Second), silent: c.silent, named: c.named, back: map[string]time.Duration{},
					calls: map[time.Duration]int{}, welcomes: make(chan struct{}, c.n),
				}
				ctx, cancel := context.WithCancel(t.Context())
				var all sync.WaitGroup
				for i := range c.n {
					all.Go(func() { p.agent(ctx, fmt.Sprint("s", i), c.given, box) })
				}
				for range 2 * c.n { // at the first, and at the second
					<-p.welcomes
				}
				cancel()
				all.Wait()
				p.judge(t, c.n)
			})
		})
	}
}

func (p *pair) agent(ctx context.Context, site string, given []string, box *outbox.Outbox) {
	k := &kept{Link{URLs: given, Console: "c", Epoch: 1, Certificate: []byte("x")}}
	c := &Client{Site: site, Keep: k, Outbox: box, Vault: p, Tell: func(Status) {}, Now: time.Now}
	c.call = func(ctx context.Context, _ Link, base string) (bool, error) { return p.call(ctx, site, base) }
	c.Run(ctx)
}

// kept is a link that does not change.
type kept struct{ Link }

func (k *kept) Load(context.Context) (Link, error) { return k.Link, nil }
func (k *kept) Save(context.Context, Link) error   { return nil }

func (p *pair) judge(t *testing.T, n int) {
	t.Helper()
	last, calls := time.Duration(0), 0
	for _, d := range p.back {
		last = max(last, d)
	}
	if last > allBack {
		t.Errorf("the last of %d is back after %s", n, last)
	}
	for at, at0 := range p.calls {
		calls += at0
		if at0 > n/4 {
			t.Errorf("%d of %d come in one tenth of a second, after %s", at0, n, at*100*time.Millisecond)
		}
	}
	if calls > 12*n {
		t.Errorf("%d calls of %d agents", calls, n)
	}
	t.Logf("the last of %d is back after %s; %d calls of the second console", n, last, calls)
}

// Where an agent was welcomed by the vault's word, it calls again without that.
func TestRouteRemembers(t *testing.T) {
	var r route
	given := []string{first}
	r.begin(given, second)
	if r.left[0] != second {
		t.Fatalf("it calls %q", r.left)
	}
	r.called(second, given, true, false)
	r.begin(given, "") // its end was heard
	if fmt.Sprint(r.left) != fmt.Sprint([]string{second, first}) {
		t.Errorf("it calls %q", r.left)
	}
	for len(r.left) > 0 {
		r.called(r.left[0], given, false, false)
	}
	for i := range 10 {
		url := fmt.Sprint("https://c", i)
		r.begin(given, url)
		if r.left[0] != url || r.left[len(r.left)-1] != r.home {
			t.Errorf("it calls %q, and %s welcomed it last", r.left, r.home)
		}
		r.called(url, given, true, true)
	}
	if len(r.known) != mostKnown || r.known[0] != "https://c9" {
		t.Errorf("it knows %q", r.known)
	}
}
