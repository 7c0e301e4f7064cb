package cloud

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/traffic"
	"davit.dev/davit/internal/traffic/names"
)

const www = "www.example.com"

// run gives orders of one run about www.
type run struct {
	t       *testing.T
	name    string
	site    string
	epoch   int64
	record  plan.Record
	options Options
	secret  map[string][]byte
}

func newRun(t *testing.T, p plan.Provider, o Options) *run {
	return &run{t: t, name: "run-1", site: "west", epoch: 7, options: o, secret: secretOf(p), record: plan.Record{
		Zone: "example.com", Provider: p, Secret: "dns-key",
		To: map[string][]string{"east": {"192.0.2.1"}, "west": {"192.0.2.2", "2001:db8::2"}},
	}}
}

func (r *run) want(action failover.Action, number int64, outcome failover.Outcome, note string) execute.Answer {
	r.t.Helper()
	a := &names.Actuator{
		Open: func(_ context.Context, record *plan.Record) (*names.Service, error) {
			s, guard, err := Open(record, r.secret, r.options)
			return &names.Service{Servers: []names.Kept{{Server: s}}, Guard: guard}, err
		},
		Now: time.Now, Again: time.Millisecond, Patience: time.Minute,
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	got := a.Do(ctx, execute.Order{
		Action: action, Run: r.name, Verb: plan.Switchover, Site: r.site, From: "east", To: r.site,
		Step:  plan.Step{Name: "traffic/www", Kind: plan.KindDNS, Object: www, Record: &r.record},
		Token: failover.Token{Run: r.name, Sequence: number, Epochs: map[string]int64{"shop": r.epoch}},
	})
	if got.Outcome != outcome || !strings.Contains(got.Note, note) {
		r.t.Fatalf("%s %d: %s %q, want %s %q", action, number, got.Outcome, got.Note, outcome, note)
	}
	return got
}

// each runs a test for every provider.
func each(t *testing.T, test func(t *testing.T, p plan.Provider, f *fake, o Options)) {
	for _, p := range []plan.Provider{plan.ProviderRoute53, plan.ProviderGoogle, plan.ProviderCloudflare, plan.ProviderAzure} {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			f, o := start(t, p)
			test(t, p, f, o)
		})
	}
}

func leads(t *testing.T, f *fake, values ...string) {
	t.Helper()
	if got := f.values(www); !slices.Equal(traffic.Sort(got), traffic.Sort(values)) {
		t.Fatalf("www leads to %v, want %v", got, values)
	}
}

func TestMovesAndGoesBack(t *testing.T) {
	each(t, func(t *testing.T, p plan.Provider, f *fake, o Options) {
		r := newRun(t, p, o)
		r.want(failover.Look, 0, failover.NotDone, "leads to 192.0.2.1")
		if f.changes != 0 {
			t.Error("a look before any order changed something")
		}
		a := r.want(failover.Act, 2, failover.Done, "")
		if want := map[bool]execute.Guard{true: execute.Guarded, false: execute.Fenced}[p == plan.ProviderAzure || p == plan.ProviderCloudflare]; a.Guard != want {
			t.Errorf("it is %s, want %s", a.Guard, want)
		}
		leads(t, f, "192.0.2.2", "2001:db8::2")
		changes := f.changes
		r.want(failover.Act, 2, failover.Done, "")
		r.want(failover.Look, 3, failover.Done, "")
		if f.changes != changes {
			t.Error("what stood was changed again")
		}
		r.want(failover.Undo, 4, failover.Done, "")
		leads(t, f, "192.0.2.1")
		r.want(failover.Act, 2, failover.NoAnswer, "a newer order of the run has seen")
		r.want(failover.Look, 5, failover.NotDone, "")
		r.want(failover.Act, 5, failover.NoAnswer, "a newer order of the run has seen") // sealed by the look
		leads(t, f, "192.0.2.1")
		if got := f.values("www2.example.com"); len(got) != 1 || got[0] != "192.0.2.99" {
			t.Errorf("another name leads to %v", got)
		}
	})
}

