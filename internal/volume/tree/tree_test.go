package tree

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func FuzzNames(f *testing.F) {
	f.Add("plain")
	f.Add("\xff")
	f.Add(encodedName)
	f.Add(encodedName + "Li4") // ".."
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := decodeName(s); err == nil && (got == "" || got == "." || got == ".." || strings.ContainsAny(got, "/\x00")) {
			t.Errorf("decodeName(%q) = %q", s, got)
		}
		if s == "" || s == "." || s == ".." || strings.ContainsAny(s, "/\x00") {
			return
		}
		if got, err := decodeName(encodeName(s)); err != nil || got != s {
			t.Errorf("%q becomes %q, %v", s, got, err)
		}
	})
}

func FuzzReadExtras(f *testing.F) {
	f.Add([]byte(extrasHeader + `{"path":"a","link":"b"}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := readExtras(bytes.NewReader(data)); err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("error of another kind: %v", err)
		}
	})
}
