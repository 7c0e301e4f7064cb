package account

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
)

// ErrPassword says that a password cannot be one.
var ErrPassword = errors.New("password not accepted")

// Cost is what it costs to try a password.
type Cost struct {
	Passes  uint32
	Memory  uint32 // KiB
	Threads uint8
}

// Usual is the second choice of RFC 9106, for machines without much memory.
var Usual = Cost{Passes: 3, Memory: 64 << 10, Threads: 4}

// Bounds of passwords, in characters and bytes.
const (
	MinPassword = 12
	MaxPassword = 1024
)

// CheckPassword refuses what is no password for this name. Length is all that is
// asked of it: rules about characters make people choose worse ones.
func CheckPassword(name, password string) error {
	switch {
	case !utf8.ValidString(password) || len(password) > MaxPassword:
		return fmt.Errorf("%w: it is longer than %d bytes, or no text", ErrPassword, MaxPassword)
	case utf8.RuneCountInString(password) < MinPassword:
		return fmt.Errorf("%w: it has fewer than %d characters", ErrPassword, MinPassword)
	case strings.EqualFold(password, name) || strings.Count(password, password[:1]) == len(password):
		return fmt.Errorf("%w: it is the name, or one character over and over", ErrPassword)
	}
	return nil
}

const (
	saltSize = 16
	hashSize = 32
)

// Hash returns a password's text to be kept: argon2id in the PHC form.
func (c Cost) Hash(password string) (string, error) {
	var salt [saltSize]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return c.hash(password, salt[:]), nil
}

func (c Cost) hash(password string, salt []byte) string {
	sum := argon2.IDKey([]byte(password), salt, c.Passes, c.Memory, c.Threads, hashSize)
	encode := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, c.Memory, c.Passes, c.Threads, encode(salt), encode(sum))
}

// Matches tells whether the password is the one that was hashed. A text that
// Hash did not write matches nothing. An empty one costs as much as any other,
// so that a name that nobody has is answered as late as one that somebody has.
func (c Cost) Matches(hashed, password string) bool {
	cost, salt, sum, ok := parseHash(hashed)
	if !ok {
		cost, salt, sum = c, make([]byte, saltSize), make([]byte, hashSize)
	}
	got := argon2.IDKey([]byte(password), salt, cost.Passes, cost.Memory, cost.Threads, hashSize)
	return subtle.ConstantTimeCompare(got, sum) == 1 && ok
}

// Outdated tells whether a password was hashed at another cost than this one.
func (c Cost) Outdated(hashed string) bool {
	cost, _, _, ok := parseHash(hashed)
	return !ok || cost != c
}

// maxMemory bounds what a hash may ask of the machine, in KiB.
const maxMemory = 1 << 20

func parseHash(text string) (c Cost, salt, sum []byte, ok bool) {
	parts := strings.Split(text, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return c, nil, nil, false
	}
	var threads uint32
	n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &c.Memory, &c.Passes, &threads)
	if err != nil || n != 3 || threads < 1 || threads > math.MaxUint8 || c.Passes < 1 || c.Passes > 64 || c.Memory < 8*threads || c.Memory > maxMemory {
		return c, nil, nil, false
	}
	c.Threads = uint8(threads)
	salt, errSalt := base64.RawStdEncoding.Strict().DecodeString(parts[4])
	sum, errSum := base64.RawStdEncoding.Strict().DecodeString(parts[5])
	if errSalt != nil || errSum != nil || len(salt) != saltSize || len(sum) != hashSize {
		return c, nil, nil, false
	}
	return c, salt, sum, true
}
