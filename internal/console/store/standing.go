package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/vault"
)

// projectStanding notes projects that are being made, with what it takes to go on with
// that, and those that were removed: what the vault has under their names stays theirs.
const projectStanding = `
ALTER TABLE project ADD COLUMN standing TEXT NOT NULL DEFAULT '';
ALTER TABLE project ADD COLUMN way BLOB;
`

// Standing is whether a project is one of the console's.
type Standing string

// The standings.
const (
	Served  Standing = "" // it is one
	Making  Standing = "making"
	Removed Standing = "removed"
)

// EveryProject lists also those that are being made, or were removed, by name.
func (c *Console) EveryProject(ctx context.Context) ([]Listing, error) {
	return query(ctx, c.read, scanListing, "SELECT "+listingColumns+" FROM project ORDER BY name")
}

// PlanProject notes that a project is to be made, and what it takes. ErrExists says that
// the name is taken.
func (c *Console) PlanProject(ctx context.Context, act audit.Act, name, detail string, way any) (Listing, error) {
	id, err := account.NewID()
	if err = errors.Join(err, vault.CheckName(name)); err != nil {
		return Listing{}, fmt.Errorf("create project: %w", err)
	}
	data, err := c.sealWay(id, way)
	if err != nil {
		return Listing{}, err
	}
	return c.insertProject(ctx, act, Listing{ID: id, Name: name, Standing: Making}, data, detail)
}

func (c *Console) sealWay(id string, way any) ([]byte, error) {
	plain, err := json.Marshal(way)
	if err != nil { // its text could hold a secret
		return nil, errors.New("encode the way into a project's vault")
	}
	return sealed(c.key, "project/"+id+"/way", plain)
}

// Way returns what was noted last of a project that was made here, or ErrNotFound.
func (c *Console) Way(ctx context.Context, id string, into any) error {
	data, err := one(ctx, c.read, func(row scanner) (data []byte, err error) { return data, row.Scan(&data) },
		"find the way into a project's vault", "SELECT way FROM project WHERE id = ? AND way IS NOT NULL", id)
	if err != nil {
		return err
	}
	plain, err := unsealed(c.key, "project/"+id+"/way", data)
	if err == nil && json.Unmarshal(plain, into) != nil { // its text could hold the secret
		err = fmt.Errorf("open the way into a project's vault: %w", ErrDamaged)
	}
	return err
}

// Stand changes what a project is from one of some standings, and what is noted of it,
// unless way is nil. ErrConflict says that it is in none of them.
func (c *Console) Stand(ctx context.Context, act audit.Act, l Listing, r audit.Record, to Standing, way any, from ...Standing) (err error) {
	var data []byte
	if way != nil {
		if data, err = c.sealWay(l.ID, way); err != nil {
			return err
		}
	}
	return c.change(ctx, act, r, func(tx *sql.Tx, _ *audit.Record) error {
		now, err := c.find(ctx, tx, l)
		if err == nil && !slices.Contains(from, now.Standing) {
			err = fmt.Errorf("project %s: %w", l.Name, ErrConflict)
		}
		if err != nil {
			return err
		}
		return must(ctx, tx, "note project", "UPDATE project SET standing = ?, way = coalesce(?, way) WHERE id = ?", to, data, l.ID)
	})
}

func (c *Console) find(ctx context.Context, in queryer, l Listing) (Listing, error) {
	return one(ctx, in, scanListing, "find project "+l.Name, "SELECT "+listingColumns+" FROM project WHERE id = ?", l.ID)
}

// FillProject makes the database of a project that is being made. What an attempt left
// that broke off is made anew. ErrConflict says that another has made or removed it
// meanwhile: what is there is that one's.
func (c *Console) FillProject(ctx context.Context, l Listing, fill func(p *Project) error) error {
	now, err := c.find(ctx, c.read, l)
	if err == nil && now.Standing != Making {
		err = fmt.Errorf("project %s: %w", l.Name, ErrConflict)
	}
	if err != nil {
		return err
	}
	path := c.projectPath(l.ID)
	if err := removeFile(path); err != nil {
		return err
	}
	f, err := openFile(ctx, path, true, projectMigrations)
	if err != nil {
		return err
	}
	return errors.Join(fill(c.project(l, f)), f.Close())
}

// Sweep closes and takes away the databases of projects that were removed.
func (c *Console) Sweep(ctx context.Context) error {
	all, err := c.EveryProject(ctx)
	for _, l := range all {
		if l.Standing != Removed {
			continue
		}
		err = errors.Join(err, c.sweep(ctx, l))
	}
	return err
}

// sweep leaves a project alone that was brought back since it was listed.
func (c *Console) sweep(ctx context.Context, l Listing) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now, err := c.find(ctx, c.read, l); err != nil || now.Standing != Removed {
		return err
	}
	return c.swap(l.ID, removeFile)
}

// removeFile takes a database away, with what SQLite keeps beside it.
func removeFile(path string) error {
	for _, tail := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + tail); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("take a project's database away: %w", err)
		}
	}
	return nil
}
