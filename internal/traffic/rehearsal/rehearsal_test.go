package rehearsal_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/traffic"
	"davit.dev/davit/internal/traffic/dnstest"
	"davit.dev/davit/internal/traffic/names"
	"davit.dev/davit/internal/traffic/providers"
	"davit.dev/davit/internal/traffic/rehearsal"
)

const secret = "c2VjcmV0LW9mLXRoZS10ZXN0"

// server serves example.com; it takes updates only if told so, and counts those
// that would change something.
type server struct {
	address string
	changes atomic.Int32
}

func serve(t *testing.T, rcode int) *server {
	t.Helper()
	l, p := dnstest.Listen(t)
	s := &server{address: l.Addr().String()}
	handle := dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
		r := new(dns.Msg)
		r.SetReply(m)
		r.Authoritative = true
		if m.Opcode == dns.OpcodeUpdate {
			r.Rcode = rcode
			for _, rr := range m.Ns {
				if rr.Header().Class == dns.ClassINET { // an addition
					s.changes.Add(1)
				}
			}
		} else if q := m.Question[0]; q.Qtype == dns.TypeA {
			r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 600}, A: net.IPv4(192, 0, 2, 1)}}
		}
		if sig := m.IsTsig(); sig != nil {
			r.SetTsig(sig.Hdr.Name, sig.Algorithm, 300, time.Now().Unix())
		}
		_ = w.WriteMsg(r)
	})
	keys := map[string]string{"davit.": secret}
	for _, d := range []*dns.Server{{Listener: l, Handler: handle, TsigSecret: keys}, {PacketConn: p, Handler: handle, TsigSecret: keys}} {
		d.MsgAcceptFunc = func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }
		go func() { _ = d.ActivateAndServe() }()
		t.Cleanup(func() { _ = d.Shutdown() })
	}
	return s
}

func ask(t *testing.T, secrets providers.Secrets, servers ...plan.NameServer) []preflight.Name {
	t.Helper()
	p := &plan.Plan{
		Traffic: []plan.Traffic{
			{Name: "www", Kind: plan.KindDNS, Object: "www.example.com", Record: &plan.Record{Zone: "example.com", Secret: "dns-key", Servers: servers}},
			{Name: "gate", Kind: plan.KindGate},
		},
	}
	return rehearsal.Ask(t.Context(), p, providers.Open(secrets, nil, time.Now))
}

func key(context.Context, string) (map[string][]byte, error) {
	return map[string][]byte{"name": []byte("davit"), "secret": []byte(secret)}, nil
}

func TestAsk(t *testing.T) {
	takes, refuses := serve(t, dns.RcodeSuccess), serve(t, dns.RcodeRefused)
	got := ask(t, key, plan.NameServer{Address: takes.address}, plan.NameServer{Address: refuses.address}, plan.NameServer{Address: refuses.address, Watch: true})
	if len(got) != 3 || got[0].Err != "" || got[0].TTL != 10*time.Minute {
		t.Errorf("%+v", got)
	}
	if n := got[1]; !n.Refused || n.Err == "" || n.Do == "" {
		t.Errorf("%+v", n)
	}
	if n := got[2]; n.Err != "" || !n.Watched {
		t.Errorf("one that is only watched was told something: %+v", n)
	}
	if takes.changes.Load() != 0 {
		t.Error("the rehearsal changed something")
	}
}

func TestNoKey(t *testing.T) {
	s := serve(t, dns.RcodeSuccess)
	none := func(context.Context, string) (map[string][]byte, error) { return nil, errors.New("no such Secret") }
	if got := ask(t, none, plan.NameServer{Address: s.address}); len(got) != 1 || got[0].Refused || got[0].Err != "no such Secret" || got[0].Do == "" {
		t.Errorf("%+v", got)
	}
	bad := func(context.Context, string) (map[string][]byte, error) {
		return map[string][]byte{"name": []byte("x")}, nil
	}
	if got := ask(t, bad, plan.NameServer{Address: s.address}); got[0].Err == "" {
		t.Errorf("%+v", got)
	}
}

func TestSilence(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	if got := ask(t, key, plan.NameServer{Address: address}); got[0].Err == "" || got[0].Refused {
		t.Errorf("%+v", got)
	}
}

// willing is a server that takes everything.
type willing struct{ names.Server }

func (willing) Name() string { return "willing" }
func (willing) Read(context.Context, string, string) (traffic.Seen, error) {
	return traffic.Seen{}, nil
}
func (willing) MayUpdate(context.Context, string, string) error { return nil }

// A name that is moved for very many applications has a guard that a service may refuse: that is
// said beforehand, and not on the day.
func TestACrowdedGuard(t *testing.T) {
	open := func(context.Context, *plan.Record) (*names.Service, error) {
		return &names.Service{Servers: []names.Kept{{Server: willing{}}}}, nil
	}
	for name, c := range map[string]struct {
		provider    plan.Provider
		apps        int
		application string
		crowded     bool
	}{
		"of all of many":     {plan.ProviderRoute53, 300, "", true},
		"of one of many":     {plan.ProviderRoute53, 300, "application-7", false},
		"of a few":           {plan.ProviderAzure, 50, "", false},
		"of one's own zone":  {plan.ProviderRFC2136, 300, "", false},
		"of many, elsewhere": {plan.ProviderCloudflare, 300, "", true},
	} {
		p := &plan.Plan{Name: "shop"}
		for i := range c.apps {
			p.Applications = append(p.Applications, plan.Application{Name: fmt.Sprintf("application-%d", i)})
		}
		record := &plan.Record{Zone: "example.com", Provider: c.provider, To: map[string][]string{"east": {"192.0.2.1"}, "west": {"192.0.2.2", "2001:db8::2"}}}
		p.Traffic = []plan.Traffic{{Name: "www", Kind: plan.KindDNS, Object: "www.example.com", Application: c.application, Record: record}}
		got := rehearsal.Ask(t.Context(), p, open)
		if len(got) != 1 || (got[0].Err != "") != c.crowded || got[0].Refused || c.crowded && !strings.Contains(got[0].Err, "300 applications") {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
