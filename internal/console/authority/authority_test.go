package authority

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
	"davit.dev/davit/internal/vault/seal"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newProject(t *testing.T) (*vault.Project, vault.Identity) {
	t.Helper()
	store := mem.New(nil)
	key, err := vault.NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := vault.Init(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	p, err := vault.CreateProject(t.Context(), store, "shop", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	return p, key
}

func newIdentity(t *testing.T) vault.Identity {
	t.Helper()
	id, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// The authority outlives the console that made it; who was not let in, although
// he opens the project, has no use of it.
func TestAuthority(t *testing.T) {
	ctx := t.Context()
	p, recovery := newProject(t)
	console, site := newIdentity(t), newIdentity(t)
	if _, err := Read(ctx, p, recovery); !errors.Is(err, vault.ErrNotFound) {
		t.Fatalf("a project without one: %v", err)
	}
	first, err := Ensure(ctx, p, recovery, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AddRecipient(ctx, site.Recipient()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(first.Admit(ctx, p, console.Recipient()), first.Admit(ctx, p, console.Recipient())); err != nil {
		t.Fatal(err)
	}
	for _, id := range []vault.Identity{recovery, console} {
		again, err := Ensure(ctx, p, id, now)
		if err != nil || !again.Certificate.Equal(first.Certificate) {
			t.Fatalf("another one: %v", err)
		}
		mustServe(t, first, again)
	}
	asSite, err := vault.OpenProject(ctx, p.Store(), "shop", site)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Ensure(ctx, asSite, site, now); !errors.Is(err, vault.ErrKey) {
		t.Errorf("a site has the authority: %v", err)
	}
}

// mustServe checks a server's certificate of one authority against another.
func mustServe(t *testing.T, trusted, signer *Authority) {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(trusted.PEM()) {
		t.Fatal("no certificate")
	}
	served, err := signer.Server([]string{"console.example.com", "192.0.2.7"}, now)
	if err != nil {
		t.Fatal(err)
	}
	for name, good := range map[string]bool{"console.example.com": true, "192.0.2.7": true, "other.example.com": false} {
		_, err := served.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: pool, CurrentTime: now})
		if (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := served.Leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now.Add(ServerLife + time.Hour)}); err == nil {
		t.Error("it lives for ever")
	}
}

// Of several who make the first authority at once, all end up with one.
func TestRace(t *testing.T) {
	p, recovery := newProject(t)
	made := make([]*Authority, 4)
	var all sync.WaitGroup
	for i := range made {
		all.Go(func() {
			var err error
			if made[i], err = Ensure(t.Context(), p, recovery, now); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, a := range made {
		if a == nil || !a.Certificate.Equal(made[0].Certificate) {
			t.Error("there are two")
		}
	}
}

// What a console keeps of the authority serves without the vault.
func TestKept(t *testing.T) {
	p, recovery := newProject(t)
	a, err := Ensure(t.Context(), p, recovery, now)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	var b Authority
	if err := json.Unmarshal(data, &b); err != nil {
		t.Fatal(err)
	}
	mustServe(t, a, &b)
	if err := b.Admit(t.Context(), p, newIdentity(t).Recipient()); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{`{}`, `[]`, `{"wrapping":"AAAA"}`} {
		if json.Unmarshal([]byte(bad), &b) == nil {
			t.Errorf("%s was read", bad)
		}
	}
}

func TestConsoles(t *testing.T) {
	ctx := t.Context()
	p, _ := newProject(t)
	if all, err := Consoles(ctx, p); err != nil || len(all) != 0 {
		t.Fatal(all, err)
	}
	c := Console{Name: "watch", Recipient: newIdentity(t).Recipient().String(), Created: now}
	if err := errors.Join(Enroll(ctx, p, c), Enroll(ctx, p, c)); err != nil {
		t.Fatal(err)
	}
	if all, err := Consoles(ctx, p); err != nil || len(all) != 1 || all[0].Name != "watch" || all[0].Recipient != c.Recipient {
		t.Error(all, err)
	}
	if err := Enroll(ctx, p, Console{Recipient: "nobody"}); err == nil {
		t.Error("nobody was let in")
	}
}

// Another authority is begun once, for those who open the project still. What the former
// sealed can be read, also when nobody trusts it any more; the newest is never retired.
func TestRotate(t *testing.T) {
	ctx := t.Context()
	p, recovery := newProject(t)
	console, gone := newIdentity(t), newIdentity(t)
	first, err := Ensure(ctx, p, recovery, now)
	if err == nil {
		err = errors.Join(p.AddRecipient(ctx, console.Recipient()), first.Admit(ctx, p, console.Recipient()), first.Admit(ctx, p, gone.Recipient()))
	}
	if err != nil {
		t.Fatal(err)
	}
	name := p.Root() + "console/0/journal/project/1"
	sealed, err := first.Seal(name, []byte("kept"))
	if err == nil {
		err = p.WriteSealedOnce(ctx, name, sealed)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Retire(ctx, p, recovery, now); !errors.Is(err, ErrOnly) {
		t.Errorf("the only one was retired: %v", err)
	}
	both, err := Rotate(ctx, p, console, now)
	if err != nil || both.Number != 2 || len(both.Trusted()) != 2 || both.Certificate.Equal(first.Certificate) {
		t.Fatalf("%+v, %v", both, err)
	}
	if _, err := Rotate(ctx, p, console, now); !errors.Is(err, ErrOverlap) {
		t.Errorf("a third one was begun: %v", err)
	}
	if _, err := Read(ctx, p, gone); !errors.Is(err, vault.ErrKey) {
		t.Errorf("who does not open the project has the newer one: %v", err)
	}
	newer, err := both.Seal(name, []byte("kept"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Unseal(name, newer, 100); !errors.Is(err, ErrUnread) || !errors.Is(err, vault.ErrDamaged) {
		t.Errorf("who has the former one reads what the newer one seals: %v", err)
	}
	for range 2 {
		if _, err := Retire(ctx, p, console, now); err != nil {
			t.Fatal(err)
		}
		for _, id := range []vault.Identity{recovery, console} {
			a, err := Read(ctx, p, id)
			if err != nil || len(a.Trusted()) != 1 || a.Number != 2 || len(a.Former) != 1 {
				t.Fatalf("%+v, %v", a, err)
			}
			for _, data := range [][]byte{sealed, newer} {
				if plain, err := a.Unseal(name, data, 100); err != nil || string(plain) != "kept" {
					t.Errorf("%q, %v", plain, err)
				}
			}
		}
	}
	if third, err := Rotate(ctx, p, console, now); err != nil || third.Number != 3 || len(third.Trusted()) != 2 {
		t.Errorf("%+v, %v", third, err)
	}
	later := newIdentity(t)
	third, err := Read(ctx, p, console)
	if err == nil {
		err = third.Admit(ctx, p, later.Recipient())
	}
	if err != nil {
		t.Fatal(err)
	}
	if a, err := Read(ctx, p, later); err != nil || len(a.Former) != 2 {
		t.Errorf("who is let in later reads not all: %+v, %v", a, err)
	}
}

// Whoever has a retired authority's key and can write to the vault adds nothing to what
// it had sealed, nor changes it; what it had sealed stays readable, over later ones too.
func TestRetiredSealsNothing(t *testing.T) {
	ctx := t.Context()
	p, recovery := newProject(t)
	stolen, err := Ensure(ctx, p, recovery, now)
	at := p.Root() + "console/0/"
	kept, next, part := at+"journal/project/1", at+"journal/project/2", at+"backups/project/1/00000001"
	seal := func(by *Authority, name, text string) []byte {
		t.Helper()
		data, err := by.Seal(name, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	put := func(name string, data []byte) {
		t.Helper()
		if err := p.WriteSealedOnce(ctx, name, data); err != nil {
			t.Fatal(err)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	honest := seal(stolen, kept, "kept")
	put(kept, honest)
	both, err := Rotate(ctx, p, recovery, now)
	if err != nil {
		t.Fatal(err)
	}
	forged := map[string][]byte{kept: seal(stolen, kept, "other"), next: seal(stolen, next, "more")}
	for name, data := range forged { // the control: it is trusted still
		if _, err := both.Unseal(name, data, 100); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Retire(ctx, p, recovery, now, "0"); !errors.Is(err, ErrInUse) {
		t.Errorf("it was retired while the console writes by it: %v", err)
	}
	put(next, seal(both, next, "the console's"))
	if _, err := Retire(ctx, p, recovery, now, "0"); err != nil {
		t.Fatal(err)
	}
	check := func(newest int64) {
		t.Helper()
		a, err := Read(ctx, p, recovery)
		if err != nil || a.Number != newest {
			t.Fatalf("%+v, %v", a, err)
		}
		if plain, err := a.Unseal(kept, honest, 100); err != nil || string(plain) != "kept" {
			t.Errorf("what it had sealed: %q, %v", plain, err)
		}
		for name, data := range forged {
			if _, err := a.Unseal(name, data, 100); !errors.Is(err, ErrRetired) || !errors.Is(err, vault.ErrDamaged) {
				t.Errorf("%s is read of who has the retired authority's key: %v", name, err)
			}
		}
		if _, err := a.UnsealPart(part, seal(stolen, part, "of a backup"), 100); err != nil {
			t.Errorf("a part, whose document has its hash: %v", err)
		}
	}
	check(2)
	put(at+"journal/project/3", forged[next])
	third, err := Rotate(ctx, p, recovery, now)
	if err != nil {
		t.Fatal(err)
	}
	put(at+"journal/project/4", seal(third, at+"journal/project/4", "the console's"))
	if _, err := Retire(ctx, p, recovery, now, "0"); err != nil {
		t.Fatal(err)
	}
	check(3)
	// What lies in the place of the list and is not by a later one retires nothing, and is named.
	if err := p.Store().Delete(ctx, inventoryKey(p, 1)); err != nil {
		t.Fatal(err)
	}
	put(inventoryKey(p, 1), seal(stolen, inventoryKey(p, 1), `{"formatVersion":1}`))
	if _, err := Retire(ctx, p, recovery, now, "0"); !errors.Is(err, ErrForged) || !strings.Contains(err.Error(), inventoryKey(p, 1)) {
		t.Errorf("what lies in its place is not named: %v", err)
	}
}

// Whoever has the project's data key, as every site does, and can write to the vault and
// delete there has nobody take up an authority of his own.
func TestForgedAuthority(t *testing.T) {
	ctx := t.Context()
	p, recovery := newProject(t)
	site := newIdentity(t)
	if err := p.AddRecipient(ctx, site.Recipient()); err != nil {
		t.Fatal(err)
	}
	first, err := Ensure(ctx, p, recovery, now)
	if err != nil {
		t.Fatal(err)
	}
	in, err := vault.OpenProject(ctx, p.Store(), "shop", site)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := newProject(t)
	own, err := Ensure(ctx, other, site, now)
	if err != nil {
		t.Fatal(err)
	}
	forge := func(before *Authority) string {
		t.Helper()
		a, err := create(ctx, in, before, []vault.Recipient{recovery.Recipient(), site.Recipient()}, now)
		if err != nil {
			t.Fatal(err)
		}
		return documentKey(p, a.Number)
	}
	second := forge(own) // signed, but by nobody whom the project knows
	if _, err := Read(ctx, p, recovery); !errors.Is(err, ErrForged) || !strings.Contains(err.Error(), second) {
		t.Errorf("a site's authority is read: %v", err)
	}
	if _, err := Rotate(ctx, p, recovery, now); !errors.Is(err, ErrForged) {
		t.Errorf("another is begun after it: %v", err)
	}
	// A console that knows the project's own goes on with that; nobody does with the site's.
	if a, err := ReadOn(ctx, p, recovery, first); err != nil || a.Number != 1 || !errors.Is(a.Planted, ErrForged) || !strings.Contains(a.Planted.Error(), second) {
		t.Errorf("a console is kept from going on: %+v, %v", a, err)
	}
	if _, err := ReadOn(ctx, p, recovery, own); !errors.Is(err, ErrForged) {
		t.Errorf("who knows another goes on: %v", err)
	}
	if err := p.Store().Delete(ctx, second); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int64{0, -1, math.MinInt64} { // before the first there is none
		if err := p.Store().Put(ctx, documentKey(p, n), strings.NewReader("x"), 1); err != nil {
			t.Fatal(err)
		}
		if a, err := Read(ctx, p, recovery); err != nil || a.Number != 1 {
			t.Errorf("authority %d keeps all from the project's own: %v", n, err)
		}
	}
	both, err := Rotate(ctx, p, recovery, now) // the control, and the way back
	if err != nil || !both.Follows(first) || !both.Follows(both) || both.Follows(own) {
		t.Fatalf("%+v, %v", both, err)
	}
	// What a site writes retires nothing, and keeps nobody from going on.
	if err := p.Store().Put(ctx, inventoryKey(p, 1), strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	still := func(by string) {
		t.Helper()
		if a, err := Read(ctx, p, recovery); err != nil || len(a.Trusted()) != 2 {
			t.Errorf("retired by %s: %+v, %v", by, a, err)
		}
	}
	still("who has no key")
	list, err := own.Seal(inventoryKey(p, 1), []byte(`{"formatVersion":1}`))
	if err == nil {
		err = in.WriteSealed(ctx, inventoryKey(p, 1), list)
	}
	if err != nil {
		t.Fatal(err)
	}
	still("a site")
	// With all of it in place of the project's own, it is not what went before.
	for _, key := range []string{inventoryKey(p, 1), documentKey(p, 1), second} {
		if err := p.Store().Delete(ctx, key); err != nil {
			t.Fatal(err)
		}
	}
	forge(nil)
	theirs, err := Read(ctx, p, recovery)
	if err != nil {
		t.Fatal(err)
	}
	forge(theirs)
	if theirs, err = Read(ctx, p, recovery); err != nil || theirs.Number != 2 || theirs.Follows(first) {
		t.Errorf("%+v, %v", theirs, err)
	}
}

// Whoever has the project's data key can write that he was let into the authority: the next
// one is not open to him for that. Of those that earlier versions let in somebody has to
// say who they are.
func TestNobodyLetsHimselfIn(t *testing.T) {
	ctx := t.Context()
	p, recovery := newProject(t)
	console, site, former := newIdentity(t), newIdentity(t), newIdentity(t)
	first, err := Ensure(ctx, p, recovery, now)
	for _, r := range []vault.Recipient{console.Recipient(), site.Recipient(), former.Recipient()} {
		err = errors.Join(err, p.AddRecipient(ctx, r))
	}
	err = errors.Join(err, first.Admit(ctx, p, console.Recipient()))
	// What the site writes wraps a key of its own; an earlier version wrote no proof.
	guess := &Authority{Number: 1, wrapping: new(seal.Key)}
	for id, key := range map[vault.Identity]*seal.Key{site: guess.wrapping, former: first.wrapping} {
		w := wrap{FormatVersion: formatVersion, Recipient: id.Recipient().String()}
		var wrapErr error
		if w.Wrapped, wrapErr = id.Recipient().Wrap(key); id == site {
			w.Proof = guess.proof(id.Recipient())
		}
		data, jsonErr := json.Marshal(w)
		err = errors.Join(err, wrapErr, jsonErr, p.WriteSealedOnce(ctx, wrapKey(p, 1, first.wrapping.ID().String(), id.Recipient()), data))
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = Rotate(ctx, p, console, now)
	if !errors.Is(err, ErrUnproven) || !strings.Contains(err.Error(), site.Recipient().String()) || !strings.Contains(err.Error(), former.Recipient().String()) || strings.Contains(err.Error(), recovery.Recipient().String()) {
		t.Fatalf("who is not known is let in, or not named: %v", err)
	}
	if all, err := List(ctx, p); err != nil || len(all) != 1 {
		t.Errorf("it was refused, and begun: %v, %v", all, err)
	}
	if _, err := Rotate(ctx, p, console, now, former.Recipient().String()); err != nil {
		t.Fatal(err)
	}
	for _, id := range []vault.Identity{console, recovery} {
		if _, err := Read(ctx, p, id); err != nil {
			t.Error(err)
		}
	}
	if a, err := Read(ctx, p, former); err != nil || a.Number != 2 {
		t.Errorf("who is named stays out: %v", err)
	}
	if _, err := Read(ctx, p, site); !errors.Is(err, vault.ErrKey) {
		t.Errorf("a site has the newer authority: %v", err)
	}
}

// The next authority is open to a recovery key: with consoles alone, it would be lost with
// them. One that was made later is let in, by name, into the former ones too.
func TestRecoveryKeyStays(t *testing.T) {
	ctx := t.Context()
	p, recovery := newProject(t)
	console, site, later := newIdentity(t), newIdentity(t), newIdentity(t)
	first, err := Ensure(ctx, p, recovery, now)
	if err != nil {
		t.Fatal(err)
	}
	err = Enroll(ctx, p, Console{Name: "watch", Recipient: console.Recipient().String(), Created: now})
	for _, r := range []vault.Recipient{console.Recipient(), site.Recipient(), later.Recipient()} {
		err = errors.Join(err, p.AddRecipient(ctx, r))
	}
	in, openErr := vault.OpenProject(ctx, p.Store(), "shop", console)
	err = errors.Join(err, openErr, first.Admit(ctx, p, console.Recipient()))
	if err == nil {
		err = in.Heartbeat(ctx, vault.SiteStatus{Site: "east", Recipient: site.Recipient().String(), Written: now})
	}
	if err == nil {
		_, err = in.Rotate(ctx, vault.Rotation{Remove: []vault.Recipient{recovery.Recipient()}})
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		named []string
		want  error
	}{
		"nobody":             {nil, ErrNoRecovery},
		"the console":        {[]string{console.Recipient().String()}, ErrNoRecovery},
		"a site":             {[]string{site.Recipient().String()}, ErrNamed},
		"who was removed":    {[]string{recovery.Recipient().String()}, ErrNamed},
		"one and a site too": {[]string{later.Recipient().String(), site.Recipient().String()}, ErrNamed},
	} {
		if _, err := Rotate(ctx, in, console, now, c.named...); !errors.Is(err, c.want) {
			t.Errorf("%s named: %v", name, err)
		}
	}
	if _, err := Read(ctx, in, later); !errors.Is(err, vault.ErrKey) { // it was refused, and lets nobody in
		t.Errorf("a key that was refused, or not named: %v", err)
	}
	if _, err := Rotate(ctx, in, console, now, later.Recipient().String()); err != nil {
		t.Fatal(err)
	}
	asLater, err := vault.OpenProject(ctx, p.Store(), "shop", later)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := Read(ctx, asLater, later); err != nil || a.Number != 2 || len(a.Former) != 1 {
		t.Errorf("%+v, %v", a, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"formatVersion":1,"number":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := parse(data)
		if err != nil {
			return
		}
		if _, err := d.open("x", new(seal.Key)); err == nil {
			t.Error("a document without a key opens")
		}
	})
}
