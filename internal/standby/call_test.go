package standby

import (
	"context"
	"fmt"
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

// TestAnHTTPStep: what was answered decides; what was not asked at all was not done, and
// what was asked and not answered nobody knows.
func TestAnHTTPStep(t *testing.T) {
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		switch r.URL.Path {
		case "/switch":
			if r.Method != http.MethodPost || r.Header.Get("Authorization") != "Bearer token-of-the-step" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			w.WriteHeader(http.StatusAccepted)
		case "/moved": // to follow it would be a call that nobody wrote down
			http.Redirect(w, r, "/switch", http.StatusTemporaryRedirect)
		case "/broken":
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprintln(w, "the pool is busy"+strings.Repeat(".", 1000))
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

	for _, tc := range []struct {
		name, url string
		want      failover.Outcome
		note      string
		asked     int64
	}{
		{"it succeeds", server.URL + "/switch", failover.Done, "", 1},
		{"it fails", server.URL + "/broken", failover.Refused, "status 500, not 202: the pool is busy", 1},
		{"it is sent elsewhere", server.URL + "/moved", failover.Refused, "status 307, not 202", 1},
		{"nobody listens", closed.URL, failover.Refused, "refused", 0},
		{"the answer is lost", server.URL + "/cut", failover.NoAnswer, "EOF", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			asked.Store(0)
			s := New(Options{Recovery: recovery.Deps{Cluster: newMemory(t)}})
			step := plan.Step{Name: "switch", Kind: plan.KindHTTP, Timeout: time.Minute, Call: &plan.Call{
				Method: http.MethodPost, URL: tc.url, Expect: http.StatusAccepted, Header: map[string]string{"Authorization": "Bearer token-of-the-step"},
			}}
			got := s.call(t.Context(), execute.Order{Action: failover.Act, Run: "r", Step: step})
			if got.Outcome != tc.want || !strings.Contains(got.Note, tc.note) || asked.Load() != tc.asked || len(got.Note) > 400 {
				t.Errorf("asked %d times: %+v", asked.Load(), got)
			}
			if strings.Contains(got.Note, "token-of-the-step") {
				t.Errorf("the journal would hold the token: %q", got.Note)
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
	for path, want := range map[string]failover.Outcome{"/": failover.Done, "/cut": failover.NoAnswer} {
		asked.Store(0)
		s := New(Options{Recovery: recovery.Deps{Cluster: newMemory(t)}})
		o := execute.Order{
			Action: failover.Act, Run: "r", Verb: plan.Failover, Token: failover.Token{Run: "r", Sequence: 1},
			Step: plan.Step{Name: "switch", Kind: plan.KindHTTP, Timeout: time.Minute, Call: &plan.Call{Method: http.MethodPost, URL: server.URL + path, Expect: http.StatusOK}},
		}
		act := s.Kinds()[plan.KindHTTP].Do(t.Context(), o)
		o.Action, o.Token.Sequence = failover.Look, 2
		look := s.Kinds()[plan.KindHTTP].Do(t.Context(), o)
		if act.Outcome != want || look.Outcome != want || asked.Load() != 1 {
			t.Errorf("%s: act %+v, look %+v, asked %d times", path, act, look, asked.Load())
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
		got := s.command(t.Context(), execute.Order{
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
