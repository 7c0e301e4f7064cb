package node

import (
	"cmp"
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
	// Offers returns an error where the driver does not say that it can be asked.
	Offers(ctx context.Context, driver string) error
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
	now  func() time.Time // when the volume was cut, by the clock that dates points
	warn func(string)

	live     bool      // the volume is written while it is read
	found    string    // what a process that was at this task before found that the driver called unchanged and was not
	driver   string    // whose word it is
	since    time.Time // in which points what is found may be; see point.Blocks.Compared
	anew     bool      // nothing may be taken over of the previous snapshot
	keeps    bool      // the driver can be asked what is changed after this cut
	compared bool      // it was asked, and all that it said so far is compared
}

// plan says how the volume's large files are stored; nil: as all others are. The
// outcome is completed by settle. Where the option is off, of is nil.
func (b *blockReader) plan(ctx context.Context, repo *volume.Repository, of *v1alpha1.VolumeBlocks, dir string, previous *point.Snapshot) (*changes.Plan, *point.Blocks, error) {
	var was point.Blocks
	var before *changes.Book
	var err error
	if previous != nil && previous.Blocks != nil {
		if was = *previous.Blocks; previous.ID != "" { // else there is none, and this says only what was found
			before, err = repo.Blocks(ctx, *previous)
		}
	}
	if errors.Is(err, volume.ErrNoSnapshot) { // the point before was deleted, or the repository is a new one
		b.anew, err = true, nil
	}
	if errors.Is(err, volume.ErrBlocks) {
		b.anew, err = true, nil
		b.warn("all of the volume is read: " + volume.ErrBlocks.Error() + " in the point before")
	}
	if err != nil {
		return nil, nil, err
	}
	if b.since = was.Compared; b.since.IsZero() {
		b.since = b.now().UTC()
	}
	if b.driver = "of this volume"; before != nil {
		b.driver = before.Driver
	} else if of != nil {
		b.driver = of.Driver
	}
	if b.live { // a file may keep its time and change, or become shorter, without anybody having lied
		b.anew = b.anew || before != nil
		return nil, nil, nil
	}
	if of == nil || b.found != "" {
		return ending(before), nil, nil
	}
	out := &point.Blocks{Compared: b.since}
	if was.Distrusted != "" {
		out.Distrusted, out.Reason = was.Distrusted, "the driver's word is not taken any more"
		b.warn(fmt.Sprintf("driver %s called blocks unchanged that were not (%s), and is not asked any more: when it is mended, take a backup with volumes.changedBlocks Never, and set it to Auto again", of.Driver, out.Distrusted))
		return ending(before), out, nil
	}
	at, err := b.device(of, dir)
	if err != nil {
		b.without(out, err)
		return ending(before), out, nil
	}
	p := &changes.Plan{Before: before, Now: changes.NewBook(changes.Head{Driver: of.Driver, Volume: of.Volume, Snapshot: of.Snapshot, Size: at.Size, FileSystem: at.FileSystem})}
	if out.Reason = unlike(before, p.Now); out.Reason != "" {
		p.All, p.Other = true, before != nil && (before.Driver != of.Driver || before.Volume != of.Volume)
	} else if p.Now.Since = before.Since + 1; p.Now.Since > readAllAfter {
		p.Now.Since, p.All, out.Reason = 0, true, "it was time to read all, and compare"
	}
	if before != nil && was.Base && unlike(before, p.Now) == "" {
		b.compare(ctx, p, out, of.Name)
	} else {
		b.begin(ctx, of.Driver, out)
	}
	return p, out, nil
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

// begin has the cut kept for the first question, where somebody is there who can be asked.
func (b *blockReader) begin(ctx context.Context, driver string, out *point.Blocks) {
	out.Reason = cmp.Or(out.Reason, "no snapshot was kept with the point before")
	if err := b.ask.Offers(ctx, driver); err != nil {
		b.without(out, err)
		return
	}
	b.keeps = true
}

// compare asks the driver what was changed since the snapshot before. Who does not answer has no
// cut kept: the next one asks whether he can be asked at all.
func (b *blockReader) compare(ctx context.Context, p *changes.Plan, out *point.Blocks, target string) {
	delta, err := b.ask.Delta(ctx, tracker.Question{Driver: p.Before.Driver, Base: p.Before.Snapshot, Namespace: v1alpha1.SystemNamespace, Target: target})
	if err == nil && delta.Size() != p.Now.Size {
		err = fmt.Errorf("%w: it is of a volume of %d bytes, and this one has %d", changes.ErrAnswer, delta.Size(), p.Now.Size)
	}
	if err != nil {
		b.without(out, err)
		return
	}
	p.Delta, b.keeps, b.compared = delta, true, p.All && !delta.Empty()
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
func (b *blockReader) without(out *point.Blocks, err error) {
	out.Reason = err.Error()
	b.warn("volumes.changedBlocks is of no use here, all files that were changed were read whole: " + out.Reason)
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

// lie says what a driver called unchanged that was not, and which points that may be in; "" where
// nothing was found. What was found first stands.
func (b *blockReader) lie(p *changes.Plan) string {
	if text := p.Lie(); b.found == "" && text != "" {
		return text + ": points since " + b.since.Format(time.RFC3339) + " may hold old data in files of 8 MiB and more"
	}
	return b.found
}

// settle completes what is said of a snapshot that was stored by the plan: also where the option is off, and
// it is found what the driver said before.
func (b *blockReader) settle(p *changes.Plan, out *point.Blocks) *point.Blocks {
	switch found := b.lie(p); {
	case found != "":
		out = &point.Blocks{Compared: b.since, Distrusted: found, Reason: "the driver's word turned out to be wrong"}
		b.warn(fmt.Sprintf("DRIVER %s LIES: it called blocks unchanged that were not (%s). This point holds what the volume does: restore from it, or from points older than those. The driver is not asked any more: tell its maker; when it is mended, take a backup with volumes.changedBlocks Never, and set it to Auto again", b.driver, found))
	case out != nil:
		out.Unread, out.Base = p.Unread(), b.keeps
		if b.compared {
			out.Compared = b.now().UTC()
		}
	}
	return out
}
