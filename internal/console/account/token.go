package account

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"strings"
)

// What tokens begin with, so that scanners for leaked secrets know them.
const (
	sessionPrefix = "davit_session_"
	robotPrefix   = "davit_robot_"
)

// secretSize is of a session's or a token's secret, in bytes.
const secretSize = 32

// NewSession makes a session's secret: what the browser or the command line
// keeps, and the hash that the console keeps.
func NewSession() (token string, hash []byte, err error) {
	secret, err := random(secretSize)
	if err != nil {
		return "", nil, err
	}
	return sessionPrefix + secret, HashToken(sessionPrefix + secret), nil
}

// IsSession tells whether the text has the form of a session's secret.
func IsSession(token string) bool {
	secret, ok := strings.CutPrefix(token, sessionPrefix)
	return ok && isHex(secret, secretSize)
}

// NewRobot makes a robot's token. The id finds it; only the hash of the whole
// is kept.
func NewRobot() (id, token string, hash []byte, err error) {
	id, err = random(8)
	if err != nil {
		return "", "", nil, err
	}
	secret, err := random(secretSize)
	if err != nil {
		return "", "", nil, err
	}
	token = robotPrefix + id + "_" + secret
	return id, token, HashToken(token), nil
}

// RobotID returns the id in a robot's token.
func RobotID(token string) (id string, ok bool) {
	rest, ok := strings.CutPrefix(token, robotPrefix)
	if !ok {
		return "", false
	}
	id, secret, ok := strings.Cut(rest, "_")
	return id, ok && isHex(id, 8) && isHex(secret, secretSize)
}

// HashToken is what is kept of a token. It is random enough to need no salt.
func HashToken(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// SameHash compares two hashes and takes as long whether they differ or not.
func SameHash(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

// NewID makes a random name for a user, a project or an object: 16 bytes in hex.
func NewID() (string, error) { return random(16) }

func random(size int) (string, error) {
	secret := make([]byte, size)
	if _, err := rand.Read(secret); err != nil {
		return "", fmt.Errorf("read random: %w", err)
	}
	return hex.EncodeToString(secret), nil
}

func isHex(text string, size int) bool {
	raw, err := hex.DecodeString(text)
	return err == nil && len(raw) == size && strings.ToLower(text) == text
}
