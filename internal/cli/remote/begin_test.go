package remote_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/cli"
	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/begin"
	"davit.dev/davit/internal/console/client"
)

// asks is a console that answers all that it is asked for in the same way, and
// notes it.
type asks struct {
	t   *testing.T
	url string

	mu    sync.Mutex
	code  int
	says  any
	paths []string
	heard []api.NewRun
	raw   []string // what was sent
}

func newAsks(t *testing.T) *asks {
	t.Helper()
	a := &asks{t: t}
	server := httptest.NewTLSServer(a)
	t.Cleanup(server.Close)
	a.url = server.URL
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	text, err := json.Marshal(map[string]any{"consoles": []map[string]string{{"url": a.url, "ca": string(ca), "name": "user/rita", "project": "acme", "token": "davit_session_x"}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "consoles.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DAVIT_CONSOLES", file)
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	return a
}

func (a *asks) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var in api.NewRun
	text, err := io.ReadAll(r.Body)
	if err == nil && r.Method == http.MethodPost {
		err = json.Unmarshal(text, &in)
	}
	a.raw = append(a.raw, string(text))
	if err != nil || r.Header.Get("Authorization") != "Bearer davit_session_x" {
		a.t.Errorf("%s: %v", r.URL.Path, err)
	}
	a.paths, a.heard = append(a.paths, r.Method+" "+r.URL.Path), append(a.heard, in)
	w.WriteHeader(a.code)
	_ = json.NewEncoder(w).Encode(a.says)
}

func (a *asks) answer(code int, says any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.code, a.says, a.paths, a.heard, a.raw = code, says, nil, nil, nil
}

func (a *asks) asked() (paths []string, heard []api.NewRun) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.paths, a.heard
}

// want runs davit at the console.
func (a *asks) want(code int, input, args string, says ...string) {
	a.t.Helper()
	var out, errs bytes.Buffer
	got := cli.Main(append([]string{"davit", "--console", a.url}, strings.Fields(args)...), cli.Streams{In: strings.NewReader(input), Out: &out, Err: &errs})
	all := out.String() + errs.String()
	if got != code {
		a.t.Errorf("%s ends with %d, want %d:\n%s", args, got, code, all)
	}
	for _, word := range says {
		if !strings.Contains(all, word) {
			a.t.Errorf("%s does not say %q:\n%s", args, word, all)
		}
	}
}

func shown(verb, state, why, do string) begin.Shown {
	return begin.Shown{ID: "id", Plan: "shop", Verb: "drill", To: "west", Run: "shop-" + verb + "-1", By: "rita@console/acme", State: state, Why: why, Do: do}
}

// What is given on the command line is what the console is asked for.
func TestBeginAsks(t *testing.T) {
	a := newAsks(t)
	a.answer(http.StatusCreated, shown("drill", "created", "", ""))
	a.want(0, "", "drill shop --to west --reason practice --point shop=p1", "Site west has begun run shop-drill-1")
	a.want(0, "", "drill shop --project other -o json", `"state": "created"`, `"run": "shop-drill-1"`)
	a.want(0, "", "failover shop --to west --lost east,north --accept-asked --as-of 2026-11-27T04:00:00Z --yes", "has begun run")
	a.want(0, "shop\n", "switchover shop", "Type the plan's name, shop")
	a.want(0, "shop\n", "failback shop --background", "has begun run")
	paths, heard := a.asked()
	const path = "POST /api/v1/projects/acme/plans/shop/runs"
	if want := []string{path, strings.Replace(path, "acme", "other", 1), path, path, path}; !slices.Equal(paths, want) {
		t.Errorf("%q, want %q", paths, want)
	}
	ids := map[string]bool{}
	for i := range heard {
		ids[heard[i].ID] = true
		heard[i].ID = ""
	}
	want := []api.NewRun{
		{Verb: "drill", To: "west", Reason: "practice", Points: map[string]string{"shop": "p1"}},
		{Verb: "drill"},
		{Verb: "failover", To: "west", Lost: []string{"east", "north"}, AcceptAsked: true, AsOf: time.Date(2026, 11, 27, 4, 0, 0, 0, time.UTC)},
		{Verb: "switchover"},
		{Verb: "failback"},
	}
	if !reflect.DeepEqual(heard, want) {
		t.Errorf("%+v, want %+v", heard, want)
	}
	if len(ids) != len(heard) || ids[""] {
		t.Errorf("ids: %v", ids)
	}
}

