package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
)

// Key names a document.
type Key struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"` // empty where the kind has none
	Name      string `json:"name"`
}

// String is for people and the audit log.
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Kind + "/" + k.Name
	}
	return k.Kind + "/" + k.Namespace + "/" + k.Name
}

// Document is one object of the kinds that clusters have too.
type Document struct {
	Key
	UID string `json:"uid"`
	// Revision is that of its last change. Revisions count all changes of a project.
	Revision int64 `json:"revision"`
	// Generation counts the changes of its spec.
	Generation int64           `json:"generation"`
	Created    time.Time       `json:"created"`
	Changed    time.Time       `json:"changed"`
	By         string          `json:"by"` // who changed it last
	Body       json.RawMessage `json:"body"`
}

// Change is one step in a project's history of documents.
type Change struct {
	Revision int64
	Type     string // Added, Modified or Deleted
	Document Document
}

// The types of changes, as watchers of clusters know them.
const (
	Added    = "ADDED"
	Modified = "MODIFIED"
	Deleted  = "DELETED"
)

// keptChanges is how many changes a watcher may be behind.
const keptChanges = 10_000

// ErrGone says that changes so old are not kept: list, and watch from there.
var ErrGone = errors.New("changes that old are not kept")

const documentColumns = "kind, namespace, name, uid, revision, generation, created, changed, changed_by, body"

func scanDocument(row scanner) (d Document, err error) {
	var created, changed int64
	var body string
	err = row.Scan(&d.Kind, &d.Namespace, &d.Name, &d.UID, &d.Revision, &d.Generation, &created, &changed, &d.By, &body)
	d.Created, d.Changed, d.Body = fromMillis(created), fromMillis(changed), json.RawMessage(body)
	return d, err
}

// Documents lists a kind, or with "" all of them, in one namespace or with "" in all,
// and the revision that the list is of. It is what a watch goes on from.
func (p *Project) Documents(ctx context.Context, kind, namespace string) (all []Document, revision int64, err error) {
	tx, err := p.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, 0, fmt.Errorf("list documents: %w", err)
	}
	defer func() { err = errors.Join(err, ignoreDone(tx.Rollback())) }()
	if revision, err = newest(ctx, tx); err != nil {
		return nil, 0, err
	}
	all, err = query(ctx, tx, scanDocument,
		"SELECT "+documentColumns+" FROM document WHERE (?1 = '' OR kind = ?1) AND (?2 = '' OR namespace = ?2) ORDER BY kind, namespace, name", kind, namespace)
	return all, revision, err
}

// newest is the revision of the last change. The sequence remembers it also
// when no change is kept any more.
func newest(ctx context.Context, in queryer) (int64, error) {
	all, err := query(ctx, in, func(row scanner) (n int64, err error) { return n, row.Scan(&n) }, "SELECT seq FROM sqlite_sequence WHERE name = 'change'")
	if err != nil || len(all) == 0 {
		return 0, err
	}
	return all[0], nil
}

// Revision is that of the last change.
func (p *Project) Revision(ctx context.Context) (int64, error) { return newest(ctx, p.read) }

// Document returns one document, or ErrNotFound.
func (p *Project) Document(ctx context.Context, key Key) (Document, error) {
	return document(ctx, p.read, key)
}

func document(ctx context.Context, in queryer, key Key) (Document, error) {
	return one(ctx, in, scanDocument, "find "+key.String(),
		"SELECT "+documentColumns+" FROM document WHERE kind = ? AND namespace = ? AND name = ?", key.Kind, key.Namespace, key.Name)
}

// Expect says what must be there for a change to be made. The zero value
// expects nothing.
type Expect struct {
	Revision int64 // if not 0
	Absent   bool
}

func (e Expect) check(key Key, old Document, found bool) error {
	switch {
	case e.Absent && found:
		return fmt.Errorf("%s: %w", key, ErrExists)
	case e.Revision != 0 && !found:
		return fmt.Errorf("%s: %w: it was deleted", key, ErrConflict)
	case e.Revision != 0 && e.Revision != old.Revision:
		return fmt.Errorf("%s: %w: it is at resourceVersion %d, not %d: read it again and make the change there", key, ErrConflict, old.Revision, e.Revision)
	}
	return nil
}

// Apply writes a document, new or changed. The same again changes nothing, not
// even the revision.
func (p *Project) Apply(ctx context.Context, act audit.Act, key Key, body json.RawMessage, expect Expect) (d Document, err error) {
	var compact bytes.Buffer
	if err := json.Compact(&compact, body); err != nil {
		return d, fmt.Errorf("apply %s: %w: %w", key, ErrRefused, err)
	}
	body = compact.Bytes()
	unchanged := errors.New("unchanged")
	err = p.change(ctx, act, audit.Record{Action: "document.apply", Object: key.String()}, func(tx *sql.Tx, r *audit.Record) error {
		old, err := document(ctx, tx, key)
		found := err == nil
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if err := expect.check(key, old, found); err != nil {
			return err
		}
		if found && bytes.Equal(old.Body, body) {
			d = old
			return unchanged
		}
		d, r.Detail, err = p.write(ctx, tx, act, key, old, found, body)
		return err
	})
	if errors.Is(err, unchanged) { // it may be of a change that the vault has not taken
		return d, p.Settle(ctx)
	}
	if err == nil || errors.Is(err, ErrUnconfirmed) {
		p.wake()
	}
	return d, err
}

