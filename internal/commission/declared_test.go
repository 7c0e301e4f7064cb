package commission_test

import (
	"testing"

	"davit.dev/davit/internal/commission"
	"davit.dev/davit/internal/failover"
)

func TestDeclared(t *testing.T) {
	d := commission.Declared{Source: "east", Epochs: map[string]int64{"db": 4, "web": 5}}
	read, err := commission.ReadDeclared(d.String())
	if err != nil {
		t.Fatal(err)
	}
	s := &failover.Spec{Applications: []string{"db", "web"}}
	at := func(db, web failover.Held) *failover.Facts {
		return &failover.Facts{Epochs: map[string]failover.Held{"db": db, "web": web}}
	}
	east := func(n int64) failover.Held { return failover.Held{Number: n, Site: "east"} }
	if err := read.Still(s, at(east(4), east(5))); err != nil {
		t.Error(err)
	}
	for name, f := range map[string]*failover.Facts{
		"moved to north":         at(failover.Held{Number: 5, Site: "north"}, failover.Held{Number: 6, Site: "north"}),
		"one of them moved":      at(east(4), failover.Held{Number: 6, Site: "north"}),
		"moved there and back":   at(east(5), east(5)), // though the greatest epoch is the same
		"nobody holds one":       {Epochs: map[string]failover.Held{"db": east(4)}},
		"other epochs than then": at(east(3), east(5)),
	} {
		if err := read.Still(s, f); commission.Refused(err) == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := read.Still(&failover.Spec{Applications: []string{"db"}}, at(east(4), east(5))); commission.Refused(err) == nil {
		t.Errorf("another plan: %v", err)
	}
}

func FuzzReadDeclared(f *testing.F) {
	f.Add(`{"source":"east","epochs":{"db":1}}`)
	f.Add(``)
	f.Add(`{"source":"east"}`)
	f.Fuzz(func(t *testing.T, s string) {
		d, err := commission.ReadDeclared(s)
		switch {
		case err != nil && commission.Refused(err) == nil:
			t.Errorf("%q: %v", s, err)
		case err == nil && (d.Source == "" || len(d.Epochs) == 0):
			t.Errorf("%q: %+v", s, d)
		}
	})
}
