package console

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/console/backup"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/journal"
	"davit.dev/davit/internal/console/lead"
	"davit.dev/davit/internal/console/past"
	"davit.dev/davit/internal/console/project"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/console/store/directory"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
)

// Errors of a restore, wrapped, by which callers decide.
var (
	// ErrThere says that something would be overwritten.
	ErrThere = errors.New("it is there already")
	// ErrWhich says that the vault has several consoles.
	ErrWhich = errors.New("the vault keeps several consoles")
)

// Restore says what is to be brought back, from where and to where.
type Restore struct {
	Dir string
	// Only is the one project to be brought back; empty: all.
	Only string
	// Console is the id of the console; empty: the only one that the vault has.
	Console string
	// Replace has what is there put aside.
	Replace bool
	// At, if it is not zero, has what people defined go back to what it was then.
	At time.Time
	// Dry says what would go back, and changes nothing.
	Dry bool
	// Join makes the directory a second one of a console that goes on elsewhere: its
	// audit logs say nothing of it, and it begins as the passive one.
	Join bool

	Config   backend.Config
	Vault    vault.Store // of the configuration
	Recovery vault.Identity
	Open     fleet.OpenStore
	Act      audit.Act

	patience time.Duration // for a sign of life of an active console, in tests; 0: lead.Patience
}

// Restored is what became of one database.
type Restored struct {
	Database string    `json:"database"` // "console", or "project NAME"
	Number   int64     `json:"number,omitempty"`
	At       time.Time `json:"at,omitzero"`
	Records  int64     `json:"auditRecords,omitempty"`
	Passed   []string  `json:"damaged,omitempty"` // newer backups that are damaged
	// Followed is how many records of the journal came after the backup.
	Followed int `json:"journalRecords,omitempty"`
	// Lost says why what was changed after the last of them is lost; empty: nothing is.
	Lost  string `json:"lost,omitempty"`
	Fault string `json:"fault,omitempty"`
	// Back is what it went back to, if that was asked for.
	Back *past.WentBack `json:"wentBack,omitempty"`
}

// Restoration is what a restore did.
type Restoration struct {
	Console   string     `json:"console"`
	Dir       string     `json:"data"`
	Aside     string     `json:"aside,omitempty"` // where what was there is now
	Dry       bool       `json:"dryRun,omitempty"`
	Databases []Restored `json:"databases"`
}

// Whole tells whether all came back.
func (r Restoration) Whole() bool {
	for _, d := range r.Databases {
		if d.Fault != "" {
			return false
		}
	}
	return true
}

func (r *Restoration) add(name string, d journal.Copy, err error) {
	one := Restored{Database: name, Number: d.Number, At: d.At, Records: d.Audit.Sequence, Followed: d.Records}
	if d.Lost != nil {
		one.Lost = d.Lost.Error()
	}
	for _, e := range d.Passed {
		one.Passed = append(one.Passed, e.Error())
	}
	if err != nil {
		one = Restored{Database: name, Passed: one.Passed, Fault: err.Error()}
	}
	r.Databases = append(r.Databases, one)
}

// Run brings a console back. Into a directory that holds the console, a single
// project is put; else the console is made there, with all projects or the one.
func (o Restore) Run(ctx context.Context) (*Restoration, error) {
	held, err := directory.Holds(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("restore console: %w", err)
	}
	if o.At.After(o.Act.At) {
		return nil, fmt.Errorf("restore console: %w: %s is in the future", store.ErrRefused, o.At.UTC().Format(time.RFC3339))
	}
	if held && !o.Dry {
		release, err := lock(o.Dir)
		if err != nil {
			return nil, err
		}
		defer release()
	}
	if held && o.Only != "" {
		return o.project(ctx)
	}
	if held && !o.Replace && !o.Dry {
		return nil, fmt.Errorf("restore console: %w: %s holds one", ErrThere, o.Dir)
	}
	return o.console(ctx)
}

// stamp names what is put aside.
func (o Restore) stamp() string { return o.Act.At.UTC().Format("20060102T150405.000Z") }

