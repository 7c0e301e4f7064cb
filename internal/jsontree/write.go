package jsontree

import (
	"encoding/json"
	"slices"
	"strconv"
)

// Append adds an object to dst as apimachinery writes it: keys in order, one line.
func Append(dst []byte, object map[string]any) ([]byte, error) {
	dst, err := appendMap(dst, object)
	return append(dst, '\n'), err
}

func appendValue(dst []byte, value any) ([]byte, error) {
	switch v := value.(type) {
	case nil:
		return append(dst, "null"...), nil
	case string:
		return appendText(dst, v)
	case map[string]any:
		return appendMap(dst, v)
	case []any:
		return appendList(dst, v)
	case bool:
		return strconv.AppendBool(dst, v), nil
	case int64:
		return strconv.AppendInt(dst, v, 10), nil
	}
	return appendOther(dst, value)
}

// appendOther writes what is rare.
func appendOther(dst []byte, value any) ([]byte, error) {
	data, err := json.Marshal(value)
	return append(dst, data...), err
}

func appendMap(dst []byte, m map[string]any) ([]byte, error) {
	if m == nil {
		return append(dst, "null"...), nil
	}
	var few [16]string
	keys := few[:0]
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	dst = append(dst, '{')
	for i, key := range keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = appendText(dst, key); err != nil {
			return dst, err
		}
		if dst, err = appendValue(append(dst, ':'), m[key]); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

func appendList(dst []byte, list []any) ([]byte, error) {
	if list == nil {
		return append(dst, "null"...), nil
	}
	dst = append(dst, '[')
	for i, v := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = appendValue(dst, v); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

func appendText(dst []byte, s string) ([]byte, error) {
	if harmless(s, 0) < len(s) {
		return appendOther(dst, s)
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"'), nil
}

// harmless returns where the first byte at or after from is that is not plain. It
// looks at eight at a time, as most text is long and has none.
func harmless(s string, from int) int {
	const each, top = 0x0101010101010101, 0x8080808080808080
	for len(s)-from >= 8 {
		p := s[from : from+8]
		x := uint64(p[0]) | uint64(p[1])<<8 | uint64(p[2])<<16 | uint64(p[3])<<24 |
			uint64(p[4])<<32 | uint64(p[5])<<40 | uint64(p[6])<<48 | uint64(p[7])<<56
		// In each of these some byte has its top bit if some byte of x is not plain:
		// it has it itself, or gets it by a subtraction from too little. What makes a
		// byte 0 finds it in x; '<' and '>' differ in one bit.
		quote, slash, angle, and := x^each*'"', x^each*'\\', x&^(each*2)^each*'<', x^each*'&'
		if (x|(x-each*' ')|(quote-each)|(slash-each)|(angle-each)|(and-each))&top != 0 {
			break
		}
		from += 8
	}
	for from < len(s) && plainByte[s[from]] {
		from++
	}
	return from
}

// plainByte are the bytes that a JSON string has as they are.
var plainByte = func() (plain [256]bool) {
	for c := ' '; c < 0x80; c++ {
		plain[c] = true
	}
	for _, c := range `"\<>&` {
		plain[c] = false
	}
	return plain
}()
