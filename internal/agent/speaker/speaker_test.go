package speaker

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/agent/stash"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/uplink"
)

var (
	site  = &v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: "east"}}
	mine  = &v1alpha1.Vault{ObjectMeta: metav1.ObjectMeta{Name: "main"}, Spec: v1alpha1.VaultSpec{Project: "acme"}}
	other = &v1alpha1.Vault{ObjectMeta: metav1.ObjectMeta{Name: "theirs"}, Spec: v1alpha1.VaultSpec{Project: "other"}}
)

func app(name, vault string, annotations map[string]string) *v1alpha1.Application {
	return &v1alpha1.Application{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: v1alpha1.SystemNamespace, Annotations: annotations},
		Spec:       v1alpha1.ApplicationSpec{Vault: vault},
		Status: v1alpha1.ApplicationStatus{Role: v1alpha1.RoleActive, Epoch: 3, EpochSite: "east", Conditions: []metav1.Condition{
			{Type: v1alpha1.ConditionProtected, Status: metav1.ConditionFalse, Reason: "Lagging", Message: "the newest point is old"},
		}},
	}
}

func newSpeaker(t *testing.T, objects ...client.Object) *Speaker {
	t.Helper()
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(objects...).WithStatusSubresource(&v1alpha1.Site{}).Build()
	return &Speaker{Client: c, Reader: c, Site: "east", Dir: t.TempDir(), Now: time.Now, Log: slog.New(slog.DiscardHandler), lines: map[string]*line{}}
}

// Each project is told of its own applications, and of what git makes as git's.
func TestGather(t *testing.T) {
	git := map[string]string{"argocd.argoproj.io/tracking-id": "shops:davit.dev/Application:davit-system/shop"}
	s := newSpeaker(t, site.DeepCopy(), mine.DeepCopy(), other.DeepCopy(), app("shop", "main", git), app("secret", "theirs", nil))
	for project, want := range map[string]string{"acme": "shop", "other": "secret"} {
		all, err := s.gather(t.Context(), project)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, o := range all {
			if o.Kind == "Application" {
				names = append(names, o.Name)
			}
			if o.Name == "shop" && (o.Git == "" || o.State != "Lagging" || o.Epoch != 3 || o.VaultName != "shop") {
				t.Errorf("%+v", o)
			}
			if o.Name == "secret" && o.Git != "" {
				t.Error("nothing made it from git")
			}
		}
		if !slices.Equal(names, []string{want}) {
			t.Errorf("project %s is told of %v", project, names)
		}
	}
}

