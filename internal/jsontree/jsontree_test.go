package jsontree

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unsafe"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// reference is what apimachinery reads.
type reference struct {
	Metadata metav1.ListMeta  `json:"metadata"`
	Items    []map[string]any `json:"items"`
}

var texts = []string{
	`{"kind":"List","metadata":{"resourceVersion":"7","continue":"x"},"items":[{"metadata":{"name":"a","managedFields":[{"f":{"f:x":{}}}],"labels":{"l":"1"}},"data":{"k":"v"}},{"metadata":null,"n":[1,-0,0,1.0,1e3,12345678901234567890,-9223372036854775808,0.1,-1E-2]}]}`,
	`{"items":null,"metadata":{}}`, `{"items":[]}`, `{"items":[null]}`, `{}`, ` { "items" : [ { "a" : [ ] , "b" : { } , "c" : [ true , false , null ] } ] } `,
	`{"items":[{"s":"plain","é":"ü","u":"\u00e9\ud83d\ude00","lone":"\ud800","esc":"\"\\\/\b\f\n\r\t","html":"<&>","ls":"\u2028","del":"\u007f","":""}]}`,
	"{\"items\":[{\"bad\":\"\xff\xfe\",\"k\xff\":1}]}",
	`{"items":[{"a":1,"a":2,"o":{"x":1},"o":{"y":2}}]}`,
	`{"items":[{"metadata":{"managedFields":{"deep":[[["}"]]]}}}]}`,
	`{"items":[{"metadata":"text","managedFields":"kept"}]}`,
	`{"items":[{"a":01}]}`, `{"items":[{"a":-}]}`, `{"items":[{"a":1.}]}`, `{"items":[{"a":1e}]}`, `{"items":[{"a":1e999}]}`, `{"a":[{"b":1e999}]}`, `{"a":01}`, `{"items":[{"a":tru}]}`, `{"items":[{"a":"x]}`, `{"items":[{"a" 1}]}`,
	`{"items":[{"a":1,}]}`, `{"items":[1]}`, `{"items":{}}`, `{"items":[]}x`, `[]`, ``, ` null`, `{`, `{"a":"\x"}`, "{\"a\":\"\x01\"}", `{"items":[{}],"items":[{"b":1}]}`,
}

// same compares what is read of a text with what apimachinery reads of it.
func same(t *testing.T, text string) {
	t.Helper()
	var want reference
	wrong := utiljson.Unmarshal([]byte(text), &want)
	got, err := ReadList(text)
	if strings.Trim(text, " \t\r\n") == "null" {
		if err == nil {
			t.Fatalf("%q was read, and is no list", text)
		}
		return // to apimachinery it is a list of nothing, which no server says that way
	}
	if wrong == nil && err != nil && !errors.Is(err, ErrTwice) {
		t.Fatalf("%q: %v", text, err)
	}
	if err != nil {
		return
	}
	if wrong != nil {
		if strings.Contains(wrong.Error(), "cannot unmarshal") {
			return // a metadata of another kind: whoever reads it finds out
		}
		t.Fatalf("%q was read, and is wrong: %v", text, wrong)
	}
	for _, item := range want.Items {
		if m, ok := item["metadata"].(map[string]any); ok {
			delete(m, "managedFields")
		}
	}
	if len(got.Items) != len(want.Items) {
		t.Fatalf("%q: %d items, want %d", text, len(got.Items), len(want.Items))
	}
	for i := range want.Items {
		if !reflect.DeepEqual(got.Items[i], want.Items[i]) {
			t.Fatalf("%q:\n got %#v\nwant %#v", text, got.Items[i], want.Items[i])
		}
		written(t, got.Items[i])
	}
}

// written compares what is written of an object with what apimachinery writes.
func written(t *testing.T, object map[string]any) {
	t.Helper()
	o := unstructured.Unstructured{Object: object}
	o.SetAPIVersion("v1") // or apimachinery does not write it
	o.SetKind("Thing")
	want, wrong := o.MarshalJSON()
	got, err := Append([]byte("before"), o.Object)
	if (err == nil) != (wrong == nil) {
		t.Fatalf("%#v: %v, want %v", object, err, wrong)
	}
	if err == nil && string(got) != "before"+string(want) {
		t.Fatalf("%#v:\n got %q\nwant %q", object, got[len("before"):], want)
	}
}

func TestReadsAndWritesAsApimachineryDoes(t *testing.T) {
	for _, text := range texts {
		same(t, text)
	}
}

