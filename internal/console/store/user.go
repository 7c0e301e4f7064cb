package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
)

// How long a session lives.
const (
	SessionIdle = 8 * time.Hour      // without a request
	SessionLife = 7 * 24 * time.Hour // in all
	Ahead       = time.Hour          // the clock may have been by which it began, or a token for an agent
)

// sessionSteps is how exactly it is noted when a session was seen: a request
// that only reads should not write each time.
const sessionSteps = time.Minute

// User is a person's account.
type User struct {
	ID            string
	Name          string
	Password      string // as account.Cost.Hash returned it
	Administrator bool   // makes users and projects
	Disabled      bool
	Codes         bool // one-time codes are asked for
	Created       time.Time
}

const userColumns = "id, name, password, administrator, disabled, secret IS NOT NULL, created"

func scanUser(row scanner) (u User, err error) {
	var created int64
	err = row.Scan(&u.ID, &u.Name, &u.Password, &u.Administrator, &u.Disabled, &u.Codes, &created)
	u.Created = fromMillis(created)
	return u, err
}

// Users lists all users, by name.
func (c *Console) Users(ctx context.Context) ([]User, error) {
	return query(ctx, c.read, scanUser, "SELECT "+userColumns+" FROM user ORDER BY name")
}

// UserNamed returns a user by name, or ErrNotFound.
func (c *Console) UserNamed(ctx context.Context, name string) (User, error) {
	return one(ctx, c.read, scanUser, "find user", "SELECT "+userColumns+" FROM user WHERE name = ?", name)
}

// CreateUser makes an account. ErrExists says that the name is taken.
func (c *Console) CreateUser(ctx context.Context, act audit.Act, u User) (User, error) {
	if err := CheckUserName(u.Name); err != nil {
		return u, fmt.Errorf("create user: %w", err)
	}
	var err error
	if u.ID, err = account.NewID(); err != nil {
		return u, err
	}
	u.Created = act.At
	r := audit.Record{Action: "user.create", Object: u.Name}
	if u.Administrator {
		r.Detail = "administrator"
	}
	err = c.change(ctx, act, r, func(tx *sql.Tx, _ *audit.Record) error {
		n, err := exec(ctx, tx, "INSERT INTO user (id, name, password, administrator, created) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
			u.ID, u.Name, u.Password, u.Administrator, toMillis(act.At))
		if err == nil && n == 0 {
			err = fmt.Errorf("user %s: %w", u.Name, ErrExists)
		}
		return err
	})
	return u, err
}

// SetPassword changes a password and ends the user's sessions.
func (c *Console) SetPassword(ctx context.Context, act audit.Act, u User, hashed string) error {
	return c.change(ctx, act, audit.Record{Action: "user.password", Object: u.Name}, func(tx *sql.Tx, _ *audit.Record) error {
		if err := notVouched(ctx, tx, u); err != nil {
			return err
		}
		if err := must(ctx, tx, "set password", "UPDATE user SET password = ? WHERE id = ?", hashed, u.ID); err != nil {
			return err
		}
		return endSessions(ctx, tx, u)
	})
}

// Rehash keeps a password, hashed at today's cost. It changes nothing that
// anybody could see. ErrConflict says that the password is another by now.
func (c *Console) Rehash(ctx context.Context, u User, hashed string) error {
	return c.update(ctx, func(tx *sql.Tx) error {
		n, err := exec(ctx, tx, "UPDATE user SET password = ? WHERE id = ? AND password = ?", hashed, u.ID, u.Password)
		if err == nil && n == 0 {
			err = fmt.Errorf("hash password anew: %w", ErrConflict)
		}
		return err
	})
}

