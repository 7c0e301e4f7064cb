// Package evidence keeps the reports of runs in the vault, signed with the
// project's key (docs/formats/report.md), and tells whether one still is what
// was signed and made from the run's own journal.
package evidence

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/report"
	"davit.dev/davit/internal/vault"
)

const (
	formatVersion = 1
	digits        = 20
	ended         = "-end" // of the name of a report on a run that is over
	signedAs      = "davit run report 1"
)

// ErrForged says that a report is not what the project's key signed, or not
// made from the run's journal.
var ErrForged = errors.New("the report cannot be trusted")

// Document is a signed report.
type Document struct {
	FormatVersion int    `json:"formatVersion"`
	Run           string `json:"run"`
	// Records is how many records of the journal it was made from, and Head the
	// SHA-256 of the last of them.
	Records int64  `json:"records"`
	Head    string `json:"head"`
	Over    bool   `json:"over,omitempty"`
	// JSON and HTML are the report, as they were signed.
	JSON string `json:"json"`
	HTML string `json:"html"`
	// Key is the public key, in hex; Signature is in base64.
	Key       string `json:"key"`
	Signature string `json:"signature"`
}

// signed are the bytes that the signature is of.
func (d *Document) signed() []byte {
	text, page := sha256.Sum256([]byte(d.JSON)), sha256.Sum256([]byte(d.HTML))
	return fmt.Appendf(nil, "%s\n%s\n%d\n%s\n%x\n%x\n", signedAs, d.Run, d.Records, d.Head, text, page)
}

// Report is what the document's JSON says.
func (d *Document) Report() (*report.Report, error) {
	var r report.Report
	if err := json.Unmarshal([]byte(d.JSON), &r); err != nil {
		return nil, fmt.Errorf("read report of run %s: %w: %w", d.Run, vault.ErrDamaged, err)
	}
	return &r, nil
}

// stored is what the name of a report says.
type stored struct {
	records int64
	over    bool
}

func root(p *vault.Project, run string) string { return p.Root() + "reports/" + run }

func key(p *vault.Project, run string, s stored) string {
	name := fmt.Sprintf("%s/%0*d", root(p, run), digits, s.records)
	if s.over {
		name += ended
	}
	return name
}

func parseName(name string) (stored, bool) {
	tail, over := strings.CutSuffix(name, ended)
	n, err := strconv.ParseInt(tail, 10, 64)
	return stored{n, over}, err == nil && n > 0 && len(tail) == digits
}

// Publish makes the report of a run from its journal, signs it and keeps it. One
// that says as much already is returned as it is; one that is damaged is made anew.
func Publish(ctx context.Context, p *vault.Project, run string) (*Document, error) {
	state, records, err := journal.History(ctx, p, run)
	if err != nil {
		return nil, err
	}
	all := make([]report.Record, 0, len(records))
	for _, r := range records {
		all = append(all, report.Record(r))
	}
	at := stored{int64(len(records)), state.Phase.Over()}
	there, err := read(ctx, p, run, at)
	damaged := errors.Is(err, vault.ErrDamaged)
	if !damaged && !errors.Is(err, vault.ErrNotFound) {
		return there, err
	}
	d, err := sign(ctx, p, report.New(state, all))
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encode report of run %s: %w", run, err)
	}
	if damaged {
		err = p.WriteSealed(ctx, key(p, run, at), data)
	} else {
		err = p.WriteSealedOnce(ctx, key(p, run, at), data)
	}
	if errors.Is(err, vault.ErrExists) { // made from the same records
		return read(ctx, p, run, at)
	}
	if err != nil {
		return nil, fmt.Errorf("keep report of run %s: %w", run, err)
	}
	return d, nil
}

func sign(ctx context.Context, p *vault.Project, r *report.Report) (*Document, error) {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode report of run %s: %w", r.Run, err)
	}
	page, err := r.HTML()
	if err != nil {
		return nil, err
	}
	private, err := signer(ctx, p)
	if err != nil {
		return nil, err
	}
	d := &Document{
		FormatVersion: formatVersion, Run: r.Run, Records: r.Journal.Records, Head: r.Journal.Head, Over: r.Over, JSON: string(text) + "\n", HTML: string(page),
		Key: public(private),
	}
	d.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(private, d.signed()))
	return d, nil
}

func public(k ed25519.PrivateKey) string {
	return hex.EncodeToString(k[ed25519.SeedSize:])
}

// Latest returns the newest report of a run that is kept, or vault.ErrNotFound.
func Latest(ctx context.Context, p *vault.Project, run string) (*Document, error) {
	if err := vault.CheckName(run); err != nil {
		return nil, fmt.Errorf("look for report: %w", err)
	}
	var newest stored
	prefix := root(p, run) + "/"
	err := p.Store().List(ctx, prefix, func(o vault.ObjectInfo) error {
		if s, ok := parseName(strings.TrimPrefix(o.Key, prefix)); ok && s.records > newest.records {
			newest = s
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for reports of run %s: %w", run, err)
	}
	if newest.records == 0 {
		return nil, fmt.Errorf("look for reports of run %s: %w", run, vault.ErrNotFound)
	}
	return read(ctx, p, run, newest)
}

func read(ctx context.Context, p *vault.Project, run string, s stored) (*Document, error) {
	if err := vault.CheckName(run); err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	data, err := p.ReadSealed(ctx, key(p, run, s))
	if err != nil {
		return nil, fmt.Errorf("read report of run %s: %w", run, err)
	}
	d, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("read report of run %s: %w", run, err)
	}
	if d.Run != run || d.Records != s.records {
		return nil, fmt.Errorf("read report of run %s: %w: it is of %d records of run %q", run, vault.ErrDamaged, d.Records, d.Run)
	}
	return d, nil
}

func parse(data []byte) (*Document, error) {
	var d Document
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, fmt.Errorf("%w: %w", vault.ErrDamaged, err)
	}
	switch {
	case d.FormatVersion > formatVersion:
		return nil, fmt.Errorf("report format %d, this davit reads %d: use a newer davit", d.FormatVersion, formatVersion)
	case d.FormatVersion != formatVersion || d.Run == "" || d.Records < 1 || d.JSON == "":
		return nil, fmt.Errorf("%w: it is no report", vault.ErrDamaged)
	}
	return &d, nil
}

