package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/mover"
	"davit.dev/davit/internal/kube/tracker"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/volume"
	"davit.dev/davit/internal/volume/changes"
)

// readAllAfter is how many snapshots in a row may be stored by a driver's word: the next
// one reads all, and compares.
const readAllAfter = 9

// asker tells which blocks of a volume were changed.
type asker interface {
	Delta(ctx context.Context, q tracker.Question) (*changes.Delta, error)
}

// newAsker asks drivers by the node process's own account.
func newAsker(c client.Client, config *rest.Config) *tracker.Tracker {
	return &tracker.Tracker{
		Client:  c,
		Account: client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: mover.NodeAppName},
		Own: func() (string, error) {
			if config == nil || config.BearerTokenFile == "" {
				return "", nil
			}
			token, err := os.ReadFile(config.BearerTokenFile)
			return string(token), err
		},
	}
}

// blockReader stores the large files of one volume by its driver's word, as far as that goes.
type blockReader struct {
	ask  asker
	find func(dir string) (changes.Device, error)
	now  func() time.Time
	warn func(string)

	whole time.Time // when all was read before
	deaf  bool      // the driver tells nothing
}

// plan says how the volume's large files are stored; nil: as all others are. The
// outcome is completed by settle. Where the option is off, of is nil.
func (b *blockReader) plan(ctx context.Context, repo *volume.Repository, of *v1alpha1.VolumeBlocks, dir string, previous *point.Snapshot) (*changes.Plan, *point.Blocks, error) {
	var before *changes.Book
	var err error
	if previous != nil && previous.Blocks != nil {
		if before, err = repo.Blocks(ctx, *previous); err != nil {
			return nil, nil, err
		}
	}
	if of == nil {
		return ending(before), nil, nil
	}
	out := &point.Blocks{}
	if previous != nil && previous.Blocks != nil && previous.Blocks.Distrusted != "" {
		out.Distrusted, out.Reason = previous.Blocks.Distrusted, "the driver's word is not taken any more"
		b.warn(fmt.Sprintf("driver %s called blocks unchanged that were not (%s), and is not asked any more: when it is mended, take a backup with volumes.changedBlocks Never, and set it to Auto again", of.Driver, out.Distrusted))
		return ending(before), out, nil
	}
	at, err := b.device(of, dir)
	if err != nil {
		return ending(before), b.without(out, err), nil
	}
	p := &changes.Plan{Before: before, Now: changes.NewBook(changes.Head{
		Driver: of.Driver, Volume: of.Volume, Snapshot: of.Snapshot, Size: at.Size, FileSystem: at.FileSystem, Whole: b.now().UTC(),
	})}
	if out.Reason = unlike(before, p.Now); out.Reason != "" {
		p.All = true
		return p, out, nil
	}
	return p, b.compare(ctx, p, out, of.Name), nil
}

// device finds what the volume lies on, if what its driver says of blocks can be told of files.
func (b *blockReader) device(of *v1alpha1.VolumeBlocks, dir string) (changes.Device, error) {
	if of.Refused != "" {
		return changes.Device{}, errors.New(of.Refused)
	}
	at, err := b.find(dir)
	if err == nil && at.Size != of.Capacity {
		err = fmt.Errorf("%w: its device has %d bytes, the volume %d", changes.ErrDevice, at.Size, of.Capacity)
	}
	return at, err
}

// compare asks the driver what was changed since the snapshot before.
func (b *blockReader) compare(ctx context.Context, p *changes.Plan, out *point.Blocks, target string) *point.Blocks {
	b.whole = p.Before.Whole
	if p.Before.Since >= readAllAfter {
		p.All, out.Reason = true, "it was time to read all, and compare"
	} else {
		p.Now.Since, p.Now.Whole = p.Before.Since+1, p.Before.Whole
	}
	delta, err := b.ask.Delta(ctx, tracker.Question{Driver: p.Before.Driver, Base: p.Before.Snapshot, Namespace: v1alpha1.SystemNamespace, Target: target})
	if err == nil && delta.Size() != p.Now.Size {
		err = fmt.Errorf("%w: it is of a volume of %d bytes, and this one has %d", changes.ErrAnswer, delta.Size(), p.Now.Size)
	}
	if err != nil {
		b.deaf = errors.Is(err, tracker.ErrNoService)
		return b.without(out, err)
	}
	p.Delta = delta
	return out
}

// ending reads all that was stored by a driver's word, which is not taken any more. Files that
// nobody touches would else be taken over as they are for good.
func ending(before *changes.Book) *changes.Plan {
	if before == nil {
		return nil
	}
	return &changes.Plan{Before: before, Now: changes.NewBook(changes.Head{}), All: true, Last: true}
}

// without says why the driver is not believed, to people too: they asked for something else.
func (b *blockReader) without(out *point.Blocks, err error) *point.Blocks {
	out.Reason = err.Error()
	b.warn("volumes.changedBlocks is of no use here, all files that were changed were read whole: " + out.Reason)
	return out
}

// unlike says why what is known of the previous snapshot cannot be compared with this one.
func unlike(before, now *changes.Book) string {
	switch {
	case before == nil:
		return "there is no point before that says where its files lay"
	case before.Driver != now.Driver || before.Volume != now.Volume:
		return "the point before is of another volume"
	case before.Size != now.Size || before.FileSystem != now.FileSystem:
		return "the point before is of a volume of another size"
	case before.Snapshot == "" || before.Snapshot == now.Snapshot:
		return "the point before does not say of which snapshot it is"
	}
	return ""
}

// settle completes what is said of a snapshot that was stored by the plan.
func (b *blockReader) settle(p *changes.Plan, out *point.Blocks) {
	if p == nil || p.Last || out == nil {
		return
	}
	lie := p.Lie()
	out.Unread, out.Base = p.Unread(), lie == "" && !b.deaf
	if lie == "" {
		return
	}
	out.Distrusted, out.Reason = lie, "the driver's word turned out to be wrong"
	b.warn(fmt.Sprintf("DRIVER %s LIES: it called blocks unchanged that were not (%s). This point holds what the volume does. Those since %s may hold old data in files of 8 MiB and more: restore from this one, or from older ones. The driver is not asked any more: tell its maker; when it is mended, take a backup with volumes.changedBlocks Never, and set it to Auto again", p.Now.Driver, lie, b.whole.Format(time.RFC3339)))
}
