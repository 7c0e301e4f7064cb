package agent_test

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/agent/beginning"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/uplink/dial"
)

func newBeginner(objects ...client.Object) *beginning.Beginner {
	for name, project := range map[string]string{"main": "acme", "theirs": "other"} {
		objects = append(objects, &v1alpha1.Vault{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.VaultSpec{Project: project}})
	}
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithStatusSubresource(&v1alpha1.Run{}).WithObjects(objects...).Build()
	return &beginning.Beginner{Client: c, Reader: c, Site: "west", Project: "acme", Accepting: time.Nanosecond}
}

func order(id string) uplink.Begin {
	return uplink.Begin{ID: id, Run: "shop-failover-1", Plan: "shop", Verb: "failover", By: "anna@console/acme", Reason: "east burns", Lost: []string{"east"}, Asked: true}
}

func runOf(plan string, verb v1alpha1.PlanVerb, phase string) *v1alpha1.Run {
	return &v1alpha1.Run{ObjectMeta: metav1.ObjectMeta{Name: "other"}, Spec: v1alpha1.RunSpec{Plan: plan, Verb: verb, To: "west", RequestedBy: "ann"}, Status: v1alpha1.RunStatus{Phase: phase}}
}

func planOf(vault string) *v1alpha1.RecoveryPlan {
	return &v1alpha1.RecoveryPlan{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Spec: v1alpha1.RecoveryPlanSpec{Vault: vault}}
}

// A request makes one Run, of this project's vault and in the asker's name, however
// often and late it comes again.
func TestBegunOnce(t *testing.T) {
	b := newBeginner()
	for i, refuse := range []dial.Refusal{{}, {}, {Why: "too late"}} {
		if said, err := b.Begin(t.Context(), order("a"), refuse); err != nil || said.State != uplink.Created {
			t.Fatalf("try %d: %+v, %v", i, said, err)
		}
	}
	var runs v1alpha1.RunList
	if err := b.Client.List(t.Context(), &runs); err != nil || len(runs.Items) != 1 {
		t.Fatalf("%+v, %v", runs.Items, err)
	}
	s := runs.Items[0].Spec
	if s.Vault != "main" || s.RequestedBy != "anna@console/acme" || s.To != "west" || s.Verb != "failover" || len(s.Lost) != 1 || s.AcceptFence != v1alpha1.AcceptAsked {
		t.Errorf("%+v", s)
	}
	if said, err := b.Begin(t.Context(), order("b"), dial.Refusal{}); err != nil || said.State != uplink.Refused || !strings.Contains(said.Why, "which this request did not make") {
		t.Errorf("another request of the same name: %+v, %v", said, err)
	}
	// What whoever carries it says of it is the answer.
	run := runs.Items[0]
	run.Status.Why, run.Status.Next = "nothing was changed: no room", "make room"
	meta.SetStatusCondition(&run.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionFalse, Reason: "Invalid"})
	if err := b.Client.Status().Update(t.Context(), &run); err != nil {
		t.Fatal(err)
	}
	if said, err := b.Begin(t.Context(), order("a"), dial.Refusal{}); err != nil || said.State != uplink.Refused || said.Why != "nothing was changed: no room" || said.Do != "make room" {
		t.Errorf("%+v, %v", said, err)
	}
}

// Each refusal makes no Run; what is none makes one.
func TestRefusals(t *testing.T) {
	for name, test := range map[string]struct {
		objects []client.Object
		change  func(*uplink.Begin)
		refuse  dial.Refusal
		why     string // empty: it is begun
	}{
		"nothing wrong":            {},
		"not allowed, or too late": {refuse: dial.Refusal{Why: "too late"}, why: "too late"},
		"no such verb":             {change: func(b *uplink.Begin) { b.Verb = "restore" }, why: "may not ask"},
		"no name":                  {change: func(b *uplink.Begin) { b.Run = "../x" }, why: "no name"},
		"a person of the cluster":  {change: func(b *uplink.Begin) { b.By = "ann" }, why: "nobody of the console"},
		"another project's person": {change: func(b *uplink.Begin) { b.By = "ann@console/other" }, why: "nobody of the console"},
		"another project's plan":   {objects: []client.Object{planOf("theirs")}, why: "none of project acme"},
		"whose plan nobody says":   {objects: []client.Object{planOf("")}, why: "names no vault"},
		"the project's plan":       {objects: []client.Object{planOf("main")}},
		"a run of it":              {objects: []client.Object{runOf("shop", "switchover", "Running")}, why: "run other"},
		"one not looked at yet":    {objects: []client.Object{runOf("shop", "failover", "")}, why: "run other"},
		"one that is over":         {objects: []client.Object{runOf("shop", "switchover", "Completed")}},
		"one of another plan":      {objects: []client.Object{runOf("cash", "switchover", "Running")}},
		"a drill of it":            {objects: []client.Object{runOf("shop", "drill", "Running")}},
		"a drill beside a drill":   {objects: []client.Object{runOf("shop", "drill", "Running")}, change: func(b *uplink.Begin) { b.Verb, b.Lost, b.Asked = "drill", nil, false }, why: "run other"},
	} {
		b, o := newBeginner(test.objects...), order("a")
		if test.change != nil {
			test.change(&o)
		}
		said, err := b.Begin(t.Context(), o, test.refuse)
		var run v1alpha1.Run
		missing := b.Client.Get(t.Context(), client.ObjectKey{Name: "shop-failover-1"}, &run)
		if err != nil || (missing == nil) != (test.why == "") || (said.State == uplink.Created) != (test.why == "") || !strings.Contains(said.Why, test.why) {
			t.Errorf("%s: %+v, %v; made: %v", name, said, err, missing == nil)
		}
	}
}