// What is not confirmed or means nothing at a console is not asked for.
func TestBeginAsksNothing(t *testing.T) {
	a := newAsks(t)
	a.answer(http.StatusCreated, shown("drill", "created", "", ""))
	a.want(3, "", "failover shop", "not confirmed")
	a.want(3, "shopp\n", "switchover shop", "not confirmed")
	a.want(2, "", "drill", "takes one PLAN")
	a.want(2, "", "drill shop wiki", "takes")
	a.want(2, "", "failover shop --dry-run", "--dry-run means nothing at a console")
	a.want(2, "", "drill shop --sweep", "--sweep means nothing")
	a.want(2, "", "switchover shop --despite capacity --yes", "--despite means nothing")
	a.want(2, "", "failover shop --install --image x/davit:1 --yes", "--install means nothing")
	a.want(2, "", "failover -f plan.yaml", "PLAN")
	a.want(2, "", "failover shop --vault-url s3://b/p", "--vault-url means nothing")
	a.want(2, "", "failover shop --as-of yesterday --yes", "is not a time")
	a.want(2, "", "runs take-over shop-drill-1", "not at a console")
	var out, errs bytes.Buffer // without --console it is for a cluster, of which there is none here
	if got := cli.Main([]string{"davit", "failover", "shop", "--yes"}, cli.Streams{In: strings.NewReader(""), Out: &out, Err: &errs}); got == 0 {
		t.Errorf("%s%s", &out, &errs)
	}
	if paths, _ := a.asked(); len(paths) > 0 {
		t.Errorf("the console was asked: %v", paths)
	}
}

// How it ends says what became of it.
func TestBeginAnswers(t *testing.T) {
	a := newAsks(t)
	a.answer(http.StatusCreated, shown("drill", "refused", "another run is under way", "wait for it"))
	a.want(3, "", "drill shop", "site west refuses: another run is under way", "wait for it")
	a.answer(http.StatusCreated, shown("drill", "asked", "the site's agent has not answered yet", ""))
	a.want(1, "", "drill shop", "site west has not answered about run shop-drill-1", "the plan's page")
	a.answer(http.StatusConflict, client.Error{Code: http.StatusConflict, Reason: "Conflict", Message: "run shop-failover-1 of plan shop is under way"})
	a.want(3, "", "drill shop", "is under way", "what is under way")
	a.answer(http.StatusNotFound, client.Error{Code: http.StatusNotFound, Message: "find plan shop: not found"})
	a.want(3, "", "drill shop", "find plan shop", "the page Plans")
	a.answer(http.StatusForbidden, client.Error{Code: http.StatusForbidden, Message: "that takes the permission recover"})
	a.want(3, "", "failover shop --yes", "permission recover", "whoami")
	if paths, _ := a.asked(); len(paths) != 1 {
		t.Errorf("asked again: %v", paths)
	}
}

// What git and people make at sites is shown with its site and its maker.
func TestGetAtSites(t *testing.T) {
	a := newAsks(t)
	o := api.Object{APIVersion: "davit.dev/v1alpha1", Kind: "ProtectionPolicy", Spec: json.RawMessage(`{"schedule":{"every":"7h"}}`)}
	o.Metadata.Name, o.Metadata.Namespace = "hourly", "davit-system"
	o.Metadata.Annotations = map[string]string{api.AnnotationAt: "east", api.AnnotationMadeBy: "Argo CD application shops from git"}
	a.answer(http.StatusOK, api.List{Items: []api.Object{o}})
	a.want(0, "", "get policies --site east", "SITE", "MADE BY", "east", "Argo CD application shops from git", "hourly", "7h")
	a.answer(http.StatusOK, o)
	a.want(0, "", "get policy hourly --site * -o yaml", "davit.dev/at-site: east", "every: 7h")
	a.answer(http.StatusNotFound, client.Error{Code: http.StatusNotFound, Message: "not found"})
	a.want(3, "", "get policy hourly", "not found")
	if paths, _ := a.asked(); len(paths) != 2 { // the second time at the sites
		t.Errorf("asked for %v", paths)
	}
}
