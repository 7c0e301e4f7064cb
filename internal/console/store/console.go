package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/store/directory"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/packed"
	"davit.dev/davit/internal/vault/seal"
)

// consoleMigrations are the console's own database. Never change one that was
// released: add the next.
var consoleMigrations = []string{auditTable + `
CREATE TABLE user (
	id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, password TEXT NOT NULL, administrator INTEGER NOT NULL, disabled INTEGER NOT NULL DEFAULT 0,
	secret BLOB, wanted BLOB, code INTEGER NOT NULL DEFAULT 0, created INTEGER NOT NULL
) STRICT;
CREATE TABLE session (
	hash BLOB PRIMARY KEY, user TEXT NOT NULL REFERENCES user (id) ON DELETE CASCADE, form TEXT NOT NULL,
	created INTEGER NOT NULL, seen INTEGER NOT NULL, source TEXT NOT NULL
) STRICT;
CREATE INDEX session_user ON session (user);
CREATE TABLE project (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created INTEGER NOT NULL) STRICT;
`, vouchedTable, journalTables, projectStanding}

// Console is the console's directory. It is safe for use by several goroutines.
type Console struct {
	*file
	dir string
	key *seal.Key

	mu     sync.Mutex
	open   map[string]*Project // by id
	guards func(p *Project) Guard
}

// Create makes a console in a directory that holds none. What is in it then
// belongs to this user of the machine alone.
func Create(ctx context.Context, dir string) (*Console, error) {
	if err := directory.Prepare(dir); err != nil {
		return nil, err
	}
	var key seal.Key
	if _, err := rand.Read(key[:]); err != nil {
		return nil, fmt.Errorf("make key of the console: %w", err)
	}
	err := directory.WriteKey(dir, key[:])
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make console in %s: %w", dir, ErrExists)
	}
	if err != nil {
		return nil, err
	}
	return openConsole(ctx, dir, true)
}

// Open opens the console in a directory. ErrNotFound says that it holds none.
func Open(ctx context.Context, dir string) (*Console, error) { return openConsole(ctx, dir, false) }

func openConsole(ctx context.Context, dir string, create bool) (*Console, error) {
	key, err := directory.ReadKey(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open console in %s: %w", dir, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	f, err := openFile(ctx, directory.Console(dir), create, consoleMigrations)
	if err != nil {
		return nil, err
	}
	return &Console{file: f, dir: dir, key: key, open: map[string]*Project{}}, nil
}

// Dir is the console's directory.
func (c *Console) Dir() string { return c.dir }

// Close closes all files.
func (c *Console) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, p := range c.open {
		errs = append(errs, p.Close())
	}
	return errors.Join(append(errs, c.file.Close())...)
}

// Listing is a project, as the console's list has it.
type Listing struct {
	ID       string
	Name     string
	Created  time.Time
	Standing Standing
}

const listingColumns = "id, name, created, standing"

func scanListing(row scanner) (l Listing, err error) {
	var created int64
	err = row.Scan(&l.ID, &l.Name, &created, &l.Standing)
	l.Created = fromMillis(created)
	return l, err
}

// Projects lists all projects that are the console's, by name.
func (c *Console) Projects(ctx context.Context) ([]Listing, error) {
	return query(ctx, c.read, scanListing, "SELECT "+listingColumns+" FROM project WHERE standing = '' ORDER BY name")
}

// CreateProject makes a project and its file. ErrExists says that the name is taken. It is noted as newer than
// all others, also by a clock that is behind: in the vault of the first is the console's own database.
func (c *Console) CreateProject(ctx context.Context, act audit.Act, name string) (*Project, error) {
	if err := vault.CheckName(name); err != nil {
		return nil, fmt.Errorf("create project: %w", err)
	}
	id, err := account.NewID()
	if err != nil {
		return nil, err
	}
	f, err := openFile(ctx, c.projectPath(id), true, projectMigrations)
	if err != nil {
		return nil, err
	}
	l, err := c.insertProject(ctx, act, Listing{ID: id, Name: name}, nil, "")
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.path))
	}
	p := c.project(l, f)
	c.mu.Lock()
	c.open[id] = p
	c.mu.Unlock()
	return p, nil
}

