package rehearse

import (
	"fmt"
	"reflect"

	"github.com/pmezard/go-difflib/difflib"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"davit.dev/davit/internal/restore/shape"
)

// maxLines bounds what is compared line by line: comparing takes the square.
const maxLines = 20_000

// Diff is a unified diff between two documents, as YAML, without what is in a
// Secret: of that it says only which entries differ. It is empty when they are
// the same.
func Diff(kind schema.GroupKind, before, after shape.Document) string {
	if kind == shape.KindSecret {
		before, after = runtime.DeepCopyJSON(before), runtime.DeepCopyJSON(after)
		hide(before, after)
	}
	a, err := yaml.Marshal(before)
	if err != nil {
		return ""
	}
	b, err := yaml.Marshal(after)
	if err != nil || string(a) == string(b) {
		return ""
	}
	x, y := difflib.SplitLines(string(a)), difflib.SplitLines(string(b))
	if len(x)+len(y) > maxLines {
		return fmt.Sprintf("(too long to compare: %d and %d lines)\n", len(x), len(y))
	}
	text, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{A: x, B: y, FromFile: "here", ToFile: "restored", Context: 3})
	if err != nil {
		return ""
	}
	return text
}

// What is shown in the place of a Secret's values. They are never hashed: short
// passwords could be found by trying.
const (
	hidden  = "(hidden)"
	differs = "(hidden, differs)"
)

// hide replaces what may be secret in both, so that what is equal stays equal.
func hide(before, after shape.Document) {
	for _, field := range []string{"data", "stringData"} {
		for _, d := range []shape.Document{before, after} {
			if _, ok := d[field].(map[string]any); !ok && d[field] != nil {
				d[field] = hidden
			}
		}
		hideMap(shape.Child(before, field), shape.Child(after, field))
	}
	hideMap(secretNotes(before), secretNotes(after))
	for _, d := range []shape.Document{before, after} {
		for k := range d {
			if _, known := shown[k]; !known {
				d[k] = hidden // a field that no Secret has
			}
		}
	}
}

var shown = map[string]struct{}{"apiVersion": {}, "kind": {}, "metadata": {}, "type": {}, "immutable": {}, "data": {}, "stringData": {}}

// secretNotes are annotations: tools keep whole objects in them.
func secretNotes(d shape.Document) shape.Document { return shape.Child(d, "metadata", "annotations") }

func hideMap(before, after shape.Document) {
	for k, v := range after {
		was, both := before[k]
		after[k] = hidden
		if both && !reflect.DeepEqual(was, v) {
			after[k] = differs
		}
	}
	for k := range before {
		before[k] = hidden
	}
}
