package plan_test

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"davit.dev/davit/internal/plan"
)

// shop is a plan with one of everything.
func shop() *plan.Plan {
	tcp := plan.Check{Kind: plan.CheckTCP, Target: "pay:443", Timeout: time.Second}
	return &plan.Plan{
		Name: "shop", Sites: []plan.Site{
			{Name: "east"},
			{Name: "west", Mappings: []plan.Mapping{{Kind: plan.MapStorageClass, From: "fast", To: "ssd"}}},
		},
		Applications: []plan.Application{
			{Name: "web", Group: "front", Probes: []plan.Check{{Kind: plan.CheckHTTP, Target: "http://web/", Timeout: time.Second}}},
			{Name: "db", Group: "back", Data: plan.KindPromote},
			{Name: "cart", Group: "front", After: []string{"db"}, Needs: []string{"pay"}},
		},
		Groups:  []plan.Group{{Name: "back"}, {Name: "front", After: []string{"back"}}},
		Outside: []plan.Outside{{Name: "pay", Probes: map[string]plan.Check{"east": tcp, "west": tcp}}},
		Steps: []plan.Step{
			{Name: "argo-off", Kind: plan.KindSuspend, Object: "applications.argoproj.io/argocd/shop", Timeout: time.Minute, Before: []string{"quiesce/web", "claim/cart"}},
			{Name: "warm", Kind: plan.KindCommand, Command: &plan.Command{Image: "warm"}, Timeout: time.Minute, After: []string{"ready/web"}, Before: []string{"traffic/www"}, NoWayBack: true},
		},
		Traffic:     []plan.Traffic{{Name: "www", Kind: plan.KindDNS, Object: "www.example.org", Record: &plan.Record{Zone: "example.org", Secret: "dns-key", Servers: []plan.NameServer{{Address: "192.0.2.53"}}, To: map[string][]string{"east": {"192.0.2.1"}, "west": {"192.0.2.2"}}}}},
		Declaration: plan.Declaration{Automatic: true, Vantages: []string{"west", "console", "witness"}, Agree: 2, For: time.Minute, Block: time.Hour},
		Fence:       plan.Fence{Timeout: 30 * time.Second, Lease: 15 * time.Second, Bound: 5 * time.Second, Drift: 1000},
		Objectives:  plan.Objectives{RPO: time.Minute, RTO: time.Minute},
	}
}

func waves(t *testing.T, p *plan.Plan, v plan.Verb) string {
	t.Helper()
	g, err := p.Graph(v)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, wave := range g.Waves {
		var names []string
		for _, n := range wave {
			names = append(names, g.Steps[n].Name)
		}
		lines = append(lines, strings.Join(names, " "))
	}
	return strings.Join(lines, "\n")
}

func TestGraphOfEachVerb(t *testing.T) {
	for verb, want := range map[plan.Verb]string{
		plan.Failover: `argo-off outside/pay
claim/cart
claim/db
claim/web
fence/cart fence/db fence/web hold
data/cart data/db data/web
apply/db
scale/db
ready/db
apply/cart apply/web
scale/cart scale/web
ready/cart ready/web
probe/web warm
traffic/www`,
		plan.Switchover: `argo-off outside/pay
quiesce/cart quiesce/web
quiesce/db sync/cart sync/web
sync/db
claim/cart
claim/db
claim/web
fence/cart fence/db fence/web hold
data/cart data/web demote/db
data/db
apply/db
scale/db
ready/db
apply/cart apply/web
scale/cart scale/web
ready/cart ready/web
probe/web warm
traffic/www`,
		plan.Drill: `outside/pay
sandbox
data/cart data/db data/web
apply/db
scale/db
ready/db
apply/cart apply/web
scale/cart scale/web
ready/cart ready/web
probe/web
traffic/www
cleanup`,
		plan.Restore: `outside/pay
claim/cart
claim/db
claim/web
stop/cart stop/db stop/web
data/cart data/db data/web
apply/db
scale/db
ready/db
apply/cart apply/web
scale/cart scale/web
ready/cart ready/web
probe/web`,
	} {
		if diff := cmp.Diff(want, waves(t, shop(), verb)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", verb, diff)
		}
	}
	back := waves(t, shop(), plan.Failback)
	if !strings.HasPrefix(back, "argo-off outside/pay\npin/cart pin/db pin/web\ncatch-up/cart catch-up/db catch-up/web\nquiesce/cart quiesce/web\n") {
		t.Errorf("failback:\n%s", back)
	}
}

func TestStepsOfAGraph(t *testing.T) {
	g, err := shop().Graph(plan.Failover)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		on                      plan.OnError
		activates, undo, source bool
	}{
		"claim/db": {plan.Rollback, false, true, false},
		"fence/db": {plan.Continue, false, true, true},
		"data/db":  {plan.Stop, true, true, false},
		"data/web": {plan.Stop, false, true, false},
		"scale/db": {plan.Stop, true, true, false},
		"warm":     {plan.Stop, true, false, false},
	} {
		s := g.Step(name)
		if s == nil || s.OnError != want.on || s.Activates() != want.activates || s.Undoable() != want.undo || (s.Side == plan.Source) != want.source || s.Timeout <= 0 {
			t.Errorf("%s = %+v", name, s)
		}
	}
	if s := g.Step("fence/db"); s.Timeout != 30*time.Second {
		t.Errorf("fence has the limit %s", s.Timeout)
	}
	if s, _ := shop().Graph(plan.Switchover); s.Step("scale/db").OnError != plan.Rollback || s.Step("warm").OnError != plan.Stop {
		t.Error("a planned move rolls back, unless there is no way back")
	}
	if g.Step("none") != nil {
		t.Error("a step that is not there was found")
	}
}

