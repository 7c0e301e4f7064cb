package vault

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"davit.dev/davit/internal/vault/packed"
	"davit.dev/davit/internal/vault/seal"
)

// refreshTimeout bounds the look for new keys where the caller gave no context.
const refreshTimeout = 30 * time.Second

// KeyVersion is one of a project's data keys. New data is sealed with the
// newest; each blob names the key that it was sealed with.
type KeyVersion struct {
	Number  int64  // 1 is project.json's
	KeyID   string // hex
	Created time.Time
	// Volumes says that every site begins a new volume repository with it.
	Volumes bool
	// Removed are the fingerprints of the recipients that it leaves out.
	Removed []string

	id seal.KeyID
}

// versionFile is the plain document of a key version but the first. Whoever
// can open the key of a version can open those of all before it.
type versionFile struct {
	FormatVersion int       `json:"formatVersion"`
	Number        int64     `json:"number"`
	KeyID         string    `json:"keyID"`
	Previous      string    `json:"previous"`    // key id
	PreviousKey   []byte    `json:"previousKey"` // that key, sealed with this one
	Volumes       bool      `json:"volumes"`
	Removed       []string  `json:"removed"`
	Created       time.Time `json:"created"`
	MAC           string    `json:"mac"`
}

func parseVersion(raw []byte) (versionFile, error) {
	var f versionFile
	if err := decodePlain(raw, &f); err != nil {
		return f, err
	}
	if f.FormatVersion != FormatVersion {
		return f, fmt.Errorf("key version format %d, this davit reads %d: use a newer davit", f.FormatVersion, FormatVersion)
	}
	for _, id := range []string{f.KeyID, f.Previous} {
		if raw, err := hex.DecodeString(id); err != nil || len(raw) != seal.KeyIDSize {
			return f, fmt.Errorf("%w: names key %.40q", ErrDamaged, id)
		}
	}
	return f, nil
}

// ring holds the data keys of an open project, and who opened it.
type ring struct {
	identity Identity

	mu       sync.RWMutex
	versions []KeyVersion // ascending, without gaps
	keys     map[seal.KeyID]*seal.Key
}

func newRing(identity Identity, first *seal.Key) *ring {
	r := &ring{identity: identity}
	if first != nil {
		id := first.ID()
		r.versions = []KeyVersion{{Number: 1, KeyID: id.String(), id: id}}
		r.keys = map[seal.KeyID]*seal.Key{id: first}
	}
	return r
}

func (r *ring) get(id seal.KeyID) *seal.Key {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys[id]
}

// named is get for an id in hex.
func (r *ring) named(id string) *seal.Key {
	raw, err := hex.DecodeString(id)
	if err != nil || len(raw) != seal.KeyIDSize {
		return nil
	}
	return r.get(seal.KeyID(raw))
}

func (r *ring) newest() (KeyVersion, *seal.Key) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	v := r.versions[len(r.versions)-1]
	return v, r.keys[v.id]
}

func (r *ring) newestKey() *seal.Key {
	_, key := r.newest()
	return key
}

func (r *ring) firstKey() *seal.Key {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys[r.versions[0].id]
}

// set takes over what was read, unless something newer was read meanwhile. Who
// holds an old key can write versions of his own after it: one that was seen
// never becomes another.
func (r *ring) set(versions []KeyVersion, keys map[seal.KeyID]*seal.Key) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range min(len(versions), len(r.versions)) {
		if was := r.versions[i]; versions[i].id != was.id {
			return fmt.Errorf("%w: version %d of the data key was %s and is %s now: someone exchanged it", ErrDamaged, was.Number, was.KeyID, versions[i].KeyID)
		}
	}
	if len(versions) >= len(r.versions) {
		r.versions, r.keys = versions, keys
	}
	return nil
}

// KeyVersions are the project's data keys as this process knows them, oldest first.
func (p *Project) KeyVersions() []KeyVersion {
	p.ring.mu.RLock()
	defer p.ring.mu.RUnlock()
	return slices.Clone(p.ring.versions)
}

