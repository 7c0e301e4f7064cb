package fence_test

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"davit.dev/davit/internal/fence"
	"davit.dev/davit/internal/selection"
)

const app = "shop"

func TestAHigherEpochFencesAndOnlyOnesOwnLifts(t *testing.T) {
	r, leases := &fence.Record{Format: fence.Format}, fence.Leases{}
	why := func() fence.Reason { return r.Find(app).Why(leases, time.Hour) }
	steps := []struct {
		answer  fence.Answer
		changed bool
		want    fence.Reason
	}{
		{fence.Answer{}, false, fence.Free},                   // nobody claimed it
		{fence.Answer{Newest: 3}, true, fence.Free},           // standby: another's alone
		{fence.Answer{Newest: 4, Held: 4}, true, fence.Free},  // taken over
		{fence.Answer{Newest: 4, Held: 4}, false, fence.Free}, // the same again
		{fence.Answer{Newest: 5, Held: 4}, true, fence.Superseded},
		{fence.Answer{Newest: 4, Held: 4}, false, fence.Superseded}, // an old answer that comes late
		{fence.Answer{}, false, fence.Superseded},                   // a vault that forgot
		{fence.Answer{Newest: 7, Held: 4}, true, fence.Superseded},
		{fence.Answer{Newest: 8, Held: 8}, true, fence.Free}, // given back
	}
	for i, s := range steps {
		if got := r.Learn(app, s.answer, leases); got != s.changed {
			t.Errorf("step %d: changed is %v", i, got)
		}
		if got := why(); got != s.want {
			t.Errorf("step %d: %q, want %q", i, got, s.want)
		}
	}
}

func TestSilenceStopsNothingWithoutTerms(t *testing.T) {
	r, leases := &fence.Record{}, fence.Leases{}
	r.Learn(app, fence.Answer{Newest: 1, Held: 1}, leases)
	if got := r.Find(app).Why(leases, 1000*time.Hour); got != fence.Free {
		t.Errorf("%q after a thousand hours of silence", got)
	}
	r.Learn(app, fence.Answer{Newest: 2, Held: 2, Asked: time.Second, Terms: &fence.Terms{Lease: 15 * time.Second}}, leases)
	for at, want := range map[time.Duration]fence.Reason{15 * time.Second: fence.Free, 16 * time.Second: fence.LeaseOver} {
		if got := r.Find(app).Why(leases, at); got != want {
			t.Errorf("at %s: %q, want %q", at, got, want)
		}
	}
	r.Learn(app, fence.Answer{Newest: 2, Held: 2, Asked: 20 * time.Second, Terms: &fence.Terms{Lease: 15 * time.Second}}, leases)
	if got := r.Find(app).Why(leases, 30*time.Second); got != fence.Free {
		t.Errorf("renewed: %q", got)
	}
	if got := r.Find(app).Why(fence.Leases{}, 0); got != fence.LeaseOver {
		t.Errorf("after the machine started anew: %q: no lease is no right to write", got)
	}
}

// TestTheClustersWordBinds: a node that hears of a lease without the vault's own
// answer obeys it, and has a right to write for one lease at most, and only if
// the vault gave it that right before.
func TestTheClustersWordBinds(t *testing.T) {
	terms := fence.Terms{Lease: 15 * time.Second}
	second := time.Second
	r, leases := &fence.Record{}, fence.Leases{}
	if !r.Hear(app, 2, terms, 10*second, leases) || r.Hear(app, 2, terms, 60*second, leases) {
		t.Fatal("heard once, it is news once")
	}
	for at, want := range map[time.Duration]fence.Reason{10 * second: fence.Free, 11 * second: fence.LeaseOver} {
		if got := r.Find(app).Why(leases, at); got != want {
			t.Errorf("a stranger at %s: %q", at, got)
		}
	}
	r.Learn(app, fence.Answer{Newest: 2, Held: 2, Terms: &terms, Asked: 12 * second}, leases)
	if got := leases[app]; got != 27*second {
		t.Errorf("the vault's answer gives a lease until %s", got)
	}

	r, leases = &fence.Record{}, fence.Leases{}
	r.Learn(app, fence.Answer{Newest: 1, Held: 1}, leases)
	r.Hear(app, 2, terms, 10*second, leases)
	r.Learn(app, fence.Answer{Newest: 1, Held: 1, Asked: 9 * second}, leases) // asked before the claim
	for at, want := range map[time.Duration]fence.Reason{24 * second: fence.Free, 25 * second: fence.LeaseOver} {
		if got := r.Find(app).Why(leases, at); got != want {
			t.Errorf("one that the vault told before at %s: %q", at, got)
		}
	}
	r.Learn(app, fence.Answer{Newest: 3, Held: 1, Asked: 11 * second}, leases)
	if r.Hear(app, 2, terms, 12*second, leases) || r.Find(app).Why(leases, 12*second) != fence.Superseded {
		t.Error("an older word lifts a fence")
	}
	r.Hear(app, 4, terms, 12*second, leases)
	if r.Find(app).Why(leases, 12*second) != fence.Superseded {
		t.Error("the cluster's word lifts a fence")
	}
}

