// Package authority is a project's certificate authority, rooted in the vault
// (docs/formats/console.md), so that a new console goes on with the
// certificates of one that is lost. Its key is wrapped to the recovery key and
// to the project's consoles; sites, although they open the project, have no use
// of it.
package authority

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/packed"
	"davit.dev/davit/internal/vault/seal"
)

// formatVersion is what this code writes, and the highest that it reads.
const formatVersion = 1

// How long certificates live.
const (
	RootLife   = 10 * 365 * 24 * time.Hour
	ServerLife = 30 * 24 * time.Hour
	// skew is how far other machines' clocks may be behind.
	skew = 10 * time.Minute
)

// Secret is the name under which a console keeps a project's authority.
const Secret = "authority"

// Authority is a project's certificate authority.
type Authority struct {
	Number      int64
	Certificate *x509.Certificate
	// Former are those before it that its reader has a key to, the newest first. What was
	// sealed with them can be read; with one that is retired, what it had sealed by then.
	Former []*Authority
	// Retired says that nobody trusts it any more.
	Retired bool
	// Planted is what lies beside the authorities that none of them has begun, or cannot be
	// read, where the reader went on without; nil: nothing.
	Planted error
	// had is what it had sealed when it was retired.
	had *inventory
	// line are the certificates of all authorities up to this one, the first one first;
	// none of one that was not read from a vault.
	line     []*x509.Certificate
	signer   crypto.Signer
	wrapping *seal.Key
}

// document is what is stored of an authority. Its key is sealed with a key of
// its own, which is wrapped to few.
type document struct {
	FormatVersion int       `json:"formatVersion"`
	Number        int64     `json:"number"`
	KeyID         string    `json:"keyID"` // of the key that seals Key
	Certificate   []byte    `json:"certificate"`
	Key           []byte    `json:"key"` // PKCS #8, sealed
	Created       time.Time `json:"created"`
	// Vouched is the signature of the authority before; the first has none.
	Vouched []byte `json:"vouched,omitempty"`
}

// wrap is the wrapping key for one recipient.
type wrap struct {
	FormatVersion int    `json:"formatVersion"`
	Recipient     string `json:"recipient"`
	Wrapped       []byte `json:"wrapped"`
	// Proof shows that who wrote this had the wrapping key; earlier versions gave none.
	Proof []byte `json:"proof,omitempty"`
}

func root(p *vault.Project) string { return p.Root() + "authorities/" }

func documentKey(p *vault.Project, n int64) string {
	return fmt.Sprintf("%s%020d/document", root(p), n)
}

func wrapKey(p *vault.Project, n int64, id string, r vault.Recipient) string {
	return fmt.Sprintf("%s%020d/keys/%s/%s", root(p), n, id, r.Fingerprint())
}

// Ensure returns the project's newest authority, or makes its first. The
// identity is the recovery key, or a console's that was admitted.
func Ensure(ctx context.Context, p *vault.Project, identity vault.Identity, now time.Time) (*Authority, error) {
	a, err := Read(ctx, p, identity)
	if !errors.Is(err, vault.ErrNotFound) {
		return a, err
	}
	a, err = create(ctx, p, nil, []vault.Recipient{identity.Recipient()}, now)
	if errors.Is(err, vault.ErrExists) { // someone else was faster
		return Read(ctx, p, identity)
	}
	if err != nil {
		return nil, fmt.Errorf("make certificate authority of %s: %w", p.Name(), err)
	}
	return a, nil
}

// Read returns the project's newest authority, and with it those before. vault.ErrNotFound
// says that it has none yet, vault.ErrKey that the identity was not let in.
func Read(ctx context.Context, p *vault.Project, identity vault.Identity) (*Authority, error) {
	return ReadOn(ctx, p, identity, nil)
}

// ReadOn is Read for a console that knows an authority of the project. It goes on with
// that, and with what the line of authorities says up to something that nobody who has
// the one before has begun, such as every site can put there; Planted says what that is.
// Whoever knows none, as on a bare machine, cannot tell which was put there.
func ReadOn(ctx context.Context, p *vault.Project, identity vault.Identity, known *Authority) (*Authority, error) {
	a, err := read(ctx, p, identity, known)
	if err != nil {
		return nil, fmt.Errorf("read certificate authority of %s: %w", p.Name(), err)
	}
	return a, nil
}

func read(ctx context.Context, p *vault.Project, identity vault.Identity, known *Authority) (*Authority, error) {
	all, err := List(ctx, p)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, vault.ErrNotFound
	}
	documents, certificates, planted := line(ctx, p, all)
	if planted != nil {
		bad := errors.Is(planted, ErrForged) || errors.Is(planted, vault.ErrDamaged)
		if before := (&Authority{line: certificates}); !bad || known == nil || !before.Follows(known) {
			return nil, planted
		}
	}
	a, err := readOne(ctx, p, identity, documents[0])
	if err != nil {
		return nil, err
	}
	a.line, a.Planted = certificates, planted
	for _, d := range documents[1:] {
		former, err := readOne(ctx, p, identity, d)
		if errors.Is(err, vault.ErrKey) { // it is no use to who was let in later, or whom it shuts out
			continue
		}
		if err != nil {
			return nil, err
		}
		if former.had, err = a.inventory(ctx, p, former.Number); err != nil {
			return nil, err
		}
		former.Retired = former.had != nil
		a.Former = append(a.Former, former)
	}
	return a, nil
}

