package endpoints_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/traffic"
	"davit.dev/davit/internal/traffic/endpoints"
	"davit.dev/davit/internal/traffic/names"
)

const (
	www    = "www.example.com"
	key    = "davit-system/www"
	eastAt = "192.0.2.1"
	westAt = "192.0.2.2"
)

// cluster is a site's API server.
type cluster struct {
	objects map[string]endpoints.Object
	version int
	absent  bool
	fails   error
	puts    []endpoints.Object // as they arrived
	dry     int
}

func (c *cluster) Get(_ context.Context, namespace, name string) (*endpoints.Object, error) {
	if c.absent {
		return nil, endpoints.ErrAbsent
	}
	if o, is := c.objects[namespace+"/"+name]; is {
		return &o, c.fails
	}
	return nil, c.fails
}

func (c *cluster) List(context.Context) ([]*endpoints.Object, error) {
	if c.absent {
		return nil, endpoints.ErrAbsent
	}
	var all []*endpoints.Object
	for _, o := range c.objects {
		all = append(all, &o)
	}
	return all, c.fails
}

func (c *cluster) Put(_ context.Context, o *endpoints.Object, dry bool) error {
	if dry {
		c.dry++
		return c.fails
	}
	c.puts = append(c.puts, *o)
	return c.take(*o)
}

// take is what the API server does with a write, whenever it arrives.
func (c *cluster) take(o endpoints.Object) error {
	at := o.Namespace + "/" + o.Name
	if c.objects[at].Version != o.Version {
		return names.ErrChanged
	}
	c.version++
	o.Version = strconv.Itoa(c.version)
	if c.objects == nil {
		c.objects = map[string]endpoints.Object{}
	}
	c.objects[at] = o
	return c.fails
}

// zone is a name server, to which the external-dns of each cluster writes what its
// objects say; what they do not say stays.
type zone struct {
	mu     sync.Mutex // it is asked for itself, and by the object's server
	values []string
	told   []*cluster
	silent bool
}

func (z *zone) Name() string { return "ns1" }

func (z *zone) Read(context.Context, string, string) (traffic.Seen, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.silent {
		return traffic.Seen{}, errors.New("ns1 is silent")
	}
	for _, c := range z.told {
		for _, o := range c.objects {
			if len(o.Endpoints) > 0 {
				z.values = nil
			}
			for _, e := range o.Endpoints {
				z.values = append(z.values, e.Targets...)
			}
		}
	}
	return traffic.Seen{Values: traffic.Sort(z.values), TTL: time.Minute}, nil
}

func (z *zone) Swap(context.Context, traffic.Move, traffic.Seen, []string, traffic.Guard) error {
	panic("a server that is watched was told something")
}

func (z *zone) MayUpdate(context.Context, string, string) error { return nil }

// stage is a name that leads to east.
type stage struct {
	t          *testing.T
	east, west *cluster
	zone       *zone
	record     plan.Record
}

func newStage(t *testing.T) *stage {
	s := &stage{t: t, east: &cluster{}, west: &cluster{}, record: plan.Record{
		Zone: "example.com", Provider: plan.ProviderExternalDNS, Endpoint: key,
		To: map[string][]string{"east": {eastAt}, "west": {westAt}}, Servers: []plan.NameServer{{Address: "ns1.example.com", Watch: true}},
	}}
	s.zone = &zone{values: []string{eastAt}, told: []*cluster{s.east, s.west}}
	if err := s.east.take(endpoints.Object{Namespace: "davit-system", Name: "www", Guard: "davit1 site=east run=by-hand seq=1 epoch.shop=1", Endpoints: leads(eastAt)}); err != nil {
		t.Fatal(err)
	}
	return s
}

func leads(to string) []endpoints.Endpoint {
	return []endpoints.Endpoint{{Name: www, Kind: "A", TTL: 30, Targets: []string{to}}}
}

// order gives an order of a run to a site.
func (s *stage) order(action failover.Action, verb plan.Verb, site string, number, epoch int64) execute.Answer {
	s.t.Helper()
	at := map[string]*cluster{"east": s.east, "west": s.west}[site]
	a := names.Actuator{
		Open: func(_ context.Context, r *plan.Record) (*names.Service, error) {
			return endpoints.Open(r, at, []names.Server{s.zone}), nil
		},
		Now: time.Now, Again: time.Millisecond, Patience: time.Nanosecond,
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Millisecond)
	if action != failover.Look {
		cancel()
		ctx, cancel = context.WithTimeout(s.t.Context(), time.Minute)
	}
	defer cancel()
	run := "run-" + strconv.FormatInt(epoch, 10)
	return a.Do(ctx, execute.Order{
		Action: action, Run: run, Verb: verb, Site: site, To: site,
		Step:  plan.Step{Name: "traffic/www", Kind: plan.KindDNS, Object: www, Record: &s.record},
		Token: failover.Token{Run: run, Sequence: number, Epochs: map[string]int64{"shop": epoch}},
	})
}