// Proof is what a check of a report found.
type Proof struct {
	Key     string `json:"key"`     // that signed it, in hex
	Records int64  `json:"records"` // of the journal that it was made from
	Newer   int64  `json:"newer"`   // records that came after it
}

// Verify checks that the project's key signed the report, that it speaks of the
// run, and that it was made from the journal which the vault holds: the hash of
// its last record, which follows from all before it, is the one in the report.
func Verify(ctx context.Context, p *vault.Project, d *Document) (Proof, error) {
	own, err := verifier(ctx, p)
	if err != nil {
		return Proof{}, err
	}
	proof := Proof{Key: hex.EncodeToString(own), Records: d.Records}
	signature, err := base64.StdEncoding.DecodeString(d.Signature)
	switch {
	case err != nil || d.Key != proof.Key:
		return proof, fmt.Errorf("%w: it is signed with key %.16s, and the project's is %.16s", ErrForged, d.Key, proof.Key)
	case !ed25519.Verify(own, d.signed(), signature):
		return proof, fmt.Errorf("%w: its signature does not fit: it was changed after it was signed", ErrForged)
	}
	r, err := d.Report()
	if err != nil {
		return proof, err
	}
	if r.Run != d.Run || r.Journal.Records != d.Records || r.Journal.Head != d.Head || r.Over != d.Over {
		return proof, fmt.Errorf("%w: it speaks of another journal, or another end, than its envelope", ErrForged)
	}
	_, records, err := journal.History(ctx, p, d.Run)
	if err != nil {
		return proof, err
	}
	i := slices.IndexFunc(records, func(r journal.Record) bool { return r.Sequence == d.Records })
	if i < 0 || records[i].Hash != d.Head {
		return proof, fmt.Errorf("%w: record %d of the journal of run %s is not the one that it was made from", ErrForged, d.Records, d.Run)
	}
	proof.Newer = int64(len(records)) - d.Records
	return proof, nil
}

// signing is the project's key.
type signing struct {
	FormatVersion int    `json:"formatVersion"`
	Algorithm     string `json:"algorithm"`
	Seed          string `json:"seed"` // base64
	Public        string `json:"public"`
}

const algorithm = "ed25519"

func signingKey(p *vault.Project) string { return fmt.Sprintf("%ssigning/%0*d", p.Root(), digits, 1) }

// signer returns the project's key; whoever needs it first makes it.
func signer(ctx context.Context, p *vault.Project) (ed25519.PrivateKey, error) {
	k, err := readKey(ctx, p)
	if !errors.Is(err, vault.ErrNotFound) {
		return k, err
	}
	pub, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make signing key: %w", err)
	}
	data, err := json.Marshal(signing{formatVersion, algorithm, base64.StdEncoding.EncodeToString(private.Seed()), hex.EncodeToString(pub)})
	if err != nil {
		return nil, fmt.Errorf("encode signing key: %w", err)
	}
	err = p.WriteSealedOnce(ctx, signingKey(p), data)
	if errors.Is(err, vault.ErrExists) {
		return readKey(ctx, p)
	}
	if err != nil {
		return nil, fmt.Errorf("keep signing key: %w", err)
	}
	return private, nil
}

func verifier(ctx context.Context, p *vault.Project) (ed25519.PublicKey, error) {
	k, err := readKey(ctx, p)
	if err != nil {
		return nil, err
	}
	return ed25519.PublicKey(k[ed25519.SeedSize:]), nil
}

func readKey(ctx context.Context, p *vault.Project) (ed25519.PrivateKey, error) {
	data, err := p.ReadSealed(ctx, signingKey(p))
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	k, err := parseKey(data)
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	return k, nil
}

func parseKey(data []byte) (ed25519.PrivateKey, error) {
	var s signing
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("%w: %w", vault.ErrDamaged, err)
	}
	if s.FormatVersion > formatVersion || s.Algorithm != algorithm {
		return nil, fmt.Errorf("key format %d, algorithm %q: use a newer davit", s.FormatVersion, s.Algorithm)
	}
	seed, err := base64.StdEncoding.DecodeString(s.Seed)
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%w: it has no seed of %d bytes", vault.ErrDamaged, ed25519.SeedSize)
	}
	k := ed25519.NewKeyFromSeed(seed)
	if public(k) != s.Public {
		return nil, fmt.Errorf("%w: its public key is another's", vault.ErrDamaged)
	}
	return k, nil
}
