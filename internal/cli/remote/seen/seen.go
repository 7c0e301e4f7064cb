// Package seen shows what a console knows of a fleet in the form of documents.
package seen

import (
	"strings"

	"davit.dev/davit/internal/cli/output"
)

// Object is something of a fleet in the form of a document: all that is known of it
// is its status.
type Object struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   Metadata `json:"metadata"`
	Status     any      `json:"status"`
	// Cells are its row in the table.
	Cells []string `json:"-"`
}

// Metadata names it.
type Metadata struct {
	Name string `json:"name"`
}

// Objects are what `get` shows of a fleet.
type Objects struct {
	Items   []Object
	Columns []output.Column
	One     bool // it was asked for by name
}

// Document implements output.Result: the object, or a list of objects.
func (o Objects) Document() any {
	if o.One && len(o.Items) == 1 {
		return o.Items[0]
	}
	return map[string]any{"apiVersion": "v1", "kind": "List", "items": append([]Object{}, o.Items...)}
}

// Names implements output.Named.
func (o Objects) Names() (all []string) {
	for _, one := range o.Items {
		all = append(all, strings.ToLower(one.Kind)+"/"+one.Metadata.Name)
	}
	return all
}

// Text implements output.Result.
func (o Objects) Text(t *output.Text) {
	if len(o.Items) == 0 {
		t.Line("The console knows of none.")
		return
	}
	var rows [][]string
	for _, one := range o.Items {
		rows = append(rows, one.Cells)
	}
	t.Table("", o.Columns, rows)
}
