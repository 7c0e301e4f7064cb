// Package dnstest finds ports for name servers in tests.
package dnstest

import (
	"net"
	"testing"
)

// Listen listens on one port of this machine for both protocols: another's UDP
// socket may have the first number that TCP is given.
func Listen(t testing.TB) (net.Listener, net.PacketConn) {
	t.Helper()
	for range 50 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if p, err := net.ListenPacket("udp", l.Addr().String()); err == nil {
			return l, p
		}
		_ = l.Close()
	}
	t.Fatal("no port is free for both protocols")
	return nil, nil
}

// Port is one that was free for both a moment ago, for a process that is told
// where to listen.
func Port(t testing.TB) int {
	t.Helper()
	l, p := Listen(t)
	_, _ = l.Close(), p.Close()
	return l.Addr().(*net.TCPAddr).Port
}
