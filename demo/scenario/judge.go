package scenario

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// span is a stretch of time whose orders a site took with it: from the instant of
// the recovery point that took its place until it was dead.
type span struct{ from, to time.Time }

func (s span) has(t time.Time) bool { return !t.Before(s.from) && !t.After(s.to) }

// row is an order as a database has it.
type row struct {
	checksum string
	count    int
}

// verdict is what became of the orders of a ledger.
type verdict struct {
	all  []Ack // the ledger
	kept int
	lost []Ack // and may be
}

// sums are of the orders that were acknowledged before a site died: kept, lost and
// earlier are all of them.
type sums struct {
	before  int
	kept    int
	lost    int // in the gap that the site left
	earlier int // in another's
}

// text says it so that it adds up.
func (s sums) text(gap span) string {
	text := fmt.Sprintf("of %d orders acknowledged before the site's death %d are kept, and %d lost, of its last %s", s.before, s.kept, s.lost, seconds(gap.to.Sub(gap.from)))
	if s.earlier > 0 {
		text += fmt.Sprintf(", besides %d that were lost earlier", s.earlier)
	}
	return text
}

// tally sums up the orders that were acknowledged until the end of a gap. Those since
// then are the next site's, and count nowhere.
func tally(acks []Ack, v verdict, gap span) (s sums) {
	for _, a := range acks {
		if !a.At.After(gap.to) {
			s.before++
		}
	}
	for _, a := range v.lost {
		switch {
		case gap.has(a.At):
			s.lost++
		case !a.At.After(gap.to):
			s.earlier++
		}
	}
	s.kept = s.before - s.lost - s.earlier
	return s
}

// compare looks for each order of a ledger among those of a database. One that is
// missing, changed or doubled is an error, unless it was acknowledged in one of the
// spans. An order that was placed again under its number has another checksum.
func compare(acks []Ack, rows map[int64]row, lost []span) (verdict, error) {
	v := verdict{all: acks}
	if len(acks) == 0 {
		return v, errors.New("the ledger knows of no order")
	}
	for id, has := range rows {
		if has.count != 1 {
			return v, fmt.Errorf("order %d is there %d times", id, has.count)
		}
	}
	for _, a := range acks {
		if rows[a.ID].checksum == a.Checksum {
			v.kept++
			continue
		}
		if !anyHas(lost, a.At) {
			return v, &lostError{a, rows[a.ID].checksum}
		}
		v.lost = append(v.lost, a)
	}
	return v, nil
}

func anyHas(spans []span, t time.Time) bool {
	for _, s := range spans {
		if s.has(t) {
			return true
		}
	}
	return false
}

// lostError says that an order is missing that was acknowledged.
type lostError struct {
	order Ack
	found string
}

func (e *lostError) Error() string {
	return fmt.Sprintf("order %d was acknowledged at %s, but the database has checksum %q, want %q",
		e.order.ID, e.order.At.Format(time.RFC3339Nano), e.found, e.order.Checksum)
}

// judge compares the ledger with what a query says. The ledger is asked first: what
// it does not know yet may be in the database.
func (r *Run) judge(ctx context.Context, query string, lost []span) (verdict, error) {
	acks, err := r.ledger.All(ctx)
	if err != nil {
		return verdict{}, err
	}
	text, err := r.sql(ctx, query)
	if err != nil {
		return verdict{}, err
	}
	rows, err := readRows(text)
	if err != nil {
		return verdict{}, err
	}
	return compare(acks, rows, lost)
}

// OrdersQuery is what a database is asked for its orders.
const OrdersQuery = "select id, checksum, count(*) from orders group by 1, 2"

// Missing lists the orders of a ledger that a database does not have as they were acknowledged; text is what
// that answered to OrdersQuery, its fields parted by spaces. An order that is there twice is an error.
func Missing(acks []Ack, text string) ([]Ack, error) {
	rows, err := readRows(text)
	if err != nil {
		return nil, err
	}
	v, err := compare(acks, rows, []span{{to: time.Unix(1<<40, 0)}}) // whenever they were
	return v.lost, err
}

// readRows reads lines of a number, a checksum and a count; others are what psql
// says of commands.
func readRows(text string) (map[int64]row, error) {
	rows := map[int64]row{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		id, err := strconv.ParseInt(f[0], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("read order: %w", err)
		}
		n, err := strconv.Atoi(f[2])
		if err != nil {
			return nil, fmt.Errorf("read count of order %d: %w", id, err)
		}
		rows[id] = row{checksum: f[1], count: rows[id].count + n}
	}
	return rows, nil
}

// checkJudge takes orders from the database, in transactions that are rolled back:
// the check must find each that is missing, or another under its number.
func (r *Run) checkJudge(ctx context.Context) (string, error) {
	acks, err := r.ledger.All(ctx)
	if err != nil {
		return "", err
	}
	var victim Ack
	for _, a := range acks {
		if !anyHas(r.gone, a.At) {
			victim = a
		}
	}
	for name, harm := range map[string]string{
		"lost":    "delete from orders where id = %d",
		"changed": "update orders set checksum = 'another' where id = %d",
	} {
		_, err := r.judge(ctx, fmt.Sprintf("begin; "+harm+"; "+OrdersQuery+"; rollback", victim.ID), r.gone)
		var found *lostError
		if !errors.As(err, &found) || found.order.ID != victim.ID {
			return "", fmt.Errorf("order %d was %s, and the check says: %w", victim.ID, name, err)
		}
	}
	return fmt.Sprintf("order %d, lost and changed in a transaction that was rolled back, is found", victim.ID), nil
}