// external has external-dns keep the plan's name, without a fault.
func external(p *plan.Plan) *plan.Record {
	r := p.Traffic[0].Record
	r.Provider, r.Secret, r.Endpoint, r.Servers[0].Watch = plan.ProviderExternalDNS, "", "davit-system/www", true
	return r
}

// TestProblems breaks the plan in one place each, and wants that said, exactly.
// calling makes a step one that calls, and harms the call.
func calling(harm func(*plan.Call)) func(*plan.Plan) {
	return func(p *plan.Plan) {
		c := &plan.Call{Method: "POST", URL: "https://api.example.com/switch?to=west", Expect: 202, Body: `{"to":"west"}`, Headers: []plan.Header{
			{Name: "Content-Type", Value: "application/json"}, {Name: "Authorization", Value: "Bearer ", From: &plan.SecretKey{Secret: "pool", Key: "token"}},
		}}
		harm(c)
		p.Steps[1].Kind, p.Steps[1].Command, p.Steps[1].Undo, p.Steps[1].Call = plan.KindHTTP, nil, nil, c
	}
}

// TestACallIsWell: the control of what is said of calls. What changes in one is told by
// the header's name.
func TestACallIsWell(t *testing.T) {
	before, now := shop(), shop()
	calling(func(*plan.Call) {})(before)
	calling(func(c *plan.Call) { c.Headers[1].From.Key, c.Body = "newer", "" })(now)
	for _, problem := range append(before.Check(), now.Check()...) {
		t.Error(problem)
	}
	var got []string
	for _, c := range plan.Diff(before, now) {
		got = append(got, c.String())
	}
	want := []string{`- steps[warm].call.body: {"to":"west"}`, "~ steps[warm].call.headers[Authorization].from.key: token → newer"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestProblems(t *testing.T) {
	tests := []struct {
		mutate func(p *plan.Plan)
		want   string
	}{
		{func(p *plan.Plan) { p.Name = "" }, `plan "": the name is not valid: use lower-case letters, digits, '-' and '.', each part beginning and ending with a letter or digit`},
		{func(p *plan.Plan) { p.Sites = p.Sites[:1]; p.Outside = nil; p.Applications[2].Needs = nil }, `sites: there are 1: name two or more: a plan moves applications between sites`},
		{func(p *plan.Plan) {
			p.Sites[1].Name = "east"
			p.Outside[0].Probes = map[string]plan.Check{"east": p.Outside[0].Probes["east"]}
		}, `site "east": the name is given twice: rename one of them`},
		{func(p *plan.Plan) { p.Sites[1].Mappings[0].To = "" }, `site "west", mapping of storageClass "fast": from or to is empty: say both`},
		{func(p *plan.Plan) { p.Sites[1].Mappings[0].Kind = "disk" }, `site "west", mapping of disk "fast": the kind is not known: use one of [storageClass image ingressClass host nodeLabel]`},
		{func(p *plan.Plan) { p.Sites[1].Mappings[0].Kind = plan.MapNamespace }, `site "west", mapping of namespace "fast": an application that moves keeps its namespaces: its protection, its fence and the way back go by them, and so do names that its own configuration holds: remove it; a copy in other namespaces is made by davit restore --as-clone --map-namespace`},
		{func(p *plan.Plan) { p.Sites[1].Mappings = append(p.Sites[1].Mappings, p.Sites[1].Mappings[0]) }, `site "west", mapping of storageClass "fast": it is mapped twice: remove one of them`},
		{func(p *plan.Plan) { p.Applications[1].Name = "web"; p.Applications[2].After = nil }, `application "web": the name is given twice: rename one of them`},
		{func(p *plan.Plan) { p.Applications[0].Group = "mid" }, `application "web": there is no group "mid": name one of the plan's: back, front`},
		{func(p *plan.Plan) { p.Applications[0].After = []string{"cache"} }, `application "web", after: there is no application "cache": name one of the plan's: cart, db, web`},
		{func(p *plan.Plan) { p.Applications[0].Needs = []string{"mail"} }, `application "web", needs: there is no outside dependency "mail": name one of the plan's: pay`},
		{func(p *plan.Plan) { p.Applications[0].Data = "scale" }, `application "web": its data cannot come by "scale": use restore or promote`},
		{func(p *plan.Plan) { p.Applications[0].Probes[0].Timeout = 0 }, `application "web", probe 1: it has no timeout: give one, such as 10s`},
		{func(p *plan.Plan) { p.Applications[0].Probes[0].Kind = "ping" }, `application "web", probe 1: the kind "ping" is not known: use tcp, http, sql or command`},
		{func(p *plan.Plan) { p.Applications[0].Probes[0].Target = "" }, `application "web", probe 1: it has no target: say what to ask`},
		{func(p *plan.Plan) { p.Applications[1].After = []string{"cart"} }, `applications: they wait for each other: db → cart → db: remove one of these dependencies, or of their groups`},
		{func(p *plan.Plan) { p.Groups[0].After = []string{"front"} }, `groups: they wait for each other: back → front → back: remove one of these dependencies`},
		{func(p *plan.Plan) { p.Groups[0].After = []string{"side"} }, `group "back", after: there is no group "side": name one of the plan's: back, front`},
		{func(p *plan.Plan) { delete(p.Outside[0].Probes, "west") }, `outside dependency "pay": it has no probe for site west: say how that site reaches it`},
		{func(p *plan.Plan) { p.Outside[0].Probes["north"] = p.Outside[0].Probes["east"] }, `outside dependency "pay": there is no site "north": name one of the plan's: east, west`},
		{func(p *plan.Plan) { p.Steps[1].Side = plan.Source }, `step "warm": no site carries out a command step for another: such an order comes through the vault, and whoever has the project's key could run anything at the source: remove its side, and say early, so that it comes before the claims from the target; or let a person do it at the source, by a manual step`},
		{func(p *plan.Plan) { p.Traffic[0].Kind = "bgp" }, `traffic "www": the kind "bgp" is not known: use dns or gate`},
		{func(p *plan.Plan) { p.Traffic[0].Application = "none" }, `traffic "www": there is no application "none": name one of the plan's: cart, db, web`},
		{func(p *plan.Plan) { p.Traffic[0].Object = "" }, `traffic "www": it has no object: name the record or the gate`},
		{func(p *plan.Plan) { p.Traffic[0].Record = nil }, `traffic "www": it has no record: say zone, to, servers and secret under record`},
		{func(p *plan.Plan) { p.Traffic[0].Kind = plan.KindGate }, `traffic "www": a gate has no record: remove record, or make the kind dns`},
		{func(p *plan.Plan) { p.Traffic[0].Object = "WWW.example.org" }, `traffic "www": "WWW.example.org" is not a name in the DNS: write it as www.example.com; capitals are not used`},
		{func(p *plan.Plan) { p.Traffic[0].Record.Zone = "example.com" }, `traffic "www": www.example.org is not in zone example.com: name the zone that its servers serve`},
		{func(p *plan.Plan) { p.Traffic[0].Record.Provider = "bunny" }, `traffic "www": the provider "bunny" is not known: use route53, cloudflare, azure, google or external-dns, or name servers that take dynamic updates under servers`},
		{func(p *plan.Plan) { p.Traffic[0].Record.Provider = plan.ProviderRoute53 }, `traffic "www", server 1: 192.0.2.53 would be told what provider route53 keeps: write watch: true, so that it is only asked`},
		{func(p *plan.Plan) { p.Traffic[0].Record.Servers = nil }, `traffic "www": no server takes its updates: give one without watch, or the provider that keeps the zone`},
		{func(p *plan.Plan) { external(p).Endpoint = "www" }, `traffic "www": its endpoint "www" is no DNSEndpoint: write NAMESPACE/NAME of the one that holds this name at every site`},
		{func(p *plan.Plan) { external(p).Secret = "dns-key" }, `traffic "www": external-dns has a key of its own, and nothing reads secret dns-key: remove secret`},
		{func(p *plan.Plan) { external(p).Servers = nil }, `traffic "www": nobody would tell whether external-dns has moved the name: name the zone's servers under servers, each with watch: true`},
		{func(p *plan.Plan) { external(p).Servers[0].Watch = false }, `traffic "www", server 1: 192.0.2.53 would be told what provider external-dns keeps: write watch: true, so that it is only asked`},
		{func(p *plan.Plan) { external(p).To["west"] = []string{"2001:db8::1", "192.0.2.2"} }, `traffic "www" at site west: the name has A and AAAA, and A at site east: external-dns would leave both: give the same kinds of records at all sites`},
		{func(p *plan.Plan) { external(p).Provider = ""; p.Traffic[0].Record.Servers[0].Watch = false }, `traffic "www": only external-dns reads an endpoint: remove endpoint, or write provider: external-dns`},
		{func(p *plan.Plan) { p.Traffic[0].Record.Zone = "org" }, `traffic "www": "org" is not a zone in the DNS: write it as example.com`},
		{func(p *plan.Plan) { p.Traffic[0].Record.TTL = time.Millisecond }, `traffic "www": its TTL of 1ms cannot be: use whole seconds up to a day; 30s is good`},
		{func(p *plan.Plan) { p.Traffic[0].Record.Secret = "" }, `traffic "www": it has no secret: name the Secret with the key that may update the zone`},
		{func(p *plan.Plan) { p.Traffic[0].Record.Secret = "a/b" }, `traffic "www": "a/b" is not the name of a Secret: name the Secret with the key that may update the zone`},
		{func(p *plan.Plan) { delete(p.Traffic[0].Record.To, "west") }, `traffic "www" at site west: it does not say where the name leads: give addresses, or one other name`},
		{func(p *plan.Plan) { p.Traffic[0].Record.To["west"] = []string{"192.0.2.1"} }, `traffic "www" at site west: the name leads where it leads at site east: give what only this site has`},
		{func(p *plan.Plan) { p.Traffic[0].Record.To["north"] = []string{"192.0.2.3"} }, `traffic "www": there is no site "north": name one of the plan's: east, west`},
		{func(p *plan.Plan) { p.Traffic[0].Record.To["west"] = []string{"192.0.2.2", "192.0.2.2"} }, `traffic "www" at site west: 192.0.2.2 is there twice: remove one of them`},
		{func(p *plan.Plan) { p.Traffic[0].Record.To["west"] = []string{"fe80::1%eth0"} }, `traffic "www" at site west: "fe80::1%eth0" is not an address that clients can use: write a plain IPv4 or IPv6 address, lower case`},
		{func(p *plan.Plan) { p.Traffic[0].Record.To["west"] = []string{"no name"} }, `traffic "www" at site west: "no name" is neither an address nor a name: give addresses, or one other name`},
		{func(p *plan.Plan) { p.Traffic[0].Record.To["west"] = []string{"192.0.2.2", "lb.example.org"} }, `traffic "www" at site west: a name is given beside others: give addresses only, or one name only`},
		{func(p *plan.Plan) {
			p.Traffic[0].Object, p.Traffic[0].Record.To["west"] = "example.org", []string{"lb.example.net"}
		}, `traffic "www" at site west: the zone's own name cannot lead to another name: give addresses`},
		{func(p *plan.Plan) { p.Traffic[0].Record.Servers[0].Address = "ns1:port" }, `traffic "www", server 1: "ns1:port" is not an address of a server: write host or host:port`},
		{func(p *plan.Plan) { p.Traffic[0].Record.Servers[0].Watch = true }, `traffic "www": no server takes its updates: give one without watch, or the provider that keeps the zone`},
		{func(p *plan.Plan) { p.Traffic = append(p.Traffic, p.Traffic[0]); p.Traffic[1].Name = "again" }, `traffic "again": www.example.org is moved by traffic "www" too: remove one of them`},
		{func(p *plan.Plan) { p.Steps[1].Timeout = 0 }, `step "warm": it has no timeout: give one: a step without could wait for ever`},
		{func(p *plan.Plan) { p.Steps[1].Kind = "claim" }, `step "warm": the kind "claim" cannot be added: use one of approval, command, dns, gate, http, infrastructure, manual, probe, resume, suspend`},
		{func(p *plan.Plan) { p.Steps[1].Command = nil }, `step "warm": it has no command with an image: give one`},
		{func(p *plan.Plan) { p.Steps[0].Object = "" }, `step "argo-off": it has no object: give one`},
		{func(p *plan.Plan) { p.Steps[0].Object = "deployments.apps/shop/web" }, `step "argo-off": "deployments.apps/shop/web" is nothing that makes objects from git: write kustomizations.kustomize.toolkit.fluxcd.io/, helmreleases.helm.toolkit.fluxcd.io/ or applications.argoproj.io/ with NAMESPACE/NAME`},
		{func(p *plan.Plan) { p.Steps[0].Object = plan.Kustomizations + "/shop" }, `step "argo-off": "kustomizations.kustomize.toolkit.fluxcd.io/shop" does not say which one: write kustomizations.kustomize.toolkit.fluxcd.io/, helmreleases.helm.toolkit.fluxcd.io/ or applications.argoproj.io/ with NAMESPACE/NAME`},
		{func(p *plan.Plan) { p.Steps[0].Before, p.Steps[0].After = nil, []string{"data/db"} }, `step "argo-off": in a failover it suspends the source after claim/cart: let it come before quiesce/cart`},
		{func(p *plan.Plan) { p.Steps[1].Undo = &plan.Command{} }, `step "warm": its undo cannot be used: give undo an image, and only to steps that run a command or make a call`},
		{func(p *plan.Plan) { p.Steps[1].Terraform = &plan.Terraform{} }, `step "warm": its terraform or clusterAPI is never used: make it a step of the kind infrastructure, or remove them`},
		{infra(func(s *plan.Step) { s.Terraform = nil }), `step "warm": it has 0 of terraform, clusterAPI and command: give it one`},
		{infra(func(s *plan.Step) { s.Command = &plan.Command{Image: "i"} }), `step "warm": it has 2 of terraform, clusterAPI and command: give it one`},
		{infra(func(s *plan.Step) { s.Object = "x" }), `step "warm": its object is never used: remove it: terraform, clusterAPI or command says what is made`},
		{infra(func(s *plan.Step) { s.Terraform.Image = "" }), `step "warm": its terraform has no image: give one that has the program and a shell`},
		{infra(func(s *plan.Step) { s.Terraform.Module = "git::https://x" }), `step "warm": its configuration is in 2 places: say one of configMap, secret, directory and module`},
		{infra(func(s *plan.Step) {
			s.Terraform.ConfigMap, s.Terraform.Module = "", "git::https://ci:hunter2@git.example.com/infra.git//west?ref=v3"
		}), `step "warm": its module's address has a password, which terraform shows in errors: write the address without it, and give git its credentials by a Secret: GIT_CONFIG_COUNT and what belongs to it, or an image that has a helper`},
		{calling(func(c *plan.Call) { c.URL = "api.example.com/switch" }), `step "warm": its url cannot be called: write http:// or https://, a host and a path`},
		{calling(func(c *plan.Call) { c.Headers[0].Name = "X: Y" }), `step "warm", header "X: Y": no header can have that name: use letters, digits and dashes`},
		{calling(func(c *plan.Call) { c.Headers[0].Name, c.Headers[0].From = "AUTHORIZATION", c.Headers[1].From }), `step "warm", header "Authorization": it is there twice: remove one of them`},
		{calling(func(c *plan.Call) { c.Headers[0].Name = "Davit-Drill" }), `step "warm", header "Davit-Drill": it is said by Davit itself: remove it`},
		{calling(func(c *plan.Call) { c.Headers[0].Value = "a\r\nX: y" }), `step "warm", header "Content-Type": its value has a line end or another control character: write it in one line`},
		{calling(func(c *plan.Call) { c.Headers[0].Value = "" }), `step "warm", header "Content-Type": it says nothing: give value, or from`},
		{calling(func(c *plan.Call) { c.Headers[1].From = nil }), `step "warm", header "Authorization": what it says is secret, and stands in the plan: put it into a Secret, and have it taken from there (from)`},
		{calling(func(c *plan.Call) { c.Headers[1].From.Key = "" }), `step "warm", header "Authorization": from names no key of a Secret: give secret and key`},
		{calling(func(c *plan.Call) { c.BodyFrom = &plan.SecretKey{Secret: "pool", Key: "body"} }), `step "warm": it has two bodies: leave one of body and bodyFrom out`},
		{calling(func(c *plan.Call) { c.Body, c.BodyFrom = "", &plan.SecretKey{Secret: "pool"} }), `step "warm": bodyFrom names no key of a Secret: give secret and key`},
		{calling(func(c *plan.Call) { c.URLFrom = &plan.SecretKey{Secret: "pool", Key: "url"} }), `step "warm": it has two urls: leave one of url and urlFrom out`},
		{calling(func(c *plan.Call) { c.URL, c.URLFrom = "", &plan.SecretKey{Secret: "pool"} }), `step "warm": urlFrom names no key of a Secret: give secret and key`},
		{calling(func(c *plan.Call) { c.URL = "" }), `step "warm": it has no call with a method, a URL and the status to expect: give one`},
		{calling(func(c *plan.Call) { c.Expect = 0 }), `step "warm": it has no call with a method, a URL and the status to expect: give one`},
		{infra(func(s *plan.Step) { s.Timeout = time.Minute }), `step "warm": it waits 1m0s for a lock, and has 1m0s in all: give it a longer timeout, or a shorter lockTimeout`},
		{infra(func(s *plan.Step) { s.Terraform.Backend = map[string]string{"a=b": "c"} }), `step "warm": its backend has a key "a=b": write KEY: VALUE`},
		{infra(func(s *plan.Step) { s.Undo = &plan.Command{Image: "i"} }), `step "warm": its undo cannot be used: give undo an image, and only to steps that run a command or make a call`},
		{infra(func(s *plan.Step) { s.Terraform, s.ClusterAPI = nil, &plan.ClusterAPI{} }), `step "warm": its clusterAPI asks for nothing: say apply, scale or wait`},
		{infra(func(s *plan.Step) {
			s.Terraform, s.ClusterAPI = nil, &plan.ClusterAPI{Scale: []plan.Machines{{Object: "deployments.apps/shop/web", Replicas: 1}}}
		}), `step "warm": "deployments.apps/shop/web" is nothing of Cluster API: write RESOURCE.GROUP/NAMESPACE/NAME of a group of Cluster API, such as machinedeployments.cluster.x-k8s.io/fleet/workers`},
		{infra(func(s *plan.Step) {
			s.Terraform, s.ClusterAPI = nil, &plan.ClusterAPI{Apply: []json.RawMessage{json.RawMessage(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a","namespace":"b"}}`)}}
		}), `step "warm": object 1 of its apply: Secret of "v1" is nothing of Cluster API: write an object of Cluster API with apiVersion, kind and metadata, or apply it otherwise: a command can`},
		{func(p *plan.Plan) { p.Steps[1].OnError = "panic" }, `step "warm": on error it cannot "panic": use stop, continue or rollback`},
		{func(p *plan.Plan) { p.Steps[1].OnError = plan.Rollback }, `step "warm": it has no way back, and rolls back on an error: use stop or continue`},
		{func(p *plan.Plan) { p.Steps[1].Side = "left" }, `step "warm": there is no side "left": use source or target`},
		{func(p *plan.Plan) { p.Steps[1].Application = "none" }, `step "warm": there is no application "none": name one of the plan's: cart, db, web`},
		{func(p *plan.Plan) { p.Steps[1].After = []string{"reddy/web"} }, `step "warm": there is no step "reddy/web": name a step of the plan, or one that Davit adds, such as ready/cart`},
		{func(p *plan.Plan) { p.Steps[1].After, p.Steps[1].Before = nil, nil }, `step "warm": it says neither after nor before what it comes: name a step, such as ready/cart`},
		{func(p *plan.Plan) { p.Steps[1].Verbs = []plan.Verb{"dance"} }, `step "warm": there is no verb "dance": use some of [failover switchover failback drill restore]`},
		{func(p *plan.Plan) { p.Steps[1].Before = []string{"apply/db"} }, `steps of a failover: they wait for each other: apply/cart → ready/db → scale/db → apply/db → warm → ready/web → scale/web → apply/web → probe... `},
		{func(p *plan.Plan) { p.Steps[1].After, p.Steps[1].Before = nil, []string{"claim/db"} }, `step "warm": in a failover it must wait for the fence, which waits for it: claim/db → warm: mark it early if it starts no writer, or let it come later`},
		{func(p *plan.Plan) { p.Approvals = []plan.Approval{{Count: 2, Users: []string{"ann", "ann"}}} }, `approval 1: 2 people must agree, and it names 1: name more, or ask for fewer; whoever asks for the run does not count`},
		{func(p *plan.Plan) { p.Approvals = []plan.Approval{{Count: 1, Roles: []string{""}}} }, `approval 1: one of its roles or users has no name: name it, or remove it`},
		{func(p *plan.Plan) {
			p.Steps = append(p.Steps, plan.Step{Name: "key", Kind: plan.KindManual, Prompt: "turn it", Timeout: time.Hour, Approvers: &plan.Approval{}})
		}, `step "key": its approvers are never asked: make it a step of the kind approval, or remove them`},
		{func(p *plan.Plan) { p.Approvals = []plan.Approval{{Count: 0, Verbs: []plan.Verb{plan.Drill}}} }, `approval 1: 0 people must agree: say one or more, or remove it`},
		{func(p *plan.Plan) { p.Approvals = []plan.Approval{{Count: 1}} }, `approvals: an automatic failover would wait for people: name the verbs, without failover, or declare by hand`},
		{func(p *plan.Plan) { p.Declaration.Vantages = p.Declaration.Vantages[:2] }, `declaration: it is automatic with 2 vantage points: name three: two cannot tell who of them is cut off`},
		{func(p *plan.Plan) { p.Declaration.Agree = 1 }, `declaration: 1 of 3 vantage points decide: let more than half of them agree`},
		{func(p *plan.Plan) { p.Declaration.For = 0 }, `declaration: it is automatic without for or block: say how long they must agree (30s) and how long nothing is declared after a run (1h)`},
		{func(p *plan.Plan) { p.Declaration.For = plan.Fresh }, `declaration: for is 15s, and what a vantage point says counts for 15s: let them agree for longer, such as 30s: else the last words of dead ones would do`},
		{func(p *plan.Plan) {
			p.Declaration.Probes = map[string]plan.Check{"east": {Kind: plan.CheckSQL, Target: "postgres://db.shop/shop", Timeout: 1}}
		}, `declaration, probe of site east: a vantage point cannot ask by sql: use http or tcp, with an address that all vantage points reach`},
		{func(p *plan.Plan) { p.Fence.Lease = 0 }, `fence: automatic declaration without lease or bound: give both: nothing else stops a source that cannot be reached`},
		{func(p *plan.Plan) { p.Declaration.Automatic = false }, `fence: a lease without automatic declaration: remove it: where people declare, silence of the vault stops nobody`},
		{func(p *plan.Plan) {
			p.Fence.Promises, p.Fence.Peers = true, map[string]string{"east": "10.0.0.1:8084"}
		}, `site "west": it has no peer address, and the fence wants promises: say under peer where the others ask it, host:port`},
		{func(p *plan.Plan) { p.Fence.Peers = map[string]string{"west": "10.0.0.1"} }, `site "west": "10.0.0.1" is not where a peer can be asked: write host:port`},
		{func(p *plan.Plan) { p.Fence.Timeout = 0 }, `fence: it has no timeout: say how long a source that does not answer is asked, such as 30s`},
		{func(p *plan.Plan) { p.Fence.Drift = 1e6 }, `fence: lease, bound or drift is out of bounds: use positive times, and a drift of at most 100000 parts in a million`},
		{func(p *plan.Plan) { p.Commit.Then = "wait" }, `commit: it cannot "wait" then: use commit, rollback, or nothing to wait for a person`},
		{func(p *plan.Plan) { p.Commit.Then = plan.ThenRollback }, `commit: the window is too short: say how long a run stays revocable`},
		{func(p *plan.Plan) { p.Limits = map[plan.Kind]time.Duration{plan.KindCommand: time.Second} }, `limits: Davit adds no "command" step: give the step itself a timeout`},
		{func(p *plan.Plan) { p.Objectives.RPO = -1 }, `objectives: one of them is negative: say how much work may be lost, and how long recovery may take`},
	}
	if problems := shop().Check(); len(problems) > 0 {
		t.Fatalf("the whole plan has problems: %v", problems)
	}
	for _, test := range tests {
		p := shop()
		test.mutate(p)
		problems := p.Check()
		if len(problems) == 0 {
			t.Errorf("nothing was said; want %s", test.want)
			continue
		}
		got := problems[0].Error()
		if want, cut := strings.CutSuffix(test.want, "... "); cut && strings.Contains(got, "they wait for each other") && strings.HasPrefix(want, got[:30]) {
			continue // which way round a cycle is told is not fixed here
		}
		if got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
		if _, err := p.Graph(plan.Failover); err == nil {
			t.Errorf("a graph was made of a plan with: %s", got)
		}
	}
}

// TestACycleIsSaidBesideOtherProblems: who mends one thing after the other should not find
// the cycle last. Where names are not right, nothing is said of the order.
func TestACycleIsSaidBesideOtherProblems(t *testing.T) {
	unlimited := func(p *plan.Plan) { p.Fence.Timeout = 0 }
	dangling := func(p *plan.Plan) { p.Applications[0].After = append(p.Applications[0].After, "cache") }
	for name, tt := range map[string]struct {
		mutate []func(*plan.Plan)
		want   []string
		not    string
	}{
		"groups":       {[]func(*plan.Plan){unlimited, func(p *plan.Plan) { p.Groups[0].After = []string{"front"} }}, []string{"fence: it has no timeout", "groups: they wait for each other"}, "applications: they wait"},
		"applications": {[]func(*plan.Plan){dangling, func(p *plan.Plan) { p.Applications[1].After = []string{"cart"} }}, []string{`no application "cache"`, "applications: they wait for each other"}, "steps"},
		"both": {[]func(*plan.Plan){unlimited, func(p *plan.Plan) {
			p.Groups[0].After, p.Applications[1].After = []string{"front"}, []string{"cart"}
		}}, []string{"groups: they wait", "applications: they wait for each other: db → cart → db"}, "steps"},
		"steps":           {[]func(*plan.Plan){dangling, func(p *plan.Plan) { p.Steps[1].Before = []string{"apply/db"} }}, []string{`no application "cache"`, "steps of a failover: they wait for each other"}, "groups"},
		"no cycle":        {[]func(*plan.Plan){unlimited, dangling}, []string{"fence: it has no timeout", `no application "cache"`}, "wait for each other"},
		"a name is wrong": {[]func(*plan.Plan){func(p *plan.Plan) { p.Applications[1].Name, p.Applications[1].After = "web", []string{"web"} }}, []string{"the name is given twice"}, "wait for each other"},
	} {
		t.Run(name, func(t *testing.T) {
			p := shop()
			for _, mutate := range tt.mutate {
				mutate(p)
			}
			var said []string
			for _, problem := range p.Check() {
				said = append(said, problem.Error())
			}
			got := strings.Join(said, "\n")
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("it says\n%s\nwant %q", got, want)
				}
			}
			if strings.Contains(got, tt.not) {
				t.Errorf("it says %q:\n%s", tt.not, got)
			}
		})
	}
}

// infra makes the plan's second step one that applies a configuration, and changes it.
func infra(change func(*plan.Step)) func(*plan.Plan) {
	return func(p *plan.Plan) {
		s := &p.Steps[1]
		s.Kind, s.Command, s.Undo, s.Timeout = plan.KindInfra, nil, nil, 20*time.Minute
		s.Terraform = &plan.Terraform{Image: "tf:1", ConfigMap: "net"}
		change(s)
	}
}

// A command at the source that may fail was refused there, and the run went on: such a plan
// is not refused on the day it is needed. The control may not fail.
func TestACommandAtTheSourceThatMayFail(t *testing.T) {
	for onError, refused := range map[plan.OnError]bool{plan.Continue: false, "": true} {
		p := shop()
		p.Steps[1].Side, p.Steps[1].OnError = plan.Source, onError
		if err := p.Check(); (err != nil) != refused {
			t.Errorf("%q: %v", onError, err)
		}
	}
}

// TestInfrastructureIsTakenBack as each form says.
func TestInfrastructureIsTakenBack(t *testing.T) {
	for want, steps := range map[bool][]plan.Step{
		false: {{Terraform: &plan.Terraform{}}, {Command: &plan.Command{}}},
		true:  {{Terraform: &plan.Terraform{Destroy: true}}, {ClusterAPI: &plan.ClusterAPI{}}, {Command: &plan.Command{}, Undo: &plan.Command{}}},
	} {
		for _, s := range steps {
			if s.Kind = plan.KindInfra; s.Undoable() != want {
				t.Errorf("%+v: %t", s, !want)
			}
		}
	}
	for _, module := range []string{"", "git::https://git.example.com/infra.git//west?ref=v3", "git::ssh://git@git.example.com/infra.git", "git@git.example.com:infra.git"} {
		good := shop()
		infra(func(s *plan.Step) {
			if module != "" {
				s.Terraform.ConfigMap, s.Terraform.Module = "", module
			}
		})(good)
		if problems := good.Check(); len(problems) > 0 {
			t.Errorf("%q: %v", module, problems)
		}
	}
}

// TestOrderHolds makes plans of random order and checks their graphs.
func TestOrderHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := shop()
		p.Applications, p.Steps, p.Groups, p.Outside = nil, nil, nil, nil
		n := rapid.IntRange(1, 8).Draw(t, "applications")
		for i := range n {
			a := plan.Application{Name: fmt.Sprint("a", i)}
			for j := range i {
				if rapid.IntRange(0, 3).Draw(t, "edge") == 0 {
					a.After = append(a.After, fmt.Sprint("a", j))
				}
			}
			p.Applications = append(p.Applications, a)
		}
		verb := rapid.SampledFrom(plan.Verbs()).Draw(t, "verb")
		g, err := p.Graph(verb)
		if err != nil {
			t.Fatal(err)
		}
		p.Applications = rapid.Permutation(p.Applications).Draw(t, "order")
		again, err := p.Graph(verb)
		if err != nil || !cmp.Equal(g, again) {
			t.Fatalf("the order in which applications are written matters: %v\n%s", err, cmp.Diff(g, again))
		}
		seen := map[string]bool{}
		for _, wave := range g.Waves {
			for _, i := range wave {
				for _, after := range g.Steps[i].After {
					if !seen[after] {
						t.Fatalf("%s comes before %s", g.Steps[i].Name, after)
					}
				}
			}
			for _, i := range wave {
				seen[g.Steps[i].Name] = true
			}
		}
		if len(seen) != len(g.Steps) {
			t.Fatalf("%d of %d steps are in waves", len(seen), len(g.Steps))
		}
	})
}

