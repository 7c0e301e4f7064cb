package ui

import (
	"net/http/httptest"
	"net/url"
	"testing"
	"time"
)

// Times are read as people type them, in UTC where they do not say; a last day is whole.
func TestWanted(t *testing.T) {
	day := time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"": {}, "2026-11-27": day, " 2026-11-27 04:00 ": day.Add(4 * time.Hour), "2026-11-27 04:00:05": day.Add(4*time.Hour + 5*time.Second), "2026-11-27T04:00": day.Add(4 * time.Hour), "2026-11-27T04:00:00+02:00": day.Add(2 * time.Hour),
	} {
		v := &visit{r: httptest.NewRequest("GET", "/?"+url.Values{"since": {text}, "until": {text}, "by": {" anna "}}.Encode(), nil)}
		_, f, err := v.wanted()
		until := want
		if text == "2026-11-27" {
			until = day.Add(24*time.Hour - time.Millisecond)
		}
		if err != nil || !f.Since.Equal(want) || !f.Until.Equal(until) || f.By != "anna" {
			t.Errorf("%q: %+v, %v", text, f, err)
		}
	}
	for _, text := range []string{"yesterday", "27.11.2026", "2026-13-01"} {
		v := &visit{r: httptest.NewRequest("GET", "/?"+url.Values{"until": {text}}.Encode(), nil)}
		if _, _, err := v.wanted(); err == nil {
			t.Errorf("%q is a time", text)
		}
	}
}
