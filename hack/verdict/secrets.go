package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// planted are the secrets of the tests' fixtures, or a part of them that nothing else has:
// passwords, vault keys, values of Secrets, what a login provider knows a console by.
// Fixtures use one of these, so that it is found wherever it comes out.
var planted = []string{
	"horse battery", "horse-battery", "battery-staple", "hunter2hunter2", "planted-secret", "planted-client-secret", "Xk29-planted-Value",
}

// shapes are secrets that are made while tests run, by what they look like.
var shapes = regexp.MustCompile(`AGE-SECRET-KEY-1[0-9A-Z]{50}` +
	`|davit_(session|robot)_[0-9A-Za-z_-]{30}` +
	`|davit_enrol_[^_\s]+_[0-9a-f]{16}_[0-9a-f]{64}` +
	`|otpauth:(//|%2F%2F)` +
	`|-----BEGIN [A-Z ]*PRIVATE KEY-----\S{0,4}[A-Za-z0-9+/]{40}` +
	`|eyJ[0-9A-Za-z_-]{20,}\.eyJ[0-9A-Za-z_-]{20,}\.[0-9A-Za-z_-]{40}`) // a service account's token

// window is how much of a secret, in bytes, is looked up at once; shorter ones are none.
const window = 8

// needles find secrets, plain or encoded, by the bytes that they begin with.
type needles map[[window]byte][]string

func (n needles) add(form string) {
	if len(form) < window {
		return
	}
	at := [window]byte([]byte(form))
	if !slices.Contains(n[at], form) {
		n[at] = append(n[at], form)
	}
}

// plant has a secret be found as it is and in hex, in what URLs and JSON make of it, and in
// base64, where it may begin at any byte of what was encoded.
func (n needles) plant(secret string) {
	n.add(secret)
	n.add(url.QueryEscape(secret))
	n.add(url.PathEscape(secret))
	n.add(hex.EncodeToString([]byte(secret)))
	n.add(strings.ToUpper(hex.EncodeToString([]byte(secret))))
	if quoted, err := json.Marshal(secret); err == nil {
		n.add(strings.Trim(string(quoted), `"`))
	}
	for before := range 3 {
		text := append(make([]byte, before), secret...)
		whole := len(text) / 3 * 4 // what comes after does not change these
		for _, e := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			n.add(e.EncodeToString(text)[(before*8+5)/6 : whole])
		}
	}
}

// in returns what of a secret is in a text; empty: nothing.
func (n needles) in(text []byte) string {
	for i := 0; i+window <= len(text); i++ {
		for _, form := range n[[window]byte(text[i:])] {
			if bytes.HasPrefix(text[i:], []byte(form)) {
				return form
			}
		}
	}
	return string(shapes.Find(text))
}

// Files beside the reports of a run: secrets that are known to its machine alone, one a
// line, and what processes said that tests began.
const (
	plantedFile = "planted"
	saidDir     = "said"
)

func newNeedles(dir string) (needles, error) {
	n := needles{}
	for _, secret := range planted {
		n.plant(secret)
	}
	text, err := os.ReadFile(filepath.Join(dir, plantedFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return n, fmt.Errorf("read what was planted: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		n.plant(strings.TrimSpace(line))
	}
	return n, nil
}

// mostLeaks is how many are told of one place: the first one says enough.
const mostLeaks = 3

// leaks finds secrets in reports and logs.
type leaks struct {
	needles
	out   io.Writer
	count map[string]int // by place
}

// tell says where a secret was found, and not the secret: these lines are kept, too.
func (l *leaks) tell(place string, line int, form string) {
	if l.count[place]++; l.count[place] <= mostLeaks {
		fmt.Fprintf(l.out, "secret: %s, line %d: %.4s…\n", place, line, form)
	}
}

// report looks through what tests printed.
func (l *leaks) report(r io.Reader) error {
	lines := bufio.NewReader(r)
	said := map[test]int{} // lines of output, by test
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) == 0 && errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read report: %w", err)
		}
		var e struct{ Action, Package, Test, Output string }
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("read report: %w", err)
		}
		if e.Action != "output" && e.Action != "build-output" {
			continue
		}
		t := test{e.Package, e.Test}
		said[t]++
		if form := l.in([]byte(e.Output)); form != "" {
			l.tell(strings.TrimSpace(t.pkg+" "+t.name), said[t], form)
		}
	}
}

// maxLine bounds how much of a log is looked at at once, and overlap is what of it is
// looked at again with what follows.
const (
	maxLine = 1 << 20
	overlap = 4 << 10
)

func (l *leaks) log(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	defer f.Close()
	lines, n := bufio.NewReaderSize(f, maxLine), 1
	var before []byte
	for {
		part, err := lines.ReadSlice('\n')
		text := append(before, part...)
		if form := l.in(text); form != "" {
			l.tell(path, n, form)
			before = nil
		} else if errors.Is(err, bufio.ErrBufferFull) { // the secret may be cut
			before = slices.Clone(text[max(0, len(text)-overlap):])
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read log: %w", err)
		default:
			n, before = n+1, nil
		}
	}
}

// logs looks through the files in a place. What goes while it is read is not there.
func (l *leaks) logs(place string) error {
	err := filepath.WalkDir(place, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		return l.log(path)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// seek looks for secrets in the reports of a directory and what processes said there, or,
// when there are any, in other places alone.
func seek(dir string, places []string, out io.Writer) error {
	n, err := newNeedles(dir)
	if err != nil {
		return err
	}
	l := &leaks{needles: n, out: out, count: map[string]int{}}
	if len(places) == 0 {
		places = []string{filepath.Join(dir, saidDir)}
		reports, err := filepath.Glob(filepath.Join(dir, "*.json"))
		if err != nil {
			return fmt.Errorf("find reports: %w", err)
		}
		for _, path := range reports {
			if err := l.reportFile(path); err != nil {
				return err
			}
		}
	}
	for _, place := range places {
		if err := l.logs(place); err != nil {
			return err
		}
	}
	if len(l.count) > 0 {
		return fmt.Errorf("secrets came out in %d places", len(l.count))
	}
	return nil
}

func (l *leaks) reportFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open report: %w", err)
	}
	defer f.Close()
	return l.report(f)
}
