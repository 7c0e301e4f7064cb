package shape

import (
	"fmt"

	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// Document is an API object as JSON has it. Accessors below take whatever is
// there: outside data may have any shape and never makes them panic.
type Document = map[string]any

// Child returns the map under the keys, or nil.
func Child(d Document, keys ...string) Document {
	for _, k := range keys {
		next, ok := d[k].(map[string]any)
		if !ok {
			return nil
		}
		d = next
	}
	return d
}

// Items returns the maps in the list under the keys.
func Items(d Document, keys ...string) []Document {
	if len(keys) == 0 {
		return nil
	}
	list, _ := Child(d, keys[:len(keys)-1]...)[keys[len(keys)-1]].([]any)
	var all []Document
	for _, v := range list {
		if m, ok := v.(map[string]any); ok {
			all = append(all, m)
		}
	}
	return all
}

// Text returns the string under the keys, or nothing.
func Text(d Document, keys ...string) string {
	if len(keys) == 0 {
		return ""
	}
	s, _ := Child(d, keys[:len(keys)-1]...)[keys[len(keys)-1]].(string)
	return s
}

// Number returns the whole number under the keys.
func Number(d Document, keys ...string) (int64, bool) {
	if len(keys) == 0 {
		return 0, false
	}
	switch n := Child(d, keys[:len(keys)-1]...)[keys[len(keys)-1]].(type) {
	case int64:
		return n, true
	case float64:
		return int64(n), true
	}
	return 0, false
}

// Drop removes fields from the map under the keys.
func Drop(d Document, keys []string, fields ...string) {
	m := Child(d, keys...)
	for _, f := range fields {
		delete(m, f)
	}
}

// DropEmpty removes a map or list that has nothing in it any more.
func DropEmpty(d Document, field string) {
	switch v := d[field].(type) {
	case map[string]any:
		if len(v) == 0 {
			delete(d, field)
		}
	case []any:
		if len(v) == 0 {
			delete(d, field)
		}
	}
}

// Decode reads an object with whole numbers kept whole.
func Decode(raw []byte) (Document, error) {
	var d Document
	if err := utiljson.Unmarshal(raw, &d); err != nil {
		return nil, fmt.Errorf("decode object: %w", err)
	}
	if Child(d, "metadata") == nil {
		return nil, fmt.Errorf("decode object: no metadata in %.80q", raw)
	}
	return d, nil
}

// Merge applies a JSON merge patch: null removes.
func Merge(into, patch Document) {
	for k, v := range patch {
		if v == nil {
			delete(into, k)
			continue
		}
		change, ok := v.(map[string]any)
		if !ok {
			into[k] = v
			continue
		}
		m, ok := into[k].(map[string]any)
		if !ok {
			m = Document{}
			into[k] = m
		}
		Merge(m, change)
	}
}

// OfVault adds to labels which Vault an object is from, if that is known.
func OfVault(labels Document, vault string) {
	if vault != "" {
		labels[LabelVault] = vault
	}
}
