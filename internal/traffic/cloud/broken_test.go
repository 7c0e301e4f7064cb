package cloud

import (
	"context"
	"net/http"
	"testing"
	"time"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/traffic/names"
)

// order gives one order that nobody repeats, and returns its outcome.
func (r *run) order(ctx context.Context, action failover.Action, number int64) execute.Answer {
	a := &names.Actuator{
		Open: func(_ context.Context, record *plan.Record) (*names.Service, error) {
			s, guard, err := Open(record, r.secret, r.options)
			return &names.Service{Servers: []names.Kept{{Server: s}}, Guard: guard}, err
		},
		Now: time.Now, Again: time.Millisecond, Patience: time.Minute,
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return a.Do(ctx, execute.Order{
		Action: action, Run: r.name, Verb: plan.Switchover, Site: r.site, From: "east", To: r.site,
		Step:  plan.Step{Name: "traffic/www", Kind: plan.KindDNS, Object: www, Record: &r.record},
		Token: failover.Token{Run: r.name, Sequence: number, Epochs: map[string]int64{"shop": r.epoch}},
	})
}

// carry gives orders as a run does: what has no answer is looked for under its own number, and is
// ordered under another once a look has said that it was not done. An order to take it back is
// given again as it is.
func (r *run) carry(action failover.Action, number int64) (int64, bool) {
	for range 20 {
		if r.order(r.t.Context(), action, number).Outcome == failover.Done {
			return number, true
		}
		if action == failover.Undo {
			continue
		}
		switch r.order(r.t.Context(), failover.Look, number).Outcome {
		case failover.Done:
			return number, true
		case failover.NotDone:
			number += 5
		}
	}
	return number, false
}

// The executor dies, or nobody hears of a change, or the service fails, at each change of a move
// and of its return: whoever goes on ends where he should.
func TestWhereverItBreaksOff(t *testing.T) {
	for name, breaks := range map[string]func(f *fake, nth int) *int{
		"the answer is lost": func(f *fake, nth int) *int {
			n := 0
			f.after = func(r *http.Request) {
				if r.Method == http.MethodGet {
					return
				}
				if n++; n == nth {
					panic(http.ErrAbortHandler)
				}
			}
			return &n
		},
		"it fails": func(f *fake, nth int) *int {
			n := 0
			f.instead = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodGet {
					return false
				}
				if n++; n != nth {
					return false
				}
				w.WriteHeader(http.StatusServiceUnavailable)
				return true
			}
			return &n
		},
	} {
		for nth := 1; nth <= 4; nth++ {
			for _, there := range []bool{true, false} { // at the move too, or at its return alone
				each(t, func(t *testing.T, p plan.Provider, f *fake, o Options) {
					r := newRun(t, p, o)
					count := breaks(f, nth)
					if !there {
						*count = nth
					}
					number, ok := r.carry(failover.Act, 2)
					if !ok {
						t.Fatalf("%s at change %d: the move comes to no end", name, nth)
					}
					leads(t, f, "192.0.2.2", "2001:db8::2")
					*count = 0
					if _, ok := r.carry(failover.Undo, number+10); !ok {
						t.Fatalf("%s at change %d: the return comes to no end", name, nth)
					}
					leads(t, f, "192.0.2.1")
				})
			}
		}
	}
}

// A look that was answered keeps its answer when it is asked again: its first answer may have died
// with whoever asked. And the order that it looked for does nothing from then on.
func TestALookIsAskedAgain(t *testing.T) {
	each(t, func(t *testing.T, p plan.Provider, f *fake, o Options) {
		r := newRun(t, p, o)
		for range 2 {
			r.want(failover.Look, 2, failover.NotDone, "leads to 192.0.2.1")
		}
		r.want(failover.Act, 2, failover.NoAnswer, "a newer order of the run has seen")
		leads(t, f, "192.0.2.1")
		r.want(failover.Act, 7, failover.Done, "")
		leads(t, f, "192.0.2.2", "2001:db8::2")
	})
}

// An order broke off after the guard, and a look said that it was not done: it is not gone on
// with, however late, also where it was read before the look.
func TestWhatBrokeOffStaysSo(t *testing.T) {
	f, o := start(t, plan.ProviderAzure)
	r := newRun(t, plan.ProviderAzure, o)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changes := 0
	f.instead = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet {
			changes++
		}
		if r.Method == http.MethodGet || changes == 1 { // the guard is the first that changes
			return false
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		cancel()
		return true
	}
	if a := r.order(ctx, failover.Act, 2); a.Outcome != failover.NoAnswer {
		t.Fatalf("%+v", a)
	}
	f.mu.Lock()
	f.instead = nil
	f.mu.Unlock()
	late, _, err := Open(&r.record, r.secret, o)
	if err != nil {
		t.Fatal(err)
	}
	seen, err := late.Read(t.Context(), "example.com", www)
	if err != nil || seen.Guard == nil || seen.Guard.Site != "west" {
		t.Fatalf("%+v %v", seen, err)
	}
	r.want(failover.Look, 2, failover.NotDone, "leads to 192.0.2.1")
	r.want(failover.Act, 2, failover.NoAnswer, "a newer order of the run has seen")
	m := names.MoveOf(www, &r.record, "west", failover.Token{Run: "run-1", Sequence: 2, Epochs: map[string]int64{"shop": 7}})
	if err := late.Swap(t.Context(), m, seen, m.To, m.After(seen)); err == nil {
		t.Error("it was read before the look, and went on after it")
	}
	leads(t, f, "192.0.2.1")
	r.want(failover.Undo, 9, failover.Done, "")
	leads(t, f, "192.0.2.1")
}
