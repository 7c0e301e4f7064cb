package proof

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/copies"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/promotion"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
	"davit.dev/davit/internal/volume"
)

func copyVault(name string) *v1alpha1.Vault {
	return &v1alpha1.Vault{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.VaultSpec{CopyOf: "main"}}
}

// twice is a site whose vault has a second copy of its one point.
func twice(t *testing.T, more ...client.Object) *site {
	t.Helper()
	return twiceOf(t, hourly(), func(s *site) { s.publish("p1") }, more...)
}

func twiceOf(t *testing.T, spec v1alpha1.VerifyPolicy, publish func(s *site), more ...client.Object) *site {
	t.Helper()
	s := newSite(t, spec, append(more, copyVault("second"))...)
	if _, err := vault.Init(t.Context(), s.store); err != nil {
		t.Fatal(err)
	}
	if _, err := lease.New(s.project).Claim(t.Context(), "shop", 1, lease.Claim{Site: "east", Request: "r"}); err != nil {
		t.Fatal(err)
	}
	s.change(func(app *v1alpha1.Application) { app.Status.HeldEpoch = 1 })
	publish(s)
	s.second = mem.New(nil)
	if err := copies.Bootstrap(t.Context(), s.project, s.second); err != nil {
		t.Fatal(err)
	}
	if _, err := copies.New(copies.Options{First: s.project, Store: s.second, Volumes: protection.VolumeOptions}).Pass(t.Context(), []copies.App{{Name: "shop", Held: 1}}); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.copied, err = vault.OpenProject(t.Context(), s.second, "default", s.key); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) change(change func(app *v1alpha1.Application)) {
	s.t.Helper()
	var app v1alpha1.Application
	if err := s.Client.Get(s.t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: "shop"}, &app); err != nil {
		s.t.Fatal(err)
	}
	change(&app)
	if err := s.Client.Status().Update(s.t.Context(), &app); err != nil {
		s.t.Fatal(err)
	}
}

// second is what the status says of the only copy.
func second(t *testing.T, got v1alpha1.VerificationStatus) v1alpha1.CopyVerification {
	t.Helper()
	if len(got.Copies) != 1 {
		t.Fatalf("status %+v", got)
	}
	return got.Copies[0]
}

// TestRotInACopyIsFoundAndMended, on the turn after that of the vault itself,
// which finds nothing: that is the control. The next turn comes with the schedule.
func TestRotInACopyIsFoundAndMended(t *testing.T) {
	rp := &v1alpha1.RecoveryPoint{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "p1"}}
	s := twice(t, rp)
	s.damage(s.second, "p1")
	if got := s.look(); !slices.Equal(got.Points, []string{"p1"}) || len(got.Damaged)+len(got.Copies) > 0 || s.events() != "" {
		t.Fatalf("the first vault's own verification: %+v", got)
	}
	got := second(t, s.look())
	if !slices.Equal(got.Points, []string{"p1"}) || !slices.Equal(got.Repaired, []string{"p1"}) || len(got.Damaged) > 0 || !got.At.Time.Equal(noon) || got.How != v1alpha1.ProvenFull {
		t.Errorf("copy %+v", got)
	}
	if e := s.events(); !strings.Contains(e, "Warning Damaged recovery point p1 is damaged in the second copy second") || !strings.Contains(e, "Warning Repaired recovery point p1 is whole again in the second copy second: 1 objects") {
		t.Errorf("events %q", e)
	}
	if err := s.Client.Get(t.Context(), client.ObjectKeyFromObject(rp), rp); err != nil || len(rp.Status.CopyProofs) != 1 || rp.Status.CopyProofs[0].Damaged || !rp.Status.CopyProofs[0].At.Time.Equal(noon) {
		t.Errorf("recovery point: %+v, %v", rp.Status.CopyProofs, err)
	}
	s.now = noon.Add(59 * time.Minute)
	if got := second(t, s.look()); !got.At.Time.Equal(noon) {
		t.Errorf("read again without a turn: %+v", got)
	}
	s.now = noon.Add(61 * time.Minute)
	s.look()
	if got := second(t, s.look()); !got.At.Time.Equal(s.now) || len(got.Repaired) > 0 {
		t.Errorf("the next turn: %+v", got)
	}
}

// TestRotInTheVolumesOfACopyIsMended, in what points read and in what none
// reads.
func TestRotInTheVolumesOfACopyIsMended(t *testing.T) {
	spec := hourly()
	spec.Blobs = true
	s := twiceOf(t, spec, (*site).publishVolume)
	s.look()
	prefix := s.project.VolumePrefix(s.project.Repository("east"))
	for i, kind := range []string{"p", "xn"} {
		for _, key := range s.keys(s.second, prefix+kind) {
			s.rot(s.second, key)
		}
		if got := second(t, s.look()); !slices.Equal(got.Repaired, []string{"p1"}) || len(got.Damaged)+len(got.DamagedBlobs) > 0 || s.digest(s.second, prefix) != s.digest(s.store, prefix) {
			t.Errorf("%s: copy %+v, events %q", kind, got, s.events())
		}
		s.now = noon.Add(time.Duration(i+1) * 2 * time.Hour)
		s.look()
	}
	if got := second(t, s.look()); got.Blobs == 0 || len(got.Repaired) > 0 {
		t.Errorf("afterwards: %+v", got)
	}
}

