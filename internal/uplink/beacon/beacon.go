// Package beacon is the record in a project's vault that says which console is the
// active one, and where (docs/formats/console.md). The project's authority signs
// it: whoever can write into the vault can take it away, and send nobody elsewhere.
package beacon

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/vault"
)

// formatVersion is what this code writes, and the highest that it reads.
const formatVersion = 1

// purpose begins all that is signed: an authority's other signatures are of DER,
// which never begins so.
const purpose = "davit.dev/console/v1/active\x00"

var (
	// ErrForged says that no authority of the project has signed a record.
	ErrForged = errors.New("the record of the active console is not signed by the project's authority")
	// ErrNone says that the vault has no record.
	ErrNone = errors.New("the vault does not say which console is active")
	// ErrOld says that the vault names one that was replaced.
	ErrOld = errors.New("the vault names a console that was replaced")
)

// Record says which console is active.
type Record struct {
	Console string    `json:"console"` // id
	Project string    `json:"project"`
	Epoch   int64     `json:"epoch"`
	URL     string    `json:"url"`
	At      time.Time `json:"at"` // for people
}

// signed is a record as it is kept.
type signed struct {
	FormatVersion int    `json:"formatVersion"`
	Record        string `json:"record"` // its JSON: what is signed, to the byte
	Pin           string `json:"pin"`    // of the authority
	Signature     []byte `json:"signature"`
}

// Signer is a project's authority.
type Signer interface {
	// Sign signs a SHA-256, as ECDSA in ASN.1.
	Sign(digest []byte) ([]byte, error)
}

func digest(record string) []byte {
	sum := sha256.Sum256([]byte(purpose + record))
	return sum[:]
}

// Encode signs a record.
func Encode(r Record, by Signer, certificate *x509.Certificate) ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode record of the active console: %w", err)
	}
	signature, err := by.Sign(digest(string(text)))
	if err != nil {
		return nil, fmt.Errorf("sign record of the active console: %w", err)
	}
	return json.Marshal(signed{formatVersion, string(text), uplink.Pin(certificate), signature})
}

// Decode reads a record that one of these authorities, as DER, has signed.
func Decode(data []byte, authorities [][]byte) (Record, error) {
	var s signed
	if err := json.Unmarshal(data, &s); err != nil {
		return Record{}, fmt.Errorf("%w: %w", vault.ErrDamaged, err)
	}
	if s.FormatVersion != formatVersion {
		return Record{}, fmt.Errorf("record format %d, this davit reads %d: use a newer davit", s.FormatVersion, formatVersion)
	}
	for _, raw := range authorities {
		c, err := x509.ParseCertificate(raw)
		if err != nil || uplink.Pin(c) != s.Pin {
			continue
		}
		key, ok := c.PublicKey.(*ecdsa.PublicKey)
		if !ok || !ecdsa.VerifyASN1(key, digest(s.Record), s.Signature) {
			return Record{}, ErrForged
		}
		var r Record
		if err := json.Unmarshal([]byte(s.Record), &r); err != nil {
			return Record{}, fmt.Errorf("%w: %w", vault.ErrDamaged, err)
		}
		return r, nil
	}
	return Record{}, ErrForged
}

func prefix(p *vault.Project, console string) string {
	return p.Root() + "console/" + console + "/active/"
}

func key(p *vault.Project, console string, epoch int64) string {
	return fmt.Sprintf("%s%020d", prefix(p, console), epoch)
}

// Put writes the record of an epoch, once, and takes away those of lower ones, where
// that can be done. ErrForged says that agents do not find it: something that is no
// record lies in its place, or above it. All that was good before is kept then. What one of
// the project's other authorities signed for this epoch is replaced: agents may know only one.
func Put(ctx context.Context, p *vault.Project, r Record, by Signer, certificate *x509.Certificate, others ...*x509.Certificate) error {
	data, err := Encode(r, by, certificate)
	if err != nil {
		return err
	}
	ours := [][]byte{certificate.Raw}
	for _, c := range others {
		ours = append(ours, c.Raw)
	}
	err = p.WriteSealedOnce(ctx, key(p, r.Console, r.Epoch), data)
	if errors.Is(err, vault.ErrExists) {
		if _, err = read(ctx, p, r.Console, r.Epoch, ours[:1]); errors.Is(err, ErrForged) {
			if _, err = read(ctx, p, r.Console, r.Epoch, ours); err == nil {
				err = p.WriteSealed(ctx, key(p, r.Console, r.Epoch), data)
			}
		}
		err = inTheWay(err, key(p, r.Console, r.Epoch))
	}
	if err != nil {
		return fmt.Errorf("say in the vault which console is active: %w", err)
	}
	epochs, err := list(ctx, p, r.Console)
	if err != nil {
		return err
	}
	for _, n := range epochs {
		if n < r.Epoch {
			_ = p.Store().Delete(ctx, key(p, r.Console, n)) // it leads nobody astray, and the vault may lock it
		}
	}
	for _, n := range epochs[:min(len(epochs), most)] {
		if n <= r.Epoch {
			break
		}
		if _, err := read(ctx, p, r.Console, n, ours); err != nil {
			return fmt.Errorf("see whether agents find which console is active: %w", inTheWay(err, key(p, r.Console, n)))
		}
	}
	return nil
}

// inTheWay says of what cannot be read as a record that somebody put it there.
func inTheWay(err error, key string) error {
	if errors.Is(err, ErrForged) || errors.Is(err, vault.ErrDamaged) {
		return fmt.Errorf("%w: whoever can write into the vault has put %s there: delete it (%w)", ErrForged, key, err)
	}
	return err
}

// list returns the epochs of which there is a record, the highest first.
func list(ctx context.Context, p *vault.Project, console string) ([]int64, error) {
	var all []int64
	err := p.Store().List(ctx, prefix(p, console), func(o vault.ObjectInfo) error {
		n, err := strconv.ParseInt(strings.TrimPrefix(o.Key, prefix(p, console)), 10, 64)
		if err == nil && n > 0 && o.Key == key(p, console, n) {
			all = append(all, n)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for the active console in the vault: %w", err)
	}
	slices.Sort(all)
	slices.Reverse(all)
	return all, nil
}

// most is how many records are looked at: whoever writes false ones keeps nobody
// busy for ever.
const most = 16

// Find returns the newest record of a console that is good: signed by one of the
// authorities, of this project and console, and of no lower epoch than least.
func Find(ctx context.Context, p *vault.Project, console string, authorities [][]byte, least int64) (Record, error) {
	epochs, err := list(ctx, p, console)
	if err != nil {
		return Record{}, err
	}
	if len(epochs) == 0 {
		return Record{}, ErrNone
	}
	var errs []error
	for _, n := range epochs[:min(len(epochs), most)] {
		if n < least {
			errs = append(errs, fmt.Errorf("%w: its epoch is %d, and %d was heard", ErrOld, n, least))
			break
		}
		r, err := read(ctx, p, console, n, authorities)
		if err == nil {
			return r, nil
		}
		errs = append(errs, err)
	}
	return Record{}, errors.Join(errs...)
}

func read(ctx context.Context, p *vault.Project, console string, n int64, authorities [][]byte) (Record, error) {
	data, err := p.ReadSealed(ctx, key(p, console, n))
	if err != nil {
		return Record{}, fmt.Errorf("read which console is active: %w", err)
	}
	r, err := Decode(data, authorities)
	if err == nil && (r.Project != p.Name() || r.Console != console || r.Epoch != n) {
		err = fmt.Errorf("%w: it is of project %q, console %q, epoch %d", ErrForged, r.Project, r.Console, r.Epoch)
	}
	return r, err
}
