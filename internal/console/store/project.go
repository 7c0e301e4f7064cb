package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/vault/seal"
)

// projectMigrations are the database of one project.
var projectMigrations = []string{auditTable + `
CREATE TABLE member (user TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL) STRICT;
CREATE TABLE token (
	id TEXT PRIMARY KEY, name TEXT NOT NULL, hash BLOB NOT NULL, scopes TEXT NOT NULL, made_by TEXT NOT NULL,
	created INTEGER NOT NULL, expires INTEGER NOT NULL, used INTEGER NOT NULL DEFAULT 0, revoked INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE document (
	kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, uid TEXT NOT NULL, revision INTEGER NOT NULL, generation INTEGER NOT NULL,
	created INTEGER NOT NULL, changed INTEGER NOT NULL, changed_by TEXT NOT NULL, body TEXT NOT NULL,
	PRIMARY KEY (kind, namespace, name)
) STRICT;
CREATE TABLE change (
	revision INTEGER PRIMARY KEY AUTOINCREMENT, type TEXT NOT NULL, kind TEXT NOT NULL, document TEXT NOT NULL
) STRICT;
CREATE TABLE kept (name TEXT PRIMARY KEY, at INTEGER NOT NULL, data BLOB NOT NULL) STRICT;
`, agentTables, handedTable, journalTables, memberVouched, requestTable, restorationTable}

// Project is one project's database. Nothing of another project is in it, and
// no method of it looks into another.
type Project struct {
	*file
	Listing
	key *seal.Key

	mu      sync.Mutex
	changed chan struct{} // closed, and made anew, when a document changes
}

// Member is a user's role in the project.
type Member struct {
	User string // id
	Name string
	Role account.Role
	// Vouched says that a login provider gave the role, and takes it away again.
	Vouched bool
}

// memberVouched notes which roles a login provider gave.
const memberVouched = `ALTER TABLE member ADD COLUMN vouched INTEGER NOT NULL DEFAULT 0`

const memberColumns = "user, name, role, vouched"

func scanMember(row scanner) (m Member, err error) {
	return m, row.Scan(&m.User, &m.Name, &m.Role, &m.Vouched)
}

// Members lists who has a role, by name.
func (p *Project) Members(ctx context.Context) ([]Member, error) {
	return query(ctx, p.read, scanMember, "SELECT "+memberColumns+" FROM member ORDER BY name")
}

// Role returns a user's role, or ErrNotFound.
func (p *Project) Role(ctx context.Context, user string) (account.Role, error) {
	m, err := p.Member(ctx, user)
	return m.Role, err
}

// Member returns what a user is in the project, or ErrNotFound.
func (p *Project) Member(ctx context.Context, user string) (Member, error) {
	return one(ctx, p.read, scanMember, "find role", "SELECT "+memberColumns+" FROM member WHERE user = ?", user)
}

// SetMember gives a user a role.
func (p *Project) SetMember(ctx context.Context, act audit.Act, m Member) error {
	if _, err := account.ParseRole(string(m.Role)); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return p.change(ctx, act, audit.Record{Action: "member.set", Object: m.Name, Detail: string(m.Role)}, func(tx *sql.Tx, _ *audit.Record) error {
		_, err := exec(ctx, tx, "INSERT INTO member ("+memberColumns+") VALUES (?, ?, ?, ?) ON CONFLICT (user) DO UPDATE SET role = excluded.role, vouched = excluded.vouched",
			m.User, m.Name, m.Role, m.Vouched)
		if err != nil {
			return err
		}
		return hasAdmin(ctx, tx)
	})
}

// RemoveMember takes a user's role away.
func (p *Project) RemoveMember(ctx context.Context, act audit.Act, name string) error {
	return p.change(ctx, act, audit.Record{Action: "member.remove", Object: name}, func(tx *sql.Tx, _ *audit.Record) error {
		if err := must(ctx, tx, "remove member "+name, "DELETE FROM member WHERE name = ?", name); err != nil {
			return err
		}
		return hasAdmin(ctx, tx)
	})
}