// A plan that names no vault is told of where the site keeps it: in its only vault. Where
// it has several nobody can say whose the plan is, and nobody is told.
func TestGatherPlans(t *testing.T) {
	second := &v1alpha1.Vault{ObjectMeta: metav1.ObjectMeta{Name: "second"}, Spec: v1alpha1.VaultSpec{Project: "acme", CopyOf: "main"}}
	bare := &v1alpha1.RecoveryPlan{ObjectMeta: metav1.ObjectMeta{Name: "bare"}}
	run := &v1alpha1.Run{ObjectMeta: metav1.ObjectMeta{Name: "bare-drill-1"}, Spec: v1alpha1.RunSpec{Plan: "bare"}}
	for name, test := range map[string]struct {
		vaults []client.Object
		told   bool
	}{
		"one":     {[]client.Object{mine.DeepCopy()}, true},
		"a copy":  {[]client.Object{mine.DeepCopy(), second}, true},
		"several": {[]client.Object{mine.DeepCopy(), other.DeepCopy()}, false},
	} {
		s := newSpeaker(t, append(test.vaults, bare.DeepCopy(), run.DeepCopy())...)
		all, err := s.gather(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range []string{"RecoveryPlan", "Run"} {
			if told := slices.ContainsFunc(all, func(o uplink.Object) bool { return o.Kind == kind }); told != test.told {
				t.Errorf("%s: told of the %s: %t", name, kind, told)
			}
		}
		of, err := s.concerns(t.Context(), happening{plan: "bare"}, "acme")
		if err != nil || of != test.told {
			t.Errorf("%s: told of its event: %t, %v", name, of, err)
		}
	}
}

// Each project is told how its own vaults are reached, without their addresses, and of the
// policies that its applications go by.
func TestGatherReach(t *testing.T) {
	checked := metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	vaultOf := func(name, project string) *v1alpha1.Vault {
		v := &v1alpha1.Vault{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.VaultSpec{Project: project, URL: "s3://planted-address/" + name}}
		v.Status.KeyVersion, v.Status.LastChecked, v.Status.Latency = 3, &checked, &metav1.Duration{Duration: 12 * time.Millisecond}
		v.Status.Copy = &v1alpha1.CopyStatus{Pending: 2, Error: "full"}
		return v
	}
	policy := func(name string) *v1alpha1.ProtectionPolicy {
		return &v1alpha1.ProtectionPolicy{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: v1alpha1.SystemNamespace, Annotations: map[string]string{"argocd.argoproj.io/tracking-id": "shops:davit.dev/ProtectionPolicy:davit-system/" + name}}}
	}
	shop := app("shop", "main", nil)
	shop.Spec.Policy = "hourly"
	s := newSpeaker(t, vaultOf("main", "acme"), vaultOf("theirs", "other"), shop, policy("hourly"), policy("unused"))
	all, err := s.gather(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, o := range all {
		names = append(names, o.Kind+" "+o.Name)
		if o.Kind == "Vault" && (o.Vault.RoundTrip != 12_000 || o.Vault.KeyVersion != 3 || o.Vault.Pending != 2 || o.Vault.Fault != "full" || !o.Vault.Checked.Equal(checked.Time)) {
			t.Errorf("%+v", o.Vault)
		}
		if o.Kind == "ProtectionPolicy" && o.Git == "" {
			t.Error("git owns the policy, and that is not said")
		}
		if said, err := json.Marshal(o); err != nil || strings.Contains(string(said), "planted-address") {
			t.Errorf("%s, %v", said, err)
		}
	}
	if want := []string{"Application shop", "ProtectionPolicy hourly", "Vault main"}; !slices.Equal(names, want) {
		t.Errorf("told of %v, want %v", names, want)
	}
}

// What git, people or another project's console made is told with what it says, as far as
// there is room for that; what the project's console made is not.
func TestGatherForeign(t *testing.T) {
	names := map[string]map[string]string{"hand": nil, "own": {v1alpha1.LabelConsole: "acme"}, "theirs": {v1alpha1.LabelConsole: "other"}, "large": nil}
	objects := []client.Object{mine.DeepCopy()}
	for name, labels := range names {
		a := app(name, "main", map[string]string{"note": "planted-note"})
		if a.Labels, a.Spec.Namespaces = labels, []string{name}; name == "large" {
			for len(a.Spec.Namespaces) < uplink.MaxSpec/8 {
				a.Spec.Namespaces = append(a.Spec.Namespaces, "namespace")
			}
		}
		objects = append(objects, a)
	}
	git := app("git", "main", map[string]string{"argocd.argoproj.io/tracking-id": "shops:davit.dev/Application:davit-system/git"})
	git.Labels = map[string]string{v1alpha1.LabelConsole: "acme"} // whatever it says
	s := newSpeaker(t, append(objects, git)...)
	all, err := s.gather(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, o := range all {
		if strings.Contains(string(o.Spec), "planted-note") {
			t.Error("annotations are told")
		}
		if o.Kind == "Application" {
			got[o.Name] = fmt.Sprintf("%v %v %s", o.Foreign, len(o.Spec) > 0, o.Console)
		}
	}
	want := map[string]string{"hand": "true true ", "own": "false false ", "theirs": "true true other", "large": "true false ", "git": "true true acme"}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// Where not all fits, always the same is left out.
func TestFit(t *testing.T) {
	objects := func() (all []uplink.Object) {
		for i := range uplink.MaxSpecs/uplink.MaxSpec + 2 {
			all = append(all, uplink.Object{Key: uplink.Key{Kind: "RecoveryPlan", Name: fmt.Sprintf("p%03d", i)}, Foreign: true, Spec: make(json.RawMessage, uplink.MaxSpec)})
		}
		return all
	}
	left := func(all []uplink.Object) (names []string) {
		fit(all)
		for _, o := range all {
			if len(o.Spec) == 0 {
				names = append(names, o.Name)
			}
		}
		return names
	}
	reversed := objects()
	slices.Reverse(reversed)
	if a, b := left(objects()), left(reversed); !slices.Equal(a, b) || !slices.Equal(a, []string{"p064", "p065"}) {
		t.Errorf("left out: %v, and in another order %v", a, b)
	}
}

func link(project string) uplink.Token {
	return uplink.Token{Project: project, ID: strings.Repeat("1", 16), Secret: strings.Repeat("2", 64), Pin: strings.Repeat("3", 64)}
}

// A console that does not answer holds nothing up: events go into the outbox of
// their own project, and the Site says that it is not reached.
func TestConsoleDown(t *testing.T) {
	s := newSpeaker(t, site.DeepCopy(), mine.DeepCopy(), other.DeepCopy(), app("shop", "main", nil), app("secret", "theirs", nil))
	for _, project := range []string{"acme", "other"} {
		if err := Introduce(t.Context(), s.Client, []string{"https://127.0.0.1:1"}, link(project), Permits{}); err != nil {
			t.Fatal(err)
		}
	}
	inner := record.NewFakeRecorder(3 * waiting)
	r := s.Recorder(inner)
	for range 2 * waiting { // nobody takes them, and nobody waits
		r.Event(app("shop", "main", nil), "Normal", "Captured", "a point")
	}
	if n := s.dropped.Load(); n != waiting {
		t.Errorf("%d were dropped", n)
	}
	s.look(t.Context())
	defer s.end(t.Context())
	for range waiting {
		s.happened(t.Context(), <-s.queue())
	}
	r.Event(&v1alpha1.RecoveryPoint{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: v1alpha1.SystemNamespace}, Spec: v1alpha1.RecoveryPointSpec{Application: "secret"}}, "Normal", "Captured", "x")
	s.happened(t.Context(), <-s.queue())
	if a, b := s.lines["acme"].client.Outbox, s.lines["other"].client.Outbox; a.Len() != waiting || a.Lost() != waiting || b.Len() != 1 {
		t.Errorf("%d wait and %d are lost of one, %d of the other", a.Len(), a.Lost(), b.Len())
	}
	if len(inner.Events) != 2*waiting+1 {
		t.Error("the cluster has not all events")
	}
	if err := s.note(t.Context()); err != nil {
		t.Fatal(err)
	}
	var now v1alpha1.Site
	if err := s.Client.Get(t.Context(), client.ObjectKey{Name: "east"}, &now); err != nil {
		t.Fatal(err)
	}
	if c := meta.FindStatusCondition(now.Status.Conditions, v1alpha1.ConditionConsole); c == nil || c.Status != metav1.ConditionFalse || !strings.Contains(c.Message, "project acme: not connected") {
		t.Errorf("%+v", c)
	}
}

// What waits for a console outlives the pod with its disk, whether that ended in order or
// not: whoever leads next tells it, under its name. Once the console is no more, nothing
// of it is left.
func TestPodGone(t *testing.T) {
	s := newSpeaker(t, site.DeepCopy(), mine.DeepCopy(), app("shop", "main", nil))
	if err := Introduce(t.Context(), s.Client, []string{"https://127.0.0.1:1"}, link("acme"), Permits{}); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	happens := func(s *Speaker, from, to int) {
		r := s.Recorder(record.NewFakeRecorder(to))
		for i := from; i <= to; i++ {
			r.Event(app("shop", "main", nil), "Normal", fmt.Sprint(i), "a point")
		}
	}
	leads := func() *Speaker { // in a pod of its own
		s := &Speaker{Client: s.Client, Reader: s.Client, Site: "east", Dir: t.TempDir(), Now: func() time.Time { return now }, Log: s.Log, lines: map[string]*line{}}
		s.look(t.Context())
		return s
	}
	left := func(s *Speaker) (reasons []string) {
		for _, box := range s.lines["acme"].client.Left {
			all, err := box.Next(0, 100)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range all {
				reasons = append(reasons, e.Reason)
			}
		}
		return reasons
	}
	a := leads()
	happens(a, 1, 3)
	a.happened(t.Context(), <-a.queue())
	a.end(t.Context()) // the other two are on their way to the outbox
	now = now.Add(time.Minute)
	b := leads()
	if got := left(b); !slices.Equal(got, []string{"1", "2", "3"}) {
		t.Errorf("in order: the next one has %v", got)
	}
	happens(b, 4, 5)
	b.happened(t.Context(), <-b.queue())
	now = now.Add(stash.Patience)
	b.look(t.Context())
	b.happened(t.Context(), <-b.queue())
	b.lines["acme"].stop() // it is killed with its node; the last one has not waited for long
	c := leads()
	if got := left(c); !slices.Equal(got, []string{"1", "2", "3", "4"}) {
		t.Errorf("killed: the next one has %v", got)
	}
	if err := s.Client.Delete(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: SecretName}}); err != nil {
		t.Fatal(err)
	}
	c.look(t.Context())
	var all corev1.ConfigMapList
	if err := s.Client.List(t.Context(), &all); err != nil || len(all.Items) > 0 || len(c.lines) > 0 {
		t.Errorf("%d are left, %v", len(all.Items), err)
	}
}

// What is kept is not written over a new token.
func TestKeeper(t *testing.T) {
	ctx := context.Background()
	s := newSpeaker(t)
	if err := Introduce(ctx, s.Client, []string{"https://a:1"}, link("acme"), Permits{}); err != nil {
		t.Fatal(err)
	}
	k := &keeper{client: s.Client, reader: s.Client, project: "acme"}
	l, err := k.Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	l.Key = []byte("key")
	if err := k.Save(ctx, l); err != nil {
		t.Fatal(err)
	}
	l.Token = ""
	if err := k.Save(ctx, l); err != nil {
		t.Fatal(err)
	}
	if err := Introduce(ctx, s.Client, []string{"https://b:1"}, link("acme"), Permits{}); err != nil {
		t.Fatal(err)
	}
	if err := k.Save(ctx, l); err == nil || !strings.Contains(err.Error(), "another token") {
		t.Error(err)
	}
	var secret corev1.Secret
	if err := s.Client.Get(ctx, key(), &secret); err != nil || !strings.Contains(string(secret.Data["acme"]), "https://b:1") {
		t.Error("the new way is lost", err)
	}
}