func TestStepThatIsLeftOutHandsOn(t *testing.T) {
	p := shop()
	p.Steps = []plan.Step{
		{Name: "first", Kind: plan.KindManual, Prompt: "?", Timeout: 1, After: []string{"ready/web"}},
		{Name: "middle", Kind: plan.KindManual, Prompt: "?", Timeout: 1, After: []string{"first"}, Verbs: []plan.Verb{plan.Switchover}},
		{Name: "last", Kind: plan.KindManual, Prompt: "?", Timeout: 1, After: []string{"middle"}},
	}
	g, err := p.Graph(plan.Failover)
	if err != nil {
		t.Fatal(err)
	}
	if got := g.Step("last").After; !slices.Equal(got, []string{"first"}) || g.Step("middle") != nil {
		t.Errorf("last waits for %v", got)
	}
}

func TestWait(t *testing.T) {
	for _, test := range []struct {
		f    plan.Fence
		want time.Duration
	}{
		{plan.Fence{}, 0},
		{plan.Fence{Bound: time.Second}, 0},
		{plan.Fence{Lease: 15 * time.Second, Bound: 5 * time.Second}, 20 * time.Second},
		{plan.Fence{Lease: 10 * time.Second, Drift: 100_000}, 12_222_222_223}, // 10 s × 1.1 / 0.9, rounded up
		{plan.Fence{Lease: 24 * time.Hour, Bound: 24 * time.Hour, Drift: 1000}, 173145945945946},
		{plan.Fence{Lease: time.Second, Drift: 1_000_000}, 0},
	} {
		if got := test.f.Wait(); got != test.want {
			t.Errorf("%+v waits %d, want %d", test.f, got, test.want)
		}
	}
}

