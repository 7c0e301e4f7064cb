package runbook_test

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/runbook"
)

func shop() *plan.Plan {
	return &plan.Plan{
		Name: "shop", Sites: []plan.Site{{Name: "east"}, {Name: "west"}},
		Applications: []plan.Application{
			{Name: "db", Probes: []plan.Check{{Kind: plan.CheckTCP, Target: "db.shop:5432", Timeout: time.Second}}},
			{Name: "web", After: []string{"db"}, Needs: []string{"pay"}},
		},
		Outside: []plan.Outside{{Name: "pay", Probes: map[string]plan.Check{
			"east": {Kind: plan.CheckHTTP, Target: "https://pay.example.com/", Timeout: time.Second}, "west": {Kind: plan.CheckHTTP, Target: "https://pay.example.com/", Timeout: time.Second},
		}}},
		Steps: []plan.Step{
			{Name: "warm", Kind: plan.KindCommand, Timeout: time.Minute, Command: &plan.Command{Image: "registry.example.com/warm:3", Args: []string{"--all", "it's"}}, After: []string{"ready/web"}},
			{Name: "phone", Kind: plan.KindManual, Timeout: time.Hour, Prompt: "Call <b>the bank</b>", After: []string{"warm"}},
		},
		Traffic: []plan.Traffic{{Name: "www", Kind: plan.KindDNS, Object: "www.example.com", Record: &plan.Record{
			Zone: "example.com", Secret: "dns-key", Servers: []plan.NameServer{{Address: "ns1.example.com:5353"}},
			To: map[string][]string{"east": {"192.0.2.10"}, "west": {"198.51.100.10", "2001:db8::1"}},
		}}},
		Approvals: []plan.Approval{{Count: 2}},
		Fence:     plan.Fence{Timeout: 30 * time.Second},
	}
}

func book(t *testing.T, in runbook.Input) *runbook.Book {
	t.Helper()
	b, err := runbook.Make(in)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Every step of the run has its instructions: what to do or why, what to see, what else.
func TestEveryStepIsThere(t *testing.T) {
	for _, verb := range plan.Verbs() {
		p := shop()
		b := book(t, runbook.Input{Plan: p, Verb: verb, From: "east", To: "west"})
		g, err := p.Graph(verb)
		if err != nil {
			t.Fatal(err)
		}
		text := b.Markdown()
		for _, s := range g.Steps {
			if !strings.Contains(text, ". "+s.Name) {
				t.Errorf("%s: step %s is missing", verb, s.Name)
			}
		}
		for _, s := range b.Sections {
			for _, i := range s.Items {
				if i.See == "" || i.Otherwise == "" || i.Why == "" && len(i.Commands) == 0 {
					t.Errorf("%s: %+v", verb, i)
				}
			}
		}
	}
}

func TestWords(t *testing.T) {
	in := runbook.Input{
		Plan: shop(), Verb: plan.Failover, From: "east", To: "west", File: "plans/shop.yaml", Expect: "It takes a minute.",
		Findings: []preflight.Finding{{Check: "capacity", Verdict: preflight.Fail, Site: "west", Reason: "2 CPU too few", Remedy: "add nodes"}, {Check: "kinds", Verdict: preflight.OK, Reason: "all fine"}},
		Needs:    []preflight.Need{{Application: "db", Point: "db-1", Namespaces: []string{"shop"}}},
	}
	text := book(t, in).Markdown()
	for _, want := range []string{
		"davit failover -f plans/shop.yaml --to west", "It takes a minute.", "fail, capacity: @west", "To do: add nodes", "kubectl get pvc -n shop", "nc -z db.shop 5432",
		"update add www.example.com 30 A 198.51.100.10", "update add www.example.com 30 AAAA 2001:db8::1", "server ns1.example.com 5353", "Have 2 people approve",
		`--image=registry.example.com/warm:3 -- --all 'it'\''s'`, "https://pay.example.com/", "newest recovery point db-1",
	} {
		want = strings.Replace(want, "@west", "west", 1)
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in it:\n%s", want, text)
		}
	}
	if strings.Contains(text, "all fine") {
		t.Error("what is well needs no words")
	}
}

