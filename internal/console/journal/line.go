package journal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/vault"
)

// most is about how many changes one record holds.
const most = 2000

// ahead is how many records are read at once. Where the vault is far, one after
// the other would be slower than somebody writes who is near.
const ahead = 16

// CatchUp carries out in a database what its journal holds beyond it, and
// returns how many records that were; what was carried out before an error stays.
// What the database itself wrote is known by its text. ErrFork says that it cannot
// be continued: another is to be taken.
func CatchUp(ctx context.Context, b Book, db store.Journaled) (records int, err error) {
	for window := 1; ; window = min(2*window, ahead) {
		n, err := advance(ctx, b, db, window)
		records += n
		if err != nil || n < window {
			return records, err
		}
	}
}

// advance carries out the next records, at most so many.
func advance(ctx context.Context, b Book, db store.Journaled, window int) (records int, err error) {
	at, err := db.Position(ctx)
	if err != nil {
		return 0, err
	}
	pages, readErr := b.pages(ctx, at.Number+1, window)
	for len(pages) > 0 {
		n, err := carryOut(ctx, db, at, pages)
		if err != nil {
			return records, err
		}
		at, pages, records = pages[n-1].position(), pages[n:], records+n
	}
	return records, readErr
}

// page is a record and its hash.
type page struct {
	Record
	hash string
}

func (p page) position() store.Position {
	return store.Position{Number: p.Number, Epoch: p.Epoch, Hash: p.hash}
}

// follows says why a record does not continue a database.
func (p page) follows(at store.Position) error {
	switch {
	case p.Previous != at.Hash:
		return fmt.Errorf("%w: record %d follows another", ErrFork, p.Number)
	case p.Epoch < at.Epoch:
		return fmt.Errorf("%w: record %d is of epoch %d, after one of epoch %d", vault.ErrDamaged, p.Number, p.Epoch, at.Epoch)
	}
	return nil
}

// pages reads the records from a number on, at most so many, up to the first that is
// not there; or that cannot be read, and why.
func (b Book) pages(ctx context.Context, from int64, window int) ([]page, error) {
	all, errs := make([]page, window), make([]error, window)
	var reading sync.WaitGroup
	for i := range all {
		reading.Go(func() { all[i].Record, all[i].hash, errs[i] = b.Read(ctx, from+int64(i)) })
	}
	reading.Wait()
	for i, err := range errs {
		if errors.Is(err, vault.ErrNotFound) {
			return all[:i], nil
		}
		if err != nil {
			return all[:i], err
		}
	}
	return all, nil
}

// carryOut carries out the first records, as many as fit into one transaction, and
// returns how many that were.
func carryOut(ctx context.Context, db store.Journaled, at store.Position, pages []page) (n int, err error) {
	if err := pages[0].follows(at); err != nil {
		return 0, err
	}
	_, own, err := takeUp(ctx, db, at, pages[0])
	if err != nil || own {
		return 1, err
	}
	changes := pages[0].Changes
	for n = 1; n < len(pages) && len(changes)+len(pages[n].Changes) <= most; n++ {
		if pages[n].follows(pages[n-1].position()) != nil {
			break // it is told when it is the first
		}
		changes = append(changes[:len(changes):len(changes)], pages[n].Changes...)
	}
	return n, db.Follow(ctx, changes, pages[n-1].position())
}

// takeUp carries out a record that holds what waits in the database, or the beginning
// of that, or, after what waited when the database was copied, what was written
// later. It returns up to which that was. If others wait there, neither continues
// the other.
func takeUp(ctx context.Context, db store.Journaled, at store.Position, p page) (upto int64, own bool, err error) {
	waiting, err := db.Waiting(ctx, max(most, len(p.Changes)))
	if err != nil || len(waiting) == 0 {
		return 0, false, err
	}
	n := min(len(waiting), len(p.Changes))
	for i := range n {
		if waiting[i].Change != p.Changes[i] {
			n = 0
		}
	}
	if n == 0 {
		return 0, false, fmt.Errorf("%w: changes wait that record %d does not hold", ErrFork, p.Number)
	}
	if later := p.Changes[n:]; len(later) > 0 { // once more, if this dies before the next
		if err := db.Follow(ctx, later, at); err != nil {
			return 0, false, err
		}
	}
	upto = waiting[n-1].Number
	return upto, true, db.Sent(ctx, upto, p.position())
}

