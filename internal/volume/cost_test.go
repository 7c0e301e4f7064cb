package volume

import (
	"encoding/json"
	"errors"
	"testing"
	"unsafe"

	"github.com/kopia/kopia/repo/format"
)

// Deriving the key takes 600,000 rounds each time a repository is opened, and
// a second and more under the race detector. The password is a random key, and
// nothing here depends on the rounds: tests make do with one, and
// TestKeyDerivation with all. kopia has no seam for that, so this reaches for
// its table of derivers; it panics if that is not what it was.
//
//go:linkname keyDerivers github.com/kopia/kopia/internal/crypto.keyDerivers
var keyDerivers map[string]any

// rounds is the cost of the deriver that repositories are made with.
func rounds() *int {
	const real = 600_000
	type deriver struct{ iterations, minSaltLength int }
	entry, ok := keyDerivers[keyDerivation]
	if !ok {
		panic("kopia knows no " + keyDerivation)
	}
	d := (*deriver)((*[2]unsafe.Pointer)(unsafe.Pointer(&entry))[1])
	if d.minSaltLength != 16 || (d.iterations != real && d.iterations != 1) {
		panic("kopia's deriver has another form")
	}
	return &d.iterations
}

func cheapKeys() { *rounds() = 1 }

// TestKeyDerivation makes and opens a repository at the real cost.
func TestKeyDerivation(t *testing.T) {
	*rounds() = 600_000
	defer cheapKeys()
	s := newTestStore()
	openTest(t, s)
	var blob struct {
		Algorithm string `json:"keyAlgo"`
	}
	if err := json.Unmarshal(s.object(testPrefix+format.KopiaRepositoryBlobID), &blob); err != nil || blob.Algorithm != "pbkdf2-sha256-600000" {
		t.Errorf("made with %q, %v", blob.Algorithm, err)
	}
	cheapKeys()
	_, err := Open(t.Context(), Options{Store: s, Prefix: testPrefix, Password: testPassword, Site: "east"})
	if !errors.Is(err, ErrPassword) {
		t.Errorf("opened with a key of one round: %v", err)
	}
}
