package entry

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/store"
)

const password = "correct horse battery"

var cheap = account.Cost{Passes: 1, Memory: 64, Threads: 1}

// fixture is a door with the user anna, at a time that stands still.
func fixture(t *testing.T) (*Door, *time.Time) {
	t.Helper()
	c, err := store.Create(t.Context(), filepath.Join(t.TempDir(), "console"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	hashed, err := cheap.Hash(password)
	if err == nil {
		_, err = c.CreateUser(t.Context(), audit.Act{By: "machine/root", At: now}, store.User{Name: "anna", Password: hashed})
	}
	if err != nil {
		t.Fatal(err)
	}
	return NewDoor(c, cheap, func() time.Time { return now }, slog.New(slog.DiscardHandler)), &now
}

func (d *Door) try(t *testing.T, from, name, word string) error {
	t.Helper()
	_, err := d.Login(t.Context(), &http.Request{RemoteAddr: from}, name, word, "", Browser)
	return err
}

func TestPlaces(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7": "192.0.2.7", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "2001:db8:1:2::9": "2001:db8:1:2::/64",
		"2001:db8:1:3::9": "2001:db8:1:3::/64", "fe80::1%eth0": "fe80::/64", "pipe": "pipe",
	} {
		if got := place(address); got != want {
			t.Errorf("place(%s) = %s, want %s", address, got, want)
		}
	}
}

// Whoever has a network of addresses has no more tries than one who has one.
func TestManyAddressesOfOneNetwork(t *testing.T) {
	d, _ := fixture(t)
	for i := range 5 {
		if err := d.try(t, fmt.Sprintf("[2001:db8::%x]:99", i+1), "anna", "wrong password"); !errors.Is(err, ErrWrong) {
			t.Fatal(err)
		}
	}
	if err := d.try(t, "[2001:db8::ffff]:99", "anna", password); !errors.Is(err, ErrTooMany) {
		t.Errorf("another address of the network: %v", err)
	}
	if err := d.try(t, "[2001:db8:0:1::1]:99", "anna", password); err != nil {
		t.Errorf("another network: %v", err)
	}
}

// However often someone knocks, the log does not grow with it, and says how
// often it was; an attack on a user is seen among the noise.
func TestFloodOfTheAuditLog(t *testing.T) {
	d, now := fixture(t)
	const tries = 300
	for i := range tries {
		if err := d.try(t, fmt.Sprintf("192.0.%d.%d:99", i/250, i%250), fmt.Sprint("nobody", i), "wrong password"); !errors.Is(err, ErrWrong) {
			t.Fatal(err)
		}
	}
	if err := d.try(t, "192.0.9.1:99", "anna", "wrong password"); !errors.Is(err, ErrWrong) {
		t.Fatal(err)
	}
	d.tell(t.Context(), false) // too early
	if n, last := noted(t, d); n != notedAtOnce+1 || last.Object != "anna" {
		t.Errorf("%d records, the last %+v", n, last)
	}
	*now = now.Add(notedEvery)
	d.tell(t.Context(), false)
	if n, last := noted(t, d); n != notedAtOnce+2 || last.Object != nobody || !strings.Contains(last.Detail, fmt.Sprint(tries-notedAtOnce, " more")) {
		t.Errorf("%d records, the last %+v", n, last)
	}
	d.tell(t.Context(), true)
	if n, _ := noted(t, d); n != notedAtOnce+2 {
		t.Errorf("%d records: what was told was told again", n)
	}
}

// noted counts the refused logins of the log.
func noted(t *testing.T, d *Door) (n int, last audit.Record) {
	t.Helper()
	all, err := d.Console.Audit(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if r.Refused != "" {
			n++
		}
	}
	return n, all[0]
}

// What a robot of one project asks for and may not is told to that project alone, however
// often, and keeps nothing from the log of another, whose robot has the same name.
func TestRefusedRobotsOfTwoProjects(t *testing.T) {
	d, _, acme := withProject(t)
	other, err := d.Console.CreateProject(t.Context(), audit.Act{By: "machine/root", At: d.Now()}, "other")
	if err != nil {
		t.Fatal(err)
	}
	ask := func(p *store.Project) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodDelete, "/api/v1/projects/"+p.Name+"/members/anna", nil)
		r.SetPathValue("project", p.Name)
		d.Turned(r, Who{Name: "robot/ci", project: p.ID}, ErrForbidden)
	}
	for range notedAtOnce + 5 {
		ask(acme)
	}
	ask(other)
	for p, want := range map[*store.Project]int{acme: notedAtOnce, other: 1} {
		n := 0
		all, err := p.Audit(t.Context(), 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			if r.Action == refusedAction {
				if n++; r.Detail != "" {
					t.Errorf("%s is told of %q", p.Name, r.Detail)
				}
			}
		}
		if n != want {
			t.Errorf("%d are noted in %s, want %d", n, p.Name, want)
		}
	}
	d.tell(t.Context(), true)
	if _, last := noted(t, d); last.Object != "robot/ci of acme" || !strings.HasPrefix(last.Detail, "5 more") {
		t.Errorf("%+v", last)
	}
}

// A login that was checked before the password was changed lets nobody in
// after it.
func TestPasswordChangedMeanwhile(t *testing.T) {
	d, now := fixture(t)
	before, err := d.check(t.Context(), "anna", password, "")
	if err != nil {
		t.Fatal(err)
	}
	act := audit.Act{By: "user/anna", At: *now}
	if _, err := d.admit(t.Context(), act, before, Browser, 0); err != nil {
		t.Fatalf("while nothing has changed: %v", err)
	}
	changes := map[string]func() error{
		"codes":    func() error { return d.Console.StartCodes(t.Context(), act, before, "secret", 1) },
		"password": func() error { return d.Console.SetPassword(t.Context(), act, before, "another") },
	}
	for name, change := range changes {
		if err := change(); err != nil {
			t.Fatal(name, err)
		}
		if token, err := d.admit(t.Context(), act, before, Browser, 0); !errors.Is(err, store.ErrConflict) || token != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A password that was hashed at another cost is hashed anew, and lets in.
func TestRehashedLogin(t *testing.T) {
	d, _ := fixture(t)
	d.Cost.Passes = 2
	for range 2 {
		if err := d.try(t, "192.0.2.1:99", "anna", password); err != nil {
			t.Fatal(err)
		}
	}
	u, err := d.Console.UserNamed(t.Context(), "anna")
	if err != nil || d.Cost.Outdated(u.Password) {
		t.Errorf("%s, %v", u.Password, err)
	}
}