// TestWhatDavitCarriesOut: whoever has a run for the verb is told so first.
func TestWhatDavitCarriesOut(t *testing.T) {
	for verb, want := range map[plan.Verb]string{
		plan.Failover: "davit failover -f shop.yaml --to west", plan.Switchover: "davit switchover -f shop.yaml --to west",
		plan.Failback: "davit failback -f shop.yaml --to west", plan.Drill: "davit drill -f shop.yaml --to west",
	} {
		text := book(t, runbook.Input{Plan: shop(), Verb: verb, From: "east", To: "west"}).Markdown()
		if i := strings.Index(text, "## With davit: do this first"); i < 0 || !strings.Contains(text[i:], want) {
			t.Errorf("the book of a %s does not begin with %q", verb, want)
		}
		if strings.Contains(text, "runs commit") != verb.Moves() {
			t.Errorf("whether a %s is committed", verb)
		}
	}
	text := book(t, runbook.Input{Plan: shop(), Verb: plan.Restore, To: "west"}).Markdown()
	if !strings.Contains(text, "No run carries a restore of a plan out") || strings.Contains(text, "davit restore -f") {
		t.Error("the book of a restore has a run for it")
	}
	if strings.Contains(text, "from git") || !strings.Contains(text, "db is stopped at site west, where it is about to be replaced") || !strings.Contains(text, "davit restore db --take-over --existing exact") {
		t.Errorf("the book of a restore does not say what stops the application:\n%s", text)
	}
}

// TestByHand: what a person does in the place of a run's own steps. On real clusters the
// end-to-end test ByHand does it.
func TestByHand(t *testing.T) {
	p := shop()
	p.Applications[1].Name = "team.web"
	p.Steps = []plan.Step{
		{Name: "flux-off", Kind: plan.KindSuspend, Timeout: time.Minute, Object: "kustomizations.kustomize.toolkit.fluxcd.io/flux/shop", Before: []string{"quiesce/db"}, Side: plan.Source},
		{Name: "argo-on", Kind: plan.KindResume, Timeout: time.Minute, Object: "applications.argoproj.io/argocd/shop", After: []string{"ready/db"}, Side: plan.Target},
	}
	p.Traffic = []plan.Traffic{{Name: "front", Kind: plan.KindGate, Object: "www"}}
	text := book(t, runbook.Input{Plan: p, Verb: plan.Failback, From: "east", To: "west"}).Markdown()
	for _, want := range []string{
		"kubectl --kubeconfig FILE -n davit-system annotate applications.davit.dev db davit.dev/held-by=by-hand",
		"kubectl --kubeconfig FILE -n team wait applications.davit.dev web --for=jsonpath='{.status.rest.stopped}'=true",
		"kubectl --kubeconfig FILE -n team annotate applications.davit.dev web davit.dev/held-by-",
		"davit restore team.web --take-over --existing exact", `"metadata":{"namespace":"team","name":"team.web-$(date -u +%Y%m%d-%H%M%S)000-byhand"}`,
		"kubectl -n davit-system annotate applications.davit.dev db gate.davit.dev/www=open --overwrite", "kubectl -n team annotate applications.davit.dev web gate.davit.dev/www=open",
		`kubectl --kubeconfig FILE -n flux patch kustomizations.kustomize.toolkit.fluxcd.io shop --type=merge -p '{"spec":{"suspend":true}}'`,
		`kubectl -n argocd patch applications.argoproj.io shop --type=merge -p '{"metadata":{"annotations":{"argocd.argoproj.io/skip-reconcile":null}}}'`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in it:\n%s", want, text)
		}
	}
	// One that is started before what it needs is ready would have to be started again.
	if i, j := strings.Index(text, ". ready/db, after"), strings.Index(text, "\ndavit restore team.web"); i < 0 || j < i {
		t.Errorf("web is brought up before db is ready:\n%s", text)
	}
}

// What a plan says is text, never markup.
func TestNothingIsMarkup(t *testing.T) {
	p := shop()
	p.Steps[0].Command.Args = []string{"</pre><script>alert(1)</script>"}
	b := book(t, runbook.Input{Plan: p, Verb: plan.Failover, To: "west"})
	page := b.HTML()
	if strings.Contains(page, "<b>the bank") || strings.Contains(page, "<script") {
		t.Error("markup of the plan is in the page")
	}
	if !strings.Contains(page, "&lt;b&gt;the bank") {
		t.Error("the prompt is missing")
	}
	if strings.Contains(b.Markdown(), "<b>") {
		t.Error("markup of the plan is in the text")
	}
}

