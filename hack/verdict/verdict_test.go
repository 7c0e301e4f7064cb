package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// events are a report in short: "pass TestA" for one test of package p, or a
// line of output after "says".
func events(short ...string) string {
	var b strings.Builder
	for _, s := range short {
		action, what, _ := strings.Cut(s, " ")
		switch action {
		case "says":
			fmt.Fprintf(&b, "{\"Action\":\"output\",\"Package\":\"p\",\"Output\":%q}\n", what+"\n")
		case "build-fail":
			fmt.Fprintf(&b, "{\"Action\":\"build-fail\",\"ImportPath\":%q}\n", what)
		default:
			if what != "" && action != "run" {
				fmt.Fprintf(&b, "{\"Action\":\"run\",\"Package\":\"p\",\"Test\":%q}\n", what)
			}
			fmt.Fprintf(&b, "{\"Action\":%q,\"Package\":\"p\",\"Test\":%q}\n", action, what)
		}
	}
	return b.String()
}

// TestAgain: what failed by itself is run again, as a whole; what broke the run
// is not, nor more than two.
func TestAgain(t *testing.T) {
	for name, tt := range map[string]struct {
		events  []string
		want    string
		refused string
	}{
		"a test":               {events: []string{"fail TestA", "pass TestB", "fail "}, want: "p ^TestA$\n"},
		"of a table":           {events: []string{"fail TestTogether/X", "pass TestTogether/Y", "fail TestTogether", "fail "}, want: "p ^TestTogether$/^X$\n"},
		"deep in a table":      {events: []string{"fail TestAlone/X/a/b", "fail TestAlone/X/a", "fail TestAlone/X", "fail TestAlone", "fail "}, want: "p ^TestAlone$/^X$\n"},
		"a step of a test":     {events: []string{"fail TestA/2", "fail TestA", "fail "}, want: "p ^TestA$\n"},
		"two steps of one":     {events: []string{"fail TestA/1", "fail TestA/2", "fail TestA/3", "fail TestA", "fail "}, want: "p ^TestA$\n"},
		"two":                  {events: []string{"fail TestAlone/X", "fail TestAlone", "fail TestB", "fail "}, want: "p ^TestAlone$/^X$\np ^TestB$\n"},
		"three":                {events: []string{"fail TestA", "fail TestB", "fail TestC", "fail "}, refused: "3 tests failed"},
		"none":                 {events: []string{"pass TestA", "fail "}, refused: "none of its tests did"},
		"not built":            {events: []string{"fail TestA", "build-fail q", "fail "}, refused: "q was not built"},
		"panic":                {events: []string{"fail TestA", "says panic: oh", "fail "}, refused: "panic: oh"},
		"race":                 {events: []string{"fail TestA", "says WARNING: DATA RACE", "fail "}, refused: "DATA RACE"},
		"a property":           {events: []string{"fail TestA", "says     engine.go:313: [rapid] failed after 7 tests: x", "fail "}, refused: "[rapid] failed"},
		"out of time":          {events: []string{"fail TestA", "run TestB", "fail "}, refused: "TestB did not end"},
		"a name like another":  {events: []string{"fail TestAB", "pass TestA", "fail "}, want: "p ^TestAB$\n"},
		"a name that is regex": {events: []string{"fail TestAlone/a.b", "fail TestAlone", "fail "}, want: "p ^TestAlone$/^a\\.b$\n"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "r.json")
			write(t, file, events(tt.events...))
			var out bytes.Buffer
			err := run([]string{"again", file}, &out)
			if tt.refused != "" {
				if err == nil || !strings.Contains(err.Error(), tt.refused) || out.Len() > 0 {
					t.Fatalf("got %q, %v, want a refusal with %q", out.String(), err, tt.refused)
				}
				return
			}
			if err != nil || out.String() != tt.want {
				t.Fatalf("got %q, %v, want %q", out.String(), err, tt.want)
			}
		})
	}
}