func TestRefusesWhatIsNoList(t *testing.T) {
	for _, text := range append([]string{
		`{"items":[1]}`, `{"items":{}}`, `{"items":[]}x`, `[]`, ``, `null`, `{`, `{"items":[{"a":"\x"}]}`, `{"items":[{}],"items":[]}`, `{"items":[{"a":01}]}`, `{"items":[{"a":1,}]}`,
		`{"items":[{"metadata":{"managedFields":[}}]}`, `{"items":[{"a":"x]}`,
	}, "{\"items\":[{\"a\":\"\x01\"}]}", `{"items":[`+strings.Repeat("[", 20_000)) {
		if got, err := ReadList(text); err == nil {
			t.Errorf("%.80q was read: %#v", text, got)
		}
	}
}

func TestWritesWhatCodePutThere(t *testing.T) {
	for _, object := range []map[string]any{
		{"i": 7, "s": []string{"a"}, "m": map[string]string{"<": ">"}, "f": 1e21, "small": 1e-7, "nilmap": map[string]any(nil), "nillist": []any(nil)},
		{"deep": map[string]any{"list": []any{int64(1), 2.5, "x", nil, true, map[string]any{"b": "\u2028", "a": "\x00"}}}},
	} {
		written(t, object)
	}
	if _, err := Append(nil, map[string]any{"f": func() {}}); err == nil {
		t.Error("a function was written")
	}
}

// TestHarmless: eight bytes at a time come to what one after the other do.
func TestHarmless(t *testing.T) {
	slow := func(s string, from int) int {
		for from < len(s) && plainByte[s[from]] {
			from++
		}
		return from
	}
	text := []byte(strings.Repeat("abcdefgh ~{}'\x7f", 3))
	for at := range text {
		kept := text[at]
		for c := range 256 {
			text[at] = byte(c)
			for from := range 9 {
				if got, want := harmless(string(text), from), slow(string(text), from); got != want {
					t.Fatalf("byte %#x at %d, from %d: %d, want %d", c, at, from, got, want)
				}
			}
		}
		text[at] = kept
	}
}

// TestWhoKeepsANameKeepsNoPage: short strings are copies, long ones parts of the page.
func TestWhoKeepsANameKeepsNoPage(t *testing.T) {
	name, value := strings.Repeat("n", 317), strings.Repeat("v", 4096)
	page := `{"items":[{"` + name + `":"` + name + `","value":"` + value + `"}]}`
	list, err := ReadList(page)
	if err != nil {
		t.Fatal(err)
	}
	within := func(s string) bool {
		from, at := uintptr(unsafe.Pointer(unsafe.StringData(page))), uintptr(unsafe.Pointer(unsafe.StringData(s)))
		return at >= from && at < from+uintptr(len(page))
	}
	for key, v := range list.Items[0] {
		text, _ := v.(string)
		if within(key) || within(text) != (key == "value") {
			t.Errorf("%.8s is a part of the page: %v, its text %v", key, within(key), within(text))
		}
	}
}

// FuzzReadList reads whatever it is given as apimachinery does, or refuses it.
func FuzzReadList(f *testing.F) {
	for _, text := range texts {
		f.Add(text)
	}
	f.Fuzz(same)
}

// BenchmarkPage reads a page of 1,000 Secrets and writes them again, by this
// package and by apimachinery.
func BenchmarkPage(b *testing.B) {
	var text strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&text, `,{"metadata":{"name":"object-%06d","namespace":"shop","uid":"0b3c-%d","resourceVersion":"%d","creationTimestamp":"2026-03-01T12:00:00Z","managedFields":[{"manager":"bench","operation":"Update","apiVersion":"v1","time":"2026-03-01T12:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:data":{".":{},"f:value":{}},"f:type":{}}}]},"data":{"value":"%s"},"type":"Opaque"}`, i, i, i, strings.Repeat("QUJDREVG", 170))
	}
	page := `{"kind":"List","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[` + text.String()[1:] + `]}`
	b.Run("here", func(b *testing.B) {
		b.SetBytes(int64(len(page)))
		b.ReportAllocs()
		for b.Loop() {
			list, err := ReadList(page)
			if err != nil {
				b.Fatal(err)
			}
			var out []byte
			for _, item := range list.Items {
				item["apiVersion"], item["kind"] = "v1", "Secret"
				if out, err = Append(out[:0], item); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("apimachinery", func(b *testing.B) {
		b.SetBytes(int64(len(page)))
		b.ReportAllocs()
		for b.Loop() {
			var list reference
			if err := utiljson.Unmarshal([]byte(page), &list); err != nil {
				b.Fatal(err)
			}
			for _, item := range list.Items {
				o := unstructured.Unstructured{Object: item}
				o.SetAPIVersion("v1")
				o.SetKind("Secret")
				o.SetManagedFields(nil)
				if _, err := o.MarshalJSON(); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