// hasAdmin refuses to leave a project without anyone who may manage it.
func hasAdmin(ctx context.Context, tx *sql.Tx) error {
	var left int
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM member WHERE role = ?", account.Admin).Scan(&left); err != nil {
		return fmt.Errorf("count admins: %w", err)
	}
	if left == 0 {
		return fmt.Errorf("%w: the project would have no admin", ErrRefused)
	}
	return nil
}

// Token is a robot's way in.
type Token struct {
	ID      string
	Name    string
	Hash    []byte
	Scopes  []account.Permission
	By      string
	Created time.Time
	Expires time.Time
	Used    time.Time // about; zero: never
	Revoked time.Time // zero: it counts
}

// MaxTokenLife is how long a robot's token lives at the longest.
const MaxTokenLife = 366 * 24 * time.Hour

func scanToken(row scanner) (t Token, err error) {
	var scopes string
	var created, expires, used, revoked int64
	err = row.Scan(&t.ID, &t.Name, &t.Hash, &scopes, &t.By, &created, &expires, &used, &revoked)
	for name := range strings.FieldsSeq(scopes) {
		t.Scopes = append(t.Scopes, account.Permission(name))
	}
	t.Created, t.Expires, t.Used, t.Revoked = fromMillis(created), fromMillis(expires), fromMillis(used), fromMillis(revoked)
	return t, err
}

const tokenColumns = "id, name, hash, scopes, made_by, created, expires, used, revoked"

// Tokens lists all tokens, newest first.
func (p *Project) Tokens(ctx context.Context) ([]Token, error) {
	return query(ctx, p.read, scanToken, "SELECT "+tokenColumns+" FROM token ORDER BY created DESC, id")
}

// CreateToken keeps a robot's token.
func (p *Project) CreateToken(ctx context.Context, act audit.Act, t Token) error {
	life := t.Expires.Sub(act.At)
	switch {
	case CheckUserName(t.Name) != nil:
		return CheckUserName(t.Name)
	case len(t.Scopes) == 0 || slices.Contains(t.Scopes, account.Manage):
		return fmt.Errorf("create token: %w: it needs scopes, and %s is for people", ErrRefused, account.Manage)
	case life <= 0 || life > MaxTokenLife:
		return fmt.Errorf("create token: %w: it must end, and within %d days", ErrRefused, MaxTokenLife/(24*time.Hour))
	}
	var scopes []string
	for _, s := range t.Scopes {
		if _, err := account.ParsePermission(string(s)); err != nil {
			return fmt.Errorf("create token: %w: %w", ErrRefused, err)
		}
		scopes = append(scopes, string(s))
	}
	r := audit.Record{Action: "token.create", Object: t.Name, Detail: strings.Join(scopes, " ") + " until " + t.Expires.UTC().Format(time.RFC3339)}
	return p.change(ctx, act, r, func(tx *sql.Tx, _ *audit.Record) error {
		_, err := exec(ctx, tx, "INSERT INTO token (id, name, hash, scopes, made_by, created, expires) VALUES (?, ?, ?, ?, ?, ?, ?)",
			t.ID, t.Name, t.Hash, strings.Join(scopes, " "), act.By, toMillis(act.At), toMillis(t.Expires))
		return err
	})
}

// RevokeToken ends a token for good.
func (p *Project) RevokeToken(ctx context.Context, act audit.Act, id string) error {
	return p.change(ctx, act, audit.Record{Action: "token.revoke"}, func(tx *sql.Tx, r *audit.Record) error {
		t, err := one(ctx, tx, scanToken, "find token", "SELECT "+tokenColumns+" FROM token WHERE id = ? AND revoked = 0", id)
		if err != nil {
			return err
		}
		r.Object = t.Name
		return must(ctx, tx, "revoke token", "UPDATE token SET revoked = ? WHERE id = ?", toMillis(act.At), id)
	})
}