func readOne(ctx context.Context, p *vault.Project, identity vault.Identity, d document) (*Authority, error) {
	key, err := unwrap(ctx, p, d, identity)
	if err != nil {
		return nil, err
	}
	return d.open(documentKey(p, d.Number), key)
}

func readDocument(ctx context.Context, p *vault.Project, n int64) (document, error) {
	name := documentKey(p, n)
	plain, err := p.ReadSealed(ctx, name)
	if err != nil {
		return document{}, err
	}
	d, err := parse(plain)
	if err != nil || d.Number != n {
		return d, fmt.Errorf("read %s: %w", name, errors.Join(vault.ErrDamaged, err))
	}
	return d, nil
}

func parse(plain []byte) (document, error) {
	var d document
	if err := json.Unmarshal(plain, &d); err != nil {
		return d, err
	}
	if d.FormatVersion != formatVersion {
		return d, fmt.Errorf("authority format %d, this davit reads %d: use a newer davit", d.FormatVersion, formatVersion)
	}
	return d, nil
}

func unwrap(ctx context.Context, p *vault.Project, d document, identity vault.Identity) (*seal.Key, error) {
	name := wrapKey(p, d.Number, d.KeyID, identity.Recipient())
	plain, err := p.ReadSealed(ctx, name)
	if errors.Is(err, vault.ErrNotFound) {
		return nil, fmt.Errorf("%w: it is not open to %s: use the recovery key that the first console was made with", vault.ErrKey, identity.Recipient())
	}
	if err != nil {
		return nil, err
	}
	var w wrap
	if err := json.Unmarshal(plain, &w); err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", name, vault.ErrDamaged, err)
	}
	key, err := identity.Unwrap(w.Wrapped)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return key, nil
}

func (d document) open(name string, key *seal.Key) (*Authority, error) {
	plain, err := packed.Unseal(key.Only, name, d.Key, 1<<16)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(plain)
	signer, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok { // its text could hold the key
		return nil, fmt.Errorf("read %s: %w: it holds no key", name, vault.ErrDamaged)
	}
	certificate, err := x509.ParseCertificate(d.Certificate)
	if err != nil || !signer.PublicKey.Equal(certificate.PublicKey) {
		return nil, fmt.Errorf("read %s: %w: certificate and key do not belong together", name, vault.ErrDamaged)
	}
	return &Authority{Number: d.Number, Certificate: certificate, signer: signer, wrapping: key}, nil
}

// create makes the authority that follows another, or with nil the first, for the recipients.
func create(ctx context.Context, p *vault.Project, before *Authority, recipients []vault.Recipient, now time.Time) (*Authority, error) {
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	n := int64(1)
	if before != nil {
		n = before.Number + 1
	}
	a := &Authority{Number: n, signer: signer, wrapping: new(seal.Key)}
	if _, err := rand.Read(a.wrapping[:]); err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "Davit project " + p.Name(), Organization: []string{"Davit"}},
		NotBefore: now.Add(-skew), NotAfter: now.Add(RootLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if n > 1 { // of two with one name, verifiers would take the wrong one
		template.Subject.CommonName += fmt.Sprintf(", authority %d", n)
	}
	if a.Certificate, err = sign(template, template, signer.Public(), signer); err != nil {
		return nil, err
	}
	for _, r := range recipients { // before anyone can rely on it
		if err := a.Admit(ctx, p, r); err != nil {
			return nil, err
		}
	}
	var vouched []byte
	if before != nil {
		if vouched, err = before.Sign(vouches(p, n, a.Certificate.Raw)); err != nil {
			return nil, err
		}
	}
	return a, a.write(ctx, p, vouched, now)
}

// write puts the document, which decides that this is the project's authority.
func (a *Authority) write(ctx context.Context, p *vault.Project, vouched []byte, now time.Time) error {
	name := documentKey(p, a.Number)
	plain, err := x509.MarshalPKCS8PrivateKey(a.signer)
	if err != nil {
		return err
	}
	d := document{FormatVersion: formatVersion, Number: a.Number, KeyID: a.wrapping.ID().String(), Certificate: a.Certificate.Raw, Created: now.UTC(), Vouched: vouched}
	if d.Key, err = packed.Seal(a.wrapping, name, plain); err != nil {
		return err
	}
	data, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return p.WriteSealedOnce(ctx, name, data)
}

// Admit lets one more recipient use the authority, and those before it.
func (a *Authority) Admit(ctx context.Context, p *vault.Project, r vault.Recipient) error {
	for _, one := range append(slices.Clone(a.Former), a) {
		if err := one.admit(ctx, p, r); err != nil {
			return err
		}
	}
	return nil
}

