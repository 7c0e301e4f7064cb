package promoting

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/bulletin"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/keys"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/install"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/promotion"
	"davit.dev/davit/internal/reconcile/plan"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
	"davit.dev/davit/internal/vault/mem"
)

var (
	noon    = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	errDied = errors.New("killed")
)

const firstURL, secondURL, otherURL = "s3://first/v", "s3://second/v", "s3://other/v"

// site is a cluster that runs shop, with a vault, its second copy, and maybe another copy.
type site struct {
	t      *testing.T
	c      client.Client
	lives  int // changes of the cluster until whoever makes them dies; negative: none does
	stores map[string]vault.Store
	said   string
	asked  string // the name that was to be typed last
	// meanwhile is what happens while a person is asked.
	meanwhile func()
	now       time.Time // zero: noon
	answer    error
}

func (s *site) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// lived is errDied for every change after those that are left.
func (s *site) lived() error {
	if s.lives == 0 {
		return errDied
	}
	s.lives--
	return nil
}

func newSite(t *testing.T, others ...client.Object) *site {
	t.Helper()
	s := &site{t: t, lives: -1, stores: map[string]vault.Store{firstURL: mem.New(nil), secondURL: mem.New(nil), otherURL: mem.New(nil)}}
	marker, err := vault.Init(t.Context(), s.stores[firstURL])
	s.check(err)
	identity, err := vault.NewIdentity()
	s.check(err)
	s.check(vault.InitCopy(t.Context(), s.stores[secondURL], marker))
	s.check(vault.InitCopy(t.Context(), s.stores[otherURL], marker))
	p, err := vault.CreateProject(t.Context(), s.stores[secondURL], "default", identity.Recipient())
	s.check(err)
	ring := vault.Keyring{VaultID: marker.ID, Project: "default", KeyID: p.KeyID(), Identity: identity}
	objects := []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceSystem, UID: "a"}},
		&v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: "east", Labels: map[string]string{install.LocalLabel: "true"}}},
		vaultObject("main", firstURL, ""), vaultObject("second", secondURL, "main"), secretObject("main", ring), secretObject("second", ring),
		&v1alpha1.Application{
			ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "shop"}, Spec: v1alpha1.ApplicationSpec{Vault: "main"},
			Status: v1alpha1.ApplicationStatus{Epoch: 3, HeldEpoch: 3},
		},
	}
	s.c = interceptor.NewClient(fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(append(objects, others...)...).Build(), interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if err := s.lived(); err != nil {
				return err
			}
			return c.Create(ctx, o, opts...)
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			if err := s.lived(); err != nil {
				return err
			}
			return c.Update(ctx, o, opts...)
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			if err := s.lived(); err != nil {
				return err
			}
			return c.Patch(ctx, o, p, opts...)
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			asks := (&client.DeleteOptions{}).ApplyOptions(opts)
			if len(asks.DryRun) > 0 { // and the agent looks at its vaults
				seen := &v1alpha1.Vault{}
				s.check(c.Get(ctx, client.ObjectKeyFromObject(o), seen))
				seen.Status.ObservedGeneration++
				s.check(c.Update(ctx, seen))
				return c.Delete(ctx, o, opts...)
			}
			if err := s.lived(); err != nil {
				return err
			}
			return c.Delete(ctx, o, opts...)
		},
	})
	return s
}

func vaultObject(name, url, of string) *v1alpha1.Vault {
	return &v1alpha1.Vault{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.VaultSpec{URL: url, Project: "default", SecretName: "vault-" + name, CopyOf: of},
	}
}

func secretObject(name string, ring vault.Keyring) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "vault-" + name}, Data: ring.Secret()}
}