func TestOlderEpochsAreRefused(t *testing.T) {
	each(t, func(t *testing.T, p plan.Provider, f *fake, o Options) {
		newRun(t, p, o).want(failover.Act, 2, failover.Done, "")
		east := newRun(t, p, o)
		east.name, east.site, east.epoch = "run-0", "east", 6
		east.want(failover.Act, 90, failover.Superseded, "leads to site west under epoch 7 of shop")
		leads(t, f, "192.0.2.2", "2001:db8::2")
	})
}

// TestTheServiceRefuses sends what was right when it was read, and arrives after a newer
// order has moved the name, or looked and found it not moved. The control: a service that
// compares nothing lets the old order win.
func TestTheServiceRefuses(t *testing.T) {
	for _, blind := range []bool{false, true} {
		for _, newer := range []failover.Action{failover.Act, failover.Look} {
			each(t, func(t *testing.T, p plan.Provider, f *fake, o Options) {
				r := newRun(t, p, o)
				late, _, err := Open(&r.record, r.secret, o)
				if err != nil {
					t.Fatal(err)
				}
				seen, err := late.Read(t.Context(), "example.com", www)
				if err != nil {
					t.Fatal(err)
				}
				m := names.MoveOf(www, &r.record, "west", failover.Token{Run: "run-1", Sequence: 1, Epochs: map[string]int64{"shop": 6}})
				m.To = []string{"192.0.2.9"}
				want := []string{"192.0.2.1"}
				if newer == failover.Act {
					r.want(newer, 2, failover.Done, "")
					want = []string{"192.0.2.2", "2001:db8::2"}
				} else {
					r.want(newer, 2, failover.NotDone, "")
				}
				f.blind = blind
				err = late.Swap(t.Context(), m, seen, m.To, m.After(seen))
				if blind {
					if err != nil || !slices.Contains(f.values(www), "192.0.2.9") {
						t.Errorf("the control: %v, www leads to %v", err, f.values(www))
					}
					return
				}
				if !errors.Is(err, names.ErrChanged) {
					t.Errorf("a late order after %s: %v", newer, err)
				}
				leads(t, f, want...)
			})
		}
	}
}

// TestAnswersAreLost: the change was made, and nobody heard of it.
func TestAnswersAreLost(t *testing.T) {
	each(t, func(t *testing.T, p plan.Provider, f *fake, o Options) {
		lost := false
		f.after = func(r *http.Request) {
			if !lost && r.Method != http.MethodGet {
				lost = true
				panic(http.ErrAbortHandler)
			}
		}
		r := newRun(t, p, o)
		number := int64(2)
		for range 5 { // as the executor does: look, and order anew
			a := &names.Actuator{Open: func(_ context.Context, record *plan.Record) (*names.Service, error) {
				s, guard, err := Open(record, r.secret, o)
				return &names.Service{Servers: []names.Kept{{Server: s}}, Guard: guard}, err
			}, Now: time.Now, Again: time.Millisecond}
			order := execute.Order{
				Action: failover.Act, Run: r.name, Verb: plan.Switchover, Site: "west", Step: plan.Step{Kind: plan.KindDNS, Object: www, Record: &r.record},
				Token: failover.Token{Run: r.name, Sequence: number, Epochs: map[string]int64{"shop": 7}},
			}
			if a.Do(t.Context(), order).Outcome == failover.Done {
				break
			}
			order.Action, order.Token.Sequence = failover.Look, number+1
			if a.Do(t.Context(), order).Outcome == failover.Done {
				break
			}
			number += 2
		}
		if !lost {
			t.Error("no answer was lost")
		}
		leads(t, f, "192.0.2.2", "2001:db8::2")
		r.want(failover.Undo, number+10, failover.Done, "")
		leads(t, f, "192.0.2.1")
	})
}

