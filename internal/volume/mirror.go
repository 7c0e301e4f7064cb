package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/relay"
)

// MirrorOptions say how a repository is brought into a second copy of its vault.
type MirrorOptions struct {
	// To is the copy's store.
	To vault.Store
	// Needs are inventories that must be there, as point.Snapshot names them.
	Needs []string
	// Reread compares what the copy has once more, although it was as written
	// when it came: of the packs of data those in Suspect, and all else, for a
	// damaged index says nothing of where the damage is.
	Reread  bool
	Suspect []string
	// MayDelete allows that what the repository says it deleted is removed from
	// the copy too. It is asked only when there is such, and after the
	// inventories were read: what they call deleted was given up before. Nil
	// removes nothing.
	MayDelete func(ctx context.Context) bool
	// ObjectTimeout bounds each blob; zero means the carrier's own.
	ObjectTimeout time.Duration
	// Progress is told of every blob that arrived.
	Progress func(bytes int64)
}

// MirrorReport is what came of it.
type MirrorReport struct {
	Copied, Deleted int
	Bytes           int64
	// Mended are keys of what the copy had, and not as it was written, and of
	// what was suspected and is missing.
	Mended []string
	// Missing are blobs that the copy should have and that could not be carried,
	// for the first vault's are damaged or gone. While there are any, the copy
	// is not whole.
	Missing []Damage
}

// Mirror brings every blob that the inventories list into the copy, then the
// inventories themselves, and at last removes what they say was deleted. What
// is there with the right size is not carried again, but read back if it may
// be of a run that was interrupted. It needs no password, and any number of
// runs may go on at once. See docs/formats/volumes.md.
func Mirror(ctx context.Context, opts Options, how MirrorOptions) (MirrorReport, error) {
	m := &mirror{
		r: &Repository{opts: opts.withDefaults()}, how: how,
		carry: relay.Carrier{From: opts.Store, To: how.To, Timeout: how.ObjectTimeout},
	}
	if err := m.run(ctx); err != nil {
		return m.report, fmt.Errorf("copy volume repository %s: %w", opts.Prefix, err)
	}
	sort.Strings(m.report.Mended)
	sort.Slice(m.report.Missing, func(i, j int) bool { return m.report.Missing[i].Blob < m.report.Missing[j].Blob })
	return m.report, nil
}

// mirror is one run.
type mirror struct {
	r     *Repository
	how   MirrorOptions
	carry relay.Carrier
	inv   *inventory
	blobs map[string]vault.ObjectInfo // of the first vault, by id
	there map[string]vault.ObjectInfo // of the copy, by id
	// proven is when the newest inventory came that was in the copy before.
	proven time.Time

	mu     sync.Mutex
	whole  map[string]bool // blobs of one content that are there as they should be
	report MirrorReport
}

// mirrorRounds bounds how often what seems to be missing is looked for again.
const mirrorRounds = 3

// run goes through the repository. What is missing may have been deleted, replaced or
// merged by others since the inventories were read: newer ones tell.
func (m *mirror) run(ctx context.Context) error {
	m.whole = map[string]bool{}
	for round := 1; ; round++ {
		m.report.Missing = nil
		copied, err := m.round(ctx)
		if err != nil {
			return err
		}
		if len(m.report.Missing) == 0 {
			if m.how.MayDelete == nil {
				return nil
			}
			return m.remove(ctx, copied)
		}
		if round == mirrorRounds {
			return nil // the inventories would call the copy whole
		}
	}
}

// round brings over what the inventories of now list, and then themselves.
func (m *mirror) round(ctx context.Context) (copied map[string]vault.ObjectInfo, err error) {
	if m.inv, err = m.r.loadInventory(ctx); err != nil {
		return nil, err
	}
	for _, d := range append(m.inv.damaged, missingInventories(m.inv, m.how.Needs)...) {
		m.missing(d.Blob, d.Err)
	}
	prefix := m.r.opts.Prefix
	if m.blobs, err = listObjects(ctx, m.r.opts.Store, prefix); err != nil {
		return nil, err
	}
	if m.there, err = listObjects(ctx, m.how.To, prefix); err != nil {
		return nil, err
	}
	if copied, err = listObjects(ctx, m.how.To, inventoryPrefix(prefix)); err != nil {
		return nil, err
	}
	if m.proven.IsZero() {
		m.proven = newestOf(copied)
	}
	if err := m.carryBlobs(ctx); err != nil || len(m.report.Missing) > 0 {
		return copied, err
	}
	return copied, m.carryInventories(ctx, copied)
}

func (m *mirror) missing(id string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.report.Missing = append(m.report.Missing, Damage{Blob: id, Err: err})
}