// TestInfrastructureByHand: each form has the commands of its own tool.
func TestInfrastructureByHand(t *testing.T) {
	p := shop()
	p.Steps = []plan.Step{
		{
			Name: "net", Kind: plan.KindInfra, Timeout: 20 * time.Minute, Before: []string{"data/db"}, Early: true,
			Terraform: &plan.Terraform{Image: "tf:1", ConfigMap: "net", Workspace: "west", Variables: map[string]string{"size": "it's"}, Backend: map[string]string{"key": "west"}, Secrets: []string{"cloud"}},
		},
		{Name: "nodes", Kind: plan.KindInfra, Timeout: 20 * time.Minute, Before: []string{"data/db"}, Early: true, ClusterAPI: &plan.ClusterAPI{
			Kubeconfig: "management", Scale: []plan.Machines{{Object: "machinedeployments.cluster.x-k8s.io/fleet/west", Replicas: 3}},
			Wait: []plan.Conditions{{Object: "clusters.cluster.x-k8s.io/fleet/west"}},
		}},
		{Name: "run", Kind: plan.KindInfra, Timeout: time.Minute, Before: []string{"data/db"}, Command: &plan.Command{Image: "registry.example.com/make:1"}, Early: true},
	}
	text := book(t, runbook.Input{Plan: p, Verb: plan.Failover, From: "east", To: "west"}).Markdown()
	for _, want := range []string{
		"ConfigMap net of davit-system", `export 'TF_VAR_size=it'\''s'`, "terraform init -input=false '-backend-config=key=west'", "workspace select -or-create=true 'west'", "terraform apply -input=false", "Secrets cloud",
		"Secret management", "kubectl --kubeconfig FILE -n fleet scale machinedeployments.cluster.x-k8s.io west --replicas=3", "wait clusters.cluster.x-k8s.io west --for=condition=Ready --timeout=20m0s",
		"--image=registry.example.com/make:1",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in it:\n%s", want, text)
		}
	}
}

func TestBadPlan(t *testing.T) {
	p := shop()
	p.Applications[1].After = []string{"gone"}
	if _, err := runbook.Make(runbook.Input{Plan: p, Verb: plan.Failover}); err == nil {
		t.Error("a plan with problems has a runbook")
	}
}

// TestACallByHand is the run's: Bash reads what is secret from where the run does. It is
// run with stand-ins, which say what they were given.
func TestACallByHand(t *testing.T) {
	p := shop()
	p.Steps = []plan.Step{{Name: "switch", Kind: plan.KindHTTP, Timeout: time.Minute, After: []string{"ready/web"}, Call: &plan.Call{
		Method: "POST", URL: "https://api.example.com/switch?to=west&now=1", Expect: 202, Body: `{"to": "it's west"}`, Headers: []plan.Header{
			{Name: "Accept", Value: "text/plain"}, {Name: "Authorization", Value: "Bearer ", From: &plan.SecretKey{Secret: "pool", Key: "api.token"}},
		},
	}}}
	text := book(t, runbook.Input{Plan: p, Verb: plan.Failover, From: "east", To: "west"}).Markdown()
	for _, want := range []string{"curl -sS", "kubectl -n davit-system get secret pool -o go-template='{{index .data \"api.token\" | base64decode}}'", "It prints 202.", "secret from pool of davit-system"} {
		if !strings.Contains(text, want) {
			t.Fatalf("%q is not in it:\n%s", want, text)
		}
	}
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash here")
	}
	i := strings.Index(text, "curl -sS")
	line, _, _ := strings.Cut(text[i:], "\n")
	const standIns = `kubectl() { [ "$*" = "-n davit-system get secret pool -o go-template={{index .data \"api.token\" | base64decode}}" ] && printf 'hunter2\n'; }
curl() { for a; do case $a in @/dev/fd/*) cat "${a#@}";; *) printf '%s\n' "$a";; esac; done; }
`
	out, err := exec.CommandContext(t.Context(), bash, "-c", standIns+line).CombinedOutput()
	want := "-sS\n-o\n/dev/null\n-w\n%{http_code}\\n\n-X\nPOST\n-H\nAccept: text/plain\n-H\nAuthorization: Bearer hunter2\n-H\nContent-Type:\n--data-raw\n{\"to\": \"it's west\"}\nhttps://api.example.com/switch?to=west&now=1\n"
	if err != nil || string(out) != want {
		t.Errorf("%v: %q, want %q", err, out, want)
	}
}

