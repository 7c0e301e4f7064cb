package carrier

import (
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/evidence"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/mailbox"
	"davit.dev/davit/internal/settlement"
	"davit.dev/davit/internal/settlement/settlementtest"
)

// leaver is a desk at a site whose cluster shows runs that are over and left something.
func leaver(t *testing.T, site string, runs ...string) *rig {
	t.Helper()
	r := newRig(t, shop(0))
	r.c.Site = site
	for _, run := range runs {
		if err := journal.Create(r.project, run, "e").Append(t.Context(), settlementtest.Left(run, "e", time.Now())); err != nil {
			t.Fatal(err)
		}
		s, err := journal.Read(t.Context(), r.project, run)
		if err != nil {
			t.Fatal(err)
		}
		o := projection(s, "main")
		if err := r.c.Client.Create(t.Context(), &o); err != nil {
			t.Fatal(err)
		}
		Status(&o, s, nil)
		if err := r.c.Client.Status().Update(t.Context(), &o); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// turns lets the desk look at so many runs.
func (r *rig) turns(t *testing.T, n int) {
	t.Helper()
	for range n {
		r.later(settleEvery)
		r.looks(t)
	}
}

func (r *rig) shows(t *testing.T, run string) v1alpha1.RunStatus {
	t.Helper()
	var o v1alpha1.Run
	if err := r.c.Client.Get(t.Context(), client.ObjectKey{Name: run}, &o); err != nil {
		t.Fatal(err)
	}
	return o.Status
}

// TestWhatARunLeftIsSettled: what a person asked for through the vault is written by the agent of the run's target,
// as far as he may, and shown; with the last of it the run leaves nothing to be done, and says who saw to it.
func TestWhatARunLeftIsSettled(t *testing.T) {
	r := leaver(t, "west", "r1")
	r.allow["ben"] = true
	if s := r.shows(t, "r1"); !strings.Contains(s.Next, "davit runs settle r1 --reason HOW") || !meta.IsStatusConditionFalse(s.Conditions, v1alpha1.ConditionSettled) {
		t.Fatalf("%+v", s)
	}
	box := mailbox.New(r.project)
	ask := func(q execute.Request) string {
		t.Helper()
		q.At, q.Note = time.Now(), "done by hand"
		n, err := box.Put(t.Context(), "r1", q)
		if err != nil {
			t.Fatal(err)
		}
		r.turns(t, 1)
		reply, err := box.Answer(t.Context(), "r1", n)
		if err != nil || reply == nil {
			t.Fatalf("no answer: %v", err)
		}
		return reply.Refused
	}
	for want, q := range map[string]execute.Request{
		"eve may not steer runs of plan shop": {Kind: failover.Settle, By: "eve"},
		"the run is over: RolledBack":         {Kind: failover.RollBack, By: "ben", Text: "west"},
		"only warm-up, mail did":              {Kind: failover.Settle, By: "ben", Step: "claim/shop"},
	} {
		if got := ask(q); !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if s := r.shows(t, "r1"); s.Sequence != 1 {
		t.Errorf("what was refused is in the journal: %+v", s)
	}
	for i, want := range []string{"left to people: warm-up", "warm-up by ben at"} {
		if why := ask(execute.Request{Kind: failover.Settle, By: "ben", Step: []string{"mail", "warm-up"}[i]}); why != "" {
			t.Error(why)
		}
		s := r.shows(t, "r1")
		c := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionSettled)
		if c == nil || !strings.Contains(c.Message, want) || (s.Next == "") != (i == 1) || (c.Status == metav1.ConditionTrue) != (i == 1) {
			t.Errorf("%q, %+v", s.Next, c)
		}
		if s.Phase != "RolledBack" || s.Executor != "e" {
			t.Errorf("%+v", s)
		}
	}
	d, err := evidence.Latest(t.Context(), r.project, "r1")
	if err != nil || d.Records != 3 || !strings.Contains(d.JSON, "done by hand") || !strings.Contains(d.HTML, "done by hand") {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := evidence.Verify(t.Context(), r.project, d); err != nil {
		t.Error(err)
	}
	r.turns(t, 1)
	if len(r.bygone) != 0 {
		t.Error("what is settled is looked at on")
	}
}

// TestWhatOthersSettledIsShown at a site that was not asked, and takes up no requests.
func TestWhatOthersSettledIsShown(t *testing.T) {
	r := leaver(t, "east", "r1")
	box := mailbox.New(r.project)
	n, err := box.Put(t.Context(), "r1", execute.Request{Kind: failover.Settle, By: "ben", Note: "x"})
	if err != nil {
		t.Fatal(err)
	}
	r.turns(t, 2)
	if reply, err := box.Answer(t.Context(), "r1", n); err != nil || reply != nil {
		t.Errorf("answered: %+v, %v", reply, err)
	}
	if s := r.shows(t, "r1"); s.Next == "" {
		t.Errorf("%+v", s)
	}
	if _, why, err := settlement.Write(t.Context(), r.project, "r1", "cli", settlement.Word{By: "ann", Reason: "done"}, time.Now); err != nil || why != "" {
		t.Fatal(why, err)
	}
	r.turns(t, 1)
	if s := r.shows(t, "r1"); s.Next != "" || s.Sequence != 2 {
		t.Errorf("%+v", s)
	}
}

// TestManyThatLeftSomethingHaveTheirTurn: each look is at one, so that they cost no more than one.
func TestManyThatLeftSomethingHaveTheirTurn(t *testing.T) {
	runs := []string{"r1", "r2", "r3"}
	r := leaver(t, "east", runs...)
	var seen []string
	for range 4 {
		r.turns(t, 1)
		seen = append(seen, r.turn)
	}
	if !slices.Equal(seen, []string{"r1", "r2", "r3", "r1"}) {
		t.Errorf("looked at %v", seen)
	}
	r.looks(t) // the control: it is not time
	if r.turn != "r1" {
		t.Errorf("looked at %s before it was time", r.turn)
	}
	for _, run := range runs {
		var o v1alpha1.Run
		if err := r.c.Client.Get(t.Context(), client.ObjectKey{Name: run}, &o); err != nil {
			t.Fatal(err)
		}
		if err := r.c.Client.Delete(t.Context(), &o); err != nil {
			t.Fatal(err)
		}
	}
	r.turns(t, 1)
	if len(r.bygone) != 0 {
		t.Errorf("%d are followed", len(r.bygone))
	}
}