// NewestKey is the version with which this process seals.
func (p *Project) NewestKey() KeyVersion {
	v, _ := p.ring.newest()
	return v
}

// Opener is the recipient as which the project was opened.
func (p *Project) Opener() Recipient { return p.ring.identity.Recipient() }

func (p *Project) hasKey(id string) bool {
	return slices.ContainsFunc(p.KeyVersions(), func(v KeyVersion) bool { return v.KeyID == id })
}

// Refresh takes up new versions of the data key. ErrKey says that whoever
// opened the project was left out of the newest; ErrDamaged also that the vault
// went back to an older one.
func (p *Project) Refresh(ctx context.Context) error {
	known := p.NewestKey().Number
	numbers, err := p.numbers(ctx, p.at.keyVersions())
	switch {
	case err != nil:
		return err
	case int64(len(numbers))+1 == known:
		return nil
	case int64(len(numbers))+1 < known:
		return fmt.Errorf("list %s: %w: version %d of the data key is gone: someone put the vault back to an older state", p.at.keyVersions(), ErrDamaged, known)
	}
	return p.load(ctx, p.KeyID())
}

// finder looks a blob's key up, also one that came since the project was opened.
func (p *Project) finder(ctx context.Context) seal.Finder {
	return func(id seal.KeyID) (*seal.Key, error) {
		if key := p.ring.get(id); key != nil {
			return key, nil
		}
		if err := p.Refresh(ctx); err != nil {
			return nil, err
		}
		if key := p.ring.get(id); key != nil {
			return key, nil
		}
		return nil, fmt.Errorf("%w: sealed with key %s, which is none of project %s: its newest is %s", ErrDamaged, id, p.name, p.NewestKey().KeyID)
	}
}

// load reads all versions of the data key: the newest is unwrapped, each opens
// the one before it, and the first is the one that project.json names.
func (p *Project) load(ctx context.Context, first string) error {
	files, err := p.readVersions(ctx)
	if err != nil {
		return err
	}
	id := first
	if n := len(files); n > 0 {
		id = files[n-1].KeyID
	}
	key := p.ring.named(id)
	if key == nil {
		key, err = unwrapKey(ctx, p.store, p.at, id, p.ring.identity)
	}
	if errors.Is(err, ErrNotFound) {
		return p.leftOut(files)
	}
	if err != nil {
		return err
	}
	versions := make([]KeyVersion, len(files)+1)
	keys := map[seal.KeyID]*seal.Key{key.ID(): key}
	for i := len(files) - 1; i >= 0; i-- {
		f := files[i]
		versions[i+1] = KeyVersion{Number: f.Number, KeyID: f.KeyID, Created: f.Created, Volumes: f.Volumes, Removed: f.Removed, id: key.ID()}
		if key, err = f.previous(key, p.at.keyVersion(f.Number)); err != nil {
			return fmt.Errorf("read %s: %w", p.at.keyVersion(f.Number), err)
		}
		keys[key.ID()] = key
	}
	if key.ID().String() != first {
		return fmt.Errorf("list %s: %w: the oldest key is %s, the project's is %s", p.at.keyVersions(), ErrDamaged, key.ID(), first)
	}
	versions[0] = KeyVersion{Number: 1, KeyID: first, id: key.ID()}
	return p.ring.set(versions, keys)
}

// previous opens the key before this one, and proves the whole document.
func (f versionFile) previous(key *seal.Key, name string) (*seal.Key, error) {
	mac := f.MAC
	f.MAC = ""
	if f.KeyID != key.ID().String() || !authentic(key, "version", mac, f) {
		return nil, fmt.Errorf("%w: does not authenticate", ErrDamaged)
	}
	plain, err := packed.Unseal(key.Only, name, f.PreviousKey, int64(len(seal.Key{})))
	if err != nil {
		return nil, err
	}
	var before seal.Key
	if copy(before[:], plain) != len(before) || before.ID().String() != f.Previous {
		return nil, fmt.Errorf("%w: holds another key", ErrDamaged)
	}
	return &before, nil
}

