package console

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/console/backup"
	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// mayTrust tells whether a client that knows these authorities alone would go on.
func (w *world) mayTrust(known ...*authority.Authority) bool {
	w.t.Helper()
	pool := x509.NewCertPool()
	for _, a := range known {
		pool.AddCert(a.Certificate)
	}
	w.pool = pool
	r, err := w.client().Do(w.get("/healthz"))
	if err == nil {
		_ = r.Body.Close()
	}
	return err == nil
}

// numbers are those of the authorities that the console goes by.
func (w *world) numbers(project string) (all []int64) {
	w.t.Helper()
	c, err := store.Open(w.t.Context(), w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	p, err := c.Project(w.t.Context(), project)
	if err != nil {
		w.t.Fatal(err)
	}
	trusted, err := authorities(w.t.Context(), p)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, a := range trusted {
		all = append(all, a.Number)
	}
	return all
}

// What a console trusts goes on from what it trusted: neither is a line taken up that somebody
// has put in the place of the project's own, nor one trusted again that was retired.
func TestFollowing(t *testing.T) {
	ctx, now := t.Context(), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	fresh := func() (*vault.Project, vault.Identity, *authority.Authority) {
		t.Helper()
		p, key, err := consoletest.New(ctx, mem.New(nil), "shop")
		if err != nil {
			t.Fatal(err)
		}
		a, err := authority.Ensure(ctx, p, key, now)
		if err != nil {
			t.Fatal(err)
		}
		return p, key, a
	}
	p, key, first := fresh()
	other, otherKey, _ := fresh()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	foreign, err := authority.Rotate(ctx, other, otherKey, now)
	check(err)
	both, err := authority.Rotate(ctx, p, key, now)
	check(err)
	_, err = authority.Retire(ctx, p, key, now)
	check(err)
	one, err := authority.Read(ctx, p, key)
	check(err)
	second := one.Trusted()[0]
	for name, c := range map[string]struct {
		known  []*authority.Authority
		vaults *authority.Authority
		want   []int64
	}{
		"begun":              {[]*authority.Authority{first}, both, []int64{2, 1}},
		"half of it kept":    {[]*authority.Authority{first, first}, both, []int64{2, 1}},
		"retired":            {[]*authority.Authority{second, first}, one, []int64{2}},
		"begun and retired":  {[]*authority.Authority{first}, one, []int64{2}},
		"no more retired":    {[]*authority.Authority{second}, both, []int64{2}},
		"an older vault":     {[]*authority.Authority{second, first}, first, []int64{1}},
		"another's, a newer": {[]*authority.Authority{first}, foreign, nil},
	} {
		trusted, err := following(c.known, c.vaults)
		var got []int64
		for _, a := range trusted {
			got = append(got, a.Number)
		}
		if !slices.Equal(got, c.want) || errors.Is(err, authority.ErrForged) != (c.want == nil) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, c.want)
		}
	}
}

// An authority whose key may be stolen is replaced while the console is served: who knows
// the former one goes on until it is retired, who has the newer one before and after. A
// spare comes back before, during and after, from backups of either.
func TestAuthorityReplaced(t *testing.T) {
	w := newWorld(t)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	w.keep()
	home, _ := w.home()
	w.serve()
	p := w.vault(home)
	old, err := authority.Read(t.Context(), p, w.keys[home])
	if err != nil {
		t.Fatal(err)
	}
	homes, err := backup.Homes(t.Context(), p.Store())
	if err != nil {
		t.Fatal(err)
	}
	again := func(when string) {
		t.Helper()
		if err := w.stop(); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(w.dir); err != nil {
			t.Fatal(err)
		}
		if r, err := w.restore("", home, false); err != nil || len(r.Databases) != 3 {
			t.Fatalf("restored %s: %+v, %v", when, r, err)
		}
		w.serve()
		w.login("anna")
	}
	again("before")
	both, err := authority.Rotate(t.Context(), p, w.keys[home], w.now)
	if err != nil {
		t.Fatal(err)
	}
	consoletest.Until(t, "taken up", func() (bool, string) { return slices.Equal(w.numbers(home), []int64{2, 1}), "" })
	if !w.mayTrust(old) {
		t.Error("who knows the former authority alone is lost while both are trusted")
	}
	again("during")
	consoletest.Until(t, "taken up again", func() (bool, string) { return slices.Equal(w.numbers(home), []int64{2, 1}), "" })
	consoletest.Until(t, "written by the newer one", func() (bool, string) {
		w.robot(w.login("anna"), home, `"read"`) // the journals of console and project go on with it
		_, err := authority.Retire(t.Context(), p, w.keys[home], w.now, homes[0].Console)
		if err != nil && !errors.Is(err, authority.ErrInUse) {
			t.Fatal(err)
		}
		return err == nil, fmt.Sprint(err)
	})
	consoletest.Until(t, "retired", func() (bool, string) { return slices.Equal(w.numbers(home), []int64{2}), "" })
	consoletest.Until(t, "served by the newer one", func() (bool, string) { return w.mayTrust(both), "" })
	if w.mayTrust(old) {
		t.Error("the former authority is trusted still")
	}
	again("after")
	consoletest.Until(t, "by the newer one", func() (bool, string) { return slices.Equal(w.numbers(home), []int64{2}) && w.mayTrust(both), "" })
}

