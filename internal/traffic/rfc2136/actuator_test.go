package rfc2136_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/traffic"
	"davit.dev/davit/internal/traffic/dnstest"
	"davit.dev/davit/internal/traffic/names"
	"davit.dev/davit/internal/traffic/rfc2136"
)

// run gives orders of one run about www.example.com.
type run struct {
	t       *testing.T
	name    string
	verb    plan.Verb
	site    string
	epoch   int64
	object  string
	record  plan.Record
	key     rfc2136.Key
	now     func() time.Time
	timeout time.Duration
}

func newRun(t *testing.T, servers ...plan.NameServer) *run {
	return &run{
		t: t, name: "run-1", verb: plan.Switchover, site: "west", epoch: 7, object: "www.example.com", key: testKey, now: time.Now, timeout: 20 * time.Second,
		record: plan.Record{
			Zone: "example.com", Secret: "dns-key", Servers: servers,
			To: map[string][]string{"east": {"192.0.2.1"}, "west": {"2001:db8::2", "192.0.2.2"}},
		},
	}
}

func (r *run) do(action failover.Action, number int64) execute.Answer {
	r.t.Helper()
	a := &names.Actuator{
		Open: func(_ context.Context, record *plan.Record) (*names.Service, error) {
			return rfc2136.Open(record, map[string][]byte{"name": []byte(r.key.Name), "algorithm": []byte(r.key.Algorithm), "secret": []byte(r.key.Secret)}, r.now)
		},
		Now: r.now, Again: 50 * time.Millisecond, Patience: 100 * time.Millisecond,
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), r.timeout)
	defer cancel()
	return a.Do(ctx, execute.Order{
		Action: action, Run: r.name, Verb: r.verb, Site: r.site, From: "east", To: r.site,
		Step:  plan.Step{Name: "traffic/www", Kind: plan.KindDNS, Object: r.object, Record: &r.record},
		Token: failover.Token{Run: r.name, Sequence: number, Epochs: map[string]int64{"shop": r.epoch}},
	})
}

func (r *run) want(action failover.Action, number int64, outcome failover.Outcome, note string) execute.Answer {
	r.t.Helper()
	a := r.do(action, number)
	if a.Outcome != outcome || !strings.Contains(a.Note, note) {
		r.t.Fatalf("%s %d: %s %q, want %s %q", action, number, a.Outcome, a.Note, outcome, note)
	}
	return a
}

func leadsTo(t *testing.T, d *daemon, values ...string) {
	t.Helper()
	if seen := d.read(t); !slices.Equal(seen.Values, traffic.Sort(values)) {
		t.Fatalf("www leads to %v, want %v", seen.Values, values)
	}
}

func TestMovesAndGoesBack(t *testing.T) {
	both(t, func(t *testing.T, d *daemon) {
		r := newRun(t, plan.NameServer{Address: d.address})
		r.want(failover.Look, 0, failover.NotDone, "leads to 192.0.2.1") // every step is looked at before it is ordered
		if seen := d.read(t); seen.Text != nil {
			t.Errorf("nothing was ordered, and a guard was written: %q", seen.Text)
		}
		leadsTo(t, d, "192.0.2.1")
		if a := r.want(failover.Act, 2, failover.Done, ""); a.Guard != execute.Fenced {
			t.Errorf("guard %s", a.Guard)
		}
		leadsTo(t, d, "192.0.2.2", "2001:db8::2")
		if seen := d.read(t); seen.TTL != plan.DefaultTTL || seen.Guard.Epochs["shop"] != 7 || seen.Guard.Site != "west" {
			t.Errorf("seen %+v, guard %+v", seen, seen.Guard)
		}
		serial := d.serial(t)
		r.want(failover.Act, 2, failover.Done, "") // the same message twice
		r.want(failover.Look, 3, failover.Done, "")
		if now := d.serial(t); now != serial {
			t.Errorf("the zone was changed again: %d, %d", serial, now)
		}
		r.want(failover.Undo, 4, failover.Done, "")
		leadsTo(t, d, "192.0.2.1")
		r.want(failover.Undo, 4, failover.Done, "")
		r.want(failover.Act, 2, failover.NoAnswer, "a newer order of the run has seen")
		r.want(failover.Look, 5, failover.NotDone, "")
		r.want(failover.Act, 5, failover.NoAnswer, "a newer order of the run has seen") // sealed by the look
		leadsTo(t, d, "192.0.2.1")
	})
}