func TestRefusals(t *testing.T) {
	type says struct {
		code int
		body string
	}
	for p, all := range map[plan.Provider]map[string]says{
		plan.ProviderRoute53: {
			"route53:ChangeResourceRecordSets": {403, `<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>User is not authorized</Message></Error></ErrorResponse>`},
			"put a valid one":                  {403, `<ErrorResponse><Error><Code>InvalidClientTokenId</Code><Message>The security token is invalid</Message></Error></ErrorResponse>`},
			"does not know the zone":           {404, `<ErrorResponse><Error><Code>NoSuchHostedZone</Code><Message>No hosted zone found with ID: Z1</Message></Error></ErrorResponse>`},
			"correct the record":               {400, `<ErrorResponse><Error><Code>InvalidInput</Code><Message>Invalid XML</Message></Error></ErrorResponse>`},
		},
		plan.ProviderGoogle: {
			"role dns.admin":         {403, `{"error":{"code":403,"message":"Forbidden","errors":[{"reason":"forbidden"}]}}`},
			"does not know the zone": {404, `{"error":{"code":404,"message":"The 'parameters.managedZone' resource named 'example' does not exist.","errors":[{"reason":"notFound","message":"The 'parameters.managedZone' resource"}]}}`},
			"put a valid one":        {401, `{"error":{"code":401,"message":"Invalid Credentials","errors":[{"reason":"authError"}]}}`},
		},
		plan.ProviderCloudflare: {
			"DNS, Edit":              {403, `{"success":false,"errors":[{"code":10000,"message":"Authentication error"}]}`},
			"put a valid one":        {400, `{"success":false,"errors":[{"code":6003,"message":"Invalid request headers"}]}`},
			"does not know the zone": {400, `{"success":false,"errors":[{"code":7003,"message":"Could not route"}]}`},
		},
		plan.ProviderAzure: {
			"DNS Zone Contributor":   {403, `{"error":{"code":"AuthorizationFailed","message":"The client does not have authorization"}}`},
			"does not know the zone": {404, `{"error":{"code":"ResourceNotFound","message":"The Resource 'Microsoft.Network/dnsZones/example.com' was not found."}}`},
			"correct the record":     {400, `{"code":"BadRequest","message":"bad"}`},
		},
	} {
		for note, answer := range all {
			f, o := start(t, p)
			f.instead = func(w http.ResponseWriter, _ *http.Request) bool {
				w.WriteHeader(answer.code)
				_, _ = io.WriteString(w, answer.body)
				return true
			}
			a := newRun(t, p, o).want(failover.Act, 2, failover.Refused, note)
			if !strings.HasPrefix(a.Note, string(p)) {
				t.Errorf("%s is not named: %s", p, a.Note)
			}
		}
	}
}

// TestThrottled: what is only busy is asked again.
func TestThrottled(t *testing.T) {
	body := map[plan.Provider]string{
		plan.ProviderRoute53: `<ErrorResponse><Error><Code>Throttling</Code><Message>Rate exceeded</Message></Error></ErrorResponse>`,
		plan.ProviderGoogle:  `{"error":{"code":403,"message":"Rate","errors":[{"reason":"rateLimitExceeded"}]}}`,
	}
	each(t, func(t *testing.T, p plan.Provider, f *fake, o Options) {
		times := 0
		f.instead = func(w http.ResponseWriter, _ *http.Request) bool {
			if times++; times > 3 {
				return false
			}
			code := http.StatusTooManyRequests
			if body[p] != "" {
				code = map[plan.Provider]int{plan.ProviderRoute53: 400, plan.ProviderGoogle: 403}[p]
			}
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body[p])
			return true
		}
		newRun(t, p, o).want(failover.Act, 2, failover.Done, "")
		leads(t, f, "192.0.2.2", "2001:db8::2")
	})
}

