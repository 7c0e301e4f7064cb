// Command verdict reads what test runs reported as JSON. It says which of the
// tests that failed are run once more, and which the race detector has left to do; it sums up what came of it all, in
// which a test that passed only then is called unsteady. It also looks for the
// tests' secrets in all that they and the processes of theirs said.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// most failures that are run again: more at once are no chance.
const most = 2

// tables are tests whose subtests are tests of their own: each can be run alone,
// and all of them would take too long.
var tables = []string{"TestTogether", "TestAlone"}

// test is one of a package; an empty name is the package itself.
type test struct{ pkg, name string }

// unit is the test that is run again when this one failed: the whole one, for
// its subtests may build on each other.
func (t test) unit() test {
	parts := strings.Split(t.name, "/")
	if len(parts) > 1 && slices.Contains(tables, parts[0]) {
		return test{t.pkg, parts[0] + "/" + parts[1]}
	}
	return test{t.pkg, parts[0]}
}

func (t test) within(other test) bool {
	return t.pkg == other.pkg && (t.name == other.name || strings.HasPrefix(t.name, other.name+"/"))
}

// pattern is what `go test -run` takes for it.
func (t test) pattern() string {
	parts := strings.Split(t.name, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	return strings.Join(parts, "/")
}

// report is how each test of a run ended: pass, fail, skip, or "" when it did not.
type report struct {
	ended map[test]string
	// unfit are tests that spoke of the race detector.
	unfit map[test]bool
	// broken says what went wrong beside tests that found something.
	broken string
}

// broke are lines of output after which a run is not given a second chance: the
// program was stopped or raced, whatever a test says then, or a case was drawn that
// breaks a property, and a second run would draw others.
var broke = regexp.MustCompile(`^(panic: |fatal error: |WARNING: DATA RACE|\s+testing\.go:\d+: race detected|.*\[rapid\] (failed|panic|flaky))`)

// unfit is what a test says of it that is skipped because the race detector is in its program.
const unfit = "race detector"

func read(r io.Reader) (report, error) {
	all := report{ended: map[test]string{}, unfit: map[test]bool{}}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) == 0 && errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return all, fmt.Errorf("read report: %w", err)
		}
		var e struct{ Action, Package, ImportPath, Test, Output string }
		if err := json.Unmarshal(line, &e); err != nil {
			return all, fmt.Errorf("read report: %w", err)
		}
		t := test{e.Package, e.Test}
		switch e.Action {
		case "run", "start":
			all.ended[t] = ""
		case "pass", "fail", "skip":
			all.ended[t] = e.Action
		case "build-fail":
			all.broken = e.ImportPath + " was not built"
		case "output":
			if strings.Contains(e.Output, unfit) {
				all.unfit[t] = true
			}
			if all.broken == "" && broke.MatchString(e.Output) {
				all.broken = strings.TrimSpace(e.Output)
			}
		}
	}
}

func readFile(path string) (report, error) {
	f, err := os.Open(path)
	if err != nil {
		return report{}, fmt.Errorf("open report: %w", err)
	}
	defer f.Close()
	return read(f)
}

// found are the tests that failed by themselves, not by a subtest.
func (r report) found() []test {
	var found []test
	for t, how := range r.ended {
		if how == "fail" && t.name != "" && !r.below(t, "fail") {
			found = append(found, t)
		}
	}
	slices.SortFunc(found, func(a, b test) int { return strings.Compare(a.pkg+a.name, b.pkg+b.name) })
	return found
}

// below says whether a test has a subtest that ended so.
func (r report) below(t test, how string) bool {
	for other, ended := range r.ended {
		if ended == how && other != t && other.within(t) {
			return true
		}
	}
	return false
}

// again are the tests to run once more, or why there are none.
func (r report) again() ([]test, error) {
	if r.broken != "" {
		return nil, errors.New("nothing is run again: " + r.broken)
	}
	var units []test
	for _, t := range r.found() {
		if u := t.unit(); !slices.Contains(units, u) {
			units = append(units, u)
		}
	}
	for t, how := range r.ended {
		switch {
		case how == "" && t.name != "":
			return nil, fmt.Errorf("nothing is run again: %s %s did not end", t.pkg, t.name)
		case how == "fail" && t.name == "" && !slices.ContainsFunc(units, func(u test) bool { return u.pkg == t.pkg }):
			return nil, fmt.Errorf("nothing is run again: %s failed, and none of its tests did", t.pkg)
		}
	}
	if len(units) == 0 || len(units) > most {
		return nil, fmt.Errorf("nothing is run again: %d tests failed, and at most %d are given a second chance", len(units), most)
	}
	return units, nil
}

