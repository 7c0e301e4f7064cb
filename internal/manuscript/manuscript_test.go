package manuscript

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

type inner struct {
	Name  string           `json:"name,omitempty"`
	Wait  metav1.Duration  `json:"wait,omitempty"`
	Pause *metav1.Duration `json:"pause,omitempty"`
	// Port is a type that reads itself, and is no object.
	Port intstr.IntOrString `json:"port,omitempty"`
}

type common struct {
	Kind string `json:"kind,omitempty"`
}

type outer struct {
	common
	Steps []inner          `json:"steps,omitempty"`
	By    map[string]inner `json:"by,omitempty"`
	Count int              `json:"count,omitempty"`
	Open  bool             `json:"open,omitempty"`
	After []string         `json:"after,omitempty"`
}

// TestReadSaysWhereAndWhat: whoever mistypes a file is told the field and what belongs
// there, in words, and all of it at once. The control: what is right is read.
func TestReadSaysWhereAndWhat(t *testing.T) {
	for text, want := range map[string][]string{
		"steps: secret":                          {"steps: want a list, each entry after a hyphen, and it is text"},
		"steps: [{name: a}, {wait: 30 seconds}]": {"steps[1].wait: want a duration such as 30s, 5m or 1h30m, and it is another text"},
		"steps: [{wait: 30}]":                    {"steps[0].wait: want a duration", "and it is a number"},
		"steps: [{pause: [1]}]":                  {"steps[0].pause: want a duration", "and it is a list"},
		"by: {east: {wait: x}}":                  {"by.east.wait: want a duration"},
		"open: \"secret\"\ncount: two":           {"count: want a whole number, without quotes, and it is text; open: want true or false"},
		"count: 1.5":                             {"count: want a whole number", "another number"},
		"kind: [a]":                              {"kind: want text"},
		"Steps: [{Wait: x}]\nKIND: [a]":          {"KIND: want text", "Steps[0].Wait: want a duration"},
		"steps: [{port: [1]}]":                   {"steps[0].port: want a whole number or a name"},
		"after: secret":                          {"after: want a list"},
		"stepps: []\nby: {east: {nme: x}}":       {"by.east.nme: there is no such field; stepps: there is no such field"},
		"- a":                                    {"all of it: want fields", "it is a list"},
		"secret":                                 {"all of it: want fields", "it is text"},
		"steps:\n  - name: a\n   - name: b":      {"it is no valid YAML: line 2: did not find expected"},
		"steps:\n\tx: 1":                         {"it is no valid YAML: line 2: ", "not with tabs"},
		"count: 1\ncount: 2":                     {`line 2: key "count" is there twice: leave one of them out`},
	} {
		err := Read([]byte(text), &outer{}, Strict)
		if err == nil {
			t.Errorf("%q was read", text)
			continue
		}
		for _, want := range want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("of %q it says\n%v\nwant %q", text, err, want)
			}
		}
		for _, never := range []string{"secret", "json", "Go ", "unmarshal", "manuscript", "\n"} {
			if strings.Contains(err.Error(), never) {
				t.Errorf("of %q it says %q: %v", text, never, err)
			}
		}
	}
	var got outer
	if err := Read([]byte("kind: a\nsteps: [{name: 5, wait: 3s}]\nopen: true\ncount:\n"), &got, Strict); err != nil || got.Kind != "a" || got.Steps[0].Name != "5" || !got.Open {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestASecondDocumentIsRefused, with its line; what is none is not.
func TestASecondDocumentIsRefused(t *testing.T) {
	for text, line := range map[string]string{
		"a: 1\n---\nb: 2\n":                       "line 2 ",
		"# one\n---\na: 1\n\n--- # two\n\nb: 2\n": "line 5 ",
		"a: 1\r\n---\r\nb: 2\r\n":                 "line 2 ",
		"a: |\n  x\n--- {b: 2}\n":                 "line 3 ",
		"a: 1\n...\nb: 2\n":                       "line 2 ",
		"---\n# one\n---\na: 1\n":                 "line 3 ",
		"# one\n---\na: 1\n":                      "",
		"---\na: 1\n":                             "",
		"%YAML 1.1\n---\na: 1\n...\n":             "",
		"--- {a: 1}\n---\n# nothing more\n":       "",
		"a: |\n  x\n  ---\n  y\n":                 "",
		"a: ---x\n":                               "",
		"{\"a\": 1}":                              "",
	} {
		var into map[string]any
		err := Read([]byte(text), &into, Strict)
		switch {
		case line == "" && err != nil:
			t.Errorf("%q: %v", text, err)
		case line != "" && (err == nil || !strings.HasPrefix(err.Error(), line+"begins a second YAML document")):
			t.Errorf("%q: %v, want %s", text, err, line)
		}
	}
}