// readVersions reads the documents of all versions but the first.
func (p *Project) readVersions(ctx context.Context) ([]versionFile, error) {
	numbers, err := p.numbers(ctx, p.at.keyVersions())
	if err != nil {
		return nil, err
	}
	files := make([]versionFile, 0, len(numbers))
	for i, n := range numbers {
		name := p.at.keyVersion(n)
		if n != int64(i)+2 {
			return nil, fmt.Errorf("list %s: %w: version %d is missing", p.at.keyVersions(), ErrDamaged, i+2)
		}
		raw, err := readAll(ctx, p.store, name, maxPlain)
		if err != nil {
			return nil, err
		}
		f, err := parseVersion(raw)
		if err == nil && f.Number != n {
			err = fmt.Errorf("%w: holds version %d", ErrDamaged, f.Number)
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		files = append(files, f)
	}
	return files, nil
}

// leftOut says why the newest key does not open for who asks.
func (p *Project) leftOut(files []versionFile) error {
	me := p.ring.identity.Recipient()
	for _, f := range slices.Backward(files) {
		if slices.Contains(f.Removed, me.Fingerprint()) {
			return fmt.Errorf("%w: version %d of the data key, of %s, left %s out: a holder of the recovery key can admit this site again (vault add --join --replace)",
				ErrKey, f.Number, f.Created.Format(time.RFC3339), me)
		}
	}
	return fmt.Errorf("%w: the project was not opened to %s: use its recovery key", ErrKey, me)
}

// Rotation says what is to change with a new data key.
type Rotation struct {
	// Remove are recipients that the new key is not wrapped to.
	Remove []Recipient
	// Volumes has every site begin a new volume repository.
	Volumes bool
}

// Rotate makes a new data key, for all recipients but those to be removed. One
// put decides: before it nothing has changed, after it every process takes the
// key up. ErrExists says that another rotation came first.
func (p *Project) Rotate(ctx context.Context, r Rotation) (KeyVersion, error) {
	v, err := p.rotate(ctx, r)
	if err != nil {
		return v, fmt.Errorf("rotate the data key: %w", err)
	}
	return v, nil
}

func (p *Project) rotate(ctx context.Context, r Rotation) (v KeyVersion, err error) {
	if err := p.CompleteRotation(ctx); err != nil {
		return v, err
	}
	old, oldKey := p.ring.newest()
	recipients, err := p.recipients(ctx, oldKey)
	if err != nil {
		return v, err
	}
	removed := []string{}
	for _, gone := range r.Remove {
		removed = append(removed, gone.Fingerprint())
	}
	recipients = slices.DeleteFunc(recipients, func(r Recipient) bool { return slices.Contains(removed, r.Fingerprint()) })
	if !slices.ContainsFunc(recipients, func(r Recipient) bool { return r.String() == p.Opener().String() }) {
		return v, fmt.Errorf("%w: whoever rotates must keep the new key", ErrKey)
	}
	var key seal.Key
	if _, err := rand.Read(key[:]); err != nil {
		return v, fmt.Errorf("read random: %w", err)
	}
	for _, r := range recipients {
		if err := p.wrapFor(ctx, &key, r); err != nil {
			return v, err
		}
	}
	f := versionFile{Number: old.Number + 1, Previous: old.KeyID, Volumes: r.Volumes, Removed: removed, Created: now()}
	if err := p.putVersion(ctx, f, &key, oldKey); err != nil {
		return v, err
	}
	if err := p.CompleteRotation(ctx); err != nil {
		return v, err
	}
	return p.NewestKey(), p.forget(ctx, removed)
}

// putVersion makes the key the newest, or takes what was wrapped of it away.
func (p *Project) putVersion(ctx context.Context, f versionFile, key, before *seal.Key) error {
	name := p.at.keyVersion(f.Number)
	var err error
	if f.PreviousKey, err = packed.Seal(key, name, before[:]); err != nil {
		return err
	}
	f.FormatVersion, f.KeyID = FormatVersion, key.ID().String()
	f.MAC = authenticate(key, "version", f)
	data, err := encodePlain(f)
	if err != nil {
		return err
	}
	err = putOnce(ctx, p.store, name, data)
	if err != nil && !errors.Is(err, ErrExists) {
		return err // it may have come to be: what is wrapped stays
	}
	if err := p.Refresh(ctx); err != nil {
		return err
	}
	if p.ring.get(key.ID()) == nil {
		return errors.Join(fmt.Errorf("%w: someone else rotated it just now: see vault keys ls", ErrExists), deleteAll(ctx, p.store, p.at.keys(f.KeyID), nil))
	}
	return nil
}

// CompleteRotation takes up new versions, and wraps the newest to whoever was
// admitted while it was made. Anybody who can open the project may call it, at
// any time. It admits nobody to a version that left someone out: he has the key
// before it, and what is wrapped with that may be his own doing.
func (p *Project) CompleteRotation(ctx context.Context) error {
	if err := p.Refresh(ctx); err != nil {
		return err
	}
	versions := p.KeyVersions()
	if len(versions) < 2 {
		return nil
	}
	newest, before := versions[len(versions)-1], versions[len(versions)-2]
	if len(newest.Removed) > 0 {
		return nil
	}
	had, err := p.recipients(ctx, p.ring.get(before.id))
	if err != nil {
		return err
	}
	have, err := listKeys(ctx, p.store, p.at.keys(newest.KeyID))
	if err != nil {
		return err
	}
	for _, r := range had {
		if slices.Contains(have, r.Fingerprint()) {
			continue
		}
		if err := p.wrapFor(ctx, p.ring.get(newest.id), r); err != nil {
			return err
		}
	}
	return nil
}

// forget takes older keys, wrapped to those who were removed, out of the vault.
// Who kept a key, or what he read with it, still has it: so one that the store
// holds locked is let be.
func (p *Project) forget(ctx context.Context, removed []string) error {
	var errs []error
	versions := p.KeyVersions()
	for _, v := range versions[:len(versions)-1] {
		for _, fingerprint := range removed {
			if err := p.store.Delete(ctx, p.at.keys(v.KeyID)+fingerprint); !errors.Is(err, ErrLocked) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// repositoryMark stands between a site's name and a key version in the name of
// a volume repository. No site's name holds it.
const repositoryMark = "_"

// Repository names the volume repository into which a site writes now.
func (p *Project) Repository(site string) string {
	all := p.Repositories(site)
	return all[len(all)-1]
}

// Repositories names all volume repositories of a site, oldest first. Not all
// need to be there.
func (p *Project) Repositories(site string) []string {
	all := []string{site}
	for _, v := range p.KeyVersions() {
		if v.Volumes {
			all = append(all, site+repositoryMark+strconv.FormatInt(v.Number, 10))
		}
	}
	return all
}

// RepositoryKey is the password of a volume repository: it comes from the data
// key that was the newest when the repository was begun. It is nil for a name
// that cannot be one of the project's.
func (p *Project) RepositoryKey(repository string) []byte {
	const purpose = "davit.dev/vault/v1/subkey\x00volume-repository"
	_, tail, later := strings.Cut(repository, repositoryMark)
	if !later {
		return p.ring.firstKey().Derive(nil, purpose)
	}
	n, err := strconv.ParseInt(tail, 10, 64)
	if err != nil || n < 2 {
		return nil
	}
	if p.NewestKey().Number < n { // the agent that knew it was faster
		ctx, cancel := context.WithTimeout(context.Background(), refreshTimeout)
		defer cancel()
		_ = p.Refresh(ctx) // what it does not bring is not among the versions
	}
	if all := p.KeyVersions(); n <= int64(len(all)) && all[n-1].Volumes {
		return p.ring.get(all[n-1].id).Derive(nil, purpose)
	}
	return nil
}

// Derive is a secret for a purpose, from a version of the data key: who opened the project has it.
func (p *Project) Derive(v KeyVersion, purpose string) []byte {
	return p.ring.get(v.id).Derive(nil, "davit.dev/vault/v1/subkey\x00"+purpose)
}
