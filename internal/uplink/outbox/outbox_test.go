package outbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"davit.dev/davit/internal/uplink"
)

func open(t *testing.T, dir string, limit int64) *Outbox {
	t.Helper()
	o, err := Open(dir, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	return o
}

func add(t *testing.T, o *Outbox, from, to int) {
	t.Helper()
	for i := from; i <= to; i++ {
		if err := o.Append(uplink.Event{Reason: fmt.Sprint(i), Object: uplink.Key{Kind: "Application", Name: "shop"}}); err != nil {
			t.Fatal(err)
		}
	}
}

// reasons are what waits, and checks that numbers grow.
func reasons(t *testing.T, o *Outbox) []string {
	t.Helper()
	all, err := o.Next(0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	last := int64(0)
	for _, e := range all {
		if e.Seq <= last {
			t.Fatalf("event %d follows %d", e.Seq, last)
		}
		last = e.Seq
		out = append(out, e.Reason)
	}
	return out
}

func TestKeepsUntilAcknowledged(t *testing.T) {
	dir := t.TempDir()
	o := open(t, dir, 0)
	id := o.ID()
	add(t, o, 1, 5)
	if err := errors.Join(o.Ack(2), o.Close()); err != nil {
		t.Fatal(err)
	}
	o = open(t, dir, 0)
	if o.ID() != id {
		t.Error("it is another outbox")
	}
	if err := o.Ack(2); err != nil { // as the console says again
		t.Fatal(err)
	}
	add(t, o, 6, 6)
	if got := fmt.Sprint(reasons(t, o)); got != "[3 4 5 6]" {
		t.Error(got)
	}
	if all, err := o.Next(4, 1); err != nil || len(all) != 1 || all[0].Reason != "5" {
		t.Error(all, err)
	}
}

// A kill at every byte of a write leaves all that was whole, and what comes then
// has numbers that nobody has seen.
func TestTornAtEveryByte(t *testing.T) {
	dir := t.TempDir()
	o := open(t, dir, 0)
	add(t, o, 1, 2)
	before := o.size
	add(t, o, 3, 3)
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(o.path())
	if err != nil {
		t.Fatal(err)
	}
	for n := before; n <= int64(len(whole)); n++ {
		torn := t.TempDir()
		if err := os.WriteFile(filepath.Join(torn, fileName), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		o := open(t, torn, 0)
		want := "[1 2 4]"
		if n == int64(len(whole)) {
			want = "[1 2 3 4]"
		}
		add(t, o, 4, 4)
		if got := fmt.Sprint(reasons(t, o)); got != want {
			t.Fatalf("cut at %d of %d: %s, want %s", n, len(whole), got, want)
		}
		if n > before && n < int64(len(whole)) && o.next < jump {
			t.Fatalf("cut at %d: number %d may have been used", n, o.next)
		}
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(reasons(t, open(t, torn, 0))); got != want {
			t.Fatalf("cut at %d and opened again: %s", n, got)
		}
	}
}

// A byte that turned is found, wherever it is.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	o := open(t, dir, 0)
	add(t, o, 1, 3)
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(o.path())
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		bad := append([]byte{}, whole...)
		bad[i] ^= 0x40
		torn := t.TempDir()
		if err := os.WriteFile(filepath.Join(torn, fileName), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		o := open(t, torn, 0)
		got := strings.Join(reasons(t, o), "")
		if !strings.HasPrefix("123", got) || got == "123" {
			t.Fatalf("byte %d turned: %q", i, got)
		}
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A full outbox drops the oldest and says how many.
func TestBounded(t *testing.T) {
	dir := t.TempDir()
	const limit = 4096
	o := open(t, dir, limit)
	add(t, o, 1, 500)
	info, err := os.Stat(o.path())
	if err != nil || info.Size() > limit {
		t.Fatal(info.Size(), err)
	}
	check := func(o *Outbox) {
		t.Helper()
		all, err := o.Next(0, 1000)
		if err != nil || len(all) == 0 || all[len(all)-1].Reason != "500" || int(all[0].Lost)+len(all) != 500 {
			t.Fatalf("%d events wait, %d are lost of 500: %v", len(all), all[0].Lost, err)
		}
	}
	check(o)
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	o = open(t, dir, limit)
	check(o)
	o.Drop(3)
	all, err := o.Next(0, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Ack(all[0].Seq); err != nil || o.Lost() != 0 {
		t.Error(o.Lost(), err)
	}
	add(t, o, 501, 2000)
	if err := o.Ack(1 << 40); err != nil || o.Len() != 0 {
		t.Fatal(o.Len(), err)
	}
	add(t, o, 1, 1)
	if all, err := o.Next(1<<40, 9); err != nil || len(all) != 1 {
		t.Error("a number was used twice", all, err)
	}
}

func TestNewer(t *testing.T) {
	dir := t.TempDir()
	data, err := record(header{FormatVersion: formatVersion + 1, ID: "x", Next: 1})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, fileName), data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, 0); err == nil || !strings.Contains(err.Error(), "newer davit") {
		t.Error(err)
	}
}

func FuzzOpen(f *testing.F) {
	one, err := record(header{formatVersion, "x", 1, 0})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(one)
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileName), data, 0o600); err != nil {
			t.Fatal(err)
		}
		o, err := Open(dir, 0)
		if err != nil {
			return
		}
		n := o.Len()
		if err := o.Append(uplink.Event{Reason: "x"}); err != nil {
			t.Fatal(err)
		}
		if o.Len() != n+1 {
			t.Error("it was not kept")
		}
		_ = o.Close()
	})
}
