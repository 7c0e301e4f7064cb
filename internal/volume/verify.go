package volume

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sync/errgroup"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/volume/rewriter"
	"davit.dev/davit/internal/volume/suspect"
	"davit.dev/davit/internal/volume/tree"
)

// VerifyOptions say how deep to look.
type VerifyOptions struct {
	// ReadAll reads, decrypts and checks every content. Without it, only
	// the directories are read, and every content is looked up in the index
	// and its blob in the store.
	ReadAll bool
	// Sample, from 1 to 99, makes ReadAll read only so many percent of the
	// contents, those from SampleFrom percent on. Which these are, a content's
	// address decides: runs that begin where the last one ended read them all.
	Sample, SampleFrom int
	// Progress is told how far the verification has come.
	Progress func(Progress)
}

// sampled tells whether a content, or a blob, is among those to read.
func (o VerifyOptions) sampled(id string) bool {
	if o.Sample <= 0 || o.Sample >= 100 {
		return true
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(id)) // never fails
	return (int(h.Sum32()%100)+100-o.SampleFrom%100)%100 < o.Sample
}

// Damage is one thing that is wrong with stored data.
type Damage struct {
	Blob string // the blob's id in the repository, or an inventory's key, where known
	Path string // the entry of the snapshot it hurts, where known
	Err  error  // what is wrong
}

// String is the damage for people.
func (d Damage) String() string {
	switch {
	case d.Path == "":
		return fmt.Sprintf("blob %s: %v", d.Blob, d.Err)
	case d.Blob == "":
		return fmt.Sprintf("%q: %v", d.Path, d.Err)
	}
	return fmt.Sprintf("%q in blob %s: %v", d.Path, d.Blob, d.Err)
}

// VerifyReport is what a verification found. A report without damage means
// that everything looked at is as it was written.
type VerifyReport struct {
	Files, Dirs, Bytes int64 // of the snapshot, as looked at
	Read               int64 // bytes of file contents read back
	Blobs              int64 // blobs checked, if only by their size
	BlobBytes          int64 // bytes of blobs read
	Damaged            []Damage
	// Lists is what is wrong with the repository's list of its snapshots: the one that was
	// looked at may be whole. Nothing is removed from the repository meanwhile.
	Lists error
	// Whole are packs that were noted as damaged, are as they were written, and can be read.
	Whole []string
	// Unlisted are blobs that no inventory knows, sorted: left by an
	// interrupted write, harmless unless a snapshot needs one, which is damage.
	Unlisted []string
}

// Err is nil without damage, or wraps ErrDamaged and names the first damage.
func (v VerifyReport) Err() error {
	if len(v.Damaged) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s (%d in all)", ErrDamaged, v.Damaged[0], len(v.Damaged))
}

// Reasons that VerifyBlobs and Verify give in Damage.Err.
var (
	errMissing  = errors.New("missing")
	errChanged  = errors.New("does not match its SHA-256")
	errUnlisted = errors.New("needed, and in no inventory")
)

// Verify reads one snapshot back without restoring it. It reads the store and
// no cache. The error is for a verification that could not be carried out;
// damage is in the report.
func (r *Repository) Verify(ctx context.Context, snap point.Snapshot, opts VerifyOptions) (VerifyReport, error) {
	done, err := r.use()
	if err != nil {
		return VerifyReport{}, err
	}
	defer done()
	report, err := r.verify(r.quiet(ctx), snap, opts)
	if err != nil {
		return report, fmt.Errorf("verify volume snapshot %s: %w", snap.ID, err)
	}
	return report, nil
}

func (r *Repository) verify(ctx context.Context, snap point.Snapshot, opts VerifyOptions) (VerifyReport, error) {
	listed, err := r.loadInventory(ctx)
	if err != nil {
		return VerifyReport{}, err
	}
	sizes, err := r.blobSizes(ctx)
	if err != nil {
		return VerifyReport{}, err
	}
	indexes, err := r.indexesOf(ctx, snap)
	if err != nil {
		return VerifyReport{}, err
	}
	in, err := r.openInstance(ctx, instanceOptions{readOnly: true, indexes: indexes})
	if err != nil {
		if IsOutage(err) {
			return VerifyReport{}, err
		}
		return VerifyReport{Damaged: []Damage{{Err: err}}}, nil
	}
	defer in.close(ctx) //nolint:errcheck // a read-only instance loses nothing
	v := &verifier{
		in: in, opts: opts, listed: listed, sizes: sizes,
		meter: tree.NewMeter(opts.Progress, r.opts.Now),
		seen:  map[content.ID]bool{}, blobs: map[string]bool{}, unlisted: map[string]string{},
	}
	v.meter.TotalFiles.Store(snap.Files)
	v.meter.TotalBytes.Store(snap.Bytes)
	v.group, v.ctx = errgroup.WithContext(ctx)
	v.group.SetLimit(r.opts.Parallel)
	root, err := r.findRoot(ctx, in, snap)
	if errors.Is(err, errLists) {
		v.report.Lists, err = err, nil
	}
	switch {
	case err == nil:
		err = v.root(root)
	case errors.Is(err, ErrNoSnapshot) || !IsOutage(err):
		v.damage("", "", err)
		err = nil
	}
	if gerr := v.group.Wait(); gerr != nil {
		err = gerr
	}
	v.meter.Last()
	err = errors.Join(err, v.settle(ctx, r), ctx.Err())
	return v.finish(), err
}

// IsOutage tells work that could not be carried out, as the vault gave no
// answer or let nobody in, from work that found damage.
func IsOutage(err error) bool {
	return errors.Is(err, vault.ErrUnavailable) || errors.Is(err, vault.ErrDenied) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrPassword)
}

// verifier walks one snapshot.
type verifier struct {
	in     *instance
	opts   VerifyOptions
	listed *inventory
	sizes  map[string]int64
	meter  *tree.Meter
	ctx    context.Context //nolint:containedctx // of group, for one run
	group  *errgroup.Group
	read   atomic.Int64

	mu       sync.Mutex
	report   VerifyReport
	seen     map[content.ID]bool
	blobs    map[string]bool   // packs needed
	unlisted map[string]string // of these, that no inventory had: the entry that needs it
}

func (v *verifier) damage(blobID, path string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Damaged = append(v.report.Damaged, Damage{Blob: blobID, Path: path, Err: err})
	v.meter.Errors.Add(1)
}

// found sorts an error into damage, told in the report, and outage, returned.
func (v *verifier) found(blobID, path string, err error) error {
	if IsOutage(err) {
		return err
	}
	v.damage(blobID, path, err)
	return nil
}

// unreadable is found, for what is read in a sample too: it names the pack.
func (v *verifier) unreadable(id object.ID, path string, err error) error {
	pack := ""
	ids, _ := object.VerifyObject(v.ctx, rewriter.Contents{Reader: v.in.rep.ContentReader()}, id)
	for _, c := range ids {
		if info, gone := v.in.rep.ContentReader().ContentInfo(v.ctx, c); gone == nil {
			if _, unread := v.in.rep.ContentReader().GetContent(v.ctx, c); unread != nil {
				pack = string(info.PackBlobID)
			}
		}
	}
	return v.found(pack, path, err)
}

func (v *verifier) root(id object.ID) error {
	if err := v.object(id, "(root)"); err != nil {
		return err
	}
	top, extras, err := tree.OpenRoot(v.ctx, v.in.rep, id)
	if err != nil {
		return v.unreadable(id, "(root)", err)
	}
	if err := v.object(extras.ObjectID, "(extras)"); err != nil {
		return err
	}
	if err := tree.CheckExtras(v.ctx, v.in.rep, extras); err != nil {
		if err := v.unreadable(extras.ObjectID, "(extras)", err); err != nil {
			return err
		}
	}
	return v.dir(top, "")
}

func (v *verifier) dir(d *snapshot.DirEntry, path string) error {
	if err := v.ctx.Err(); err != nil {
		return err
	}
	v.report.Dirs++ // by the walker alone
	if err := v.object(d.ObjectID, path); err != nil {
		return err
	}
	entries, err := tree.ReadDir(v.ctx, v.in.rep, d.ObjectID)
	if err != nil {
		return v.unreadable(d.ObjectID, path, err)
	}
	for _, e := range entries {
		child := tree.Join(path, e.Name)
		if err := tree.CheckName(e.Name); err != nil {
			v.damage("", child, err)
		}
		switch e.Type {
		case snapshot.EntryTypeDirectory:
			err = v.dir(e, child)
		case snapshot.EntryTypeFile:
			err = v.file(e, child)
		default:
			err = v.object(e.ObjectID, child)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) file(e *snapshot.DirEntry, path string) error {
	v.report.Files++
	v.report.Bytes += e.FileSize
	if index, indirect := e.ObjectID.IndexObjectID(); indirect {
		if err := v.object(index, path); err != nil {
			return err
		}
	}
	chunks, err := tree.Chunks(v.ctx, v.in.rep.ContentReader(), e)
	if err != nil {
		return v.found("", path, err)
	}
	for _, c := range chunks {
		if err := v.chunk(c, path); err != nil {
			return err
		}
	}
	v.meter.Files.Add(1)
	v.meter.Tick()
	return nil
}

// object checks all contents of an object whose length is not known.
func (v *verifier) object(id object.ID, path string) error {
	ids, err := object.VerifyObject(v.ctx, rewriter.Contents{Reader: v.in.rep.ContentReader()}, id)
	if err != nil {
		return v.found("", path, err)
	}
	for _, c := range ids {
		if err := v.chunk(tree.Chunk{ID: c, Length: -1}, path); err != nil {
			return err
		}
	}
	return nil
}

// chunk checks one content, once however many files have it.
func (v *verifier) chunk(c tree.Chunk, path string) error {
	v.mu.Lock()
	known := v.seen[c.ID]
	v.seen[c.ID] = true
	v.mu.Unlock()
	if known {
		v.meter.Bytes.Add(max(c.Length, 0))
		return nil
	}
	info, err := v.in.rep.ContentReader().ContentInfo(v.ctx, c.ID)
	if err != nil {
		return v.found("", path, fmt.Errorf("find content %s: %w", c.ID, err))
	}
	pack := string(info.PackBlobID)
	if err := v.need(pack, path); err != nil {
		return err
	}
	if end := int64(info.PackOffset) + int64(info.PackedLength); v.sizes[pack] < end {
		if _, there := v.sizes[pack]; there { // need has reported a missing one
			v.damage(pack, path, fmt.Errorf("has %d bytes, needs %d", v.sizes[pack], end))
		}
		return nil
	}
	if !v.opts.ReadAll || !v.opts.sampled(c.ID.String()) {
		return nil
	}
	v.group.Go(func() error {
		data, err := v.in.rep.ContentReader().GetContent(v.ctx, c.ID)
		if err == nil && c.Length >= 0 && int64(len(data)) != c.Length {
			err = fmt.Errorf("content %s has %d bytes, not %d", c.ID, len(data), c.Length)
		}
		v.read.Add(int64(len(data)))
		v.meter.Bytes.Add(int64(len(data)))
		v.meter.Tick()
		if err != nil {
			return v.found(pack, path, err)
		}
		return nil
	})
	return nil
}

// need notes that the snapshot needs a pack, and reports one that is missing, once.
// Others may store a content again, or move it, meanwhile: so its pack may be newer
// than the lists that were read at first.
func (v *verifier) need(pack, path string) error {
	v.mu.Lock()
	known := v.blobs[pack]
	v.blobs[pack] = true
	v.mu.Unlock()
	if known {
		return nil
	}
	if !v.listed.has(pack) {
		v.unlisted[pack] = path
	}
	if _, ok := v.sizes[pack]; ok {
		return nil
	}
	now, err := v.in.storage.GetMetadata(v.ctx, blob.ID(pack))
	if errors.Is(err, blob.ErrBlobNotFound) {
		v.damage(pack, path, errMissing)
		return nil
	}
	v.sizes[pack] = now.Length
	return err
}

// settle reports packs that no inventory has by now either: what makes a pack
// reachable is stored after an inventory that has it.
func (v *verifier) settle(ctx context.Context, r *Repository) error {
	if len(v.unlisted) == 0 {
		return nil
	}
	listed, err := r.loadInventory(ctx)
	if err != nil {
		return err
	}
	for pack, path := range v.unlisted {
		if !listed.has(pack) {
			v.damage(pack, path, errUnlisted)
		}
	}
	return nil
}

func (v *verifier) finish() VerifyReport {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Blobs, v.report.Read = int64(len(v.blobs)), v.read.Load()
	return v.report
}

func (r *Repository) blobSizes(ctx context.Context) (map[string]int64, error) {
	sizes := map[string]int64{}
	err := r.opts.Store.List(ctx, r.opts.Prefix, func(o vault.ObjectInfo) error {
		sizes[strings.TrimPrefix(o.Key, r.opts.Prefix)] = o.Size
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list blobs: %w", err)
	}
	return sizes, nil
}

// VerifyBlobs reads every blob of the repository and compares it with the SHA-256 inventories. Of a sample, packs
// of data that are not in it are compared by their size; all else is small, and always read. inventories are keys
// that must exist or have been merged since, as point.Snapshot names them; all that exist are used.
func (r *Repository) VerifyBlobs(ctx context.Context, inventories []string, opts VerifyOptions) (VerifyReport, error) {
	done, err := r.use()
	if err != nil {
		return VerifyReport{}, err
	}
	defer done()
	report, err := r.verifyBlobs(ctx, inventories, opts)
	if err != nil {
		return report, fmt.Errorf("verify blobs of %s: %w", r.opts.Prefix, err)
	}
	return report, nil
}

func (r *Repository) verifyBlobs(ctx context.Context, inventories []string, opts VerifyOptions) (VerifyReport, error) {
	// The inventories first: a blob stored after they were read is unlisted
	// for a moment, and never looks missing.
	inv, err := r.loadInventory(ctx)
	if err != nil {
		return VerifyReport{}, err
	}
	sizes, err := r.blobSizes(ctx)
	if err != nil {
		return VerifyReport{}, err
	}
	noted, err := suspect.List(ctx, r.opts.Store, r.opts.Prefix)
	if err != nil {
		return VerifyReport{}, err
	}
	b := &blobCheck{r: r, opts: opts, noted: noted, meter: tree.NewMeter(opts.Progress, r.opts.Now)}
	b.report.Damaged = append(b.report.Damaged, inv.damaged...)
	b.report.Damaged = append(b.report.Damaged, missingInventories(inv, inventories)...)
	ids := make([]string, 0, len(sizes))
	for id, size := range sizes {
		ids = append(ids, id)
		b.meter.TotalBytes.Add(size)
	}
	sort.Strings(ids)
	sort.SliceStable(ids, func(i, j int) bool { return !noted[ids[i]] && noted[ids[j]] }) // who finds one damaged meanwhile notes it, which must stand
	b.meter.TotalFiles.Store(int64(len(ids)))
	err = r.parallel(ctx, len(ids), func(ctx context.Context, i int) error {
		return b.check(ctx, ids[i], sizes[ids[i]], inv.blobs[ids[i]])
	})
	for id, e := range inv.blobs {
		if _, there := sizes[id]; !there && e.present && !e.deleted {
			b.gone = append(b.gone, id)
		}
	}
	b.meter.Last()
	if err == nil {
		err = b.settle(ctx)
	}
	if err == nil && len(b.report.Whole) > 0 {
		b.report.Whole, err = suspect.Readable(ctx, r.main.rep, b.report.Whole, IsOutage)
	}
	sort.Strings(b.report.Unlisted)
	sort.Slice(b.report.Damaged, func(i, j int) bool { return b.report.Damaged[i].Blob < b.report.Damaged[j].Blob })
	return b.report, err
}

// missingInventories finds keys that should be there. A key older than a
// merged inventory is taken to be merged into it.
func missingInventories(inv *inventory, wanted []string) []Damage {
	have := map[string]bool{}
	newestMerge := ""
	for _, k := range inv.keys {
		have[k] = true
		if strings.HasSuffix(k, mergedSuffix) {
			newestMerge = max(newestMerge, k)
		}
	}
	var lost []Damage
	for _, k := range wanted {
		if !have[k] && k > newestMerge {
			lost = append(lost, Damage{Blob: k, Err: errMissing})
		}
	}
	return lost
}

// blobCheck compares blobs with the inventories.
type blobCheck struct {
	r     *Repository
	opts  VerifyOptions
	noted map[string]bool // packs that were found damaged, which a sample leaves out no more
	meter *tree.Meter

	mu     sync.Mutex
	report VerifyReport
	gone   []string // listed and not found: deleted meanwhile, or missing
}

func (b *blobCheck) check(ctx context.Context, id string, size int64, e *expectation) error {
	if strings.HasPrefix(id, "p") && e != nil && e.sized(size) && !b.opts.sampled(id) && !b.noted[id] {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.report.Blobs++
		return nil
	}
	got, err := b.r.fingerprint(ctx, id)
	b.meter.Files.Add(1)
	b.meter.Bytes.Add(size)
	b.meter.Tick()
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case errors.Is(err, vault.ErrNotFound):
		b.gone = append(b.gone, id)
		return nil
	case err != nil:
		return err
	}
	b.report.Blobs++
	b.report.BlobBytes += got.Size
	switch {
	case e == nil || len(e.prints) == 0:
		b.report.Unlisted = append(b.report.Unlisted, id)
	case !e.prints[got]:
		b.report.Damaged = append(b.report.Damaged, Damage{Blob: id, Err: errChanged})
	case b.noted[id]:
		b.report.Whole = append(b.report.Whole, id)
	}
	return nil
}

// settle looks again at what may have happened while blobs were read: blobs
// that were deleted, and blobs that were listed, by others.
func (b *blobCheck) settle(ctx context.Context) error {
	if len(b.gone) == 0 && len(b.report.Unlisted) == 0 {
		return nil
	}
	inv, err := b.r.loadInventory(ctx)
	if err != nil {
		return err
	}
	for _, id := range b.gone {
		e := inv.blobs[id]
		if e != nil && e.present && !e.deleted {
			b.report.Damaged = append(b.report.Damaged, Damage{Blob: id, Err: errMissing})
		}
	}
	unlisted := b.report.Unlisted
	b.report.Unlisted = nil
	for _, id := range unlisted {
		if !inv.has(id) {
			b.report.Unlisted = append(b.report.Unlisted, id)
			continue
		}
		if err := b.check(ctx, id, 0, inv.blobs[id]); err != nil {
			return err
		}
	}
	return nil
}

// fingerprint reads a blob and hashes it.
func (r *Repository) fingerprint(ctx context.Context, id string) (print, error) {
	body, err := r.opts.Store.Get(ctx, r.opts.Prefix+id, 0, -1)
	if err != nil {
		return print{}, fmt.Errorf("read blob %s: %w", id, err)
	}
	sum := sha256.New()
	n, err := io.Copy(sum, body)
	if cerr := body.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return print{}, fmt.Errorf("read blob %s: %w", id, err)
	}
	return print{n, hex.EncodeToString(sum.Sum(nil))}, nil
}
