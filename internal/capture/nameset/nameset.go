// Package nameset keeps which objects were seen.
package nameset

import "crypto/sha256"

// Set is a set of objects' names that may be as many as the application has
// objects: it keeps 16 bytes of each, whatever their length. The hash is one
// that no two names can be made to share.
type Set map[[16]byte]struct{}

func key(namespace, name string) (k [16]byte) {
	sum := sha256.Sum256([]byte(namespace + "/" + name))
	copy(k[:], sum[:])
	return k
}

// Add tells whether the name is new.
func (n Set) Add(namespace, name string) bool {
	k := key(namespace, name)
	if _, known := n[k]; known {
		return false
	}
	n[k] = struct{}{}
	return true
}

// Has tells whether the name was added.
func (n Set) Has(namespace, name string) bool {
	_, known := n[key(namespace, name)]
	return known
}
