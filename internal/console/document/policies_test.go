package document

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"davit.dev/davit/api/v1alpha1"
)

// docs/policies.md shows every field of a policy, and what it shows is valid.
func TestPolicyOfTheDocumentation(t *testing.T) {
	page, err := os.ReadFile("../../../docs/policies.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "```yaml\n")
	text, _, ok := strings.Cut(text, "```\n")
	if !ok {
		t.Fatal("it shows no policy")
	}
	d, err := Parse(t.Context(), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var body struct{ Spec any }
	if err := json.Unmarshal(d.Body, &body); err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	collect(body.Spec, "", shown)
	var missing []string
	for _, path := range fields(reflect.TypeFor[v1alpha1.ProtectionPolicySpec](), "") {
		if !shown[path] {
			missing = append(missing, path)
		}
	}
	// Of two that exclude each other one is a comment.
	slices.Sort(missing)
	if want := []string{".restoreTest.cron", ".schedule.cron", ".verify.every"}; !slices.Equal(missing, want) {
		t.Errorf("it does not show %v, want %v", missing, want)
	}
	for _, comment := range []string{"# cron: \"*/15", "# every: 24h", "# cron: \"0 4"} {
		if !strings.Contains(text, comment) {
			t.Errorf("it has no comment %s", comment)
		}
	}
}

// collect notes the paths of all fields of a document; those of all items of a list
// are one.
func collect(v any, path string, into map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			into[path+"."+name] = true
			collect(value, path+"."+name, into)
		}
	case []any:
		for _, item := range v {
			collect(item, path, into)
		}
	}
}

// fields are the paths of all fields of a type of Davit's.
func fields(t reflect.Type, path string) (all []string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t.PkgPath() != reflect.TypeFor[v1alpha1.ProtectionPolicy]().PkgPath() {
		return nil
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			all = append(all, fields(f.Type, path)...)
			continue
		}
		all = append(append(all, path+"."+name), fields(f.Type, path+"."+name)...)
	}
	return all
}
