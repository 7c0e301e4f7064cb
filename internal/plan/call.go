package plan

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Call is an HTTP call. Its URL, header values and body are written into journals; what is
// secret comes from Secrets when the call is made.
type Call struct {
	Method string `json:"method"`
	URL    string `json:"url,omitempty"`
	// URLFrom has the URL, where that is secret.
	URLFrom *SecretKey `json:"urlFrom,omitempty"`
	Expect  int        `json:"expect"` // status
	Headers []Header   `json:"headers,omitempty"`
	Body    string     `json:"body,omitempty"`
	// BodyFrom has the body, where it holds a secret.
	BodyFrom *SecretKey `json:"bodyFrom,omitempty"`
	// Told are headers that Davit adds: that it is a drill.
	Told map[string]string `json:"told,omitempty"`
}

// Header is one of a call: Value, and then what From has.
type Header struct {
	Name  string     `json:"name"`
	Value string     `json:"value,omitempty"`
	From  *SecretKey `json:"from,omitempty"`
}

// SecretKey is one key of a Secret of davit-system.
type SecretKey struct {
	Secret string `json:"secret"`
	Key    string `json:"key"`
}

// Secrets are the names of those that the call takes something from, each once.
func (c *Call) Secrets() []string {
	if c == nil {
		return nil
	}
	var all []string
	for _, h := range c.Headers {
		if h.From != nil {
			all = append(all, h.From.Secret)
		}
	}
	for _, from := range []*SecretKey{c.URLFrom, c.BodyFrom} {
		if from != nil {
			all = append(all, from.Secret)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Address is where the call goes, as people are told.
func (c *Call) Address() string {
	if from := c.URLFrom; from != nil {
		return fmt.Sprintf("the url of key %s of Secret %s", from.Key, from.Secret)
	}
	return c.URL
}

// CheckURL says why a URL cannot be called; it says nothing of what stands in it.
func CheckURL(text string) error {
	if u, err := url.Parse(text); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("it cannot be called: write http:// or https://, a host and a path")
	}
	return nil
}

// Exposed says what secret the URL holds, for all to read who may read the plan or the
// journals of its runs; empty: none that is known by its name. It is no reason to refuse a
// plan: some services know their callers by nothing else.
func (c *Call) Exposed() string {
	u, err := url.Parse(c.URL)
	if err != nil {
		return ""
	}
	if u.User != nil {
		return "a user or a password"
	}
	for _, name := range slices.Sorted(maps.Keys(u.Query())) {
		if slices.Contains(telling, strings.ToLower(name)) {
			return fmt.Sprintf("a secret, as %q", name)
		}
	}
	return ""
}

var (
	headerName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_|~-]+$")
	// telling are names of what stands in URLs and is secret.
	telling = []string{"access_token", "token", "api_key", "apikey", "password", "passwd", "secret", "client_secret", "sig", "signature"}
	// credentials are headers that hold nothing but what is secret.
	credentials = []string{"authorization", "proxy-authorization", "cookie"}
	// framing is said by who sends a request, about the connection and the body.
	framing = []string{"host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer"}
)

// call checks what a call says, if there is one: above all that nothing secret stands in
// the plan, which many may read.
func (c *checker) call(where string, call *Call) {
	if call == nil || call.URL == "" && call.URLFrom == nil {
		return
	}
	switch from := call.URLFrom; {
	case from != nil && call.URL != "":
		c.say(where, "it has two urls", "leave one of url and urlFrom out")
	case from != nil && (from.Secret == "" || from.Key == ""):
		c.say(where, "urlFrom names no key of a Secret", "give secret and key")
	case from == nil && CheckURL(call.URL) != nil:
		c.say(where, "its url cannot be called", "write http:// or https://, a host and a path")
	}
	seen := map[string]bool{}
	for _, h := range call.Headers {
		at := fmt.Sprintf("%s, header %q", where, h.Name)
		if low := strings.ToLower(h.Name); seen[low] {
			c.say(at, "it is there twice", "remove one of them")
		} else {
			seen[low] = true
		}
		c.header(at, h)
	}
	switch {
	case call.Body != "" && call.BodyFrom != nil:
		c.say(where, "it has two bodies", "leave one of body and bodyFrom out")
	case call.BodyFrom != nil && (call.BodyFrom.Secret == "" || call.BodyFrom.Key == ""):
		c.say(where, "bodyFrom names no key of a Secret", "give secret and key")
	}
}

func (c *checker) header(where string, h Header) {
	low := strings.ToLower(h.Name)
	switch {
	case !headerName.MatchString(h.Name):
		c.say(where, "no header can have that name", "use letters, digits and dashes")
	case slices.Contains(framing, low) || strings.HasPrefix(low, "davit-"):
		c.say(where, "it is said by Davit itself", "remove it")
	case strings.ContainsFunc(h.Value, func(r rune) bool { return unicode.IsControl(r) && r != '\t' }):
		c.say(where, "its value has a line end or another control character", "write it in one line")
	case h.From == nil && slices.Contains(credentials, low):
		c.say(where, "what it says is secret, and stands in the plan", "put it into a Secret, and have it taken from there (from)")
	case h.From == nil && h.Value == "":
		c.say(where, "it says nothing", "give value, or from")
	case h.From != nil && (h.From.Secret == "" || h.From.Key == ""):
		c.say(where, "from names no key of a Secret", "give secret and key")
	}
}