// publishVolume publishes p1, with a volume of one file.
func (s *site) publishVolume() {
	s.t.Helper()
	s.real = true
	repo, err := volume.Open(s.t.Context(), protection.VolumeOptions(s.project, s.project.Repository("east")))
	if err != nil {
		s.t.Fatal(err)
	}
	dir := s.t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), bytes.Repeat([]byte("all hands "), 5000), 0o600); err != nil {
		s.t.Fatal(err)
	}
	snap, err := repo.Write(s.t.Context(), volume.WriteOptions{Root: dir, Source: volume.Source{Namespace: "shop", Claim: "data"}})
	if err := errors.Join(err, repo.Close(context.Background())); err != nil {
		s.t.Fatal(err)
	}
	s.publish("p1", point.Volume{Namespace: "shop", Claim: "data", Consistency: point.Crash, Snapshot: snap})
}

func (s *site) keys(store vault.Store, prefix string) []string {
	s.t.Helper()
	var keys []string
	err := store.List(s.t.Context(), prefix, func(o vault.ObjectInfo) error {
		keys = append(keys, o.Key)
		return nil
	})
	if err != nil || len(keys) == 0 {
		s.t.Fatalf("%s: %q, %v", prefix, keys, err)
	}
	return keys
}

// digest is all that is under a prefix.
func (s *site) digest(store vault.Store, prefix string) string {
	s.t.Helper()
	all := sha256.New()
	for _, key := range s.keys(store, prefix) {
		body, err := store.Get(s.t.Context(), key, 0, -1)
		if err != nil {
			s.t.Fatal(err)
		}
		data, err := io.ReadAll(body)
		if err != nil {
			s.t.Fatal(err)
		}
		fmt.Fprintf(all, "%s %x\n", key, data)
	}
	return fmt.Sprintf("%x", all.Sum(nil))
}

// TestRotInBothStaysTold: nothing is put anywhere, and the point is named.
func TestRotInBothStaysTold(t *testing.T) {
	rp := &v1alpha1.RecoveryPoint{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "p1"}}
	s := twice(t, rp)
	s.look() // before the first vault's rots
	s.damage(s.store, "p1")
	s.damage(s.second, "p1")
	if got := second(t, s.look()); !slices.Equal(got.Damaged, []string{"p1"}) || len(got.Repaired) > 0 {
		t.Errorf("copy %+v", got)
	}
	if e := s.events(); !strings.Contains(e, "Warning RepairFailed recovery point p1 in the second copy second") {
		t.Errorf("events %q", e)
	}
	if err := s.Client.Get(t.Context(), client.ObjectKeyFromObject(rp), rp); err != nil || len(rp.Status.CopyProofs) != 1 || !rp.Status.CopyProofs[0].Damaged {
		t.Errorf("recovery point: %+v, %v", rp.Status.CopyProofs, err)
	}
}

// TestRottenManifestInACopyIsMended: no point of it is offered there, and all
// the same it is looked at.
func TestRottenManifestInACopyIsMended(t *testing.T) {
	s := twice(t)
	s.look()
	key := s.project.Root() + "manifests/shop/p1"
	if err := s.second.Put(t.Context(), key, strings.NewReader("rotten"), 6); err != nil {
		t.Fatal(err)
	}
	if got := second(t, s.look()); !slices.Equal(got.Repaired, []string{"p1"}) {
		t.Errorf("copy %+v, events %q", got, s.events())
	}
}

