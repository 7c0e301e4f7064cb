package authority

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"davit.dev/davit/internal/vault"
)

var (
	// ErrOverlap says that a project has two authorities already.
	ErrOverlap = errors.New("a former authority of the project is trusted still: retire it first")
	// ErrOnly says that a project has one authority alone.
	ErrOnly = errors.New("the project has one authority alone: begin another first")
	// ErrForged says that a vault holds an authority that does not follow the one before.
	ErrForged = errors.New("nobody who has the authority before has begun it")
	// ErrUnproven says that nothing shows who let recipients in. It may have been an earlier
	// version, or a site itself.
	ErrUnproven = errors.New("nothing shows that a console let them in")
	// ErrNoRecovery says that nothing but consoles would open an authority: with the last
	// of them all that it sealed would be lost.
	ErrNoRecovery = errors.New("no recovery key would open it: with the last console, all that it seals would be lost")
	// ErrNamed says that somebody was named who cannot be let in.
	ErrNamed = errors.New("it cannot be let in")
	// ErrUnread says that something was sealed by no authority that was read: by a newer
	// one, if one was begun since.
	ErrUnread = errors.New("no authority that was read: a newer one, if one was begun since")
)

// purpose begins what an authority signs of the one that follows it: its other
// signatures are of things that never begin so.
const purpose = "davit.dev/console/v1/authority\x00"

// vouches is what an authority signs of the one that follows it.
func vouches(p *vault.Project, n int64, certificate []byte) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s%s\x00%020d\x00%s", purpose, p.Name(), n, certificate))
	return sum[:]
}

// line reads the documents of authorities, the newest first, and their certificates, the
// first one first. Each has to be vouched for by the one before: whoever has a project's
// data key, as every site does, could put one of his own there else. With an error it
// returns those before that one.
func line(ctx context.Context, p *vault.Project, all []Listing) (documents []document, certificates []*x509.Certificate, err error) {
	for _, l := range slices.Backward(all) {
		d, certificate, linkErr := link(ctx, p, l, certificates)
		if linkErr != nil {
			err = linkErr
			break
		}
		documents, certificates = append(documents, d), append(certificates, certificate)
	}
	slices.Reverse(documents)
	return documents, certificates, err
}

// link reads one of them, where the certificates of those before are known.
func link(ctx context.Context, p *vault.Project, l Listing, before []*x509.Certificate) (document, *x509.Certificate, error) {
	name := documentKey(p, l.Number)
	d, err := readDocument(ctx, p, l.Number)
	if err != nil {
		return d, nil, err
	}
	certificate, err := x509.ParseCertificate(d.Certificate)
	if err != nil {
		return d, nil, fmt.Errorf("read %s: %w: it holds no certificate", name, vault.ErrDamaged)
	}
	good := l.Number == int64(len(before)+1)
	if good && l.Number > 1 {
		by, ok := before[len(before)-1].PublicKey.(*ecdsa.PublicKey)
		good = ok && ecdsa.VerifyASN1(by, vouches(p, l.Number, d.Certificate), d.Vouched)
	}
	if !good {
		return d, nil, fmt.Errorf("%s: %w: find out who can write to the vault, and take it away there", name, ErrForged)
	}
	return d, certificate, nil
}

// Follows tells whether a project's authorities, as they were read from its vault, go on
// from that one.
func (a *Authority) Follows(known *Authority) bool {
	n := known.Number
	return n >= 1 && n <= int64(len(a.line)) && a.line[n-1].Equal(known.Certificate)
}

// Listing is an authority of a project, as anybody sees it who lists the vault. Whether it
// is retired in truth, who reads it knows.
type Listing struct {
	Number  int64
	Retired bool
}

