package lease

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fault"
	"davit.dev/davit/internal/vault/mem"
)

func keptProject(t *testing.T) *vault.Project {
	t.Helper()
	id, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	p, err := vault.CreateProject(t.Context(), mem.New(nil), "acme", id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestTermsCountOnceEveryNodeKeepsThem: a claim alone proves nothing, nor do
// statements about another epoch or of another cluster, nor terms of a site
// whose name another cluster bore before.
func TestTermsCountOnceEveryNodeKeepsThem(t *testing.T) {
	terms := &Terms{LeaseMillis: 15000, BoundMillis: 10000, DriftPPM: 1000}
	epoch := func(n int64, site, cluster string, t *Terms) Epoch {
		return Epoch{Number: n, Claim: Claim{Site: site, Cluster: cluster, Terms: t}}
	}
	promised := func(peers ...string) []Epoch {
		t := *terms
		for _, site := range peers {
			t.Peers = append(t.Peers, Peer{Site: site, Cluster: site[:1], Address: site + ":1"})
		}
		return []Epoch{epoch(1, "east", "e", nil), epoch(2, "east", "e", &t)}
	}
	armed := []Epoch{epoch(1, "east", "e", nil), epoch(2, "east", "e", terms), epoch(3, "west", "w", nil)}
	for name, c := range map[string]struct {
		history []Epoch
		kept    *Kept
		movers  []Mover
		want    bool
		cluster string // of the target
	}{
		"stated":                                {armed, &Kept{Epoch: 2, Site: "east", Cluster: "e"}, nil, true, ""},
		"claimed only":                          {armed, nil, nil, false, ""},
		"of an earlier epoch":                   {armed, &Kept{Epoch: 1, Site: "east", Cluster: "e"}, nil, false, ""},
		"of another cluster":                    {armed, &Kept{Epoch: 2, Site: "east", Cluster: "x"}, nil, false, ""},
		"of another site":                       {armed, &Kept{Epoch: 2, Site: "west", Cluster: "w"}, nil, false, ""},
		"disarmed":                              {append(armed[:2:2], epoch(3, "east", "e", nil)), &Kept{Epoch: 2, Site: "east", Cluster: "e"}, nil, false, ""},
		"a name passed on":                      {append([]Epoch{epoch(1, "east", "old", nil)}, epoch(2, "east", "e", terms)), &Kept{Epoch: 2, Site: "east", Cluster: "e"}, nil, false, ""},
		"no lease in it":                        {[]Epoch{epoch(2, "east", "e", &Terms{BoundMillis: 1})}, &Kept{Epoch: 2, Site: "east", Cluster: "e"}, nil, false, ""},
		"held nothing":                          {[]Epoch{epoch(1, "west", "w", terms)}, nil, nil, false, ""},
		"it came over, and held it since":       {armed, &Kept{Epoch: 2, Site: "east", Cluster: "e"}, []Mover{{"east", "e"}}, true, ""},
		"it came over":                          {[]Epoch{epoch(2, "west", "w", terms)}, &Kept{Epoch: 2, Site: "west", Cluster: "w"}, []Mover{{"east", "e"}}, false, ""},
		"one of its name came over":             {armed, &Kept{Epoch: 2, Site: "east", Cluster: "e"}, []Mover{{"east", "old"}}, false, ""},
		"another site came over":                {armed, &Kept{Epoch: 2, Site: "east", Cluster: "e"}, []Mover{{"west", "old"}}, true, ""},
		"the target is a peer":                  {promised("north", "west"), &Kept{Epoch: 2, Site: "east", Cluster: "e", Peers: []string{"north", "west"}}, nil, true, ""},
		"the target is no peer":                 {promised("north"), &Kept{Epoch: 2, Site: "east", Cluster: "e", Peers: []string{"north"}}, nil, false, ""},
		"of a version without promises":         {promised("north", "west"), &Kept{Epoch: 2, Site: "east", Cluster: "e"}, nil, true, ""},
		"without its clusters":                  {[]Epoch{epoch(2, "east", "", terms)}, &Kept{Epoch: 2, Site: "east", Cluster: "e"}, nil, false, ""},
		"a later cluster has the target's name": {promised("north", "west"), &Kept{Epoch: 2, Site: "east", Cluster: "e", Peers: []string{"north", "west"}}, nil, false, "w2"},
	} {
		p := keptProject(t)
		if c.kept != nil {
			c.kept.Application, c.kept.Nodes = "shop", []string{"n1"}
			for range 2 { // its answer may be lost
				if err := StateKept(t.Context(), p, *c.kept); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
		}
		got, kept, err := Leased(t.Context(), p, "shop", "east", Identity{"west", cmp.Or(c.cluster, "w")}, c.history, c.movers)
		if err != nil || kept != c.want || kept && got.LeaseMillis != terms.LeaseMillis {
			t.Errorf("%s: %+v, %v, %v", name, got, kept, err)
		}
	}
}

func TestAStatementIsChecked(t *testing.T) {
	p := keptProject(t)
	good := Kept{Application: "shop", Epoch: 2, Site: "east", Cluster: "e", Nodes: []string{"n1"}}
	for name, bad := range map[string]func(*Kept){
		"no epoch": func(k *Kept) { k.Epoch = 0 }, "no cluster": func(k *Kept) { k.Cluster = "" }, "no nodes": func(k *Kept) { k.Nodes = nil },
		"no name": func(k *Kept) { k.Application = "../x" },
	} {
		k := good
		bad(&k)
		if err := StateKept(t.Context(), p, k); err == nil {
			t.Errorf("%s: stated", name)
		}
	}
	if err := StateKept(t.Context(), p, good); err != nil {
		t.Fatal(err)
	}
	other := good
	other.Site, other.Cluster = "west", "w"
	if err := StateKept(t.Context(), p, other); err == nil {
		t.Error("another site states the same epoch's lease")
	}
}

// A statement that nobody can read is none: it keeps nobody from failing over, by people's word.
// Whoever made it makes it again. That the vault is silent is an answer of another kind.
func TestADamagedStatementIsNone(t *testing.T) {
	history := []Epoch{{Number: 1, Claim: Claim{Site: "east", Cluster: "e", Terms: &Terms{LeaseMillis: 15000}}}}
	good := Kept{Application: "shop", Epoch: 1, Site: "east", Cluster: "e", Nodes: []string{"n1"}}
	for name, spoil := range map[string]func(p *vault.Project) error{
		"damaged": func(p *vault.Project) error {
			return p.Store().Put(t.Context(), keptKey(p, "shop", 1), strings.NewReader("?"), 1)
		},
		"newer": func(p *vault.Project) error {
			return p.WriteSealed(t.Context(), keptKey(p, "shop", 1), []byte(`{"formatVersion":3}`))
		},
	} {
		p := keptProject(t)
		if err := StateKept(t.Context(), p, good); err != nil {
			t.Fatal(err)
		}
		if err := spoil(p); err != nil {
			t.Fatal(err)
		}
		if _, kept, err := Leased(t.Context(), p, "shop", "east", Identity{"west", "w"}, history, nil); err != nil || kept {
			t.Errorf("%s: %v, %v", name, kept, err)
		}
		err := StateKept(t.Context(), p, good)
		_, kept, read := Leased(t.Context(), p, "shop", "east", Identity{"west", "w"}, history, nil)
		if again := name == "damaged"; (err == nil) != again || read != nil || kept != again {
			t.Errorf("%s: stated again: %v; kept: %v, %v", name, err, kept, read)
		}
	}
	store := fault.New(mem.New(nil), 1, fault.Faults{})
	id, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	p, err := vault.CreateProject(t.Context(), store, "acme", id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	store.Set(fault.Faults{Refuse: 1})
	if _, _, err := Leased(t.Context(), p, "shop", "east", Identity{"west", "w"}, history, nil); !errors.Is(err, vault.ErrUnavailable) {
		t.Errorf("a silent vault: %v", err)
	}
}

func FuzzKept(f *testing.F) {
	f.Add([]byte(`{"formatVersion":1,"application":"shop","epoch":2,"site":"east","cluster":"e","nodes":["n1"]}`))
	f.Add([]byte(`{"formatVersion":3}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := parseKept(data)
		if err == nil && (k.Epoch < 1 || k.Cluster == "" || len(k.Nodes) == 0) {
			t.Errorf("%+v", k)
		}
	})
}

// TestPeersAreClusters: a claim names those that bear the other sites' names; where the vault does not know one, nobody is asked.
func TestPeersAreClusters(t *testing.T) {
	p := keptProject(t)
	f := plan.Fence{Lease: 15 * time.Second, Promises: true, Peers: map[string]string{"east": "e:1", "west": "w:1", "north": "n:1"}}
	for _, sign := range []vault.SiteStatus{{Site: "west", Cluster: "w"}, {Site: "north"}, {Site: "north", Cluster: "n"}} {
		if err := p.Heartbeat(t.Context(), sign); err != nil {
			t.Fatal(err)
		}
		var want []Peer
		if sign.Cluster == "n" {
			want = []Peer{{"north", "n", "n:1"}, {"west", "w", "w:1"}}
		}
		if got, err := TermsOf(t.Context(), p, f, "east"); err != nil || !slices.Equal(got.Peers, want) {
			t.Errorf("after %+v: %+v, %v", sign, got, err)
		}
	}
	f.Promises = false
	if got, err := TermsOf(t.Context(), p, f, "east"); err != nil || got.Peers != nil || got.LeaseMillis != 15_000 {
		t.Errorf("%+v, %v", got, err)
	}
}