// Whoever can write to the vault, as every site can, keeps no console from going on by
// something in the place of an authority: it is set aside, and named where backups are
// looked at. On a bare machine nobody knows which is the project's own: there it is refused.
func TestPlantedAuthority(t *testing.T) {
	w := newWorld(t)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	w.keep()
	home, _ := w.home()
	p := w.vault(home)
	planted := p.Root() + "authorities/00000000000000000002/document"
	if err := p.WriteSealedOnce(t.Context(), planted, []byte(`{"formatVersion":1,"number":2}`)); err != nil {
		t.Fatal(err)
	}
	w.serve()
	w.robot(w.login("anna"), home, `"read"`) // it is acknowledged: it is in the vault
	if !strings.Contains(w.logs.String(), planted) {
		t.Error("the log does not name it")
	}
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, s := range w.keep() {
		if s.Fault != "" {
			t.Errorf("%s is not kept: %s", s.Name(), s.Fault)
		}
		if strings.Contains(s.CheckFault, planted) {
			named++
		}
	}
	if named != 2 { // the project's and the console's own, which is kept there too
		t.Errorf("named with %d backups", named)
	}
	if err := os.RemoveAll(w.dir); err != nil {
		t.Fatal(err)
	}
	if _, err := w.restore("", home, false); err == nil || !strings.Contains(err.Error(), planted) {
		t.Errorf("on a bare machine: %v", err)
	}
	if err := p.Store().Delete(t.Context(), planted); err != nil {
		t.Fatal(err)
	}
	if r, err := w.restore("", home, false); err != nil || len(r.Databases) != 3 {
		t.Errorf("without it: %+v, %v", r, err)
	}
	// It is said at each look, and no backup is read for it: a site could have that be as
	// often as it likes. The control: without it, it is.
	damage(t, w.vaults["mem:"+home], "/00000000000000000001/00000001")
	for _, there := range []bool{true, false} {
		if there {
			if err := p.WriteSealedOnce(t.Context(), planted, []byte(`{"formatVersion":1,"number":2}`)); err != nil {
				t.Fatal(err)
			}
		} else if err := p.Store().Delete(t.Context(), planted); err != nil {
			t.Fatal(err)
		}
		read := false
		for _, s := range w.keep() {
			read = read || strings.Contains(s.CheckFault, "authenticate")
		}
		if read == there {
			t.Errorf("it is there: %v, and a backup is read: %v", there, read)
		}
	}
}

// While the first project cannot be read, the console goes on with its authority: people
// know no other, and would be shut out.
func TestCertificateStays(t *testing.T) {
	w := newWorld(t)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	c, err := store.Open(t.Context(), w.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := newServer(w.options(), c)
	was, err := s.signers(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	all, err := c.Projects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Project(t.Context(), slices.MinFunc(all, func(a, b store.Listing) int { return a.Created.Compare(b.Created) }).Name)
	if err == nil {
		err = p.KeepSecret(t.Context(), audit.Act{By: "test", At: w.now}, authority.Secret, "none")
	}
	if err != nil {
		t.Fatal(err)
	}
	if is, err := s.signers(t.Context(), false); err == nil {
		t.Errorf("another authority signs: %d", len(is))
	}
	if is, err := s.signers(t.Context(), true); err != nil || is[0].Certificate.Equal(was[0].Certificate) { // the control: there is another
		t.Errorf("at the beginning: %v", err)
	}
}
