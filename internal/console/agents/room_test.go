package agents

import (
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"davit.dev/davit/internal/uplink"
)

// TestAReplacedStreamSaysNothing: what comes late from a site's former stream is
// older than what the new one said.
func TestAReplacedStreamSaysNothing(t *testing.T) {
	at := time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC)
	r := &room{agents: map[string]*present{}}
	stream := func() *talk {
		return &talk{call: &call{who: uplink.Identity{Site: "east"}, cert: &x509.Certificate{}}, server: &Server{Options: Options{Now: func() time.Time { return at }}}, room: r}
	}
	key := uplink.Key{Kind: "Application", Name: "shop"}
	say := func(by *talk, why string) error {
		return r.replace(by, map[uplink.Key]uplink.Object{key: {Key: key, Why: why}}, at)
	}
	old, ended := stream(), false
	leave, err := r.enter(old, func() { ended = true })
	if err != nil || say(old, "first") != nil {
		t.Fatal(err)
	}
	young := stream()
	if _, err := r.enter(young, func() {}); err != nil || !ended || say(young, "second") != nil {
		t.Fatalf("%v, the former stream was ended: %v", err, ended)
	}
	for name, err := range map[string]error{
		"all of it": say(old, "late"), "a change": r.update(old, uplink.State{Gone: []uplink.Key{key}}, at), "a beat": r.seen(old, at),
	} {
		if !errors.Is(err, errReplaced) {
			t.Errorf("%s: %v", name, err)
		}
	}
	leave()
	p := r.agents["east"]
	if got := p.objects[key].Why; got != "second" || p.talk != young {
		t.Errorf("it says %q", got)
	}
	delete(r.agents, "east") // shut out
	if err := say(young, "still here"); !errors.Is(err, errReplaced) {
		t.Errorf("after it was shut out: %v", err)
	}
}