func (a *Authority) admit(ctx context.Context, p *vault.Project, r vault.Recipient) error {
	wrapped, err := r.Wrap(a.wrapping)
	if err != nil {
		return err
	}
	data, err := json.Marshal(wrap{FormatVersion: formatVersion, Recipient: r.String(), Wrapped: wrapped, Proof: a.proof(r)})
	if err != nil {
		return err
	}
	err = p.WriteSealedOnce(ctx, wrapKey(p, a.Number, a.wrapping.ID().String(), r), data)
	if errors.Is(err, vault.ErrExists) {
		return nil
	}
	return err
}

// proof is of who lets a recipient in.
func (a *Authority) proof(r vault.Recipient) []byte {
	mac := hmac.New(sha256.New, a.wrapping.Derive(nil, "davit.dev/console/v1/admitted"))
	_, _ = mac.Write([]byte(r.String())) // it never fails
	return mac.Sum(nil)
}

// backupKey is derived from the wrapping key: what is sealed with it is for
// consoles and the recovery key, and not for sites.
func (a *Authority) backupKey() *seal.Key {
	key := seal.Key(a.wrapping.Derive(nil, "davit.dev/console/v1/backup"))
	return &key
}

// Seal seals a part of a console's backup under its vault key.
func (a *Authority) Seal(name string, plain []byte) ([]byte, error) {
	return packed.Seal(a.backupKey(), name, plain)
}

// find returns who has the backup key of an id: this authority or one before it.
func (a *Authority) find(id seal.KeyID) (*Authority, *seal.Key, error) {
	for _, one := range append(slices.Clone(a.Former), a) {
		if key := one.backupKey(); key.ID() == id {
			return one, key, nil
		}
	}
	return nil, nil, fmt.Errorf("%w: it is sealed with key %s, which is of %w", seal.ErrDamaged, id, ErrUnread)
}

// Unseal is Seal's inverse, for at most limit plain bytes. It opens what a former
// authority has sealed too, of one that is retired what is listed that it had sealed by
// then; ErrRetired says of something else that it came later: from a thief.
func (a *Authority) Unseal(name string, data []byte, limit int64) ([]byte, error) {
	return a.unseal(name, data, limit, (*Authority).sealed)
}

// UnsealPart is Unseal for what something that was opened by Unseal has the SHA-256 of,
// to which the caller compares it: it need not be listed.
func (a *Authority) UnsealPart(name string, data []byte, limit int64) ([]byte, error) {
	return a.unseal(name, data, limit, func(*Authority, string, []byte) error { return nil })
}

func (a *Authority) unseal(name string, data []byte, limit int64, may func(by *Authority, name string, data []byte) error) ([]byte, error) {
	plain, err := packed.Unseal(func(id seal.KeyID) (*seal.Key, error) {
		by, key, err := a.find(id)
		if err != nil {
			return nil, err
		}
		return key, may(by, name, data)
	}, name, data, limit)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return plain, nil
}

// PEM is the certificate for those who are to trust what it signs.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate.Raw})
}

// Server makes a certificate, with a new key, for a server of these names and
// addresses. It counts from when the authority does: a clock that is ahead must not keep
// those away whose clocks are right.
func (a *Authority) Server(names []string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "Davit console"},
		NotBefore: a.Certificate.NotBefore, NotAfter: now.Add(ServerLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if address := net.ParseIP(name); address != nil {
			template.IPAddresses = append(template.IPAddresses, address)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	leaf, err := sign(template, a.Certificate, key.Public(), a.signer)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw, a.Certificate.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(raw)
}

// kept is an authority as a console keeps it beside its other secrets, to serve
// also while the vault is silent.
type kept struct {
	Number      int64  `json:"number"`
	Certificate []byte `json:"certificate"`
	Key         []byte `json:"key"`
	Wrapping    []byte `json:"wrapping"`
}

// MarshalJSON writes the authority with its secret key.
func (a *Authority) MarshalJSON() ([]byte, error) {
	plain, err := x509.MarshalPKCS8PrivateKey(a.signer)
	if err != nil {
		return nil, fmt.Errorf("encode authority: %w", err)
	}
	return json.Marshal(kept{a.Number, a.Certificate.Raw, plain, a.wrapping[:]})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (a *Authority) UnmarshalJSON(data []byte) error {
	var k kept
	if err := json.Unmarshal(data, &k); err != nil || len(k.Wrapping) != len(seal.Key{}) {
		return errors.New("decode authority: it is none")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(k.Key)
	signer, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok {
		return errors.New("decode authority: it holds no key")
	}
	certificate, err := x509.ParseCertificate(k.Certificate)
	if err != nil {
		return fmt.Errorf("decode authority: %w", err)
	}
	wrapping := seal.Key(bytes.Clone(k.Wrapping))
	*a = Authority{Number: k.Number, Certificate: certificate, signer: signer, wrapping: &wrapping}
	return nil
}
