package reply

import (
	"strings"
	"testing"
)

const secret = "0123456789abcdef0123456789abcdef"

func TestMask(t *testing.T) {
	seen := map[string]bool{}
	for range 20 {
		text, err := Mask(secret)
		if err != nil || Unmask(text) != secret || strings.Contains(text, secret) || seen[text] {
			t.Errorf("%q, %v", text, err)
		}
		seen[text] = true
		if wrong := text[:10] + "0" + text[11:]; wrong != text && Unmask(wrong) == secret {
			t.Errorf("%q is taken for it", wrong)
		}
	}
	for _, text := range []string{"", secret, "zz", "abc", "ab"} {
		if Unmask(text) == secret {
			t.Errorf("%q is the secret", text)
		}
	}
}
