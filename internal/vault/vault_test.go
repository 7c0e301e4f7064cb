package vault_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

var instant = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func identity(t *testing.T) vault.Identity {
	t.Helper()
	id, err := vault.NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// project makes a vault with one project in the store.
func project(t *testing.T, store vault.Store) (*vault.Project, vault.Identity) {
	t.Helper()
	if _, err := vault.Init(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	recovery := identity(t)
	p, err := vault.CreateProject(t.Context(), store, "acme", recovery.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	return p, recovery
}

func manifest() *point.Manifest {
	return &point.Manifest{
		Site: "east", Epoch: 1, Trigger: "manual", Instant: instant, CutBy: instant.Add(time.Second),
		Consistency: point.Crash, Namespaces: []string{"shop"},
	}
}

// publish writes a point with n small objects of each of two kinds.
func publish(t *testing.T, p *vault.Project, app, id string, n int) *point.Manifest {
	t.Helper()
	w, err := p.NewWriter(t.Context(), app, id)
	if err != nil {
		t.Fatal(err)
	}
	m := manifest()
	for _, kind := range []string{"configmaps", "secrets"} {
		r := w.Resource(point.Resource{Version: "v1", Resource: kind, Namespaced: true})
		for i := range n {
			if err := r.Add(t.Context(), object(kind, i)); err != nil {
				t.Fatal(err)
			}
		}
		res, err := r.Close(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m.Resources = append(m.Resources, res)
	}
	if err := w.Log(t.Context(), []vault.LogEntry{{At: instant, Level: "info", Message: "captured"}}); err != nil {
		t.Fatal(err)
	}
	if err := w.Publish(t.Context(), m, nil); err != nil {
		t.Fatal(err)
	}
	return m
}

func object(kind string, i int) []byte {
	return fmt.Appendf(nil, `{"kind":%q,"metadata":{"name":"n%d"}}`, kind, i)
}

func keys(t *testing.T, store vault.Store) []string {
	t.Helper()
	var all []string
	err := store.List(t.Context(), "", func(o vault.ObjectInfo) error {
		all = append(all, o.Key)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func read(t *testing.T, store vault.Store, key string) []byte {
	t.Helper()
	r, err := store.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t *testing.T, store vault.Store, key string, data []byte) {
	t.Helper()
	if err := store.Put(t.Context(), key, bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
}

func TestInitIsIdempotent(t *testing.T) {
	store := mem.New(nil)
	if _, err := vault.ReadMarker(t.Context(), store); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("ReadMarker of an empty store = %v, want ErrNotFound", err)
	}
	var wg sync.WaitGroup
	markers := make([]vault.Marker, 20)
	for i := range markers {
		wg.Go(func() {
			var err error
			if markers[i], err = vault.Init(t.Context(), store); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if unique := slices.Compact(markers); len(unique) != 1 || len(unique[0].ID) != 32 {
		t.Errorf("racing Inits returned %+v", unique)
	}
}

func TestProjectOpensForItsRecipientsOnly(t *testing.T) {
	store := mem.New(nil)
	p, recovery := project(t, store)
	keyring, err := vault.Admit(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AddRecipient(t.Context(), keyring.Identity.Recipient()); err != nil {
		t.Errorf("admitting again: %v", err)
	}
	again, err := vault.OpenProject(t.Context(), store, "acme", recovery)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := vault.ParseKeyring(keyring.Secret())
	if err != nil {
		t.Fatal(err)
	}
	site, err := parsed.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	if len(site.RepositoryKey("east")) != 32 || !bytes.Equal(again.RepositoryKey("east"), site.RepositoryKey("east")) {
		t.Error("passwords of a repository: want the same at all sites")
	}
	if _, err := vault.OpenProject(t.Context(), store, "acme", identity(t)); !errors.Is(err, vault.ErrKey) {
		t.Errorf("a stranger's key gave %v, want ErrKey", err)
	}
	if _, err := vault.OpenProject(t.Context(), store, "other", recovery); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("a missing project gave %v, want ErrNotFound", err)
	}
	recipients, err := p.Recipients(t.Context())
	if err != nil || len(recipients) != 2 {
		t.Errorf("Recipients = %v, %v", recipients, err)
	}
}

func TestKeyringRefusesAnotherVault(t *testing.T) {
	p, _ := project(t, mem.New(nil))
	keyring, err := vault.Admit(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	other := mem.New(nil)
	if _, err := vault.Init(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if _, err := vault.CreateProject(t.Context(), other, "acme", keyring.Identity.Recipient()); err != nil {
		t.Fatal(err)
	}
	if _, err := keyring.Open(t.Context(), other); !errors.Is(err, vault.ErrKey) {
		t.Errorf("another vault gave %v, want ErrKey", err)
	}
}

func TestCreateProjectRace(t *testing.T) {
	store := mem.New(nil)
	recovery := identity(t)
	var wg sync.WaitGroup
	created := make([]*vault.Project, 8)
	for i := range created {
		wg.Go(func() {
			p, err := vault.CreateProject(t.Context(), store, "acme", recovery.Recipient())
			if err != nil && !errors.Is(err, vault.ErrExists) {
				t.Error(err)
			}
			created[i] = p
		})
	}
	wg.Wait()
	created = slices.DeleteFunc(created, func(p *vault.Project) bool { return p == nil })
	if len(created) != 1 {
		t.Fatalf("%d projects of one name", len(created))
	}
	p, err := vault.OpenProject(t.Context(), store, "acme", recovery)
	if err != nil || p.KeyID() != created[0].KeyID() {
		t.Errorf("opened key %v, %v; want the winner's", p, err)
	}
	if all := keys(t, store); len(all) != 2 {
		t.Errorf("losers left keys behind: %q", all)
	}
}

func TestSecretsStayOutOfPrint(t *testing.T) {
	id := identity(t)
	for _, text := range []string{fmt.Sprint(id), fmt.Sprintf("%+v %#v", id, id), fmt.Sprintf("%v", vault.Keyring{Identity: id})} {
		if strings.Contains(text, "SECRET") {
			t.Errorf("printed %q", text)
		}
	}
	if data, err := json.Marshal(id); err == nil {
		t.Errorf("encoded %s", data)
	}
	_, err := vault.ParseIdentity(id.Secret()[:60])
	if !errors.Is(err, vault.ErrKey) || strings.Contains(err.Error(), id.Secret()[:30]) {
		t.Errorf("a cut key gave %v", err)
	}
	again, err := vault.ParseIdentity("# recovery key of acme\n\n  " + id.Secret() + "\r\n")
	if err != nil || again.Secret() != id.Secret() {
		t.Errorf("ParseIdentity of a file: %v", err)
	}
}

func TestPointRoundTrip(t *testing.T) {
	store := mem.New(nil)
	p, _ := project(t, store)
	want := publish(t, p, "shop", "shop-1", 100)
	points, err := p.Points(t.Context(), "shop")
	if err != nil || len(points) != 1 || points[0].Err != nil {
		t.Fatalf("Points = %+v, %v", points, err)
	}
	if diff := cmp.Diff(want, points[0].Manifest); diff != "" {
		t.Errorf("manifest (-want +got):\n%s", diff)
	}
	for _, res := range want.Resources {
		i := 0
		err := p.ReadResource(t.Context(), res, func(got []byte) error {
			if !bytes.Equal(got, object(res.Resource, i)) {
				t.Errorf("%s %d = %s", res.Resource, i, got)
			}
			i++
			return nil
		})
		if err != nil || i != 100 {
			t.Errorf("ReadResource gave %d objects, %v", i, err)
		}
	}
	log, err := p.Log(t.Context(), want)
	if err != nil || len(log) != 1 || log[0].Message != "captured" {
		t.Errorf("Log = %v, %v", log, err)
	}
	apps, err := p.Apps(t.Context())
	if err != nil || !slices.Equal(apps, []string{"shop"}) {
		t.Errorf("Apps = %q, %v", apps, err)
	}
}

// TestLargeResourcesAreSplit writes 24 MiB from several goroutines.
func TestLargeResourcesAreSplit(t *testing.T) {
	p, _ := project(t, mem.New(nil))
	w, err := p.NewWriter(t.Context(), "big", "big-1")
	if err != nil {
		t.Fatal(err)
	}
	m := manifest()
	m.Resources = make([]point.Resource, 3)
	var wg sync.WaitGroup
	for k := range m.Resources {
		wg.Go(func() {
			r := w.Resource(point.Resource{Version: "v1", Resource: fmt.Sprintf("kind%d", k)})
			for i := range 64 {
				if err := r.Add(t.Context(), bytes.Repeat([]byte{byte('a' + i%26)}, 128<<10)); err != nil {
					t.Error(err)
				}
			}
			var err error
			if m.Resources[k], err = r.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := w.Publish(t.Context(), m, nil); err != nil {
		t.Fatal(err)
	}
	for _, res := range m.Resources {
		if len(res.Packs) != 2 || res.Count != 64 {
			t.Errorf("%d objects in %d packs, want 64 in 2", res.Count, len(res.Packs))
		}
		i := 0
		err := p.ReadResource(t.Context(), res, func(got []byte) error {
			if len(got) != 128<<10 || got[0] != byte('a'+i%26) {
				t.Errorf("object %d has %d bytes of %c", i, len(got), got[0])
			}
			i++
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestNothingIsVisibleBeforePublish(t *testing.T) {
	store := mem.New(nil)
	p, _ := project(t, store)
	empty := keys(t, store)
	w, err := p.NewWriter(t.Context(), "shop", "shop-1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.NewWriter(t.Context(), "shop", "shop-1"); !errors.Is(err, vault.ErrExists) {
		t.Errorf("a second writer of one point gave %v, want ErrExists", err)
	}
	r := w.Resource(point.Resource{Resource: "secrets", Version: "v1"})
	if err := r.Add(t.Context(), []byte("{}")); err != nil {
		t.Fatal(err)
	}
	m := manifest()
	res, err := r.Close(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m.Resources = []point.Resource{res}
	superseded := errors.New("superseded")
	if err := w.Publish(t.Context(), m, func(context.Context) error { return superseded }); !errors.Is(err, superseded) {
		t.Errorf("Publish = %v, want the guard's error", err)
	}
	if points, err := p.Points(t.Context(), "shop"); err != nil || len(points) != 0 {
		t.Errorf("Points = %v, %v; want none", points, err)
	}
	if err := w.Abort(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(empty, keys(t, store)); diff != "" {
		t.Errorf("Abort left (-want +got):\n%s", diff)
	}
}

func TestPublishRefusesBadManifests(t *testing.T) {
	p, _ := project(t, mem.New(nil))
	other := publish(t, p, "shop", "shop-0", 1)
	w, err := p.NewWriter(t.Context(), "shop", "shop-1")
	if err != nil {
		t.Fatal(err)
	}
	spoil := map[string]func(*point.Manifest){
		"unread entries": func(m *point.Manifest) {
			m.Volumes = []point.Volume{{Consistency: point.Crash, Snapshot: point.Snapshot{Errors: 1}}}
		},
		"too strong promise": func(m *point.Manifest) { m.Volumes = []point.Volume{{Consistency: point.Fuzzy}} },
		"no instant":         func(m *point.Manifest) { m.Instant = time.Time{} },
		"no site":            func(m *point.Manifest) { m.Site = "" },
		"another's packs":    func(m *point.Manifest) { m.Resources = other.Resources },
	}
	for name, change := range spoil {
		m := manifest()
		change(m)
		if err := w.Publish(t.Context(), m, nil); !errors.Is(err, point.ErrInvalid) {
			t.Errorf("%s: Publish = %v, want ErrInvalid", name, err)
		}
	}
}

func TestMarks(t *testing.T) {
	p, _ := project(t, mem.New(nil))
	publish(t, p, "shop", "shop-1", 1)
	state := func() vault.PointInfo {
		t.Helper()
		points, err := p.Points(t.Context(), "shop")
		if err != nil || len(points) != 1 || points[0].Err != nil {
			t.Fatalf("Points = %+v, %v", points, err)
		}
		return points[0]
	}
	mark := func(kind vault.MarkKind, after time.Duration) {
		t.Helper()
		if err := p.Mark(t.Context(), "shop", "shop-1", vault.Mark{Kind: kind, At: instant.Add(after), Site: "east"}); err != nil {
			t.Fatal(err)
		}
	}
	mark(vault.MarkPinned, 1*time.Second)
	mark(vault.MarkVerified, 2*time.Second)
	if s := state(); !s.Pinned() || !s.Verified().Equal(instant.Add(2*time.Second)) || s.Deleting() || s.Quarantined() {
		t.Errorf("state = %+v", s)
	}
	if err := p.DeletePoint(t.Context(), "shop", "shop-1"); !errors.Is(err, vault.ErrPinned) {
		t.Errorf("DeletePoint of a pinned point = %v, want ErrPinned", err)
	}
	mark(vault.MarkUnpinned, 3*time.Second)
	mark(vault.MarkQuarantined, 4*time.Second)
	if s := state(); s.Pinned() || !s.Quarantined() || s.Point().Good() {
		t.Errorf("state = %+v", s)
	}
	if err := p.Mark(t.Context(), "shop", "shop-1", vault.Mark{Kind: "odd"}); !errors.Is(err, vault.ErrName) {
		t.Errorf("an unknown kind gave %v", err)
	}
}

// TestPinsNeedNoClock lets writers whose clocks differ pin and unpin.
func TestPinsNeedNoClock(t *testing.T) {
	store := &between{Store: mem.New(nil)}
	p, _ := project(t, store)
	mark := func(id string, kind vault.MarkKind, clock time.Duration) {
		t.Helper()
		if err := p.Mark(t.Context(), "shop", id, vault.Mark{Kind: kind, At: instant.Add(clock), Site: "east"}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(name, id string, want bool) {
		t.Helper()
		points, err := p.Points(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		for _, info := range points {
			if info.ID == id && info.Pinned() != want {
				t.Errorf("%s: pinned is %v", name, info.Pinned())
			}
		}
	}
	for _, id := range []string{"slow", "again", "unseen"} {
		publish(t, p, "shop", id, 1)
	}
	mark("slow", vault.MarkPinned, time.Hour)
	mark("slow", vault.MarkUnpinned, 0) // its writer's clock is an hour behind
	check("unpinned by a slow clock", "slow", false)

	mark("again", vault.MarkUnpinned, time.Hour) // takes nothing off
	mark("again", vault.MarkPinned, 0)
	check("pinned by a slow clock", "again", true)
	mark("again", vault.MarkUnpinned, -time.Hour)
	check("unpinned by a slower one", "again", false)
	mark("again", vault.MarkPinned, -2*time.Hour)
	check("and pinned once more", "again", true)

	// Two sites at once: the second pin comes between what the unpin saw and
	// the unpin.
	mark("unseen", vault.MarkPinned, 0)
	store.before = func() { mark("unseen", vault.MarkPinned, 0) }
	mark("unseen", vault.MarkUnpinned, time.Hour)
	check("a pin that the unpin did not see", "unseen", true)
	mark("unseen", vault.MarkUnpinned, -time.Hour)
	check("now it is seen", "unseen", false)
}

// between does something right before an unpin is stored.
type between struct {
	vault.Store
	before func()
}

func (b *between) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	if do := b.before; do != nil && strings.Contains(key, "/"+string(vault.MarkUnpinned)+"-") {
		b.before = nil
		do()
	}
	return b.Store.PutIfAbsent(ctx, key, r, size)
}

func TestDeletePointLeavesNothing(t *testing.T) {
	store := mem.New(nil)
	p, _ := project(t, store)
	empty := keys(t, store)
	publish(t, p, "shop", "shop-1", 3)
	if err := p.Mark(t.Context(), "shop", "shop-1", vault.Mark{Kind: vault.MarkVerified}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.DeletePoint(t.Context(), "shop", "shop-1"); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(empty, keys(t, store)); diff != "" {
			t.Errorf("left (-want +got):\n%s", diff)
		}
	}
}

func TestDocuments(t *testing.T) {
	p, _ := project(t, mem.New(nil))
	if _, err := p.GetDocument(t.Context(), "shop"); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("GetDocument = %v, want ErrNotFound", err)
	}
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			d := vault.Document{Application: "shop", Site: "east", Objects: []json.RawMessage{json.RawMessage(fmt.Sprintf(`{"n":%d}`, i))}}
			if _, err := p.PutDocument(t.Context(), d); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	last, err := p.GetDocument(t.Context(), "shop")
	if err != nil || last.Revision != 6 {
		t.Fatalf("after 6 racing writes: revision %d, %v", last.Revision, err)
	}
	same, err := p.PutDocument(t.Context(), vault.Document{Application: "shop", Site: "west", Objects: last.Objects})
	if err != nil || same.Revision != 6 || same.Site != "east" {
		t.Errorf("the same again: %+v, %v; want revision 6 as it was", same, err)
	}
}

// TestDamagedDocumentIsFollowedByAGoodOne: a newest revision that cannot be read keeps no
// site from writing what it knows, and that is read then.
func TestDamagedDocumentIsFollowedByAGoodOne(t *testing.T) {
	p, _ := project(t, mem.New(nil))
	d := vault.Document{Application: "shop", Site: "east", Objects: []json.RawMessage{json.RawMessage(`{"n":1}`)}}
	for range 2 {
		if _, err := p.PutDocument(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	key := p.Root() + "apps/shop/00000000000000000001"
	if err := p.Store().Put(t.Context(), key, strings.NewReader("rot"), 3); err != nil {
		t.Fatal(err)
	}
	if _, err := p.GetDocument(t.Context(), "shop"); !errors.Is(err, vault.ErrDamaged) {
		t.Fatalf("GetDocument = %v, want ErrDamaged", err)
	}
	put, err := p.PutDocument(t.Context(), d)
	if err != nil || put.Revision != 2 {
		t.Errorf("put again: revision %d, %v", put.Revision, err)
	}
	if got, err := p.GetDocument(t.Context(), "shop"); err != nil || string(got.Objects[0]) != `{"n":1}` {
		t.Errorf("GetDocument = %+v, %v", got, err)
	}
}

// TestDocumentBesideAStrayObject: where it cannot be told which revision is the newest, none is
// written, and nobody tries for ever.
func TestDocumentBesideAStrayObject(t *testing.T) {
	p, _ := project(t, mem.New(nil))
	d := vault.Document{Application: "shop", Site: "east", Objects: []json.RawMessage{json.RawMessage(`{"n":1}`)}}
	if _, err := p.PutDocument(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if err := p.Store().Put(t.Context(), p.Root()+"apps/shop/stray", strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	d.Objects = []json.RawMessage{json.RawMessage(`{"n":2}`)}
	if _, err := p.PutDocument(ctx, d); !errors.Is(err, vault.ErrDamaged) {
		t.Errorf("PutDocument = %v, want ErrDamaged", err)
	}
}

func TestSites(t *testing.T) {
	p, _ := project(t, mem.New(nil))
	for _, site := range []string{"west", "east", "west"} {
		if err := p.Heartbeat(t.Context(), vault.SiteStatus{Site: site, Time: instant, KubeVersion: "v1.34.0"}); err != nil {
			t.Fatal(err)
		}
	}
	sites, err := p.Sites(t.Context())
	if err != nil || len(sites) != 2 || sites[0].Site != "east" || sites[1].Written.IsZero() {
		t.Errorf("Sites = %+v, %v", sites, err)
	}
}

func TestNamesAreChecked(t *testing.T) {
	p, recovery := project(t, mem.New(nil))
	for _, name := range []string{"", "UPPER", "a/b", "..", "-a", "a-", "a..b", "ü", strings.Repeat("a", 254)} {
		_, createErr := vault.CreateProject(t.Context(), mem.New(nil), name, recovery.Recipient())
		_, writerErr := p.NewWriter(t.Context(), name, "id")
		_, pointErr := p.NewWriter(t.Context(), "shop", name)
		_, manifestErr := p.Manifest(t.Context(), "shop", name)
		for _, err := range []error{
			createErr, writerErr, pointErr, manifestErr,
			p.Heartbeat(t.Context(), vault.SiteStatus{Site: name}),
			p.Mark(t.Context(), name, "id", vault.Mark{Kind: vault.MarkPinned}),
			p.WriteEpoch(t.Context(), name, 1, nil),
			p.DeletePoint(t.Context(), "shop", name),
		} {
			if !errors.Is(err, vault.ErrName) {
				t.Errorf("name %.20q gave %v, want ErrName", name, err)
			}
		}
	}
}
