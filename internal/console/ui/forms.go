package ui

import (
	"bytes"
	"errors"
	"fmt"
	"image/png"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/pquerna/otp"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/backup"
	"davit.dev/davit/internal/console/entry"
	"davit.dev/davit/internal/console/store"
)

func (v *visit) field(name string) string { return strings.TrimSpace(v.r.PostFormValue(name)) }

type peopleData struct {
	Quota            []share
	Administers      bool // whoever looks is an administrator of the console
	Members          []store.Member
	Roles            []account.Role
	Tokens           []store.Token
	Scopes           []account.Permission
	Secret, SecretOf string
	Now              time.Time
}

func peoplePage(v *visit) error { return v.people(api.Token{}) }

// people shows who may what, and a token that was just made.
func (v *visit) people(made api.Token) (err error) {
	d := peopleData{Roles: account.Roles(), Scopes: sortedScopes(account.Permissions(), account.Manage), Secret: made.Secret, SecretOf: made.Name, Now: v.Door.Now(), Administers: v.administers() == nil}
	if d.Members, err = v.project.Members(v.ctx()); err != nil {
		return err
	}
	if v.page.May[string(account.Manage)] {
		if d.Tokens, err = v.project.Tokens(v.ctx()); err != nil {
			return err
		}
	}
	if d.Quota, err = v.quota(d.Now); err != nil {
		return err
	}
	v.home = v.peoplePath() // what answers a form has another address
	d.Members, d.Tokens = cut(v, "people", mostRows, d.Members), cut(v, "robots", mostRows, d.Tokens)
	return v.show(http.StatusOK, "people", "People and robots", d)
}

func (v *visit) peoplePath() string { return "/p/" + v.project.Name + "/people" }

func setMember(v *visit) error {
	u, err := v.Door.Console.UserNamed(v.ctx(), v.field("name"))
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w: the console has no user %q: an administrator makes one", store.ErrRefused, v.field("name"))
	}
	if err != nil {
		return err
	}
	m := store.Member{User: u.ID, Name: u.Name, Role: account.Role(v.field("role"))}
	if err := api.GiveRole(v.ctx(), v.project, v.Door.Act(v.who, v.r), m); err != nil {
		return err
	}
	return v.then(v.peoplePath())
}

func removeMember(v *visit) error {
	if err := v.project.RemoveMember(v.ctx(), v.Door.Act(v.who, v.r), v.field("name")); err != nil {
		return err
	}
	return v.then(v.peoplePath())
}

func createToken(v *visit) error {
	days, err := strconv.Atoi(v.field("days"))
	if err != nil {
		return fmt.Errorf("%w: %q is no number of days", store.ErrRefused, v.field("days"))
	}
	in := api.NewToken{Name: v.field("name"), Scopes: v.r.PostForm["scope"], Days: days}
	made, err := api.MakeToken(v.ctx(), v.Door, v.who, v.project, v.Door.Act(v.who, v.r), in)
	if err != nil {
		return err
	}
	return v.people(made) // the one time that it is shown
}

func revokeToken(v *visit) error {
	if err := v.project.RevokeToken(v.ctx(), v.Door.Act(v.who, v.r), v.field("id")); err != nil {
		return err
	}
	return v.then(v.peoplePath())
}

// administers refuses all but the console's administrators.
func (v *visit) administers() error {
	if !v.who.Session.User.Administrator {
		return fmt.Errorf("%w: an administrator of the console may", entry.ErrForbidden)
	}
	return nil
}

func usersPage(v *visit) error {
	if err := v.administers(); err != nil {
		return err
	}
	all, err := v.Door.Console.Users(v.ctx())
	if err != nil {
		return err
	}
	return v.show(http.StatusOK, "users", "Users", struct {
		Users []store.User
		Codes bool // of who looks
	}{cut(v, "users", mostRows, all), v.who.Session.User.Codes})
}

func backupsPage(v *visit) error {
	if err := v.administers(); err != nil {
		return err
	}
	return v.show(http.StatusOK, "backups", "Backups of the console", struct {
		States []backup.State
		Now    time.Time
	}{v.Backups(), v.Door.Now()})
}

func createUser(v *visit) error {
	if err := v.administers(); err != nil {
		return err
	}
	in := api.NewUser{Name: v.field("name"), Password: v.r.PostFormValue("password"), Administrator: v.field("administrator") == "true"}
	if _, err := api.MakeUser(v.ctx(), v.Door, v.Door.Act(v.who, v.r), in); err != nil {
		return err
	}
	return v.then("/users")
}

func changeUser(v *visit) error {
	if err := v.administers(); err != nil {
		return err
	}
	u, err := v.Door.Console.UserNamed(v.ctx(), v.field("name"))
	if err != nil {
		return err
	}
	act := v.Door.Act(v.who, v.r)
	switch do := v.field("do"); do {
	case "disable", "enable":
		err = v.Door.Console.SetDisabled(v.ctx(), act, u, do == "disable")
	case "codes":
		err = api.StopCodes(v.ctx(), v.Door, v.who, act, u, v.r.PostFormValue("password"), v.field("code"))
	default:
		err = fmt.Errorf("%w: there is no change %q", store.ErrRefused, do)
	}
	if err != nil {
		return err
	}
	return v.then("/users")
}

func accountPage(v *visit) error {
	u := v.who.Session.User
	wanted, err := v.Door.Console.WantedCodes(v.ctx(), u)
	if err != nil {
		return err
	}
	v.page.Secret = wanted != ""
	return v.show(http.StatusOK, "account", u.Name, struct {
		Codes  bool
		Wanted string
	}{u.Codes, wanted})
}

func wantCodes(v *visit) error {
	if _, err := api.WantCodes(v.ctx(), v.Door, v.who, v.r.PostFormValue("password")); err != nil {
		return err
	}
	return v.then("/account")
}

// codeImage is the secret that waits for its first code, for a phone's camera.
func codeImage(v *visit) error {
	u := v.who.Session.User
	secret, err := v.Door.Console.WantedCodes(v.ctx(), u)
	if err != nil {
		return err
	}
	if secret == "" {
		return store.ErrNotFound
	}
	address, err := account.SecretURL(secret, u.Name, "Davit")
	if err != nil {
		return err
	}
	key, err := otp.NewKeyFromURL(address)
	if err != nil {
		return err
	}
	picture, err := key.Image(240, 240)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := png.Encode(&out, picture); err != nil {
		return err
	}
	v.w.Header().Set("Content-Type", "image/png")
	_, err = v.w.Write(out.Bytes())
	return err
}

func startCodes(v *visit) error {
	if err := api.StartCodes(v.ctx(), v.Door, v.who, v.Door.Act(v.who, v.r), v.field("code")); err != nil {
		return err
	}
	return v.then("/account")
}

func changePassword(v *visit) error {
	in := api.NewPassword{Old: v.r.PostFormValue("old"), New: v.r.PostFormValue("new"), Code: v.field("code")}
	if err := api.SetPassword(v.ctx(), v.Door, v.who, v.Door.Act(v.who, v.r), in); err != nil {
		return err
	}
	return v.then("/login")
}
