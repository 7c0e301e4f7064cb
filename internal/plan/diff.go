package plan

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Change is one difference between two plans.
type Change struct {
	Path string // `steps[warm-up].timeout`
	Old  string // empty where it was added
	New  string // empty where it was removed
}

// String shows the change as a line.
func (c Change) String() string {
	switch {
	case c.Old == "":
		return "+ " + c.Path + ": " + c.New
	case c.New == "":
		return "- " + c.Path + ": " + c.Old
	}
	return "~ " + c.Path + ": " + c.Old + " → " + c.New
}

// Diff returns what differs between two plans, sorted by path. Parts with
// names are compared by name, whatever their order.
func Diff(old, now *Plan) []Change {
	before, after := map[string]string{}, map[string]string{}
	flatten("", reflect.ValueOf(*old), before)
	flatten("", reflect.ValueOf(*now), after)
	var changes []Change
	for path, was := range before {
		if is := after[path]; is != was {
			changes = append(changes, Change{path, was, is})
		}
	}
	for path, is := range after {
		if _, had := before[path]; !had {
			changes = append(changes, Change{path, "", is})
		}
	}
	slices.SortFunc(changes, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return changes
}

// flatten writes every leaf of a plan that is set into a map, by its path.
func flatten(path string, v reflect.Value, into map[string]string) {
	switch {
	case v.Type() == reflect.TypeFor[time.Duration]():
		if v.Int() != 0 {
			into[path] = span(time.Duration(v.Int()))
		}
		return
	case v.IsZero():
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		flatten(path, v.Elem(), into)
	case reflect.Struct:
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			flatten(strings.TrimPrefix(path+"."+name, "."), v.Field(i), into)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			flatten(fmt.Sprintf("%s[%s]", path, key), v.MapIndex(key), into)
		}
	case reflect.Slice:
		flattenList(path, v, into)
	default:
		into[path] = fmt.Sprint(v.Interface())
	}
}

// flattenList keys elements by name, or by what they are, or by their place.
func flattenList(path string, v reflect.Value, into map[string]string) {
	for i := range v.Len() {
		e := v.Index(i)
		switch {
		case e.Kind() == reflect.Struct && e.FieldByName("Name").IsValid():
			flatten(fmt.Sprintf("%s[%s]", path, e.FieldByName("Name")), e, into)
		case e.Kind() == reflect.String && !strings.HasSuffix(path, ".args"):
			into[fmt.Sprintf("%s[%s]", path, e)] = "yes"
		default:
			flatten(fmt.Sprintf("%s[%d]", path, i), e, into)
		}
	}
}