// TestLeft: what was skipped for the race detector's sake is left to do, and nothing else.
func TestLeft(t *testing.T) {
	file := filepath.Join(t.TempDir(), "r.json")
	said := func(test, what string) string {
		return fmt.Sprintf("{\"Action\":\"output\",\"Package\":\"p\",\"Test\":%q,\"Output\":%q}\n", test, what+"\n")
	}
	write(t, file, events("pass TestA", "skip TestB", "skip TestC", "skip TestD/1", "pass TestD", "pass ")+
		said("TestA", "the race detector found nothing")+said("TestB", "no cluster")+
		said("TestC", "    x_test.go:1: the race detector keeps too much")+said("TestD/1", "not for the race detector"))
	var out bytes.Buffer
	if err := run([]string{"left", file}, &out); err != nil || out.String() != "p ^TestC$\np ^TestD$\n" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}

// TestSum: a test that passed in its second run passed, and is told; one that
// failed twice failed, and so did one whose second run was of nothing.
func TestSum(t *testing.T) {
	first := []string{"pass TestA", "fail TestAlone/X/a", "fail TestAlone/X", "pass TestAlone/Y", "fail TestAlone", "skip TestB", "fail "}
	const told = "unsteady: p TestAlone/X failed, and passed when it was run again: mend it in the next change\n"
	for name, tt := range map[string]struct {
		first, second []string
		want          string
		failed        bool
	}{
		"all passed":   {first: []string{"pass TestA", "pass "}, want: "1 passed, 0 failed, 0 skipped\n"},
		"not again":    {first: first, want: "2 passed, 3 failed, 1 skipped\n", failed: true},
		"passed again": {first: first, second: []string{"pass TestAlone/X/a", "pass TestAlone/X", "pass TestAlone", "pass "}, want: told + "5 passed, 0 failed, 1 skipped, 1 of the passed UNSTEADY\n"},
		"failed again": {first: first, second: []string{"fail TestAlone/X/a", "fail TestAlone/X", "fail TestAlone", "fail "}, want: "2 passed, 3 failed, 1 skipped\n", failed: true},
		"nothing ran":  {first: first, second: []string{"pass "}, want: "2 passed, 3 failed, 1 skipped\n", failed: true},
		"skipped then": {first: first, second: []string{"skip TestAlone/X", "pass TestAlone", "pass "}, want: "2 passed, 3 failed, 1 skipped\n", failed: true},
		"raced then":   {first: first, second: []string{"pass TestAlone/X", "says WARNING: DATA RACE", "pass "}, want: "2 passed, 3 failed, 1 skipped\n", failed: true},
		"did not end":  {first: []string{"run TestA"}, want: "0 passed, 1 failed, 0 skipped\n", failed: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "suite.json"), events(tt.first...))
			if tt.second != nil {
				write(t, filepath.Join(dir, "suite.again-1.json"), events(tt.second...))
			}
			var out bytes.Buffer
			if err := run([]string{"sum", dir}, &out); (err != nil) != tt.failed || out.String() != tt.want {
				t.Fatalf("got %q, %v, want %q", out.String(), err, tt.want)
			}
		})
	}
}

// TestSumOfTwo: one of two that failed passes; the table it is in stays failed.
func TestSumOfTwo(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "s.json"), events("fail TestAlone/X", "fail TestAlone/Y", "fail TestAlone", "fail "))
	write(t, filepath.Join(dir, "s.again-1.json"), events("pass TestAlone/X", "pass TestAlone", "pass "))
	write(t, filepath.Join(dir, "s.again-2.json"), events("fail TestAlone/Y", "fail TestAlone", "fail "))
	got, err := sum(dir)
	if err != nil || got.passed != 1 || got.failed != 2 || len(got.unsteady) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	mkdir(t, filepath.Dir(file))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// FuzzRead: whatever a report holds, it is read or refused.
func FuzzRead(f *testing.F) {
	f.Add(events("fail TestAlone/X", "says panic: x", "fail "))
	f.Fuzz(func(_ *testing.T, text string) {
		if r, err := read(strings.NewReader(text)); err == nil {
			_, _ = r.again()
		}
	})
}
