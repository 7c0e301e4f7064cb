// Package output decides how commands talk: to people and to scripts, on a
// terminal and elsewhere.
//
// The rules, for every command:
//
//   - Standard output carries the result and nothing else: a table or text for
//     people, one JSON or YAML document for scripts (-o json, -o yaml).
//   - Standard error carries progress, warnings, errors and hints.
//   - On a terminal progress is one line that changes in place; elsewhere each
//     step is a line of its own, so that a log of it can be read.
//   - Nothing is coloured, nothing is asked unless standard input is a terminal.
//   - Times are UTC in documents; tables show ages, rounded, and wide tables
//     both. An empty cell is "-".
//   - An error says what was wrong and where; a line "hint:" says what to do next.
//   - What people read names commands as they type them, although whoever wrote the
//     text left the program's name out: package command puts it there.
//   - No secret is ever printed: not a key, not a credential, not a token.
package output

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// Format is how a result is printed.
type Format string

// The formats.
const (
	Table Format = "table"
	Wide  Format = "wide"
	JSON  Format = "json"
	YAML  Format = "yaml"
	Name  Format = "name"
)

// Formats are all formats, for completion and messages.
var Formats = []string{string(Table), string(Wide), string(JSON), string(YAML), string(Name)}

// ParseFormat reads the value of -o.
func ParseFormat(s string) (Format, error) {
	if !slices.Contains(Formats, s) {
		return "", fmt.Errorf("output format %q is not one of %s", s, strings.Join(Formats, ", "))
	}
	return Format(s), nil
}

// Result is what a command found or did.
type Result interface {
	// Text writes the result for people.
	Text(t *Text)
	// Document is the result for scripts: it encodes to JSON, and its field
	// names are kept from release to release.
	Document() any
}

// names is the annotation of commands whose results have names.
const names = "davit.dev/names"

// WithNames marks commands: what they print is Named.
func WithNames(all ...*cobra.Command) {
	for _, cmd := range all {
		if cmd.Annotations == nil {
			cmd.Annotations = map[string]string{}
		}
		cmd.Annotations[names] = "yes"
	}
}

// Check refuses a value of -o that the command cannot print, before it does anything.
func Check(cmd *cobra.Command, format string) error {
	f, err := ParseFormat(format)
	if err == nil && f == Name && cmd.Annotations[names] == "" {
		return nameless(cmd.CommandPath() + " prints")
	}
	return err
}

func nameless(what string) error {
	return fmt.Errorf("-o name: what %s has no names, use one of %s", what, strings.Join(Formats[:len(Formats)-1], ", "))
}

// Named is a result of things that have names.
type Named interface {
	// Names are KIND/NAME, as commands take them.
	Names() []string
}

// Printer prints results in one format.
type Printer interface {
	Print(r Result) error
}

// NewPrinter returns the printer of a format, which writes to w. For people it names
// commands as they called the program.
func NewPrinter(format Format, program string, w io.Writer) Printer {
	switch format {
	case JSON:
		return jsonPrinter{w}
	case YAML:
		return yamlPrinter{w}
	case Name:
		return namePrinter{w}
	case Wide:
		return textPrinter{w: w, program: program, wide: true}
	default:
		return textPrinter{w: w, program: program}
	}
}

type textPrinter struct {
	w       io.Writer
	program string
	wide    bool
}

func (p textPrinter) Print(r Result) error {
	t := &Text{Wide: p.wide}
	r.Text(t)
	return write(p.w, []byte(t.named(p.program)))
}

type namePrinter struct{ w io.Writer }

func (p namePrinter) Print(r Result) error {
	named, ok := r.(Named)
	if !ok {
		return nameless("this command prints")
	}
	var text strings.Builder
	for _, name := range named.Names() {
		fmt.Fprintln(&text, name)
	}
	return write(p.w, []byte(text.String()))
}

type jsonPrinter struct{ w io.Writer }

func (p jsonPrinter) Print(r Result) error {
	data, err := json.MarshalIndent(r.Document(), "", "  ")
	if err != nil {
		return fmt.Errorf("encode result: %w", err)
	}
	return write(p.w, append(data, '\n'))
}

type yamlPrinter struct{ w io.Writer }

func (p yamlPrinter) Print(r Result) error {
	if docs, ok := r.Document().(Documents); ok {
		return p.printAll(docs)
	}
	data, err := yaml.Marshal(r.Document())
	if err != nil {
		return fmt.Errorf("encode result: %w", err)
	}
	return write(p.w, data)
}

func (p yamlPrinter) printAll(docs Documents) error {
	for _, doc := range docs {
		data, err := yaml.Marshal(doc)
		if err != nil {
			return fmt.Errorf("encode result: %w", err)
		}
		if err := write(p.w, append([]byte("---\n"), data...)); err != nil {
			return err
		}
	}
	return nil
}

// Documents are several API objects: a list in JSON, a stream that kubectl
// apply takes in YAML.
type Documents []any

func write(w io.Writer, data []byte) error {
	if _, err := w.Write(data); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}
