package volume

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/kopia/kopia/repo/blob"

	"davit.dev/davit/internal/vault"
)

// operation is what an inventory says about a blob.
type operation string

const (
	opPut    operation = "put"    // is stored, with this hash
	opWill   operation = "will"   // may be stored; if so, with this hash
	opDelete operation = "delete" // may be gone
)

// record is one line of an inventory.
type record struct {
	Op     operation `json:"op"`
	Blob   string    `json:"blob"`
	Size   int64     `json:"size,omitempty"`
	SHA256 string    `json:"sha256,omitempty"`
	Time   int64     `json:"time"` // seconds since 1970
}

// ledger gathers what a process does to the blobs and writes it down in
// write-once inventory objects.
type ledger struct {
	store  vault.Store
	prefix string
	seal   func(key string, plain []byte) ([]byte, error)
	now    func() time.Time

	mu      sync.Mutex
	pending []record
	keys    []string // inventories written, in order

	writing sync.Mutex // held while one is written
	session string
	written int
}

// newSession names a series of inventories: sorted by time, never twice.
func newSession(now time.Time) string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return newSessionTime(now) + "-" + hex.EncodeToString(b[:])
}

// newSessionTime is how names of inventories begin.
func newSessionTime(now time.Time) string { return now.UTC().Format("20060102T150405.000Z") }

func (l *ledger) entry(op operation, id blob.ID, size int64, sum string) record {
	return record{Op: op, Blob: string(id), Size: size, SHA256: sum, Time: l.now().Unix()}
}

// add remembers a record for the next flush.
func (l *ledger) add(r record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending = append(l.pending, r)
}

// record adds a record and makes it durable, with all before it.
func (l *ledger) record(ctx context.Context, r record) error {
	l.add(r)
	return l.flush(ctx)
}

// mark is a position among the inventories written; see since.
func (l *ledger) mark() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.keys)
}

// since lists the inventories written after a mark.
func (l *ledger) since(mark int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.keys[mark:]...)
}

// flush writes what is pending into one inventory.
func (l *ledger) flush(ctx context.Context) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	records := l.pending
	l.pending = nil
	l.mu.Unlock()
	if len(records) == 0 {
		return nil
	}
	key, err := l.write(ctx, records)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.pending = append(records, l.pending...)
		return err
	}
	l.keys = append(l.keys, key)
	return nil
}

// write puts one inventory. Its number is spent whatever comes of it, so a
// write with an unknown outcome is followed by one under another key.
func (l *ledger) write(ctx context.Context, records []record) (string, error) {
	l.written++
	key := fmt.Sprintf("%s%s-%06d", l.prefix, l.session, l.written)
	data, err := encodeInventory(records)
	if err != nil {
		return "", err
	}
	if l.seal != nil {
		if data, err = l.seal(key, data); err != nil {
			return "", fmt.Errorf("seal inventory %s: %w", key, err)
		}
	}
	if err := l.store.PutIfAbsent(ctx, key, bytes.NewReader(data), int64(len(data))); err != nil {
		return "", fmt.Errorf("write inventory %s: %w", key, err)
	}
	return key, nil
}

const inventoryHeader = "davit volume inventory 1\n"

// encodeInventory lays records out as docs/formats/volumes.md says.
func encodeInventory(records []record) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(inventoryHeader)
	enc := json.NewEncoder(&b)
	for _, r := range records {
		if err := enc.Encode(r); err != nil {
			return nil, fmt.Errorf("encode inventory: %w", err)
		}
	}
	sum := sha256.Sum256(b.Bytes())
	fmt.Fprintf(&b, "sha256 %s\n", hex.EncodeToString(sum[:]))
	return b.Bytes(), nil
}

// trailerSize is the length of an inventory's last line.
const trailerSize = len("sha256 ") + 2*sha256.Size + 1

