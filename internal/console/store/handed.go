package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// handedTable is what sites were asked to do with documents.
const handedTable = `
CREATE TABLE handed (
	site TEXT NOT NULL, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, uid TEXT NOT NULL, revision INTEGER NOT NULL, generation INTEGER NOT NULL,
	gone INTEGER NOT NULL, state TEXT NOT NULL DEFAULT '', why TEXT NOT NULL DEFAULT '', at INTEGER NOT NULL DEFAULT 0,
	PRIMARY KEY (site, kind, namespace, name)
) STRICT;
`

// Handed is what a site was asked to do with a document, and what it said of it.
type Handed struct {
	Site string
	Key
	UID string
	// Revision is that of the document, or of what made it go.
	Revision   int64
	Generation int64
	Gone       bool   // the site is to have it no more
	State      string // "": it has not answered
	Why        string
	At         time.Time // of the answer
}

// Asks tells whether two ask for the same.
func (h Handed) Asks(of Handed) bool {
	return h.Key == of.Key && h.UID == of.UID && h.Revision == of.Revision && h.Gone == of.Gone
}

func scanHanded(row scanner) (h Handed, err error) {
	var at int64
	err = row.Scan(&h.Site, &h.Kind, &h.Namespace, &h.Name, &h.UID, &h.Revision, &h.Generation, &h.Gone, &h.State, &h.Why, &at)
	h.At = fromMillis(at)
	return h, err
}

// Handed lists what a site was asked for; "" is all sites.
func (p *Project) Handed(ctx context.Context, site string) ([]Handed, error) {
	return query(ctx, p.read, scanHanded, `SELECT site, kind, namespace, name, uid, revision, generation, gone, state, why, at FROM handed
		WHERE (?1 = '' OR site = ?1) ORDER BY kind, namespace, name, site`, site)
}

// Hand notes what a site is about to be asked for, so that a console that ends
// in between still knows what it has there. What is asked for anew has no answer.
func (p *Project) Hand(ctx context.Context, all []Handed) error {
	if len(all) == 0 {
		return nil
	}
	return p.update(ctx, func(tx *sql.Tx) error {
		for _, h := range all {
			_, err := exec(ctx, tx, `INSERT INTO handed (site, kind, namespace, name, uid, revision, generation, gone) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
				ON CONFLICT (site, kind, namespace, name) DO UPDATE SET state = '', why = '', at = 0,
				uid = excluded.uid, revision = excluded.revision, generation = excluded.generation, gone = excluded.gone`,
				h.Site, h.Kind, h.Namespace, h.Name, h.UID, h.Revision, h.Generation, h.Gone)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Over is the state of what a site was asked to have no more, and has no more.
const Over = "gone"

// answer keeps what a site says of what it was asked for. What it was not asked
// for, or is not asked for any more, it can say nothing of.
func answer(ctx context.Context, tx *sql.Tx, site string, at time.Time, told []Handed) error {
	const which = " WHERE site = ? AND kind = ? AND namespace = ? AND name = ? AND uid = ? AND revision = ? AND gone = ?"
	for _, h := range told {
		key := []any{site, h.Kind, h.Namespace, h.Name, h.UID, h.Revision, h.Gone}
		var err error
		if h.Gone && h.State == Over {
			_, err = exec(ctx, tx, "DELETE FROM handed"+which, key...)
		} else {
			_, err = exec(ctx, tx, "UPDATE handed SET state = ?, why = ?, at = ?"+which, append([]any{h.State, h.Why, toMillis(at)}, key...)...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// leap is by how much revisions go on after a restore: what the lost console said
// after its newest backup is not said again with the same numbers.
const leap = 1 << 20

// Leap goes on after a restore from a backup. Sites may have newer documents than
// the backup has: all are asked again.
func (p *Project) Leap(ctx context.Context) error {
	return p.update(ctx, func(tx *sql.Tx) error {
		last, err := newest(ctx, tx)
		if err != nil {
			return err
		}
		if _, err := exec(ctx, tx, "UPDATE handed SET state = '', why = '', at = 0"); err != nil {
			return err
		}
		if last == 0 {
			_, err = exec(ctx, tx, "INSERT INTO sqlite_sequence (name, seq) VALUES ('change', ?)", leap)
			return err
		}
		if _, err := exec(ctx, tx, "UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'change'", leap); err != nil {
			return fmt.Errorf("leap: %w", err)
		}
		return nil
	})
}