func TestMayUpdateChangesNothing(t *testing.T) {
	each(t, func(t *testing.T, p plan.Provider, f *fake, o Options) {
		s, _, err := Open(&newRun(t, p, o).record, secretOf(p), o)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.MayUpdate(t.Context(), "example.com", www); err != nil {
			t.Error(err)
		}
		f.instead = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodGet {
				w.WriteHeader(http.StatusForbidden)
			}
			return r.Method != http.MethodGet
		}
		var refused *names.RefusedError
		if err := s.MayUpdate(t.Context(), "example.com", www); !errors.As(err, &refused) {
			t.Errorf("without rights: %v", err)
		}
		leads(t, f, "192.0.2.1")
	})
}

func TestNoKeys(t *testing.T) {
	for _, p := range []plan.Provider{plan.ProviderRoute53, plan.ProviderGoogle, plan.ProviderCloudflare, plan.ProviderAzure} {
		r := &plan.Record{Provider: p, Zone: "example.com"}
		for key := range secretOf(p) {
			for _, bad := range []string{"", "../x y"} {
				secret := secretOf(p)
				secret[key] = []byte(bad)
				_, _, err := Open(r, secret, Options{})
				if free := key == "access-key-id" || key == "secret-access-key" || key == "client-secret"; err == nil && (bad == "" || !free) {
					t.Errorf("%s: %s=%q is taken", p, key, bad)
				}
			}
		}
	}
	if _, _, err := Open(&plan.Record{Provider: "bunny"}, nil, Options{}); err == nil {
		t.Error("an unknown provider is taken")
	}
}

// TestOddRecords: what Davit could not put back as it was is not moved.
func TestOddRecords(t *testing.T) {
	f, o := start(t, plan.ProviderRoute53)
	s := f.sets["A "+www]
	s.odd = "lb.example.net."
	f.sets["A "+www] = s
	newRun(t, plan.ProviderRoute53, o).want(failover.Act, 2, failover.Refused, "an alias")
	f, o = start(t, plan.ProviderCloudflare)
	s = f.sets["A "+www]
	s.proxied = true
	f.sets["A "+www] = s
	newRun(t, plan.ProviderCloudflare, o).want(failover.Act, 2, failover.Done, "")
	if s := f.sets["A "+www]; !s.proxied || s.ttl != 1 {
		t.Errorf("a proxied record became %+v", s)
	}
}

// FuzzAnswers: whatever a service answers, it is an error or a record.
func FuzzAnswers(f *testing.F) {
	f.Add(200, `{"result":[{"name":"www.example.com","type":"A","content":"192.0.2.1"}],"success":true}`)
	f.Add(200, `<R><ResourceRecordSets><ResourceRecordSet><Name>www.example.com.</Name><Type>TXT</Type></ResourceRecordSet></ResourceRecordSets></R>`)
	f.Add(404, `{"code":"NotFound"}`)
	f.Add(200, `{"rrsets":[{"name":"www.example.com.","type":"TXT","rrdatas":["\""]}]}`)
	// The services are opened once, and have their tokens: to sign for one takes fifty times what an answer does.
	code, body := 200, ""
	answers := &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
		said, c := body, code
		if strings.HasPrefix(r.URL.Path, "/login") {
			said, c = `{"access_token":"t"}`, 200
		}
		return &http.Response{StatusCode: c, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(said)), Request: r}, nil
	})}
	services := map[plan.Provider]names.Server{}
	for _, p := range []plan.Provider{plan.ProviderRoute53, plan.ProviderGoogle, plan.ProviderCloudflare, plan.ProviderAzure} {
		s, _, err := Open(&plan.Record{Provider: p, Zone: "example.com"}, secretOf(p), Options{API: "http://api", Login: "http://api/login", Client: answers})
		if err != nil {
			f.Fatal(err)
		}
		services[p] = s
		_, _ = s.Read(f.Context(), "example.com", www)
	}
	f.Fuzz(func(t *testing.T, c int, text string) {
		if c < 200 || c > 599 {
			return
		}
		code, body = c, text
		for p, s := range services {
			if seen, err := s.Read(t.Context(), "example.com", www); err == nil && code >= 300 && len(seen.Values) > 0 {
				t.Errorf("%s: %d led to %v", p, code, seen.Values)
			}
		}
	})
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