// left are the tests that were skipped for the race detector's sake, and have not run therefore.
func (r report) left() []test {
	var units []test
	for t, how := range r.ended {
		if u := t.unit(); how == "skip" && r.unfit[t] && !slices.Contains(units, u) {
			units = append(units, u)
		}
	}
	slices.SortFunc(units, func(a, b test) int { return strings.Compare(a.pkg+a.name, b.pkg+b.name) })
	return units
}

// amend puts a second run of a test in the place of its first one, when it passed.
func (r report) amend(u test, second report) bool {
	if second.broken != "" || second.ended[u] != "pass" {
		return false
	}
	for t := range r.ended {
		if t.within(u) {
			delete(r.ended, t)
		}
	}
	for t, how := range second.ended {
		if t.within(u) {
			r.ended[t] = how
		}
	}
	// What contains it failed only by it, when nothing else in there failed.
	if parent, _, is := strings.Cut(u.name, "/"); is {
		if p := (test{u.pkg, parent}); r.ended[p] == "fail" && !r.below(p, "fail") {
			r.ended[p] = "pass"
		}
	}
	return true
}

// total is what came of all suites.
type total struct {
	passed, failed, skipped int
	unsteady                []test
}

// sum reads the reports NAME.json of a directory, and what was run again, which
// is in NAME.again-1.json and so on.
func sum(dir string) (total, error) {
	var all total
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return all, fmt.Errorf("find reports: %w", err)
	}
	for _, file := range files {
		if strings.Contains(filepath.Base(file), ".again-") {
			continue
		}
		first, err := readFile(file)
		if err != nil {
			return all, err
		}
		seconds, err := filepath.Glob(strings.TrimSuffix(file, ".json") + ".again-*.json")
		if err != nil {
			return all, fmt.Errorf("find reports: %w", err)
		}
		units, _ := first.again() // without any, there are no second reports
		for _, name := range seconds {
			second, err := readFile(name)
			if err != nil {
				return all, err
			}
			for _, u := range units {
				if first.amend(u, second) {
					all.unsteady = append(all.unsteady, u)
				}
			}
		}
		all.add(first)
	}
	return all, nil
}

func (s *total) add(r report) {
	for t, how := range r.ended {
		switch {
		case t.name == "":
		case how == "pass":
			s.passed++
		case how == "skip":
			s.skipped++
		default: // also what did not end
			s.failed++
		}
	}
}

func (s *total) print(w io.Writer) {
	for _, t := range s.unsteady {
		fmt.Fprintf(w, "unsteady: %s %s failed, and passed when it was run again: mend it in the next change\n", t.pkg, t.name)
	}
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped", s.passed, s.failed, s.skipped)
	if n := len(s.unsteady); n > 0 {
		fmt.Fprintf(w, ", %d of the passed UNSTEADY", n)
	}
	fmt.Fprintln(w)
}

// list writes the package of each test and its pattern.
func list(out io.Writer, tests []test) {
	for _, t := range tests {
		fmt.Fprintln(out, t.pkg, t.pattern())
	}
}

func run(args []string, out io.Writer) error {
	switch {
	case len(args) == 2 && args[0] == "again":
		r, err := readFile(args[1])
		if err != nil {
			return err
		}
		units, err := r.again()
		if err != nil {
			return err
		}
		list(out, units)
		return nil
	case len(args) == 2 && args[0] == "left":
		r, err := readFile(args[1])
		if err != nil {
			return err
		}
		list(out, r.left())
		return nil
	case len(args) == 2 && args[0] == "sum":
		all, err := sum(args[1])
		if err != nil {
			return err
		}
		all.print(out)
		if all.failed > 0 {
			return fmt.Errorf("%d tests failed", all.failed)
		}
		return nil
	}
	if len(args) >= 2 && args[0] == "secrets" {
		return seek(args[1], args[2:], out)
	}
	return errors.New("usage: verdict again REPORT | verdict left REPORT | verdict sum DIRECTORY | verdict secrets DIRECTORY [LOGS...]")
}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
