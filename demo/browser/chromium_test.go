package browser

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long anything may take before a test gives up: it bounds
// hangs and asserts nothing.
const patience = 3 * time.Minute

// chromium is a browser, spoken to over a pair of pipes: each message is JSON and
// ends with a zero byte (Chrome DevTools Protocol).
type chromium struct {
	commands io.Writer

	mu      sync.Mutex
	next    int
	waiting map[int]chan answer
	tabs    map[string]*tab // by session
	ended   error
}

type answer struct {
	Result json.RawMessage
	Err    error
}

// message is what the browser says.
type message struct {
	ID      int             `json:"id"`
	Session string          `json:"sessionId"`
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params"`
	Result  json.RawMessage `json:"result"`
	Error   *struct {
		Message string `json:"message"`
		Data    string `json:"data"`
	} `json:"error"`
}

// start runs a browser until the test ends.
func start(t *testing.T) *chromium {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("DAVIT_CI") != "" {
			t.Fatal("chromium is missing: hack/prepare installs it")
		}
		t.Skip("chromium is missing: hack/prepare installs it")
	}
	// A profile that the browser still writes to while it ends is no fault of
	// the test: it is removed as far as that goes.
	profile, err := os.MkdirTemp("", "davit-browser-")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions",
		"--disable-dev-shm-usage", "--no-proxy-server", "--ignore-certificate-errors", "--force-color-profile=srgb", "--hide-scrollbars",
		"--user-data-dir="+filepath.Join(profile, "data"), "--remote-debugging-pipe", "about:blank")
	commands, events := pipes(t, cmd)
	log, err := os.Create(filepath.Join(profile, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range cmd.ExtraFiles {
		_ = f.Close() // the browser's ends
	}
	b := &chromium{commands: commands, waiting: map[int]chan answer{}, tabs: map[string]*tab{}}
	var reading sync.WaitGroup
	reading.Go(func() { b.read(events) })
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		reading.Wait()
		_, _ = commands.Close(), events.Close()
		_ = log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("chromium said:\n%s", regexp.MustCompile(`(?m)^.*dbus/.*\n`).ReplaceAll(text, nil))
		}
		_ = os.RemoveAll(profile)
	})
	return b
}

// pipes gives the browser file descriptors 3, which it reads, and 4.
func pipes(t *testing.T, cmd *exec.Cmd) (commands, events *os.File) {
	t.Helper()
	in, commands, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	events, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{in, out}
	return commands, events
}

// read hands on what the browser says, until it ends.
func (b *chromium) read(from io.Reader) {
	r := bufio.NewReaderSize(from, 1<<16)
	for {
		data, err := r.ReadBytes(0)
		if err == nil {
			var m message
			if err = json.Unmarshal(data[:len(data)-1], &m); err == nil {
				b.hear(m)
				continue
			}
		}
		b.mu.Lock()
		b.ended = fmt.Errorf("chromium ended: %w", err)
		for id, one := range b.waiting {
			delete(b.waiting, id)
			one <- answer{Err: b.ended}
		}
		b.mu.Unlock()
		return
	}
}

func (b *chromium) hear(m message) {
	b.mu.Lock()
	tab, one := b.tabs[m.Session], b.waiting[m.ID]
	delete(b.waiting, m.ID)
	b.mu.Unlock()
	switch {
	case one != nil && m.Error != nil:
		one <- answer{Err: errors.New(m.Error.Message + " " + m.Error.Data)}
	case one != nil:
		one <- answer{Result: m.Result}
	case m.ID == 0 && tab != nil:
		tab.hear(m.Method, m.Params)
	}
}

