package client

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/store"
)

// fake is a server with a handler, and the trust in it.
func fake(t *testing.T, h http.HandlerFunc) (*httptest.Server, Trust) {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	return s, Trust{CA: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))}
}

func newClient(t *testing.T, url, token string, trust Trust) *Client {
	t.Helper()
	c, err := New(url, token, trust)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestAddresses(t *testing.T) {
	for _, bad := range []string{"", "console", "http://c:1", "https://", "https://u:p@c", "https://c/x", "https://c?x=1", "https://c#x", "https://c:port"} {
		if _, err := New(bad, "", Trust{}); err == nil {
			t.Errorf("New(%q) was taken", bad)
		}
	}
}

// A console is only spoken to when what a person pinned vouches for it, and for the
// name by which it was called.
func TestTrust(t *testing.T) {
	asked := 0
	s, ca := fake(t, func(w http.ResponseWriter, _ *http.Request) { asked++; fmt.Fprint(w, `{"name":"anna"}`) })
	pin := PinOf(s.Certificate())
	found := ""
	for name, c := range map[string]struct {
		url   string
		trust Trust
		ok    bool
	}{
		"nobody's":            {s.URL, Trust{}, false},
		"its CA":              {s.URL, ca, true},
		"its pin":             {s.URL, Trust{Pin: pin, Pinned: func(ca string) { found = ca }}, true},
		"another pin":         {s.URL, Trust{Pin: strings.Repeat("0", 64)}, false},
		"its pin, other name": {strings.Replace(s.URL, "127.0.0.1", "localhost", 1), Trust{Pin: pin}, false},
	} {
		before := asked
		_, err := newClient(t, c.url, "secret", c.trust).Whoami(t.Context())
		if (err == nil) != c.ok || !c.ok && !errors.Is(err, ErrTrust) || c.ok != (asked > before) {
			t.Errorf("%s: %v, asked %t", name, err, asked > before)
		}
	}
	if found != ca.CA {
		t.Errorf("the pin found %q", found)
	}
	if _, err := newClient(t, s.URL, "", Trust{}).Whoami(t.Context()); err == nil || !strings.Contains(err.Error(), pin) {
		t.Errorf("the fingerprint is not said: %v", err)
	}
}

func TestPins(t *testing.T) {
	want := strings.Repeat("ab", 32)
	for _, text := range []string{want, strings.ToUpper(want), "sha256:" + want, "SHA256:" + strings.TrimSuffix(strings.Repeat("AB:", 32), ":"), " " + want + "\n"} {
		if got, err := ParsePin(text); err != nil || got != want {
			t.Errorf("ParsePin(%q) = %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "ab", want + "ab", strings.Repeat("xy", 32)} {
		if _, err := ParsePin(text); err == nil {
			t.Errorf("ParsePin(%q) was taken", text)
		}
	}
}

// A token goes to nobody to whom the console redirects, and what is no console's
// answer is no success.
func TestAnswersOfOthers(t *testing.T) {
	other, _ := fake(t, func(http.ResponseWriter, *http.Request) { t.Error("the redirection was followed") })
	answers := map[string]http.HandlerFunc{
		"307": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		},
		"502": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<html>bad gateway", http.StatusBadGateway)
		},
		"newer": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>welcome") },
	}
	for name, h := range answers {
		s, trust := fake(t, h)
		_, err := newClient(t, s.URL, "secret", trust).Whoami(t.Context())
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A console that stands by names the active one, which is asked once, if what is
// trusted vouches for it as well.
func TestStandby(t *testing.T) {
	active, trust := fake(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			t.Error("no token came")
		}
		fmt.Fprint(w, `{"name":"anna"}`)
	})
	name := active.URL
	standby, _ := fake(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, `{"code":503,"reason":"Standby","message":"this console stands by","active":%q}`, name)
	})
	moved := ""
	c := newClient(t, standby.URL, "secret", trust)
	c.Moved = func(to string) { moved = to }
	if who, err := c.Whoami(t.Context()); err != nil || who.Name != "anna" || moved != active.URL || c.URL() != active.URL {
		t.Fatalf("%+v, %v, moved to %q", who, err, moved)
	}
	var said *Error
	for _, wrong := range []string{"http://127.0.0.1:1", standby.URL, standby.URL + "/"} {
		name = wrong
		c := newClient(t, standby.URL, "secret", trust)
		if _, err := c.Whoami(t.Context()); !errors.As(err, &said) || said.Active != wrong {
			t.Errorf("active %q: %v", wrong, err)
		}
	}
}

// console is a fake one with documents of one kind and a history of changes.
type console struct {
	mu      sync.Mutex
	items   map[string]string // name to revision
	history []string          // events
	first   int               // revision before the oldest that is kept
	breaks  chan struct{}     // closed to end all streams
	opened  chan struct{}     // told of each stream when it waits
	refuse  int
}

func newConsole() *console {
	return &console{items: map[string]string{}, breaks: make(chan struct{}), opened: make(chan struct{}, 100)}
}

