package preflight_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/preflight"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const gib = 1 << 30

func site(name string) *preflight.Site {
	return &preflight.Site{
		Name: name, At: now.Add(-5 * time.Minute), Written: now.Add(-5 * time.Minute), Davit: "v1", Kubernetes: "v1.34.1", Domain: name + "-hall", VaultDomain: "cloud", KeyID: "k1",
		IngressClasses: []preflight.IngressClass{{Name: "nginx", Default: true}}, GatewayClasses: []string{"mesh"}, Labelled: true,
		Nodes:   []preflight.Node{{Name: "a", Labels: map[string]string{"pool": "db", "cpus": "8"}, Free: preflight.Room{CPU: 4000, Memory: 8 * gib, Pods: 100}}, {Name: "b", Free: preflight.Room{CPU: 4000, Memory: 8 * gib, Pods: 100}}},
		Classes: []preflight.Class{{Name: "fast", Provisioner: "x", Default: true, Room: 100 * gib}},
		APIs:    map[string][]string{"deployments.apps": {"v1"}, "persistentvolumeclaims": {"v1"}, "applications.davit.dev": {"v1alpha1"}},
		Images:  map[string]int{"registry.example.com/shop@sha256:aa": 2},
		Rights:  preflight.Rights{Who: "davit-restore", Asked: 12, Steps: jobRights()},
		Secrets: []string{"dns-key"}, Reconcilers: []string{}, Accounts: []string{"davit-restore"}, Names: []string{}, ConfigMaps: []string{"net"},
		Outside: []preflight.Answer{{Kind: "http", Target: payment.Target, Expect: payment.Expect, At: now.Add(-5 * time.Minute)}},
		Quotas:  []preflight.Quota{{Namespace: "shop", Name: "q", Hard: map[string]int64{"requests.cpu": 9000, "pods": 20, "requests.storage": 200 * gib}, Used: map[string]int64{"pods": 3}}},
	}
}

// good is an input with which all is well.
// jobRights are those that a step with a Job takes.
func jobRights() map[string]bool {
	all := map[string]bool{}
	for _, r := range preflight.StepRights(&plan.Plan{Steps: []plan.Step{{Command: &plan.Command{}}}}) {
		all[r.String()] = true
	}
	return all
}

// payment is the probe of what the application needs besides.
var payment = plan.Check{Kind: plan.CheckHTTP, Target: "https://pay.example.com/", Expect: "^up", Timeout: time.Second}

func good() *preflight.Input {
	east, west := site("east"), site("west")
	east.Roles, west.Roles = map[string]string{"shop": "Active"}, map[string]string{"shop": "Standby"}
	record := &plan.Record{Zone: "example.com", Secret: "dns-key", To: map[string][]string{}}
	return &preflight.Input{
		Now: now, From: "east", To: "west", Sites: map[string]*preflight.Site{"east": east, "west": west},
		Plan: &plan.Plan{
			Name: "shop", Sites: []plan.Site{{Name: "east"}, {Name: "west"}}, Applications: []plan.Application{{Name: "shop"}},
			Objectives: plan.Objectives{RPO: 10 * time.Minute, RTO: 15 * time.Minute},
			Traffic:    []plan.Traffic{{Name: "www", Kind: plan.KindDNS, Object: "www.example.com", Record: record}},
			Steps:      []plan.Step{{Name: "warm", Kind: plan.KindCommand, Command: &plan.Command{Image: "registry.example.com/warm:3"}}},
			Outside:    []plan.Outside{{Name: "pay", Probes: map[string]plan.Check{"east": payment, "west": payment}}},
		},
		Needs: []preflight.Need{{
			Application: "shop", Point: "shop-1", Instant: now.Add(-4 * time.Minute), Consistency: "crash", Site: "east",
			Pods:    []preflight.Pods{{Namespace: "shop", Workload: "deployments.apps/web", Count: 3, Each: preflight.Room{CPU: 1500, Memory: 2 * gib}}},
			Volumes: []preflight.Volume{{Namespace: "shop", Claim: "data", Class: "fast", Bytes: 10 * gib}},
			Kinds:   []preflight.Kind{{Resource: "deployments.apps", Version: "v1", Count: 1}, {Resource: "tills.shop.example.com", Version: "v1", Count: 2, Defined: true}},
			Images:  []preflight.Image{{Reference: "registry.example.com/shop:1", Digest: "sha256:aa"}},
			Epochs:  []preflight.Epoch{{Number: 1, Site: "west"}, {Number: 2, Site: "east"}},
		}},
		Vault:      preflight.Vault{KeyID: "k1", SkewKnown: true, Domain: "cloud"},
		Names:      []preflight.Name{{Traffic: "www", Server: "ns1:53", TTL: 30 * time.Second}},
		Registries: map[string]preflight.Registry{"registry.example.com/warm:3": {Present: true}, "registry.example.com/tf:1": {Present: true}},
	}
}

// automatic has the plan be declared automatically, and all speak who count in that.
func automatic(in *preflight.Input) {
	in.Plan.Declaration = plan.Declaration{Automatic: true, Vantages: []string{"west", "north", "witness"}, Agree: 2}
	spoke := preflight.Voice{Spoke: true, At: now, Site: true}
	in.Agree, in.Voices = 2, map[string]preflight.Voice{"east": spoke, "west": spoke, "north": spoke, "witness": {Spoke: true, At: now}}
}

func suspend(onError plan.OnError) plan.Step {
	return plan.Step{Name: "off", Kind: plan.KindSuspend, Object: plan.Kustomizations + "/flux/shop", OnError: onError}
}

// terraform applies a configuration.
func terraform(configMap string, verbs ...plan.Verb) plan.Step {
	return plan.Step{Name: "net", Kind: plan.KindInfra, Verbs: verbs, Terraform: &plan.Terraform{Image: "registry.example.com/tf:1", ConfigMap: configMap}}
}

// call has the plan make a call with what a Secret has.
func call(in *preflight.Input) {
	in.Plan.Steps = append(in.Plan.Steps, plan.Step{Name: "switch", Kind: plan.KindHTTP, Call: &plan.Call{
		Headers: []plan.Header{{Name: "Accept", Value: "text/plain"}, {Name: "Authorization", From: &plan.SecretKey{Secret: "pool", Key: "token"}}}, BodyFrom: &plan.SecretKey{Secret: "dns-key", Key: "name"},
	}})
}

