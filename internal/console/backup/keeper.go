package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/vault"
)

// CheckEvery is how often the newest backup of each database is brought back
// into a scratch directory.
const CheckEvery = 24 * time.Hour

// State is what is known of the backups of one database.
type State struct {
	// Project is empty for the console's own database.
	Project string
	ID      string
	// Number and At are of the newest backup, by this console or before it
	// started; zero: none is known.
	Number int64
	At     time.Time
	Size   int64
	// Fault is why the newest attempt failed; empty: it did not.
	Fault string
	// Checked is when a backup was last brought back as it should; Records is
	// what its audit log holds.
	Checked       time.Time
	CheckedNumber int64
	Records       int64
	CheckFault    string
	tried         time.Time // to check
}

// Name is the database's name for people.
func (s State) Name() string {
	if s.Project == "" {
		return "the console"
	}
	return "project " + s.Project
}

// Keeper backs a console up from time to time.
type Keeper struct {
	Console *store.Console
	Store   fleet.OpenStore
	Every   time.Duration
	// Limit is how long the backup of one database may take.
	Limit time.Duration
	// Confirm, if given, says before a backup begins to count that this is the
	// console that may write it.
	Confirm func(ctx context.Context) error
	// Trim, if given, removes what is not needed since there is a backup.
	Trim func(ctx context.Context, s Shelf, database string) error
	Now  func() time.Time
	Log  *slog.Logger

	mu     sync.Mutex
	states map[string]*State // by project id; "" is the console
	wanted []chan struct{}   // of those who asked for backups; closed when they are taken
	listed int               // how many projects the console's newest backup has
	seen   int               // how many it could have had at the last look; of Run alone
	// Of Run alone: how many there were when the way of one was missing, and for how
	// many glances more it is not looked for.
	without, rest, pause int
	// forced has the round that goes on take and check all, also of Run alone.
	forced bool
}

// States are those of all databases, the console's first.
func (k *Keeper) States() []State {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make([]State, 0, len(k.states))
	for _, s := range k.states {
		all = append(all, *s)
	}
	slices.SortFunc(all, func(a, b State) int {
		if (a.Project == "") != (b.Project == "") {
			if a.Project == "" {
				return -1
			}
			return 1
		}
		return bytes.Compare([]byte(a.Project), []byte(b.Project))
	})
	return all
}

// glance is how often it is looked whether there is a new project: until the
// console's backup names one and has its database, its journal has nothing to
// follow, and a console that is lost takes the project with it.
const glance = time.Second

// Run backs up until the context ends.
func (k *Keeper) Run(ctx context.Context, look time.Duration) {
	ticker, glances := time.NewTicker(look), time.NewTicker(glance)
	defer ticker.Stop()
	defer glances.Stop()
	for {
		k.oblige(ctx)
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				waiting = false
			case <-glances.C:
				waiting = !k.news(ctx) && !k.asked()
			}
		}
	}
}

// Take has all databases backed up, and each backup brought back, at the next glance
// of Run. What it returns is closed when that was tried: States say how it went.
func (k *Keeper) Take() (<-chan struct{}, error) {
	if k.Every <= 0 {
		return nil, fmt.Errorf("%w: this console takes no backups: it is served with --backup-every 0", store.ErrRefused)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	taken := make(chan struct{})
	k.wanted = append(k.wanted, taken)
	return taken, nil
}

func (k *Keeper) asked() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.wanted) > 0
}

// oblige is a round, of all that there is if somebody asked for that.
func (k *Keeper) oblige(ctx context.Context) {
	k.mu.Lock()
	wanted := k.wanted
	k.wanted = nil
	k.mu.Unlock()
	k.forced = len(wanted) > 0
	k.Round(ctx)
	k.forced = false
	if ctx.Err() != nil { // it was cut short
		return
	}
	for _, taken := range wanted {
		close(taken)
	}
}

// longestPause is how many glances pass, at the most, until it is looked again for
// the way of a project that has none that can be read.
const longestPause = 60

