package output

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"davit.dev/davit/internal/command"
)

// Text collects what people read.
type Text struct {
	// Wide asks for the columns that -o wide adds.
	Wide bool
	b    strings.Builder
	asIs []span
}

// span is a part of the text.
type span struct{ from, until int }

// String is the text so far.
func (t *Text) String() string { return t.b.String() }

// AsIs adds what somebody else wrote, line by line: no word of it is taken for a command.
func (t *Text) AsIs(indent, text string) {
	from := t.b.Len()
	for line := range strings.Lines(text) {
		t.Line("%s%s", indent, strings.TrimSuffix(line, "\n"))
	}
	t.asIs = append(t.asIs, span{from, t.b.Len()})
}

// named is the text with commands named as those of program.
func (t *Text) named(program string) string {
	var all strings.Builder
	text, at := t.b.String(), 0
	for _, s := range t.asIs {
		all.WriteString(command.Named(program, text[at:s.from]) + text[s.from:s.until])
		at = s.until
	}
	return all.String() + command.Named(program, text[at:])
}

// Line adds a line. It may hold several.
func (t *Text) Line(format string, args ...any) {
	t.b.WriteString(strings.TrimRight(fmt.Sprintf(format, args...), " "))
	t.b.WriteByte('\n')
}

// Section adds a heading, apart from what stands above it.
func (t *Text) Section(title string) {
	if t.b.Len() > 0 {
		t.b.WriteByte('\n')
	}
	t.Line("%s", title)
}

// Fields adds aligned "name  value" lines; those with an empty value are left
// out. pairs alternates names and values.
func (t *Text) Fields(indent string, pairs ...string) {
	width := 0
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			width = max(width, utf8.RuneCountInString(pairs[i]))
		}
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			t.Line("%s%s  %s", indent, pad(pairs[i], width), pairs[i+1])
		}
	}
}

// Column is a column of a table.
type Column struct {
	Name string
	// Wide columns are shown with -o wide only.
	Wide bool
	// Right aligns numbers.
	Right bool
}

// Columns makes narrow, left-aligned columns of names; a "+" before a name
// makes it wide, a ">" right-aligned.
func Columns(names ...string) []Column {
	columns := make([]Column, len(names))
	for i, name := range names {
		c := Column{}
		if c.Wide = strings.HasPrefix(name, "+"); c.Wide {
			name = name[1:]
		}
		if c.Right = strings.HasPrefix(name, ">"); c.Right {
			name = name[1:]
		}
		c.Name = name
		columns[i] = c
	}
	return columns
}

// Table adds a table. Rows have a cell for each column, the wide ones
// included; an empty cell becomes "-".
func (t *Text) Table(indent string, columns []Column, rows [][]string) {
	header := make([]string, len(columns))
	for i, c := range columns {
		header[i] = c.Name
	}
	all := append([][]string{header}, rows...)
	widths := make([]int, len(columns))
	for _, row := range all {
		for i := range columns {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell(row, i)))
		}
	}
	for _, row := range all {
		t.Line("%s", indent+t.row(columns, widths, row))
	}
}

func (t *Text) row(columns []Column, widths []int, row []string) string {
	var cells []string
	for i, c := range columns {
		switch {
		case c.Wide && !t.Wide:
		case c.Right:
			cells = append(cells, strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell(row, i)))+cell(row, i))
		default:
			cells = append(cells, pad(cell(row, i), widths[i]))
		}
	}
	return strings.Join(cells, "  ")
}

func cell(row []string, i int) string {
	if i >= len(row) || row[i] == "" {
		return "-"
	}
	return row[i]
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(width-utf8.RuneCountInString(s), 0))
}