// decodeInventory is the reverse of encodeInventory. It accepts only what
// that wrote, byte for byte, and returns ErrDamaged for all else.
func decodeInventory(data []byte) ([]record, error) {
	if len(data) < len(inventoryHeader)+trailerSize || !bytes.HasPrefix(data, []byte(inventoryHeader)) {
		return nil, fmt.Errorf("%w: not an inventory of version 1", ErrDamaged)
	}
	body, trailer := data[:len(data)-trailerSize], string(data[len(data)-trailerSize:])
	sum := sha256.Sum256(body)
	if trailer != "sha256 "+hex.EncodeToString(sum[:])+"\n" {
		return nil, fmt.Errorf("%w: checksum does not match", ErrDamaged)
	}
	dec := json.NewDecoder(bytes.NewReader(body[len(inventoryHeader):]))
	dec.DisallowUnknownFields()
	var records []record
	for {
		var r record
		switch err := dec.Decode(&r); {
		case errors.Is(err, io.EOF):
			return records, nil
		case err != nil:
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if r.Blob == "" || (r.Op != opPut && r.Op != opWill && r.Op != opDelete) {
			return nil, fmt.Errorf("%w: record without a meaning", ErrDamaged)
		}
		records = append(records, r)
	}
}

// print is what a blob must look like.
type print struct {
	Size   int64
	SHA256 string
}

// expectation is all that inventories say about one blob.
type expectation struct {
	prints  map[print]bool
	present bool  // some inventory says that it is stored
	deleted bool  // some inventory says that it may be gone
	newest  int64 // time of the newest record
}

// inventory is the union of all inventories of a repository.
type inventory struct {
	blobs   map[string]*expectation
	keys    []string // objects read
	damaged []Damage // objects that could not be understood
}

func (v *inventory) learn(r record) {
	e := v.blobs[r.Blob]
	if e == nil {
		e = &expectation{prints: map[print]bool{}}
		v.blobs[r.Blob] = e
	}
	switch r.Op {
	case opPut:
		e.present = true
		e.prints[print{r.Size, r.SHA256}] = true
	case opWill:
		e.prints[print{r.Size, r.SHA256}] = true
	case opDelete:
		e.deleted = true
	}
	e.newest = max(e.newest, r.Time)
}

// has tells whether a blob is listed.
func (v *inventory) has(id string) bool {
	e := v.blobs[id]
	return e != nil && len(e.prints) > 0
}

// inventoryPrefix is where the inventories of a repository are.
func inventoryPrefix(prefix string) string { return strings.TrimSuffix(prefix, "/") + "-inventory/" }

const inventoryAttempts = 4

// loadInventory reads every inventory there is. One that is merged away while
// it is being read makes it start again.
func (r *Repository) loadInventory(ctx context.Context) (*inventory, error) {
	var err error
	for range inventoryAttempts {
		var v *inventory
		if v, err = r.tryLoadInventory(ctx); !errors.Is(err, vault.ErrNotFound) {
			return v, err
		}
	}
	return nil, err
}

func (r *Repository) tryLoadInventory(ctx context.Context) (*inventory, error) {
	v := &inventory{blobs: map[string]*expectation{}}
	prefix := inventoryPrefix(r.opts.Prefix)
	err := r.opts.Store.List(ctx, prefix, func(o vault.ObjectInfo) error {
		v.keys = append(v.keys, o.Key)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list inventories: %w", err)
	}
	loaded := make([][]record, len(v.keys))
	damage := make([]error, len(v.keys))
	err = r.parallel(ctx, len(v.keys), func(ctx context.Context, i int) error {
		var err error
		loaded[i], err = r.readInventory(ctx, v.keys[i])
		if errors.Is(err, ErrDamaged) {
			damage[i], err = err, nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for i, key := range v.keys {
		if damage[i] != nil {
			v.damaged = append(v.damaged, Damage{Blob: key, Err: damage[i]})
		}
		for _, rec := range loaded[i] {
			v.learn(rec)
		}
	}
	return v, nil
}

func (r *Repository) readInventory(ctx context.Context, key string) ([]record, error) {
	body, err := r.opts.Store.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, fmt.Errorf("read inventory %s: %w", key, err)
	}
	data, err := io.ReadAll(body)
	if cerr := body.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("read inventory %s: %w", key, err)
	}
	return r.parseInventory(key, data)
}

func (r *Repository) parseInventory(key string, data []byte) ([]record, error) {
	var err error
	if r.opts.Unseal != nil {
		if data, err = r.opts.Unseal(key, data); err != nil {
			return nil, fmt.Errorf("unseal inventory %s: %w: %w", key, ErrDamaged, err)
		}
	}
	records, err := decodeInventory(data)
	if err != nil {
		return nil, fmt.Errorf("read inventory %s: %w", key, err)
	}
	return records, nil
}
