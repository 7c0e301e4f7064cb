package agents

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/uplink/dial"
)

func (w *world) name(project string) string {
	return uplink.ServerName(uplink.Pin(w.roots[project][0].Certificate))
}

// worked counts the handshakes on which the console has spent its time.
func (w *world) worked() *atomic.Int64 {
	w.t.Helper()
	d, err := w.server.door(w.name("acme"))
	if err != nil {
		w.t.Fatal(err)
	}
	n, get := new(atomic.Int64), d.config.GetCertificate
	d.config.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		n.Add(1)
		return get(hello)
	}
	return n
}

// greeting takes up the first word of a handshake, and has no answer to it.
type greeting struct {
	net.Conn // of which nothing else is called
	said     bytes.Buffer
}

func (g *greeting) Write(p []byte) (int, error) { return g.said.Write(p) }
func (g *greeting) Read([]byte) (int, error)    { return 0, io.EOF }
func (g *greeting) Close() error                { return nil }

// stall begins so many handshakes, and goes on with none of them until they are hung up.
func (w *world) stall(n int) (hangUp []func() error) {
	w.t.Helper()
	for range n {
		var g greeting
		_ = tls.Client(&g, &tls.Config{MinVersion: tls.VersionTLS13, ServerName: w.name("acme"), NextProtos: []string{uplink.Protocol}}).HandshakeContext(w.t.Context())
		conn, err := net.Dial("tcp", w.address)
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { _ = conn.Close() })
		if _, err := conn.Write(g.said.Bytes()); err != nil {
			w.t.Fatal(err)
		}
		hangUp = append(hangUp, conn.Close)
	}
	return hangUp
}

// turnedAway tells of an agent that it calls again and again, and is told why in vain.
func turnedAway(s dial.Status) bool {
	return !s.Connected && strings.Contains(s.Fault, dial.ErrTurned.Error())
}

// Of a storm of agents the console works for a few at a time, in the order in which they
// came; whoever only stalls keeps his place for a moment.
func TestStormHasItsBound(t *testing.T) {
	const storm, bound = 100, 4
	for name, c := range map[string]struct{ places, worked int }{"bounded": {bound, bound}, "without a bound": {2 * storm, storm}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.server.gate = newGate(c.places)
			w.server.gate.held, w.server.gate.turn = time.Hour, time.Hour
			worked := w.worked()
			hangUp := w.stall(storm)
			until(t, "worked for", func() bool { return worked.Load() == int64(c.worked) && len(w.server.gate.places) == c.worked })
			// Each that ends has the next one come, until all had their turn.
			for _, end := range hangUp {
				if err := end(); err != nil {
					t.Fatal(err)
				}
			}
			until(t, "over", func() bool { return len(w.server.gate.places) == 0 })
			w.agent("east", w.link(w.token("acme", "east"))).await(t, "connected", connected)
		})
	}
}

// Who waits for too long is told to come again; and who stalls keeps nobody out for long.
func TestStallersKeepNobodyOut(t *testing.T) {
	w := newWorld(t)
	l := w.enrolled("acme", "east")
	w.server.gate = newGate(2)
	w.server.gate.held, w.server.gate.turn = time.Hour, time.Millisecond // the control: places are kept for as long as one stalls
	hangUp := w.stall(2)
	until(t, "full", func() bool { return len(w.server.gate.places) == 2 })
	a := w.agent("east", l)
	a.await(t, "turned away", turnedAway)
	if err := hangUp[0](); err != nil {
		t.Fatal(err)
	}
	a.await(t, "connected when one hangs up", connected)
	a.stop()

	w.stop()
	w.start()
	w.server.gate = newGate(2)
	w.server.gate.held = time.Millisecond
	worked := w.worked()
	w.stall(2)
	until(t, "worked for", func() bool { return worked.Load() == 2 })
	b := w.agent("east", l)
	b.await(t, "connected beside those that stall", connected)
}

// A console that is not the active one spends nothing on agents, which call it again and
// again until one is: they are told so before it has signed anything.
func TestPassiveSpendsNothing(t *testing.T) {
	w := newWorld(t)
	l := w.enrolled("acme", "east")
	worked := w.worked()
	w.mu.Lock()
	w.speaks.Active = false
	w.mu.Unlock()
	a := w.agent("east", l)
	a.await(t, "turned away", turnedAway)
	if worked.Load() != 0 {
		t.Error("a handshake was begun for it")
	}
	w.mu.Lock()
	w.speaks.Active = true
	w.mu.Unlock()
	a.await(t, "connected", connected)
	if worked.Load() == 0 { // the control
		t.Error("handshakes are not counted")
	}
}
