// Package journal keeps the journal of a run in the vault
// (docs/formats/journal.md): records under their number alone, each put only if
// it is absent and chained to the one before. Whoever loses a put stops. It
// keeps no clock, and no goroutine longer than a call.
package journal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/vault"
)

// formatVersion is what this code writes, and the highest that it reads.
const formatVersion = 1

// ErrDeposed says that another executor has written where this one wanted to:
// it carries the run now, and this one stops.
var ErrDeposed = errors.New("another executor carries the run")

// ErrNewer says that a newer davit wrote what is read.
var ErrNewer = errors.New("use a newer davit")

// Log is where records are kept. *vault.Project is one.
type Log interface {
	// RunNumbers returns the numbers of the run's records, ascending.
	RunNumbers(ctx context.Context, run string) ([]int64, error)
	// ReadRun reads a record.
	ReadRun(ctx context.Context, run string, n int64) ([]byte, error)
	// WriteRun writes a record under a free number; vault.ErrExists says that it
	// is taken, vault.ErrUnavailable that nobody knows.
	WriteRun(ctx context.Context, run string, n int64, record []byte) error
	// RunAge is how long ago a record was put, by the clock of whoever keeps it.
	RunAge(ctx context.Context, run string, n int64) (time.Duration, error)
}

var _ Log = (*vault.Project)(nil)

// record is what is stored.
type record struct {
	FormatVersion int              `json:"formatVersion"`
	Run           string           `json:"run"`
	Sequence      int64            `json:"sequence"`
	Previous      string           `json:"previous"`
	Epoch         int64            `json:"epoch"`
	Executor      string           `json:"executor"`
	Entries       []failover.Entry `json:"entries"`
}

// Journal is a run's journal, as one executor writes it.
type Journal struct {
	log      Log
	run      string
	executor string
	tail     tail
	// wanted is the record that was last put and has no answer yet.
	wanted  []byte
	deposed bool
}

// tail is what the next record must fit to.
type tail struct {
	sequence, epoch int64
	executor, hash  string
}

// Create returns the journal of a run that has none yet. The first Append
// opens it, or tells that somebody else has.
func Create(log Log, run, executor string) *Journal {
	return &Journal{log: log, run: run, executor: executor, tail: tail{executor: executor, epoch: 1}}
}

// Open reads a run's journal to take the run over. The first Append must begin
// with the entry Took. vault.ErrNotFound says that there is no such run.
func Open(ctx context.Context, log Log, run, executor string) (*Journal, *failover.State, error) {
	state, last, err := read(ctx, log, run, nil)
	if err != nil {
		return nil, nil, err
	}
	last.epoch++
	last.executor = executor
	return &Journal{log: log, run: run, executor: executor, tail: last}, state, nil
}

// Read returns what a run's journal says.
func Read(ctx context.Context, log Log, run string) (*failover.State, error) {
	state, _, err := read(ctx, log, run, nil)
	return state, err
}

// Record is one record of a journal, for whoever tells its story.
type Record struct {
	Sequence, Epoch int64
	Executor        string
	Hash            string // hex of SHA-256 over the record, which names the one before it
	Entries         []failover.Entry
}

// History returns all records of a run's journal, and what they add up to. The
// hash of the last one stands for all of them.
func History(ctx context.Context, log Log, run string) (*failover.State, []Record, error) {
	var records []Record
	state, _, err := read(ctx, log, run, func(r record, hash string) {
		records = append(records, Record{Sequence: r.Sequence, Epoch: r.Epoch, Executor: r.Executor, Hash: hash, Entries: r.Entries})
	})
	if err != nil {
		return nil, nil, err
	}
	return state, records, nil
}

func read(ctx context.Context, log Log, run string, each func(record, string)) (*failover.State, tail, error) {
	numbers, err := log.RunNumbers(ctx, run)
	if err != nil {
		return nil, tail{}, fmt.Errorf("read journal of %s: %w", run, err)
	}
	if len(numbers) == 0 {
		return nil, tail{}, fmt.Errorf("read journal of %s: %w", run, vault.ErrNotFound)
	}
	state, last := failover.NewState(), tail{}
	fetch, stop := ahead(ctx, log, run, numbers)
	defer stop()
	for i, n := range numbers {
		if n != int64(i)+1 {
			return nil, last, fmt.Errorf("read journal of %s: %w: record %d is missing", run, vault.ErrDamaged, i+1)
		}
		data, err := fetch()
		if err != nil {
			return nil, last, fmt.Errorf("read journal of %s: record %d: %w", run, n, err)
		}
		r, next, err := last.follow(state, run, data)
		if err != nil {
			return nil, last, fmt.Errorf("read journal of %s: record %d: %w", run, n, err)
		}
		if last = next; each != nil {
			each(r, last.hash)
		}
	}
	return state, last, nil
}

// follow checks that a record follows the tail, and adds it to the state.
func (t tail) follow(state *failover.State, run string, data []byte) (record, tail, error) {
	r, err := parse(data)
	if err != nil {
		return r, t, err
	}
	if err := t.fits(run, r); err != nil {
		return r, t, fmt.Errorf("%w: %w", vault.ErrDamaged, err)
	}
	if err := state.Replay(r.Sequence, r.Entries); err != nil {
		return r, t, fmt.Errorf("%w: %w", vault.ErrDamaged, err)
	}
	if state.Spec.Run != run {
		return r, t, fmt.Errorf("%w: it opens the run %q", vault.ErrDamaged, state.Spec.Run)
	}
	return r, tail{sequence: r.Sequence, epoch: r.Epoch, executor: r.Executor, hash: hash(data)}, nil
}

