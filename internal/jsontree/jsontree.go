// Package jsontree reads and writes the JSON of Kubernetes objects as trees of
// map[string]any, several times as fast as by reflection: a capture spends most
// of its time there. What it reads and writes is to the byte and to the type what
// apimachinery's own codec does; its tests compare the two.
package jsontree

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrSyntax says that something is no JSON.
var ErrSyntax = errors.New("no valid JSON")

// ErrTwice says that a list has its items twice: nobody could tell which counts.
var ErrTwice = errors.New("the list has its items twice")

// maxDepth is that of encoding/json: more would exhaust the stack.
const maxDepth = 10_000

// List is what a server answers to a list request.
type List struct {
	Metadata json.RawMessage // of the list itself
	Items    []map[string]any
}

// ReadList reads a list of objects. What each of them says under
// metadata.managedFields is passed over: who set which field last is the
// server's own bookkeeping, and often the largest part of an object.
//
// Long strings are parts of data, not copies: whoever keeps one of them keeps all
// of data. No name or label is as long as that.
func ReadList(data string) (List, error) {
	r := reader{data: data, keys: map[string]string{}}
	var list List
	err := r.object(0, func(key string) (err error) {
		switch key {
		case "metadata":
			var text string
			text, err = r.raw(1)
			list.Metadata = json.RawMessage(text)
		case "items":
			if list.Items != nil {
				return ErrTwice
			}
			list.Items, err = r.items()
		default:
			_, err = r.raw(1)
		}
		return err
	})
	if err == nil {
		err = r.end()
	}
	if err != nil {
		return List{}, err
	}
	return list, nil
}

// reader is at one place of the data.
type reader struct {
	data string
	at   int
	keys map[string]string // each is kept once, however many objects have it
}

func (r *reader) wrong(want string) error {
	if r.at >= len(r.data) {
		return fmt.Errorf("%w: it ends where %s is expected", ErrSyntax, want)
	}
	return fmt.Errorf("%w: byte %d is %q where %s is expected", ErrSyntax, r.at, r.data[r.at], want)
}

