package reply

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
)

// What was sent comes out again, compressed for who takes it, and for nobody else.
func TestWrite(t *testing.T) {
	large := strings.Repeat("what a page says, ", 1000)
	for name, c := range map[string]struct {
		method, takes, body string
		zipped              bool
	}{
		"large":         {"GET", "gzip, deflate, br", large, true},
		"by weight":     {"GET", "br;q=1.0, GZIP ; q=0.5", large, true},
		"anything":      {"GET", "*", large, true},
		"not said":      {"GET", "", large, false},
		"refused":       {"GET", "gzip;q=0, *", large, false},
		"other":         {"GET", "br, zstd", large, false},
		"nonsense":      {"GET", "gzip;q=x", large, false},
		"small":         {"GET", "gzip", "ok", false},
		"empty":         {"GET", "gzip", "", false},
		"to a form":     {"POST", "gzip", large, false},
		"large, again":  {"GET", "gzip", large + large, true},
		"large, in two": {"GET", "br, gzip", large, true},
	} {
		r := httptest.NewRequest(c.method, "/", nil)
		r.Header.Set("Accept-Encoding", c.takes)
		w := httptest.NewRecorder()
		w.Header().Set("Content-Type", "text/plain")
		if err := Write(w, r, 201, []byte(c.body)); err != nil {
			t.Fatal(err)
		}
		got := w.Body.Bytes()
		if zipped := w.Header().Get("Content-Encoding") == "gzip"; zipped != c.zipped || w.Code != 201 {
			t.Errorf("%s: compressed %v, %d", name, zipped, w.Code)
		}
		if (w.Header().Get("Vary") == "Accept-Encoding") != (c.method == "GET") {
			t.Errorf("%s: %v", name, w.Header())
		}
		if c.zipped {
			if len(got)*10 > len(c.body) {
				t.Errorf("%s: %d bytes are %d", name, len(c.body), len(got))
			}
			z, err := gzip.NewReader(bytes.NewReader(got))
			if err != nil {
				t.Fatal(err)
			}
			if got, err = io.ReadAll(z); err != nil {
				t.Fatal(err)
			}
		}
		if string(got) != c.body {
			t.Errorf("%s: %.60q came out", name, got)
		}
	}
}

// Two answers that differ in nothing differ in length.
func TestPadding(t *testing.T) {
	lengths := map[int]bool{}
	for range 200 {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept-Encoding", "gzip")
		w := httptest.NewRecorder()
		if err := Write(w, r, 200, bytes.Repeat([]byte("a page "), 500)); err != nil {
			t.Fatal(err)
		}
		lengths[w.Body.Len()] = true
	}
	if len(lengths) < 10 || len(lengths) > padding {
		t.Errorf("%d lengths", len(lengths))
	}
}