func listObjects(ctx context.Context, store vault.Store, prefix string) (map[string]vault.ObjectInfo, error) {
	all := map[string]vault.ObjectInfo{}
	err := store.List(ctx, prefix, func(o vault.ObjectInfo) error {
		all[strings.TrimPrefix(o.Key, prefix)] = o
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	return all, nil
}

// newestOf is when the newest of them was written.
func newestOf(objects map[string]vault.ObjectInfo) time.Time {
	var newest time.Time
	for _, o := range objects {
		if o.Modified.After(newest) {
			newest = o.Modified
		}
	}
	return newest
}

// coarse is how coarse a store's times may be.
const coarse = 2 * time.Second

// carryBlobs brings the blobs over, what kopia opens the repository by last.
// Inventories are written at the end of a run: blobs of the copy that are
// younger than its newest one may be of a run that never read them back.
func (m *mirror) carryBlobs(ctx context.Context) error {
	var packs, rest []string
	for id := range m.inv.blobs {
		if fixed(id) {
			packs = append(packs, id)
		} else {
			rest = append(rest, id)
		}
	}
	for _, ids := range [][]string{packs, rest} {
		sort.Strings(ids)
		err := m.r.parallel(ctx, len(ids), func(ctx context.Context, i int) error {
			if m.isWhole(ids[i]) {
				return nil
			}
			return m.blob(ctx, ids[i])
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// fixed tells whether a blob's name never stands for other bytes.
func fixed(id string) bool { return strings.ContainsRune("pqx", rune(id[0])) }

func (m *mirror) isWhole(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.whole[id]
}

func (m *mirror) setWhole(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.whole[id] = fixed(id)
}

func (m *mirror) blob(ctx context.Context, id string) error {
	e := m.inv.blobs[id]
	key := m.r.opts.Prefix + id
	source, exists := m.blobs[id]
	there, copied := m.there[id]
	if copied && fixed(id) && e.sized(there.Size) {
		if there.Modified.Before(m.proven.Add(-coarse)) && !m.suspect(id) {
			return nil
		}
		if held, err := m.carry.Holds(ctx, key, e.accept); err != nil || held {
			if held {
				m.setWhole(id)
			}
			return err
		}
	}
	if !exists {
		return m.absent(id, e, copied)
	}
	if copied && !fixed(id) && there.Size == source.Size { // one of the few that are replaced
		if same, err := m.same(ctx, key, e); err != nil || same {
			return err
		}
	}
	rotten, err := m.rotten(ctx, id, e, copied)
	if err != nil {
		return err
	}
	n, err := m.carry.Carry(ctx, key, e.accept)
	switch {
	case errors.Is(err, vault.ErrNotFound): // deleted since
		return m.absent(id, e, false)
	case errors.Is(err, vault.ErrDamaged):
		m.missing(id, errChanged)
		return nil
	case err != nil:
		return err
	}
	m.setWhole(id)
	m.arrived(n)
	if rotten {
		m.mended(key)
	}
	return nil
}

// absent deals with a listed blob that the first vault does not have: one that
// was never written or was deleted is no loss, and what the copy has of one
// that was lost stays.
func (m *mirror) absent(id string, e *expectation, copied bool) error {
	if e.present && !e.deleted && !copied {
		m.missing(id, errMissing)
	}
	return nil
}

// suspect tells whether a blob of the copy is read although it was whole when
// it came.
func (m *mirror) suspect(id string) bool {
	return m.how.Reread && (!strings.HasPrefix(id, "p") || slices.Contains(m.how.Suspect, id))
}

// rotten tells whether a blob that is to be carried mends the copy, and is no
// mere news. Those that are replaced may be as they were written earlier.
func (m *mirror) rotten(ctx context.Context, id string, e *expectation, copied bool) (bool, error) {
	if !copied || fixed(id) || !m.how.Reread {
		return copied && fixed(id) || slices.Contains(m.how.Suspect, id), nil
	}
	held, err := m.carry.Holds(ctx, m.r.opts.Prefix+id, e.accept)
	return !held, err
}

func (m *mirror) mended(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.report.Mended = append(m.report.Mended, key)
}

func (m *mirror) arrived(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.report.Copied++
	m.report.Bytes += n
	if m.how.Progress != nil {
		m.how.Progress(n)
	}
}

// sized tells whether some inventory lists the blob with this size.
func (e *expectation) sized(size int64) bool {
	for p := range e.prints {
		if p.Size == size {
			return true
		}
	}
	return false
}

// same tells whether a small blob that may be replaced is the same in both.
func (m *mirror) same(ctx context.Context, key string, e *expectation) (bool, error) {
	var first []byte
	from := relay.Carrier{To: m.r.opts.Store, Timeout: m.how.ObjectTimeout}
	held, err := from.Holds(ctx, key, func(key string, data []byte) error { first = data; return e.accept(key, data) })
	if err != nil || !held {
		return false, err
	}
	return m.carry.Holds(ctx, key, func(_ string, data []byte) error {
		if string(data) != string(first) {
			return vault.ErrDamaged
		}
		return nil
	})
}

// accept takes bytes that some inventory listed for the blob.
func (e *expectation) accept(key string, data []byte) error {
	for p := range e.prints {
		if relay.Hash(p.Size, p.SHA256)(key, data) == nil {
			return nil
		}
	}
	return fmt.Errorf("%w: %s: %w", vault.ErrDamaged, key, errChanged)
}

// acceptInventory takes what can be unsealed and read as one.
func (r *Repository) acceptInventory(key string, data []byte) error {
	if _, err := r.parseInventory(key, data); err != nil {
		return fmt.Errorf("%w: %w", vault.ErrDamaged, err)
	}
	return nil
}

func (m *mirror) carryInventories(ctx context.Context, copied map[string]vault.ObjectInfo) error {
	prefix := inventoryPrefix(m.r.opts.Prefix)
	return m.r.parallel(ctx, len(m.inv.keys), func(ctx context.Context, i int) error {
		key := m.inv.keys[i]
		_, there := copied[strings.TrimPrefix(key, prefix)]
		if there {
			if held, err := m.carry.Holds(ctx, key, m.r.acceptInventory); err != nil || held {
				return err
			}
		}
		n, err := m.carry.Carry(ctx, key, m.r.acceptInventory)
		if errors.Is(err, vault.ErrNotFound) { // merged meanwhile: the next round has the merged one
			m.missing(key, errMissing)
			return nil
		}
		if err == nil {
			m.arrived(n)
			if there {
				m.mended(key)
			}
		}
		return err
	})
}

// remove deletes from the copy what sealed inventories say is gone, and then
// the inventories that were merged. What is missing in the first vault without
// a word is kept: it may be all that is left.
func (m *mirror) remove(ctx context.Context, copied map[string]vault.ObjectInfo) error {
	of := &Repository{opts: m.r.opts}
	of.opts.Store = m.how.To
	said, err := of.loadInventory(ctx)
	if err != nil || len(said.damaged) > 0 {
		return err
	}
	blobs, inventories := m.leaving(said, copied)
	if len(blobs)+len(inventories) == 0 || !m.how.MayDelete(ctx) {
		return nil
	}
	for _, id := range blobs {
		err := m.how.To.Delete(ctx, m.r.opts.Prefix+id)
		if errors.Is(err, vault.ErrLocked) { // goes in a later run
			continue
		}
		if err != nil {
			return fmt.Errorf("delete blob %s from the copy: %w", id, err)
		}
		m.report.Deleted++
	}
	for _, name := range inventories {
		if err := m.how.To.Delete(ctx, inventoryPrefix(m.r.opts.Prefix)+name); err != nil && !errors.Is(err, vault.ErrLocked) {
			return fmt.Errorf("delete inventory %s from the copy: %w", name, err)
		}
	}
	return nil
}

// leaving are the blobs and inventories of the copy that are to go.
func (m *mirror) leaving(said *inventory, copied map[string]vault.ObjectInfo) (blobs, inventories []string) {
	merged := m.mergedAt()
	for id := range m.there {
		if _, exists := m.blobs[id]; !exists && m.gone(said.blobs[id], m.inv.blobs[id], merged) {
			blobs = append(blobs, id)
		}
	}
	current := map[string]bool{}
	for _, key := range m.inv.keys {
		current[strings.TrimPrefix(key, inventoryPrefix(m.r.opts.Prefix))] = true
	}
	for name := range copied {
		if !current[name] && name < merged {
			inventories = append(inventories, name)
		}
	}
	return blobs, inventories
}

// mergedAt is the name of the newest merged inventory, or empty.
func (m *mirror) mergedAt() string {
	newest := ""
	for _, key := range m.inv.keys {
		if strings.HasSuffix(key, mergedSuffix) {
			newest = max(newest, strings.TrimPrefix(key, inventoryPrefix(m.r.opts.Prefix)))
		}
	}
	return newest
}

// gone tells whether the first vault's inventories say that a blob of the copy
// was deleted: in a record, or by a merged inventory that is younger than all
// that the copy knows of the blob and leaves it out.
func (m *mirror) gone(said, now *expectation, merged string) bool {
	if now != nil {
		return now.deleted
	}
	return said != nil && merged != "" && newSessionTime(time.Unix(said.newest, 0)) < merged
}