// news says whether there are more projects than the last round could keep. One
// that has no way into its vault, be it for a moment or for good, is looked at less
// and less often, until another is added.
func (k *Keeper) news(ctx context.Context) bool {
	all, err := k.Console.Projects(ctx)
	if err != nil {
		return false // the next round says it
	}
	// Some may have been removed: the next one that is added is news.
	if k.seen, k.listed = min(k.seen, len(all)), min(k.listed, len(all)); len(all) <= k.seen {
		return false
	}
	if len(all) != k.without {
		k.without, k.rest, k.pause = len(all), 0, 0
	}
	if k.rest > 0 {
		k.rest--
		return false
	}
	ways, _ := k.bound(ctx, all)
	k.pause = min(2*k.pause+1, longestPause)
	k.rest = k.pause
	return len(ways) > k.seen
}

// Round backs up and checks what is due. One database that cannot be backed up
// keeps no other from it.
func (k *Keeper) Round(ctx context.Context) {
	all, err := k.Console.Projects(ctx)
	if err != nil {
		if ctx.Err() == nil {
			k.Log.Error("projects cannot be listed for their backup", "err", err)
		}
		return
	}
	slices.SortStableFunc(all, func(a, b store.Listing) int { return a.Created.Compare(b.Created) })
	ways, _ := k.bound(ctx, all)
	k.seen = len(ways)
	k.forget(all)
	for i, l := range all {
		k.database(ctx, l, false, all)
		if i == 0 {
			k.database(ctx, l, true, all)
		}
	}
}

// forget forgets projects that were removed.
func (k *Keeper) forget(all []store.Listing) {
	k.mu.Lock()
	defer k.mu.Unlock()
	maps.DeleteFunc(k.states, func(id string, _ *State) bool {
		return id != "" && !slices.ContainsFunc(all, func(l store.Listing) bool { return l.ID == id })
	})
}