// Reached says whether a database can be carried on to all that its journal holds.
// It is not enough that the next record is missing: it may have been trimmed. One
// that was written since the database was carried on is no gap.
func Reached(ctx context.Context, b Book, db store.Journaled) error {
	head, err := b.Head(ctx)
	if err != nil {
		return err
	}
	at, err := db.Position(ctx)
	if err != nil || head <= at.Number {
		return err
	}
	if _, _, err = b.Read(ctx, at.Number+1); errors.Is(err, vault.ErrNotFound) {
		err = fmt.Errorf("%w: it has records up to %d, and record %d is there but not the next", ErrFork, at.Number, head)
	}
	return err
}

// Term is an epoch, in which one process writes.
type Term struct {
	Epoch  int64
	Holder string
	Now    func() time.Time
}

// Take makes a database the one that writes on: it has all that the journal
// holds, and the next record, which is of this term. Nothing that a lower epoch
// still puts can come after it.
func (t Term) Take(ctx context.Context, b Book, db store.Journaled) error {
	for {
		if _, err := CatchUp(ctx, b, db); err != nil {
			return err
		}
		if err := Reached(ctx, b, db); err != nil {
			return err
		}
		_, err := t.write(ctx, b, db, true)
		if !errors.Is(err, vault.ErrExists) {
			return err
		}
	}
}

// write puts what waits as the next record, up to the number that it returns;
// with always, also if nothing waits.
func (t Term) write(ctx context.Context, b Book, db store.Journaled, always bool) (upto int64, err error) {
	at, err := db.Position(ctx)
	if err != nil {
		return 0, err
	}
	waiting, err := db.Waiting(ctx, most)
	if err != nil || len(waiting) == 0 && !always {
		return 0, err
	}
	r := Record{Number: at.Number + 1, Epoch: t.Epoch, Holder: t.Holder, Previous: at.Hash, At: t.Now().UTC()}
	for _, w := range waiting {
		r.Changes, upto = append(r.Changes, w.Change), w.Number
	}
	to, err := b.put(ctx, r)
	if err != nil {
		return 0, err
	}
	return upto, db.Sent(ctx, upto, to)
}

// Send puts all that waits, and returns up to which number that is; 0 if nothing
// waited. What was put counts once Confirm has said so, for a number may also be
// free because it was trimmed. ErrOvertaken says that another writes.
func (t Term) Send(ctx context.Context, b Book, db store.Journaled) (upto int64, err error) {
	for {
		n, err := t.SendOne(ctx, b, db)
		if err != nil || n == 0 {
			return upto, err
		}
		upto = n
	}
}

// SendOne is Send of no more than one record holds: whoever waits for what is in it
// waits for nothing that comes meanwhile.
func (t Term) SendOne(ctx context.Context, b Book, db store.Journaled) (upto int64, err error) {
	upto, err = t.write(ctx, b, db, false)
	if errors.Is(err, vault.ErrExists) {
		upto, err = t.own(ctx, b, db)
	}
	return upto, err
}

// own takes up a record of this process whose answer was lost.
func (t Term) own(ctx context.Context, b Book, db store.Journaled) (upto int64, err error) {
	at, err := db.Position(ctx)
	if err != nil {
		return 0, err
	}
	r, hash, err := b.Read(ctx, at.Number+1)
	if err != nil {
		return 0, err
	}
	if r.Holder != t.Holder || r.Epoch != t.Epoch || r.Previous != at.Hash {
		return 0, fmt.Errorf("%w: record %d is of epoch %d", ErrOvertaken, r.Number, r.Epoch)
	}
	upto, own, err := takeUp(ctx, db, at, page{r, hash})
	if err == nil && !own {
		err = fmt.Errorf("%w: record %d holds what does not wait", ErrFork, r.Number)
	}
	return upto, err
}