func TestOlderEpochsAreRefused(t *testing.T) {
	both(t, func(t *testing.T, d *daemon) {
		west := newRun(t, plan.NameServer{Address: d.address})
		west.want(failover.Act, 2, failover.Done, "")
		east := newRun(t, plan.NameServer{Address: d.address})
		east.name, east.site, east.epoch = "run-0", "east", 6
		east.want(failover.Act, 90, failover.Superseded, "leads to site west under epoch 7 of shop")
		east.want(failover.Look, 91, failover.Superseded, "")
		east.want(failover.Undo, 92, failover.Superseded, "")
		leadsTo(t, d, "192.0.2.2", "2001:db8::2")
		east.epoch = 8
		east.want(failover.Act, 2, failover.Done, "")
		leadsTo(t, d, "192.0.2.1")
	})
}

// TestTheServerRefuses sends what was right when it was read and arrives late.
// The control sends the same without prerequisites: then the old order wins.
func TestTheServerRefuses(t *testing.T) {
	both(t, func(t *testing.T, d *daemon) {
		r := newRun(t, plan.NameServer{Address: d.address})
		server, old := d.server(&testKey), d.read(t)
		late := names.MoveOf(r.object, &r.record, "east", failover.Token{Run: "run-0", Sequence: 1, Epochs: map[string]int64{"shop": 6}})
		r.want(failover.Act, 2, failover.Done, "")
		r.want(failover.Undo, 3, failover.Done, "") // it leads where it led; the guard does not
		if err := server.Swap(t.Context(), late, old, []string{"192.0.2.9"}, late.After(old)); !errors.Is(err, names.ErrChanged) {
			t.Fatalf("a late update: %v", err)
		}
		leadsTo(t, d, "192.0.2.1")
		seen := d.read(t)
		byHand(t, d, "192.0.2.9")
		if err := server.Swap(t.Context(), late, seen, []string{"192.0.2.1"}, late.After(seen)); !errors.Is(err, names.ErrChanged) {
			t.Fatalf("the name was changed by hand in between: %v", err)
		}
		leadsTo(t, d, "192.0.2.9")
	})
}

// byHand changes the name without any prerequisite.
func byHand(t *testing.T, d *daemon, value string) {
	t.Helper()
	u := new(dns.Msg)
	u.SetUpdate("example.com.")
	rr, _ := dns.NewRR("www.example.com. 30 IN A " + value)
	u.RemoveRRset([]dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: "www.example.com.", Rrtype: dns.TypeA}}})
	u.Insert([]dns.RR{rr})
	u.SetTsig(testKey.Name, "hmac-sha256.", 300, time.Now().Unix())
	c := &dns.Client{Net: "tcp", TsigSecret: map[string]string{testKey.Name: secret}}
	if r, _, err := c.ExchangeContext(t.Context(), u, d.address); err != nil || r.Rcode != dns.RcodeSuccess {
		t.Fatalf("%v %v", r, err)
	}
	leadsTo(t, d, value)
}

func TestForeignRecordsAreLeftAlone(t *testing.T) {
	both(t, func(t *testing.T, d *daemon) {
		byHand(t, d, "203.0.113.1")
		r := newRun(t, plan.NameServer{Address: d.address})
		r.want(failover.Look, 1, failover.NotDone, "which no site of the plan has")
		r.want(failover.Act, 2, failover.Refused, "which no site of the plan has")
		leadsTo(t, d, "203.0.113.1")
	})
}

