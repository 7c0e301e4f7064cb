package console

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/console/entry"
)

// watching begins a watch, and returns its code, what ends it, and what it said if it was refused.
func (w *world) watching(client *http.Client, token string) (code int, end func(), text string) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	r, err := http.NewRequestWithContext(ctx, "GET", w.url+api.Prefix+"/projects/acme/documents/applications?watch=true", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	answer, err := client.Do(r) //nolint:bodyclose // the caller ends it
	if err != nil {
		w.t.Fatal(err)
	}
	if answer.StatusCode != http.StatusOK {
		data, _ := io.ReadAll(answer.Body)
		text = string(data)
	}
	return answer.StatusCode, func() { cancel(); _ = answer.Body.Close() }, text
}

// One person, and one robot, has so many streams of events open and no more, pages and watches
// together: he is told so, others are not touched, and one that ends makes room.
func TestStreamsAreBounded(t *testing.T) {
	w := newWorld(t)
	anna, vera := w.login("anna"), w.login("vera")
	robot := w.robot(anna, "acme", `"read"`)
	client := w.client()
	var ends []func()
	defer func() {
		for _, end := range ends {
			end()
		}
	}()
	for i := range entry.MostStreams {
		code, end, text := w.watching(client, vera)
		if ends = append(ends, end); code != http.StatusOK {
			t.Fatalf("stream %d: %d %s", i+1, code, text)
		}
	}
	code, end, text := w.watching(client, vera)
	end()
	if code != http.StatusTooManyRequests || !strings.Contains(text, "TooManyStreams") || !strings.Contains(text, "close some") {
		t.Errorf("one more: %d %s", code, text)
	}
	if code, text := w.do(w.browse("vera"), w.get("/p/acme/live")); code != 200 || !strings.Contains(text, "event: full") || strings.Contains(text, "beat") {
		t.Errorf("a page: %d %s", code, text)
	}
	if code, _ := w.call(vera, "GET", "/projects/acme/fleet", ""); code != http.StatusOK {
		t.Errorf("what is no stream: %d", code)
	}
	for who, token := range map[string]string{"anna": anna, "her robot": robot} {
		code, end, text := w.watching(client, token)
		if ends = append(ends, end); code != http.StatusOK {
			t.Errorf("%s: %d %s", who, code, text)
		}
	}
	ends[0]()
	consoletest.Until(t, "room for one more", func() (bool, string) {
		code, end, text := w.watching(client, vera)
		end()
		return code == http.StatusOK, text
	})
}
