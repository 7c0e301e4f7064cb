package plan

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/plans"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/shelf"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// site is a cluster with a reconciler, at a vault that others use too.
type site struct {
	t *testing.T
	*Reconciler
	silent bool
	clock  time.Time
}

func sites(t *testing.T, names ...string) (all []*site, project *vault.Project) {
	t.Helper()
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	if project, err = vault.CreateProject(t.Context(), mem.New(time.Now), "default", key.Recipient()); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		s := &site{t: t, clock: time.Now()}
		c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithStatusSubresource(&v1alpha1.RecoveryPlan{}, &v1alpha1.Run{}).
			WithObjects(&v1alpha1.Vault{ObjectMeta: metav1.ObjectMeta{Name: "main"}}).Build()
		s.Reconciler = &Reconciler{
			Client: c, Events: record.NewFakeRecorder(100), Site: name, Now: func() time.Time { return s.clock },
			Project: func(context.Context, string) (*vault.Project, error) {
				if s.silent {
					return nil, errors.New("no answer")
				}
				return project, nil
			},
		}
		all = append(all, s)
	}
	return all, project
}

// apply changes the plan, as a person would; fakes count no generations.
func (s *site) apply(timeout time.Duration) {
	s.t.Helper()
	var p v1alpha1.RecoveryPlan
	err := s.Client.Get(s.t.Context(), client.ObjectKey{Name: "shop"}, &p)
	p.Name, p.Generation = "shop", p.Generation+1
	p.Spec.Sites = []v1alpha1.PlanSite{{Name: "east"}, {Name: "west"}}
	p.Spec.Applications = []v1alpha1.PlanApplication{{Name: "db"}}
	p.Spec.Fence.Timeout.Duration = timeout
	if err != nil {
		err = s.Client.Create(s.t.Context(), &p)
	} else {
		err = s.Client.Update(s.t.Context(), &p)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// look reconciles later on, and returns the plan.
func (s *site) look() *v1alpha1.RecoveryPlan {
	s.t.Helper()
	s.clock = s.clock.Add(time.Minute)
	key := client.ObjectKey{Name: "shop"}
	if _, err := s.Reconcile(s.t.Context(), ctrl.Request{NamespacedName: key}); err != nil {
		s.t.Fatal(err)
	}
	var p v1alpha1.RecoveryPlan
	if err := s.Client.Get(s.t.Context(), key, &p); err != nil {
		s.t.Fatal(err)
	}
	return &p
}

func (s *site) want(kind, status, reason, message string) *v1alpha1.RecoveryPlan {
	s.t.Helper()
	p := s.look()
	c := meta.FindStatusCondition(p.Status.Conditions, kind)
	if c == nil || string(c.Status) != status || c.Reason != reason || !strings.Contains(c.Message, message) {
		s.t.Errorf("%s at %s: %+v", kind, s.Site, c)
	}
	return p
}

// A plan outlives its site: whoever has the vault has it as it was last written.
func TestMirror(t *testing.T) {
	all, project := sites(t, "east")
	east := all[0]
	east.apply(time.Second)
	p := east.want("Mirrored", "True", "Succeeded", "revision 1")
	if p.Status.Applications != 1 || p.Status.Revision != 1 || p.Status.At != "none" {
		t.Errorf("%+v", p.Status)
	}
	elsewhere := fake.NewClientBuilder().WithScheme(process.Scheme()).Build()
	found, err := plans.Find(t.Context(), elsewhere, project, "shop")
	if err != nil || found.Revision != 1 || found.Site != "east" || found.Plan().Fence.Timeout != time.Second {
		t.Errorf("%+v, %v", found, err)
	}
	if _, err := plans.Find(t.Context(), elsewhere, project, "cash"); !errors.Is(err, plans.ErrUnknown) {
		t.Errorf("%v", err)
	}
	east.apply(0) // what is not valid replaces nothing
	east.want("Valid", "False", "Invalid", "timeout")
	east.want("Mirrored", "False", "Invalid", "not kept")
	if sheet, err := shelf.New(project).Get(t.Context(), "shop"); err != nil || sheet.Revision != 1 {
		t.Errorf("%+v, %v", sheet, err)
	}
	east.apply(time.Minute)
	east.want("Ready", "True", "Succeeded", "")
	east.want("Mirrored", "True", "Succeeded", "revision 2")
}

// TestMirrorOfADamagedPlan: the site that has the plan at hand writes it again where the newest
// revision cannot be read, but not over one that another site wrote since.
func TestMirrorOfADamagedPlan(t *testing.T) {
	for _, others := range []bool{false, true} {
		all, project := sites(t, "east", "west")
		all[0].apply(time.Second)
		all[0].want("Mirrored", "True", "Succeeded", "revision 1")
		newest := "1"
		if others {
			all[1].apply(time.Minute)
			all[1].want("Mirrored", "True", "Succeeded", "revision 2")
			newest = "2"
		}
		key := project.Root() + "plans/shop/" + strings.Repeat("0", 19) + newest
		if err := project.Store().Put(t.Context(), key, strings.NewReader("rot"), 3); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			all[0].look()
		}
		sheet, err := shelf.New(project).Get(t.Context(), "shop")
		if wrote := err == nil && sheet.Revision == 2 && sheet.Site == "east"; wrote == others {
			t.Errorf("another's %t: revision %d of %q, %v", others, sheet.Revision, sheet.Site, err)
		}
	}
}

// Two sites with different versions do not write against each other: what was
// changed last counts, and the other site says so.
func TestTwoSites(t *testing.T) {
	all, project := sites(t, "east", "west")
	east, west := all[0], all[1]
	east.apply(time.Second)
	east.look()
	west.apply(time.Minute)
	west.want("Mirrored", "True", "Succeeded", "revision 2")
	for range 3 {
		east.want("Mirrored", "False", ReasonDiffers, "site west has written revision 2")
		west.want("Mirrored", "True", "Succeeded", "revision 2")
	}
	if found, err := plans.Find(t.Context(), east.Client, project, "shop"); err != nil || found.Site != "west" {
		t.Errorf("runs follow %+v, %v", found, err)
	}
	west.silent = true
	west.apply(time.Hour)
	west.want("Mirrored", "False", "VaultUnavailable", "no answer")
	if found, err := plans.Find(t.Context(), west.Client, project, "shop"); err != nil || found.Plan().Fence.Timeout != time.Hour {
		t.Errorf("what was not mirrored yet is passed over: %+v, %v", found, err)
	}
	west.silent = false
	west.want("Mirrored", "True", "Succeeded", "revision 3")
	east.apply(time.Hour)
	east.want("Mirrored", "True", "Succeeded", "revision 3")
}

// A version that did not count in a vault that is lost does not begin in the next
// one because its site was first there. The control: the one that counted does.
func TestAnotherVault(t *testing.T) {
	all, _ := sites(t, "east", "west")
	east, west := all[0], all[1]
	east.apply(time.Second)
	east.look()
	west.apply(time.Minute)
	west.look()
	east.want("Mirrored", "False", ReasonDiffers, "site west has written revision 2")
	east.silent, west.silent = true, true
	east.want("Mirrored", "False", ReasonDiffers, "no answer")
	west.want("Mirrored", "False", "VaultUnavailable", "no answer")
	_, next := sites(t)
	for _, s := range all {
		s.silent, s.Project = false, func(context.Context, string) (*vault.Project, error) { return next, nil }
	}
	for range 2 {
		east.want("Mirrored", "False", ReasonDiffers, "the vault is another one")
	}
	if _, err := shelf.New(next).Get(t.Context(), "shop"); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("what did not count is kept: %v", err)
	}
	west.want("Mirrored", "True", "Succeeded", "revision 1")
	east.want("Mirrored", "False", ReasonDiffers, "site west has written revision 1")
	east.apply(time.Hour) // a person decides
	east.want("Mirrored", "True", "Succeeded", "revision 2")
}

