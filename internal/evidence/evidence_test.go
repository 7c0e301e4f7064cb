package evidence

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func project(t testing.TB) *vault.Project {
	t.Helper()
	key, err := vault.NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	p, err := vault.CreateProject(t.Context(), mem.New(time.Now), "acme", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func open(t *testing.T, p *vault.Project, run, by string) *journal.Journal {
	t.Helper()
	spec := &failover.Spec{
		Run: run, Plan: "shop", Verb: plan.Drill, To: "west", By: by, At: at, Accept: failover.TimedOut, Applications: []string{"shop"},
		Steps: []plan.Step{{Name: "cleanup", Kind: plan.KindCleanup, Timeout: time.Minute}},
	}
	j := journal.Create(p, run, "one")
	add(t, j, failover.Entry{Kind: failover.Opened, At: at, By: by, Spec: spec}, failover.Entry{Kind: failover.Took, At: at, By: "one"})
	return j
}

func add(t *testing.T, j *journal.Journal, entries ...failover.Entry) {
	t.Helper()
	if err := j.Append(t.Context(), entries); err != nil {
		t.Fatal(err)
	}
}

func TestReportsAreKeptAndGenuine(t *testing.T) {
	p := project(t)
	j := open(t, p, "r1", "ann")
	first, err := Publish(t.Context(), p, "r1")
	if err != nil {
		t.Fatal(err)
	}
	again, err := Publish(t.Context(), p, "r1")
	if err != nil || again.Signature != first.Signature {
		t.Fatalf("%v: another report of the same records", err)
	}
	add(t, j, failover.Entry{Kind: failover.Evaluated, At: at, Facts: &failover.Facts{Problems: []string{"no room"}}}) // it fails
	if proof, err := Verify(t.Context(), p, first); err != nil || proof.Newer != 1 {
		t.Errorf("%v %+v", err, proof)
	}
	last, err := Publish(t.Context(), p, "r1")
	if err != nil || !last.Over || last.Records != 2 || !strings.Contains(last.HTML, "no room") {
		t.Fatalf("%v %+v", err, last)
	}
	if newest, err := Latest(t.Context(), p, "r1"); err != nil || newest.Signature != last.Signature {
		t.Errorf("%v: not the newest", err)
	}
	if proof, err := Verify(t.Context(), p, last); err != nil || proof.Newer != 0 {
		t.Errorf("%v %+v", err, proof)
	}
	open(t, p, "r2", "bob")
	if _, err := Publish(t.Context(), p, "r2"); err != nil {
		t.Fatal(err)
	}
	if _, err := Publish(t.Context(), p, "r3"); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("of a run that is not: %v", err)
	}
}

// TestADamagedReportIsMadeAnew: all that it said is in the journal.
func TestADamagedReportIsMadeAnew(t *testing.T) {
	p := project(t)
	open(t, p, "r1", "ann")
	if _, err := Publish(t.Context(), p, "r1"); err != nil {
		t.Fatal(err)
	}
	if err := p.Store().Put(t.Context(), key(p, "r1", stored{records: 1}), strings.NewReader("rot"), 3); err != nil {
		t.Fatal(err)
	}
	if _, err := Latest(t.Context(), p, "r1"); !errors.Is(err, vault.ErrDamaged) {
		t.Fatalf("%v: it is not damaged", err)
	}
	if _, err := Publish(t.Context(), p, "r1"); err != nil {
		t.Fatal(err)
	}
	d, err := Latest(t.Context(), p, "r1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(t.Context(), p, d); err != nil {
		t.Error(err)
	}
}

func TestForgeriesAreSeen(t *testing.T) {
	p, other := project(t), project(t)
	open(t, p, "r1", "ann")
	open(t, other, "r1", "mallory") // another journal under the same name
	good, err := Publish(t.Context(), p, "r1")
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := Publish(t.Context(), other, "r1")
	if err != nil {
		t.Fatal(err)
	}
	private, err := signer(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	resign := func(d *Document) {
		d.Key, d.Signature = public(private), base64.StdEncoding.EncodeToString(ed25519.Sign(private, d.signed()))
	}
	for name, forge := range map[string]func(d *Document){
		"a word of the text":      func(d *Document) { d.JSON = strings.Replace(d.JSON, "ann", "bob", 1) },
		"a word of the page":      func(d *Document) { d.HTML = strings.Replace(d.HTML, "ann", "bob", 1) },
		"the run":                 func(d *Document) { d.Run = "r2" },
		"how many records":        func(d *Document) { d.Records = 7 },
		"the head":                func(d *Document) { d.Head = strings.Repeat("0", 64) },
		"that it is over":         func(d *Document) { d.Over = !d.Over },
		"no signature":            func(d *Document) { d.Signature = "" },
		"another project's key":   func(d *Document) { *d = *foreign },
		"another journal, signed": func(d *Document) { *d = *foreign; resign(d) },
		"another head, signed":    func(d *Document) { d.Head = strings.Repeat("0", 64); resign(d) },
	} {
		d := *good
		forge(&d)
		if _, err := Verify(t.Context(), p, &d); !errors.Is(err, ErrForged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Verify(t.Context(), p, good); err != nil {
		t.Errorf("the genuine one: %v", err)
	}
}

// TestOneKey: whoever comes second finds the key of the first.
func TestOneKey(t *testing.T) {
	p := project(t)
	one, err := signer(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	two, err := signer(t.Context(), p)
	if err != nil || !one.Equal(two) {
		t.Errorf("%v: two keys", err)
	}
}

func FuzzParse(f *testing.F) {
	seed := make([]byte, ed25519.SeedSize)
	k := ed25519.NewKeyFromSeed(seed)
	good, _ := json.Marshal(signing{1, algorithm, base64.StdEncoding.EncodeToString(seed), hex.EncodeToString(k[ed25519.SeedSize:])})
	f.Add(good)
	f.Add([]byte(`{"formatVersion":1,"run":"r","records":1,"json":"{}"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if d, err := parse(data); err == nil {
			if _, err := d.Report(); err != nil && !errors.Is(err, vault.ErrDamaged) {
				t.Error(err)
			}
		}
		if k, err := parseKey(data); err == nil && len(k) != ed25519.PrivateKeySize {
			t.Errorf("a key of %d bytes", len(k))
		}
	})
}