func (s *site) run(args ...string) error {
	var text strings.Builder
	h := Host{
		Host: keys.Host{
			Bounded: func(*cobra.Command) (context.Context, context.CancelFunc) { return context.WithCancel(s.t.Context()) },
			Print: func(r output.Result) error {
				out := &output.Text{}
				r.Text(out)
				text.WriteString(out.String())
				return nil
			},
			Step: func(string, ...any) {}, Say: func(string, ...any) {},
			Ask: func(name, _ string) error {
				s.asked = name
				if s.meanwhile != nil {
					s.meanwhile()
				}
				return s.answer
			},
			Now: func() time.Time {
				if s.now.IsZero() {
					return noon
				}
				return s.now
			},
			Args: func(n int, _ string) cobra.PositionalArgs { return cobra.ExactArgs(n) },
		},
		Cluster: func() (client.Client, error) { return s.c, nil },
		Store: func(_ context.Context, cfg backend.Config) (vault.Store, error) {
			if store := s.stores[cfg.URL]; store != nil {
				return store, nil
			}
			return nil, vault.ErrUnavailable
		},
	}
	cmd := Command(h)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(s.t.Context())
	s.said = text.String()
	return err
}

// moved checks that the site works with the promoted vault, and with nothing else.
func (s *site) moved(when string) {
	s.t.Helper()
	var all v1alpha1.VaultList
	s.check(s.c.List(s.t.Context(), &all))
	if len(all.Items) != 1 || all.Items[0].Name != "main" || all.Items[0].Spec.URL != secondURL || all.Items[0].Spec.CopyOf != "" {
		s.t.Errorf("%s: the vaults are %+v", when, all.Items)
	}
	v := all.Items[0]
	if v.Labels["team"] != "x" || v.Spec.DeletionDelay == nil || v.Spec.DeletionDelay.Duration != 720*time.Hour || v.Spec.SecretName != "vault-main" || v.Spec.Immutability != nil {
		s.t.Errorf("%s: not what it said before: %v %+v", when, v.Labels, v.Spec)
	}
	var secrets corev1.SecretList
	s.check(s.c.List(s.t.Context(), &secrets))
	if len(secrets.Items) != 1 {
		s.t.Fatalf("%s: %d Secrets", when, len(secrets.Items))
	}
	ring, err := vault.ParseKeyring(secrets.Items[0].Data)
	s.check(err)
	p, err := ring.Open(s.t.Context(), s.stores[secondURL])
	s.check(err)
	current, err := lease.New(p).Current(s.t.Context(), "shop")
	s.check(err)
	if current.Number != 3+promotion.Margin+1 || !(lease.Identity{Site: "east", Cluster: "a"}).Made(current.Claim) {
		s.t.Errorf("%s: shop is of %+v", when, current)
	}
}

// says changes what the first vault's Vault says.
func (s *site) says(locked bool) {
	s.t.Helper()
	first := &v1alpha1.Vault{}
	s.check(s.c.Get(s.t.Context(), client.ObjectKey{Name: "main"}, first))
	first.Labels = map[string]string{"team": "x"}
	first.Spec.DeletionDelay = &metav1.Duration{Duration: 720 * time.Hour}
	if locked {
		first.Spec.Immutability = &v1alpha1.Immutability{Mode: "Governance", Days: 30}
	}
	s.check(s.c.Update(s.t.Context(), first))
}

// TestMoveKilled at every change of the cluster, and given again: what the first
// vault's Vault said stays, also where it must be made anew, for it has locks.
func TestMoveKilled(t *testing.T) {
	for _, locked := range []bool{false, true} {
		moveKilled(t, locked)
	}
}

// TestNotedBeforeMoved: killed right before it changes anything of this site, which then
// follows the lost vault still, what the site ran stands in the promoted one.
func TestNotedBeforeMoved(t *testing.T) {
	s := newSite(t)
	shop := &v1alpha1.Application{}
	s.check(s.c.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: "shop"}, shop))
	shop.Status.Lease = &v1alpha1.LeaseStatus{Epoch: 3}
	s.check(s.c.Update(t.Context(), shop))
	s.stores[firstURL], s.lives = nil, 0
	if err := s.run("second", "--yes"); !errors.Is(err, errDied) {
		t.Fatal(err)
	}
	ring := s.keyring()
	marker, _, err := vault.Identify(t.Context(), s.stores[secondURL])
	s.check(err)
	if ring.VaultID == marker.ID {
		t.Fatal("this site is moved: this proves nothing")
	}
	p, err := vault.OpenProject(t.Context(), s.stores[secondURL], "default", ring.Identity)
	s.check(err)
	if held, err := lease.HeldLost(t.Context(), p, "shop", lease.Identity{Site: "east", Cluster: "a"}); err != nil || held != 3 {
		t.Errorf("it held %d, %v", held, err)
	}
}

