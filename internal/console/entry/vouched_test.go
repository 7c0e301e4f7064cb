package entry

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/store"
)

// vouched logs in a person for whom a provider vouches.
func (d *Door) vouched(t *testing.T, subject, name string, role account.Role) (Who, error) {
	t.Helper()
	token, err := d.LoginVouched(t.Context(), &http.Request{RemoteAddr: "192.0.2.1:9"}, Vouched{
		Issuer: "https://sso", Subject: subject, Name: name, Roles: map[string]account.Role{"acme": role, "gone": account.Admin}, Life: time.Hour,
	}, Browser)
	if err != nil {
		return Who{}, err
	}
	return d.Session(t.Context(), token)
}

func withProject(t *testing.T) (*Door, *time.Time, *store.Project) {
	t.Helper()
	d, now := fixture(t)
	act := audit.Act{By: "machine/root", At: *now}
	p, err := d.Console.CreateProject(t.Context(), act, "acme")
	if err != nil {
		t.Fatal(err)
	}
	anna, err := d.Console.UserNamed(t.Context(), "anna")
	if err == nil {
		_, err = d.Console.CreateUser(t.Context(), act, store.User{Name: "root", Administrator: true})
	}
	if err == nil {
		err = p.SetMember(t.Context(), act, store.Member{User: anna.ID, Name: "anna", Role: account.Admin})
	}
	if err != nil {
		t.Fatal(err)
	}
	return d, now, p
}

// People are who the provider's subject says, whatever they are called: neither a
// local account nor another person is reached by a name or a mail address.
func TestVouchedIsBySubject(t *testing.T) {
	d, _, p := withProject(t)
	names := map[string]string{}
	for _, c := range []struct{ subject, name, want string }{
		{"7", "anna", "anna@sso"}, {"8", "anna", "anna@sso-2"}, {"9", "Anna@Example.com", "anna@sso-3"}, {"7", "renamed", "anna@sso"}, {"10", "../🙂", "person@sso"}, {"11", "", "person@sso-2"},
	} {
		who, err := d.vouched(t, c.subject, c.name, account.Viewer)
		if err != nil || who.Name != "user/"+c.want || who.Session.User.Administrator {
			t.Errorf("%+v: %s, %v", c, who.Name, err)
			continue
		}
		if first := names[c.subject]; first != "" && first != who.Session.User.ID {
			t.Errorf("%+v is another user than before", c)
		}
		names[c.subject] = who.Session.User.ID
		if err := d.May(t.Context(), who, p, account.Protect); !errors.Is(err, ErrForbidden) {
			t.Errorf("%+v has more than his role: %v", c, err)
		}
	}
	if err := d.try(t, "192.0.2.9:1", "anna", password); err != nil {
		t.Errorf("the local anna: %v", err)
	}
	if err := d.try(t, "192.0.2.9:1", "anna@sso", ""); !errors.Is(err, ErrWrong) {
		t.Errorf("without a password: %v", err)
	}
}

// The provider's groups decide at each login: what is taken away there is taken
// away here, and with the last role the sessions end.
func TestVouchedRoles(t *testing.T) {
	d, now, p := withProject(t)
	if _, err := d.vouched(t, "7", "otto", ""); !errors.Is(err, ErrForbidden) {
		t.Fatal(err)
	}
	if _, err := d.Console.UserVouched(t.Context(), "https://sso", "7"); !errors.Is(err, store.ErrNotFound) {
		t.Fatal("whoever has no role has a user: ", err)
	}
	first, err := d.vouched(t, "7", "otto", account.Recoverer)
	if err != nil || d.May(t.Context(), first, p, account.Recover) != nil {
		t.Fatal(err)
	}
	second, err := d.vouched(t, "7", "otto", account.Viewer)
	if err != nil {
		t.Fatal(err)
	}
	for _, who := range []Who{first, second} {
		if err := d.May(t.Context(), who, p, account.Recover); !errors.Is(err, ErrForbidden) {
			t.Errorf("the role stays: %v", err)
		}
	}
	act := audit.Act{By: "machine/root", At: *now}
	if err := d.Console.SetPassword(t.Context(), act, first.Session.User, "x"); !errors.Is(err, store.ErrRefused) {
		t.Errorf("he is given a password: %v", err)
	}
	token, _ := d.LoginVouched(t.Context(), &http.Request{}, Vouched{Issuer: "https://sso", Subject: "7", Roles: map[string]account.Role{"acme": account.Viewer}, Life: time.Hour}, Browser)
	if _, err := d.vouched(t, "7", "otto", ""); !errors.Is(err, ErrForbidden) {
		t.Errorf("without a role: %v", err)
	}
	if _, err := d.Session(t.Context(), token); !errors.Is(err, ErrStranger) {
		t.Errorf("his session goes on: %v", err)
	}
	third, err := d.LoginVouched(t.Context(), &http.Request{}, Vouched{Issuer: "https://sso", Subject: "7", Roles: map[string]account.Role{"acme": account.Viewer}, Life: time.Hour}, Browser)
	if err != nil {
		t.Fatal(err)
	}
	*now = now.Add(time.Hour + time.Second)
	if _, err := d.Session(t.Context(), third); !errors.Is(err, ErrStranger) {
		t.Errorf("the session is not bounded: %v", err)
	}
	if err := d.Console.SetDisabled(t.Context(), act, first.Session.User, true); err != nil {
		t.Fatal(err)
	}
	if _, err := d.vouched(t, "7", "otto", account.Viewer); !errors.Is(err, ErrForbidden) {
		t.Errorf("whom an administrator shut out: %v", err)
	}
}