// List returns a project's authorities, the newest first.
func List(ctx context.Context, p *vault.Project) ([]Listing, error) {
	retired, all := map[int64]bool{}, []Listing(nil)
	err := p.Store().List(ctx, root(p), func(o vault.ObjectInfo) error {
		number, _, _ := strings.Cut(strings.TrimPrefix(o.Key, root(p)), "/")
		n, err := strconv.ParseInt(number, 10, 64)
		switch {
		case err != nil || n < 1: // no authority's, whoever put it there
		case o.Key == documentKey(p, n):
			all = append(all, Listing{Number: n})
		case o.Key == inventoryKey(p, n):
			retired[n] = true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b Listing) int { return cmp.Compare(b.Number, a.Number) })
	for i := range all {
		all[i].Retired = i > 0 && retired[all[i].Number] // the newest never is
	}
	return all, nil
}

// Trusted are the authorities that are trusted, the newest first.
func (a *Authority) Trusted() []*Authority {
	all := []*Authority{a}
	for _, former := range a.Former {
		if !former.Retired {
			all = append(all, former)
		}
	}
	return all
}

// Roots are the certificates of all that are trusted, the newest first, as PEM.
func (a *Authority) Roots() (all []byte) {
	for _, one := range a.Trusted() {
		all = append(all, one.PEM()...)
	}
	return all
}

// Rotate begins another authority. It is open to those of the recipients of the one
// before who open the project still. Both are trusted until the former is retired. The
// identity is one that was let into the former. Of recipients of whom nothing shows who let
// them in, as earlier versions wrote no proof, those that are named are let in; without a
// name ErrUnproven says who they are. So are those that are named and were not let in at
// all, such as a recovery key that was made later, into the former ones too; a site's is
// refused (ErrNamed). ErrNoRecovery says that consoles alone would be let in.
func Rotate(ctx context.Context, p *vault.Project, identity vault.Identity, now time.Time, named ...string) (*Authority, error) {
	a, err := Read(ctx, p, identity)
	if err != nil {
		return nil, err
	}
	if len(a.Trusted()) > 1 {
		return nil, ErrOverlap
	}
	recipients, err := a.recipients(ctx, p, append(named, identity.Recipient().String()))
	if err != nil {
		return nil, fmt.Errorf("begin another authority of %s: %w", p.Name(), err)
	}
	if _, err := create(ctx, p, a, recipients, now); err != nil {
		if errors.Is(err, vault.ErrExists) { // someone else was faster
			err = ErrOverlap
		}
		return nil, fmt.Errorf("begin another authority of %s: %w", p.Name(), err)
	}
	return Read(ctx, p, identity)
}

// recipients are who uses the authority and opens the project. Whoever has the project's
// data key could have written that he does: it takes a proof, or that he is named, as
// whoever asks always is.
func (a *Authority) recipients(ctx context.Context, p *vault.Project, named []string) ([]vault.Recipient, error) {
	open, err := p.Recipients(ctx)
	if err != nil {
		return nil, err
	}
	if err := allowed(ctx, p, open, named); err != nil {
		return nil, err
	}
	var all []vault.Recipient
	var unproven []string
	for _, r := range open {
		in, proven, err := a.admitted(ctx, p, r)
		if err != nil {
			return nil, err
		}
		switch called := slices.Contains(named, r.String()); {
		case called && !in:
			if err := a.Admit(ctx, p, r); err != nil { // what the former ones sealed is for it, too
				return nil, err
			}
			all = append(all, r)
		case in && (proven || called):
			all = append(all, r)
		case in:
			unproven = append(unproven, r.String())
		}
	}
	if len(unproven) > 0 && len(named) == 1 {
		return nil, fmt.Errorf("%w: %s", ErrUnproven, strings.Join(unproven, ", "))
	}
	return all, recoverable(ctx, p, all)
}

// admitted tells whether it is written that somebody was let in, and whether it is proven.
func (a *Authority) admitted(ctx context.Context, p *vault.Project, r vault.Recipient) (in, proven bool, err error) {
	name := wrapKey(p, a.Number, a.wrapping.ID().String(), r)
	plain, err := p.ReadSealed(ctx, name)
	if errors.Is(err, vault.ErrNotFound) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	var w wrap
	if err := json.Unmarshal(plain, &w); err != nil {
		return false, false, fmt.Errorf("read %s: %w: %w", name, vault.ErrDamaged, err)
	}
	return true, hmac.Equal(w.Proof, a.proof(r)), nil
}

// allowed says why those that are named are not let in: they do not open the project, or
// are sites.
func allowed(ctx context.Context, p *vault.Project, open []vault.Recipient, named []string) error {
	if len(named) == 1 { // the last one asks
		return nil
	}
	sites, err := p.Sites(ctx)
	if err != nil {
		return err
	}
	for _, name := range named[:len(named)-1] {
		if !slices.ContainsFunc(open, func(r vault.Recipient) bool { return r.String() == name }) {
			return fmt.Errorf("%w: %s does not open the project", ErrNamed, name)
		}
		for _, s := range sites {
			if s.Recipient == name {
				return fmt.Errorf("%w: %s is the key of site %s", ErrNamed, name, s.Site)
			}
		}
	}
	return nil
}

// recoverable says why an authority that is open to some could not be brought back when
// all consoles are lost.
func recoverable(ctx context.Context, p *vault.Project, to []vault.Recipient) error {
	consoles, err := Consoles(ctx, p)
	if err != nil {
		return err
	}
	for _, r := range to {
		if !slices.ContainsFunc(consoles, func(c Console) bool { return c.Recipient == r.String() }) {
			return nil
		}
	}
	return ErrNoRecovery
}