// SetDisabled shuts a user out, or lets him in again. The last administrator
// who is let in stays.
func (c *Console) SetDisabled(ctx context.Context, act audit.Act, u User, disabled bool) error {
	r := audit.Record{Action: "user.enable", Object: u.Name}
	if disabled {
		r.Action = "user.disable"
	}
	return c.change(ctx, act, r, func(tx *sql.Tx, _ *audit.Record) error {
		if err := must(ctx, tx, "disable user", "UPDATE user SET disabled = ? WHERE id = ?", disabled, u.ID); err != nil {
			return err
		}
		var left int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM user WHERE administrator AND NOT disabled").Scan(&left); err != nil {
			return fmt.Errorf("count administrators: %w", err)
		}
		if left == 0 {
			return fmt.Errorf("disable %s: %w: no administrator would be left", u.Name, ErrRefused)
		}
		return endSessions(ctx, tx, u)
	})
}

// WantCodes keeps a secret for one-time codes until the first code proves that
// the user's phone has it.
func (c *Console) WantCodes(ctx context.Context, u User, secret string) error {
	data, err := sealed(c.key, "user/"+u.ID+"/wanted", []byte(secret))
	if err != nil {
		return err
	}
	return c.update(ctx, func(tx *sql.Tx) error {
		return must(ctx, tx, "keep secret of one-time codes", "UPDATE user SET wanted = ? WHERE id = ?", data, u.ID)
	})
}

// WantedCodes returns the secret that waits for its first code, or "".
func (c *Console) WantedCodes(ctx context.Context, u User) (string, error) {
	return c.secret(ctx, u, "wanted")
}

// CodeSecret returns the secret of the codes that are asked for, or "".
func (c *Console) CodeSecret(ctx context.Context, u User) (string, error) {
	return c.secret(ctx, u, "secret")
}

func (c *Console) secret(ctx context.Context, u User, column string) (string, error) {
	data, err := one(ctx, c.read, func(row scanner) (data []byte, err error) { return data, row.Scan(&data) },
		"find user", "SELECT "+column+" FROM user WHERE id = ?", u.ID)
	if err != nil || data == nil {
		return "", err
	}
	plain, err := unsealed(c.key, "user/"+u.ID+"/"+column, data)
	return string(plain), err
}

// StartCodes has one-time codes asked for from now on; step is the period of
// the first one.
func (c *Console) StartCodes(ctx context.Context, act audit.Act, u User, secret string, step int64) error {
	data, err := sealed(c.key, "user/"+u.ID+"/secret", []byte(secret))
	if err != nil {
		return err
	}
	return c.change(ctx, act, audit.Record{Action: "user.codes.start", Object: u.Name}, func(tx *sql.Tx, _ *audit.Record) error {
		return must(ctx, tx, "start one-time codes", "UPDATE user SET secret = ?, wanted = NULL, code = ? WHERE id = ?", data, step, u.ID)
	})
}

// StopCodes asks for no codes any more, as when a phone is lost.
func (c *Console) StopCodes(ctx context.Context, act audit.Act, u User) error {
	return c.change(ctx, act, audit.Record{Action: "user.codes.stop", Object: u.Name}, func(tx *sql.Tx, _ *audit.Record) error {
		return must(ctx, tx, "stop one-time codes", "UPDATE user SET secret = NULL, wanted = NULL WHERE id = ?", u.ID)
	})
}

// LastCode is the period of the newest code that was used.
func (c *Console) LastCode(ctx context.Context, u User) (int64, error) {
	return one(ctx, c.read, func(row scanner) (n int64, err error) { return n, row.Scan(&n) }, "find user", "SELECT code FROM user WHERE id = ?", u.ID)
}

// UseCode notes that the code of a period was used. ErrConflict says that it
// was used before, by someone who was faster.
func (c *Console) UseCode(ctx context.Context, u User, step int64) error {
	return c.update(ctx, func(tx *sql.Tx) error {
		n, err := exec(ctx, tx, "UPDATE user SET code = ? WHERE id = ? AND code < ?", step, u.ID, step)
		if err == nil && n == 0 {
			err = fmt.Errorf("use code: %w", ErrConflict)
		}
		return err
	})
}

