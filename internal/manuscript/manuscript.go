// Package manuscript reads what people write by hand, as YAML or JSON, and says of what
// cannot be read where it is and what was expected there. What is written there never gets
// into an error: it may be a secret.
package manuscript

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

// Reader reads a text into what into points to, as strictly as it likes. It looks at types
// and names of fields alone.
type Reader func(text []byte, into any) error

// Strict is a Reader that takes no field which the type does not have, and none twice.
func Strict(text []byte, into any) error { return yaml.UnmarshalStrict(text, into) }

// Read reads a text. Where the reader refuses it, the error names every field that it
// refuses, by its path, and what should be there; of what is no YAML, the line.
func Read(text []byte, into any, read Reader) error {
	if line := second(text); line > 0 {
		return fmt.Errorf("line %d begins a second YAML document, which nobody would read: leave one in it, and put each other into a file of its own", line)
	}
	err := read(text, into)
	if err == nil {
		return nil
	}
	whole, bad := yaml.YAMLToJSONStrict(text)
	if bad != nil {
		return syntax(bad)
	}
	var value any
	if json.Unmarshal(whole, &value) != nil {
		return err
	}
	s := search{read: read}
	s.look(value, reflect.TypeOf(into), "")
	if len(s.found) == 0 {
		return err
	}
	return errors.New(strings.Join(s.found, "; "))
}

// second is the line at which a second document begins, or 0. YAML's marks of documents
// count wherever a line begins with one, inside of quotes and blocks too.
func second(text []byte) int {
	content, begun, ended, n := false, false, 0, 0 // one that is begun and empty is one, too, and the only one that is read
	for line := range strings.SplitSeq(string(text), "\n") {
		n++
		mark, rest, _ := strings.Cut(strings.TrimRight(line, " \t\r"), " ")
		if mark == "---" || mark == "..." {
			if (content || begun) && ended == 0 {
				ended = n
			}
			begun = begun || mark == "---"
			line = rest
		}
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == '%' && !content {
			continue
		}
		if ended > 0 {
			return ended
		}
		content = true
	}
	return 0
}

// syntax says of what is no YAML where that is.
func syntax(err error) error {
	text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "unmarshal errors:")
	text = strings.Join(strings.Fields(text), " ")
	do := "look at indentation, colons and quotes there and right above"
	switch {
	case strings.Contains(text, "already set in map"):
		text, do = strings.Replace(text, "already set in map", "is there twice", 1), "leave one of them out"
	case strings.Contains(text, "cannot start any token"):
		do = "indent with spaces, not with tabs, and put quotes around what begins with @ or `"
	}
	return fmt.Errorf("it is no valid YAML: %s: %s", text, do)
}

// search goes down a value and the type that it should have side by side.
type search struct {
	read  Reader
	found []string
}

// look finds what of a value does not fit its type, as deep as it can tell.
func (s *search) look(value any, t reflect.Type, path string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if s.fits(value, t) {
		return
	}
	before := len(s.found)
	if !special(t) {
		s.parts(value, t, path)
	}
	if len(s.found) == before {
		if path == "" {
			path = "all of it"
		}
		s.found = append(s.found, fmt.Sprintf("%s: want %s, and it is %s", path, wanted(t), kindOf(value, t)))
	}
}

// parts looks at the fields and entries of a value.
func (s *search) parts(value any, t reflect.Type, path string) {
	switch v := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			at := strings.TrimPrefix(path+"."+key, ".")
			if of := fieldType(t, key); of != nil {
				s.look(v[key], of, at)
			} else if of := foldedType(t, key); of != nil && s.fits(map[string]any{key: reflect.Zero(of).Interface()}, t) {
				s.look(v[key], of, at) // a reader that does not mind the case of names
			} else if t.Kind() == reflect.Struct && !s.fits(map[string]any{key: nil}, t) {
				s.found = append(s.found, at+": there is no such field")
			}
		}
	case []any:
		if t.Kind() == reflect.Slice {
			for i := range v {
				s.look(v[i], t.Elem(), fmt.Sprintf("%s[%d]", path, i))
			}
		}
	}
}

func (s *search) fits(value any, t reflect.Type) bool {
	text, err := json.Marshal(value)
	return err == nil && s.read(text, reflect.New(t).Interface()) == nil
}

// special tells whether a type reads itself.
func special(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]())
}

// fieldType is that of a struct's field, or of a map's entry; nil for none.
func fieldType(t reflect.Type, key string) reflect.Type {
	if t.Kind() == reflect.Map {
		return t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			if of := fieldType(f.Type, key); of != nil {
				return of
			}
		case name == key, name == "" && strings.EqualFold(f.Name, key):
			return f.Type
		}
	}
	return nil
}

// foldedType is that of the struct's field whose name is the key but for its case.
func foldedType(t reflect.Type, key string) reflect.Type {
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			if of := foldedType(f.Type, key); of != nil {
				return of
			}
		} else if strings.EqualFold(name, key) {
			return f.Type
		}
	}
	return nil
}

// wanted says what a type takes.
func wanted(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[metav1.Duration]():
		return "a duration such as 30s, 5m or 1h30m"
	case reflect.TypeFor[metav1.Time](), reflect.TypeFor[metav1.MicroTime]():
		return "a time such as 2026-01-31T15:04:05Z"
	case reflect.TypeFor[intstr.IntOrString]():
		return "a whole number or a name"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false, without quotes"
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number, without quotes"
	case reflect.Float64:
		return "a number, without quotes"
	case reflect.String:
		return "text, in quotes where it looks like something else"
	case reflect.Slice:
		return "a list, each entry after a hyphen"
	}
	return "fields, each with a name and a colon"
}

// kindOf says what a value is, and not which.
func kindOf(value any, t reflect.Type) string {
	switch value.(type) {
	case nil:
		return "nothing"
	case bool:
		return "true or false"
	case float64:
		if t.Kind() == reflect.Int || t.Kind() == reflect.Int32 || t.Kind() == reflect.Int64 {
			return "another number"
		}
		return "a number"
	case string:
		if special(t) {
			return "another text"
		}
		return "text"
	case []any:
		return "a list"
	}
	return "fields"
}