// TestShorterTermsHoldAtOnce: what is left of a longer lease does not count
// under a new claim.
func TestShorterTermsHoldAtOnce(t *testing.T) {
	r, leases := &fence.Record{}, fence.Leases{}
	r.Learn(app, fence.Answer{Newest: 1, Held: 1, Terms: &fence.Terms{Lease: time.Hour}}, leases)
	r.Learn(app, fence.Answer{Newest: 2, Held: 2, Terms: &fence.Terms{Lease: time.Minute}, Asked: time.Minute}, leases)
	r.Learn(app, fence.Answer{Newest: 2, Held: 2, Terms: &fence.Terms{Lease: time.Minute}, Asked: time.Second}, leases) // comes late
	if leases[app] != 2*time.Minute {
		t.Error(leases[app])
	}
}

func TestALeaseIsNotForgottenWithItsApplication(t *testing.T) {
	r, leases := &fence.Record{}, fence.Leases{}
	r.Learn(app, fence.Answer{Newest: 1, Held: 1, Terms: &fence.Terms{Lease: time.Minute}}, leases)
	if r.Forget(nil); r.Find(app) == nil || !r.Leased() {
		t.Fatal("others go by it")
	}
	r.Learn(app, fence.Answer{Newest: 2, Held: 2}, leases)
	if r.Forget(nil); r.Find(app) != nil || r.Leased() {
		t.Error("without a lease it is nobody's")
	}
}

func TestRecordOutlivesTheProcess(t *testing.T) {
	s := fence.Store{Dir: t.TempDir(), RunDir: t.TempDir(), Boot: "one"}
	r, err := s.Load()
	if err != nil || len(r.Applications) != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	leases := fence.Leases{}
	r.Learn("b", fence.Answer{Newest: 2, Held: 1, Holder: "site west"}, leases)
	r.Learn("a", fence.Answer{Newest: 1, Held: 1, Asked: time.Minute, Terms: &fence.Terms{Lease: time.Second}}, leases)
	r.World = json.RawMessage(`{}`)
	if err := errors.Join(s.Save(r), s.SaveLeases(leases), s.Beat(5)); err != nil {
		t.Fatal(err)
	}
	again, err := s.Load()
	if err != nil || again.Find("b").Below != 2 || again.Find("a").Terms == nil || again.Find("c") != nil {
		t.Fatalf("%+v, %v", again, err)
	}
	if got := s.LoadLeases()["a"]; got != time.Minute+time.Second {
		t.Errorf("lease until %s", got)
	}
	if at, ok := s.Beaten(); !ok || at != 5 {
		t.Errorf("beaten at %s, %v", at, ok)
	}
	s.Boot = "two"
	if got := s.LoadLeases(); len(got) != 0 {
		t.Errorf("leases of an earlier start: %v", got)
	}
	if _, ok := s.Beaten(); ok {
		t.Error("a beat of an earlier start counts")
	}
	again.Forget(map[string]bool{"a": true})
	if again.Find("b") != nil || again.Find("a") == nil {
		t.Error("forgot the wrong one")
	}
}

