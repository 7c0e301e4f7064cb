package takeover_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fs"
	"davit.dev/davit/internal/vault/survey"
)

// How much is in the vault of TestFull; with DAVIT_FULL as much as a large company has,
// and then what was measured is told as rows of a table.
var (
	small = consoletest.Size{Applications: 12, Points: 5, Runs: 45, Sites: 3}
	large = consoletest.Size{Applications: 1000, Points: 50, Runs: 1000, Open: 5, Sites: 50}
)

// lists is how many lists a round makes, whatever there is.
const lists = 8

// TestFull has a console, a process of its own, read a vault that is full, and others
// beside it: what it asks the vault, what it holds, how long until all is known, first
// and after it was killed, and how long the page takes.
func TestFull(t *testing.T) {
	size, others, told := small, 2, os.Getenv("DAVIT_FULL") != ""
	if told {
		size, others = large, 49
	} else {
		t.Parallel() // nothing is measured then
	}
	dir := t.TempDir()
	r := newLone(t, place{flags: []string{"--vault-url", "file://" + dir}}, others)
	row := func(what, bar, format string, args ...any) {
		t.Helper()
		t.Logf("| %s | %s | %s |", what, fmt.Sprintf(format, args...), bar)
	}
	begun := time.Now()
	p := r.fill(dir, size, others)
	t.Logf("filled in %s", time.Since(begun).Round(time.Second))
	points := size.Applications * size.Points
	row("in the vault of one project; in those of others, each", "", "%d applications, %d points, %d runs; %d projects of 20 applications, 200 points", size.Applications, points, size.Runs+size.Open, others)

	begun = time.Now()
	r.serve(r.a)
	r.trust()
	until(t, "active", func() bool { return r.active(r.a) })
	r.letIn()
	f := r.whole(size)
	row("the first round of the one project: until all is known; calls of the vault", "", "%.1f s; %d", time.Since(begun).Seconds(), f.Known.Calls)
	cookie := r.login()
	page, took := r.page(cookie, "")
	row("its fleet page; of how many KiB", "2 s", "%.2f s; %d", took.Seconds(), len(page)>>10)
	if !strings.Contains(page, fmt.Sprintf("All %d applications are protected", size.Applications)) || strings.Contains(page, "silent.") {
		t.Errorf("the page is not whole: %.2000s", page)
	}
	if last, _ := r.page(cookie, "?applications=1000000"); !strings.Contains(last, consoletest.Name(size.Applications-1)) {
		t.Errorf("the page's last part is not that: %.2000s", last)
	}
	f = r.quiet()
	row("a round when nothing is new: took; calls of the vault", "15 s", "%.1f s; %d", float64(f.Known.Took)/1000, f.Known.Calls)
	if f.Known.Calls != lists {
		t.Errorf("a round in which nothing is new asked the vault %d times, not %d", f.Known.Calls, lists)
	}
	if told {
		_ = r.rest(r.a)
	}
	now, most, own := r.memory(r.a, "VmRSS"), r.memory(r.a, "VmHWM"), r.memory(r.a, "RssAnon")
	bar := fullBar(points + others*200)
	row("the console with all that: memory now, at the most; now its own", fmt.Sprintf("%d MiB", bar), "%d MiB, %d MiB: %s; %d MiB", now, most, verdict(most, bar), own)
	if !told && most > bar {
		t.Errorf("it has %d MiB at the most, over %d MiB", most, bar)
	}

	r.signal(r.a, syscall.SIGKILL)
	begun = time.Now()
	r.serve(r.a)
	until(t, "active again", func() bool { return r.active(r.a) })
	r.whole(size)
	row("killed and started: until all is known again", "", "%.1f s", time.Since(begun).Seconds())
	if f = r.quiet(); f.Known.Calls != lists {
		t.Errorf("after a restart it asks the vault %d times, not %d", f.Known.Calls, lists)
	}
	if told {
		r.signal(r.a, syscall.SIGTERM)
		r.delayed(p, row)
	}
}

// fullBar is how many MiB a console may have with so many points of all projects; most of the
// rest is what logging in takes for a moment.
func fullBar(points int) int64 { return 400 + int64(points)*6>>10 }

// verdict is what is said of a figure that has a bar.
func verdict(is, bar int64) string {
	if is > bar {
		return "over"
	}
	return "under"
}

// newLone makes one console that has other projects too, and serves it not yet.
func newLone(t *testing.T, p place, others int) *rig {
	t.Helper()
	if os.Getenv("DAVIT_TEST_BED") == "" {
		t.Skip("real processes, in real time: set DAVIT_TEST_BED=1")
	}
	bin, err := davit()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, bin: bin, dir: t.TempDir(), place: p}
	r.a = r.console("a")
	r.must(os.WriteFile(r.dir+"/password", []byte(password), 0o600))
	add := func(name, key string, flags ...string) {
		t.Helper()
		r.must(r.run(r.a, append(append([]string{"console", "init", "--data", r.a.dir, "--admin", "anna", "--recovery-key-file", r.dir + key, "--project", name}, p.flags...), flags...)...))
	}
	add(project, "/key", "--password-file", r.dir+"/password")
	for i := range others {
		add(other(i), fmt.Sprintf("/key-%d", i))
	}
	return r
}

func other(i int) string { return fmt.Sprintf("other-%02d", i) }

