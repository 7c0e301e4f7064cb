// Package volumetest makes repositories of volumes cheap to open. Only tests
// import it.
package volumetest

import (
	"unsafe" // also for go:linkname

	_ "github.com/kopia/kopia/repo" // registers the derivers
)

// Rounds is what the key derivation of repositories costs in the product.
const Rounds = 600_000

// Deriving the key takes all the rounds each time a repository is opened, and
// a second and more under the race detector. The password is a random key, and
// no test depends on the rounds but the one of package volume that opens a
// repository at the real cost. kopia has no seam for that, so this reaches for
// its table of derivers; it panics if that is not what it was.
//
//go:linkname keyDerivers github.com/kopia/kopia/internal/crypto.keyDerivers
var keyDerivers map[string]any

// SetRounds sets the cost of deriving keys for this process. Repositories made
// at one cost do not open at another.
func SetRounds(n int) {
	const name = "pbkdf2-sha256-600000"
	type deriver struct{ iterations, minSaltLength int }
	entry, ok := keyDerivers[name]
	if !ok {
		panic("kopia knows no " + name)
	}
	d := (*deriver)((*[2]unsafe.Pointer)(unsafe.Pointer(&entry))[1])
	if d.minSaltLength != 16 || (d.iterations != Rounds && d.iterations != 1) {
		panic("kopia's deriver has another form")
	}
	d.iterations = n
}

// CheapKeys sets it to one round; call it in TestMain.
func CheapKeys() { SetRounds(1) }