// TestACopyThatCannotBeReadStopsNothing: the vault itself is read when it is
// due, the trouble is told once and tried again after an hour.
func TestACopyThatCannotBeReadStopsNothing(t *testing.T) {
	for name, harm := range map[string]func(s *site){
		"silent": func(s *site) { s.copyErr = vault.ErrUnavailable },
		"known not to answer": func(s *site) {
			v := copyVault("second")
			if err := s.Client.Get(t.Context(), client.ObjectKeyFromObject(v), v); err != nil {
				t.Fatal(err)
			}
			meta.SetStatusCondition(&v.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: "VaultUnavailable", Message: "no answer"})
			if err := s.Client.Update(t.Context(), v); err != nil {
				t.Fatal(err)
			}
		},
		"promoted": func(s *site) {
			if _, err := promotion.New(s.second, s.copied, lease.Identity{Site: "west"}, "test", time.Now).Promote(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
		"empty": func(s *site) {
			if err := s.second.Delete(t.Context(), s.project.Root()+"manifests/shop/p1"); err != nil {
				t.Fatal(err)
			}
		},
	} {
		s := twice(t)
		harm(s)
		s.look()
		if got := second(t, s.look()); got.Error == "" || got.At != nil || !got.TriedAt.Time.Equal(noon) {
			t.Errorf("%s: %+v", name, got)
		}
		if e := s.events(); !strings.Contains(e, "no verdict on second copy second") {
			t.Errorf("%s: events %q", name, e)
		}
		s.now = noon.Add(61 * time.Minute) // the vault's own turn first, then the copy's
		if got := s.look(); !got.At.Time.Equal(s.now) || got.Error != "" {
			t.Errorf("%s: the vault itself: %+v", name, got)
		}
		if got := second(t, s.look()); !got.TriedAt.Time.Equal(s.now) || s.events() != "" {
			t.Errorf("%s: the second try: %+v", name, got)
		}
		if name == "known not to answer" && len(s.opened) > 0 {
			t.Errorf("%s: asked all the same", name)
		}
	}
}

// TestCapturesGoBeforeCopies.
func TestCapturesGoBeforeCopies(t *testing.T) {
	s := twice(t)
	s.look()
	busy := &v1alpha1.RecoveryPoint{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "now"}}
	if err := s.Client.Create(t.Context(), busy); err != nil {
		t.Fatal(err)
	}
	busy.Status.Phase = v1alpha1.PointCapturing
	if err := s.Client.Status().Update(t.Context(), busy); err != nil {
		t.Fatal(err)
	}
	if got := s.look(); len(got.Copies) > 0 {
		t.Errorf("read beside a capture: %+v", got)
	}
	s.now = noon.Add(makeRoomFor)
	if got := second(t, s.look()); got.At == nil {
		t.Errorf("never read, as there is always a capture: %+v", got)
	}
}

// TestACopyThatIsNoMoreIsForgotten.
func TestACopyThatIsNoMoreIsForgotten(t *testing.T) {
	s := twice(t)
	s.look()
	s.look()
	if err := s.Client.Delete(t.Context(), copyVault("second")); err != nil {
		t.Fatal(err)
	}
	if got := s.look(); len(got.Copies) > 0 {
		t.Errorf("status %+v", got)
	}
}

func TestCopiesTakeTurns(t *testing.T) {
	at := func(minutes int) *metav1.Time { return metaTime(noon.Add(time.Duration(minutes) * time.Minute)) }
	proven := func(name string, minutes int) v1alpha1.CopyVerification {
		return v1alpha1.CopyVerification{Vault: name, At: at(minutes)}
	}
	silent := func(name string, minutes int) v1alpha1.CopyVerification {
		return v1alpha1.CopyVerification{Vault: name, TriedAt: at(minutes), Error: "no answer"}
	}
	two := []v1alpha1.Vault{*copyVault("a"), *copyVault("b")}
	for name, test := range map[string]struct {
		status v1alpha1.VerificationStatus
		all    []v1alpha1.Vault
		want   string // copy, and since how many minutes
	}{
		"nothing was read yet":            {v1alpha1.VerificationStatus{}, two, ""},
		"no copy":                         {v1alpha1.VerificationStatus{At: at(-5)}, nil, ""},
		"never read":                      {v1alpha1.VerificationStatus{At: at(-5)}, two, "a -5"},
		"one never read":                  {v1alpha1.VerificationStatus{At: at(-5), Copies: []v1alpha1.CopyVerification{proven("a", -90)}}, two, "b -5"},
		"one a run":                       {v1alpha1.VerificationStatus{At: at(-5), Copies: []v1alpha1.CopyVerification{proven("a", -4)}}, two, ""},
		"the older one":                   {v1alpha1.VerificationStatus{At: at(-5), Copies: []v1alpha1.CopyVerification{proven("a", -60), proven("b", -120)}}, two, "b -5"},
		"a try is a turn":                 {v1alpha1.VerificationStatus{At: at(-5), Copies: []v1alpha1.CopyVerification{silent("a", -4)}}, two, ""},
		"again after an hour":             {v1alpha1.VerificationStatus{At: at(-70), Copies: []v1alpha1.CopyVerification{silent("a", -65), proven("b", -66)}}, two, "a -5"},
		"the vault gave no answer":        {v1alpha1.VerificationStatus{At: at(-90), Next: at(-30), TriedAt: at(-1), Error: "silent", Copies: []v1alpha1.CopyVerification{proven("a", -80)}}, two[:1], "a -30"},
		"nor does it once more for that":  {v1alpha1.VerificationStatus{At: at(-90), Next: at(-30), TriedAt: at(-1), Error: "silent", Copies: []v1alpha1.CopyVerification{proven("a", -20)}}, two[:1], ""},
		"the schedule was changed since":  {v1alpha1.VerificationStatus{At: at(-90), Next: at(30), TriedAt: at(-1), Error: "silent", Copies: []v1alpha1.CopyVerification{proven("a", -80)}}, two[:1], ""},
		"a copy that is no more is no go": {v1alpha1.VerificationStatus{At: at(-5), Copies: []v1alpha1.CopyVerification{silent("c", -180)}}, two[:1], "a -5"},
	} {
		got := ""
		if i, since := turn(&test.status, test.all, noon); i >= 0 {
			got = fmt.Sprintf("%s %d", test.all[i].Name, int(since.Sub(noon).Minutes()))
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}
