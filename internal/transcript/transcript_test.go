package transcript

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// TestKeep: the end is kept, plain, and once.
func TestKeep(t *testing.T) {
	for text, want := range map[string]string{
		"":              "",
		"\n one\n\n":    " one",
		"a\r\nb\rc\x00": "a\nb\nc",
		"\x1b[1;31mError:\x1b[0m no\tzone\x1b]0;title\x07 \u202eon": "Error: no\tzone on",
		"bad \xff byte": "bad \uFFFD byte",
	} {
		if got := Keep(text, nil); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	long := strings.Repeat("a line of it\n", 5000) + "the end"
	if got := Keep(long, nil); !strings.HasPrefix(got, cut+"a line of it\n") || !strings.HasSuffix(got, "\nthe end") || len(got) > Most || len(got) < Most-100 {
		t.Errorf("%d bytes, %q", len(got), got[:80])
	}
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Repeat(rapid.StringOfN(rapid.Rune(), 0, 300, -1).Draw(t, "text"), rapid.IntRange(1, 100).Draw(t, "times"))
		once := Keep(text, nil)
		if len(once) > Most || !utf8.ValidString(once) || Keep(once, nil) != once {
			t.Fatalf("%d bytes, %q, then %q", len(once), once, Keep(once, nil))
		}
	})
}

// TestSecretsAreNotKept in any of the forms that are known. The control: without them they
// stand there.
func TestSecretsAreNotKept(t *testing.T) {
	const password, key = "hunter2-and-more", "line one of key\nline two of key\n"
	vars := "token = \"t0ken-value\"\n"
	said := "login " + password + " " + base64.StdEncoding.EncodeToString([]byte(password)) + "\n  line two of key\n" + key + "with t0ken-value, true\n"
	var secrets []string
	for _, value := range []string{password, password + "\n", key, vars, "true"} {
		secrets = append(secrets, Secrets([]byte(value))...)
	}
	got := Keep(said, secrets)
	for _, hidden := range []string{password, "aHVudGVyMi1hbmQtbW9yZQ", "line one", "line two", "t0ken-value"} {
		if strings.Contains(got, hidden) || !strings.Contains(Keep(said, nil), hidden) {
			t.Errorf("%q is not hidden, or was not said: %q", hidden, got)
		}
	}
	if !strings.HasPrefix(got, "login *** ***\n") || !strings.HasSuffix(got, ", true") {
		t.Errorf("%q", got)
	}
}

// TestEscapedSecretsAreNotKept: an address or a document has a password with its signs
// escaped. The control: without it they stand there.
func TestEscapedSecretsAreNotKept(t *testing.T) {
	const password = `p@ss "w/0rd\&`
	said := `postgres://shop:p%40ss%20%22w%2F0rd%5C&@db a=p%40ss+%22w%2F0rd%5C%26 p%40ss%20%22w%2F0rd%5C%26 {"a":"p@ss \"w/0rd\\&"} {"a":"p@ss \"w/0rd\\\u0026"} ` + strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(password)), "=")
	if got, want := Keep(said, Secrets([]byte(password))), `postgres://shop:***@db a=*** *** {"a":"***"} {"a":"***"} ***`; got != want || Keep(said, nil) != said {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestSecretOfManyLines: the step that is given it does not wait for minutes.
func TestSecretOfManyLines(t *testing.T) {
	var b strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&b, "%08d\n%08d\n", i, i)
	}
	if all := Secrets([]byte(b.String())); len(all) < 100_000 || len(all) > 100_010 {
		t.Errorf("%d forms", len(all))
	}
}
