package vault

import (
	"errors"
	"fmt"
	"strings"
)

// Limits of names and keys, in bytes.
const (
	maxKey  = 900 // a whole key, see Store
	maxName = 253 // a DNS-1123 subdomain
)

// ErrName says that a name or key given by the caller is not a legal one.
var ErrName = errors.New("name not valid")

// CheckKey says whether key may name an object in a Store: printable ASCII
// without spaces, slash-separated, no empty, "." or ".." elements, at most 900 bytes.
func CheckKey(key string) error {
	if key == "" || len(key) > maxKey {
		return fmt.Errorf("%w: key %.40q has %d bytes, want 1 to %d", ErrName, key, len(key), maxKey)
	}
	for i := range len(key) {
		if key[i] <= ' ' || key[i] > '~' || key[i] == '\\' {
			return fmt.Errorf("%w: key %q holds the byte %#02x", ErrName, key, key[i])
		}
	}
	for element := range strings.SplitSeq(key, "/") {
		if element == "" || element == "." || element == ".." {
			return fmt.Errorf("%w: key %q has the element %q", ErrName, key, element)
		}
	}
	return nil
}

// CheckName says whether name is a DNS-1123 subdomain, as the names of
// projects, applications, sites and recovery points must be.
func CheckName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("%w: %.40q has %d bytes, want 1 to %d", ErrName, name, len(name), maxName)
	}
	for label := range strings.SplitSeq(name, ".") {
		if !validLabel(label) {
			return fmt.Errorf("%w: %q: want lower-case letters, digits, '-' and '.', each part starting and ending with a letter or digit", ErrName, name)
		}
	}
	return nil
}

func validLabel(label string) bool {
	if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for i := range len(label) {
		c := label[i]
		if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// checkNames checks several names and joins what is wrong with them.
func checkNames(names ...string) error {
	var errs []error
	for _, name := range names {
		errs = append(errs, CheckName(name))
	}
	return errors.Join(errs...)
}

// layout names every object of one project; its value is the project's name.
// docs/formats/vault.md draws the tree.
type layout string

func (l layout) root() string                { return "projects/" + string(l) + "/" }
func (l layout) project() string             { return l.root() + "project.json" }
func (l layout) clock() string               { return l.root() + "clock" }
func (l layout) keys(keyID string) string    { return l.root() + "keys/" + keyID + "/" }
func (l layout) keyVersions() string         { return l.root() + "keyring/" }
func (l layout) keyVersion(n int64) string   { return l.keyVersions() + number(n) }
func (l layout) manifests(app string) string { return l.root() + "manifests/" + slashed(app) }
func (l layout) objects(app string) string   { return l.root() + "objects/" + slashed(app) }
func (l layout) marks(app string) string     { return l.root() + "marks/" + slashed(app) }
func (l layout) epochs(app string) string    { return l.root() + "epochs/" + slashed(app) }
func (l layout) apps(app string) string      { return l.root() + "apps/" + slashed(app) }
func (l layout) runs(run string) string      { return l.root() + "runs/" + slashed(run) }
func (l layout) sites() string               { return l.root() + "sites/" }
func (l layout) site(name string) string     { return l.sites() + name }
func (l layout) volumes(site string) string  { return l.root() + "volumes/" + slashed(site) }

func (l layout) manifest(app, id string) string     { return l.manifests(app) + id }
func (l layout) pointObjects(app, id string) string { return l.objects(app) + id + "/" }
func (l layout) pointMarks(app, id string) string   { return l.marks(app) + id + "/" }

func (l layout) pack(app, id string, seq int64) string {
	return fmt.Sprintf("%s%08d", l.pointObjects(app, id), seq)
}

func (l layout) begin(app, id string) string { return l.pointObjects(app, id) + "begin" }
func (l layout) log(app, id string) string   { return l.pointObjects(app, id) + "log" }

func (l layout) mark(app, id string, kind MarkKind, ordinal string) string {
	return l.pointMarks(app, id) + string(kind) + "-" + ordinal
}

func (l layout) epoch(app string, n int64) string    { return l.epochs(app) + number(n) }
func (l layout) document(app string, n int64) string { return l.apps(app) + number(n) }
func (l layout) run(run string, n int64) string      { return l.runs(run) + number(n) }

// slashed ends a name with a slash; the empty name stays empty and so leaves
// the prefix of the whole kind.
func slashed(name string) string {
	if name == "" {
		return ""
	}
	return name + "/"
}

// number writes n so that byte order is numeric order.
func number(n int64) string { return fmt.Sprintf("%020d", n) }

// parseNumber reads what number wrote, and nothing else.
func parseNumber(s string) (int64, error) {
	if len(s) != 20 {
		return 0, fmt.Errorf("%w: %q is no 20-digit number", ErrName, s)
	}
	var n int64
	for i := range len(s) {
		digit := int64(s[i]) - '0'
		if digit < 0 || digit > 9 || n > (1<<63-1-digit)/10 {
			return 0, fmt.Errorf("%w: %q is no 20-digit number", ErrName, s)
		}
		n = n*10 + digit
	}
	return n, nil
}

// splitPoint splits "<app>/<id>[/<rest>]", what follows the prefix of
// manifests, objects or marks.
func splitPoint(tail string) (app, id, rest string, ok bool) {
	app, tail, ok = strings.Cut(tail, "/")
	if !ok {
		return "", "", "", false
	}
	id, rest, _ = strings.Cut(tail, "/")
	return app, id, rest, checkNames(app, id) == nil
}