// home finds the console in the vault.
func (o Restore) home(ctx context.Context) (backup.Home, error) {
	all, err := backup.Homes(ctx, o.Vault)
	if err != nil {
		return backup.Home{}, err
	}
	var fit []backup.Home
	for _, h := range all {
		if o.Console == "" || h.Console == o.Console {
			fit = append(fit, h)
		}
	}
	switch len(fit) {
	case 0:
		return backup.Home{}, fmt.Errorf("restore console: %w in %s", backup.ErrNone, o.Vault)
	case 1:
		return fit[0], nil
	}
	text := ""
	for _, h := range fit {
		text += fmt.Sprintf(" %s (in project %s)", h.Console, h.Project)
	}
	return backup.Home{}, fmt.Errorf("restore console: %w:%s", ErrWhich, text)
}

func (o Restore) shelf(ctx context.Context, h backup.Home) (backup.Shelf, error) {
	p, err := vault.OpenProject(ctx, o.Vault, h.Project, o.Recovery)
	if err != nil {
		return backup.Shelf{}, err
	}
	a, err := authority.Read(ctx, p, o.Recovery)
	return backup.Shelf{Project: p, Authority: a, Console: h.Console}, err
}

// console makes the console beside what is there, and puts it in place at the
// end: whatever breaks off before leaves what is there.
func (o Restore) console(ctx context.Context) (*Restoration, error) {
	h, err := o.home(ctx)
	if err != nil {
		return nil, err
	}
	shelf, err := o.shelf(ctx, h)
	if err != nil {
		return nil, err
	}
	if err := o.alone(ctx, lead.InVault{Project: shelf.Project, Authority: shelf.Authority, Console: shelf.Console}); err != nil {
		return nil, err
	}
	fresh := filepath.Join(o.Dir, "restoring")
	if err := errors.Join(os.RemoveAll(fresh), directory.Prepare(fresh)); err != nil {
		return nil, fmt.Errorf("restore console: %w", err)
	}
	r, err := o.fill(ctx, h, shelf, fresh)
	if err != nil || o.Dry {
		return r, errors.Join(err, os.RemoveAll(fresh))
	}
	if !o.Join {
		if err := o.finish(ctx, fresh, r, shelf.Project.Name()); err != nil {
			return nil, err
		}
	}
	if o.Join { // before it is a console: one that broke off here is served as one that follows
		if err := markPassive(o.Dir, true); err != nil {
			return nil, err
		}
	}
	if r.Aside, err = o.place(fresh); err == nil && !o.Join {
		err = markPassive(o.Dir, false)
	}
	return r, err
}

// fill brings all databases back into a directory, and has them go back if that is asked for.
func (o Restore) fill(ctx context.Context, h backup.Home, shelf backup.Shelf, fresh string) (_ *Restoration, err error) {
	before, back := o.bygone(), !o.At.IsZero()
	if back {
		if err := before.Open(filepath.Join(fresh, "before")); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, before.Close()) }()
	}
	r := &Restoration{Console: h.Console, Dir: o.Dir, Dry: o.Dry}
	d, err := newest(ctx, shelf, backup.ConsoleDatabase, directory.Console(fresh))
	if err != nil {
		return nil, err
	}
	r.add("console", d, nil)
	if back && o.Only == "" {
		if r.Databases[0].Back, err = before.Fetch(ctx, shelf, d); err != nil {
			return nil, err
		}
	}
	if err := directory.WriteKey(fresh, d.Key); err != nil {
		return nil, err
	}
	ways, err := bounds(ctx, fresh, d.Projects)
	if err != nil {
		return nil, err
	}
	for _, b := range ways {
		if o.Only != "" && b.Name != o.Only {
			continue
		}
		if b.err != nil {
			r.add("project "+b.Name, journal.Copy{}, b.err)
			continue
		}
		s, d, err := o.fetch(ctx, b.Bound, shelf, directory.Project(fresh, b.ID))
		r.add("project "+b.Name, d, err)
		if err != nil || !back {
			continue
		}
		if r.Databases[len(r.Databases)-1].Back, err = before.Fetch(ctx, s, d); err != nil {
			return nil, fmt.Errorf("restore project %s: %w", b.Name, err)
		}
	}
	if len(r.Databases) == 1 && o.Only != "" {
		return nil, fmt.Errorf("restore project %s: %w: the console had none of that name", o.Only, backup.ErrNone)
	}
	return r, r.goBack(ctx, before, fresh)
}

