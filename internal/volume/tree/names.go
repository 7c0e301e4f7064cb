package tree

import (
	"encoding/base64"
	"fmt"
	"strings"
	"unicode/utf8"
)

// encodedName marks names that JSON could not hold as they are.
const encodedName = "%davit-name:"

// encodeName makes a file name fit for kopia's JSON: names that are not UTF-8
// are kept as a mark and base64url.
func encodeName(name string) string {
	if utf8.ValidString(name) && !strings.HasPrefix(name, encodedName) {
		return name
	}
	return encodedName + base64.RawURLEncoding.EncodeToString([]byte(name))
}

// decodeName is the reverse of encodeName. It refuses what cannot be the name
// of one directory entry, so that no snapshot reaches outside its target.
func decodeName(stored string) (string, error) {
	name := stored
	if rest, ok := strings.CutPrefix(stored, encodedName); ok {
		b, err := base64.RawURLEncoding.DecodeString(rest)
		if err != nil {
			return "", fmt.Errorf("decode name %q: %w: %w", stored, ErrDamaged, err)
		}
		name = string(b)
	}
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return "", fmt.Errorf("decode name %q: %w: not a file name", stored, ErrDamaged)
	}
	return name, nil
}

// CheckName refuses what decodeName refuses.
func CheckName(stored string) error {
	_, err := decodeName(stored)
	return err
}

// decodePath checks a stored path and returns its elements.
func decodePath(stored string) ([]string, error) {
	var names []string
	for _, part := range strings.Split(stored, "/") {
		name, err := decodeName(part)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

// Join appends a name to a path relative to the root, which is "".
func Join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "/" + name
}
