package ui

import (
	"bytes"
	"compress/gzip"
	"strings"
	"testing"

	"davit.dev/davit/internal/console/reply"
	"davit.dev/davit/internal/console/store"
)

const secret = "0123456789abcdef0123456789abcdef"

// What a page weighs compressed does not tell a right guess from a wrong one, which a
// link could have put there: the secret is nowhere in it as it is. The control: where it
// is, it tells.
func TestLengthTellsNothing(t *testing.T) {
	weighs := func(form, guess string) int {
		t.Helper()
		var text strings.Builder
		data := struct {
			Users []store.User
			Codes bool
		}{[]store.User{{Name: guess}}, false}
		if err := pages.ExecuteTemplate(&text, "users", page{Form: form, User: "anna", Data: data}); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		z := gzip.NewWriter(&out)
		if _, err := z.Write([]byte(text.String())); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Len()
	}
	const wrong = "9e107d9d372bb6826bd81d3542a419d6"
	told := weighs(secret, wrong) - weighs(secret, secret)
	if told < 8 {
		t.Fatalf("the control: a right guess is %d bytes shorter", told)
	}
	sum := 0
	const tries = 50
	for range tries {
		one, err := reply.Mask(secret)
		if err != nil {
			t.Fatal(err)
		}
		sum += weighs(one, wrong) - weighs(one, secret)
	}
	if plain := weighs("", wrong) - weighs("", secret); sum/tries-plain >= told/2 {
		t.Errorf("masked, a right guess is %d bytes shorter; without any secret %d", sum/tries, plain)
	}
}
