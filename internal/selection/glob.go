package selection

import "strings"

// Glob matches text with a pattern in which "*" is any run of characters.
func Glob(pattern, text string) bool {
	head, rest, starred := strings.Cut(pattern, "*")
	if !starred {
		return pattern == text
	}
	if !strings.HasPrefix(text, head) {
		return false
	}
	text = text[len(head):]
	for {
		middle, after, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(text, middle)
		}
		i := strings.Index(text, middle)
		if i < 0 {
			return false
		}
		text, rest = text[i+len(middle):], after
	}
}

// IsGlob tells whether a name is a pattern.
func IsGlob(name string) bool { return strings.Contains(name, "*") }
