package vault

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"davit.dev/davit/internal/vault/seal"
)

// Project is one tenant's part of a vault, opened with a key. It is safe for
// use by several goroutines.
type Project struct {
	store Store
	name  string
	at    layout
	// ring holds the data keys; it is shared with what Over returns.
	ring *ring
	// copied says that the store is a second copy of the vault, promoted that it
	// was one of another vault.
	copied, promoted bool
}

// projectFile is the plain document project.json. It is written last when a
// project is made and decides which data key is the project's.
type projectFile struct {
	FormatVersion int       `json:"formatVersion"`
	Name          string    `json:"name"`
	KeyID         string    `json:"keyID"`
	Created       time.Time `json:"created"`
	MAC           string    `json:"mac"` // see authenticate
}

// wrapFile is the plain document that admits one recipient.
type wrapFile struct {
	FormatVersion int       `json:"formatVersion"`
	KeyID         string    `json:"keyID"`
	Recipient     string    `json:"recipient"`
	Created       time.Time `json:"created"`
	Wrapped       []byte    `json:"wrapped"` // an age file that holds the data key
	MAC           string    `json:"mac"`
}

// CreateProject makes a project whose data every one of the recipients can
// open. One of them is the recovery key that a person keeps. ErrExists says
// that the vault has a project of this name.
func CreateProject(ctx context.Context, store Store, name string, recipients ...Recipient) (*Project, error) {
	if err := CheckName(name); err != nil {
		return nil, fmt.Errorf("create project: %w", err)
	}
	if len(recipients) == 0 {
		return nil, fmt.Errorf("create project %s: %w: no recipient could ever open it", name, ErrKey)
	}
	if _, err := store.Stat(ctx, layout(name).project()); !errors.Is(err, ErrNotFound) {
		if err == nil {
			err = ErrExists
		}
		return nil, fmt.Errorf("create project %s: %w", name, err)
	}
	var key seal.Key
	if _, err := rand.Read(key[:]); err != nil {
		return nil, fmt.Errorf("create project %s: %w", name, err)
	}
	p := newProject(store, name, newRing(Identity{}, &key))
	for _, r := range recipients {
		if err := p.AddRecipient(ctx, r); err != nil {
			return nil, fmt.Errorf("create project %s: %w", name, err)
		}
	}
	if err := p.claimName(ctx); err != nil {
		return nil, fmt.Errorf("create project %s: %w", name, err)
	}
	return p, nil
}

func newProject(store Store, name string, keys *ring) *Project {
	return &Project{store: store, name: name, at: layout(name), ring: keys}
}

// claimName writes project.json, or finds that someone else did and takes its
// own, now useless, key away again.
func (p *Project) claimName(ctx context.Context) error {
	f := projectFile{FormatVersion: FormatVersion, Name: p.name, KeyID: p.KeyID(), Created: now()}
	f.MAC = authenticate(p.ring.newestKey(), "project", f)
	data, err := encodePlain(f)
	if err != nil {
		return err
	}
	err = putOnce(ctx, p.store, p.at.project(), data)
	if errors.Is(err, ErrExists) {
		return errors.Join(err, deleteAll(ctx, p.store, p.at.keys(p.KeyID()), nil))
	}
	return err
}

// OpenProject opens a project with the recovery key or a site's identity. In a
// second copy of a vault it is for reading only.
// ErrNotFound says that there is no such project, ErrKey that the identity is
// not among those it was wrapped for.
func OpenProject(ctx context.Context, store Store, name string, identity Identity) (*Project, error) {
	p, err := openProject(ctx, store, name, identity)
	if err != nil {
		return nil, fmt.Errorf("open project %s: %w", name, err)
	}
	return p, nil
}

func openProject(ctx context.Context, store Store, name string, identity Identity) (*Project, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	copied, promoted, err := isCopy(ctx, store)
	if err != nil {
		return nil, err
	}
	p := newProject(store, name, newRing(identity, nil))
	f, err := p.readProject(ctx)
	if err != nil {
		return nil, err
	}
	if err := p.load(ctx, f.KeyID); err != nil {
		return nil, err
	}
	if !authentic(p.ring.firstKey(), "project", f.MAC, f.unsigned()) {
		return nil, fmt.Errorf("read %s: %w: does not authenticate", p.at.project(), ErrDamaged)
	}
	p.copied, p.promoted = copied, promoted
	if copied {
		p.store = readOnly{store}
	}
	return p, nil
}

// readProject reads project.json, which only a key of the project proves true.
func (p *Project) readProject(ctx context.Context) (projectFile, error) {
	var f projectFile
	raw, err := readAll(ctx, p.store, p.at.project(), maxPlain)
	if err != nil {
		return f, err
	}
	err = decodePlain(raw, &f)
	if err == nil {
		err = f.check(p.name)
	}
	if err != nil {
		return f, fmt.Errorf("read %s: %w", p.at.project(), err)
	}
	return f, nil
}

func (f projectFile) check(name string) error {
	if f.FormatVersion != FormatVersion {
		return fmt.Errorf("project format %d, this davit reads %d: use a newer davit", f.FormatVersion, FormatVersion)
	}
	if id, err := hex.DecodeString(f.KeyID); err != nil || len(id) != seal.KeyIDSize || f.Name != name {
		return fmt.Errorf("%w: names project %.40q and key %.40q", ErrDamaged, f.Name, f.KeyID)
	}
	return nil
}