func TestDamagedRecordIsSaidToBe(t *testing.T) {
	s := fence.Store{Dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(s.Dir, fence.RecordFile), []byte(`{"format":1,"applications":[{"na`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(); !errors.Is(err, fence.ErrDamaged) {
		t.Fatalf("%v, want ErrDamaged", err)
	}
	if err := s.SetAside("damaged"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(); err != nil {
		t.Errorf("after it was set aside: %v", err)
	}
	for _, bad := range []string{
		`{}`, `{"format":-1}`, `{"format":1,"applications":[{"name":""}]}`,
		`{"format":1,"applications":[{"name":"b"},{"name":"a"}]}`, `{"format":1,"applications":[{"name":"a","below":2,"newest":1}]}`,
		`{"format":1,"applications":[{"name":"a","terms":{"lease":0}}]}`,
	} {
		if _, err := fence.Decode([]byte(bad)); !errors.Is(err, fence.ErrDamaged) {
			t.Errorf("%s: %v, want ErrDamaged", bad, err)
		}
	}
}

func TestALaterFormatIsNotDamaged(t *testing.T) {
	for _, text := range []string{`{"format":2}`, `{"format":2,"applications":{"shop":{}}}`} {
		if _, err := fence.Decode([]byte(text)); !errors.Is(err, fence.ErrNewer) || errors.Is(err, fence.ErrDamaged) {
			t.Errorf("%s: %v, want ErrNewer", text, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"format":1,"applications":[{"name":"a","held":1,"newest":2,"below":2,"terms":{"lease":5}}],"world":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := fence.Decode(data)
		if err != nil {
			return
		}
		r.Learn("x", fence.Answer{Newest: 2, Held: 1}, fence.Leases{})
		if len(r.Applications) > 0 && r.Find(r.Applications[0].Name) == nil {
			t.Errorf("%q is not found", r.Applications[0].Name)
		}
	})
}

// node is a site's node in virtual time: it asks, its lease runs, it stops.
type node struct {
	record *fence.Record
	leases fence.Leases
	rate   float64 // of its clock
	epoch  int64   // under which it writes
}

func (n *node) clock(now time.Duration) time.Duration { return time.Duration(float64(now) * n.rate) }

// flaw is what a negative control takes away.
type flaw int

const (
	sound flaw = iota
	noFence
	noLease
	fromAnswer // the lease counts from the answer, not from before the question
)

// race plays one take-over of a site whose node reaches the vault badly, and
// tells whether two sites ever wrote at once.
func race(seed uint64, f flaw) bool {
	const lease, bound, drift, step = 15 * time.Second, 5 * time.Second, 1000, 50 * time.Millisecond
	rnd := rand.New(rand.NewPCG(seed, 1))
	n := &node{record: &fence.Record{}, leases: fence.Leases{}, epoch: 1, rate: 1 + drift*1e-6*(2*rnd.Float64()-1)}
	terms := &fence.Terms{Lease: lease, Bound: bound, Drift: drift}
	target := 1 + drift*1e-6*(2*rnd.Float64()-1)
	claimed := time.Duration(20+rnd.IntN(40)) * time.Second
	const wait = 20041 * time.Millisecond // (lease + bound) * (1 + d) / (1 - d), rounded up
	type answer struct {
		at    time.Duration
		says  fence.Answer
		asked time.Duration
	}
	var coming []answer
	cut := claimed - time.Duration(rnd.IntN(10))*time.Second // the vault is silent from here on, or answers late
	stopping := time.Duration(-1)
	writes := true
	n.record.Learn(app, fence.Answer{Newest: 1, Held: 1, Asked: 0, Terms: terms}, n.leases)
	for now := time.Duration(0); now < 3*time.Minute; now += step {
		if now%(5*time.Second) == 0 {
			says := fence.Answer{Newest: 1, Held: 1, Terms: terms}
			if now >= claimed {
				says = fence.Answer{Newest: 2, Held: 1}
			}
			late := time.Duration(rnd.IntN(3000)) * time.Millisecond
			if now >= cut-10*time.Second && rnd.IntN(2) == 0 {
				late = time.Duration(rnd.IntN(14)) * time.Second
			}
			if now < cut {
				coming = append(coming, answer{now + late, says, n.clock(now)})
			}
		}
		for _, c := range coming {
			if c.at/step == now/step {
				c.says.Asked = c.asked
				if f == fromAnswer {
					c.says.Asked = n.clock(now)
				}
				n.record.Learn(app, c.says, n.leases)
			}
		}
		why := n.record.Find(app).Why(n.leases, n.clock(now))
		if f == noFence || f == noLease && why == fence.LeaseOver {
			why = fence.Free
		}
		switch {
		case why == fence.Free:
			stopping = -1
		case stopping < 0:
			stopping = n.clock(now)
		}
		if stopping >= 0 && n.clock(now)-stopping >= bound-2*step {
			writes = false
		}
		active := now >= claimed && time.Duration(float64(now-claimed)*target) >= wait
		if active && writes {
			return true
		}
	}
	return false
}

func TestTheLeaseKeepsTwoWritersApart(t *testing.T) {
	for seed := range uint64(2000) {
		if race(seed, sound) {
			t.Fatalf("seed %d: two sites wrote at once", seed)
		}
	}
}

// TestWithoutTheFenceTwoWrite: the simulation must see what the fence prevents.
func TestWithoutTheFenceTwoWrite(t *testing.T) {
	for name, f := range map[string]flaw{"no fence": noFence, "no lease": noLease, "lease from the answer": fromAnswer} {
		found := false
		for seed := range uint64(2000) {
			found = found || race(seed, f)
		}
		if !found {
			t.Errorf("%s: two writers were never seen", name)
		}
	}
}

func object(kind, group, ns, name string, set map[string]string, owner *selection.Owner) selection.Object {
	return selection.Object{Group: group, Kind: kind, Namespace: ns, Name: name, UID: ns + "/" + name, Labels: set, Owner: owner, Replicas: 1}
}

func named(t *testing.T, text string) []selection.Name {
	t.Helper()
	n, err := selection.ParseName(text)
	if err != nil {
		t.Fatal(err)
	}
	return []selection.Name{n}
}

func TestJudgeStopsWhatIsTheApplicationsAlone(t *testing.T) {
	hash := map[string]string{"pod-template-hash": "5d9c", "app": "web"}
	web := object("Pod", "", "shop", "web-5d9c-x1", hash, nil)
	objects := fence.Owners(&web)
	objects = append(objects, web,
		object("Pod", "", "shop", "db-0", map[string]string{"app": "db"}, nil),
		object("Pod", "", "other", "web-0", map[string]string{"app": "web"}, nil))
	inShop := selection.Namespaces{Names: []string{"shop"}}
	whole := fence.Claim{Application: "whole", Rules: selection.Selection{Namespaces: inShop}, Fenced: true}
	byName := fence.Claim{Application: "web", Rules: selection.Selection{Namespaces: inShop, Workloads: named(t, "deployment/web")}, Active: true}
	for name, tt := range map[string]struct {
		claims []fence.Claim
		want   map[string]string
	}{
		"nothing is fenced":     {[]fence.Claim{byName}, map[string]string{}},
		"a namespace":           {[]fence.Claim{whole}, map[string]string{"shop/web-5d9c-x1": "whole", "shop/db-0": "whole"}},
		"spared by a narrower":  {[]fence.Claim{whole, byName}, map[string]string{"shop/db-0": "whole"}},
		"a Deployment by name":  {[]fence.Claim{{Application: "web", Rules: byName.Rules, Fenced: true}}, map[string]string{"shop/web-5d9c-x1": "web"}},
		"not against a broader": {[]fence.Claim{{Application: "web", Rules: byName.Rules, Fenced: true}, {Application: "whole", Rules: whole.Rules, Active: true}}, map[string]string{"shop/web-5d9c-x1": "web"}},
		"left out by kind": {
			[]fence.Claim{{Application: "whole", Rules: whole.Rules, Fenced: true, Wants: func(r, g string) bool { return r != "deployments" }}},
			map[string]string{"shop/db-0": "whole"},
		},
	} {
		got := fence.Judge(tt.claims, objects, map[string]labels.Set{})
		if len(got) != len(tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
			continue
		}
		for uid, by := range tt.want {
			if got[uid] != by {
				t.Errorf("%s: %v, want %v", name, got, tt.want)
			}
		}
	}
	covering := fence.Covering([]fence.Claim{byName, {Application: "none", Rules: selection.Selection{Namespaces: selection.Namespaces{Names: []string{"x"}}}}}, objects, nil)
	if !covering["web"] || covering["none"] {
		t.Errorf("covering: %v", covering)
	}
}

// TestAnyWantedOwnerCounts: whoever owns a workload of a wanted kind takes it out of no fence, and a kind is
// known by its resource's name however that is made. The controls are pods of which nothing is wanted.
func TestAnyWantedOwnerCounts(t *testing.T) {
	of := func(group, kind string) *selection.Owner {
		return &selection.Owner{Group: group, Kind: kind, Name: "db"}
	}
	owned := func(group, kind string, by *selection.Owner) selection.Object {
		return object(kind, group, "shop", "db", nil, by)
	}
	byOperator := []selection.Object{owned("apps", "StatefulSet", of("sql.example", "Cluster")), object("Pod", "", "shop", "db-0", nil, of("apps", "StatefulSet"))}
	ofCron := []selection.Object{owned("batch", "Job", of("batch", "CronJob")), object("Pod", "", "shop", "db-0", nil, of("batch", "Job"))}
	bare := func(kind string) []selection.Object {
		return []selection.Object{object("Pod", "", "shop", "db-0", nil, of("x.example", kind))}
	}
	only := func(name string) func(string, string) bool { return func(r, g string) bool { return r+"."+g == name } }
	but := func(name string) func(string, string) bool { return func(r, g string) bool { return r+"."+g != name } }
	for name, c := range map[string]struct {
		objects []selection.Object
		wants   func(string, string) bool
		want    bool
	}{
		"the workload below an operator's resource": {byOperator, only("statefulsets.apps"), true},
		"the operator's resource":                   {byOperator, only("clusters.sql.example"), true},
		"neither":                                   {byOperator, only("deployments.apps"), false},
		"the pod follows its workload":              {byOperator, only("pods."), false},
		"jobs of which the CronJob is left out":     {ofCron, only("jobs.batch"), true},
		"a y at the end":                            {bare("Proxy"), only("proxies.x.example"), true},
		"a y at the end, left out":                  {bare("Proxy"), func(r, g string) bool { return r != "proxies" && r != "pods" }, false},
		"an s at the end":                           {bare("Prometheus"), only("prometheuses.x.example"), true},
		"the same in plural":                        {bare("Redis"), only("redis.x.example"), true},
		"another's":                                 {bare("Proxy"), only("proxies.y.example"), false},
		"a pod of an operator's":                    {bare("Proxy"), only("pods."), true},
		"left out besides":                          {byOperator, but("clusters.sql.example"), true},
	} {
		claim := fence.Claim{Application: "shop", Rules: selection.Selection{Namespaces: selection.Namespaces{Names: []string{"shop"}}}, Fenced: true, Wants: c.wants}
		if got := fence.Judge([]fence.Claim{claim}, c.objects, nil)["shop/db-0"] == "shop"; got != c.want {
			t.Errorf("%s: fenced %v", name, got)
		}
	}
}

func TestOwnersAreToldByNames(t *testing.T) {
	for _, tt := range []struct {
		name   string
		labels map[string]string
		want   []string
	}{
		{"web-5d9c-x1", map[string]string{"pod-template-hash": "5d9c"}, []string{"ReplicaSet ns/web-5d9c", "Deployment ns/web"}},
		{"db-0", map[string]string{"statefulset.kubernetes.io/pod-name": "db-0", "controller-revision-hash": "db-1"}, []string{"StatefulSet ns/db"}},
		{"log-abcde", map[string]string{"controller-revision-hash": "1"}, []string{"DaemonSet ns/log"}},
		{"report-29384756-x", map[string]string{"batch.kubernetes.io/job-name": "report-29384756"}, []string{"Job ns/report-29384756", "CronJob ns/report"}},
		{"once-x", map[string]string{"batch.kubernetes.io/job-name": "once"}, []string{"Job ns/once"}},
		{"bare", nil, nil},
	} {
		pod := selection.Object{Kind: "Pod", Namespace: "ns", Name: tt.name, Labels: tt.labels}
		got := fence.Owners(&pod)
		if len(got) != len(tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
			continue
		}
		for i := range got {
			if got[i].Title() != tt.want[i] {
				t.Errorf("%s: %s, want %s", tt.name, got[i].Title(), tt.want[i])
			}
		}
		if len(got) > 0 && (pod.Owner == nil || pod.Owner.Name != got[0].Name) {
			t.Errorf("%s: owner %+v", tt.name, pod.Owner)
		}
	}
}

// TestWhatIsGivenBackDoesNotRun, from when the cluster says so until this site has claimed a
// higher epoch: that the vault has not been heard since changes nothing.
func TestWhatIsGivenBackDoesNotRun(t *testing.T) {
	r, leases := &fence.Record{Format: fence.Format}, fence.Leases{}
	at := func(what string, want fence.Reason, floor int64) {
		t.Helper()
		if a := r.Find(app); a.Why(leases, time.Hour) != want || a.Floor() != floor {
			t.Errorf("%s: %q below %d, want %q below %d", what, a.Why(leases, time.Hour), a.Floor(), want, floor)
		}
	}
	r.Learn(app, fence.Answer{Newest: 2, Held: 2}, leases)
	at("held", fence.Free, 0)
	if !r.Return(app, 2) || r.Return(app, 2) || r.Return(app, 1) {
		t.Error("what changed was not told")
	}
	at("given back", fence.Superseded, 3)
	r.Learn(app, fence.Answer{Newest: 2, Held: 2}, leases)
	at("the vault has not heard yet", fence.Superseded, 3)
	r.Learn(app, fence.Answer{Newest: 3, Held: 2}, leases)
	at("it has", fence.Superseded, 3)
	store := fence.Store{Dir: t.TempDir(), RunDir: t.TempDir()}
	if err := store.Save(r); err != nil {
		t.Fatal(err)
	}
	var err error
	if r, err = store.Load(); err != nil {
		t.Fatal(err)
	}
	at("after a restart", fence.Superseded, 3)
	r.Learn(app, fence.Answer{Newest: 4, Held: 4}, leases)
	at("claimed anew", fence.Free, 0)
}

// TestPeersProlongALease: they do so only under the epoch that the vault itself called the newest and this
// site's own, from before they were asked, and never once the lease is over or another epoch is known.
func TestPeersProlongALease(t *testing.T) {
	second := time.Second
	terms := &fence.Terms{Lease: 15 * second, Peers: []fence.Peer{{Site: "west", Address: "west:1"}}}
	for name, c := range map[string]struct {
		before     func(*fence.Record, fence.Leases)
		epoch      int64
		asked, now time.Duration
		want       time.Duration
	}{
		"all promise":               {nil, 2, 10 * second, 12 * second, 25 * second},
		"under an older epoch":      {nil, 1, 10 * second, 12 * second, 15 * second},
		"when the lease was over":   {nil, 2, 10 * second, 15 * second, 15 * second},
		"asked before the vault":    {nil, 2, -second, 12 * second, 15 * second},
		"a newer epoch is known":    {func(r *fence.Record, l fence.Leases) { r.Learn(app, fence.Answer{Newest: 3, Held: 2}, l) }, 2, 10 * second, 12 * second, 15 * second},
		"it is being given back":    {func(r *fence.Record, l fence.Leases) { r.Return(app, 2) }, 2, 10 * second, 12 * second, 15 * second},
		"the cluster's word alone":  {func(r *fence.Record, l fence.Leases) { r.Hear(app, 3, *terms, 9*second, l) }, 3, 10 * second, 12 * second, 24 * second},
		"the machine began anew":    {func(r *fence.Record, l fence.Leases) { delete(l, app) }, 2, 10 * second, 12 * second, 0},
		"claimed anew, with others": {func(r *fence.Record, l fence.Leases) { r.Learn(app, fence.Answer{Newest: 3, Held: 3, Terms: terms}, l) }, 2, 10 * second, 12 * second, 15 * second},
	} {
		r, leases := &fence.Record{}, fence.Leases{}
		r.Learn(app, fence.Answer{Newest: 2, Held: 2, Terms: terms}, leases)
		if c.before != nil {
			c.before(r, leases)
		}
		if changed := r.Promised(app, c.epoch, c.asked, c.now, leases); leases[app] != c.want || changed != (c.want == 25*second) {
			t.Errorf("%s: until %s, changed %v", name, leases[app], changed)
		}
	}
	r, leases := &fence.Record{}, fence.Leases{}
	r.Learn(app, fence.Answer{Newest: 2, Held: 2, Terms: &fence.Terms{Lease: 15 * second}}, leases)
	if r.Promised(app, 2, 10*second, 12*second, leases) {
		t.Error("nobody can stand in where the claim names no peer")
	}
}
