package bundle

import (
	"bytes"
	"encoding/base64"
	"regexp"
	"slices"
)

// Redacted stands where a secret stood.
const Redacted = "[redacted]"

// minSecret is the length from which a value counts as a secret: shorter ones
// would redact ordinary words.
const minSecret = 6

// patterns find what looks like a secret, whoever wrote it. Each keeps its
// first group, if it has one.
var patterns = []*regexp.Regexp{
	regexp.MustCompile(`()AGE-SECRET-KEY-1[0-9A-Za-z]+`),
	regexp.MustCompile(`(?s)()-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----`),
	regexp.MustCompile(`()\beyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]*`),
	regexp.MustCompile(`()\b(?:AKIA|ASIA)[0-9A-Z]{16}\b`),
	regexp.MustCompile(`(?i)(\b(?:bearer|basic)\s+)[0-9a-z+/._~-]{8,}=*`),
	regexp.MustCompile(`(://[^\s/:@"']*:)[^\s/@"']+@`),
	regexp.MustCompile(`(?i)(X-Amz-(?:Signature|Credential|Security-Token)=)[^&\s"']+`),
	regexp.MustCompile(`(?i)((?:pass(?:word|wd|phrase)?|secret[-_]?(?:access[-_]?)?key|access[-_]?key(?:[-_]?id)?|session[-_]?token|api[-_]?key|auth[-_]?token|client[-_]?secret|credentials?|identity)\\?["']?\s*[:=]\s*\\?["']?)[^\s"',;\\}]{4,}`),
}

// envValue finds the value of an environment variable whose name says that it
// is a secret, as YAML writes it.
var envValue = regexp.MustCompile(`(?im)(name:\s*\S*(?:secret|token|passw|credential|private|_key|apikey)\S*\s*\n\s*value:\s*)\S.*$`)

// Redactor takes secrets out of text: those it was told, in any of the forms
// in which they travel, and whatever looks like one.
type Redactor struct {
	known [][]byte
}

// NewRedactor knows the secrets, plain and in base 64.
func NewRedactor(secrets [][]byte) *Redactor {
	r := &Redactor{}
	for _, secret := range secrets {
		secret = bytes.TrimSpace(secret)
		r.learn(secret)
		for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding} {
			r.learn([]byte(encoding.EncodeToString(secret)))
		}
		for _, line := range bytes.Split(secret, []byte("\n")) { // a key's lines may be quoted alone
			if len(line) >= 3*minSecret {
				r.learn(bytes.TrimSpace(line))
			}
		}
	}
	// The longest first, or a part would hide the whole.
	slices.SortFunc(r.known, func(a, b []byte) int { return len(b) - len(a) })
	return r
}

func (r *Redactor) learn(secret []byte) {
	if len(secret) >= minSecret {
		r.known = append(r.known, secret)
	}
}

// Redact returns the text without secrets.
func (r *Redactor) Redact(text []byte) []byte {
	for _, secret := range r.known {
		text = bytes.ReplaceAll(text, secret, []byte(Redacted))
	}
	for _, pattern := range patterns {
		text = pattern.ReplaceAll(text, []byte("${1}"+Redacted))
	}
	return envValue.ReplaceAll(text, []byte("${1}"+Redacted))
}