// unwrapKey reads the data key that was wrapped for the identity. ErrNotFound
// says that it was not.
func unwrapKey(ctx context.Context, store Store, at layout, id string, identity Identity) (*seal.Key, error) {
	name := at.keys(id) + identity.Recipient().Fingerprint()
	raw, err := readAll(ctx, store, name, maxPlain)
	if err != nil {
		return nil, err
	}
	f, err := parseWrap(raw)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	key, err := identity.Unwrap(f.Wrapped)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if key.ID().String() != id {
		return nil, fmt.Errorf("read %s: %w: holds another key", name, ErrDamaged)
	}
	return key, nil
}

func parseWrap(raw []byte) (wrapFile, error) {
	var f wrapFile
	if err := decodePlain(raw, &f); err != nil {
		return f, err
	}
	if f.FormatVersion != FormatVersion {
		return f, fmt.Errorf("key format %d, this davit reads %d: use a newer davit", f.FormatVersion, FormatVersion)
	}
	return f, nil
}

// AddRecipient admits one more recipient: he can read everything, what is older
// than he included. Admitting him again is no error.
func (p *Project) AddRecipient(ctx context.Context, r Recipient) error {
	for {
		version, key := p.ring.newest()
		if err := p.wrapFor(ctx, key, r); err != nil {
			return err
		}
		// A rotation writes its version first and then looks who was admitted;
		// we admit first and then look for a version. So one sees the other.
		if err := p.Refresh(ctx); err != nil {
			return err
		}
		if p.NewestKey().Number == version.Number {
			return nil
		}
	}
}

// wrapFor writes a data key wrapped to the recipient.
func (p *Project) wrapFor(ctx context.Context, key *seal.Key, r Recipient) error {
	wrapped, err := r.Wrap(key)
	if err != nil {
		return err
	}
	id := key.ID().String()
	f := wrapFile{FormatVersion: FormatVersion, KeyID: id, Recipient: r.String(), Created: now(), Wrapped: wrapped}
	f.MAC = authenticate(key, "recipient", f)
	data, err := encodePlain(f)
	if err != nil {
		return err
	}
	name := p.at.keys(id) + r.Fingerprint()
	err = putOnce(ctx, p.store, name, data)
	if !errors.Is(err, ErrExists) {
		return err
	}
	_, err = p.recipient(ctx, key, name)
	return err
}

// Recipients returns everyone who can open the project with its newest key.
func (p *Project) Recipients(ctx context.Context) ([]Recipient, error) {
	return p.recipients(ctx, p.ring.newestKey())
}

func (p *Project) recipients(ctx context.Context, key *seal.Key) ([]Recipient, error) {
	prefix := p.at.keys(key.ID().String())
	tails, err := listKeys(ctx, p.store, prefix)
	if err != nil {
		return nil, err
	}
	var all []Recipient
	for _, tail := range tails {
		r, err := p.recipient(ctx, key, prefix+tail)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// recipient reads one wrap and checks that a holder of the data key wrote it.
func (p *Project) recipient(ctx context.Context, key *seal.Key, name string) (Recipient, error) {
	raw, err := readAll(ctx, p.store, name, maxPlain)
	if err != nil {
		return Recipient{}, err
	}
	f, err := parseWrap(raw)
	if err != nil {
		return Recipient{}, fmt.Errorf("read %s: %w", name, err)
	}
	mac := f.MAC
	f.MAC = ""
	if !authentic(key, "recipient", mac, f) || f.KeyID != key.ID().String() {
		return Recipient{}, fmt.Errorf("read %s: %w: does not authenticate", name, ErrDamaged)
	}
	r, err := ParseRecipient(f.Recipient)
	if err != nil || !strings.HasSuffix(name, "/"+r.Fingerprint()) {
		return Recipient{}, fmt.Errorf("read %s: %w: names another recipient", name, ErrDamaged)
	}
	return r, nil
}

// Name returns the project's name.
func (p *Project) Name() string { return p.name }

// KeyID names the project's first data key, in hex, and with it the project.
func (p *Project) KeyID() string { return p.ring.firstKey().ID().String() }

// Store returns the vault's store, for engines that keep blobs of their own
// under VolumePrefix.
func (p *Project) Store() Store { return p.store }

// Over returns the project over another way to the same store, such as a cache.
func (p *Project) Over(wrap func(Store) Store) *Project {
	over := *p
	over.store = wrap(p.store)
	return &over
}

// Root is the prefix of all that is the project's, with a slash at the end.
func (p *Project) Root() string { return p.at.root() }

// VolumePrefix is where a site's volume engine keeps its blobs, with a slash at the end.
func (p *Project) VolumePrefix(site string) string { return p.at.volumes(site) }

func (f projectFile) unsigned() projectFile {
	f.MAC = ""
	return f
}

// authenticate returns the HMAC-SHA-256, in hex, of v's JSON under what a data
// key yields for this kind of document. v has an empty MAC field.
func authenticate(key *seal.Key, kind string, v any) string {
	data, err := json.Marshal(v)
	if err != nil { // plain structs always encode
		panic(err)
	}
	mac := hmac.New(sha256.New, key.Derive(nil, "davit.dev/vault/v1/mac\x00"+kind))
	mac.Write(data)
	return hex.EncodeToString(mac.Sum(nil))
}

func authentic(key *seal.Key, kind, mac string, v any) bool {
	return hmac.Equal([]byte(mac), []byte(authenticate(key, kind, v)))
}

// encodePlain and decodePlain are the one text form of plain documents:
// whatever differs from it in a byte is refused, so every byte is authenticated.
func encodePlain(v any) ([]byte, error) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode document: %w", err)
	}
	return append(data, '\n'), nil
}

func decodePlain[T any](data []byte, v *T) error {
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	again, err := encodePlain(v)
	if err != nil || !bytes.Equal(again, data) {
		return fmt.Errorf("%w: not in canonical form", ErrDamaged)
	}
	return nil
}

// now is the writer's clock, for dates that people read and nothing relies on.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }
