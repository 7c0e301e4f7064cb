package vault

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault/packed"
)

// parallelUploads bounds the packs of one point that are sealed or sent at a
// time, and with it the memory that capture takes.
const parallelUploads = 4

// Errors of publishing.
var (
	// ErrSwept says that the capture showed no sign of life for so long that
	// its packs were taken for leftovers and removed. Capture again.
	ErrSwept = errors.New("recovery point was swept while it was captured")
	// ErrPinned says that a pinned point is not deleted.
	ErrPinned = errors.New("recovery point is pinned")
)

// PointWriter writes one recovery point: packs of objects, the log, and last
// of all the manifest that makes it visible.
type PointWriter struct {
	p       *Project
	app, id string
	seq     atomic.Int64
	uploads chan struct{} // one token per upload that runs

	mu        sync.Mutex
	log       *point.Pack
	stored    int64 // sealed bytes written
	published bool  // Publish got as far as the put
	done      bool  // Publish succeeded
}

// beginning is the sealed document that says a capture is going on.
type beginning struct {
	Started time.Time `json:"started"`
	Beat    time.Time `json:"beat"`
}

// NewWriter starts a recovery point. The id comes from point.NewID, or from people; one that
// was started before, or is published, is refused with ErrExists.
func (p *Project) NewWriter(ctx context.Context, app, id string) (*PointWriter, error) {
	if err := checkNames(app, id); err != nil {
		return nil, fmt.Errorf("start recovery point: %w", err)
	}
	if err := p.Refresh(ctx); err != nil { // what begins after a rotation is sealed with the new key
		return nil, fmt.Errorf("start recovery point %s: %w", id, err)
	}
	started := now()
	if err := p.writeJSONOnce(ctx, p.at.begin(app, id), beginning{Started: started, Beat: started}); err != nil {
		return nil, fmt.Errorf("start recovery point %s: %w", id, err)
	}
	if _, err := p.store.Stat(ctx, p.at.manifest(app, id)); !errors.Is(err, ErrNotFound) { // what Abort removes must be the writer's own
		if err == nil {
			err = fmt.Errorf("%w: a point of this name is in the vault: choose another name", ErrExists)
		}
		_ = p.store.Delete(ctx, p.at.begin(app, id)) // one that stays behind does no harm
		return nil, fmt.Errorf("start recovery point %s: %w", id, err)
	}
	return &PointWriter{p: p, app: app, id: id, uploads: make(chan struct{}, parallelUploads)}, nil
}

// Touch says that the capture lives. Captures that write nothing for long, for
// they copy volumes, call it well within the age given to Sweep.
func (w *PointWriter) Touch(ctx context.Context) error {
	plain, err := json.Marshal(beginning{Beat: now()})
	if err != nil {
		return fmt.Errorf("touch recovery point %s: %w", w.id, err)
	}
	return w.p.WriteSealed(ctx, w.p.at.begin(w.app, w.id), plain)
}

// Stored returns the sealed bytes written so far.
func (w *PointWriter) Stored() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stored
}

// Resource starts the objects of one kind. Several may be written at once,
// each by a goroutine of its own.
func (w *PointWriter) Resource(res point.Resource) *ResourceWriter {
	res.Count, res.Packs = 0, nil
	return &ResourceWriter{w: w, res: res}
}

// Log writes the capture's log, once. The entries are for people and are
// given back by Project.Log.
func (w *PointWriter) Log(ctx context.Context, entries []LogEntry) error {
	plain, err := json.Marshal(entries)
	if err != nil {
		return fmt.Errorf("encode log of %s: %w", w.id, err)
	}
	pack, err := w.put(ctx, w.p.at.log(w.app, w.id), plain, int64(len(entries)))
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = &pack
	return nil
}

// put seals plain, writes it under a free key, and describes what it wrote.
func (w *PointWriter) put(ctx context.Context, key string, plain []byte, count int64) (point.Pack, error) {
	sealed, err := w.p.Seal(key, plain)
	if err != nil {
		return point.Pack{}, err
	}
	if err := putOnce(ctx, w.p.store, key, sealed); err != nil {
		return point.Pack{}, err
	}
	w.mu.Lock()
	w.stored += int64(len(sealed))
	w.mu.Unlock()
	sum := sha256.Sum256(sealed)
	return point.Pack{Key: key, SHA256: hex.EncodeToString(sum[:]), Size: int64(len(sealed)), Count: count}, nil
}

