package capture

import "crypto/sha256"

// names is a set of objects' names that may be as many as the application has
// objects: it keeps 16 bytes of each, whatever their length. The hash is one
// that no two names can be made to share.
type names map[[16]byte]struct{}

func nameKey(namespace, name string) (key [16]byte) {
	sum := sha256.Sum256([]byte(namespace + "/" + name))
	copy(key[:], sum[:])
	return key
}

// add tells whether the name is new.
func (n names) add(namespace, name string) bool {
	key := nameKey(namespace, name)
	if _, known := n[key]; known {
		return false
	}
	n[key] = struct{}{}
	return true
}

func (n names) has(namespace, name string) bool {
	_, known := n[nameKey(namespace, name)]
	return known
}