func moveKilled(t *testing.T, locked bool) {
	for lives := 0; ; lives++ {
		s := newSite(t)
		s.says(locked)
		s.stores[firstURL], s.lives = nil, lives
		err := s.run("second", "--yes")
		s.lives = -1
		if err == nil {
			s.moved("not killed")
			if lives < 4 {
				t.Fatalf("it changed the cluster %d times: it proves nothing", lives)
			}
			return
		}
		if !errors.Is(err, errDied) {
			t.Fatal(err)
		}
		s.check(s.run("second", "--yes"))
		s.moved("killed")
	}
}

func TestRefusals(t *testing.T) {
	third := vaultObject("third", otherURL, "main")
	for name, c := range map[string]struct {
		change func(s *site)
		others []client.Object
		says   string
	}{
		"the first vault answers":        {func(*site) {}, nil, "it is not lost"},
		"another copy gives no answer":   {func(s *site) { s.stores[firstURL], s.stores[otherURL] = nil, nil }, []client.Object{third, secretObject("third", vault.Keyring{})}, "nobody knows"},
		"nobody agreed":                  {func(s *site) { s.stores[firstURL], s.answer = nil, errors.New("not agreed to") }, nil, "not agreed to"},
		"in the site's own failure zone": {func(s *site) { s.stores[firstURL] = nil; s.zone("here") }, nil, "nothing would be captured"},
	} {
		s := newSite(t, c.others...)
		c.change(s)
		args := []string{"second"}
		if s.answer == nil {
			args = append(args, "--yes")
		}
		if err := s.run(args...); err == nil || !strings.Contains(err.Error(), c.says) || s.answer == nil && !exit.IsRefusal(err) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := promotion.Read(t.Context(), s.stores[secondURL]); !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("%s: something was written: %v", name, err)
		}
	}
}

func (s *site) zone(name string) {
	s.t.Helper()
	here, second := &v1alpha1.Site{}, &v1alpha1.Vault{}
	s.check(s.c.Get(s.t.Context(), client.ObjectKey{Name: "east"}, here))
	s.check(s.c.Get(s.t.Context(), client.ObjectKey{Name: "second"}, second))
	here.Spec.FailureDomain, second.Spec.FailureDomain = name, name
	s.check(s.c.Update(s.t.Context(), here))
	s.check(s.c.Update(s.t.Context(), second))
}

// TestDryRun names who goes on and changes nothing.
func TestDryRun(t *testing.T) {
	s := newSite(t)
	s.stores[firstURL], s.lives = nil, 0
	if err := s.run("second", "--dry-run"); err != nil || !strings.Contains(s.said, "site east, which goes on") || !strings.Contains(s.said, "Nothing was changed") {
		t.Errorf("%s %v", s.said, err)
	}
	if _, err := promotion.Read(t.Context(), s.stores[secondURL]); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("something was written: %v", err)
	}
}

// TestASiteThatIsCalledNobody is not moved: its proofs would be taken for those of sites
// that nothing can ask.
func TestASiteThatIsCalledNobody(t *testing.T) {
	s := newSite(t)
	s.check(s.c.Delete(t.Context(), &v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: "east"}}))
	s.check(s.c.Create(t.Context(), &v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: promotion.Nobody, Labels: map[string]string{install.LocalLabel: "true"}}}))
	s.stores[firstURL] = nil
	if err := s.run("second", "--yes"); !exit.IsRefusal(err) || !strings.Contains(err.Error(), "called nobody") {
		t.Error(err)
	}
	if _, err := promotion.Read(t.Context(), s.stores[secondURL]); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("something was written: %v", err)
	}
}

