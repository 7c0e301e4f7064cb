package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
)

// vouchedTable keeps for which persons a login provider vouches, and when their
// sessions end.
const vouchedTable = `
CREATE TABLE vouched (
	issuer TEXT NOT NULL, subject TEXT NOT NULL, user TEXT NOT NULL UNIQUE REFERENCES user (id) ON DELETE CASCADE, PRIMARY KEY (issuer, subject)
) STRICT;
ALTER TABLE session ADD COLUMN ends INTEGER NOT NULL DEFAULT 0;
`

// UserVouched returns the user of a person at a login provider, or ErrNotFound.
func (c *Console) UserVouched(ctx context.Context, issuer, subject string) (User, error) {
	return one(ctx, c.read, scanUser, "find user",
		"SELECT "+userColumns+" FROM user WHERE id = (SELECT user FROM vouched WHERE issuer = ? AND subject = ?)", issuer, subject)
}

// CreateVouched makes the user of a person at a login provider. He has no
// password, and the name NAME@sso, with a number where others have that.
func (c *Console) CreateVouched(ctx context.Context, act audit.Act, issuer, subject, name string) (u User, err error) {
	if u.ID, err = account.NewID(); err != nil {
		return u, err
	}
	u.Created = act.At
	const tries = 1000
	for n := 1; n < tries; n++ {
		u.Name = name + "@sso"
		if n > 1 {
			u.Name = fmt.Sprintf("%s@sso-%d", name, n)
		}
		if err := CheckUserName(u.Name); err != nil {
			return u, fmt.Errorf("create user: %w", err)
		}
		r := audit.Record{Action: "user.create", Object: u.Name, Detail: fmt.Sprintf("%.200s at %.200s", subject, issuer)}
		err = c.change(ctx, act, r, func(tx *sql.Tx, _ *audit.Record) error {
			n, err := exec(ctx, tx, "INSERT INTO user (id, name, password, administrator, created) VALUES (?, ?, '', FALSE, ?) ON CONFLICT (name) DO NOTHING", u.ID, u.Name, toMillis(act.At))
			if err == nil && n == 0 {
				return fmt.Errorf("user %s: %w", u.Name, ErrExists)
			}
			if err == nil {
				_, err = exec(ctx, tx, "INSERT INTO vouched (issuer, subject, user) VALUES (?, ?, ?)", issuer, subject, u.ID)
			}
			return err
		})
		if !errors.Is(err, ErrExists) {
			return u, err
		}
	}
	return u, err
}

// EndSessions ends all sessions of a user.
func (c *Console) EndSessions(ctx context.Context, act audit.Act, u User) error {
	return c.change(ctx, act, audit.Record{Action: "logout", Object: u.Name, Detail: "all sessions"}, func(tx *sql.Tx, _ *audit.Record) error {
		return endSessions(ctx, tx, u)
	})
}

// notVouched refuses to give a password to whom a provider vouches for: he would
// come in by it when the provider lets him in no more.
func notVouched(ctx context.Context, tx *sql.Tx, u User) error {
	var n int
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM vouched WHERE user = ?", u.ID).Scan(&n); err != nil {
		return fmt.Errorf("set password: %w", err)
	}
	if n > 0 {
		return fmt.Errorf("set password: %w: a login provider vouches for %s, who has none here: make a local user", ErrRefused, u.Name)
	}
	return nil
}