func TestNamesBecomeAddresses(t *testing.T) {
	both(t, func(t *testing.T, d *daemon) {
		r := newRun(t, plan.NameServer{Address: d.address})
		r.object, r.record.To["east"] = "app.example.com", []string{"lb.east.example.net"}
		r.want(failover.Act, 2, failover.Done, "")
		seen, err := d.server(nil).Read(t.Context(), "example.com", "app.example.com")
		if err != nil || !slices.Equal(seen.Values, []string{"192.0.2.2", "2001:db8::2"}) {
			t.Fatalf("%+v %v", seen, err)
		}
		r.want(failover.Undo, 3, failover.Done, "")
		if seen, err = d.server(nil).Read(t.Context(), "example.com", "app.example.com"); err != nil || !slices.Equal(seen.Values, []string{"lb.east.example.net"}) {
			t.Fatalf("%+v %v", seen, err)
		}
	})
}

func TestRefusals(t *testing.T) {
	both(t, func(t *testing.T, d *daemon) {
		for want, spoil := range map[string]func(r *run){
			"BADKEY":           func(r *run) { r.key.Name = "nobody." },
			"compare the":      func(r *run) { r.key.Secret = "d3Jvbmcgc2VjcmV0IG9mIHRoZSB0ZXN0cw==" },
			"clocks of both":   func(r *run) { r.now = func() time.Time { return time.Now().Add(-time.Hour) } },
			"does not say":     func(r *run) { delete(r.record.To, "west") },
			"allow the key to": func(r *run) { r.object = "ns1.example.com"; r.record.To["east"] = []string{"127.0.0.1"} },
			"base64":           func(r *run) { r.key.Secret = "?" },
			"zone example.org": func(r *run) { r.record.Zone, r.object = "example.org", "www.example.org" },
		} {
			r := newRun(t, plan.NameServer{Address: d.address})
			spoil(r)
			if a := r.do(failover.Look, 0); a.Outcome != failover.NotDone {
				t.Errorf("%s: look: %+v", want, a)
			}
			if a := r.do(failover.Act, 2); a.Outcome != failover.Refused || !strings.Contains(a.Note, want) {
				t.Errorf("%s: %+v", want, a)
			}
		}
		leadsTo(t, d, "192.0.2.1")
	})
}

// TestWithoutKey: an earlier order may have arrived where there is no key any
// more to look with, but not one that was never given.
func TestWithoutKey(t *testing.T) {
	t.Parallel()
	unread := func(context.Context, *plan.Record) (*names.Service, error) {
		return nil, errors.New("read Secret: no answer")
	}
	spoilt := func(_ context.Context, r *plan.Record) (*names.Service, error) {
		return rfc2136.Open(r, map[string][]byte{"name": []byte("davit")}, time.Now)
	}
	for what, c := range map[string]struct {
		open   names.Open
		action failover.Action
		number int64
		site   string
		want   failover.Outcome
	}{
		"ordered, unread":   {unread, failover.Look, 3, "west", failover.NoAnswer},
		"ordered, spoilt":   {spoilt, failover.Look, 3, "west", failover.NoAnswer},
		"never ordered":     {unread, failover.Look, 0, "west", failover.NotDone},
		"not in the plan":   {unread, failover.Look, 3, "north", failover.NotDone},
		"to be carried out": {unread, failover.Act, 3, "west", failover.Refused},
	} {
		a := &names.Actuator{Open: c.open, Now: time.Now}
		got := a.Do(t.Context(), execute.Order{
			Action: c.action, Run: "run-1", Verb: plan.Failover, Site: c.site,
			Step:  plan.Step{Kind: plan.KindDNS, Object: "www.example.com", Record: &newRun(t).record},
			Token: failover.Token{Run: "run-1", Sequence: c.number},
		})
		if got.Outcome != c.want || got.Note == "" {
			t.Errorf("%s: %s %q, want %s", what, got.Outcome, got.Note, c.want)
		}
	}
}

func TestMayUpdateChangesNothing(t *testing.T) {
	both(t, func(t *testing.T, d *daemon) {
		serial := d.serial(t)
		server := d.server(&testKey)
		if err := server.MayUpdate(t.Context(), "example.com", "www.example.com"); err != nil {
			t.Error(err)
		}
		var refused *names.RefusedError
		if err := server.MayUpdate(t.Context(), "example.com", "ns1.example.com"); !errors.As(err, &refused) {
			t.Errorf("a name that the key may not change: %v", err)
		}
		if now := d.serial(t); now != serial {
			t.Errorf("the zone was changed: %d, %d", serial, now)
		}
	})
}