// TestLeased: what ran under a lease is stopped, and another site may have taken it
// over. It goes on by a person's word only; the control is TestDryRun.
func TestLeased(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
		mine bool
	}{
		{nil, "nobody: it ran here under a lease", false},
		{[]string{"--go-on", "shop"}, "site east, which goes on", true},
		{[]string{"--go-on", "other"}, "", false},
	} {
		s := newSite(t)
		shop := &v1alpha1.Application{}
		s.check(s.c.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: "shop"}, shop))
		shop.Status.Lease = &v1alpha1.LeaseStatus{Epoch: 3, Over: true}
		s.check(s.c.Update(t.Context(), shop))
		s.stores[firstURL] = nil
		err := s.run(append([]string{"second", "--yes"}, c.args...)...)
		if c.says == "" {
			if !exit.IsRefusal(err) {
				t.Errorf("%v: %v", c.args, err)
			}
			continue
		}
		if err != nil || !strings.Contains(s.said, c.says) {
			t.Errorf("%v: %v, %s", c.args, err, s.said)
		}
		current := s.current()
		if mine := (lease.Identity{Site: "east", Cluster: "a"}).Made(current.Claim); mine != c.mine || current.Number <= 3 {
			t.Errorf("%v: shop is of %+v", c.args, current)
		}
		held, err := lease.HeldLost(t.Context(), s.promoted(), "shop", lease.Identity{Site: "east", Cluster: "a"})
		if err != nil || (held == 3) == c.mine || strings.Contains(s.said, "runs want its proof") == c.mine {
			t.Errorf("%v: it held %d, %v: %s", c.args, held, err, s.said)
		}
		if c.mine {
			continue
		}
		s.check(s.run("main", "--lost-stopped", "--dry-run"))
		if !strings.Contains(s.said, "not about east, which noted that they held it") {
			t.Errorf("%v: %s", c.args, s.said)
		}
	}
}

func (s *site) keyring() vault.Keyring {
	s.t.Helper()
	secret := &corev1.Secret{}
	s.check(s.c.Get(s.t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: "vault-main"}, secret))
	ring, err := vault.ParseKeyring(secret.Data)
	s.check(err)
	return ring
}

// TestOneCopyOnly: once a copy is the vault, no other copy of the lost one becomes
// it, also where the vault gives no answer.
func TestOneCopyOnly(t *testing.T) {
	for _, answers := range []bool{true, false} {
		s := newSite(t)
		third, secret := vaultObject("third", otherURL, "main"), secretObject("third", s.keyring())
		s.stores[firstURL] = nil
		s.check(s.run("second", "--yes"))
		s.check(s.c.Create(t.Context(), third))
		s.check(s.c.Create(t.Context(), secret))
		if !answers {
			s.stores[secondURL] = nil
		}
		if err := s.run("third", "--yes"); !exit.IsRefusal(err) || !strings.Contains(err.Error(), "another copy was made the vault") {
			t.Errorf("answers %v: %v", answers, err)
		}
		if _, err := promotion.Read(t.Context(), s.stores[otherURL]); !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("answers %v: something was written: %v", answers, err)
		}
	}
}

// TestFirstComesBack while its copy is promoted: that stops before the copy is the
// vault, and says the way back, which destroys nothing of the first.
func TestFirstComesBack(t *testing.T) {
	s := newSite(t)
	first := s.stores[firstURL]
	s.stores[firstURL] = nil
	s.stores[secondURL] = &returns{Store: s.stores[secondURL], back: func() { s.stores[firstURL] = first }}
	for range 2 {
		err := s.run("second", "--yes")
		if !exit.IsRefusal(err) || !strings.Contains(err.Error(), "was begun at site east") {
			t.Fatal(err)
		}
		if _, hint := exit.Verdict(err); !strings.Contains(hint, "under another prefix") || strings.Contains(hint, "delete "+firstURL) {
			t.Error(hint)
		}
		if state, err := promotion.Look(t.Context(), s.stores[secondURL]); err != nil || !state.Begun || state.Done {
			t.Errorf("%+v %v", state, err)
		}
	}
	s.stores[firstURL] = nil // the control: lost after all
	s.says(false)
	s.check(s.run("second", "--yes"))
	s.moved("lost after all")
}

// returns brings the first vault back once a promotion has begun.
type returns struct {
	vault.Store
	back func()
}

func (r *returns) PutIfAbsent(ctx context.Context, key string, body io.ReadSeeker, size int64) error {
	if key == promotion.Key {
		r.back()
		r.back = func() {}
	}
	return r.Store.PutIfAbsent(ctx, key, body, size)
}

