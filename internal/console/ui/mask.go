package ui

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
)

// masked is a secret as a page holds it: other text in each answer. Pages are compressed,
// and how long they are then tells whether what a link has put there is like what else is
// there (BREACH); of a secret that is never written twice in one way it tells nothing.
func masked(secret string) (string, error) {
	both := make([]byte, 2*len(secret)) // a pad, and the secret under it
	pad, under := both[:len(secret)], both[len(secret):]
	if _, err := rand.Read(pad); err != nil {
		return "", fmt.Errorf("mask secret: %w", err)
	}
	subtle.XORBytes(under, pad, []byte(secret))
	return hex.EncodeToString(both), nil
}

// unmasked is the secret in what masked made of it; empty: it is nothing of that kind.
func unmasked(text string) string {
	both, err := hex.DecodeString(text)
	if err != nil || len(both)%2 != 0 {
		return ""
	}
	pad, under := both[:len(both)/2], both[len(both)/2:]
	subtle.XORBytes(under, pad, under)
	return string(under)
}