// flux gives a site Kustomizations.
func flux(s *preflight.Site, all ...string) {
	s.APIs[plan.Kustomizations] = []string{"v1"}
	for _, k := range all {
		s.Reconcilers = append(s.Reconcilers, plan.Kustomizations+"/"+k)
	}
}

// external has external-dns keep the plan's name, as all is well.
func external(in *preflight.Input) {
	in.Plan.Traffic[0].Record.Provider, in.Plan.Traffic[0].Record.Secret, in.Plan.Traffic[0].Record.Endpoint = plan.ProviderExternalDNS, "", "davit-system/www"
	in.Sites["west"].APIs[plan.DNSEndpoints] = []string{"v1alpha1"}
	in.Sites["east"].Names = []string{"davit-system/www"}
}

// TestStepsAreWell: what is there is found at the right site, by whichever name.
func TestStepsAreWell(t *testing.T) {
	in := good()
	external(in)
	flux(in.Sites["east"], "flux/shop")
	in.Sites["west"].APIs[plan.ArgoCD] = []string{"v1alpha1"}
	in.Sites["west"].Reconcilers = []string{plan.ArgoCD + "/argocd/shop"}
	in.Plan.Account = "davit-restore"
	in.Plan.Steps = append(in.Plan.Steps, suspend(plan.Stop), plan.Step{Name: "on", Kind: plan.KindResume, Object: plan.ArgoCD + "/shop"},
		plan.Step{Name: "front", Kind: plan.KindGate, Object: "front"})
	var of []string
	for _, f := range preflight.Judge(in) {
		if f.Verdict != preflight.OK {
			t.Errorf("%+v", f)
		}
		if f.Check == "steps" {
			of = append(of, f.Site+": "+f.Reason)
		}
	}
	if len(of) != 2 || of[0] != "east: has all 1 that the plan's steps rely on there" || !strings.HasPrefix(of[1], "west: has all 4") {
		t.Errorf("%q", of)
	}
}

// door has the application come in by an Ingress or a Gateway; the source has the classes
// given besides the target's.
func door(d preflight.Door, source ...string) func(*preflight.Input) {
	return func(in *preflight.Input) {
		d.Namespace, d.Name = "shop", "www"
		in.Needs[0].Doors = []preflight.Door{d}
		for _, s := range in.Sites {
			s.APIs["gateways.gateway.networking.k8s.io"] = []string{"v1"}
		}
		for _, class := range source {
			in.Sites["east"].IngressClasses = append(in.Sites["east"].IngressClasses, preflight.IngressClass{Name: class})
		}
	}
}

// where has the application's pods choose nodes by a label.
func where(key, operator string, values ...string) func(*preflight.Input) {
	return func(in *preflight.Input) {
		in.Needs[0].Pods[0].Where = []preflight.Term{{{Key: key, Operator: operator, Values: values}}}
		in.Needs[0].Pods[0].Each.CPU = 100
	}
}

// TestDoorsAndLabelsAreWell: what the target has, by the names of the plan's mappings, what
// the point brings along, and what no site has a class for.
func TestDoorsAndLabelsAreWell(t *testing.T) {
	maps := func(kind plan.MappingKind, from, to string) func(*preflight.Input) {
		return func(in *preflight.Input) {
			in.Plan.Sites[1].Mappings = append(in.Plan.Sites[1].Mappings, plan.Mapping{Kind: kind, From: from, To: to})
		}
	}
	for name, all := range map[string][]func(*preflight.Input){
		"the class":   {door(preflight.Door{Class: "nginx"})},
		"mapped":      {door(preflight.Door{Class: "haproxy"}, "haproxy"), maps(plan.MapIngressClass, "haproxy", "nginx")},
		"brought":     {door(preflight.Door{Class: "own"}, "own"), func(in *preflight.Input) { in.Needs[0].IngressClasses = []string{"own"} }},
		"the default": {door(preflight.Door{})},
		"none, as at home": {door(preflight.Door{}), func(in *preflight.Input) {
			in.Sites["west"].IngressClasses, in.Sites["east"].IngressClasses = []preflight.IngressClass{}, []preflight.IngressClass{}
		}},
		"gateway":           {door(preflight.Door{Gateway: true, Class: "mesh"})},
		"label":             {where("pool", "In", "web", "db")},
		"label mapped":      {where("tier", "In", "data"), maps(plan.MapNodeLabel, "tier=data", "pool=db")},
		"key mapped":        {where("tier", "Exists"), maps(plan.MapNodeLabel, "tier", "pool")},
		"label that is not": {where("gpu", "DoesNotExist")},
		"another value":     {where("pool", "NotIn", "db")},
		"more":              {where("cpus", "Gt", "4")},
		"another term": {where("pool", "In", "none"), func(in *preflight.Input) {
			in.Needs[0].Pods[0].Where = append(in.Needs[0].Pods[0].Where, preflight.Term{{Key: "cpus", Operator: "Lt", Values: []string{"9"}}})
		}},
		"by name": {func(in *preflight.Input) {
			in.Needs[0].Pods[0].Where = []preflight.Term{{{Key: "metadata.name", Operator: "In", Values: []string{"a"}, Name: true}}}
			in.Needs[0].Pods[0].Each.CPU = 100
		}},
	} {
		in := good()
		for _, change := range all {
			change(in)
		}
		for _, f := range preflight.Judge(in) {
			if f.Verdict != preflight.OK {
				t.Errorf("%s: %+v", name, f)
			}
		}
	}
}

// mover has the plan name an account, of which this is known.
func mover(r preflight.Rights) func(*preflight.Input) {
	return func(in *preflight.Input) {
		in.Plan.Account = "mover"
		in.Sites["west"].Accounts = append(in.Sites["west"].Accounts, "mover")
		in.Sites["west"].RightsOf = map[string]preflight.Rights{"mover": r}
	}
}