func TestAnswersAreLost(t *testing.T) {
	both(t, func(t *testing.T, d *daemon) {
		address, lost := relay(t, d.address)
		r := newRun(t, plan.NameServer{Address: address})
		r.want(failover.Act, 2, failover.Done, "")
		if !lost() {
			t.Error("no answer was lost")
		}
		leadsTo(t, d, "192.0.2.2", "2001:db8::2")
		if was := d.read(t).Guard.Was; !slices.Equal(was, []string{"192.0.2.1"}) {
			t.Errorf("it would go back to %v", was)
		}
	})
}

// TestSecondary: done is done when those that clients ask say so.
func TestSecondary(t *testing.T) {
	t.Parallel()
	program(t, "knotd")
	port := dnstest.Port(t)
	primary := bind(t, port)
	secondary := knot(t, port, primary.address)
	r := newRun(t, plan.NameServer{Address: primary.address}, plan.NameServer{Address: secondary.address, Watch: true})
	r.want(failover.Act, 2, failover.Done, "")
	if seen, err := secondary.server(nil).Read(t.Context(), "example.com", "www.example.com"); err != nil || !slices.Equal(seen.Values, []string{"192.0.2.2", "2001:db8::2"}) {
		t.Errorf("the secondary: %+v %v", seen, err)
	}
	_ = secondary.cmd.Process.Kill()
	r.timeout = time.Second
	r.want(failover.Undo, 3, failover.NoAnswer, secondary.address)
	leadsTo(t, primary, "192.0.2.1")
	r.verb, r.name, r.epoch, r.timeout = plan.Failover, "run-2", 8, 20*time.Second // which waits for no dead server
	r.want(failover.Act, 2, failover.Done, secondary.address)
	_ = primary.cmd.Process.Kill()
	r.timeout = time.Second
	r.want(failover.Look, 3, failover.NoAnswer, primary.address) // but for one that takes updates
}

// TestHalf: one of two servers moves, the other refuses; then it goes back.
func TestHalf(t *testing.T) {
	t.Parallel()
	a, b := bind(t), knot(t, 0, "")
	r := newRun(t, plan.NameServer{Address: a.address}, plan.NameServer{Address: b.address})
	r.key.Name = "other." // which one of them knows, but gives no right
	r.want(failover.Act, 2, failover.Refused, "does not know the key")
	address, _ := relay(t, "127.0.0.1:1") // takes the question and answers nothing
	r = newRun(t, plan.NameServer{Address: a.address}, plan.NameServer{Address: address})
	r.timeout = time.Second
	r.want(failover.Act, 2, failover.NoAnswer, address)
	leadsTo(t, a, "192.0.2.2", "2001:db8::2")
	r.want(failover.Look, 3, failover.NoAnswer, address)
	r = newRun(t, plan.NameServer{Address: a.address}, plan.NameServer{Address: b.address})
	r.want(failover.Undo, 4, failover.Done, "")
	leadsTo(t, a, "192.0.2.1")
	leadsTo(t, b, "192.0.2.1")
}

// FuzzParseKey: what is accepted can sign a message.
func FuzzParseKey(f *testing.F) {
	f.Add("davit", "hmac-sha256", "c2VjcmV0")
	f.Add("a..b", "", "?")
	f.Fuzz(func(t *testing.T, name, algorithm, secret string) {
		k, err := rfc2136.ParseKey(map[string][]byte{"name": []byte(name), "algorithm": []byte(algorithm), "secret": []byte(secret)})
		if err != nil {
			return
		}
		m := new(dns.Msg)
		m.SetUpdate("example.com.")
		m.SetTsig(k.Name, dns.Fqdn(k.Algorithm), 300, 1)
		if _, _, err := dns.TsigGenerate(m, k.Secret, "", false); err != nil {
			t.Errorf("%+v signs nothing: %v", k, err)
		}
	})
}
