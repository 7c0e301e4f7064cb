package output

import (
	"bytes"
	"strings"
	"testing"
	"time"
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
		if err := NewPrinter(format, &b).Print(sample{"x"}); err != nil {
			t.Fatal(err)
		}
		if b.String() != want {
			t.Errorf("%s: %q, want %q", format, b.String(), want)
		}
	}
	if _, err := ParseFormat("xml"); err == nil {
		t.Error("xml was taken for a format")
	}
}

// Where there is no terminal, details come at most every ten seconds, and
// steps once each.
func TestProgressLines(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var b bytes.Buffer
	p := NewProgress(&b, func() time.Time { return now })
	p.Step("reading")
	p.Step("reading")
	p.Detail("1 of 2")
	now = now.Add(11 * time.Second)
	p.Detail("2 of 2")
	p.Note("note: done")
	p.Done()
	if want := "reading\nreading: 2 of 2\nnote: done\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	var silent Progress
	silent.Step("nothing %s", strings.Repeat("x", 3))
	silent.Done()
}
