package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io/fs"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/console/backup"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/home"
	"davit.dev/davit/internal/console/journal"
	"davit.dev/davit/internal/console/lead"
	"davit.dev/davit/internal/console/project"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/console/store/directory"
	"davit.dev/davit/internal/vault/seal"
)

// elsewhere says where the active console is.
func (s *server) elsewhere(w http.ResponseWriter, r *http.Request) {
	reason := "this console has just become the active one: ask again"
	if err := s.duty.allowed(); err != nil {
		reason = err.Error()
	}
	w.Header().Set("Retry-After", "5")
	active := s.active()
	if strings.HasPrefix(r.URL.Path, api.Prefix+"/") {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
		if err := json.NewEncoder(w).Encode(api.Passive(reason, active)); err != nil {
			s.Log.Debug("an answer was not taken", "err", err)
		}
		return
	}
	where := ""
	if active != "" {
		where = fmt.Sprintf(`<p><a href="%s">Go to the active console</a></p>`, html.EscapeString(active))
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; frame-ancestors 'none'")
	w.WriteHeader(http.StatusServiceUnavailable)
	if _, err := fmt.Fprintf(w, "<!doctype html><html lang=en><meta charset=utf-8><title>Davit: passive console</title><h1>Passive console</h1><p>%s</p>%s</html>\n", html.EscapeString(reason), where); err != nil {
		s.Log.Debug("an answer was not taken", "err", err)
	}
}

// active is where the active console is, if that is another and known.
func (s *server) active() string {
	st := s.duty.status()
	to, err := url.Parse(st.URL)
	if st.Role != lead.Passive || st.URL == s.URL || err != nil || to.Scheme != "https" || to.Host == "" {
		return ""
	}
	return to.String()
}

// followEvery is how often a passive console looks for what the active one
// wrote, and gapEvery how many looks later it makes sure that it missed nothing.
const (
	followEvery = time.Second
	gapEvery    = 60
	followLimit = 5 * time.Minute
)

// trail is a passive console that follows the active one.
type trail struct {
	*duty
	stop    func()
	running sync.WaitGroup
	faults  map[string]string

	mu   sync.Mutex
	last time.Time // when it had all
}

func newTrail(d *duty) *trail {
	t := &trail{duty: d, faults: map[string]string{}, last: time.Now()}
	var ctx context.Context
	ctx, t.stop = context.WithCancel(d.base)
	t.running.Go(func() { t.run(ctx) })
	return t
}

func (t *trail) end() {
	t.stop()
	t.running.Wait()
}

// behind is for how long it has not had all.
func (t *trail) behind() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Since(t.last)
}

