package standby

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/restore/shape"
)

// pool is a Secret with what a call needs; its token ends a line, as files do.
var pool = `{"apiVersion":"v1","kind":"Secret","metadata":{"namespace":"davit-system","name":"pool"},"data":{"token":"` +
	base64.StdEncoding.EncodeToString([]byte("token-of-the-step\n")) + `","body":"` + base64.StdEncoding.EncodeToString([]byte(`{"key":"routing-key-1"}`)) +
	`","pem":"` + base64.StdEncoding.EncodeToString([]byte("one line\ntwo lines\n")) + `"}}`

// TestAnHTTPStep: what was answered decides; what was not asked at all was not done, and
// what was asked and not answered nobody knows. What the call takes from a Secret arrives, and
// nothing that is kept has it, though the server says it all.
func TestAnHTTPStep(t *testing.T) {
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		body, _ := io.ReadAll(r.Body)
		said := fmt.Sprintln(r.Header.Get("Authorization"), string(body), strings.Repeat(".", 1000))
		switch r.URL.Path {
		case "/switch":
			if r.Method != http.MethodPost || r.Header.Get("Authorization") != "Bearer token-of-the-step" || r.Header.Get("Content-Type") != "application/json" || !strings.HasPrefix(string(body), `{"`) {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			w.WriteHeader(http.StatusAccepted)
			fmt.Fprintln(w, said)
		case "/moved": // to follow it would be a call that nobody wrote down
			http.Redirect(w, r, "/switch", http.StatusTemporaryRedirect)
		case "/broken":
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprintln(w, "the pool is busy", said)
		case "/cut":
			c, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = c.Close()
			}
		}
	}))
	defer server.Close()
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	stranger := httptest.NewUnstartedServer(server.Config.Handler)
	stranger.Config.ErrorLog = log.New(io.Discard, "", 0) // of the handshake
	stranger.StartTLS()
	defer stranger.Close()

	from := func(key string) *plan.SecretKey { return &plan.SecretKey{Secret: "pool", Key: key} }
	for _, tc := range []struct {
		name, url  string
		token      *plan.SecretKey
		body       string // empty: from the Secret
		want       failover.Outcome
		note, said string
		asked      int64
	}{
		{"it succeeds", server.URL + "/switch", from("token"), `{"to":"west"}`, failover.Done, "", `status 202` + "\n" + `Bearer *** {"to":"west"} ...`, 1},
		{"it is all secret", server.URL + "/switch", from("token"), "", failover.Done, "", "status 202\nBearer *** *** ...", 1},
		{"it fails", server.URL + "/broken", from("token"), "", failover.Refused, "status 500, not 202: the pool is busy Bearer *** *** ...", "status 500\nthe pool", 1},
		{"it is sent elsewhere", server.URL + "/moved", from("token"), "x", failover.Refused, "status 307, not 202", "status 307", 1},
		{"nobody listens", closed.URL, from("token"), "x", failover.Refused, "refused", "", 0},
		{"nobody vouches for who listens", stranger.URL + "/switch", from("token"), "x", failover.Refused, "failed to verify certificate", "", 0},
		{"the answer is lost", server.URL + "/cut", from("token"), "x", failover.NoAnswer, "EOF", "", 1},
		{"there is no Secret", server.URL + "/switch", &plan.SecretKey{Secret: "gone", Key: "token"}, "x", failover.Refused, "was not sent: read Secret davit-system/gone", "", 0},
		{"it has no such key", server.URL + "/switch", from("tokn"), "x", failover.Refused, "was not sent: Secret davit-system/pool has no key tokn", "", 0},
		{"no header can say it", server.URL + "/switch", from("pem"), "x", failover.Refused, "key pem of Secret pool has more than one line", "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			asked.Store(0)
			s := New(Options{Recovery: recovery.Deps{Cluster: newMemory(t, pool)}})
			step := plan.Step{Name: "switch", Kind: plan.KindHTTP, Timeout: time.Minute, Call: &plan.Call{
				Method: http.MethodPost, URL: tc.url, Expect: http.StatusAccepted, Body: tc.body,
				Headers: []plan.Header{{Name: "content-type", Value: "application/json"}, {Name: "Authorization", Value: "Bearer ", From: tc.token}},
			}}
			if tc.body == "" {
				step.Call.BodyFrom = from("body")
			}
			got := s.Kinds()[plan.KindHTTP].Do(t.Context(), execute.Order{Action: failover.Act, Run: "r", Token: failover.Token{Run: "r", Sequence: 1}, Step: step})
			if got.Outcome != tc.want || !strings.Contains(got.Note, tc.note) || !strings.HasPrefix(got.Said, tc.said) || asked.Load() != tc.asked || len(got.Note) > 400 {
				t.Errorf("asked %d times: %+v", asked.Load(), got)
			}
			for _, secret := range []string{"token-of-the-step", "routing-key-1", "two lines"} {
				if strings.Contains(got.Note+got.Said, secret) {
					t.Errorf("the journal would hold %q: %+v", secret, got)
				}
			}
		})
	}
}