// Session is someone who logged in.
type Session struct {
	Hash []byte
	User User
	// Form is what every form that he sends must hold.
	Form    string
	Created time.Time
	Seen    time.Time
	Source  string    // "browser" or "command line"
	Ends    time.Time // at the latest; zero: as all do
}

// CreateSession lets a user in and notes it. ErrConflict says that what he was
// checked by is not what counts any more: his password is another, he was shut
// out, or is asked for codes now.
func (c *Console) CreateSession(ctx context.Context, act audit.Act, s Session) error {
	return c.changeSoon(ctx, act, audit.Record{Action: "login", Object: s.User.Name, Detail: s.Source}, func(tx *sql.Tx, _ *audit.Record) error {
		now, err := one(ctx, tx, scanUser, "find user", "SELECT "+userColumns+" FROM user WHERE id = ?", s.User.ID)
		if err != nil {
			return err
		}
		if now.Password != s.User.Password || now.Disabled || now.Codes != s.User.Codes {
			return fmt.Errorf("let %s in: %w", s.User.Name, ErrConflict)
		}
		_, err = exec(ctx, tx, "DELETE FROM session WHERE created < ?", toMillis(act.At.Add(-5*SessionLife))) // over for long, also if a clock is days ahead
		if err != nil {
			return err
		}
		_, err = exec(ctx, tx, "INSERT INTO session (hash, user, form, created, seen, source, ends) VALUES (?, ?, ?, ?, ?, ?, ?)",
			s.Hash, s.User.ID, s.Form, toMillis(act.At), toMillis(act.At), s.Source, toMillis(s.Ends))
		return err
	})
}

// Session returns a session that still lives, with its user, or ErrNotFound. It
// notes that the session was seen.
func (c *Console) Session(ctx context.Context, hash []byte, now time.Time) (Session, error) {
	s, err := one(ctx, c.read, scanSession, "find session",
		"SELECT s.hash, s.form, s.created, s.seen, s.source, s.ends, u.id, u.name, u.password, u.administrator, u.disabled, u.secret IS NOT NULL, u.created FROM session s JOIN user u ON u.id = s.user WHERE s.hash = ?", hash)
	if err != nil {
		return s, err
	}
	if s.User.Disabled || s.Created.Sub(now) > Ahead || now.Sub(s.Seen) > SessionIdle || now.Sub(s.Created) > SessionLife || !s.Ends.IsZero() && now.After(s.Ends) {
		return Session{}, fmt.Errorf("find session: %w: it is over", ErrNotFound)
	}
	if now.Sub(s.Seen) < sessionSteps {
		return s, nil
	}
	return s, c.update(ctx, func(tx *sql.Tx) error {
		_, err := exec(ctx, tx, "UPDATE session SET seen = max(seen, ?) WHERE hash = ?", toMillis(now), hash)
		return err
	})
}

func scanSession(row scanner) (s Session, err error) {
	var created, seen, ends, made int64
	u := &s.User
	err = row.Scan(&s.Hash, &s.Form, &created, &seen, &s.Source, &ends, &u.ID, &u.Name, &u.Password, &u.Administrator, &u.Disabled, &u.Codes, &made)
	s.Created, s.Seen, s.Ends, u.Created = fromMillis(created), fromMillis(seen), fromMillis(ends), fromMillis(made)
	return s, err
}

// EndSession lets a user out.
func (c *Console) EndSession(ctx context.Context, act audit.Act, s Session) error {
	return c.changeSoon(ctx, act, audit.Record{Action: "logout", Object: s.User.Name}, func(tx *sql.Tx, _ *audit.Record) error {
		_, err := exec(ctx, tx, "DELETE FROM session WHERE hash = ?", s.Hash)
		return err
	})
}

func endSessions(ctx context.Context, tx *sql.Tx, u User) error {
	_, err := exec(ctx, tx, "DELETE FROM session WHERE user = ?", u.ID)
	return err
}
