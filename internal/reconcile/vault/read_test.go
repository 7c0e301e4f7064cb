package vault

import (
	"strings"
	"testing"

	"davit.dev/davit/internal/cli/view"
	"davit.dev/davit/internal/vault/reading"
)

// TestWhoReadsIsShown while he does, on his point and on no other.
func TestWhoReadsIsShown(t *testing.T) {
	s := newSite(t)
	s.publish("shop-1", 1)
	s.publish("shop-2", 1)
	session, err := reading.Begin(t.Context(), reading.Work{Project: s.project, Application: "shop", Point: "shop-1", By: "restore r1", Site: "east"})
	if err != nil {
		t.Fatal(err)
	}
	read := func() map[string]string {
		t.Helper()
		s.look()
		all := map[string]string{}
		for _, rp := range s.shown() {
			all[rp.Name] = view.OfObject(&rp).Read
		}
		return all
	}
	if got := read(); !strings.HasPrefix(got["shop-1"], "being read by restore r1 at site east until ") || got["shop-2"] != "" {
		t.Errorf("shown are %v", got)
	}
	session.Done(t.Context())
	if got := read(); got["shop-1"] != "" {
		t.Errorf("after the end: %v", got)
	}
}
