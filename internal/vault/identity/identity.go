// Package identity is who opens a vault: secret keys of age, their public
// halves, and the data keys that are wrapped to them.
package identity

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"filippo.io/age"

	"davit.dev/davit/internal/vault/seal"
)

// ErrKey says that a key, although well-formed, does not open what it should.
var ErrKey = errors.New("key does not fit")

// Identity is a secret X25519 key of age: the recovery key a person exports,
// or a site's own. Printing it shows only its public half.
type Identity struct{ secret *age.X25519Identity }

// Recipient is the public half of an Identity.
type Recipient struct{ public *age.X25519Recipient }

// New makes a new Identity, as each site has one.
func New() (Identity, error) {
	secret, err := age.GenerateX25519Identity()
	if err != nil {
		return Identity{}, fmt.Errorf("make identity: %w", err)
	}
	return Identity{secret}, nil
}

// Parse reads an identity from a key file's text: one line
// AGE-SECRET-KEY-1..., with blank lines and lines starting with # around it.
// Errors never quote the text.
func Parse(text string) (Identity, error) {
	var found []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "#") {
			found = append(found, line)
		}
	}
	if len(found) != 1 {
		return Identity{}, fmt.Errorf("parse recovery key: %w: found %d keys, want one line that starts with AGE-SECRET-KEY-1", ErrKey, len(found))
	}
	secret, err := age.ParseX25519Identity(found[0])
	if err != nil { // its text could hold the secret
		return Identity{}, fmt.Errorf("parse recovery key: %w: want one line that starts with AGE-SECRET-KEY-1; was it cut or changed when copied?", ErrKey)
	}
	return Identity{secret}, nil
}

// IsZero tells whether the Identity holds no key.
func (i Identity) IsZero() bool { return i.secret == nil }

// Recipient returns the public half.
func (i Identity) Recipient() Recipient {
	if i.secret == nil {
		return Recipient{}
	}
	return Recipient{i.secret.Recipient()}
}

// Secret returns the secret text, AGE-SECRET-KEY-1..., to be stored with care.
func (i Identity) Secret() string {
	if i.secret == nil {
		return ""
	}
	return i.secret.String()
}

// String shows the public half only.
func (i Identity) String() string { return i.Recipient().String() }

// GoString keeps the secret out of %#v.
func (i Identity) GoString() string { return "vault.Identity(" + i.String() + ")" }

// LogValue keeps the secret out of logs.
func (i Identity) LogValue() slog.Value { return slog.StringValue(i.String()) }

// MarshalText refuses, so that no encoder writes a secret by accident.
func (i Identity) MarshalText() ([]byte, error) {
	return nil, errors.New("marshal identity: use Secret")
}

// ParseRecipient reads age1... .
func ParseRecipient(text string) (Recipient, error) {
	public, err := age.ParseX25519Recipient(strings.TrimSpace(text))
	if err != nil {
		return Recipient{}, fmt.Errorf("parse recipient: %w", err)
	}
	return Recipient{public}, nil
}

// IsZero tells whether the Recipient holds no key.
func (r Recipient) IsZero() bool { return r.public == nil }

// String returns age1..., or "none".
func (r Recipient) String() string {
	if r.public == nil {
		return "none"
	}
	return r.public.String()
}

// Fingerprint is the recipient's name in the vault: the first 16 bytes of the
// SHA-256 of its text, in hex.
func (r Recipient) Fingerprint() string {
	sum := sha256.Sum256([]byte(r.String()))
	return hex.EncodeToString(sum[:16])
}

// Wrap encrypts a data key to the recipient.
func (r Recipient) Wrap(k *seal.Key) ([]byte, error) {
	if r.public == nil {
		return nil, fmt.Errorf("wrap data key: %w: empty recipient", ErrKey)
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, r.public)
	if err != nil {
		return nil, fmt.Errorf("wrap data key: %w", err)
	}
	if _, err := w.Write(k[:]); err != nil {
		return nil, fmt.Errorf("wrap data key: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("wrap data key: %w", err)
	}
	return out.Bytes(), nil
}

// Unwrap is Wrap's inverse.
func (i Identity) Unwrap(wrapped []byte) (*seal.Key, error) {
	if i.secret == nil {
		return nil, fmt.Errorf("unwrap data key: %w: empty identity", ErrKey)
	}
	r, err := age.Decrypt(bufio.NewReader(bytes.NewReader(wrapped)), i.secret)
	if err != nil {
		return nil, fmt.Errorf("unwrap data key: %w: %w", seal.ErrDamaged, err)
	}
	var k seal.Key
	if _, err := io.ReadFull(r, k[:]); err != nil {
		return nil, fmt.Errorf("unwrap data key: %w: %w", seal.ErrDamaged, err)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("unwrap data key: %w: more than 32 bytes", seal.ErrDamaged)
	}
	return &k, nil
}
