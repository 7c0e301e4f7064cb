package output

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/cobra"
)

func TestDuration(t *testing.T) {
	for _, tc := range []struct {
		d    time.Duration
		want string
	}{
		{0, "0ms"},
		{850 * time.Millisecond, "850ms"},
		{4200 * time.Millisecond, "4.2s"},
		{4 * time.Second, "4s"},
		{59*time.Second + 600*time.Millisecond, "1m"},
		{200 * time.Second, "3m20s"},
		{5*time.Hour + 12*time.Minute, "5h12m"},
		{9*24*time.Hour + 4*time.Hour, "9d4h"},
		{-90 * time.Second, "-1m30s"},
	} {
		if got := Duration(tc.d); got != tc.want {
			t.Errorf("Duration(%v) = %q, want %q", tc.d, got, tc.want)
		}
	}
}

func TestAge(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for at, want := range map[time.Time]string{
		{}: "", now: "now", now.Add(-90 * time.Second): "1m30s", now.Add(5 * time.Second): "in 5s",
	} {
		if got := Age(at, now); got != want {
			t.Errorf("Age(%v) = %q, want %q", at, got, want)
		}
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 1<<20 - 1: "1 MiB", 3 << 30: "3 GiB", 1<<63 - 1: "8 EiB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}

// A terminal obeys nothing of what a site or a program there says.
func TestOneLine(t *testing.T) {
	if got := OneLine("a\x1b]0;title\x07\r\n \x1b[2Jb\u009b\x00é"); got != "a]0;title [2Jbé" {
		t.Errorf("%q", got)
	}
}

func TestShort(t *testing.T) {
	if got := Short("a\nb  c", 10); got != "a b c" {
		t.Errorf("Short = %q", got)
	}
	if got := Short("äöüß", 3); got != "äö…" {
		t.Errorf("Short = %q", got)
	}
}

// guarded is written by timers, of which the race detector does not know what came before.
type guarded struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (g *guarded) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.b.Write(p)
}

func (g *guarded) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.b.String()
}

// Where there is no terminal, a log is told once of each thing that is waited for, and of
// what is over soon not at all.
func TestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b guarded
		p := NewProgress(&b, "davit", time.Now)
		says := func(want string) {
			t.Helper()
			synctest.Wait()
			if got := b.String(); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
		p.Waits("Running", []string{"claim/shop: begun", "the journal is being written"})
		time.Sleep(waitsAfter / 2) // virtual time
		p.Waits("Running", []string{"ready/shop: begun"})
		time.Sleep(waitsAfter / 2) // virtual time
		p.Waits("Running", []string{"ready/shop: 0 of 3 pods", "ready/wiki: begun"})
		says("")
		time.Sleep(waitsAfter / 2) // virtual time
		all := "Running: ready/shop: 0 of 3 pods\n"
		says(all)
		p.Waits("Running", []string{"ready/shop: 1 of 3 pods", "ready/wiki: begun"})
		time.Sleep(waitsAfter) // virtual time
		all += "Running: ready/wiki: begun\n"
		says(all)
		p.Waits("Running", nil)
		p.Waits("Running", []string{"ready/shop: 0 of 3 pods"})
		time.Sleep(waitsAfter + time.Second) // virtual time
		all += "Running: ready/shop: 0 of 3 pods\n"
		says(all)
		p.Waits("AwaitingCommit", []string{"done: commit it, or roll back"})
		p.Done()
		time.Sleep(2 * waitsAfter) // virtual time
		says(all)
	})
}

type sample struct {
	Name string `json:"name"`
}

func (s sample) Text(t *Text) {
	t.Table("", Columns("NAME", "+>N"), [][]string{{s.Name, "1"}, {"", "10"}})
}

func (s sample) Document() any { return s }

func TestPrinters(t *testing.T) {
	for format, want := range map[Format]string{
		Table: "NAME\nx\n-\n",
		Wide:  "NAME   N\nx      1\n-     10\n",
		JSON:  "{\n  \"name\": \"x\"\n}\n",
		YAML:  "name: x\n",
	} {
		var b bytes.Buffer
		if err := NewPrinter(format, "davit", &b).Print(sample{"x"}); err != nil {
			t.Fatal(err)
		}
		if b.String() != want {
			t.Errorf("%s: %q, want %q", format, b.String(), want)
		}
	}
	if _, err := ParseFormat("xml"); err == nil {
		t.Error("xml was taken for a format")
	}
	with, without := &cobra.Command{}, &cobra.Command{}
	WithNames(with)
	if Check(with, "name") != nil || Check(without, "name") == nil || Check(without, "json") != nil || Check(with, "xml") == nil {
		t.Error("-o name is for commands alone whose results have names")
	}
}

type quoting struct{ sample }

func (quoting) Text(t *Text) {
	t.Line("look with `points`")
	t.AsIs("  ", "-a `status`, or `davit logs`\n+one ` alone\n")
	t.Line("then `runs ls`")
}

// Words of objects that people are shown are not Davit's, and are left as they are.
func TestWhatOthersWroteIsLeft(t *testing.T) {
	var b bytes.Buffer
	if err := NewPrinter(Table, "kubectl davit", &b).Print(quoting{}); err != nil {
		t.Fatal(err)
	}
	if want := "look with `kubectl davit points`\n  -a `status`, or `davit logs`\n  +one ` alone\nthen `kubectl davit runs ls`\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

// Where there is no terminal, details come at most every ten seconds, and
// steps once each.
func TestProgressLines(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var b bytes.Buffer
	p := NewProgress(&b, "davit", func() time.Time { return now })
	p.Step("reading")
	p.Step("reading")
	p.Detail("1 of 2")
	now = now.Add(11 * time.Second)
	p.Detail("2 of 2")
	p.Note("note: done, look with `points`")
	p.Done()
	if want := "reading\nreading: 2 of 2\nnote: done, look with `davit points`\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	b.Reset()
	for range 3 { // as many as wait for one vault
		p.Silent("the vault s3://b/", errors.New("connection refused"))
	}
	now = now.Add(11 * time.Second)
	p.Silent("the vault s3://b/", nil)
	if want := "waiting for an answer of the vault s3://b/: connection refused\nwaiting for an answer of the vault s3://b/\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	var silent Progress
	silent.Silent("anything", nil)
	silent.Step("nothing %s", strings.Repeat("x", 3))
	silent.Done()
}
