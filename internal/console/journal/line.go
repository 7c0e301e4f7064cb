package journal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/vault"
)

// most is about how many changes one record holds.
const most = 2000

// CatchUp carries out in a database what its journal holds beyond it, and
// returns how many records that were. What the database itself wrote is known
// by its text. ErrFork says that it cannot be continued: another is to be taken.
func CatchUp(ctx context.Context, b Book, db store.Journaled) (records int, err error) {
	for {
		more, err := step(ctx, b, db)
		if err != nil || !more {
			return records, err
		}
		records++
	}
}

func step(ctx context.Context, b Book, db store.Journaled) (more bool, err error) {
	at, err := db.Position(ctx)
	if err != nil {
		return false, err
	}
	r, hash, err := b.Read(ctx, at.Number+1)
	if errors.Is(err, vault.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	switch {
	case r.Previous != at.Hash:
		return false, fmt.Errorf("%w: record %d follows another", ErrFork, r.Number)
	case r.Epoch < at.Epoch:
		return false, fmt.Errorf("%w: record %d is of epoch %d, after one of epoch %d", vault.ErrDamaged, r.Number, r.Epoch, at.Epoch)
	}
	to := store.Position{Number: r.Number, Epoch: r.Epoch, Hash: hash}
	upto, own, err := wrote(ctx, db, r)
	switch {
	case err != nil:
		return false, err
	case own:
		return true, db.Sent(ctx, upto, to)
	}
	return true, db.Follow(ctx, r.Changes, to)
}

// wrote tells whether the changes of a record are those that wait in the
// database, and up to which. If others wait there, neither continues the other.
func wrote(ctx context.Context, db store.Journaled, r Record) (upto int64, own bool, err error) {
	waiting, err := db.Waiting(ctx, max(most, len(r.Changes)))
	if err != nil || len(waiting) == 0 {
		return 0, false, err
	}
	if len(r.Changes) == 0 || len(waiting) < len(r.Changes) {
		return 0, false, fmt.Errorf("%w: changes wait that record %d does not hold", ErrFork, r.Number)
	}
	for i, text := range r.Changes {
		if waiting[i].Change != text {
			return 0, false, fmt.Errorf("%w: changes wait that record %d does not hold", ErrFork, r.Number)
		}
	}
	return waiting[len(r.Changes)-1].Number, true, nil
}

// Reached says whether a database has all that its journal holds. It is not
// enough that the next record is missing: it may have been trimmed.
func Reached(ctx context.Context, b Book, db store.Journaled) error {
	head, err := b.Head(ctx)
	if err != nil {
		return err
	}
	at, err := db.Position(ctx)
	if err == nil && head > at.Number {
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
		n, err := t.write(ctx, b, db, false)
		if errors.Is(err, vault.ErrExists) {
			n, err = t.own(ctx, b, db)
		}
		if err != nil || n == 0 {
			return upto, err
		}
		upto = n
	}
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
	upto, own, err := wrote(ctx, db, r)
	if err == nil && !own {
		err = fmt.Errorf("%w: record %d holds what does not wait", ErrFork, r.Number)
	}
	if err != nil {
		return 0, err
	}
	return upto, db.Sent(ctx, upto, store.Position{Number: r.Number, Epoch: r.Epoch, Hash: hash})
}