// call asks the browser, or one of its tabs, for something.
func (b *chromium) call(ctx context.Context, session, method string, params, result any) error {
	b.mu.Lock()
	if b.ended != nil {
		b.mu.Unlock()
		return b.ended
	}
	b.next++
	one := make(chan answer, 1)
	b.waiting[b.next] = one
	data, err := json.Marshal(map[string]any{"id": b.next, "method": method, "params": params, "sessionId": session})
	if session == "" {
		data, err = json.Marshal(map[string]any{"id": b.next, "method": method, "params": params})
	}
	if err == nil {
		_, err = b.commands.Write(append(data, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	select {
	case a := <-one:
		if a.Err != nil {
			return fmt.Errorf("%s: %w", method, a.Err)
		}
		if result == nil {
			return nil
		}
		return json.Unmarshal(a.Result, result)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", method, context.Cause(ctx))
	}
}

// tab is a page of the browser, and what happened in it.
type tab struct {
	t       *testing.T
	b       *chromium
	session string

	mu       sync.Mutex
	loads    int
	status   int // of the newest document
	bytes    int // received since the last visit began
	complain []string
	asked    []string // URLs
	changed  chan struct{}
}

type none struct{}

// open opens a tab that shares nothing with others.
func (b *chromium) open(t *testing.T, scripts bool) *tab {
	t.Helper()
	p := &tab{t: t, b: b, changed: make(chan struct{})}
	var jar struct{ BrowserContextID string }
	var target struct{ TargetID string }
	var at struct{ SessionID string }
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := b.call(ctx, "", "Target.createBrowserContext", none{}, &jar)
	if err == nil {
		err = b.call(ctx, "", "Target.createTarget", map[string]any{"url": "about:blank", "browserContextId": jar.BrowserContextID}, &target)
	}
	if err == nil {
		err = b.call(ctx, "", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &at)
	}
	if err != nil {
		t.Fatal(err)
	}
	p.session = at.SessionID
	b.mu.Lock()
	b.tabs[p.session] = p
	b.mu.Unlock()
	for _, domain := range []string{"Page", "Network", "Runtime", "Log", "Audits"} {
		p.call(domain+".enable", none{}, nil)
	}
	p.call("Emulation.setFocusEmulationEnabled", map[string]any{"enabled": true}, nil) // as the tab that a person looks at
	p.call("Emulation.setScriptExecutionDisabled", map[string]any{"value": !scripts}, nil)
	return p
}

func (p *tab) call(method string, params, result any) {
	p.t.Helper()
	ctx, cancel := context.WithTimeoutCause(p.t.Context(), patience, errors.New("no answer"))
	defer cancel()
	if err := p.b.call(ctx, p.session, method, params, result); err != nil {
		p.t.Fatal(err)
	}
}

// happening is what the browser tells of a tab, as far as tests look at it.
type happening struct {
	Type    string
	Request struct{ URL string }
	Entry   struct{ Source, Level, Text, URL string }
	Issue   struct{ Code string }
	Args    []struct {
		Value       any
		Description string
	}
	Response struct {
		Status int
		URL    string
	}
	EncodedDataLength float64
	ExceptionDetails  struct{ Text string }
}

func (p *tab) hear(method string, params json.RawMessage) {
	var h happening
	if json.Unmarshal(params, &h) != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch method {
	case "Page.loadEventFired":
		p.loads++
	case "Network.requestWillBeSent":
		p.asked = append(p.asked, h.Request.URL)
	case "Network.responseReceived":
		if h.Type == "Document" {
			p.status = h.Response.Status
		}
	case "Network.loadingFinished":
		p.bytes += int(h.EncodedDataLength)
	case "Log.entryAdded":
		if h.Entry.Level == "error" || h.Entry.Level == "warning" || h.Entry.Source == "security" {
			p.complain = append(p.complain, h.Entry.Level+": "+h.Entry.Text+" "+h.Entry.URL)
		}
	case "Audits.issueAdded":
		p.complain = append(p.complain, "issue: "+h.Issue.Code+" "+string(params))
	case "Runtime.consoleAPICalled":
		if h.Type == "error" || h.Type == "warning" || h.Type == "assert" {
			p.complain = append(p.complain, fmt.Sprintf("console.%s: %v", h.Type, h.Args))
		}
	case "Runtime.exceptionThrown":
		p.complain = append(p.complain, "exception: "+h.ExceptionDetails.Text)
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// until waits for something that the browser tells.
func (p *tab) until(what string, holds func() bool) {
	p.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		p.mu.Lock()
		done, changed := holds(), p.changed
		p.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-limit.C:
			p.t.Fatalf("%s: waited in vain", what)
		}
	}
}

// loading does something that brings another page, and waits until it is there.
func (p *tab) loading(act func()) {
	p.t.Helper()
	p.mu.Lock()
	before := p.loads
	p.bytes = 0
	p.mu.Unlock()
	act()
	p.until("load", func() bool { return p.loads > before })
}

func (p *tab) visit(url string) {
	p.t.Helper()
	p.loading(func() {
		var out struct{ ErrorText string }
		p.call("Page.navigate", map[string]any{"url": url}, &out)
		if out.ErrorText != "" {
			p.t.Fatalf("visit %s: %s", url, out.ErrorText)
		}
	})
}

// eval computes an expression in the page.
func (p *tab) eval(expression string, result any) {
	p.t.Helper()
	var out struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	p.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}, &out)
	if d := out.ExceptionDetails; d != nil {
		p.t.Fatalf("evaluate %.80s: %s %s", expression, d.Text, d.Exception.Description)
	}
	if result == nil {
		return
	}
	if err := json.Unmarshal(out.Result.Value, result); err != nil {
		p.t.Fatalf("evaluate %.80s: %v", expression, err)
	}
}

func (p *tab) typed(text string) {
	p.t.Helper()
	p.call("Input.insertText", map[string]any{"text": text}, nil)
}

// press presses a key as a person does.
func (p *tab) press(key string) {
	p.t.Helper()
	codes := map[string]int{"Tab": 9, "Enter": 13}
	down := map[string]any{"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
	if key == "Enter" {
		down["text"] = "\r"
	}
	p.call("Input.dispatchKeyEvent", down, nil)
	p.call("Input.dispatchKeyEvent", map[string]any{"type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": codes[key]}, nil)
}

// look sets what the page is looked at with.
func (p *tab) look(width int, scheme string) {
	p.t.Helper()
	p.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}, nil)
	p.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// picture keeps the whole page as a picture in $DAVIT_SCREENSHOTS, for people.
func (p *tab) picture(name string) {
	p.t.Helper()
	dir := os.Getenv("DAVIT_SCREENSHOTS")
	if dir == "" {
		return
	}
	var out struct{ Data []byte }
	p.call("Page.captureScreenshot", map[string]any{"captureBeyondViewport": true}, &out)
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, name+".png"), out.Data, 0o644)); err != nil {
		p.t.Fatal(err)
	}
}

// complaints are what the browser objected to since it was last asked.
func (p *tab) complaints() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := strings.Join(p.complain, "\n")
	p.complain = nil
	return all
}
