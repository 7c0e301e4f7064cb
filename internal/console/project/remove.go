package project

import (
	"context"
	"errors"
	"fmt"
	"time"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/backup"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/quota"
	"davit.dev/davit/internal/console/store"
)

// Gone is a project that was removed, and what stays of it.
type Gone struct {
	Name string `json:"name"`
	// Vault is where all that it had there stays: recovery points, plans, epochs, keys and
	// the backups of its database.
	Vault        string `json:"vault,omitempty"`
	Applications int    `json:"applications"` // as far as is known
	Points       int    `json:"points"`
	Bytes        int64  `json:"bytes"`
	// Before says that it had been removed already: nothing was done now.
	Before bool `json:"before,omitempty"`
}

// lastLimit is how long it is waited for the last changes of a project that is removed to
// be in its vault. What was acknowledged is there.
const lastLimit = 5 * time.Second

// Remove has a project be none of the console's any more. Nothing of its vault is touched,
// and nothing at its sites. The console's home stays. One that was removed is answered as it
// was then: that answer may have been lost.
func (d *Desk) Remove(ctx context.Context, act audit.Act, name string) (Gone, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l, found, err := d.listed(ctx, name)
	if err == nil && !found {
		err = fmt.Errorf("remove project %s: %w", name, store.ErrNotFound)
	}
	if err != nil {
		return Gone{}, err
	}
	if l.Standing == store.Removed {
		return d.gone(ctx, l)
	}
	home, err := Home(ctx, d.Console)
	if err != nil {
		return Gone{}, err
	}
	if home.ID == l.ID {
		return Gone{}, fmt.Errorf("remove project %s: %w: the console's own database, and who is active, are kept in its vault: it stays as long as the console", name, store.ErrRefused)
	}
	record := audit.Record{Action: "project.delete", Object: name}
	g, way := Gone{Name: name}, any(nil)
	if l.Standing == store.Served {
		var w Way
		if err := d.Console.Way(ctx, l.ID, &w); err != nil && !errors.Is(err, store.ErrNotFound) {
			w = Way{} // it is damaged, and another takes its place
		}
		var b fleet.Binding
		if g, b = d.last(ctx, act, l, record); b.URL != "" { // by which it can be brought back
			w.Binding, w.Gone = &b, &g
			way = w
		}
	}
	record.Detail = fmt.Sprintf("its vault %s keeps what is there", g.Vault)
	if err := d.Console.Stand(ctx, act, l, record, store.Removed, way, store.Served, store.Making); err != nil {
		return Gone{}, err
	}
	d.Leave(l.ID)
	_ = d.Console.Sweep(ctx) // it is removed: what is left of it is taken away later, or that is said
	return g, nil
}

// gone is what was said when a project was removed, as far as that was noted.
func (d *Desk) gone(ctx context.Context, l store.Listing) (Gone, error) {
	g := Gone{Name: l.Name}
	var w Way
	switch err := d.Console.Way(ctx, l.ID, &w); {
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return g, err
	case w.Gone != nil:
		g = *w.Gone
	}
	g.Before = true
	return g, d.Console.Settle(ctx) // it may be of a change that the vault has not taken
}

// Tidy has what serves projects let go of those that were removed, also by another console,
// or where nobody waited for the vault's word, and takes their databases away. While one is
// made, removed or restored it does nothing.
func (d *Desk) Tidy(ctx context.Context) error {
	if !d.mu.TryLock() {
		return nil
	}
	defer d.mu.Unlock()
	all, err := d.Console.EveryProject(ctx)
	for _, l := range all {
		if l.Standing == store.Removed {
			d.Leave(l.ID)
		}
	}
	return errors.Join(err, d.Console.Sweep(ctx))
}

// last notes in a project that it is removed, and says what is left of it and the way into its
// vault. One that cannot be read is removed all the same.
func (d *Desk) last(ctx context.Context, act audit.Act, l store.Listing, r audit.Record) (g Gone, b fleet.Binding) {
	g = Gone{Name: l.Name}
	p, err := d.Console.Project(ctx, l.Name)
	if err != nil {
		return g, b
	}
	if p.Secret(ctx, fleet.BindingSecret, &b) == nil {
		g.Vault = b.URL
	}
	if s := d.Fleet(p).Snapshot; s != nil {
		g.Applications = len(s.Applications)
		for _, a := range s.Applications {
			g.Points += len(a.Points)
			for _, point := range a.Points {
				g.Bytes += point.Stored
			}
		}
	}
	limited, cancel := context.WithTimeout(ctx, lastLimit)
	defer cancel()
	if p.Note(limited, act, r) == nil {
		_ = p.Settle(limited) // what was acknowledged is in the vault, whatever becomes of this
	}
	return g, b
}

// State is a project, for administrators. It says nothing of what is in it but numbers.
type State struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	// Standing is served, unreadable, making or removed.
	Standing string `json:"standing"`
	Fault    string `json:"fault,omitempty"`
	// Home says that the console's own database is kept in its vault.
	Home   bool          `json:"home,omitempty"`
	Limits quota.Numbers `json:"limits"`
	Used   quota.Numbers `json:"used"` // agents are sites, members users with a role
	// Backup is the newest of its database; zero: none is known.
	Backup      time.Time `json:"backup,omitzero"`
	BackupFault string    `json:"backupFault,omitempty"`
}

// List is of all projects, by name.
func (d *Desk) List(ctx context.Context) ([]State, error) {
	all, err := d.Console.EveryProject(ctx)
	if err != nil {
		return nil, err
	}
	home, err := Home(ctx, d.Console)
	if err != nil {
		return nil, err
	}
	kept := map[string]backup.State{}
	for _, s := range d.Backups() {
		kept[s.ID] = s
	}
	states := make([]State, 0, len(all))
	for _, l := range all {
		s := State{Name: l.Name, Created: l.Created, Standing: string(l.Standing), Home: l.ID == home.ID, Backup: kept[l.ID].At, BackupFault: kept[l.ID].Fault}
		if l.Standing == store.Served {
			s.Standing = "served"
			if err := d.measure(ctx, l.Name, &s); err != nil {
				s.Standing, s.Fault = "unreadable", err.Error()
			}
		}
		states = append(states, s)
	}
	return states, ctx.Err()
}

func (d *Desk) measure(ctx context.Context, name string, s *State) error {
	p, err := d.Console.Project(ctx, name)
	if err != nil {
		return err
	}
	if s.Limits, err = quota.Limits(ctx, p); err != nil {
		return err
	}
	s.Used, err = quota.Used(ctx, p, d.Fleet(p).Snapshot, d.Now())
	return err
}