// way is that to a project of a console, or why there is none.
type way struct {
	backup.Bound
	err error
}

// bounds are the ways to the projects that the console in a directory has: as its backup
// says, and to those that were made since as the console noted them. Those that were removed
// since are none.
func bounds(ctx context.Context, dir string, kept []backup.Bound) (all []way, err error) {
	c, err := store.Open(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	listed, err := c.Projects(ctx)
	for _, l := range listed {
		i := slices.IndexFunc(kept, func(b backup.Bound) bool { return b.ID == l.ID })
		if i >= 0 {
			all = append(all, way{Bound: kept[i]})
			continue
		}
		b, err := project.Bound(ctx, c, l)
		if err != nil {
			b.Name, err = l.Name, fmt.Errorf("no backup of the console names its vault: %w", err)
		}
		all = append(all, way{b, err})
	}
	return all, err
}

// fetch brings one project back, from its own vault.
func (o Restore) fetch(ctx context.Context, b backup.Bound, home backup.Shelf, path string) (s backup.Shelf, c journal.Copy, err error) {
	if s, err = o.shelfOf(ctx, b, home); err == nil {
		c, err = newest(ctx, s, backup.ProjectDatabase, path)
	}
	return s, c, err
}

// shelfOf is where a project's backups are, by the way that the console's backup has.
func (o Restore) shelfOf(ctx context.Context, b backup.Bound, home backup.Shelf) (backup.Shelf, error) {
	if b.Name == home.Project.Name() {
		return home, nil
	}
	p, identity, err := o.bind(b.Binding).Project(ctx, o.Open)
	if err != nil {
		return backup.Shelf{}, err
	}
	a, err := authority.Read(ctx, p, identity)
	return backup.Shelf{Project: p, Authority: a, Console: home.Console}, err
}

// newest brings a database back. If the end of its journal is lost, it goes on
// after it: someone asked for what there is.
func newest(ctx context.Context, s backup.Shelf, database, path string) (c journal.Copy, err error) {
	b := journal.Book{Shelf: s, Database: database}
	if c, err = b.Newest(ctx, path); err != nil || c.Lost == nil {
		return c, err
	}
	db, err := store.OpenAlone(ctx, path, database == backup.ConsoleDatabase)
	if err != nil {
		return c, err
	}
	return c, errors.Join(b.Skip(ctx, db), db.Close())
}

// bind is a way into a vault with today's credentials, where they are of the
// vault that was named.
func (o Restore) bind(b fleet.Binding) fleet.Binding {
	if b.URL == o.Config.URL {
		b.AccessKey, b.SecretKey, b.SessionToken, b.CA = o.Config.AccessKey, o.Config.SecretKey, o.Config.SessionToken, o.Config.CA
	}
	return b
}

// finish notes the restore in every audit log, and has the home, whose vault
// may have moved since, go by the address that was given.
func (o Restore) finish(ctx context.Context, dir string, r *Restoration, home string) (err error) {
	c, err := store.Open(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	for i, d := range r.Databases {
		if d.Fault != "" {
			continue
		}
		record := audit.Record{Action: "restore", Object: d.Database, Detail: fmt.Sprintf("from backup %d of %s", d.Number, d.At.Format(time.RFC3339))}
		if i == 0 {
			err = c.Note(ctx, o.Act, record)
		} else {
			err = o.finishProject(ctx, c, d.Database[len("project "):], home, record)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (o Restore) finishProject(ctx context.Context, c *store.Console, name, home string, record audit.Record) error {
	p, err := c.Project(ctx, name)
	if err != nil {
		return err
	}
	if err := errors.Join(p.Leap(ctx), p.Note(ctx, o.Act, record)); err != nil {
		return err
	}
	var b fleet.Binding
	if err := p.Secret(ctx, fleet.BindingSecret, &b); err != nil {
		return err
	}
	if name == home {
		b.URL = o.Config.URL
	}
	if b.URL != o.Config.URL {
		return nil
	}
	return p.KeepSecret(ctx, o.Act, fleet.BindingSecret, o.bind(b))
}

// place puts what was there aside and the restored console where it was. The
// key goes first and comes last: what has none is no console.
func (o Restore) place(fresh string) (aside string, err error) {
	for _, name := range directory.Moved() {
		old := filepath.Join(o.Dir, name)
		if _, err := os.Lstat(old); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if aside == "" {
			aside = filepath.Join(o.Dir, "before-"+o.stamp())
			if err := os.Mkdir(aside, 0o700); err != nil {
				return "", fmt.Errorf("put the old console aside: %w", err)
			}
		}
		if err := os.Rename(old, filepath.Join(aside, name)); err != nil {
			return aside, fmt.Errorf("put the old console aside: %w", err)
		}
	}
	names := directory.Moved()
	for i := range names {
		name := names[len(names)-1-i]
		err := os.Rename(filepath.Join(fresh, name), filepath.Join(o.Dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return aside, fmt.Errorf("put the restored console in place: %w", err)
		}
	}
	return aside, os.RemoveAll(fresh)
}

// project brings one project back into a console that is there.
func (o Restore) project(ctx context.Context) (r *Restoration, err error) {
	c, err := store.Open(ctx, o.Dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	l, err := listing(ctx, c, o.Only)
	if err != nil {
		return nil, err
	}
	if l.Standing == store.Removed && !o.At.IsZero() {
		return nil, fmt.Errorf("restore project %s: %w: it was removed: bring it back as it was then, and let it go back after that", o.Only, store.ErrRefused)
	}
	path := directory.Project(o.Dir, l.ID)
	if _, err := os.Lstat(path); err == nil && !o.Replace && !o.Dry {
		return nil, fmt.Errorf("restore project %s: %w: %s", o.Only, ErrThere, path)
	}
	if err := o.alone(ctx, o.ledgerOf(c)); err != nil {
		return nil, err
	}
	shelf, err := o.shelf(ctx, backup.Home{Console: c.ID(), Project: o.Only})
	if err != nil {
		return nil, err
	}
	fresh := path + ".restoring"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("restore project %s: %w", o.Only, err)
	}
	d, r, err := o.renewed(ctx, c, shelf, l.ID, fresh)
	if err != nil {
		return nil, err
	}
	if o.Dry {
		return r, nil
	}
	if r.Aside, err = o.swap(path, fresh); err != nil {
		return r, err
	}
	record := audit.Record{Action: "restore", Object: "project " + o.Only, Detail: fmt.Sprintf("from backup %d of %s", d.Number, d.At.Format(time.RFC3339))}
	if l.Standing == store.Removed {
		err = c.Stand(ctx, o.Act, l, record, store.Served, nil, store.Removed)
	} else {
		err = c.Note(ctx, o.Act, record)
	}
	return r, errors.Join(err, o.finishProject(ctx, c, o.Only, o.Only, record))
}

// listing is of a project that the console has, or had before it was removed.
func listing(ctx context.Context, c *store.Console, name string) (store.Listing, error) {
	all, err := c.EveryProject(ctx)
	if err != nil {
		return store.Listing{}, err
	}
	for _, l := range all {
		if l.Name == name && l.Standing != store.Making {
			return l, nil
		}
	}
	return store.Listing{}, fmt.Errorf("restore project %s: %w: the console has none of that name", name, backup.ErrNone)
}

// swap puts a database aside, with what SQLite keeps beside it, and another in
// its place.
func (o Restore) swap(path, fresh string) (aside string, err error) {
	for _, tail := range []string{"", "-wal", "-shm"} {
		to := path + ".before-" + o.stamp() + tail
		err := os.Rename(path+tail, to)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return aside, fmt.Errorf("put the old database aside: %w", err)
		}
		if err == nil && tail == "" {
			aside = to
		}
	}
	if err := os.Rename(fresh, path); err != nil {
		return aside, fmt.Errorf("put the restored database in place: %w", err)
	}
	return aside, nil
}
