package names

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/traffic"
)

// scripted is a server that answers updates one after the other as it is told, and reads with the error of now.
type scripted struct {
	swaps   []error
	unread  error // of reads once an update was sent
	updates int
}

func (s *scripted) Name() string { return "ns1" }

func (s *scripted) Read(context.Context, string, string) (traffic.Seen, error) {
	if s.updates > 0 && s.unread != nil {
		return traffic.Seen{}, s.unread
	}
	return traffic.Seen{Values: []string{"192.0.2.1"}}, nil
}

func (s *scripted) Swap(context.Context, traffic.Move, traffic.Seen, []string, traffic.Guard) error {
	err := s.swaps[min(s.updates, len(s.swaps)-1)]
	s.updates++
	return err
}

func (s *scripted) MayUpdate(context.Context, string, string) error { return nil }

// TestOnlyWhatNothingCameOfIsRefused: a run takes a refusal for the word that the name leads where it led. An update whose answer was
// lost may have moved it, although the server refuses what comes then. The control is a server that refused from the first.
func TestOnlyWhatNothingCameOfIsRefused(t *testing.T) {
	refused := &RefusedError{Server: "ns1", What: "does not know the key", Do: "compare it"}
	gone := errors.New("read: connection reset")
	for name, c := range map[string]struct {
		server scripted
		want   failover.Outcome
	}{
		"refused":                {scripted{swaps: []error{refused}}, failover.Refused},
		"refused, also to read":  {scripted{swaps: []error{refused}, unread: refused}, failover.Refused},
		"changed, then refused":  {scripted{swaps: []error{ErrChanged, refused}}, failover.Refused},
		"lost, then refused":     {scripted{swaps: []error{gone, refused}}, failover.NoAnswer},
		"lost, then not to read": {scripted{swaps: []error{gone}, unread: refused}, failover.NoAnswer},
		"taken, then not shown":  {scripted{swaps: []error{nil}, unread: refused}, failover.NoAnswer},
	} {
		server := c.server
		a := &Actuator{Now: time.Now, Again: time.Millisecond, Open: func(context.Context, *plan.Record) (*Service, error) {
			return &Service{Servers: []Kept{{Server: &server}}, Guard: execute.Fenced}, nil
		}}
		record := plan.Record{Zone: "example.com", To: map[string][]string{"east": {"192.0.2.1"}, "west": {"192.0.2.2"}}}
		got := a.Do(t.Context(), execute.Order{
			Action: failover.Act, Run: "r", Verb: plan.Switchover, Site: "west", From: "east", To: "west",
			Step:  plan.Step{Name: "traffic/www", Kind: plan.KindDNS, Object: "www.example.com", Record: &record},
			Token: failover.Token{Run: "r", Sequence: 2, Epochs: map[string]int64{"shop": 5}},
		})
		if got.Outcome != c.want || !strings.Contains(got.Note, "does not know the key") {
			t.Errorf("%s: %s %q, want %s", name, got.Outcome, got.Note, c.want)
		}
	}
}