// fill writes what is in the vault, and returns the one project.
func (r *rig) fill(dir string, size consoletest.Size, others int) *vault.Project {
	r.t.Helper()
	store, err := fs.Open(dir)
	r.must(err)
	open := func(name, key string) *vault.Project {
		text, err := os.ReadFile(key)
		r.must(err)
		id, err := vault.ParseIdentity(strings.TrimSpace(string(text)))
		r.must(err)
		p, err := vault.OpenProject(r.t.Context(), store, name, id)
		r.must(err)
		return p
	}
	now := time.Now()
	p := open(project, r.dir+"/key")
	g, ctx := errgroup.WithContext(r.t.Context())
	g.SetLimit(4)
	g.Go(func() error { return consoletest.Crowd(ctx, p, now, size) })
	for i := range others {
		q := open(other(i), r.dir+fmt.Sprintf("/key-%d", i))
		g.Go(func() error {
			return consoletest.Crowd(ctx, q, now, consoletest.Size{Applications: 20, Points: 10, Runs: 5, Sites: 2})
		})
	}
	r.must(g.Wait())
	return p
}

// fleet is what the console knows of the one project.
func (r *rig) fleet() (f api.Fleet) {
	r.t.Helper()
	r.call(r.a, r.robot, http.MethodGet, "/projects/"+project+"/fleet", nil, &f)
	return f
}

// whole waits until all is known.
func (r *rig) whole(size consoletest.Size) (f api.Fleet) {
	r.t.Helper()
	until(r.t, "known whole", func() bool {
		f = r.fleet()
		if f.Silent != "" {
			r.t.Fatalf("it says that the vault is silent: %s", f.Silent)
		}
		return f.Known != nil && f.Old == "" && f.Known.Unread == 0 && len(f.Known.Applications) == size.Applications
	})
	for _, a := range f.Known.Applications {
		if len(a.Points) != size.Points || a.Fault != "" || a.Stale != "" {
			r.t.Fatalf("%s: %d points, %q, %q", a.Name, len(a.Points), a.Fault, a.Stale)
		}
	}
	return f
}

// quiet waits for a round that begins after all of it is known.
func (r *rig) quiet() (f api.Fleet) {
	r.t.Helper()
	first := r.fleet()
	until(r.t, "read twice more", func() bool {
		f = r.fleet()
		return f.Known.At.After(first.Known.At) && f.Known.Calls == lists && f.Known.Ahead != nil
	})
	return f
}

// login is a person's session, as a browser has it.
func (r *rig) login() *http.Cookie {
	r.t.Helper()
	q, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.a.url+"/login", strings.NewReader(url.Values{"name": {"anna"}, "password": {password}}.Encode()))
	r.must(err)
	q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	q.Header.Set("Origin", r.a.url)
	answer, err := r.web.Do(q)
	r.must(err)
	r.must(answer.Body.Close())
	if len(answer.Cookies()) == 0 {
		r.t.Fatalf("no session: %s", answer.Status)
	}
	return answer.Cookies()[0]
}

// page is a part of the fleet page, and the least that three took.
func (r *rig) page(session *http.Cookie, part string) (text string, least time.Duration) {
	r.t.Helper()
	for range 3 {
		q, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.a.url+"/p/"+project+part, nil)
		r.must(err)
		q.AddCookie(session)
		begun := time.Now()
		answer, err := r.web.Do(q)
		r.must(err)
		body, err := io.ReadAll(answer.Body)
		r.must(errors.Join(err, answer.Body.Close()))
		if took := time.Since(begun); least == 0 || took < least {
			least = took
		}
		if text = string(body); answer.StatusCode != http.StatusOK {
			r.t.Fatalf("%s: %s", answer.Status, text)
		}
	}
	return text, least
}

// far is a store each call of which takes a while; of a list each thousand of keys.
type far struct {
	vault.Store
	delay time.Duration
}

func (s far) wait(ctx context.Context) error {
	select {
	case <-time.After(s.delay):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", vault.ErrUnavailable, context.Cause(ctx))
	}
}

func (s far) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	return s.Store.Get(ctx, key, offset, length)
}

func (s far) List(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	n := 0
	return errors.Join(s.wait(ctx), s.Store.List(ctx, prefix, func(o vault.ObjectInfo) error {
		if n++; n%1000 == 0 {
			if err := s.wait(ctx); err != nil {
				return err
			}
		}
		return fn(o)
	}))
}

// delayed reads the project as from far away, in this process.
func (r *rig) delayed(p *vault.Project, row func(what, bar, format string, args ...any)) {
	r.t.Helper()
	const delay = 25 * time.Millisecond
	reader := fleet.NewReader(p.Over(func(s vault.Store) vault.Store { return far{s, delay} }), survey.NewBudget(128<<20))
	for _, what := range []string{"the first round", "a round when nothing is new"} {
		begun := time.Now()
		r.must(reader.Round(r.t.Context(), time.Now()))
		row(fmt.Sprintf("the one project, each call %s, each 1,000 keys of a list too: %s; calls", delay, what), "", "%.1f s; %d", time.Since(begun).Seconds(), reader.Snapshot().Calls)
	}
	begun := time.Now()
	r.must(reader.Foretell(r.t.Context(), time.Now()))
	row("what is known beforehand, judged beside the rounds", "300 s", "%.1f s", time.Since(begun).Seconds())
	runtime.KeepAlive(reader)
}