// Token returns the token that counts now, or ErrNotFound whatever is wrong
// with it.
func (p *Project) Token(ctx context.Context, id string, hash []byte, now time.Time) (Token, error) {
	t, err := one(ctx, p.read, scanToken, "find token", "SELECT "+tokenColumns+" FROM token WHERE id = ?", id)
	if err != nil {
		return Token{}, err
	}
	if !account.SameHash(t.Hash, hash) || !t.Revoked.IsZero() || !now.Before(t.Expires) {
		return Token{}, fmt.Errorf("find token: %w", ErrNotFound)
	}
	if now.Sub(t.Used) < sessionSteps {
		return t, nil
	}
	return t, p.update(ctx, func(tx *sql.Tx) error {
		_, err := exec(ctx, tx, "UPDATE token SET used = max(used, ?) WHERE id = ?", toMillis(now), id)
		return err
	})
}

// Kept is what the console remembers of something, such as the fleet, and since when.
func (p *Project) Kept(ctx context.Context, name string) (data []byte, at time.Time, err error) {
	data, err = one(ctx, p.read, func(row scanner) (data []byte, err error) {
		var millis int64
		err = row.Scan(&millis, &data)
		at = fromMillis(millis)
		return data, err
	}, "find "+name, "SELECT at, data FROM kept WHERE name = ?", name)
	return data, at, err
}

// KeptUnder is all that is remembered under names that begin so, by what follows.
func (p *Project) KeptUnder(ctx context.Context, begin string) (map[string][]byte, error) {
	all := map[string][]byte{}
	_, err := query(ctx, p.read, func(row scanner) (name string, err error) {
		var data []byte
		err = row.Scan(&name, &data)
		all[strings.TrimPrefix(name, begin)] = data
		return name, err
	}, "SELECT name, data FROM kept WHERE name >= ?1 AND name < ?1 || char(1114111)", begin)
	return all, err
}

// Keep remembers what the console can learn again, by name; empty data forgets it. No record is made of it.
func (p *Project) Keep(ctx context.Context, at time.Time, all map[string][]byte) error {
	return p.update(ctx, func(tx *sql.Tx) error { return keep(ctx, tx, at, all) })
}

func keep(ctx context.Context, tx *sql.Tx, at time.Time, all map[string][]byte) (err error) {
	for name, data := range all {
		if len(data) == 0 {
			_, err = exec(ctx, tx, "DELETE FROM kept WHERE name = ?", name)
		} else {
			_, err = exec(ctx, tx, "INSERT INTO kept (name, at, data) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET at = excluded.at, data = excluded.data", name, toMillis(at), data)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Secret returns what KeepSecret kept, or ErrNotFound.
func (p *Project) Secret(ctx context.Context, name string, into any) error {
	data, _, err := p.Kept(ctx, "secret/"+name)
	if err != nil {
		return err
	}
	plain, err := unsealed(p.key, p.ID+"/"+name, data)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(plain, into); err != nil { // its text could hold the secret
		return fmt.Errorf("open %s: %w", name, ErrDamaged)
	}
	return nil
}

// KeepSecret keeps a secret of the project, sealed.
func (p *Project) KeepSecret(ctx context.Context, act audit.Act, name string, secret any) error {
	plain, err := json.Marshal(secret)
	if err != nil {
		return errors.New("encode " + name)
	}
	data, err := sealed(p.key, p.ID+"/"+name, plain)
	if err != nil {
		return err
	}
	return p.change(ctx, act, audit.Record{Action: name + ".set"}, func(tx *sql.Tx, _ *audit.Record) error {
		_, err := exec(ctx, tx, "INSERT INTO kept (name, at, data) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET at = excluded.at, data = excluded.data", "secret/"+name, toMillis(act.At), data)
		return err
	})
}
