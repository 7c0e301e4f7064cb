package vault

import "davit.dev/davit/internal/vault/identity"

// ErrKey says that a key, although well-formed, does not open what it should.
var ErrKey = identity.ErrKey

// Identity is a secret X25519 key of age: the recovery key a person exports,
// or a site's own. Printing it shows only its public half.
type Identity = identity.Identity

// Recipient is the public half of an Identity.
type Recipient = identity.Recipient

// NewRecoveryKey makes a new Identity. The vault's data is lost with the last
// identity that opens it, so one of them is exported and kept outside all sites.
func NewRecoveryKey() (Identity, error) { return identity.New() }

// NewIdentity makes a new Identity, as each site has one.
func NewIdentity() (Identity, error) { return identity.New() }

// ParseIdentity reads an identity from a key file's text; see identity.Parse.
func ParseIdentity(text string) (Identity, error) { return identity.Parse(text) }

// ParseRecipient reads age1... .
func ParseRecipient(text string) (Recipient, error) { return identity.ParseRecipient(text) }
