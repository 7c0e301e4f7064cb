package api

import (
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/entry"
	"davit.dev/davit/internal/console/store"
)

// A person's password is changed by who has all that he logs in with.
func TestPasswordTakesACode(t *testing.T) {
	ctx, now := t.Context(), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	c, err := store.Create(ctx, filepath.Join(t.TempDir(), "console"))
	check(err)
	defer c.Close()
	const first, second = "correct horse battery", "another horse battery"
	door := entry.NewDoor(c, account.Cost{Passes: 1, Memory: 64, Threads: 1}, func() time.Time { return now }, slog.New(slog.DiscardHandler))
	hashed, err := door.Hash(ctx, first)
	check(err)
	act := audit.Act{By: "user/anna", At: now}
	_, err = c.CreateUser(ctx, act, store.User{Name: "anna", Password: hashed})
	check(err)
	secret, err := account.NewSecret()
	check(err)
	login := func(password, code string) entry.Who {
		t.Helper()
		token, err := door.Login(ctx, &http.Request{RemoteAddr: "192.0.2.1:99"}, "anna", password, code, entry.Browser)
		check(err)
		who, err := door.Session(ctx, token)
		check(err)
		return who
	}
	code := func() string {
		t.Helper()
		now = now.Add(time.Minute) // none counts twice
		text, err := totp.GenerateCode(secret, now)
		check(err)
		return text
	}
	check(SetPassword(ctx, door, login(first, ""), act, NewPassword{Old: first, New: second})) // without codes
	u, err := c.UserNamed(ctx, "anna")
	check(err)
	check(c.StartCodes(ctx, act, u, secret, 1))
	used := code()
	who := login(second, used)
	for name, in := range map[string]NewPassword{
		"no code": {Old: second, New: first}, "another's": {Old: second, New: first, Code: "12345"}, "one that was used": {Old: second, New: first, Code: used},
	} {
		if err := SetPassword(ctx, door, who, act, in); !errors.Is(err, entry.ErrWrong) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// So are another's codes stopped.
	_, err = c.CreateUser(ctx, act, store.User{Name: "carl", Password: hashed})
	check(err)
	carl, err := c.UserNamed(ctx, "carl")
	check(err)
	check(c.StartCodes(ctx, act, carl, secret, 1))
	stop := func(password, code string) error { return StopCodes(ctx, door, who, act, carl, password, code) }
	for name, err := range map[string]error{"no code": stop(second, ""), "one that was used": stop(second, used), "another password": stop("not hers at all", code())} {
		if !errors.Is(err, entry.ErrWrong) {
			t.Errorf("codes were stopped by %s: %v", name, err)
		}
	}
	if carl, err = c.UserNamed(ctx, "carl"); err != nil || !carl.Codes {
		t.Errorf("carl is asked for none: %v", err)
	}
	now = now.Add(time.Hour) // tries are bounded
	check(stop(second, code()))
	if carl, err = c.UserNamed(ctx, "carl"); err != nil || carl.Codes {
		t.Errorf("carl is asked still: %v", err)
	}
	fresh := code()
	if err := SetPassword(ctx, door, who, act, NewPassword{Old: second, New: "short", Code: fresh}); !errors.Is(err, account.ErrPassword) {
		t.Error(err)
	}
	check(SetPassword(ctx, door, who, act, NewPassword{Old: second, New: first, Code: fresh})) // it was not used up
	login(first, code())
}
