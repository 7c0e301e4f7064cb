package authority

import (
	"crypto/x509"
	"encoding/json"
	"errors"
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