func (s *stage) want(what string, got execute.Answer, outcome failover.Outcome, says string) {
	s.t.Helper()
	if got.Outcome != outcome || !strings.Contains(got.Note, says) {
		s.t.Errorf("%s: %+v, want %s with %q", what, got, outcome, says)
	}
}

func (s *stage) leadsTo(what, want string) {
	s.t.Helper()
	seen, err := s.zone.Read(s.t.Context(), "", "")
	if err != nil || !slices.Equal(seen.Values, []string{want}) {
		s.t.Errorf("%s: the name leads to %v, %v, want %s", what, seen.Values, err, want)
	}
}

// TestMoves: there and back, and the site that was left says nothing any more.
func TestMoves(t *testing.T) {
	s := newStage(t)
	s.want("look", s.order(failover.Look, plan.Switchover, "west", 0, 2), failover.NotDone, "")
	if len(s.west.puts) > 0 {
		t.Error("the look before the first order wrote something")
	}
	done, err := endpoints.Withdraw(t.Context(), s.east, map[string]int64{"shop": 2, "other": 9})
	if err != nil || !slices.Equal(done, []string{key}) {
		t.Errorf("withdrawn: %v, %v", done, err)
	}
	s.leadsTo("withdrawn", eastAt) // nobody takes away what leads somewhere
	act := s.order(failover.Act, plan.Switchover, "west", 3, 2)
	s.want("act", act, failover.Done, "")
	if act.Guard != execute.Guarded {
		t.Errorf("guard %q", act.Guard)
	}
	s.leadsTo("act", westAt)
	s.want("look again", s.order(failover.Look, plan.Switchover, "west", 4, 2), failover.Done, "")

	s.want("an order of before, at east", s.order(failover.Act, plan.Failover, "east", 9, 1), failover.Superseded, "under epoch 2 of shop")
	s.leadsTo("a late order", westAt)
	if done, err := endpoints.Withdraw(t.Context(), s.east, map[string]int64{"shop": 2}); err != nil || len(done) > 0 {
		t.Errorf("withdrawn again: %v, %v", done, err)
	}
	if _, err := endpoints.Withdraw(t.Context(), s.west, map[string]int64{"shop": 3}); err != nil {
		t.Error(err)
	}
	s.want("back", s.order(failover.Act, plan.Failback, "east", 3, 3), failover.Done, "")
	s.leadsTo("back", eastAt)
}

// TestUndo: west itself has the name lead back, as nothing takes a record away.
func TestUndo(t *testing.T) {
	s := newStage(t)
	if _, err := endpoints.Withdraw(t.Context(), s.east, map[string]int64{"shop": 2}); err != nil {
		t.Fatal(err)
	}
	s.want("undo of nothing", s.order(failover.Undo, plan.Switchover, "west", 2, 2), failover.Done, "")
	if o := s.west.objects[key]; len(o.Endpoints) > 0 || o.Guard == "" {
		t.Errorf("%+v: an undo of nothing publishes what another site publishes", o)
	}
	s.want("act", s.order(failover.Act, plan.Switchover, "west", 3, 2), failover.Done, "")
	s.leadsTo("act", westAt)
	s.want("undo", s.order(failover.Undo, plan.Switchover, "west", 4, 2), failover.Done, "")
	s.leadsTo("undo", eastAt)
	if _, err := endpoints.Withdraw(t.Context(), s.west, map[string]int64{"shop": 3}); err != nil { // east holds it again
		t.Fatal(err)
	}
	if o := s.west.objects[key]; len(o.Endpoints) > 0 {
		t.Errorf("%+v", o)
	}
	s.leadsTo("given back", eastAt)
}

// TestRevived: a site that was dead throughout leads clients back until its agent has
// emptied its object; that is why it does.
func TestRevived(t *testing.T) {
	s := newStage(t)
	s.zone.told = []*cluster{s.west}
	s.want("failover", s.order(failover.Act, plan.Failover, "west", 3, 2), failover.Done, "")
	s.zone.told = []*cluster{s.west, s.east}
	s.leadsTo("revived, without withdrawal", eastAt)
	if _, err := endpoints.Withdraw(t.Context(), s.east, map[string]int64{"shop": 2}); err != nil {
		t.Fatal(err)
	}
	s.leadsTo("revived", westAt)
}

// TestLeadsThereAlready: somebody led the name to west by hand, in the zone. West has to
// say so all the same, or the next look does not find the move, and nobody keeps the
// record when another site's external-dns comes back.
func TestLeadsThereAlready(t *testing.T) {
	s := newStage(t)
	s.zone.told, s.zone.values = []*cluster{s.west}, []string{westAt}
	s.want("look", s.order(failover.Look, plan.Failover, "west", 2, 2), failover.NotDone, "")
	if o := s.west.objects[key]; len(o.Endpoints) > 0 {
		t.Errorf("%+v: a look publishes", o)
	}
	s.want("act", s.order(failover.Act, plan.Failover, "west", 3, 2), failover.Done, "")
	if o := s.west.objects[key]; len(o.Endpoints) != 1 || !slices.Equal(o.Endpoints[0].Targets, []string{westAt}) {
		t.Errorf("%+v: the name was moved, and west does not publish it", o)
	}
	s.want("look again", s.order(failover.Look, plan.Failover, "west", 4, 2), failover.Done, "")
}