func (t tail) fits(run string, r record) error {
	switch {
	case r.Run != run || r.Sequence != t.sequence+1:
		return fmt.Errorf("it is record %d of run %q", r.Sequence, r.Run)
	case r.Previous != t.hash:
		return errors.New("it does not follow the record before it")
	case r.Epoch == t.epoch && t.sequence > 0:
		if r.Executor != t.executor {
			return fmt.Errorf("%s writes under the epoch of %s", r.Executor, t.executor)
		}
		return nil
	case r.Epoch != t.epoch+1:
		return fmt.Errorf("epoch %d follows epoch %d", r.Epoch, t.epoch)
	}
	first := 0
	if r.Sequence == 1 {
		first = 1
	}
	if len(r.Entries) <= first || r.Entries[first].Kind != failover.Took || r.Entries[first].By != r.Executor {
		return fmt.Errorf("epoch %d does not begin with a take-over by %s", r.Epoch, r.Executor)
	}
	return nil
}

func parse(data []byte) (record, error) {
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("%w: %w", vault.ErrDamaged, err)
	}
	switch {
	case r.FormatVersion > formatVersion:
		return r, fmt.Errorf("journal format %d, this davit reads %d: %w", r.FormatVersion, formatVersion, ErrNewer)
	case r.FormatVersion != formatVersion || r.Executor == "" || r.Epoch < 1 || len(r.Entries) == 0:
		return r, fmt.Errorf("%w: it is no record of a journal", vault.ErrDamaged)
	}
	return r, nil
}

func hash(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Age is how long ago a record was put, by the vault's clock: executors do not
// compare their own.
func (j *Journal) Age(ctx context.Context, record int64) (time.Duration, error) {
	age, err := j.log.RunAge(ctx, j.run, record)
	if err != nil {
		return 0, fmt.Errorf("look at the journal of %s: %w", j.run, err)
	}
	return age, nil
}

// Append writes the next record. ErrDeposed says that another executor carries
// the run: this one starts nothing any more. With any other error nobody knows
// whether the record is there: append the same entries again, after a while,
// and nothing else.
func (j *Journal) Append(ctx context.Context, entries []failover.Entry) error {
	if j.deposed {
		return fmt.Errorf("append to journal of %s: %w", j.run, ErrDeposed)
	}
	n := j.tail.sequence + 1
	r := record{FormatVersion: formatVersion, Run: j.run, Sequence: n, Previous: j.tail.hash, Epoch: j.tail.epoch, Executor: j.executor, Entries: entries}
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("append to journal of %s: %w", j.run, err)
	}
	if j.wanted != nil && !bytes.Equal(j.wanted, data) {
		return fmt.Errorf("append to journal of %s: record %d has no answer yet and cannot be another", j.run, n)
	}
	j.wanted = data
	err = j.log.WriteRun(ctx, j.run, n, data)
	if errors.Is(err, vault.ErrExists) {
		err = j.compare(ctx, n, data)
	}
	if err != nil {
		return fmt.Errorf("append to journal of %s: record %d: %w", j.run, n, err)
	}
	j.wanted = nil
	j.tail.sequence, j.tail.hash = n, hash(data)
	return nil
}

// compare tells whether the record that is there is this executor's own.
func (j *Journal) compare(ctx context.Context, n int64, data []byte) error {
	there, err := j.log.ReadRun(ctx, j.run, n)
	if err != nil {
		return err
	}
	if !bytes.Equal(there, data) {
		j.deposed = true
		return ErrDeposed
	}
	return nil
}

// Reader follows the journal of a run that somebody else carries.
type Reader struct {
	log   Log
	run   string
	state *failover.State
	last  tail
	// caught says that it has read all that was there when it was first asked.
	caught bool
}

// Follow returns a reader that has read nothing yet.
func Follow(log Log, run string) *Reader {
	return &Reader{log: log, run: run, state: failover.NewState()}
}

// Next reads what was written since, and returns what the journal says now. The
// state is the reader's own: it is good until Next is called again. A run that
// has no record yet is vault.ErrNotFound.
func (r *Reader) Next(ctx context.Context) (*failover.State, error) {
	if !r.caught {
		if err := r.catchUp(ctx); err != nil {
			return nil, err
		}
	}
	for {
		n := r.last.sequence + 1
		data, err := r.log.ReadRun(ctx, r.run, n)
		if errors.Is(err, vault.ErrNotFound) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("follow journal of %s: record %d: %w", r.run, n, err)
		}
		if err := r.add(n, data); err != nil {
			return nil, err
		}
	}
	if r.last.sequence == 0 {
		return nil, fmt.Errorf("follow journal of %s: %w", r.run, vault.ErrNotFound)
	}
	return r.state, nil
}

func (r *Reader) add(n int64, data []byte) (err error) {
	if _, r.last, err = r.last.follow(r.state, r.run, data); err != nil {
		return fmt.Errorf("follow journal of %s: record %d: %w", r.run, n, err)
	}
	return nil
}

// catchUp reads what is there. If its time is over, the next goes on from where it came to.
func (r *Reader) catchUp(ctx context.Context) error {
	numbers, err := r.log.RunNumbers(ctx, r.run)
	if err != nil {
		return fmt.Errorf("follow journal of %s: %w", r.run, err)
	}
	numbers = slices.DeleteFunc(numbers, func(n int64) bool { return n <= r.last.sequence })
	fetch, stop := ahead(ctx, r.log, r.run, numbers)
	defer stop()
	for _, n := range numbers {
		data, err := fetch()
		if err != nil {
			return fmt.Errorf("follow journal of %s: record %d: %w", r.run, n, err)
		}
		if err := r.add(n, data); err != nil {
			return err
		}
	}
	r.caught = true
	return nil
}
