package point

import (
	"fmt"
	"io"
	"strings"
	"time"
)

const (
	idLayout   = "20060102-150405.000" // the dot goes
	idTime     = 18                    // 8 digits, '-', 9 digits
	idRandom   = 6
	maxAppInID = 200 // leaves room within a DNS name's 253
	// Without vowels and look-alikes: no words, no doubt when read aloud.
	idAlphabet = "23456789bcdfghjkmnpqrstvwxz"
)

// NewID names a recovery point: "<application>-<date>-<time>-<random>", in
// UTC to the millisecond. It is a DNS-1123 subdomain if the application is
// one, and ids of one application sort by time. r gives the randomness.
func NewID(app string, at time.Time, r io.Reader) (string, error) {
	var random [idRandom]byte
	if _, err := io.ReadFull(r, random[:]); err != nil {
		return "", fmt.Errorf("name recovery point: %w", err)
	}
	for i, b := range random {
		random[i] = idAlphabet[int(b)%len(idAlphabet)]
	}
	if len(app) > maxAppInID {
		app = strings.TrimRight(app[:maxAppInID], "-.")
	}
	stamp := strings.Replace(at.UTC().Format(idLayout), ".", "", 1)
	return fmt.Sprintf("%s-%s-%s", app, stamp, random), nil
}

// IDTime returns the time that NewID put into the id, for display only.
func IDTime(id string) (time.Time, bool) {
	end := len(id) - idRandom - 1
	if end < idTime || id[end] != '-' {
		return time.Time{}, false
	}
	stamp := id[end-idTime : end]
	at, err := time.Parse(idLayout, stamp[:15]+"."+stamp[15:])
	return at, err == nil
}