// TestLate: what was sent before a look finds another version, or another object.
func TestLate(t *testing.T) {
	s := newStage(t)
	s.want("act", s.order(failover.Act, plan.Switchover, "west", 3, 2), failover.Done, "")
	late := s.west.puts[0]
	s.west.objects = nil // as if it had not arrived yet
	s.zone.values = []string{eastAt}
	s.want("look", s.order(failover.Look, plan.Switchover, "west", 4, 2), failover.NotDone, "")
	if err := s.west.take(late); !errors.Is(err, names.ErrChanged) {
		t.Errorf("a late write: %v", err)
	}
	s.leadsTo("late", eastAt)
}

func TestSilentServers(t *testing.T) {
	s := newStage(t)
	s.zone.silent = true
	s.want("failover", s.order(failover.Act, plan.Failover, "west", 3, 2), failover.Done, "ns1 is silent")
	s.want("look in a switchover", s.order(failover.Look, plan.Switchover, "west", 4, 3), failover.NotDone, "ns1 is silent")
}

func TestRefused(t *testing.T) {
	const guard = "davit1 site= run=r seq=1"
	odd := leads(westAt)
	odd[0].Odd = "a setIdentifier"
	for want, o := range map[string]endpoints.Object{
		"was not made by Davit": {Endpoints: leads(westAt)},
		"is kept by Argo CD":    {Guard: guard, Keeper: "Argo CD"},
		"holds a.example.com":   {Guard: guard, Endpoints: []endpoints.Endpoint{{Name: "a.example.com", Kind: "A", Targets: []string{westAt}}}},
		"a setIdentifier":       {Guard: guard, Endpoints: odd},
		"cannot be used":        {Guard: "v=spf1"},
	} {
		s := newStage(t)
		o.Namespace, o.Name = "davit-system", "www"
		if err := s.west.take(o); err != nil {
			t.Fatal(err)
		}
		s.want("act", s.order(failover.Act, plan.Failover, "west", 3, 2), failover.Refused, want)
		if len(s.west.puts) > 0 {
			t.Errorf("%s: it was written: %+v", want, s.west.puts)
		}
		if want == "cannot be used" {
			continue // an update would be taken; reading it is what fails
		}
		err := s.server(s.west).MayUpdate(t.Context(), "example.com", www)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a rehearsal says %v, want %s", err, want)
		}
	}
	s := newStage(t)
	s.west.absent = true
	s.want("act", s.order(failover.Act, plan.Failover, "west", 3, 2), failover.Refused, "install external-dns")
	if done, err := endpoints.Withdraw(t.Context(), s.west, map[string]int64{"shop": 2}); done != nil || err != nil {
		t.Errorf("where no site has external-dns: %v, %v", done, err)
	}
}

func (s *stage) server(at *cluster) names.Server {
	return endpoints.Open(&s.record, at, nil).Servers[0].Server
}

// TestRehearsal changes nothing.
func TestRehearsal(t *testing.T) {
	s := newStage(t)
	for _, at := range []*cluster{s.east, s.west} {
		if err := s.server(at).MayUpdate(t.Context(), "example.com", www); err != nil || at.dry != 1 || len(at.puts) > 0 {
			t.Errorf("%v, %d dry, %v", err, at.dry, at.puts)
		}
	}
	s.west.fails = errors.New("no answer")
	if err := s.server(s.west).MayUpdate(t.Context(), "example.com", www); err == nil {
		t.Error("an error was not told")
	}
}

// A guard that cannot be read is told, and keeps no other from being withdrawn.
func TestWithdrawAmongOthers(t *testing.T) {
	s := newStage(t)
	for name, guard := range map[string]string{"bad": "v=spf1", "theirs": "", "other": "davit1 site=east run=r seq=1 epoch.other=1"} {
		if err := s.east.take(endpoints.Object{Namespace: "n", Name: name, Guard: guard, Endpoints: leads(eastAt)}); err != nil {
			t.Fatal(err)
		}
	}
	done, err := endpoints.Withdraw(t.Context(), s.east, map[string]int64{"shop": 2})
	if !slices.Equal(done, []string{key}) || err == nil || !strings.Contains(err.Error(), "n/bad") {
		t.Errorf("%v, %v", done, err)
	}
	for _, name := range []string{"n/theirs", "n/other"} {
		if len(s.east.objects[name].Endpoints) == 0 {
			t.Errorf("%s was emptied", name)
		}
	}
}