func (c *Console) insertProject(ctx context.Context, act audit.Act, l Listing, way []byte, detail string) (made Listing, err error) {
	err = c.change(ctx, act, audit.Record{Action: "project.create", Object: l.Name, Detail: detail}, func(tx *sql.Tx, _ *audit.Record) (err error) {
		made, err = one(ctx, tx, scanListing, "note project", "INSERT INTO project (id, name, created, standing, way) VALUES (?, ?, max(?, (SELECT coalesce(max(created), 0) + 1 FROM project)), ?, ?) ON CONFLICT DO NOTHING RETURNING "+listingColumns, l.ID, l.Name, toMillis(act.At), l.Standing, way)
		if errors.Is(err, ErrNotFound) {
			err = ErrExists
		}
		return err
	})
	if err != nil {
		err = fmt.Errorf("create project %s: %w", l.Name, err)
	}
	return made, err
}

func (c *Console) projectPath(id string) string { return directory.Project(c.dir, id) }

func (c *Console) project(l Listing, f *file) *Project {
	key := seal.Key(c.key.Derive(nil, "davit.dev/console/v1/project\x00"+l.ID))
	return &Project{file: f, Listing: l, key: &key, changed: make(chan struct{})}
}

// Project opens a project by its name, or returns ErrNotFound. A file that is
// damaged makes this one fail, and no other.
func (c *Console) Project(ctx context.Context, name string) (*Project, error) {
	l, err := c.served(ctx, name)
	if err != nil {
		return nil, err
	}
	return c.opened(ctx, l)
}

func (c *Console) served(ctx context.Context, name string) (Listing, error) {
	return one(ctx, c.read, scanListing, "find project "+name, "SELECT "+listingColumns+" FROM project WHERE name = ? AND standing = ''", name)
}

// opened opens a project that was listed.
func (c *Console) opened(ctx context.Context, l Listing) (*Project, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.open[l.ID]; p != nil {
		return p, nil
	}
	// It may have been removed since: Sweep, which comes after that, would not find what is opened now.
	if _, err := c.served(ctx, l.Name); err != nil {
		return nil, err
	}
	f, err := openFile(ctx, c.projectPath(l.ID), false, projectMigrations)
	if err != nil {
		return nil, fmt.Errorf("open project %s: %w", l.Name, err)
	}
	p := c.project(l, f)
	if c.guards != nil {
		p.Guard(c.guards(p))
	}
	c.open[l.ID] = p
	return p, nil
}

// sealed and unsealed keep secrets in the files: who has a file without the
// console's key has none of them.
func sealed(key *seal.Key, name string, plain []byte) ([]byte, error) {
	return packed.Seal(key, name, plain)
}

func unsealed(key *seal.Key, name string, data []byte) ([]byte, error) {
	plain, err := packed.Unseal(key.Only, name, data, maxSecret)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return plain, nil
}

// maxSecret bounds what is sealed, in bytes.
const maxSecret = 1 << 20

// CheckUserName says whether a name may be a user's.
func CheckUserName(name string) error {
	const also = "._@-"
	ok := len(name) >= 1 && len(name) <= 63 && !strings.ContainsAny(name[:1], also)
	for i := 0; ok && i < len(name); i++ {
		ok = name[i] >= 'a' && name[i] <= 'z' || name[i] >= '0' && name[i] <= '9' || strings.IndexByte(also, name[i]) >= 0
	}
	if !ok {
		return fmt.Errorf("%w: the name %.64q: want 1 to 63 lower-case letters, digits and %s, beginning with a letter or digit", ErrRefused, name, also)
	}
	return nil
}
