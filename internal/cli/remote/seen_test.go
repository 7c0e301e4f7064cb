package remote

import (
	"fmt"
	"testing"
)

// What a console only knows of a fleet is asked for like documents, one kind at a time.
func TestAskedSeen(t *testing.T) {
	for given, want := range map[string]string{
		"[sites]": "Site []", "[run a b]": "Run [a b]", "[run/a run/b]": "Run [a b]", "[Points]": "RecoveryPoint []", "[restore/a]": "Restore [a]", "[applications]": "", "[]": "",
		"[run/a site/b]": "wrong", "[run/a b]": "wrong", "[run a/b]": "wrong",
	} {
		var words []string
		word := ""
		for _, r := range given[1:] {
			if r == ' ' || r == ']' {
				if word != "" {
					words = append(words, word)
				}
				word = ""
				continue
			}
			word += string(r)
		}
		kind, names, seen, err := askedSeen(words)
		got := fmt.Sprint(kind, " ", names)
		switch {
		case err != nil:
			got = "wrong"
		case !seen:
			got = ""
		}
		if got != want {
			t.Errorf("%s: %q, want %q", given, got, want)
		}
	}
}