func TestDrawings(t *testing.T) {
	p := shop()
	p.Applications[0].Name = "web" + strings.Repeat("x", 40)
	p.Steps = nil
	g, err := p.Graph(plan.Switchover)
	if err != nil {
		t.Fatal(err)
	}
	text, dot, svg := g.Text(), g.DOT(), g.SVG()
	for _, s := range g.Steps {
		if !strings.Contains(text, s.Name) || !strings.Contains(dot, fmt.Sprintf("%q [label=", s.Name)) || !strings.Contains(svg, s.Name) {
			t.Errorf("%s is not in every drawing", s.Name)
		}
		for _, after := range s.After {
			if !strings.Contains(dot, fmt.Sprintf("%q -> %q;", after, s.Name)) {
				t.Errorf("the line from %s to %s is missing", after, s.Name)
			}
		}
	}
	if all := text + dot + svg; strings.Contains(all, "m0s") {
		t.Error("times are drawn as 1m0s, which nobody writes")
	}
	if !strings.HasPrefix(text, "switchover of shop: ") || !strings.Contains(text, "[after the fence]") {
		t.Errorf("text begins %.200s", text)
	}
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("SVG is no XML: %v", err)
		}
	}
}

func TestDiff(t *testing.T) {
	if changes := plan.Diff(shop(), shop()); len(changes) > 0 {
		t.Errorf("a plan differs from itself: %v", changes)
	}
	now := shop()
	now.Applications[0], now.Applications[2] = now.Applications[2], now.Applications[0] // no change
	now.Steps[1].Timeout = 2 * time.Minute
	now.Steps[1].Command = &plan.Command{Image: "hot", Args: []string{"-v"}}
	now.Applications[0].After = nil
	now.Outside[0].Probes["west"] = plan.Check{Kind: plan.CheckTCP, Target: "pay:8443", Timeout: time.Second}
	now.Limits = map[plan.Kind]time.Duration{plan.KindReady: time.Minute}
	var got []string
	for _, c := range plan.Diff(shop(), now) {
		got = append(got, c.String())
	}
	want := []string{
		"- applications[cart].after[db]: yes",
		"+ limits[ready]: 1m",
		"~ outside[pay].probes[west].target: pay:443 → pay:8443",
		"+ steps[warm].command.args[0]: -v",
		"~ steps[warm].command.image: warm → hot",
		"~ steps[warm].timeout: 1m → 2m",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