func (p *Project) write(ctx context.Context, tx *sql.Tx, act audit.Act, key Key, old Document, found bool, body json.RawMessage) (d Document, did string, err error) {
	d = Document{Key: key, UID: old.UID, Generation: old.Generation, Created: old.Created, Changed: act.At, By: act.By, Body: body}
	kind := Modified
	if !found {
		kind, d.Created = Added, act.At
		if d.UID, err = account.NewID(); err != nil {
			return d, "", err
		}
	}
	if !found || !sameSpec(old.Body, body) {
		d.Generation++
	}
	if d.Revision, err = p.log(ctx, tx, kind, d); err != nil {
		return d, "", err
	}
	_, err = exec(ctx, tx, "INSERT INTO document ("+documentColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (kind, namespace, name) DO UPDATE SET "+
		"revision = excluded.revision, generation = excluded.generation, changed = excluded.changed, changed_by = excluded.changed_by, body = excluded.body",
		d.Kind, d.Namespace, d.Name, d.UID, d.Revision, d.Generation, toMillis(d.Created), toMillis(d.Changed), d.By, string(body))
	did = fmt.Sprintf("changed, resourceVersion %d", d.Revision)
	if !found {
		did = fmt.Sprintf("made, resourceVersion %d", d.Revision)
	}
	return d, did, err
}

func sameSpec(a, b json.RawMessage) bool {
	var x, y struct {
		Spec json.RawMessage `json:"spec"`
	}
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && bytes.Equal(x.Spec, y.Spec)
}

// log adds a change to the history and returns its revision.
func (p *Project) log(ctx context.Context, tx *sql.Tx, kind string, d Document) (int64, error) {
	last, err := newest(ctx, tx)
	if err != nil {
		return 0, err
	}
	d.Revision = last + 1
	data, err := json.Marshal(d)
	if err != nil {
		return 0, fmt.Errorf("write change: %w", err)
	}
	if _, err := exec(ctx, tx, "INSERT INTO change (revision, type, kind, document) VALUES (?, ?, ?, ?)", d.Revision, kind, d.Kind, string(data)); err != nil {
		return 0, err
	}
	_, err = exec(ctx, tx, "DELETE FROM change WHERE revision <= ?", d.Revision-keptChanges)
	return d.Revision, err
}

// Delete removes a document and returns what it was.
func (p *Project) Delete(ctx context.Context, act audit.Act, key Key, expect Expect) (d Document, err error) {
	err = p.change(ctx, act, audit.Record{Action: "document.delete", Object: key.String()}, func(tx *sql.Tx, r *audit.Record) error {
		if d, err = document(ctx, tx, key); err != nil {
			return err
		}
		if err := expect.check(key, d, true); err != nil {
			return err
		}
		if d.Revision, err = p.log(ctx, tx, Deleted, d); err != nil {
			return err
		}
		r.Detail = fmt.Sprintf("resourceVersion %d", d.Revision)
		return must(ctx, tx, "delete "+key.String(), "DELETE FROM document WHERE kind = ? AND namespace = ? AND name = ?", key.Kind, key.Namespace, key.Name)
	})
	if err == nil || errors.Is(err, ErrUnconfirmed) {
		p.wake()
	}
	return d, err
}

// wake tells everyone who waits that documents changed.
func (p *Project) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.changed)
	p.changed = make(chan struct{})
}

// Changed is closed when a document changes after the call.
func (p *Project) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// Changes returns the changes of a kind after a revision, oldest first, and
// the revision to go on from. ErrGone says that some are not kept any more.
func (p *Project) Changes(ctx context.Context, kind string, after int64) (all []Change, next int64, err error) {
	tx, err := p.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, 0, fmt.Errorf("read changes: %w", err)
	}
	defer func() { err = errors.Join(err, ignoreDone(tx.Rollback())) }()
	if next, err = newest(ctx, tx); err != nil {
		return nil, 0, err
	}
	if after > next || after < next-keptChanges {
		return nil, 0, fmt.Errorf("read changes after %d: %w: now it is %d", after, ErrGone, next)
	}
	all, err = query(ctx, tx, scanChange, "SELECT revision, type, document FROM change WHERE kind = ? AND revision > ? ORDER BY revision", kind, after)
	return all, next, err
}

func scanChange(row scanner) (c Change, err error) {
	var data string
	if err := row.Scan(&c.Revision, &c.Type, &data); err != nil {
		return c, err
	}
	return c, json.Unmarshal([]byte(data), &c.Document)
}
