package takeover_test

import (
	"net"
	"sync"
	"testing"
)

// line is a way for connections to a console, which can be shut and fall mute.
type line struct {
	address string
	to      string

	mu      sync.Mutex
	how     string
	changed chan struct{}
	conns   map[net.Conn]struct{}
}

// newLine makes one, at an address that is in every console's certificate.
func newLine(t *testing.T, to string) *line {
	t.Helper()
	at, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &line{address: at.Addr().String(), to: to, changed: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	var running sync.WaitGroup
	t.Cleanup(func() { _ = at.Close(); l.be(shut); running.Wait() })
	running.Go(func() {
		for {
			in, err := at.Accept()
			if err != nil {
				return
			}
			running.Go(func() { l.carry(in) })
		}
	})
	return l
}

// be changes how the line is. What was under way when it fell mute arrives when it is open.
func (l *line) be(how string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.how = how
	close(l.changed)
	l.changed = make(chan struct{})
	if how == shut {
		for c := range l.conns {
			_ = c.Close()
		}
	}
}

// keep has a connection be closed when the line is shut; false: it is.
func (l *line) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.how == shut {
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *line) drop(c net.Conn) {
	_ = c.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// open waits while the line is mute.
func (l *line) open() {
	for {
		l.mu.Lock()
		how, changed := l.how, l.changed
		l.mu.Unlock()
		if how != mute {
			return
		}
		<-changed
	}
}

func (l *line) carry(in net.Conn) {
	defer l.drop(in)
	if !l.keep(in) {
		return
	}
	l.open()
	out, err := net.Dial("tcp", l.to)
	if err != nil {
		return
	}
	defer l.drop(out)
	if !l.keep(out) {
		return
	}
	var back sync.WaitGroup
	back.Go(func() { l.copy(in, out) })
	l.copy(out, in)
	back.Wait()
}

// copy ends both ways when one of them does.
func (l *line) copy(to, from net.Conn) {
	defer l.drop(to)
	defer l.drop(from)
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			l.open()
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return // be it io.EOF: streams of HTTP/2 end otherwise
		}
	}
}
