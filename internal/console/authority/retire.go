package authority

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/packed"
	"davit.dev/davit/internal/vault/seal"
)

var (
	// ErrRetired says that a retired authority sealed something that it had not sealed when
	// it was retired: whoever did that has its key still.
	ErrRetired = fmt.Errorf("%w: a certificate authority sealed it that is retired, and had not sealed it by then", vault.ErrDamaged)
	// ErrInUse says that a console writes by an authority that is to be retired.
	ErrInUse = errors.New("the console has not written by the newest authority yet")
)

// inventory is what an authority had sealed when it was retired, which it is by that. The
// newest then has sealed it: no site retires one, and who has a retired one's key adds
// nothing to it.
type inventory struct {
	FormatVersion int       `json:"formatVersion"`
	At            time.Time `json:"at"` // for people
	// Objects are the SHA-256 of what was sealed, by its name beneath the project's root.
	Objects map[string][]byte `json:"objects"`
	root    string
}

func inventoryKey(p *vault.Project, n int64) string {
	return fmt.Sprintf("%s%020d/sealed", root(p), n)
}

// sealed says why something counts not that is sealed by an authority.
func (a *Authority) sealed(name string, data []byte) error {
	if a.had == nil {
		return nil
	}
	sum := sha256.Sum256(data)
	if bytes.Equal(a.had.Objects[strings.TrimPrefix(name, a.had.root)], sum[:]) {
		return nil
	}
	return fmt.Errorf("%w (authority %d)", ErrRetired, a.Number)
}

// inventory reads what a retired authority had sealed; nil: it is not retired. What lies
// there that no later authority has sealed, as every site can put there, retires nothing.
// The authorities that came after it have been read.
func (a *Authority) inventory(ctx context.Context, p *vault.Project, n int64) (*inventory, error) {
	name := inventoryKey(p, n)
	data, err := p.ReadSealed(ctx, name)
	if err == nil {
		later := *a
		later.Former = slices.DeleteFunc(slices.Clone(a.Former), func(former *Authority) bool { return former.Number <= n })
		data, err = later.Unseal(name, data, maxInventory)
	}
	if errors.Is(err, vault.ErrNotFound) || errors.Is(err, vault.ErrDamaged) {
		return nil, nil //nolint:nilnil // it is not retired
	}
	if err != nil {
		return nil, err
	}
	had := &inventory{root: p.Root()}
	if err := json.Unmarshal(data, had); err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", name, vault.ErrDamaged, err)
	}
	if had.FormatVersion != formatVersion {
		return nil, fmt.Errorf("read %s: list of format %d, this davit reads %d: use a newer davit", name, had.FormatVersion, formatVersion)
	}
	return had, nil
}

// maxInventory bounds an inventory, in bytes.
const maxInventory = 64 << 20

// Retire ends the trust in all authorities but the newest. What they have sealed by now
// can still be read, and nothing else: it is listed, and the newest seals the list. So
// nobody may write by them any more: of those consoles (ids), ErrInUse says that the newest
// record of a journal is not by the newest authority.
func Retire(ctx context.Context, p *vault.Project, identity vault.Identity, now time.Time, consoles ...string) (*Authority, error) {
	a, err := Read(ctx, p, identity)
	if err != nil {
		return nil, err
	}
	if a.Number < 2 {
		return nil, ErrOnly
	}
	if err := a.retire(ctx, p, now, consoles); err != nil {
		return nil, fmt.Errorf("retire authorities of %s: %w", p.Name(), err)
	}
	return Read(ctx, p, identity)
}

func (a *Authority) retire(ctx context.Context, p *vault.Project, now time.Time, consoles []string) error {
	all, err := a.survey(ctx, p)
	if err != nil {
		return err
	}
	for _, journal := range heads(p, all, consoles) {
		if all[journal].by != a.Number {
			return fmt.Errorf("%w: %s", ErrInUse, journal)
		}
	}
	for _, former := range slices.Backward(a.Former) {
		if former.had != nil {
			continue
		}
		if err := a.list(ctx, p, former.Number, all, now); err != nil {
			return fmt.Errorf("authority %d: %w", former.Number, err)
		}
	}
	return nil
}

// list writes what an authority has sealed.
func (a *Authority) list(ctx context.Context, p *vault.Project, n int64, all map[string]piece, now time.Time) error {
	had := inventory{FormatVersion: formatVersion, At: now.UTC().Truncate(time.Second), Objects: map[string][]byte{}}
	for name, one := range all {
		if one.by == n {
			had.Objects[strings.TrimPrefix(name, p.Root())] = one.sum
		}
	}
	data, err := json.Marshal(had)
	if err != nil {
		return err
	}
	name := inventoryKey(p, n)
	if data, err = a.Seal(name, data); err != nil {
		return err
	}
	err = p.WriteSealedOnce(ctx, name, data)
	if !errors.Is(err, vault.ErrExists) {
		return err
	}
	there, err := a.inventory(ctx, p, n)
	if err == nil && there == nil {
		err = fmt.Errorf("%s: %w: find out who can write to the vault, and take it away there", name, ErrForged)
	}
	return err
}

// piece is something that an authority has sealed.
type piece struct {
	by  int64
	sum []byte
}

// surveyAbreast is how many objects are read at once.
const surveyAbreast = 16

// survey reads all that the authorities have sealed, by name, but for parts of backups:
// their documents have the SHA-256 of those.
func (a *Authority) survey(ctx context.Context, p *vault.Project) (map[string]piece, error) {
	var names []string
	for _, prefix := range []string{p.Root() + "console/", root(p)} {
		err := p.Store().List(ctx, prefix, func(o vault.ObjectInfo) error {
			part := strings.Contains(o.Key, "/backups/") && path.Base(o.Key) != "document"
			if !part && (prefix != root(p) || path.Base(o.Key) == "sealed") {
				names = append(names, o.Key)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	all, mu := map[string]piece{}, sync.Mutex{}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(surveyAbreast)
	for _, name := range names {
		g.Go(func() error {
			one, err := a.look(ctx, p, name)
			if err != nil || one.by == 0 {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			all[name] = one
			return nil
		})
	}
	return all, g.Wait()
}

// look tells who has sealed an object; nobody, if it is gone or none of theirs.
func (a *Authority) look(ctx context.Context, p *vault.Project, name string) (piece, error) {
	data, err := p.ReadSealed(ctx, name)
	if errors.Is(err, vault.ErrNotFound) || errors.Is(err, vault.ErrDamaged) {
		return piece{}, nil
	}
	if err != nil {
		return piece{}, err
	}
	var by int64
	_, err = packed.Unseal(func(id seal.KeyID) (*seal.Key, error) {
		one, key, err := a.find(id)
		if err == nil {
			by = one.Number
		}
		return key, err
	}, name, data, maxInventory)
	if err != nil { // it opens for nobody, listed or not
		return piece{}, nil //nolint:nilerr // see above
	}
	sum := sha256.Sum256(data)
	return piece{by, sum[:]}, nil
}

// heads are the newest records of the journals of consoles.
func heads(p *vault.Project, all map[string]piece, consoles []string) []string {
	newest := map[string]string{}
	for name := range all {
		console, tail, _ := strings.Cut(strings.TrimPrefix(name, p.Root()+"console/"), "/")
		if slices.Contains(consoles, console) && strings.HasPrefix(tail, "journal/") {
			newest[path.Dir(name)] = max(newest[path.Dir(name)], name)
		}
	}
	return slices.Sorted(maps.Values(newest))
}