// cut ends all streams.
func (c *console) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.breaks)
	c.breaks = make(chan struct{})
}

func (c *console) put(kind, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := fmt.Sprint(c.first + len(c.history) + 1)
	if kind == store.Deleted {
		delete(c.items, name)
	} else {
		c.items[name] = n
	}
	c.history = append(c.history, fmt.Sprintf("event: %s\nid: %s\ndata: {\"metadata\":{\"name\":%q,\"resourceVersion\":%q}}\n\n", kind, n, name, n))
}

func (c *console) refusing(code int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuse = code
}

// forget leaves all changes so far out of what is kept.
func (c *console) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.first += len(c.history)
	c.history = nil
}

func (c *console) serve(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	say := func(code int, v any) {
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(v)
	}
	switch {
	case c.refuse != 0:
		say(c.refuse, Error{Code: c.refuse, Message: "no"})
	case r.FormValue("watch") == "":
		all := api.List{Metadata: api.Metadata{ResourceVersion: fmt.Sprint(c.first + len(c.history))}}
		for name, n := range c.items {
			all.Items = append(all.Items, api.Object{Metadata: api.Metadata{Name: name, ResourceVersion: n}})
		}
		say(http.StatusOK, all)
	default:
		var after int
		if _, err := fmt.Sscan(r.Header.Get("Last-Event-ID"), &after); err != nil || after < c.first {
			say(http.StatusGone, Error{Code: http.StatusGone, Reason: "Expired", Message: "not kept"})
			return
		}
		fmt.Fprint(w, ": lives\n\n"+strings.Join(c.history[after-c.first:], ""))
		_ = http.NewResponseController(w).Flush()
		breaks := c.breaks
		c.mu.Unlock()
		c.opened <- struct{}{}
		select {
		case <-breaks:
		case <-r.Context().Done():
		}
		c.mu.Lock()
	}
}

// A follower tells of everything once, in order, over broken streams and over
// changes that the console no longer knows.
func TestFollow(t *testing.T) {
	c := newConsole()
	c.put(store.Added, "a")
	s, trust := fake(t, c.serve)
	got, again := make(chan string), 0
	f := &Follower{
		Client: newClient(t, s.URL, "", trust), Of: Ref{Project: "p", Kind: "applications"},
		Each:  func(e Event) error { got <- e.Type + " " + e.Object.Metadata.Name; return nil },
		Note:  func(error) { again++ },
		Pause: func(context.Context, int) {},
	}
	ctx, stop := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	want := func(all ...string) {
		t.Helper()
		for _, w := range all {
			if e := <-got; e != w {
				t.Fatalf("%q, want %q", e, w)
			}
		}
	}
	want("ADDED a")
	<-c.opened
	c.put(store.Added, "b")
	c.put(store.Modified, "a")
	c.cut() // what came meanwhile is told with the next stream
	want("ADDED b", "MODIFIED a")
	<-c.opened
	c.put(store.Deleted, "b")
	c.put(store.Modified, "a")
	c.put(store.Added, "c")
	c.forget()
	c.cut()
	seen := map[string]bool{<-got: true, <-got: true, <-got: true} // a list has no order
	if !seen["MODIFIED a"] || !seen["ADDED c"] || !seen["DELETED b"] {
		t.Fatalf("after what is not kept: %v", seen)
	}
	<-c.opened
	stop(errors.New("enough"))
	if err := <-ended; err == nil || err.Error() != "enough" || again < 2 {
		t.Errorf("%v, asked again %d times", err, again)
	}
}

// A console that refuses is not asked again, and neither is anyone after an error
// of whoever is told.
func TestFollowEnds(t *testing.T) {
	c := newConsole()
	s, trust := fake(t, c.serve)
	f := &Follower{
		Client: newClient(t, s.URL, "", trust), Of: Ref{Project: "p", Kind: "applications"},
		Each: func(Event) error { return errors.New("full") }, Note: func(err error) { t.Error(err) },
	}
	c.refusing(http.StatusForbidden)
	if err := f.Run(t.Context()); !Is(err, http.StatusForbidden) {
		t.Error(err)
	}
	c.refusing(0)
	c.put(store.Added, "a")
	if err := f.Run(t.Context()); err == nil || err.Error() != "full" {
		t.Error(err)
	}
}

func FuzzEvents(f *testing.F) {
	f.Add([]byte(": lives\n\nevent: ADDED\nid: 7\ndata: {\"metadata\":{\"name\":\"a\"}}\n\n"))
	f.Add([]byte("data: {\ndata: }\n\nid: 1\n\n"))
	f.Add([]byte("data\n\n\r\n:"))
	f.Fuzz(func(t *testing.T, text []byte) {
		err := events(bytes.NewReader(text), func() {}, func(e Event) error {
			if !bytes.Contains(text, []byte(e.id)) || !bytes.Contains(text, []byte(e.Type)) {
				t.Errorf("%+v of %q", e, text)
			}
			return nil
		})
		if err == nil {
			t.Error("a stream has no good end")
		}
	})
}