// Publish makes the point visible by writing its manifest. All resource
// writers have been closed. Right before the put it calls guard, which returns
// an error when the site may no longer write (its epoch was superseded); a nil
// guard allows.
//
// ErrUnavailable leaves the outcome unknown: look for the manifest, publish
// again, or Abort; each is safe. Publishing what is published does nothing.
func (w *PointWriter) Publish(ctx context.Context, m *point.Manifest, guard func(context.Context) error) error {
	if w.complete(m) {
		return nil
	}
	if err := w.publish(ctx, m, guard); err != nil {
		return fmt.Errorf("publish %s: %w", w.id, err)
	}
	w.mu.Lock()
	w.done = true
	w.mu.Unlock()
	// The manifest is in place. A beginning that stays behind does no harm.
	_ = w.p.store.Delete(ctx, w.p.at.begin(w.app, w.id))
	return nil
}

func (w *PointWriter) publish(ctx context.Context, m *point.Manifest, guard func(context.Context) error) error {
	if err := w.check(m); err != nil {
		return err
	}
	if err := w.notSwept(ctx, m); err != nil {
		return err
	}
	visible, err := w.Visible(ctx)
	if err != nil {
		return err
	}
	if !visible {
		if err := w.putGuarded(ctx, m, guard); err != nil {
			return err
		}
	}
	// Sweep writes its mark and then looks for a manifest; we do the reverse. So one of us sees the other.
	err = w.notSwept(ctx, m)
	if errors.Is(err, ErrSwept) {
		err = errors.Join(err, w.p.removePoint(ctx, w.app, w.id))
	}
	return err
}

// putGuarded asks the guard and writes the manifest.
func (w *PointWriter) putGuarded(ctx context.Context, m *point.Manifest, guard func(context.Context) error) error {
	if guard != nil {
		if err := guard(ctx); err != nil {
			return err
		}
	}
	return w.putManifest(ctx, m)
}

// Visible tells whether a Publish whose answer was lost put the manifest in
// place. Then the point is published, under the guard's word of that time: the
// next epoch has accepted it, or quarantines it, and its restore may be
// running, so nobody takes it back.
func (w *PointWriter) Visible(ctx context.Context) (bool, error) {
	w.mu.Lock()
	tried := w.published
	w.mu.Unlock()
	if !tried {
		return false, nil
	}
	_, err := w.p.store.Stat(ctx, w.p.at.manifest(w.app, w.id))
	if err != nil && !errors.Is(err, ErrNotFound) {
		return false, fmt.Errorf("look for the manifest: %w", err)
	}
	return err == nil, nil
}

// complete fills in what the writer knows better than its caller, and tells
// whether the point is published already.
func (w *PointWriter) complete(m *point.Manifest) (done bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m.FormatVersion, m.Project, m.Application, m.ID = FormatVersion, w.p.name, w.app, w.id
	m.Log = w.log
	return w.done
}

func (w *PointWriter) check(m *point.Manifest) error {
	if err := m.Check(); err != nil {
		return err
	}
	prefix := w.p.at.pointObjects(w.app, w.id)
	for _, pack := range m.Packs() {
		if len(pack.Key) <= len(prefix) || pack.Key[:len(prefix)] != prefix {
			return fmt.Errorf("%w: pack %q belongs to another point", point.ErrInvalid, pack.Key)
		}
	}
	return nil
}

// putManifest writes the manifest, or finds that an earlier try of this very
// writer did.
func (w *PointWriter) putManifest(ctx context.Context, m *point.Manifest) error {
	w.mu.Lock()
	again := w.published
	w.published = true
	w.mu.Unlock()
	err := w.p.writeJSONOnce(ctx, w.p.at.manifest(w.app, w.id), m)
	if errors.Is(err, ErrExists) && again {
		return nil // nobody else writes under what NewWriter began
	}
	return err
}

// notSwept returns ErrSwept if a sweep marked the point, or has come and gone:
// then its mark is gone too, and so are the packs.
func (w *PointWriter) notSwept(ctx context.Context, m *point.Manifest) error {
	marks, err := listKeys(ctx, w.p.store, w.p.at.pointMarks(w.app, w.id)+string(MarkDeleting)+"-")
	if err != nil {
		return err
	}
	if len(marks) > 0 {
		return ErrSwept
	}
	sizes := map[string]int64{}
	err = w.p.store.List(ctx, w.p.at.pointObjects(w.app, w.id), func(o ObjectInfo) error {
		sizes[o.Key] = o.Size
		return nil
	})
	if err != nil {
		return fmt.Errorf("list packs: %w", err)
	}
	for _, pack := range m.Packs() {
		if sizes[pack.Key] != pack.Size {
			return fmt.Errorf("%w: %s is gone", ErrSwept, pack.Key)
		}
	}
	return nil
}

