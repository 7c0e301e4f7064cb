package entry

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/store"
)

// vouched logs in a person for whom a provider vouches.
func (d *Door) vouched(t *testing.T, subject, name string, role account.Role) (Who, error) {
	t.Helper()
	return d.vouchedFor(t, subject, name, map[string]account.Role{"acme": role, "gone": account.Admin})
}

func (d *Door) vouchedFor(t *testing.T, subject, name string, roles map[string]account.Role) (Who, error) {
	t.Helper()
	token, err := d.LoginVouched(t.Context(), &http.Request{RemoteAddr: "192.0.2.1:9"}, Vouched{
		Issuer: "https://sso", Subject: subject, Name: name, Roles: roles, Life: time.Hour,
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

// A project of which the provider's roles do not speak any more is left by those
// whom they let into it, and by nobody else.
func TestVouchedProjectLeft(t *testing.T) {
	d, now, acme := withProject(t)
	act := audit.Act{By: "machine/root", At: *now}
	anna, err := d.Console.UserNamed(t.Context(), "anna")
	if err != nil {
		t.Fatal(err)
	}
	projects := map[string]*store.Project{}
	for _, name := range []string{"shop", "zoo"} {
		p, err := d.Console.CreateProject(t.Context(), act, name)
		if err == nil {
			err = p.SetMember(t.Context(), act, store.Member{User: anna.ID, Name: "anna", Role: account.Admin})
		}
		if err != nil {
			t.Fatal(err)
		}
		projects[name] = p
	}
	who, err := d.vouchedFor(t, "7", "otto", map[string]account.Role{"acme": account.Viewer, "shop": account.Recoverer})
	if err == nil {
		err = projects["zoo"].SetMember(t.Context(), act, store.Member{User: who.Session.User.ID, Name: who.Session.User.Name, Role: account.Operator})
	}
	if err != nil {
		t.Fatal(err)
	}
	if who, err = d.vouchedFor(t, "7", "otto", map[string]account.Role{"acme": account.Viewer}); err != nil {
		t.Fatal(err)
	}
	if role, err := d.Role(t.Context(), who, projects["shop"]); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("he is %q of shop still: %v", role, err)
	}
	if role, err := d.Role(t.Context(), who, projects["zoo"]); err != nil || role != account.Operator {
		t.Errorf("what a person gave him in zoo is %q: %v", role, err)
	}
	if role, err := d.Role(t.Context(), who, acme); err != nil || role != account.Viewer {
		t.Errorf("he is %q of acme: %v", role, err)
	}
	// What a person gives is the provider's once it says so, and goes with its word.
	for _, roles := range []map[string]account.Role{{"acme": account.Viewer, "zoo": account.Operator}, {"acme": account.Viewer}} {
		if who, err = d.vouchedFor(t, "7", "otto", roles); err != nil {
			t.Fatal(err)
		}
	}
	if role, err := d.Role(t.Context(), who, projects["zoo"]); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("he is %q of zoo still: %v", role, err)
	}
	// Where a role cannot be taken away, those in other projects are, before and after it.
	all := map[string]account.Role{"acme": account.Viewer, "shop": account.Admin, "zoo": account.Viewer}
	if who, err = d.vouchedFor(t, "7", "otto", all); err == nil {
		err = projects["shop"].RemoveMember(t.Context(), act, "anna")
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.vouchedFor(t, "7", "otto", nil); !errors.Is(err, store.ErrRefused) {
		t.Errorf("the only admin: %v", err)
	}
	for _, p := range []*store.Project{acme, projects["zoo"]} {
		if role, err := d.Role(t.Context(), who, p); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("he is %q of %s still: %v", role, p.Name, err)
		}
	}
}

// A project that cannot be read may hold a role that is none any more: nobody
// comes in by another project meanwhile.
func TestVouchedUnreadable(t *testing.T) {
	d, now, _ := withProject(t)
	shop, err := d.Console.CreateProject(t.Context(), audit.Act{By: "machine/root", At: *now}, "shop")
	if err != nil {
		t.Fatal(err)
	}
	token, err := d.LoginVouched(t.Context(), &http.Request{}, Vouched{Issuer: "https://sso", Subject: "7", Name: "otto", Roles: map[string]account.Role{"acme": account.Viewer}, Life: time.Hour}, Browser)
	if err == nil {
		_, err = d.Session(t.Context(), token)
	}
	if err == nil {
		err = shop.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.vouched(t, "7", "otto", account.Viewer); !errors.Is(err, errUnsettled) || strings.Contains(err.Error(), "shop") {
		t.Errorf("he is let in, or told of the project: %v", err)
	}
	if _, err := d.Session(t.Context(), token); !errors.Is(err, ErrStranger) {
		t.Errorf("his session goes on: %v", err)
	}
	if err := d.try(t, "192.0.2.9:1", "anna", password); err != nil {
		t.Errorf("the local anna: %v", err)
	}
}