func (t *trail) run(ctx context.Context) {
	ticker := time.NewTicker(followEvery)
	defer ticker.Stop()
	for n := 0; ; n++ {
		if begun := time.Now(); t.round(ctx, n%gapEvery == 0) {
			t.mu.Lock()
			t.last = begun
			t.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// round follows once, and tells whether it has all. One database that cannot be
// followed keeps no other from it.
func (t *trail) round(ctx context.Context, sure bool) bool {
	ctx, cancel := context.WithTimeout(ctx, followLimit)
	defer cancel()
	whole := t.said(ctx, "", t.database(ctx, nil, t.console, sure))
	all, err := t.console.Projects(ctx)
	whole = t.said(ctx, "list", err) && whole
	for _, l := range all {
		p, err := t.shelves.project(ctx, l)
		if err == nil {
			err = t.database(ctx, p, p, sure)
		}
		whole = t.said(ctx, l.ID, err) && whole
	}
	return t.said(ctx, "removed", t.console.Sweep(ctx)) && whole
}

// said says once what is wrong with a database.
func (t *trail) said(ctx context.Context, id string, err error) bool {
	text := ""
	if err != nil && ctx.Err() == nil {
		text = err.Error()
	}
	if text != "" && text != t.faults[id] {
		t.Log.Warn("the active console cannot be followed", "project", id, "err", err)
	}
	t.faults[id] = text
	return err == nil
}

func (t *trail) database(ctx context.Context, p *store.Project, db store.Journaled, sure bool) error {
	id := ""
	if p != nil {
		id = p.ID
	}
	b, err := t.shelves.book(ctx, p, t.faults[id] != "")
	if err != nil {
		return err
	}
	_, err = journal.CatchUp(ctx, b, db)
	if errors.Is(err, authority.ErrUnread) { // the active console has taken up a newer one
		if b, err = t.shelves.book(ctx, p, true); err != nil {
			return err
		}
		_, err = journal.CatchUp(ctx, b, db)
	}
	if err == nil && (sure || t.faults[id] != "") {
		err = journal.Reached(ctx, b, db)
	}
	if !errors.Is(err, journal.ErrFork) {
		return err
	}
	t.Log.Info("a database does not continue to what the vault holds: it is made that", "project", id, "err", err)
	if err := b.Rebuild(ctx, db, t.Dir); err != nil {
		return err
	}
	_, err = journal.CatchUp(ctx, b, db)
	return err
}

// lost says of an error that a file is not there, or nothing of its own is in it.
func lost(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, store.ErrDamaged) }

// project opens a project. One that is lost here is brought from its vault, which
// holds all of it that was ever acknowledged.
func (s *shelves) project(ctx context.Context, l store.Listing) (*store.Project, error) {
	p, err := s.console.Project(ctx, l.Name)
	if !lost(err) {
		return p, err
	}
	if fetchErr := s.fetch(ctx, l, s.console.Renew); fetchErr != nil {
		return nil, errors.Join(err, fetchErr)
	}
	s.Log.Warn("a project's database was lost here, and was brought from its vault", "project", l.Name, "was", err)
	return s.console.Project(ctx, l.Name)
}

// fetch brings a project's database here, as the newest backup of the console
// says where it is, and places it.
func (s *shelves) fetch(ctx context.Context, l store.Listing, place func(id string, put func(path string) error) error) error {
	at, err := s.book(ctx, nil, false)
	if err != nil {
		return err
	}
	bound, err := bound(ctx, at, l.ID)
	if errors.Is(err, backup.ErrNone) { // it was made a moment before its console was lost
		if made, wayErr := project.Bound(ctx, s.console, l); wayErr == nil {
			bound, err = made, nil
		}
	}
	if err != nil {
		return err
	}
	b, err := unlocked(ctx, bound.Binding, s.Store, s.console.ID(), backup.ProjectDatabase, nil)
	if err != nil {
		return err
	}
	return bring(ctx, b, s.Dir, l.ID, func(fresh string) error {
		// Roles and tokens that ended since the backup would let people read until it has
		// all. What cannot be carried out now is where it stays.
		if err := carryOut(ctx, b, fresh); err != nil {
			s.Log.Warn("a project that was lost here does not have all of its vault yet", "project", l.Name, "err", err)
		}
		return place(l.ID, func(path string) error { return renew(path, fresh) })
	})
}

// carryOut carries out what a database's journal holds, before it is where it stays.
func carryOut(ctx context.Context, b journal.Book, path string) error {
	db, err := store.OpenAlone(ctx, path, b.Database == backup.ConsoleDatabase)
	if err != nil {
		return err
	}
	_, err = journal.CatchUp(ctx, b, db)
	return errors.Join(err, db.Close())
}

// unlocked opens a journal by the way into its vault; known is an authority of the project
// that the console goes by, nil: it has none.
func unlocked(ctx context.Context, way fleet.Binding, open fleet.OpenStore, console, database string, known *authority.Authority) (journal.Book, error) {
	p, identity, err := way.Project(ctx, open)
	if err != nil {
		return journal.Book{}, err
	}
	a, err := authority.ReadOn(ctx, p, identity, known)
	if err != nil {
		return journal.Book{}, err
	}
	return journal.Book{Shelf: backup.Shelf{Project: p, Authority: a, Console: console}, Database: database}, nil
}

// bring has a database of the vault put where it belongs, as a backup has it: its
// journal is carried out where it stays.
func bring(ctx context.Context, b journal.Book, dir, name string, place func(fresh string) error) error {
	return backup.Scratch(dir, "fetch-"+name+"-", func(dir string) error {
		fresh := filepath.Join(dir, "fresh.db")
		if err := b.Base(ctx, fresh); err != nil {
			return err
		}
		return place(fresh)
	})
}

// open opens the console in a directory. If its own database is lost, it is brought
// from the vault of its home, where the way into that is kept beside it.
func open(ctx context.Context, o Options) (*store.Console, error) {
	c, err := store.Open(ctx, o.Dir)
	if !lost(err) {
		return c, err
	}
	if fetchErr := o.fetchOwn(ctx); fetchErr != nil {
		return nil, errors.Join(err, fmt.Errorf("bring it from the vault: %w", fetchErr))
	}
	o.Log.Warn("the console's own database was lost here, and was brought from the vault", "was", err)
	return store.Open(ctx, o.Dir)
}

func (o Options) fetchOwn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	key, err := directory.ReadKey(o.Dir)
	if err != nil {
		return err
	}
	kept, err := home.Read(o.Dir, key)
	if err != nil {
		return err
	}
	var way fleet.Binding
	if err := kept.Open(&way); err != nil {
		return err
	}
	b, err := unlocked(ctx, way, o.Store, key.ID().String(), backup.ConsoleDatabase, nil)
	if err != nil {
		return err
	}
	return bring(ctx, b, o.Dir, backup.ConsoleDatabase, func(fresh string) error {
		// Sessions and users that ended since the backup are let in by nobody: it is not
		// served before its journal was carried out.
		if err := markPassive(o.Dir, true); err != nil {
			return err
		}
		return renew(directory.Console(o.Dir), fresh)
	})
}

// fetchLimit is how long a lost database may take to be brought from its vault
// before the console is served.
const fetchLimit = time.Minute

func bound(ctx context.Context, at journal.Book, id string) (backup.Bound, error) {
	entries, err := at.List(ctx, at.Database)
	if err != nil || len(entries) == 0 {
		return backup.Bound{}, errors.Join(err, backup.ErrNone)
	}
	d, err := at.Document(ctx, at.Database, entries[len(entries)-1].Number)
	if err != nil {
		return backup.Bound{}, err
	}
	for _, b := range d.Projects {
		if b.ID == id {
			return b, nil
		}
	}
	return backup.Bound{}, fmt.Errorf("%w says where the project's vault is: the next one will", backup.ErrNone)
}

// shelves open the places in the vaults where the databases of the console are kept.
type shelves struct {
	Options
	console *store.Console

	mu    sync.Mutex
	open  map[string]opened // by project id; "" is the console's own
	keeps sync.Mutex        // held to keep the way into the home
}

type opened struct {
	book journal.Book
	at   time.Time
}

// openedFor is for how long a vault is not opened again.
const openedFor = 5 * time.Minute

func newShelves(o Options, c *store.Console) *shelves {
	return &shelves{Options: o, console: c, open: map[string]opened{}}
}

// book returns the journal of a project, or with nil the console's own; with
// again, not as it was opened before.
func (s *shelves) book(ctx context.Context, p *store.Project, again bool) (journal.Book, error) {
	id, database := "", backup.ConsoleDatabase
	if p != nil {
		id, database = p.ID, backup.ProjectDatabase
	}
	s.mu.Lock()
	known, ok := s.open[id]
	s.mu.Unlock()
	if ok && !again && time.Since(known.at) < openedFor {
		return known.book, nil
	}
	b, err := s.way(ctx, p)
	if err != nil {
		return journal.Book{}, err
	}
	book, err := unlocked(ctx, b, s.Store, s.console.ID(), database, s.known(ctx, p))
	if err != nil {
		return journal.Book{}, err
	}
	if planted := book.Authority.Planted; planted != nil {
		s.Log.Error("something lies in a project's vault that is none of its certificate authorities: this console goes on without, and none can join or be restored from there", "project", book.Project.Name(), "err", planted)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[id] = opened{book, time.Now()}
	return book, nil
}

// known is the newest authority that this console goes by in a project, or with nil in the
// home; nil: it is not known.
func (s *shelves) known(ctx context.Context, p *store.Project) *authority.Authority {
	if p == nil {
		first, err := project.Home(ctx, s.console)
		if err == nil {
			p, err = s.console.Project(ctx, first.Name)
		}
		if err != nil {
			return nil
		}
	}
	all, err := authorities(ctx, p)
	if err != nil {
		return nil
	}
	return all[0]
}

// way is the one into the vault of a project, or with nil into the home's. That is
// kept beside the databases too: a console that has lost its home's file finds it
// again there.
func (s *shelves) way(ctx context.Context, p *store.Project) (b fleet.Binding, err error) {
	if p != nil {
		if err = p.Secret(ctx, fleet.BindingSecret, &b); err != nil {
			err = fmt.Errorf("find the way into the vault of %s: %w", p.Name, err)
		}
		return b, err
	}
	first, err := project.Home(ctx, s.console)
	if err != nil {
		return b, err
	}
	own := seal.Key(s.console.Key())
	key := &own
	p, err = s.console.Project(ctx, first.Name)
	if err == nil {
		err = p.Secret(ctx, fleet.BindingSecret, &b)
	}
	if lost(err) {
		kept, keptErr := home.Read(s.Dir, key)
		if keptErr == nil && kept.Project != first.ID {
			keptErr = fmt.Errorf("%w: the way that is kept is of project %s", store.ErrDamaged, kept.Project)
		}
		if keptErr == nil {
			keptErr = kept.Open(&b)
		}
		if keptErr != nil {
			return b, errors.Join(err, keptErr)
		}
		return b, ctx.Err()
	}
	if err != nil {
		return b, fmt.Errorf("find the way into the vault of %s: %w", first.Name, err)
	}
	s.keeps.Lock() // who decides and who follows both come here when a console begins
	defer s.keeps.Unlock()
	if err := home.Keep(s.Dir, key, first.ID, b); err != nil {
		s.Log.Warn("this console could not repair itself if its first project's database were lost", "err", err)
	}
	return b, nil
}