// TestUnasked: a cluster without the first vault cannot ask it. A flag alone takes
// no question's place there.
func TestUnasked(t *testing.T) {
	s := newSite(t)
	s.check(s.c.Delete(t.Context(), vaultObject("main", firstURL, "")))
	if err := s.run("second", "--yes"); !exit.IsRefusal(err) || !strings.Contains(err.Error(), "cannot ask it") {
		t.Error(err)
	}
	if _, err := promotion.Read(t.Context(), s.stores[secondURL]); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("something was written: %v", err)
	}
	s.check(s.run("second", "--yes", "--first-is-gone"))
}

// TestDryRunWarns of what is held at rest by runs that nobody ends any more, and of
// rotations of the key that the copy does not have; the control is TestDryRun's site.
func TestDryRunWarns(t *testing.T) {
	warnings := []string{"held at rest here by run run-7", "2 rotations of the data key not in the copy", "shop-plan (not the version that counted)"}
	for _, warned := range []bool{true, false} {
		s := newSite(t)
		if warned {
			shop, first := &v1alpha1.Application{}, &v1alpha1.Vault{}
			s.check(s.c.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: "shop"}, shop))
			metav1.SetMetaDataAnnotation(&shop.ObjectMeta, v1alpha1.AnnotationHeldBy, "run-7")
			s.check(s.c.Update(t.Context(), shop))
			s.check(s.c.Get(t.Context(), client.ObjectKey{Name: "main"}, first))
			first.Status.KeyVersion = 3
			s.check(s.c.Update(t.Context(), first))
			differs := metav1.Condition{Type: v1alpha1.ConditionMirrored, Status: metav1.ConditionFalse, Reason: plan.ReasonDiffers}
			s.check(s.c.Create(t.Context(), &v1alpha1.RecoveryPlan{
				ObjectMeta: metav1.ObjectMeta{Name: "shop-plan"}, Status: v1alpha1.RecoveryPlanStatus{Conditions: []metav1.Condition{differs}},
			}))
		}
		s.stores[firstURL] = nil
		s.check(s.run("second", "--dry-run"))
		for _, text := range warnings {
			if strings.Contains(s.said, text) != warned {
				t.Errorf("warned %v, %q: %s", warned, text, s.said)
			}
		}
	}
}

// TestLostStopped is said of the promoted vault, by who typed the lost one's id, and
// given again as often as need be. Refused: of a vault that was never promoted, at a
// site that is not moved over, and with what belongs to the promotion itself; and
// nothing is noted where nobody agreed, or by a dry run.
func TestLostStopped(t *testing.T) {
	s := newSite(t)
	if err := s.run("main", "--lost-stopped", "--yes"); !exit.IsRefusal(err) || !strings.Contains(err.Error(), "never promoted") {
		t.Error(err)
	}
	if err := s.run("second", "--lost-stopped", "--yes"); !exit.IsRefusal(err) || !strings.Contains(err.Error(), "not moved over") {
		t.Error(err)
	}
	lost := s.keyring().VaultID
	s.stores[firstURL] = nil
	s.check(s.run("second", "--yes"))
	said := func() (lease.Word, bool) {
		t.Helper()
		ring := s.keyring()
		p, err := ring.Open(t.Context(), s.stores[secondURL])
		s.check(err)
		history, err := lease.New(p).History(t.Context(), "shop")
		s.check(err)
		w, ok, err := lease.Said(t.Context(), p, "shop", history)
		s.check(err)
		return w, ok
	}
	if err := s.run("main", "--lost-stopped", "--go-on", "shop", "--yes"); err == nil {
		t.Error("with --go-on")
	}
	s.check(s.run("main", "--lost-stopped", "--dry-run"))
	if !strings.Contains(s.said, "Nothing was changed") || !strings.Contains(s.said, lost) {
		t.Error(s.said)
	}
	s.answer = errors.New("not agreed to")
	if err := s.run("main", "--lost-stopped"); !errors.Is(err, s.answer) || s.asked != lost {
		t.Errorf("%v, asked to type %q", err, s.asked)
	}
	if w, ok := said(); ok {
		t.Errorf("nobody agreed: %+v", w)
	}
	s.answer = nil
	for range 2 {
		s.check(s.run("main", "--lost-stopped"))
		if w, ok := said(); !ok || w.Lost != lost || w.Site != promotion.Nobody || w.By == "" {
			t.Errorf("%+v %v", w, ok)
		}
	}
	if !strings.Contains(s.said, "Noted") || !strings.Contains(s.said, "shop") {
		t.Error(s.said)
	}
	if current := s.current(); !(lease.Identity{Site: "east", Cluster: "a"}).Made(current.Claim) || current.Number != 3+promotion.Margin+1 {
		t.Errorf("the word took it from its site: %+v", current)
	}
}

