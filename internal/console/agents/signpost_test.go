package agents

import (
	"context"
	"strings"
	"testing"

	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/uplink/beacon"
	"davit.dev/davit/internal/uplink/dial"
	"davit.dev/davit/internal/vault"
)

// inVault asks a project's vault where the active console is.
type inVault struct{ p *vault.Project }

func (v inVault) Active(ctx context.Context, l dial.Link) (beacon.Record, error) {
	return beacon.Find(ctx, v.p, l.Console, l.Authorities, l.Epoch)
}

// An agent whose console does not answer, or is not the active one, goes where the
// vault says, if the project's authority says it there. Each record that is refused
// is beside a good one, which the same agent follows then.
func TestVaultSaysWhereTheConsoleIs(t *testing.T) {
	w := newWorld(t)
	p, trusted, other := w.vaults["acme"], w.roots["acme"][0], w.roots["other"][0]
	w.vault = inVault{p}
	a := w.agent("east", w.link(w.token("acme", "east")))
	a.await(t, "connected", connected)
	a.stop()
	known, _ := a.keep.Load(t.Context())
	if known.Console != w.console.ID() {
		t.Fatalf("it knows console %q", known.Console)
	}
	known.URLs = []string{"https://127.0.0.1:1"} // nobody listens there
	here := beacon.Record{Console: known.Console, Project: "acme", Epoch: 1, URL: "https://" + w.address}
	put := func(r beacon.Record, as *authority.Authority) {
		t.Helper()
		if err := beacon.Put(t.Context(), p, r, as, as.Certificate); err != nil {
			t.Fatal(err)
		}
	}
	lost := func(text string) func(dial.Status) bool {
		return func(s dial.Status) bool { return !s.Connected && strings.Contains(s.Fault, text) }
	}
	epoch := int64(0)
	for name, c := range map[string]struct {
		spoil func(r *beacon.Record)
		by    *authority.Authority
		says  string
	}{
		"none":             {says: "127.0.0.1:1"},
		"forged":           {by: other, says: "not signed"},
		"foreign project":  {by: trusted, spoil: func(r *beacon.Record) { r.Project = "other" }, says: "not signed"},
		"no console there": {by: trusted, spoil: func(r *beacon.Record) { r.URL = "http://127.0.0.1:1" }, says: "none of a console"},
	} {
		epoch += 2
		link := known
		link.Epoch = epoch
		w.speak(epoch + 1)
		bad, good := here, here
		bad.Epoch, good.Epoch = epoch, epoch+1
		if c.spoil != nil {
			c.spoil(&bad)
		}
		if c.by != nil {
			put(bad, c.by)
		}
		a := w.agent("east", link)
		a.await(t, "lost: "+name, lost(c.says))
		put(good, trusted)
		s := a.await(t, "connected: "+name, connected)
		if s.URL != good.URL {
			t.Errorf("%s: it speaks to %s", name, s.URL)
		}
		a.stop()
	}
	// One that was heard of a higher epoch is not led back.
	link := known
	link.Epoch = epoch + 10
	a = w.agent("east", link)
	a.await(t, "lost: old", lost("was heard"))
	w.speak(link.Epoch)
	here.Epoch = link.Epoch
	put(here, trusted)
	a.await(t, "connected at last", connected)
}

// speak has the console be of an epoch.
func (w *world) speak(epoch int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.speaks.Epoch = epoch
}