// next passes over white space and returns the byte there, 0 at the end.
func (r *reader) next() byte {
	for ; r.at < len(r.data); r.at++ {
		switch c := r.data[r.at]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

func (r *reader) end() error {
	if r.next(); r.at < len(r.data) {
		return r.wrong("the end")
	}
	return nil
}

// take passes over one byte that must be there.
func (r *reader) take(c byte) error {
	if r.next() != c || r.at >= len(r.data) {
		return r.wrong(strconv.QuoteRune(rune(c)))
	}
	r.at++
	return nil
}

// items reads the objects of a list; null is none.
func (r *reader) items() ([]map[string]any, error) {
	if r.next() == 'n' {
		return nil, r.word("null")
	}
	items := []map[string]any{}
	err := r.array(1, func() error {
		if r.next() == 'n' {
			items = append(items, nil)
			return r.word("null")
		}
		item := map[string]any{}
		items = append(items, item)
		return r.object(2, func(key string) (err error) {
			if key == "metadata" && r.next() == '{' {
				item[key], err = r.metadata()
				return err
			}
			item[key], err = r.value(3)
			return err
		})
	})
	return items, err
}

func (r *reader) metadata() (map[string]any, error) {
	m := make(map[string]any, 8)
	return m, r.object(3, func(key string) (err error) {
		if key == "managedFields" {
			_, err = r.raw(4)
			return err
		}
		m[key], err = r.value(4)
		return err
	})
}

// object calls value with each key, to read what follows it.
func (r *reader) object(depth int, value func(key string) error) error {
	return r.members(depth, func() error {
		key, err := r.key()
		if err != nil {
			return err
		}
		if err := r.take(':'); err != nil {
			return err
		}
		return value(key)
	})
}

// members calls member to read each pair of an object.
func (r *reader) members(depth int, member func() error) error {
	if err := r.take('{'); err != nil {
		return err
	}
	if depth > maxDepth {
		return fmt.Errorf("%w: it is nested too deeply", ErrSyntax)
	}
	if r.next() == '}' {
		r.at++
		return nil
	}
	for {
		if err := member(); err != nil {
			return err
		}
		switch r.next() {
		case ',':
			r.at++
		case '}':
			r.at++
			return nil
		default:
			return r.wrong("',' or '}'")
		}
	}
}

func (r *reader) array(depth int, element func() error) error {
	if err := r.take('['); err != nil {
		return err
	}
	if depth > maxDepth {
		return fmt.Errorf("%w: it is nested too deeply", ErrSyntax)
	}
	if r.next() == ']' {
		r.at++
		return nil
	}
	for {
		if err := element(); err != nil {
			return err
		}
		switch r.next() {
		case ',':
			r.at++
		case ']':
			r.at++
			return nil
		default:
			return r.wrong("',' or ']'")
		}
	}
}

// value reads anything. Whole numbers are int64 where they fit, others float64.
func (r *reader) value(depth int) (any, error) {
	switch c := r.next(); {
	case c == '{':
		m := map[string]any{}
		err := r.object(depth, func(key string) (err error) {
			m[key], err = r.value(depth + 1)
			return err
		})
		return m, err
	case c == '[':
		list := []any{}
		err := r.array(depth, func() error {
			v, err := r.value(depth + 1)
			list = append(list, v)
			return err
		})
		return list, err
	case c == '"':
		return r.text()
	case c == 't':
		return true, r.word("true")
	case c == 'f':
		return false, r.word("false")
	case c == 'n':
		return nil, r.word("null")
	case c == '-' || isDigit(c):
		return r.number()
	}
	return nil, r.wrong("a value")
}

// raw passes over a value and returns its text.
func (r *reader) raw(depth int) (string, error) {
	r.next()
	from := r.at
	err := r.skip(depth)
	return r.data[from:r.at], err
}

func (r *reader) skip(depth int) (err error) {
	switch c := r.next(); {
	case c == '{':
		return r.members(depth, func() error {
			if _, _, err := r.quoted(); err != nil {
				return err
			}
			if err := r.take(':'); err != nil {
				return err
			}
			return r.skip(depth + 1)
		})
	case c == '[':
		return r.array(depth, func() error { return r.skip(depth + 1) })
	case c == '"':
		_, _, err = r.quoted()
		return err
	case c == '-' || isDigit(c):
		_, err = r.digitsOf()
		return err
	}
	_, err = r.value(depth)
	return err
}

func (r *reader) word(word string) error {
	if !strings.HasPrefix(r.data[r.at:], word) {
		return r.wrong(word)
	}
	r.at += len(word)
	return nil
}

// quoted passes over a string and returns it with its quotes. It says in plain
// whether its bytes are the string as they are.
func (r *reader) quoted() (text string, plain bool, err error) {
	if err := r.take('"'); err != nil {
		return "", false, err
	}
	from := r.at - 1
	plain = true
	for {
		r.at = harmless(r.data, r.at)
		if r.at >= len(r.data) {
			return "", false, r.wrong("the end of a string")
		}
		switch c := r.data[r.at]; {
		case c == '"':
			r.at++
			return r.data[from:r.at], plain, nil
		case c == '\\':
			plain = false
			if err := r.escape(); err != nil {
				return "", false, err
			}
		case c < ' ':
			return "", false, r.wrong("a character")
		case c >= 0x80:
			plain = false
		}
		r.at++
	}
}

// escape passes over what is escaped but for its last byte.
func (r *reader) escape() error {
	r.at++
	if r.at >= len(r.data) || !strings.ContainsRune(`"\/bfnrtu`, rune(r.data[r.at])) {
		return r.wrong("what may be escaped")
	}
	if r.data[r.at] != 'u' {
		return nil
	}
	for range 4 {
		if r.at++; r.at >= len(r.data) || !isHex(r.data[r.at]) {
			return r.wrong("a digit")
		}
	}
	return nil
}

func isHex(c byte) bool { return isDigit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }

func (r *reader) text() (string, error) {
	text, plain, err := r.quoted()
	if err != nil {
		return "", err
	}
	if !plain {
		return unquote(text)
	}
	if text = text[1 : len(text)-1]; len(text) >= long {
		return text, nil
	}
	return strings.Clone(text), nil
}

// long strings are not copied.
const long = 320 // a label's key has 317 bytes at most

// unquote resolves what is escaped, and what is no UTF-8.
func unquote(text string) (s string, err error) {
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return "", fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	return s, nil
}

// maxKey is how long keys are that are worth keeping.
const maxKey = 64

func (r *reader) key() (string, error) {
	r.next()
	text, plain, err := r.quoted()
	if err != nil {
		return "", err
	}
	if !plain {
		return unquote(text)
	}
	text = text[1 : len(text)-1]
	if known, ok := r.keys[text]; ok {
		return known, nil
	}
	key := strings.Clone(text)
	if len(key) <= maxKey && len(r.keys) < 4096 {
		r.keys[key] = key
	}
	return key, nil
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func (r *reader) digits() bool {
	from := r.at
	for r.at < len(r.data) && isDigit(r.data[r.at]) {
		r.at++
	}
	return r.at > from
}

func (r *reader) is(c byte) bool { return r.at < len(r.data) && r.data[r.at] == c }

// number reads a number.
func (r *reader) number() (any, error) {
	from := r.at
	whole, err := r.digitsOf()
	if err != nil {
		return nil, err
	}
	text := r.data[from:r.at]
	if whole {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n, nil
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: number %s: %w", ErrSyntax, text, err)
	}
	return f, nil
}

// digitsOf passes over a number as JSON writes them: no leading zero, no bare
// point. It says whether it is whole.
func (r *reader) digitsOf() (whole bool, err error) {
	if r.is('-') {
		r.at++
	}
	if r.is('0') {
		r.at++
	} else if !r.digits() {
		return false, r.wrong("a digit")
	}
	whole = true
	if r.is('.') {
		r.at++
		whole = false
		if !r.digits() {
			return false, r.wrong("a digit")
		}
	}
	if r.is('e') || r.is('E') {
		r.at++
		whole = false
		if r.is('+') || r.is('-') {
			r.at++
		}
		if !r.digits() {
			return false, r.wrong("a digit")
		}
	}
	return whole, nil
}
