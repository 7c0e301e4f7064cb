package e2e

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// mood is how the way to the vault behaves.
type mood int

const (
	passing  mood = iota
	stalling      // takes requests and gives no answer
	resetting
	overloaded // answers 503
	readOnly   // answers 403 to whatever would write
	full       // answers 507 to what would need more room than was freed since
)

// wire is a way to the S3 server that can have a bad day.
type wire struct {
	Endpoint string
	proxy    *httputil.ReverseProxy

	mu     sync.Mutex
	mood   mood
	room   int64         // of a full store: what deleting has freed
	ahead  time.Duration // of the store's clock, in what it says of when things were written
	change chan struct{} // closed when the mood changes
	open   map[net.Conn]bool
	held   string        // the method of requests for volume data that wait, if any do
	let    chan struct{} // closed when they may go on
}

// packs are the objects of a vault that hold the data of volumes.
var packs = regexp.MustCompile(`/volumes/[^/]+/p[^/]*$`)

// hold keeps requests of a method for the data of volumes waiting until they are let
// go: what reads or writes volumes meanwhile is met in the middle of it, however
// quick it is.
func (w *wire) hold(t *testing.T, method string) (let func()) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	gate := make(chan struct{})
	w.held, w.let = method, gate
	let = sync.OnceFunc(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.held = ""
		close(gate)
	})
	t.Cleanup(let)
	return let
}

// wait is until a request that is held may go on; false if nobody asks any more.
func (w *wire) wait(r *http.Request) bool {
	w.mu.Lock()
	held, let := w.held, w.let
	w.mu.Unlock()
	if r.Method != held || !packs.MatchString(r.URL.Path) {
		return true
	}
	select {
	case <-let:
		return true
	case <-r.Context().Done():
		return false
	}
}

// newWire listens on the host's end of west's link, which all sites reach.
func newWire(t *testing.T) *wire {
	t.Helper()
	to, err := url.Parse(rig.Bed.S3().Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	site := net.ParseIP(rig.Bed.Site(west).Address()).To4()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", net.IPv4(site[0], site[1], site[2], 1).String()+":0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Endpoint: "http://" + l.Addr().String(), change: make(chan struct{}), open: map[net.Conn]bool{}}
	w.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = to.Scheme, to.Host // the Host header stays: it is signed
		},
		ModifyResponse: w.shift,
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	server := &http.Server{Handler: w, ConnState: w.track}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return w
}

func (w *wire) track(c net.Conn, state http.ConnState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch state {
	case http.StateNew:
		w.open[c] = true
	case http.StateClosed, http.StateHijacked:
		delete(w.open, c)
	}
}

// set changes the mood. Requests under way are broken, as the new one would.
func (w *wire) set(m mood) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mood, w.room = m, 0
	close(w.change)
	w.change = make(chan struct{})
	if m == resetting {
		for c := range w.open {
			reset(c)
		}
	}
}

// skew sets the store's clock ahead of everybody's.
func (w *wire) skew(ahead time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ahead = ahead
}

var modified = regexp.MustCompile(`(<LastModified>)([^<]+)(</LastModified>)`)

// shift makes an answer one of a store whose clock is ahead.
func (w *wire) shift(r *http.Response) error {
	w.mu.Lock()
	ahead := w.ahead
	w.mu.Unlock()
	if ahead == 0 {
		return nil
	}
	for _, name := range []string{"Date", "Last-Modified"} {
		if at, err := http.ParseTime(r.Header.Get(name)); err == nil {
			r.Header.Set(name, at.Add(ahead).UTC().Format(http.TimeFormat))
		}
	}
	if !strings.Contains(r.Header.Get("Content-Type"), "xml") {
		return nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	_ = r.Body.Close()
	body = modified.ReplaceAllFunc(body, func(found []byte) []byte {
		part := modified.FindSubmatch(found)
		at, err := time.Parse(time.RFC3339Nano, string(part[2]))
		if err != nil {
			return found
		}
		return []byte("<LastModified>" + at.Add(ahead).UTC().Format("2006-01-02T15:04:05.000Z") + "</LastModified>")
	})
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	r.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return nil
}

func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

func (w *wire) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if !w.wait(r) {
		panic(http.ErrAbortHandler)
	}
	w.mu.Lock()
	now, change := w.mood, w.change
	w.mu.Unlock()
	switch {
	case now == stalling:
		select {
		case <-change:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	case now == resetting:
		if c, _, err := http.NewResponseController(rw).Hijack(); err == nil {
			reset(c)
		}
	case now == overloaded:
		answer(rw, http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate.")
	case now == readOnly && r.Method != http.MethodGet && r.Method != http.MethodHead:
		answer(rw, http.StatusForbidden, "AccessDenied", "Access Denied")
	case now == full && !w.fits(r):
		answer(rw, http.StatusInsufficientStorage, "InsufficientStorage", "There is no room left.")
	default:
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		go func() {
			select {
			case <-change:
				cancel() // the transfer breaks in the middle
			case <-ctx.Done():
			}
		}()
		w.proxy.ServeHTTP(rw, r.WithContext(ctx))
	}
}

// freed is what one deletion makes room for, whatever was deleted.
const freed = 1 << 20

// fits tells whether there is room for a request, and counts it.
func (w *wire) fits(r *http.Request) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch r.Method {
	case http.MethodDelete:
		w.room += freed
	case http.MethodPut, http.MethodPost:
		if r.ContentLength > w.room {
			return false
		}
		w.room -= r.ContentLength
	}
	return true
}

func answer(rw http.ResponseWriter, code int, name, text string) {
	rw.Header().Set("Content-Type", "application/xml")
	rw.WriteHeader(code)
	_, _ = rw.Write([]byte(`<?xml version="1.0" encoding="UTF-8"?><Error><Code>` + name + `</Code><Message>` + text + `</Message></Error>`))
}