// TestANameByHand: Bash hands the key to nsupdate from where the run reads it, and the page does not
// have it. The servers are asked once the name was moved.
func TestANameByHand(t *testing.T) {
	text := book(t, runbook.Input{Plan: shop(), Verb: plan.Failover, From: "east", To: "west"}).Markdown()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash here")
	}
	_, rest, found := strings.Cut(text, "nsupdate ")
	commands, _, _ := strings.Cut(rest, "\n```")
	if !found || strings.Contains(text, "KEYFILE") {
		t.Fatalf("nobody is told how nsupdate gets its key:\n%s", text)
	}
	const standIns = `kubectl() { [ "${*:1:6}" = "-n davit-system get secret dns-key -o" ] && printf 'KEY\n'; }
nsupdate() { echo "$1 $(cat "$2")"; cat; }
dig() { echo "dig $*"; }
`
	out, err := exec.CommandContext(t.Context(), bash, "-c", standIns+"nsupdate "+commands).CombinedOutput()
	want := "-k KEY\nserver ns1.example.com 5353\nzone example.com\nupdate delete www.example.com A\nupdate delete www.example.com AAAA\nupdate delete www.example.com CNAME\n" +
		"update add www.example.com 30 A 198.51.100.10\nupdate add www.example.com 30 AAAA 2001:db8::1\nsend\ndig +short @ns1.example.com -p 5353 www.example.com\n"
	if err != nil || string(out) != want {
		t.Errorf("%v: %q, want %q", err, out, want)
	}
}

// TestACallToASecretURLByHand goes where the run's goes, and neither the page nor the list
// of processes says where.
func TestACallToASecretURLByHand(t *testing.T) {
	p := shop()
	p.Steps = []plan.Step{{Name: "tell", Kind: plan.KindHTTP, Timeout: time.Minute, After: []string{"ready/web"}, Call: &plan.Call{
		Method: "GET", URLFrom: &plan.SecretKey{Secret: "pool", Key: "url"}, Expect: 200,
	}}}
	text := book(t, runbook.Input{Plan: p, Verb: plan.Failover, From: "east", To: "west"}).Markdown()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash here")
	}
	i := strings.Index(text, "curl -sS")
	line, _, _ := strings.Cut(text[i:], "\n")
	const standIns = `kubectl() { [ "$*" = "-n davit-system get secret pool -o go-template={{index .data \"url\" | base64decode}}" ] && printf 'https://hooks.example.com/hunter2\n'; }
curl() { for a; do case $a in *hunter2*) echo told;; /dev/fd/*) cat "$a";; *) printf '%s\n' "$a";; esac; done; }
`
	out, err := exec.CommandContext(t.Context(), bash, "-c", standIns+line).CombinedOutput()
	want := "-sS\n-o\n/dev/null\n-w\n%{http_code}\\n\n-X\nGET\n-K\nurl = \"https://hooks.example.com/hunter2\"\n"
	if err != nil || string(out) != want {
		t.Errorf("%v: %q, want %q", err, out, want)
	}
}

// What a plan asks databases and containers is asked by hand in the same place, with the same words.
func TestProbesByHand(t *testing.T) {
	p := shop()
	p.Applications[0].Probes = []plan.Check{
		{Kind: plan.CheckSQL, Target: "postgres://shop@db.back/orders", Query: "SELECT count(*) > 0 FROM orders", Expect: "t", Timeout: time.Second},
		{Kind: plan.CheckSQL, Target: "mariadb://db.back/orders", Timeout: time.Second},
		{Kind: plan.CheckHTTP, Target: "http://web.front/?a=1&b=2", Expect: "^up\nrm -r everything", Timeout: time.Second},
		{Kind: plan.CheckCommand, Target: "back/app=db", Command: []string{"cat", "/data/my file"}, Container: "pg", Timeout: time.Second},
	}
	text := book(t, runbook.Input{Plan: p, Verb: plan.Failover, From: "east", To: "west"}).Markdown()
	for _, want := range []string{
		"kubectl -n back exec -it svc/db -- psql -U shop -d orders -c 'SELECT count(*) > 0 FROM orders'    # the answer matches: t",
		"kubectl -n back exec -it svc/db -- mariadb -u root -p -D orders -e 'SELECT 1'\n",
		"kubectl -n back exec -it -c pg $(kubectl -n back get pod -l app=db -o name | head -n 1) -- cat '/data/my file'",
		"curl -fsS --max-time 10 'http://web.front/?a=1&b=2'    # from a pod at site west, if it is a Service    # the answer matches: ^up\\nrm -r everything",
		"make sure first that nothing of it runs there, as the step fence/db says",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the book lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "\nrm ") {
		t.Errorf("what an answer should match became a command:\n%s", text)
	}
}
