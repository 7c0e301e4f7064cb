package dial

import (
	"context"
	"errors"
	"testing"
	"time"

	"davit.dev/davit/internal/uplink"
)

// Whatever the difference of the clocks, and however long the console's word was
// under way, it is too late when the console's clock says so, and never later.
func TestLate(t *testing.T) {
	mine, theirs := time.Now(), time.Now().Add(-7*time.Hour).Round(0)
	var o orders
	if !o.late(mine, theirs.Add(time.Hour)) {
		t.Error("a console that does not say what time it is may begin")
	}
	o.clock(mine, theirs)
	until := theirs.Add(2 * time.Minute)
	for passed, late := range map[time.Duration]bool{0: false, 119 * time.Second: false, 2 * time.Minute: true, time.Hour: true} {
		if got := o.late(mine.Add(passed), until); got != late {
			t.Errorf("after %s it is late: %v", passed, got)
		}
	}
	// The machine slept: one of its clocks stood still.
	if !o.late(mine.Add(time.Hour).Round(0), until) {
		t.Error("by the wall's clock alone it is not late")
	}
	// The clock was set back since the stream was asked for, and there is no steady one.
	for _, back := range []time.Duration{time.Millisecond, 240 * time.Hour} {
		if !o.late(mine.Add(-back).Round(0), until) {
			t.Errorf("by a clock that went %s back it is not late", back)
		}
	}
}

// A site begins what it was opened for, and nothing for a word that it does not
// know.
func TestOpened(t *testing.T) {
	for _, test := range []struct {
		runs, verb string
		may        bool
	}{
		{"", "drill", false}, {"none", "drill", false}, {"drill", "drill", true}, {"drill", "failover", false}, {"all", "failover", true}, {"all", "drill", true}, {"everything", "drill", false},
	} {
		if r := permits(test.runs, test.verb); (r == Refusal{}) != test.may || !test.may && r.Do != Allow {
			t.Errorf("%q, %s: %+v", test.runs, test.verb, r)
		}
	}
}

// A site restores what it was opened for, and nothing for a word that it does not
// know. What is lost or stays with a dry run is looked at by the same rule.
func TestRestorable(t *testing.T) {
	for _, test := range []struct {
		restores   string
		clone, may bool
	}{
		{"", true, false}, {"none", true, false}, {"clone", true, true}, {"clone", false, false}, {"all", true, true}, {"all", false, true}, {"everything", true, false},
	} {
		if r := permitsRestore(test.restores, test.clone); (r == Refusal{}) != test.may || !test.may && r.Do != AllowRestores {
			t.Errorf("%q, clone %v: %+v", test.restores, test.clone, r)
		}
	}
}

// waits are restores that end with the stream.
type waits struct{}

func (waits) Restore(ctx context.Context, _ uplink.Restore, _ Refusal, _ func(uplink.Restored)) error {
	<-ctx.Done()
	return nil
}

// An agent follows all that a console may ask for at once, and no more.
func TestManyAtOnce(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	s := &session{Client: &Client{Restores: waits{}, Now: time.Now}, link: Link{Epoch: 1}}
	defer s.restores.under.Wait()
	defer end()
	for i := range uplink.MostAsked {
		if err := s.restore(ctx, uplink.Restore{Epoch: 1}); err != nil {
			t.Fatalf("number %d: %v", i+1, err)
		}
	}
	if err := s.restore(ctx, uplink.Restore{Epoch: 1}); !errors.Is(err, uplink.ErrFrame) {
		t.Errorf("one more: %v", err)
	}
}