// Abort removes what was written. After a Publish of unknown outcome it also
// takes back the manifest, and leaves a mark that hides the point should the
// lost write arrive late; Sweep clears the mark away.
func (w *PointWriter) Abort(ctx context.Context) error {
	w.mu.Lock()
	published := w.published
	w.mu.Unlock()
	if published {
		m := Mark{Kind: MarkDeleting, By: "abort", Note: "the outcome of publishing it was unknown"}
		if err := w.p.Mark(ctx, w.app, w.id, m); err != nil {
			return fmt.Errorf("abort %s: %w", w.id, err)
		}
		if err := w.p.store.Delete(ctx, w.p.at.manifest(w.app, w.id)); err != nil {
			return fmt.Errorf("abort %s: delete manifest: %w", w.id, err)
		}
	}
	if err := deleteAll(ctx, w.p.store, w.p.at.pointObjects(w.app, w.id), nil); err != nil {
		return fmt.Errorf("abort %s: %w", w.id, err)
	}
	return nil
}

// ResourceWriter packs the objects of one kind. It is for one goroutine.
type ResourceWriter struct {
	w     *PointWriter
	res   point.Resource
	plain []byte
	count int64 // records in plain

	wg     sync.WaitGroup
	mu     sync.Mutex
	packs  []point.Pack // as uploads finish, in any order
	failed error
}

// Add appends one object. It waits while too many uploads run, and returns the
// error of any earlier upload. The upload that it may begin goes on after it, and
// ends with ctx.
func (r *ResourceWriter) Add(ctx context.Context, object []byte) error {
	if err := r.err(); err != nil {
		return err
	}
	plain, err := packed.AppendRecord(r.plain, object)
	if err != nil {
		return fmt.Errorf("%s: %w", r.res.Resource, err)
	}
	r.plain = plain
	r.count++
	if len(r.plain) < packed.Target {
		return nil
	}
	err = r.flush(ctx)
	r.plain = *buffers.Get().(*[]byte) // who fills one pack fills another, mostly
	return err
}

// Close sends what is left, waits for all uploads and returns the resource
// with its packs.
func (r *ResourceWriter) Close(ctx context.Context) (point.Resource, error) {
	err := r.err()
	if err == nil && r.count > 0 {
		err = r.flush(ctx)
	}
	r.wg.Wait()
	if err = errors.Join(err, r.err()); err != nil {
		return point.Resource{}, fmt.Errorf("write %s: %w", r.res.Resource, err)
	}
	slices.SortFunc(r.packs, func(a, b point.Pack) int { return bytes.Compare([]byte(a.Key), []byte(b.Key)) })
	r.res.Packs = r.packs
	for _, pack := range r.packs {
		r.res.Count += pack.Count
	}
	return r.res, nil
}

// flush hands the present pack to an upload of its own.
func (r *ResourceWriter) flush(ctx context.Context) error {
	select {
	case r.w.uploads <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("write %s: %w", r.res.Resource, context.Cause(ctx))
	}
	plain, count := r.plain, r.count
	r.plain, r.count = nil, 0
	key := r.w.p.at.pack(r.w.app, r.w.id, r.w.seq.Add(1))
	r.wg.Go(func() {
		defer func() { <-r.w.uploads }()
		pack, err := r.w.put(ctx, key, plain, count)
		giveBuffer(plain)
		r.mu.Lock()
		defer r.mu.Unlock()
		if err != nil {
			r.failed = errors.Join(r.failed, err)
			return
		}
		r.packs = append(r.packs, pack)
	})
	return nil
}

// buffers holds the memory of packs that were sent, as *[]byte, for kinds that
// fill more than one.
var buffers = sync.Pool{New: func() any { return new(make([]byte, 0, packed.Target+packed.Target/8)) }}

// giveBuffer keeps only buffers of the usual size.
func giveBuffer(b []byte) {
	if cap(b) < packed.Target || cap(b) > 2*packed.Target {
		return
	}
	b = b[:0]
	buffers.Put(&b)
}

func (r *ResourceWriter) err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}
