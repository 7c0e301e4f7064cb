package rfc2136_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"davit.dev/davit/internal/traffic"
	"davit.dev/davit/internal/traffic/dnstest"
	"davit.dev/davit/internal/traffic/rfc2136"
)

const (
	secret   = "c2VjcmV0IG9mIHRoZSB0ZXN0cywgbm8gb3RoZXIgdXNl"
	zoneFile = `$TTL 300
@ IN SOA ns1 admin 1 60 10 3600 5
@ IN NS ns1
ns1 IN A 127.0.0.1
www 30 IN A 192.0.2.1
app 30 IN CNAME lb.east.example.net.
`
)

var testKey = rfc2136.Key{Name: "davit.", Algorithm: "hmac-sha256", Secret: secret}

// program finds a server, or skips the test: where the tests are run as a
// whole, hack/prepare has installed it.
func program(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/usr/bin"} {
		if path := filepath.Join(dir, name); exec.Command("test", "-x", path).Run() == nil {
			return path
		}
	}
	if os.Getenv("DAVIT_CI") != "" {
		t.Fatalf("%s is not installed: run hack/prepare", name)
	}
	t.Skipf("%s is not installed (Debian packages bind9, knot)", name)
	return ""
}

// daemon is a real server, started as a process.
type daemon struct {
	address string
	cmd     *exec.Cmd
}

func (d *daemon) server(key *rfc2136.Key) *rfc2136.Server {
	return rfc2136.NewServer(d.address, key, time.Now)
}

// start runs a server and waits until it serves the zone.
func start(t *testing.T, address string, bin string, args ...string) *daemon {
	t.Helper()
	d := &daemon{address: address, cmd: exec.Command(bin, args...)}
	var log strings.Builder
	d.cmd.Stdout, d.cmd.Stderr = &log, &log
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = d.cmd.Wait(); close(ended) }()
	t.Cleanup(func() { _ = d.cmd.Process.Kill(); <-ended })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := d.server(nil).Read(ctx, "example.com", "www.example.com"); err == nil {
			return d
		}
		select {
		case <-ended:
			t.Fatalf("%s ended: %s", bin, log.String())
		case <-ctx.Done():
			t.Fatalf("%s does not serve the zone: %s", bin, log.String())
		case <-tick.C:
		}
	}
}

func write(t *testing.T, path, format string, args ...any) string {
	t.Helper()
	if err := os.WriteFile(path, fmt.Appendf(nil, format, args...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// bind starts a BIND that serves the zone, to be updated with the key. Others
// it tells of changes.
func bind(t *testing.T, others ...int) *daemon {
	t.Helper()
	bin, dir, port := program(t, "named"), t.TempDir(), dnstest.Port(t)
	zone := write(t, filepath.Join(dir, "zone"), "%s", zoneFile)
	var notify strings.Builder
	for _, other := range others {
		fmt.Fprintf(&notify, "127.0.0.1 port %d; ", other)
	}
	config := write(t, filepath.Join(dir, "named.conf"), `
key "davit" { algorithm hmac-sha256; secret "%[1]s"; };
key "other" { algorithm hmac-sha256; secret "%[1]s"; };
options { directory "%[2]s"; pid-file none; session-keyfile none; listen-on port %[3]d { 127.0.0.1; }; listen-on-v6 { none; }; recursion no;
  allow-transfer { any; }; notify explicit; also-notify { %[5]s }; notify-delay 0; dnssec-validation no; };
controls { };
zone "example.com" { type primary; file "%[4]s"; update-policy {
  grant davit name www.example.com ANY; grant davit name _davit.www.example.com TXT;
  grant davit name app.example.com ANY; grant davit name _davit.app.example.com TXT; }; };
`, secret, dir, port, zone, notify.String())
	return start(t, fmt.Sprintf("127.0.0.1:%d", port), bin, "-g", "-n", "1", "-c", config)
}

// knot starts a Knot that serves the zone: its own, or that of a primary.
func knot(t *testing.T, port int, primary string) *daemon {
	t.Helper()
	bin, dir := program(t, "knotd"), t.TempDir()
	if port == 0 {
		port = dnstest.Port(t)
	}
	zone := "    acl: update\n"
	remote := ""
	if primary == "" {
		write(t, filepath.Join(dir, "example.com.zone"), "$ORIGIN example.com.\n%s", zoneFile)
	} else {
		host, p, _ := net.SplitHostPort(primary)
		remote = fmt.Sprintf("remote:\n  - id: primary\n    address: %s@%s\n", host, p)
		zone = "    master: primary\n    acl: notify\n"
	}
	config := write(t, filepath.Join(dir, "knot.conf"), `
server:
    rundir: %[1]s
    listen: 127.0.0.1@%[2]d
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: warning
database:
    storage: %[1]s
key:
  - id: davit
    algorithm: hmac-sha256
    secret: %[3]s
%[4]sacl:
  - id: update
    key: davit
    action: update
    update-owner: name
    update-owner-match: equal
    update-owner-name: [www, _davit.www, app, _davit.app]
  - id: notify
    address: 127.0.0.1
    action: notify
zone:
  - domain: example.com
    storage: %[1]s
    file: example.com.zone
%[5]s`, dir, port, secret, remote, zone)
	return start(t, fmt.Sprintf("127.0.0.1:%d", port), bin, "-c", config)
}

// both runs a test against both servers.
func both(t *testing.T, test func(t *testing.T, d *daemon)) {
	t.Run("bind", func(t *testing.T) { t.Parallel(); test(t, bind(t)) })
	t.Run("knot", func(t *testing.T) { t.Parallel(); test(t, knot(t, 0, "")) })
}

func (d *daemon) read(t *testing.T) traffic.Seen {
	t.Helper()
	seen, err := d.server(&testKey).Read(t.Context(), "example.com", "www.example.com")
	if err != nil {
		t.Fatal(err)
	}
	return seen
}

// serial is the zone's, which grows with every change.
func (d *daemon) serial(t *testing.T) uint32 {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion("example.com.", dns.TypeSOA)
	r, _, err := new(dns.Client).ExchangeContext(t.Context(), m, d.address)
	if err != nil || len(r.Answer) == 0 {
		t.Fatalf("serial: %v %v", r, err)
	}
	return r.Answer[0].(*dns.SOA).Serial
}

// relay passes TCP on to a server, and loses the answer to the first update.
func relay(t *testing.T, to string) (address string, lost func() bool) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	happened := make(chan struct{})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			pass(c, to, happened)
		}
	}()
	return l.Addr().String(), func() bool {
		select {
		case <-happened:
			return true
		default:
			return false
		}
	}
}

func pass(c net.Conn, to string, happened chan struct{}) {
	defer func() { _ = c.Close() }()
	in := &dns.Conn{Conn: c}
	raw, err := in.ReadMsgHeader(nil)
	if err != nil {
		return
	}
	out, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	server := &dns.Conn{Conn: out}
	defer func() { _ = server.Close() }()
	if _, err := server.Write(raw); err != nil {
		return
	}
	answer, err := server.ReadMsgHeader(nil)
	if err != nil {
		return
	}
	if opcode := raw[2] >> 3 & 15; int(opcode) == dns.OpcodeUpdate {
		select {
		case <-happened:
		default:
			close(happened)
			return
		}
	}
	_, _ = in.Write(answer)
}
