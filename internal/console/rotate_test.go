package console

import (
	"crypto/x509"
	"os"
	"slices"
	"testing"

	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/vault"
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
	p, err := vault.OpenProject(t.Context(), w.vaults["mem:"+home], home, w.keys[home])
	if err != nil {
		t.Fatal(err)
	}
	old, err := authority.Read(t.Context(), p, w.keys[home])
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
	if _, err := authority.Retire(t.Context(), p, w.keys[home], w.now); err != nil {
		t.Fatal(err)
	}
	consoletest.Until(t, "retired", func() (bool, string) { return slices.Equal(w.numbers(home), []int64{2}), "" })
	consoletest.Until(t, "served by the newer one", func() (bool, string) { return w.mayTrust(both), "" })
	if w.mayTrust(old) {
		t.Error("the former authority is trusted still")
	}
	again("after")
	consoletest.Until(t, "by the newer one", func() (bool, string) { return slices.Equal(w.numbers(home), []int64{2}) && w.mayTrust(both), "" })
}
