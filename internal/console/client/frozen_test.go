package client

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// frozen is a way to a server whose first connection can stand still, as that of a
// stopped process: it stays, and nothing that is sent over it is answered. Later
// connections pass.
type frozen struct {
	net.Listener
	still atomic.Bool // the first one

	mu    sync.Mutex
	conns []net.Conn
	count int // taken
}

func freezing(t *testing.T, to string) *frozen {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &frozen{Listener: l}
	var under sync.WaitGroup
	under.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			on, err := net.Dial("tcp", to)
			if err != nil {
				_ = c.Close()
				continue
			}
			f.mu.Lock()
			first := f.count == 0
			f.count++
			f.conns = append(f.conns, c, on)
			f.mu.Unlock()
			under.Go(func() { f.pass(on, c, first) })
			under.Go(func() { f.pass(c, on, first) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		f.mu.Lock()
		for _, c := range f.conns {
			_ = c.Close()
		}
		f.mu.Unlock()
		under.Wait()
	})
	return f
}

func (f *frozen) pass(to, from net.Conn, first bool) {
	part := make([]byte, 4096)
	for {
		n, err := from.Read(part)
		if err != nil {
			_ = to.Close()
			return
		}
		if first && f.still.Load() {
			continue // it is taken, and goes nowhere
		}
		if _, err := to.Write(part[:n]); err != nil {
			return
		}
	}
}

func (f *frozen) taken() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

// A console that stands still keeps its connections. They are let go, so that what is
// asked next is asked over a new one; without signs of life it goes the dead way again.
func TestStillConsole(t *testing.T) {
	for name, c := range map[string]struct {
		signs *http.HTTP2Config
		anew  bool
	}{
		"signs of life": {&http.HTTP2Config{SendPingTimeout: 100 * time.Millisecond, PingTimeout: 5 * time.Second}, true},
		"none":          {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.ProtoMajor != 2 {
					t.Error("it is asked by " + r.Proto)
				}
				fmt.Fprint(w, `{"name":"anna"}`)
			}))
			s.EnableHTTP2 = true
			s.StartTLS()
			t.Cleanup(s.Close)
			way := freezing(t, s.Listener.Addr().String())
			client := newClient(t, "https://"+way.Addr().String(), "secret", Trust{CA: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))})
			client.signs = c.signs
			if err := client.turn(client.URL()); err != nil {
				t.Fatal(err)
			}
			if _, err := client.Whoami(t.Context()); err != nil {
				t.Fatal(err)
			}
			way.still.Store(true)
			// Where the dead way is left, the limits are for a machine that is busy; where it
			// is not, nothing could come of waiting longer.
			limit := 2 * time.Second
			if c.anew {
				limit = time.Minute
			}
			ask := func() error {
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				_, err := client.Whoami(ctx)
				return err
			}
			if err := ask(); err == nil {
				t.Fatal("who stands still answers")
			} else if c.anew && !errors.Is(err, ErrUnreachable) {
				t.Errorf("%v", err)
			}
			if err := ask(); (err == nil) != c.anew || (way.taken() > 1) != c.anew {
				t.Errorf("asked again: %v, over %d connections", err, way.taken())
			}
		})
	}
}