// TestLostStoppedIsNotSaidInVain: a site may come over while a person is asked, with more of
// the lost vault: then he is told that his word does not count, and says it again.
func TestLostStoppedIsNotSaidInVain(t *testing.T) {
	s := newSite(t)
	shop := &v1alpha1.Application{}
	s.check(s.c.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: "shop"}, shop))
	shop.Status.Lease = &v1alpha1.LeaseStatus{Epoch: 3, Over: true}
	s.check(s.c.Update(t.Context(), shop))
	s.stores[firstURL] = nil
	s.check(s.run("second", "--yes"))
	s.meanwhile = func() {
		late := promotion.New(s.stores[secondURL], s.promoted(), lease.Identity{Site: "north", Cluster: "n"}, "test", time.Now)
		record, err := promotion.Read(t.Context(), s.stores[secondURL])
		s.check(err)
		_, err = late.Settle(t.Context(), record, []promotion.App{{Name: "shop", Seen: 30}})
		s.check(err)
	}
	if err := s.run("main", "--lost-stopped"); err == nil || !strings.Contains(err.Error(), "shop does not count") {
		t.Errorf("%v: %s", err, s.said)
	}
	s.check(s.run("main", "--lost-stopped")) // nobody comes with more
}

// TestASiteThatWasMovedMayRunItStill: of what it does not hold no run asks it, so the word is
// not taken while it says that it runs it. The controls: it holds it; it has stopped; it
// said so before another claimed it.
func TestASiteThatWasMovedMayRunItStill(t *testing.T) {
	for name, c := range map[string]struct {
		site, role string
		ago        time.Duration
		refused    bool
	}{
		"runs":            {"west", "Active", 0, true},
		"holds it":        {"east", "Active", 0, false},
		"has stopped":     {"west", "Superseded", 0, false},
		"said it earlier": {"west", "Active", time.Hour, false},
	} {
		s := newSite(t)
		s.stores[firstURL] = nil
		s.check(s.run("second", "--yes"))
		p := s.promoted()
		for _, name := range []string{"east", "west"} {
			s.check(p.Heartbeat(t.Context(), vault.SiteStatus{Site: name, Time: noon}))
		}
		// the vault's clock is that of this machine
		s.now = time.Now().Add(preflight.Heed + time.Minute)
		s.stores[secondURL] = written{s.stores[secondURL], s.now.Add(-c.ago)}
		s.check(bulletin.Publish(t.Context(), p, &preflight.Site{Name: c.site, At: noon, Roles: map[string]string{"shop": c.role}}))
		s.check(s.run("main", "--lost-stopped", "--dry-run"))
		if strings.Contains(s.said, "that it runs shop") != c.refused || c.site == "east" != strings.Contains(s.said, "has not said yet what it runs: west") {
			t.Errorf("%s: %s", name, s.said)
		}
		err := s.run("main", "--lost-stopped", "--yes")
		if exit.IsRefusal(err) != c.refused || !c.refused && err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// written is a store in which facts were written at a time.
type written struct {
	vault.Store
	at time.Time
}

func (w written) List(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	return w.Store.List(ctx, prefix, func(o vault.ObjectInfo) error {
		if strings.Contains(o.Key, "/facts/") {
			o.Modified = w.at
		}
		return fn(o)
	})
}

func (s *site) promoted() *vault.Project {
	s.t.Helper()
	ring := s.keyring()
	p, err := ring.Open(s.t.Context(), s.stores[secondURL])
	s.check(err)
	return p
}

func (s *site) current() lease.Epoch {
	s.t.Helper()
	p := s.promoted()
	current, err := lease.New(p).Current(s.t.Context(), "shop")
	s.check(err)
	return current
}
