package remote

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/console/begin"
	"davit.dev/davit/internal/console/client"
)

// An answer that may have been lost is asked for again, a few times; any other is
// the answer.
func TestInsist(t *testing.T) {
	gone, full := errors.Join(client.ErrUnreachable), &client.Error{Code: http.StatusGatewayTimeout}
	for name, test := range map[string]struct {
		answers []error
		want    error
		hint    string
	}{
		"at once":      {[]error{nil}, nil, ""},
		"at last":      {[]error{gone, full, nil}, nil, ""},
		"never":        {[]error{gone, gone, full, nil}, full, "may have been asked for"},
		"refused":      {[]error{&client.Error{Code: http.StatusConflict}, nil}, &client.Error{Code: http.StatusConflict}, "under way"},
		"not trusted":  {[]error{errors.Join(client.ErrTrust, client.ErrUnreachable), nil}, client.ErrTrust, "--ca-file"},
		"no such plan": {[]error{gone, &client.Error{Code: http.StatusNotFound}}, &client.Error{Code: http.StatusNotFound}, "the page Plans"},
	} {
		tried := 0
		_, err := insist(t.Context(), 0, func() (begin.Shown, error) {
			tried++
			return begin.Shown{}, test.answers[tried-1]
		})
		if (err == nil) != (test.want == nil) || err != nil && !errors.Is(err, test.want) && err.Error() != test.want.Error() {
			t.Errorf("%s: %v after %d", name, err, tried)
		}
		var said *exit.Error
		if err != nil && (!errors.As(Host{}.unasked(err), &said) || !strings.Contains(said.Hint, test.hint)) {
			t.Errorf("%s: %+v", name, said)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(exit.ErrInterrupted)
	if _, err := insist(ctx, 1<<62, func() (begin.Shown, error) { return begin.Shown{}, gone }); !errors.Is(err, exit.ErrInterrupted) {
		t.Errorf("told to stop: %v", err)
	}
}

func TestTargets(t *testing.T) {
	for text, want := range map[string]string{
		"applications":                 "application.davit.dev/@",
		"app,plans":                    "application.davit.dev/@ recoveryplan.davit.dev/@",
		"Policy hourly daily":          "protectionpolicy.davit.dev/hourly@davit-system protectionpolicy.davit.dev/daily@davit-system",
		"app/shop plan.davit.dev/move": "application.davit.dev/shop@davit-system recoveryplan.davit.dev/move@",
	} {
		all, err := targets(strings.Fields(text), "")
		var got []string
		for _, t := range all {
			got = append(got, t.String()+"@"+t.namespace)
		}
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %v, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "pods", "app/", "app/shop policy", "app shop plan/x", "app/shop pods/x"} {
		if all, err := targets(strings.Fields(text), ""); exit.Code(err) != exit.BadUsage {
			t.Errorf("%q: %v, %v", text, all, err)
		}
	}
}

func TestCompare(t *testing.T) {
	lines := func(text string) string { return strings.ReplaceAll(text, " ", "\n") + "\n" }
	for _, c := range []struct{ old, now, want string }{
		{"a b c", "a b c", ""},
		{"a b c", "a x c", "@@ -1,3 +1,3 @@  a -b +x  c"},
		{"a b c d", "b c x d", "@@ -1,4 +1,4 @@ -a  b  c +x  d"},
		{"1 2 3 4 5 a 6 7 8 9 10 11 12 b 13", "1 2 3 4 5 A 6 7 8 9 10 11 12 B 13", "@@ -3,7 +3,7 @@  3  4  5 -a +A  6  7  8 @@ -11,5 +11,5 @@  10  11  12 -b +B  13"},
	} {
		if got := strings.Join(compare(lines(c.old), lines(c.now)), " "); got != c.want {
			t.Errorf("%q to %q: %q, want %q", c.old, c.now, got, c.want)
		}
	}
	if got := strings.Join(compare("", "a\nb\n"), " "); got != "@@ -0,0 +1,2 @@ +a +b" {
		t.Errorf("of nothing: %q", got)
	}
}

func FuzzDocuments(f *testing.F) {
	f.Add([]byte("# none\n---\napiVersion: davit.dev/v1alpha1\nkind: Application\nmetadata: {name: shop}\n---\n"))
	f.Add([]byte(`{"kind":"List","items":[{"apiVersion":"davit.dev/v1alpha1","kind":"RecoveryPlan","metadata":{"name":"x","resourceVersion":"7"}}]}`))
	f.Add([]byte("a: b\na: c\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := split(text, "file")
		for _, g := range all {
			if err != nil || g.name == "" || g.kind == nil || g.kind.Namespaced != (g.namespace != "") {
				t.Errorf("%+v, %v", g, err)
			}
			c := change{given: g}
			if _, err := c.at("7"); err != nil {
				t.Errorf("%s: %v", g.text, err)
			}
		}
	})
}

func FuzzBook(f *testing.F) {
	f.Add([]byte(`{"consoles":[{"url":"https://c:8443","token":"davit_session_planted"}]}`))
	f.Add([]byte(`{"consoles":[{"url":"http://c"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		b := &book{path: "file"}
		err := b.parse(text)
		if err != nil && strings.Contains(err.Error(), "planted") {
			t.Errorf("%v", err)
		}
		if err != nil {
			return
		}
		for _, e := range b.Consoles {
			if _, err := b.find(e.URL); err != nil {
				t.Errorf("%s: %v", e.URL, err)
			}
		}
	})
}