// TestASecretURLIsToldNowhere: who knows the address of a webhook may call it. Neither what
// the step says nor why it failed has it, or its path, however it is told by those who
// listen there or by what finds nobody.
func TestASecretURLIsToldNowhere(t *testing.T) {
	const path = "/hooks/T0/planted+path?key=planted-key"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "no %s, nor %s, at %s", r.URL.RequestURI(), r.URL.Path, "http://"+r.Host+r.RequestURI)
	}))
	defer server.Close()
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	for _, tc := range []struct {
		name, url, key string
		expect         int
		want           failover.Outcome
		note           string
	}{
		{"it succeeds", server.URL + path, "url", http.StatusTeapot, failover.Done, ""},
		{"it fails", server.URL + path, "url", http.StatusOK, failover.Refused, "POST the url of key url of Secret pool: status 418, not 200: no ***"},
		{"nobody listens", closed.URL + path, "url", http.StatusOK, failover.Refused, "refused"},
		{"it is none", "planted-key and no url", "url", http.StatusOK, failover.Refused, "was not sent: what key url of Secret pool has is no url: it cannot be called"},
		{"it cannot be parsed", "http://planted-key:%zz/", "url", http.StatusOK, failover.Refused, "is no url"},
		{"there is no such key", server.URL + path, "uri", http.StatusOK, failover.Refused, "has no key uri"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pool := fmt.Sprintf(`{"apiVersion":"v1","kind":"Secret","metadata":{"namespace":"davit-system","name":"pool"},"data":{"url":%q}}`, base64.StdEncoding.EncodeToString([]byte(tc.url+"\n")))
			s := New(Options{Recovery: recovery.Deps{Cluster: newMemory(t, pool)}})
			got := s.Kinds()[plan.KindHTTP].Do(t.Context(), execute.Order{Action: failover.Act, Run: "r", Token: failover.Token{Run: "r", Sequence: 1}, Step: plan.Step{
				Name: "tell", Kind: plan.KindHTTP, Timeout: time.Minute,
				Call: &plan.Call{Method: http.MethodPost, URLFrom: &plan.SecretKey{Secret: "pool", Key: tc.key}, Expect: tc.expect},
			}})
			if got.Outcome != tc.want || !strings.Contains(got.Note, tc.note) {
				t.Errorf("%+v", got)
			}
			if strings.Contains(got.Note+got.Said, "planted") {
				t.Errorf("the journal would hold it: %+v", got)
			}
		})
	}
}

