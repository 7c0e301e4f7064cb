package takeover_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/uplink/beacon"
	"davit.dev/davit/internal/uplink/dial"
	"davit.dev/davit/internal/uplink/dial/dialtest"
	"davit.dev/davit/internal/uplink/outbox"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fs"
)

// taker takes documents, and notes when a console of a lower epoch asks for one.
type taker struct {
	mu    sync.Mutex
	epoch int64
	stale []string
	names map[string]bool
}

func (h *taker) Take(_ context.Context, d uplink.Document) uplink.Told {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d.Epoch < h.epoch {
		h.stale = append(h.stale, fmt.Sprintf("%s: epoch %d after %d", d.Name, d.Epoch, h.epoch))
	}
	h.epoch = d.Epoch
	h.names[d.Name] = !d.Gone
	return uplink.Told{State: uplink.Applied}
}

func (h *taker) has(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.names[name]
}

// agent is one that runs, over the real protocol, with the pauses of real ones.
type agent struct {
	*dial.Client
	taker *taker

	mu   sync.Mutex
	says dial.Status
	told int // events
}

func (a *agent) status() dial.Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.says
}

// happen has something happen at the agent's site.
func (a *agent) happen(t *testing.T) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.told++
	if err := a.Outbox.Append(uplink.Event{Reason: strconv.Itoa(a.told)}); err != nil {
		t.Error(err)
	}
}

// inVault reads in the project's vault which console is active.
type inVault struct{ p *vault.Project }

func (v inVault) Active(ctx context.Context, l dial.Link) (beacon.Record, error) {
	return beacon.Find(ctx, v.p, l.Console, l.Authorities, l.Epoch)
}

// vault opens the project's, as a site does; nil where only the consoles reach it.
func (r *rig) vault() dial.Vault {
	r.t.Helper()
	if p := r.project(); p != nil {
		return inVault{p}
	}
	return nil
}

// project is that of the vault; nil where only the consoles reach it.
func (r *rig) project() *vault.Project {
	r.t.Helper()
	dir, ok := strings.CutPrefix(r.place.flags[1], "file://")
	if !ok {
		return nil
	}
	store, err := fs.Open(dir)
	r.must(err)
	text, err := os.ReadFile(r.dir + "/key")
	r.must(err)
	key, err := vault.ParseIdentity(string(text))
	r.must(err)
	p, err := vault.OpenProject(r.t.Context(), store, project, key)
	r.must(err)
	return p
}

// agents lets so many in. Each knows both consoles, but where there is a vault to
// read in every other one knows only the first.
func (r *rig) agents(n int) []*agent {
	r.t.Helper()
	all, v := make([]*agent, n), r.vault()
	for i := range all {
		site := fmt.Sprintf("s%02d", i)
		var made struct{ Token string }
		r.call(r.a, r.token, "POST", "/projects/"+project+"/enrolments", map[string]any{"site": site, "minutes": 10}, &made)
		link := dial.Link{URLs: []string{r.a.front, r.b.front}, Token: made.Token, Documents: []string{dial.Everywhere}}
		if v != nil && i%2 == 1 {
			link.URLs = link.URLs[:1]
		}
		all[i] = r.agent(site, link, v, nil)
	}
	r.back(all, r.a)
	return all
}

func (r *rig) agent(site string, l dial.Link, v dial.Vault, b dial.Begins) *agent {
	r.t.Helper()
	box, err := outbox.Open(filepath.Join(r.t.TempDir(), "outbox"), 0)
	r.must(err)
	a := &agent{taker: &taker{names: map[string]bool{}}}
	a.Client = &dial.Client{
		Site: site, Version: "test", Keep: dialtest.Keep(l), Board: dial.NewBoard(), Outbox: box, Hands: a.taker, Vault: v, Begins: b, Now: time.Now,
		Tell: func(s dial.Status) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.says = s
		},
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	ended := make(chan struct{})
	go func() { defer close(ended); a.Run(ctx) }()
	r.t.Cleanup(func() { cancel(); <-ended; _ = box.Close() })
	return a
}

// back waits until all agents are connected to a console.
func (r *rig) back(all []*agent, to *console) {
	r.t.Helper()
	until(r.t, "with all agents: "+to.name, func() bool {
		for _, a := range all {
			if s := a.status(); !s.Connected || s.URL != to.front {
				return false
			}
		}
		return true
	})
}

// delivered waits until all events were taken, and fails unless each arrived once
// and in order.
func (r *rig) delivered(all []*agent, at *console) {
	r.t.Helper()
	until(r.t, "told of all events", func() bool {
		for _, a := range all {
			if a.Outbox.Len() > 0 {
				return false
			}
		}
		return true
	})
	whole := 0
	for _, a := range all {
		got := r.events(at, a.Site)
		for i, e := range got {
			if e.Reason != strconv.Itoa(i+1) || e.Lost != 0 {
				r.t.Fatalf("site %s: event %s is the %d. that arrived, and %d were lost", a.Site, e.Reason, i+1, e.Lost)
			}
		}
		if len(got) != a.told {
			r.t.Errorf("site %s: %d events of %d arrived", a.Site, len(got), a.told)
		}
		whole += len(got)
	}
	r.t.Logf("%d events of %d sites arrived once and in order", whole, len(all))
}

// event is one as a console has it.
type event struct {
	Number int64
	Reason string
	Lost   int64
}

// events are all of a site.
func (r *rig) events(at *console, site string) (all []event) {
	r.t.Helper()
	for after := int64(0); ; after = all[len(all)-1].Number {
		var page struct{ Items []event }
		r.call(at, r.robot, "GET", fmt.Sprintf("/projects/%s/events?after=%d&limit=1000&site=%s", project, after, site), nil, &page)
		if len(page.Items) == 0 {
			return all
		}
		all = append(all, page.Items...)
	}
}

// commanded fails if a console that was replaced commanded anybody, and waits
// until a site has what was acknowledged for it.
func (r *rig) commanded(all []*agent, acked []string) {
	r.t.Helper()
	for _, a := range all {
		a.taker.mu.Lock()
		for _, s := range a.taker.stale {
			r.t.Errorf("site %s was commanded by a console that was replaced: %s", a.Site, s)
		}
		a.taker.mu.Unlock()
	}
	until(r.t, "handed on to its site: all that was acknowledged", func() bool {
		for _, name := range acked {
			if name[len(name)-1] == '5' && !all[0].taker.has(name) {
				return false
			}
		}
		return true
	})
}
