package agents

import (
	"bytes"
	"crypto/x509"
	"errors"
	"runtime/pprof"
	"testing"
	"time"

	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/uplink"
)

// writers are the goroutines that keep what agents of a project say.
func writers(t *testing.T) int {
	t.Helper()
	var all bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&all, 2); err != nil {
		t.Fatal(err)
	}
	return bytes.Count(all.Bytes(), []byte("agents.(*room).write("))
}

// TestNobodyStays: where a project was let go of nothing waits for the words of its agents any
// more, whoever was about to speak is told so, and nobody comes in whom nobody would send away.
func TestNobodyStays(t *testing.T) {
	w := newWorld(t)
	stream := func() *talk {
		return &talk{call: &call{who: uplink.Identity{Site: "east"}, cert: &x509.Certificate{}}, server: w.server}
	}
	p, ended := w.project("acme"), false
	r := w.server.room(p)
	if n := writers(t); n != 0 {
		t.Fatalf("%d wait for agents that never came", n)
	}
	if _, err := r.enter(stream(), func() { ended = true }); err != nil {
		t.Fatal(err)
	}
	if err := r.keep(t.Context(), store.Word{Site: "east", At: w.time()}); err != nil || writers(t) != 1 {
		t.Fatalf("%v, and %d wait", err, writers(t))
	}
	w.server.Leave(p.ID)
	until(t, "nothing waits for them", func() bool { return writers(t) == 0 })
	if err := r.keep(t.Context(), store.Word{Site: "east", At: w.time()}); !errors.Is(err, errLeft) || !ended {
		t.Errorf("who speaks still: %v, and the stream was ended: %v", err, ended)
	}
	if _, err := r.enter(stream(), func() {}); !errors.Is(err, store.ErrPassive) {
		t.Errorf("who comes late: %v", err)
	}
}

// TestAReplacedStreamSaysNothing: what comes late from a site's former stream is
// older than what the new one said.
func TestAReplacedStreamSaysNothing(t *testing.T) {
	at := time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC)
	r := &room{ctx: t.Context(), agents: map[string]*present{}}
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
	if got, _ := p.objects.of(key); got.Why != "second" || p.talk != young {
		t.Errorf("it says %q", got.Why)
	}
	delete(r.agents, "east") // shut out
	if err := say(young, "still here"); !errors.Is(err, errReplaced) {
		t.Errorf("after it was shut out: %v", err)
	}
}
