package transcript

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

const (
	// shortest is the least length of what is masked: "true" and "5432" say nothing, and
	// stand everywhere.
	shortest = 6
	masked   = "***"
	// cut stands where the beginning is not kept.
	cut = "[what came before is not kept]\n"
)

var (
	// colors are the escape sequences of terminals.
	colors = regexp.MustCompile("\x1b(\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(\x07|\x1b\\\\)|[@-Z\\\\-_])")
	quoted = regexp.MustCompile(`"([^"\n]{6,})"`)
)

// Keep is what is kept of a text: plain, without the secrets, and its end, at most [Most]
// bytes. To keep what is kept changes nothing.
func Keep(text string, secrets []string) string {
	text = strings.TrimRight(Mask(clean(text), secrets), " \n\t")
	text = strings.TrimLeft(text, "\n")
	if len(text) <= Most {
		return text
	}
	text = text[len(text)-Most+len(cut):]
	if _, whole, ok := strings.Cut(text, "\n"); ok && whole != "" {
		text = whole
	}
	return cut + strings.ToValidUTF8(text, "")
}

// clean leaves letters, line ends and tabs. A carriage return begins a line: what went
// before it was said as well.
func clean(text string) string {
	text = colors.ReplaceAllString(strings.ToValidUTF8(text, "\uFFFD"), "")
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r): // what turns the direction of text hides some
			return -1
		}
		return r
	}, text)
}

// Mask puts *** in the place of secrets.
func Mask(text string, secrets []string) string {
	longest := slices.Clone(secrets)
	slices.SortFunc(longest, func(a, b string) int { return len(b) - len(a) })
	for _, secret := range longest {
		if len(secret) >= shortest {
			text = strings.ReplaceAll(text, secret, masked)
		}
	}
	return text
}

// Secrets are the forms in which a value of a Secret may be said: itself, each line of it,
// what stands in it between quotes, base64 of it, and one line also as JSON and URLs have
// it. Those that are too short to be masked are left out.
func Secrets(value []byte) (all []string) {
	add := func(s string) {
		if s = strings.TrimSpace(s); len(s) >= shortest {
			all = append(all, s)
		}
	}
	text := string(value)
	add(text)
	for line := range strings.Lines(text) {
		add(line)
	}
	for _, q := range quoted.FindAllStringSubmatch(text, -1) {
		add(q[1])
	}
	line := strings.TrimSpace(text)
	if len(value) >= shortest {
		for _, form := range [][]byte{value, []byte(line)} {
			add(base64.StdEncoding.EncodeToString(form))
			add(base64.RawStdEncoding.EncodeToString(form))
		}
	}
	if len(line) >= shortest && !strings.Contains(line, "\n") {
		add(url.User(line).String())
		add(url.QueryEscape(line))
		add(strings.ReplaceAll(url.QueryEscape(line), "+", "%20"))
		if escaped, err := json.Marshal(line); err == nil {
			add(strings.Trim(string(escaped), `"`))
		}
		add(strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(line)) // by who leaves < > & as they are
	}
	slices.Sort(all)
	return slices.Compact(all)
}