// database backs one database up, and checks it, if that is due. The console's
// own is kept in its home.
func (k *Keeper) database(ctx context.Context, l store.Listing, own bool, all []store.Listing) {
	id, name := l.ID, l.Name
	if own {
		id, name = "", ""
	}
	s := k.state(id, name)
	now := k.Now()
	due, check := k.forced || k.due(s.At, k.Every, now) || s.Fault != "" || own && k.listed < k.seen, k.forced || k.due(s.tried, CheckEvery, now)
	if !due && !check {
		return
	}
	limited, cancel := context.WithTimeoutCause(ctx, k.Limit, fmt.Errorf("the vault did not take it within %s", k.Limit))
	defer cancel()
	job, err := k.open(limited, l, own)
	if err == nil && s.Number == 0 {
		due, err = k.recall(limited, job, &s, now)
		due = due || k.forced || own && k.listed < k.seen
	}
	if err == nil && due {
		err = k.write(limited, job, &s, all)
	}
	if err != nil && ctx.Err() != nil { // the console ends
		return
	}
	s.Fault = k.fault(limited, "a backup of the console failed", s, err)
	if err == nil && (check || k.due(s.tried, CheckEvery, now) || job.Authority.Planted != nil) {
		s.tried = now
		if s.CheckFault = k.fault(limited, "a backup of the console cannot be brought back", s, k.check(limited, job, &s)); ctx.Err() != nil {
			return
		}
		if s.CheckFault != "" { // again with the next backup
			s.tried = time.Time{}
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.states[id] = &s
}

func (k *Keeper) fault(ctx context.Context, what string, s State, err error) string {
	if err == nil {
		return ""
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	k.Log.Error(what, "database", s.Name(), "err", err)
	return err.Error()
}

func (k *Keeper) due(last time.Time, every time.Duration, now time.Time) bool {
	return last.IsZero() || now.Sub(last) >= every || last.Sub(now) > every // a clock that went back
}

func (k *Keeper) state(id, project string) State {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.states == nil {
		k.states = map[string]*State{}
	}
	if k.states[id] == nil {
		k.states[id] = &State{Project: project, ID: id}
	}
	return *k.states[id]
}

// job is one database to be kept.
type job struct {
	Shelf
	database string
	source   store.Journaled
	listing  store.Listing
}

func (k *Keeper) open(ctx context.Context, l store.Listing, own bool) (job, error) {
	j := job{listing: l, database: ProjectDatabase}
	p, err := k.Console.Project(ctx, l.Name)
	if err != nil {
		return j, err
	}
	j.source = p
	if own {
		j.source, j.database = k.Console, ConsoleDatabase
	}
	var b fleet.Binding
	if err := p.Secret(ctx, fleet.BindingSecret, &b); err != nil {
		return j, fmt.Errorf("find the way into its vault: %w", err)
	}
	project, identity, err := b.Project(ctx, k.Store)
	if err != nil {
		return j, err
	}
	// From the vault, not from the console's own file: what is checked is what a
	// spare would find.
	known := new(authority.Authority)
	if p.Secret(ctx, authority.Secret, known) != nil {
		known = nil
	}
	a, err := authority.ReadOn(ctx, project, identity, known)
	j.Shelf = Shelf{Project: project, Authority: a, Console: k.Console.ID()}
	return j, err
}

// recall finds out what there is from before the console started.
func (k *Keeper) recall(ctx context.Context, j job, s *State, now time.Time) (due bool, err error) {
	entries, err := j.List(ctx, j.database)
	if err != nil || len(entries) == 0 {
		return true, err
	}
	newest := entries[len(entries)-1]
	s.Number, s.At = newest.Number, newest.At
	d, err := j.Document(ctx, j.database, s.Number)
	if err != nil { // as good as none
		k.Log.Warn("the newest backup of the console cannot be read", "database", s.Name(), "err", err)
	}
	if j.database == ConsoleDatabase {
		k.listed = len(d.Projects)
	}
	return err != nil || d.Journal == nil || k.due(s.At, k.Every, now), nil
}

func (k *Keeper) write(ctx context.Context, j job, s *State, all []store.Listing) error {
	err := k.point(ctx, j)
	if err != nil {
		return err
	}
	d := Document{Database: j.database, At: k.Now()}
	if j.database == ConsoleDatabase {
		var missing map[string]error
		d.Key = k.Console.Key()
		d.Projects, missing = k.bound(ctx, all)
		if d.Projects, err = k.carry(ctx, j, d.Projects, all, missing); err != nil {
			return err
		}
	} else {
		d.ID, d.Name, d.Created = j.listing.ID, j.listing.Name, j.listing.Created
	}
	if d, err = j.keep(ctx, k.Console.Dir(), "scratch-", j.source, d, k.Confirm); err != nil {
		return err
	}
	s.Number, s.At, s.Size = d.Number, d.At, d.Size
	if j.database == ConsoleDatabase { // it says where the others are
		k.listed = len(d.Projects)
	}
	if k.Trim != nil {
		if err := k.Trim(ctx, j.Shelf, j.database); err != nil {
			return err
		}
	}
	return k.prune(ctx, j)
}

// keep keeps a database, as it is at one instant.
func (s Shelf) keep(ctx context.Context, dir, scratch string, db store.Journaled, d Document, confirm func(ctx context.Context) error) (Document, error) {
	err := Scratch(dir, scratch, func(dir string) (err error) {
		path := filepath.Join(dir, "snapshot.db")
		if err := db.Snapshot(ctx, path); err != nil {
			return err
		}
		if err := describe(ctx, &d, path); err != nil {
			return err
		}
		d, err = s.Write(ctx, path, d, confirm)
		return err
	})
	return d, err
}

// Begin keeps the database of a project that is none of the console's in dir yet.
func (s Shelf) Begin(ctx context.Context, dir string, l store.Listing, db store.Journaled, at time.Time, confirm func(ctx context.Context) error) error {
	_, err := s.keep(ctx, dir, "first-", db, Document{Database: ProjectDatabase, At: at, ID: l.ID, Name: l.Name, Created: l.Created}, confirm)
	return err
}

// describe reads the whole audit log of a snapshot, for one that is broken is not
// kept, and up to where it has its journal.
func describe(ctx context.Context, d *Document, path string) (err error) {
	db, err := store.OpenAlone(ctx, path, d.Database == ConsoleDatabase)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	tail, err := db.VerifyAudit(ctx)
	if err != nil {
		return err
	}
	at, err := db.Position(ctx)
	d.Audit, d.Journal = Tail{Sequence: tail.Sequence, Hash: tail.Hash}, &at.Number
	return err
}

// point notes which project is the console's home, for whoever has the vault's
// address alone.
func (k *Keeper) point(ctx context.Context, j job) error {
	if j.database != ConsoleDatabase {
		return nil
	}
	text := []byte("{}\n")
	err := j.Project.Store().PutIfAbsent(ctx, homes+j.Console+"/"+j.Project.Name(), bytes.NewReader(text), int64(len(text)))
	if err != nil && !errors.Is(err, vault.ErrExists) {
		return fmt.Errorf("note the console's home: %w", err)
	}
	return nil
}

// bound are the ways into the projects' vaults. One that cannot be read now is
// missing: it is restored by itself, with the recovery key.
func (k *Keeper) bound(ctx context.Context, all []store.Listing) (out []Bound, missing map[string]error) {
	missing = map[string]error{}
	for _, l := range all {
		b := Bound{ID: l.ID, Name: l.Name, Created: l.Created}
		p, err := k.Console.Project(ctx, l.Name)
		if err == nil {
			err = p.Secret(ctx, fleet.BindingSecret, &b.Binding)
		}
		if err != nil {
			missing[l.Name] = err
			continue
		}
		out = append(out, b)
	}
	return out, missing
}

// carry adds the ways that cannot be read now from the newest backup that has
// them: else it would be forgotten there, too, where the project's vault is.
func (k *Keeper) carry(ctx context.Context, j job, ways []Bound, all []store.Listing, missing map[string]error) ([]Bound, error) {
	if len(missing) == 0 {
		return ways, nil
	}
	entries, err := j.List(ctx, j.database)
	if err != nil {
		return nil, err
	}
	for _, e := range slices.Backward(entries) {
		if len(missing) == 0 {
			break
		}
		d, err := j.Document(ctx, j.database, e.Number)
		if errors.Is(err, vault.ErrDamaged) || errors.Is(err, vault.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, b := range d.Projects {
			listed := slices.ContainsFunc(all, func(l store.Listing) bool { return l.ID == b.ID })
			if _, gone := missing[b.Name]; gone && listed {
				ways = append(ways, b)
				delete(missing, b.Name)
			}
		}
	}
	for name, err := range missing {
		k.Log.Warn("the way into a project's vault is not in the console's backup", "project", name, "err", err)
	}
	return ways, nil
}

func (k *Keeper) prune(ctx context.Context, j job) error {
	now, err := j.Project.Clock(ctx)
	if err != nil {
		return fmt.Errorf("ask the vault for its time: %w", err)
	}
	return j.Prune(ctx, j.database, now)
}

// check brings the newest backup back into a scratch directory.
func (k *Keeper) check(ctx context.Context, j job, s *State) error {
	return Scratch(k.Console.Dir(), "scratch-", func(dir string) error {
		// This console alone goes on without it. Nothing is read for that: it is so at each
		// look, for as long as a site likes.
		if planted := j.Authority.Planted; planted != nil {
			return fmt.Errorf("a console on a bare machine would not be brought back: %w", planted)
		}
		d, err := j.Read(ctx, j.database, s.Number, filepath.Join(dir, "check.db"))
		if err != nil {
			return err
		}
		s.Checked, s.CheckedNumber, s.Records, s.Size = k.Now(), d.Number, d.Audit.Sequence, d.Size
		return nil
	})
}

// Scratch runs fn with a directory of its own, which is gone afterwards. Those
// of the name that a process left behind which was killed are taken away too.
func Scratch(dir, name string, fn func(dir string) error) error {
	old, err := filepath.Glob(filepath.Join(dir, name+"*"))
	if err != nil {
		return err
	}
	for _, path := range old { // one process serves a directory, one backup at a time
		err = errors.Join(err, os.RemoveAll(path))
	}
	if err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	path, err := os.MkdirTemp(dir, name)
	if err != nil {
		return fmt.Errorf("make room for a copy: %w", err)
	}
	return errors.Join(fn(path), os.RemoveAll(path))
}
