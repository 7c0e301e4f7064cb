package account

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"fmt"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"
)

// period is how long a one-time code counts, in seconds; codes one period
// early or late are taken, for phones' clocks.
const period = 30

var codes = totp.ValidateOpts{Period: period, Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1}

// NewSecret makes a secret for one-time codes: 20 random bytes, in base 32.
func NewSecret() (string, error) {
	var secret [20]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return "", fmt.Errorf("make secret of one-time codes: %w", err)
	}
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret[:]), nil
}

// SecretURL is the address by which a phone takes a secret up.
func SecretURL(secret, name, console string) (string, error) {
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(secret)
	if err != nil {
		return "", fmt.Errorf("read secret of one-time codes: %w", err)
	}
	key, err := totp.Generate(totp.GenerateOpts{Issuer: console, AccountName: name, Secret: raw, Period: period})
	if err != nil {
		return "", fmt.Errorf("write address of one-time codes: %w", err)
	}
	return key.URL(), nil
}

// CheckCode returns the period that the code is of, if it is right and later
// than the last one that was used: no code counts twice.
func CheckCode(secret, code string, now time.Time, last int64) (used int64, ok bool) {
	if len(code) != 6 {
		return 0, false
	}
	at := now.Unix() / period
	for step := at - 1; step <= at+1; step++ {
		want, err := totp.GenerateCodeCustom(secret, time.Unix(step*period, 0), codes)
		if err != nil {
			return 0, false
		}
		if subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 && step > last {
			used, ok = step, true
		}
	}
	return used, ok
}
