package reply

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
)

// Mask is a secret as an answer holds it: other text in each. Pages are compressed,
// and how long they are then tells whether what a link has put there is like what else is
// there (BREACH); of a secret that is never written twice in one way it tells nothing.
func Mask(secret string) (string, error) {
	both := make([]byte, 2*len(secret)) // a pad, and the secret under it
	pad, under := both[:len(secret)], both[len(secret):]
	if _, err := rand.Read(pad); err != nil {
		return "", fmt.Errorf("mask secret: %w", err)
	}
	subtle.XORBytes(under, pad, []byte(secret))
	return hex.EncodeToString(both), nil
}

// Unmask is the secret in what Mask made of it; empty: it is nothing of that kind.
func Unmask(text string) string {
	both, err := hex.DecodeString(text)
	if err != nil || len(both)%2 != 0 {
		return ""
	}
	pad, under := both[:len(both)/2], both[len(both)/2:]
	subtle.XORBytes(under, pad, under)
	return string(under)
}