// TestWhatComesNeedNotBeThere: a site to which the run brings Davit first lacks what Davit brings,
// and that is no reason to refuse. What people must put there is, and they are told how.
func TestWhatComesNeedNotBeThere(t *testing.T) {
	for _, coming := range []bool{false, true} {
		in := good()
		in.Coming = coming
		west := in.Sites["west"]
		delete(west.APIs, "applications.davit.dev")
		west.Secrets, west.Accounts = nil, []string{}
		in.Plan.Account = "davit-restore"
		in.Plan.Traffic = append(in.Plan.Traffic, plan.Traffic{Name: "front", Kind: plan.KindGate, Object: "front"})
		var failed []string
		for _, f := range preflight.Judge(in) {
			if f.Check == "steps" && f.Verdict == preflight.Fail {
				failed = append(failed, f.Reason)
				if coming && !strings.HasPrefix(f.Remedy, "before Davit is there: kubectl create namespace davit-system") {
					t.Errorf("nobody is told how: %q", f.Remedy)
				}
			}
		}
		if want := map[bool]int{false: 3, true: 1}[coming]; len(failed) != want || !strings.Contains(strings.Join(failed, "; "), "Secret dns-key") {
			t.Errorf("coming %v: %q, want %d", coming, failed, want)
		}
	}
}

