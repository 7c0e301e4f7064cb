package vault

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// FuzzPlainDocuments feeds the parsers of what is not sealed.
func FuzzPlainDocuments(f *testing.F) {
	marker, err := Marker{FormatVersion: 1, ID: "x", Created: time.Unix(0, 0).UTC()}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(marker)
	f.Add([]byte(`{"formatVersion":1,"wrapped":"AA=="}`))
	f.Add([]byte(`{"formatVersion":1,"number":2,"keyID":"00","previous":"00","previousKey":"AA==","removed":[]}`))
	f.Add([]byte(`{"formatVersion":1,"name":"a","keyID":"00","mac":"x"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := parseMarker(data); err == nil {
			if again, err := m.encode(); err != nil || !bytes.Equal(again, data) {
				t.Error("a marker reads in two ways")
			}
		}
		if w, err := parseWrap(data); err == nil {
			if again, err := encodePlain(w); err != nil || !bytes.Equal(again, data) {
				t.Error("a key reads in two ways")
			}
			_, _ = Identity{}.Unwrap(w.Wrapped)
		}
		if v, err := parseVersion(data); err == nil {
			if again, err := encodePlain(v); err != nil || !bytes.Equal(again, data) {
				t.Error("a key version reads in two ways")
			}
		}
		var p projectFile
		if decodePlain(data, &p) == nil {
			_ = p.check("a")
		}
	})
}

// FuzzManifest parses whatever it is given; what it accepts it must accept
// again after writing it.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"formatVersion":1,"id":"i","application":"a","project":"p","site":"s","instant":"2026-01-01T00:00:00Z","consistency":"crash","resources":[{"resource":"secrets","count":1,"packs":[{"key":"k","sha256":"` + strings.Repeat("0", 64) + `","size":1,"count":1}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseManifest(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(m)
		if err != nil {
			return // a year no RFC 3339 date has
		}
		if _, err := parseManifest(again); err != nil {
			t.Errorf("accepted once, then %v", err)
		}
	})
}

// FuzzKeys splits names of objects as a listing returns them.
func FuzzKeys(f *testing.F) {
	f.Add("shop/shop-1/verified-0")
	f.Add("00000000000000000001")
	f.Add("99999999999999999999")
	f.Fuzz(func(t *testing.T, tail string) {
		app, id, rest, ok := splitPoint(tail)
		if ok && (CheckName(app) != nil || CheckName(id) != nil) {
			t.Errorf("%q splits into %q and %q", tail, app, id)
		}
		if ok && rest != "" && app+"/"+id+"/"+rest != tail {
			t.Errorf("%q does not join again", tail)
		}
		if n, err := parseNumber(tail); err == nil && number(n) != tail {
			t.Errorf("%q reads as %d", tail, n)
		}
		if CheckKey(tail) == nil && (strings.Contains(tail, "//") || slices.Contains(strings.Split(tail, "/"), "..")) {
			t.Errorf("key %q passed", tail)
		}
	})
}