func TestLastRuns(t *testing.T) {
	all, _ := sites(t, "east")
	east := all[0]
	east.apply(time.Second)
	for i, run := range []struct{ name, verb string }{{"a", "failover"}, {"b", "switchover"}, {"c", "drill"}, {"d", "failover"}} {
		begun := metav1.NewTime(time.Unix(int64(1000+i), 0))
		o := &v1alpha1.Run{ObjectMeta: metav1.ObjectMeta{Name: run.name}, Spec: v1alpha1.RunSpec{Plan: "shop", Verb: v1alpha1.PlanVerb(run.verb), To: "west"}}
		if o.Status.Phase = "Completed"; run.name != "d" { // that one was refused
			o.Status.BegunAt = &begun
		}
		if err := east.Client.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if err := east.Client.Status().Update(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	p := east.look()
	if p.Status.LastRun == nil || p.Status.LastRun.Name != "b" || p.Status.LastDrill == nil || p.Status.LastDrill.Name != "c" {
		t.Fatalf("%+v, %+v", p.Status.LastRun, p.Status.LastDrill)
	}
	if d := p.Status.LastDrill; d.Verdict != v1alpha1.DrillPassed || d.Report != "reports/c" || p.Status.LastRun.Verdict != "" {
		t.Errorf("%+v, %+v", p.Status.LastRun, d)
	}
}