// TestAnAccountIsWell: it is the plan's that is judged, whatever davit-restore may do; and
// what it may not do for other plans is no matter. Whoever looks by hand is judged beside it.
func TestAnAccountIsWell(t *testing.T) {
	for who, want := range map[string][]string{"davit-restore": {"mover may do all 15"}, "me": {"me may not", "mover may do all 15"}} {
		in := good()
		mover(preflight.Rights{Who: "mover", Asked: 9, Applications: []string{"shop", "till"}, Denied: []string{"create deployments.apps in till"}, Steps: jobRights()})(in)
		in.Needs[0].Namespaces = []string{"shop"}
		in.Sites["west"].Rights.Who, in.Sites["west"].Rights.Denied = who, []string{"create deployments.apps"}
		var got []string
		for _, f := range preflight.Judge(in) {
			if f.Check == "rights" {
				got = append(got, f.Reason)
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%s: %q", who, got)
		}
		for i := range want {
			if !strings.HasPrefix(got[i], want[i]) {
				t.Errorf("%s: %q, want %q", who, got[i], want[i])
			}
		}
	}
}

// TestRecalling: whoever reads a site knows not what only its agent asks.
func TestRecalling(t *testing.T) {
	published := site("west")
	published.RightsOf = map[string]preflight.Rights{"mover": {Who: "mover"}}
	if got := site("west").Recalling(published, now); got.RightsOf["mover"].Who != "mover" {
		t.Errorf("%+v", got.RightsOf)
	}
	if got := site("west").Recalling(published, now.Add(time.Hour)); got.RightsOf != nil || site("west").Recalling(nil, now).RightsOf != nil {
		t.Errorf("old facts are taken for new ones: %+v", got.RightsOf)
	}
}

func TestAllIsWell(t *testing.T) {
	found := preflight.Judge(good())
	seen := map[string]bool{}
	for _, f := range found {
		seen[f.Check] = true
		if f.Verdict != preflight.OK {
			t.Errorf("%+v", f)
		}
	}
	for _, c := range preflight.Checks() {
		if !seen[c.ID] || c.About == "" {
			t.Errorf("check %s says nothing", c.ID)
		}
	}
	if preflight.Worst(found) != preflight.OK || preflight.Count(found)[preflight.OK] != len(found) {
		t.Errorf("worst %s of %d", preflight.Worst(found), len(found))
	}
}

// A former holder that the plan does not name is no matter once a person has said for
// good that it has stopped; the control is among the checks.
func TestAStrangerThatAWordIsAbout(t *testing.T) {
	in := good()
	in.Needs[0].Epochs[0].Site, in.Needs[0].Epochs[0].Vouched = "nobody", true
	if found := preflight.Judge(in); preflight.Worst(found) != preflight.OK {
		t.Errorf("%+v", found)
	}
}

// A site that came over from a lost vault without a claim has nothing to prove where it
// is the target, where it says that it stops the application, and where it held it since;
// the control is among the checks.
func TestAMovedSiteThatIsNoMatter(t *testing.T) {
	for name, prepare := range map[string]func(in *preflight.Input){
		"the target": func(in *preflight.Input) { in.Needs[0].Moved = []string{"west"} },
		"stops it": func(in *preflight.Input) {
			in.Sites["south"] = site("south")
			in.Sites["south"].Roles = map[string]string{"shop": "Superseded"}
			in.Needs[0].Moved = []string{"south"}
		},
		"holds it": func(in *preflight.Input) { in.Needs[0].Moved = []string{"east"} },
	} {
		in := good()
		prepare(in)
		if found := preflight.Judge(in); preflight.Worst(found) != preflight.OK {
			t.Errorf("%s: %+v", name, found)
		}
	}
}

// Each case makes one thing wrong: its check says so, and no other does.
func TestChecks(t *testing.T) {
	for _, c := range []struct {
		name, check string
		verdict     preflight.Verdict
		says        string
		harm        func(in *preflight.Input)
	}{
		{"target silent", "facts", preflight.Unknown, "no agent there", func(in *preflight.Input) {
			delete(in.Sites, "west")
			in.Silence = map[string]string{"west": "no agent there"}
		}},
		{"old facts", "facts", preflight.Warn, "3h old", func(in *preflight.Input) {
			in.Sites["west"].Written = now.Add(-3 * time.Hour)
			in.Sites["west"].At = now.Add(-3 * time.Hour)
		}},
		{"unread", "facts", preflight.Warn, "ingresses: denied", func(in *preflight.Input) { in.Sites["west"].Unread = map[string]string{"ingresses": "denied"} }},
		{"other davit", "facts", preflight.Warn, "runs davit v2", func(in *preflight.Input) { in.Sites["west"].Davit = "v2" }},
		{"nobody holds", "facts", preflight.Unknown, "no one site holds", func(in *preflight.Input) { in.From = "" }},
		{"vault silent", "vault", preflight.Fail, "no route", func(in *preflight.Input) { in.Vault.Err = "no route" }},
		{"old key", "vault", preflight.Warn, "knows key k0", func(in *preflight.Input) { in.Sites["west"].KeyID = "k0" }},
		{"same domain", "failure-domain", preflight.Fail, "both are lost together", func(in *preflight.Input) { in.Sites["east"].Domain = "cloud" }},
		{"no domain", "failure-domain", preflight.Unknown, "nobody said", func(in *preflight.Input) { in.Sites["east"].Domain = "" }},
		{"sites together", "failure-domain", preflight.Warn, "both in failure domain", func(in *preflight.Input) { in.Sites["west"].Domain = "east-hall" }},
		{"clock wrong", "clock", preflight.Warn, "clock is 1m from", func(in *preflight.Input) { in.Sites["west"].At = in.Sites["west"].At.Add(time.Minute) }},
		{"clock very wrong", "clock", preflight.Fail, "-10m from", func(in *preflight.Input) { in.Vault.Skew = -10 * time.Minute }},
		{"no epoch", "epochs", preflight.Fail, "no site ever held it", func(in *preflight.Input) { in.Needs[0].Epochs = nil }},
		{"epoch deleted", "epochs", preflight.Fail, "of 2 epochs 1 are", func(in *preflight.Input) { in.Needs[0].Epochs = in.Needs[0].Epochs[1:] }},
		{"two active", "epochs", preflight.Fail, "east and west all believe", func(in *preflight.Input) { in.Sites["west"].Roles["shop"] = "Active" }},
		{"held elsewhere", "epochs", preflight.Fail, "others are at site east", func(in *preflight.Input) { in.Needs[0].Epochs[1].Site = "west" }},
		{"a moved site may run it", "epochs", preflight.Warn, "held it in the lost vault", func(in *preflight.Input) { in.Needs[0].Moved = []string{"north"} }},
		{"a moved site stands by", "epochs", preflight.Warn, "held it in the lost vault", func(in *preflight.Input) { // by a davit that does not know
			in.Sites["south"] = site("south")
			in.Sites["south"].Roles = map[string]string{"shop": "Standby"}
			in.Needs[0].Moved = []string{"south"}
		}},
		{"a cluster is called nobody", "epochs", preflight.Fail, "a cluster bears the name nobody", func(in *preflight.Input) {
			in.Plan.Sites = append(in.Plan.Sites, plan.Site{Name: "nobody"})
			in.Needs[0].Epochs[0].Site, in.Needs[0].Epochs[0].Shared = "nobody", true
		}},
		{"a stranger held it", "epochs", preflight.Warn, "site north held it once", func(in *preflight.Input) { in.Needs[0].Epochs[0].Site = "north" }},
		{"no point", "recovery-point", preflight.Fail, "has no point", func(in *preflight.Input) { in.Needs[0].Why = "has no point" }},
		{"old point", "recovery-point", preflight.Fail, "10m beyond its RPO of 10m", func(in *preflight.Input) { in.Needs[0].Instant = now.Add(-20 * time.Minute) }},
		{"stricter policy", "recovery-point", preflight.Fail, "beyond its RPO of 1m", func(in *preflight.Input) { in.Needs[0].RPO = time.Minute }},
		{"fuzzy", "recovery-point", preflight.Fail, "a failover refuses it", func(in *preflight.Input) { in.Needs[0].Consistency = "fuzzy" }},
		{"no objective", "recovery-point", preflight.Warn, "no RPO to compare", func(in *preflight.Input) { in.Plan.Objectives.RPO = 0 }},
		{"too little CPU", "capacity", preflight.Fail, "1 CPU too few: 4.5 needed, 3.5 free", func(in *preflight.Input) {
			in.Sites["west"].Nodes[0].Free.CPU, in.Sites["west"].Nodes[1].Free.CPU = 3000, 500
		}},
		{"too little memory", "capacity", preflight.Fail, "5 GiB of memory too few", func(in *preflight.Input) {
			in.Sites["west"].Nodes[0].Free.Memory, in.Sites["west"].Nodes[1].Free.Memory = 2*gib, -gib
		}},
		{"no pods left", "capacity", preflight.Fail, "1 pods too few", func(in *preflight.Input) {
			in.Sites["west"].Nodes[0].Free.Pods, in.Sites["west"].Nodes[1].Free.Pods = 1, 1
		}},
		{"cordoned", "capacity", preflight.Fail, "not counted: a (cordoned), b (cordoned)", func(in *preflight.Input) {
			in.Sites["west"].Nodes[0].Closed, in.Sites["west"].Nodes[1].Closed = "cordoned", "cordoned"
			in.Registries["registry.example.com/shop:1@sha256:aa"] = preflight.Registry{Present: true}
		}},
		{"in no one place", "capacity", preflight.Fail, "on no single node for shop/deployments.apps/web", func(in *preflight.Input) {
			in.Needs[0].Pods[0] = preflight.Pods{Namespace: "shop", Workload: "deployments.apps/web", Count: 1, Each: preflight.Room{CPU: 5000}}
		}},
		{"on every node", "capacity", preflight.Fail, "CPU too few", func(in *preflight.Input) {
			in.Needs[0].Pods[0].EveryNode, in.Needs[0].Pods[0].Each.CPU = true, 1500
		}},
		{"nodes not read", "capacity", preflight.Unknown, "denied", func(in *preflight.Input) { in.Sites["west"].Unread = map[string]string{"nodes": "denied"} }},
		{"no class", "storage-classes", preflight.Fail, "no storage class slow", func(in *preflight.Input) { in.Needs[0].Volumes[0].Class = "slow" }},
		{"no default class", "storage-classes", preflight.Fail, "no default storage class", func(in *preflight.Input) {
			in.Needs[0].Volumes[0].Class, in.Sites["west"].Classes[0].Default = "", false
		}},
		{"mapped to nothing", "storage-classes", preflight.Fail, "maps storage class other to gone", func(in *preflight.Input) {
			in.Plan.Sites[1].Mappings = []plan.Mapping{{Kind: plan.MapStorageClass, From: "other", To: "gone"}}
		}},
		{"too little storage", "storage-classes", preflight.Fail, "5 GiB too little of storage class fast", func(in *preflight.Input) { in.Sites["west"].Classes[0].Room = 5 * gib }},
		{"kind not served", "kinds", preflight.Fail, "does not serve deployments.apps", func(in *preflight.Input) { delete(in.Sites["west"].APIs, "deployments.apps") }},
		{"other version", "kinds", preflight.Fail, "serves deployments.apps as v2, and the point has it as v1", func(in *preflight.Input) { in.Sites["west"].APIs["deployments.apps"] = []string{"v2"} }},
		{"definition not in the point", "kinds", preflight.Fail, "does not serve tills", func(in *preflight.Input) { in.Needs[0].Kinds[1].Defined = false }},
		{"older cluster", "kinds", preflight.Warn, "older than the source", func(in *preflight.Input) { in.Sites["west"].Kubernetes = "v1.33.9" }},
		{"image nowhere", "images", preflight.Fail, "no node has", func(in *preflight.Input) {
			in.Sites["west"].Images = nil
			in.Registries["registry.example.com/shop:1@sha256:aa"] = preflight.Registry{Absent: true, Why: "404"}
		}},
		{"image on one node", "images", preflight.Warn, "1 of 2 nodes have", func(in *preflight.Input) {
			in.Sites["west"].Images["registry.example.com/shop@sha256:aa"] = 1
			in.Registries["registry.example.com/shop:1@sha256:aa"] = preflight.Registry{Absent: true}
		}},
		{"registry not asked", "images", preflight.Unknown, "nobody asked its registry", func(in *preflight.Input) { in.Sites["west"].Images = nil }},
		{"command's image nowhere", "step-images", preflight.Fail, "no node has registry.example.com/warm:3", func(in *preflight.Input) {
			in.Registries["registry.example.com/warm:3"] = preflight.Registry{Absent: true}
		}},
		{"quota too small", "quotas", preflight.Fail, "shop/q is too small: requests.cpu by 0.5 CPU", func(in *preflight.Input) { in.Sites["west"].Quotas[0].Hard["requests.cpu"] = 4000 }},
		{"quota used up", "quotas", preflight.Warn, "pods by 2", func(in *preflight.Input) { in.Sites["west"].Quotas[0].Used["pods"] = 19 }},
		{"quota of the mapped namespace", "quotas", preflight.Fail, "shop-dr/q is too small", func(in *preflight.Input) {
			in.Plan.Sites[1].Mappings = []plan.Mapping{{Kind: plan.MapNamespace, From: "shop", To: "shop-dr"}}
			in.Sites["west"].Quotas[0].Namespace = "shop-dr"
			in.Sites["west"].Quotas[0].Hard["requests.storage"] = gib
		}},
		{"nothing suspends at the source", "steps", preflight.Fail, `step "off" is about kustomizations.kustomize.toolkit.fluxcd.io/flux/shop, and the site serves no kustomizations`, func(in *preflight.Input) {
			in.Plan.Steps = append(in.Plan.Steps, suspend(plan.Stop))
		}},
		{"another is there", "steps", preflight.Fail, "shop, which is not there", func(in *preflight.Input) {
			in.Plan.Steps = append(in.Plan.Steps, suspend(plan.Stop))
			flux(in.Sites["east"], "flux/other")
		}},
		{"at the other site alone", "steps", preflight.Warn, "the site serves no kustomizations", func(in *preflight.Input) {
			in.Plan.Steps = append(in.Plan.Steps, suspend(plan.Continue))
			flux(in.Sites["west"], "flux/shop")
		}},
		{"nothing resumes at the target", "steps", preflight.Fail, "serves no applications.argoproj.io", func(in *preflight.Input) {
			in.Plan.Steps = append(in.Plan.Steps, plan.Step{Name: "on", Kind: plan.KindResume, Object: plan.ArgoCD + "/shop"})
		}},
		{"nobody listed what makes objects from git", "steps", preflight.Unknown, "do not say which reconcilers", func(in *preflight.Input) {
			in.Plan.Steps = append(in.Plan.Steps, suspend(plan.Stop))
			in.Sites["east"].Reconcilers = nil
		}},
		{"no gates at the target", "steps", preflight.Fail, `gate "front" is opened on Applications`, func(in *preflight.Input) {
			in.Plan.Traffic = append(in.Plan.Traffic, plan.Traffic{Name: "front", Kind: plan.KindGate, Object: "front"})
			delete(in.Sites["west"].APIs, "applications.davit.dev")
		}},
		{"a call shows a token", "steps", preflight.Warn, `step "hook": its url holds a secret, as "Sig"`, func(in *preflight.Input) {
			in.Plan.Steps = append(in.Plan.Steps, plan.Step{Name: "hook", Kind: plan.KindHTTP, Call: &plan.Call{Method: "POST", URL: "https://hooks.example.com/?to=west&Sig=x", Expect: 200}})
		}},
		{"a call shows a password", "steps", preflight.Warn, `step "hook": its url holds a user or a password`, func(in *preflight.Input) {
			in.Plan.Steps = append(in.Plan.Steps, plan.Step{Name: "hook", Kind: plan.KindHTTP, Call: &plan.Call{Method: "GET", URL: "https://davit:x@api.example.com/", Expect: 200}})
		}},
		{"no external-dns at the target", "steps", preflight.Fail, "serves no dnsendpoints.externaldns.k8s.io in v1alpha1", func(in *preflight.Input) {
			external(in)
			delete(in.Sites["west"].APIs, plan.DNSEndpoints)
		}},
		{"the source's name is not Davit's", "steps", preflight.Warn, "leads clients there again", func(in *preflight.Input) {
			external(in)
			in.Sites["east"].Names = []string{"davit-system/other"}
		}},
		{"no configuration", "steps", preflight.Fail, `step "net" applies the configuration in ConfigMap fleet`, func(in *preflight.Input) {
			in.Plan.Steps = append(in.Plan.Steps, terraform("fleet", plan.Drill))
		}},
		{"nobody listed the configurations", "steps", preflight.Unknown, "do not say which configMaps", func(in *preflight.Input) {
			in.Plan.Steps, in.Sites["west"].ConfigMaps = append(in.Plan.Steps, terraform("net", plan.Drill)), nil
		}},
		{"never rehearsed", "steps", preflight.Warn, `step "net" is never rehearsed`, func(in *preflight.Input) {
			in.Plan.Steps = append(in.Plan.Steps, terraform("net"))
		}},
		{"terraform's image nowhere", "step-images", preflight.Fail, "no node has registry.example.com/tf:1", func(in *preflight.Input) {
			in.Plan.Steps = append(in.Plan.Steps, terraform("net", plan.Drill))
			in.Registries["registry.example.com/tf:1"] = preflight.Registry{Absent: true, Why: "404"}
		}},
		{"terraform's Secret is missing", "steps", preflight.Fail, "Secret cloud", func(in *preflight.Input) {
			s := terraform("net", plan.Drill)
			s.Terraform.Secrets = []string{"cloud"}
			in.Plan.Steps = append(in.Plan.Steps, s)
		}},
		{"no management cluster", "steps", preflight.Fail, "the site serves no machinedeployments.cluster.x-k8s.io", func(in *preflight.Input) {
			in.Plan.Steps = append(in.Plan.Steps, plan.Step{Name: "nodes", Kind: plan.KindInfra, Verbs: []plan.Verb{plan.Drill}, ClusterAPI: &plan.ClusterAPI{
				Scale: []plan.Machines{{Object: "machinedeployments.cluster.x-k8s.io/fleet/west", Replicas: 3}},
			}})
		}},
		{"no such account", "steps", preflight.Fail, "ServiceAccount mover", func(in *preflight.Input) { in.Plan.Account = "mover" }},
		{"nobody listed the accounts", "steps", preflight.Unknown, "do not say which accounts", func(in *preflight.Input) {
			in.Plan.Account, in.Sites["west"].Accounts = "davit-restore", nil
		}},
		{"denied", "rights", preflight.Fail, "may not create deployments.apps", func(in *preflight.Input) { in.Sites["west"].Rights.Denied = []string{"create deployments.apps"} }},
		{"nobody asked", "rights", preflight.Unknown, "nobody asked", func(in *preflight.Input) { in.Sites["west"].Rights.Asked = 0 }},
		{"asking failed", "rights", preflight.Unknown, "no answer", func(in *preflight.Input) { in.Sites["west"].Rights.Err = "no answer" }},
		{"the mirror lacks it", "images", preflight.Fail, "no node has west.example.com/hub/shop:1", func(in *preflight.Input) {
			in.Sites["west"].Images = nil
			in.Plan.Sites[1].Mappings = []plan.Mapping{
				{Kind: plan.MapImage, From: "registry.example.com", To: "west.example.com/hub"}, {Kind: plan.MapImage, From: "registry.example.com/sho", To: "no.example.com"},
			}
			in.Registries["registry.example.com/shop:1@sha256:aa"] = preflight.Registry{Present: true} // which the target does not ask
			in.Registries["west.example.com/hub/shop:1@sha256:aa"] = preflight.Registry{Absent: true, Why: "404"}
		}},
		{"it was not pulled", "images", preflight.Warn, "0 of 2 nodes are known to have registry.example.com/shop:1, which the plan has them pull", func(in *preflight.Input) {
			in.Sites["west"].Images, in.Plan.Pull = nil, true
			in.Registries["registry.example.com/shop:1@sha256:aa"] = preflight.Registry{Present: true}
		}},
		{"a Job is denied", "rights", preflight.Fail, `step "warm" takes rights that davit-restore has not: create jobs.batch in davit-system`, func(in *preflight.Input) {
			in.Sites["west"].Rights.Steps["create jobs.batch in davit-system"] = false
		}},
		{"its log is denied, and it may fail", "rights", preflight.Warn, "get pods/log in davit-system", func(in *preflight.Input) {
			in.Sites["west"].Rights.Steps["get pods/log in davit-system"] = false
			in.Plan.Steps[0].OnError = plan.Continue
		}},
		{"nobody asked about Jobs", "rights", preflight.Unknown, `nobody asked whether davit-restore may do what step "warm" takes`, func(in *preflight.Input) {
			in.Sites["west"].Rights.Steps = nil
		}},
		{"nobody asked about the account", "rights", preflight.Unknown, "nobody asked what ServiceAccount mover may do", func(in *preflight.Input) { in.Plan.Account, in.Plan.Steps = "mover", nil }},
		{"nor where a person looked", "rights", preflight.Unknown, "nobody asked what ServiceAccount mover may do", func(in *preflight.Input) {
			in.Plan.Account, in.Sites["west"].Rights.Who = "mover", "me"
		}},
		{"the account may not", "rights", preflight.Fail, "mover may not create deployments.apps in shop", mover(preflight.Rights{Who: "mover", Asked: 9, Denied: []string{"create deployments.apps in shop"}})},
		{"the account may make no Jobs", "rights", preflight.Unknown, `nobody asked whether mover may do what step "warm" takes`, mover(preflight.Rights{Who: "mover", Asked: 9})},
		{"of another application", "rights", preflight.Unknown, "nobody asked whether mover may restore shop", mover(preflight.Rights{Who: "mover", Asked: 9, Applications: []string{"till"}, Steps: jobRights()})},
		{"the agent may not act as it", "rights", preflight.Fail, "ServiceAccount mover cannot carry runs", mover(preflight.Rights{Who: "mover", Asked: 1, Denied: []string{preflight.Impersonated}})},
		{"asking as it failed", "rights", preflight.Unknown, "what mover may do is not known: no answer", mover(preflight.Rights{Who: "mover", Err: "no answer"})},
		{"machines are denied", "rights", preflight.Fail, "patch machinedeployments.cluster.x-k8s.io in fleet", func(in *preflight.Input) {
			s := plan.Step{Name: "nodes", Kind: plan.KindInfra, Verbs: []plan.Verb{plan.Drill}, ClusterAPI: &plan.ClusterAPI{
				Scale: []plan.Machines{{Object: "machinedeployments.cluster.x-k8s.io/fleet/west", Replicas: 3}},
			}}
			in.Plan.Steps = append(in.Plan.Steps, s)
			in.Sites["west"].Rights.Steps["get machinedeployments.cluster.x-k8s.io in fleet"] = true
			in.Sites["west"].Rights.Steps["patch machinedeployments.cluster.x-k8s.io in fleet"] = false
		}},
		{"no ingress class", "ingress-classes", preflight.Fail, "there is no ingress class haproxy, which Ingress shop/www needs", door(preflight.Door{Class: "haproxy"}, "haproxy")},
		{"which was mapped to none", "ingress-classes", preflight.Fail, "the plan maps ingress class nginx to traefik, which is not there", func(in *preflight.Input) {
			door(preflight.Door{Class: "nginx"})(in)
			in.Plan.Sites[1].Mappings = []plan.Mapping{{Kind: plan.MapIngressClass, From: "nginx", To: "traefik"}}
		}},
		{"a class that nobody has", "ingress-classes", preflight.Warn, "names class haproxy, which is no IngressClass there", door(preflight.Door{Class: "haproxy"})},
		{"a class of an annotation", "ingress-classes", preflight.Warn, "names class haproxy, which is no IngressClass there", door(preflight.Door{Class: "haproxy", Noted: true}, "haproxy")},
		{"no default ingress class", "ingress-classes", preflight.Warn, "Ingress shop/www names no class", func(in *preflight.Input) {
			door(preflight.Door{})(in)
			in.Sites["west"].IngressClasses[0].Default = false
		}},
		{"nobody looked for classes", "ingress-classes", preflight.Unknown, "nobody looked whether it has ingress class nginx", func(in *preflight.Input) {
			door(preflight.Door{Class: "nginx"})(in)
			in.Sites["west"].IngressClasses = nil
		}},
		{"no gateway class", "ingress-classes", preflight.Fail, "there is no gateway class istio, which Gateway shop/www needs", door(preflight.Door{Gateway: true, Class: "istio"})},
		{"no node has the label", "node-labels", preflight.Fail, "no node has pool=web, which shop/deployments.apps/web needs", where("pool", "In", "web")},
		{"nor one that is mapped to", "node-labels", preflight.Fail, "the plan maps node label pool=db to pool=fast, which no node has", func(in *preflight.Input) {
			where("pool", "In", "db")(in)
			in.Plan.Sites[1].Mappings = []plan.Mapping{{Kind: plan.MapNodeLabel, From: "pool=db", To: "pool=fast"}}
		}},
		{"all that have it are closed", "node-labels", preflight.Warn, "all nodes with pool=db, which shop/deployments.apps/web needs, are closed: a (cordoned)", func(in *preflight.Input) {
			where("pool", "In", "db")(in)
			in.Sites["west"].Nodes[0].Closed = "cordoned"
		}},
		{"labels are not known", "node-labels", preflight.Unknown, "do not say which labels", func(in *preflight.Input) {
			where("pool", "In", "web")(in)
			in.Sites["west"].Labelled = false
		}},
		{"no room on those that have it", "capacity", preflight.Fail, "on no single node for shop/deployments.apps/web", func(in *preflight.Input) {
			where("pool", "In", "db")(in)
			in.Needs[0].Pods[0].Each.CPU = 2000 // two fit on one node, four on two
		}},
		{"no secret of a call", "steps", preflight.Fail, "names Secret pool", call},
		{"a call's secret may not be read", "rights", preflight.Fail, `step "switch" takes rights that davit-restore has not: get secrets in davit-system`, func(in *preflight.Input) {
			call(in)
			in.Sites["west"].Rights.Steps["get secrets in davit-system"] = false
		}},
		{"no secret", "steps", preflight.Fail, "names Secret dns-key", func(in *preflight.Input) { in.Sites["west"].Secrets = nil }},
		{"server refuses", "dns", preflight.Fail, "ns1:53: BADKEY", func(in *preflight.Input) { in.Names[0].Err, in.Names[0].Refused = "BADKEY", true }},
		{"server silent", "dns", preflight.Unknown, "ns1:53: timeout", func(in *preflight.Input) { in.Names[0].Err = "timeout" }},
		{"server not asked", "dns", preflight.Unknown, "nobody asked", func(in *preflight.Input) { in.Names = nil }},
		{"no traffic", "dns", preflight.Warn, "moves no name", func(in *preflight.Input) { in.Plan.Traffic = nil }},
		{"long TTL", "ttl", preflight.Warn, "gets a TTL of 1h", func(in *preflight.Input) { in.Plan.Traffic[0].Record.TTL = time.Hour }},
		{"long TTL served", "ttl", preflight.Warn, "is served with a TTL of 1h", func(in *preflight.Input) { in.Names[0].TTL = time.Hour }},
		{"who declares it was not asked", "declaration", preflight.Unknown, "nobody asked who has spoken", func(in *preflight.Input) { automatic(in); in.Voices = nil }},
		{"the source never spoke", "declaration", preflight.Warn, "site east has never given a sign of life in this vault: it is never taken for lost, and nothing is declared", func(in *preflight.Input) {
			automatic(in)
			delete(in.Voices, "east")
		}},
		{"a witness has the source's name", "declaration", preflight.Warn, "site east has never given a sign of life", func(in *preflight.Input) {
			automatic(in)
			in.Voices["east"] = preflight.Voice{Spoke: true, At: now}
		}},
		{"the target never spoke", "declaration", preflight.Warn, "site west has never given a sign of life in this vault: it takes nothing over", func(in *preflight.Input) {
			automatic(in)
			delete(in.Voices, "west")
		}},
		{"too few vantage points ever spoke", "declaration", preflight.Warn, "have never spoken in this vault: north, witness: 2 must agree, so nothing is ever declared", func(in *preflight.Input) {
			automatic(in)
			delete(in.Voices, "north")
			delete(in.Voices, "witness")
		}},
		{"a site need not have spoken yet", "declaration", preflight.Unknown, "site west has given no sign of life in this vault yet", func(in *preflight.Input) {
			automatic(in)
			in.Early = true
			delete(in.Voices, "west")
		}},
		{"a vantage point need not have spoken yet", "declaration", preflight.Unknown, "have not spoken in this vault yet: witness", func(in *preflight.Input) {
			automatic(in)
			in.Early = true
			delete(in.Voices, "witness")
		}},
		{"one vantage point never spoke", "declaration", preflight.Warn, "witness: the others are enough", func(in *preflight.Input) { automatic(in); delete(in.Voices, "witness") }},
		{"one is silent for long", "declaration", preflight.Warn, "vantage point witness has said nothing for 3h", func(in *preflight.Input) {
			automatic(in)
			in.Voices["witness"] = preflight.Voice{Spoke: true, At: now.Add(-3 * time.Hour)}
		}},
		{"one cannot be read", "declaration", preflight.Warn, "what vantage point witness said last cannot be read: damaged", func(in *preflight.Input) {
			automatic(in)
			in.Voices["witness"] = preflight.Voice{Spoke: true, Err: "damaged"}
		}},
		{"it refuses the target", "outside", preflight.Fail, "pay did not answer there as it should, 5m ago: status 403", func(in *preflight.Input) { in.Sites["west"].Outside[0].Err = "status 403" }},
		{"it was asked long ago", "outside", preflight.Unknown, "pay answered there 2h ago", func(in *preflight.Input) { in.Sites["west"].Outside[0].At = now.Add(-2 * time.Hour) }},
		{"nobody asked it so", "outside", preflight.Unknown, "nobody asked outside dependency pay", func(in *preflight.Input) { in.Sites["west"].Outside[0].Expect = "" }},
		{"no agent asks so", "outside", preflight.Unknown, "pay is asked by sql", func(in *preflight.Input) {
			in.Plan.Outside[0].Probes["west"] = plan.Check{Kind: plan.CheckSQL, Target: "postgres://pay/x"}
		}},
		{"no probe from the target", "outside", preflight.Warn, "pay has no probe", func(in *preflight.Input) { delete(in.Plan.Outside[0].Probes, "west") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := good()
			c.harm(in)
			found := preflight.Judge(in)
			hit := false
			for _, f := range found {
				if f.Check != c.check {
					continue
				}
				if f.Verdict == c.verdict && strings.Contains(f.Reason, c.says) {
					hit = f.Remedy != ""
				}
			}
			if !hit {
				t.Fatalf("want %s %s %q, found %+v", c.check, c.verdict, c.says, found)
			}
		})
	}
}

// Facts that have aged prove nothing well any more; what they found wrong stays so.
func TestOldFacts(t *testing.T) {
	in := good()
	in.Sites["west"].Written = now.Add(-3 * time.Hour)
	in.Sites["west"].At = in.Sites["west"].Written
	in.Sites["west"].Rights.Denied = []string{"create deployments.apps"}
	got := map[string]preflight.Finding{}
	for _, f := range preflight.Judge(in) {
		got[f.Check] = f
	}
	if f := got["capacity"]; f.Verdict != preflight.Unknown || !strings.Contains(f.Reason, "as of 3h ago") {
		t.Errorf("%+v", f)
	}
	if f := got["rights"]; f.Verdict != preflight.Fail || !strings.Contains(f.Reason, "as of 3h ago") {
		t.Errorf("%+v", f)
	}
}

// What asks for nothing fits also where others were promised more than there is.
func TestNothingAskedFits(t *testing.T) {
	in := good()
	in.Needs[0].Pods[0].Each = preflight.Room{}
	for i := range in.Sites["west"].Nodes {
		in.Sites["west"].Nodes[i].Free = preflight.Room{CPU: -500, Memory: -gib, Pods: 2}
	}
	for _, f := range preflight.Judge(in) {
		if f.Check == "capacity" && f.Verdict != preflight.OK {
			t.Errorf("%+v", f)
		}
	}
}

// Nothing known is never well.
func TestNothingKnown(t *testing.T) {
	in := &preflight.Input{Now: now, Plan: &plan.Plan{Sites: []plan.Site{{Name: "a"}, {Name: "b"}}}, From: "a", To: "b"}
	for _, f := range preflight.Judge(in) {
		switch f.Check {
		case "facts", "failure-domain", "clock", "capacity", "storage-classes", "kinds", "images", "quotas", "rights":
			if f.Verdict != preflight.Unknown {
				t.Errorf("%+v", f)
			}
		}
	}
}

func TestEncoding(t *testing.T) {
	s := site("west")
	data, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := preflight.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	back.FormatVersion, back.Written = 0, s.Written
	if !reflect.DeepEqual(s, back) || !s.Same(back) {
		t.Errorf("%+v, want %+v", back, s)
	}
	back.Nodes[0].Free.CPU++
	if s.Same(back) {
		t.Error("a change of a node's room is no change")
	}
	for _, text := range []string{
		``, `{}`, `{"formatVersion":1}`, `{"formatVersion":2,"site":"x","at":"2026-01-01T00:00:00Z"}`,
		`{"formatVersion":1,"site":"x","at":"2026-01-01T00:00:00Z","nodes":[{"free":{"cpu":9223372036854775807}}]}`,
		`{"formatVersion":1,"site":"x","at":"2026-01-01T00:00:00Z","quotas":[{"hard":{"pods":-1}}]}`,
	} {
		if got, err := preflight.Decode([]byte(text)); err == nil {
			t.Errorf("%s was taken: %+v", text, got)
		}
	}
}

// FuzzDecode: whatever the vault gives, decoding and judging end.
func FuzzDecode(f *testing.F) {
	data, _ := site("west").Encode()
	f.Add(data)
	f.Add([]byte(`{"formatVersion":1,"site":"x","at":"2026-01-01T00:00:00Z","nodes":[{}],"storageClasses":[{"room":-1}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := preflight.Decode(data)
		if err != nil {
			return
		}
		in := good()
		in.Sites["west"], in.Sites["east"] = s, s
		for _, f := range preflight.Judge(in) {
			if f.Reason == "" || f.Verdict != preflight.OK && f.Remedy == "" {
				t.Fatalf("%+v", f)
			}
		}
		if _, err := json.Marshal(s); err != nil {
			t.Fatal(err)
		}
	})
}

func ExampleSpan() {
	fmt.Println(preflight.Span(90*time.Second), preflight.Span(3*time.Hour), preflight.Span(72*time.Hour), preflight.Size(3*gib/2))
	// Output: 1m30s 3h 3d 1.5 GiB
}

// TestStepRights: what a plan's steps take, each once, and nothing where there are none.
func TestStepRights(t *testing.T) {
	apply := []byte(`{"apiVersion":"cluster.x-k8s.io/v1beta1","kind":"MachineDeployment","metadata":{"namespace":"fleet","name":"west"}}`)
	p := &plan.Plan{Steps: []plan.Step{
		{Terraform: &plan.Terraform{}},
		{Command: &plan.Command{}},
		{Kind: plan.KindReady},
		{ClusterAPI: &plan.ClusterAPI{Kubeconfig: "management", Wait: []plan.Conditions{{Object: "clusters.cluster.x-k8s.io/fleet/west"}}}},
		{ClusterAPI: &plan.ClusterAPI{Apply: []json.RawMessage{apply}, Destroy: true, Wait: []plan.Conditions{{Object: "clusters.cluster.x-k8s.io/fleet/west"}}}},
	}}
	var got []string
	for _, r := range preflight.StepRights(p) {
		got = append(got, r.String())
	}
	want := []string{
		"create jobs.batch in davit-system", "get jobs.batch in davit-system", "list jobs.batch in davit-system", "patch jobs.batch in davit-system", "list pods in davit-system",
		"get pods/log in davit-system", "get secrets in davit-system", "get clusters.cluster.x-k8s.io in fleet",
		"create machinedeployments.cluster.x-k8s.io in fleet", "delete machinedeployments.cluster.x-k8s.io in fleet",
		"get machinedeployments.cluster.x-k8s.io in fleet", "patch machinedeployments.cluster.x-k8s.io in fleet",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	undo := preflight.StepRights(&plan.Plan{Steps: []plan.Step{{Kind: plan.KindHTTP, Call: &plan.Call{}, Undo: &plan.Command{Image: "x"}}}})
	if len(undo) != len(jobRights()) {
		t.Errorf("what takes a call back is a Job: %v", undo)
	}
	if none := preflight.StepRights(&plan.Plan{}); len(none) != 0 {
		t.Errorf("a plan without steps takes %v", none)
	}
}