// TestAnHTTPStepIsNotMadeTwice: nobody can see from outside whether a call was made. A
// look says so of one whose answer was lost, and that one that was answered is done.
func TestAnHTTPStepIsNotMadeTwice(t *testing.T) {
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.URL.Path == "/cut" {
			panic(http.ErrAbortHandler)
		}
	}))
	defer server.Close()
	for _, tc := range []struct {
		method, path string
		want         failover.Outcome
	}{
		{http.MethodPost, "/", failover.Done},
		{http.MethodPost, "/cut", failover.NoAnswer},
		{http.MethodGet, "/", failover.Done},
		{http.MethodGet, "/cut", failover.NoAnswer}, // on the connection of the one before, Go would ask again
	} {
		asked.Store(0)
		s := New(Options{Recovery: recovery.Deps{Cluster: newMemory(t)}})
		o := execute.Order{
			Action: failover.Act, Run: "r", Verb: plan.Failover, Token: failover.Token{Run: "r", Sequence: 1},
			Step: plan.Step{Name: "switch", Kind: plan.KindHTTP, Timeout: time.Minute, Call: &plan.Call{Method: tc.method, URL: server.URL + tc.path, Expect: http.StatusOK}},
		}
		act := s.Kinds()[plan.KindHTTP].Do(t.Context(), o)
		o.Action, o.Token.Sequence = failover.Look, 2
		look := s.Kinds()[plan.KindHTTP].Do(t.Context(), o)
		if act.Outcome != tc.want || look.Outcome != tc.want || asked.Load() != 1 {
			t.Errorf("%s %s: act %+v, look %+v, asked %d times", tc.method, tc.path, act, look, asked.Load())
		}
	}
}

// TestACommandsSecretsStayWhereTheyAre: its pod takes them from the Secrets that the plan
// names, in Davit's namespace. Neither the Job nor what is told of it holds a value.
func TestACommandsSecretsStayWhereTheyAre(t *testing.T) {
	for end, want := range map[string]failover.Outcome{"Complete": failover.Done, "Failed": failover.Refused} {
		m := newMemory(t, `{"apiVersion":"v1","kind":"Secret","metadata":{"namespace":"davit-system","name":"cloud"},"data":{"PASSWORD":"aHVudGVyMg=="}}`,
			`{"apiVersion":"v1","kind":"Secret","metadata":{"namespace":"davit-system","name":"more"}}`)
		m.changed = func(u *unstructured.Unstructured) {
			if u.GetKind() == "Job" {
				_ = unstructured.SetNestedSlice(u.Object, []any{map[string]any{"type": end, "status": "True"}}, "status", "conditions")
			}
		}
		s := New(Options{
			Recovery: recovery.Deps{Cluster: m},
			JobLog:   func(context.Context, string, string) (string, error) { return "no such zone\n", nil },
		})
		got := commands(t.Context(), s, execute.Order{
			Action: failover.Act, Run: "r", Verb: plan.Failover, From: "east", To: "west", Token: failover.Token{Run: "r", Sequence: 7},
			Step: plan.Step{Name: "zone", Kind: plan.KindCommand, Timeout: time.Minute, Command: &plan.Command{
				Image: "registry.example.com/zone:1", Args: []string{"--move"}, Env: map[string]string{"ZONE": "example.com"}, Secrets: []string{"cloud", "more"},
			}},
		})
		if got.Outcome != want || (want == failover.Refused) != strings.Contains(got.Note, "no such zone") {
			t.Errorf("%s: %+v", end, got)
		}
		var job *unstructured.Unstructured
		for key, u := range m.objects {
			if u.GetKind() == "Job" {
				job = u
			} else if u.GetName() != "cloud" && u.GetName() != "more" {
				t.Errorf("%s was made", key)
			}
		}
		if job == nil || job.GetNamespace() != "davit-system" {
			t.Fatalf("%s: no Job in davit-system", end)
		}
		container := shape.Items(job.Object, "spec", "template", "spec", "containers")[0]
		var from []string
		for _, e := range shape.Items(container, "envFrom") {
			from = append(from, shape.Text(e, "secretRef", "name"))
		}
		env := map[string]string{}
		for _, e := range shape.Items(container, "env") {
			env[shape.Text(e, "name")] = shape.Text(e, "value")
		}
		if strings.Join(from, " ") != "cloud more" || env["ZONE"] != "example.com" || env["DAVIT_RUN"] != "r" || env["DAVIT_TO"] != "west" {
			t.Errorf("%s: secrets %q, env %q", end, from, env)
		}
		text, err := job.MarshalJSON()
		if err != nil || strings.Contains(string(text), "hunter2") || strings.Contains(string(text), "aHVudGVyMg") || strings.Contains(got.Note, "hunter2") {
			t.Errorf("%s: a secret is out: %v", end, err)
		}
	}
}
