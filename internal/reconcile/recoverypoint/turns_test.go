package recoverypoint

import (
	"fmt"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
)

func drawClaims(t *rapid.T) []claim {
	var all []claim
	for i := range rapid.IntRange(1, 30).Draw(t, "claims") {
		all = append(all, claim{
			key: client.ObjectKey{Name: fmt.Sprintf("p%02d", i)}, app: client.ObjectKey{Name: fmt.Sprintf("a%d", rapid.IntRange(0, 12).Draw(t, "app"))},
			manual: rapid.IntRange(0, 5).Draw(t, "manual") == 0, due: noon.Add(-time.Duration(rapid.IntRange(0, 50).Draw(t, "overdue")) * time.Minute),
		})
	}
	return all
}

// Whatever the order in which they ask: never more than the slots run, beside so many
// that take long, never two of one application, nobody goes before a more urgent one
// that could, and everybody gets a turn.
func TestTurns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		slots, long := rapid.IntRange(1, 4).Draw(t, "slots"), rapid.IntRange(0, 3).Draw(t, "long")
		now := noon
		q := newTurns(slots, long, func() time.Time { return now })
		waiting := drawClaims(t)
		var running []claim
		since := map[client.ObjectKey]time.Time{}
		free := func() int {
			late := 0
			for _, r := range running {
				if now.Sub(since[r.key]) >= patience {
					late++
				}
			}
			return slots - (len(running) - min(late, long))
		}
		for round := 0; len(waiting)+len(running) > 0; round++ {
			if round > 500 {
				t.Fatalf("%d still wait", len(waiting))
			}
			for _, c := range waiting { // all are known
				q.waiting[c.key] = claim{c.key, c.app, c.manual, c.due, now}
			}
			for _, c := range rapid.Permutation(waiting).Draw(t, "order") {
				ok, _ := q.take(c)
				if !ok {
					continue
				}
				for _, w := range waiting {
					busy := slices.ContainsFunc(running, func(r claim) bool { return r.app == w.app })
					if w.key != c.key && !busy && w.app != c.app && w.before(c) && free() <= 1 {
						t.Fatalf("%v got the last turn before %v", c, w)
					}
				}
				running, since[c.key] = append(running, c), now
				waiting = slices.DeleteFunc(slices.Clone(waiting), func(w claim) bool { return w.key == c.key })
			}
			apps := map[client.ObjectKey]bool{}
			for _, r := range running {
				if apps[r.app] {
					t.Fatalf("two captures of %s run", r.app)
				}
				apps[r.app] = true
			}
			if free() < 0 || len(running) > slots+long {
				t.Fatalf("%d run in %d slots and %d for those that take long", len(running), slots, long)
			}
			if len(running) == 0 {
				t.Fatal("slots are free, and nobody got one")
			}
			ended := rapid.IntRange(0, len(running)-1).Draw(t, "ended")
			q.release(running[ended])
			running = slices.Delete(running, ended, ended+1)
			now = now.Add(time.Duration(rapid.IntRange(1, 40).Draw(t, "seconds")) * time.Second)
		}
	})
}

// Captures that hang keep the others waiting for a while, and not until they end. There is
// a bound for them, too.
func TestTurnsOfThoseThatHang(t *testing.T) {
	now := noon
	q := newTurns(2, 3, func() time.Time { return now })
	n := 0
	next := func() bool {
		n++
		key := client.ObjectKey{Name: fmt.Sprintf("p%d", n)}
		ok, _ := q.take(claim{key: key, app: key, due: noon})
		delete(q.waiting, key)
		return ok
	}
	for round, want := range []int{2, 2, 1, 0} { // five in the end
		took := 0
		for next() {
			took++
		}
		if took != want {
			t.Fatalf("%d got a turn in round %d, want %d", took, round, want)
		}
		if now = now.Add(patience - time.Second); next() {
			t.Fatalf("got a turn in round %d, before the others have had their time", round)
		}
		now = now.Add(time.Second)
	}
}

// A capture whose objects are being written keeps its slot, however slow the vault is: they take memory here. Before
// and after that it takes none, once it has run for long.
func TestTurnsOfThoseThatWriteObjects(t *testing.T) {
	now := noon
	q := newTurns(1, 1, func() time.Time { return now })
	first := claim{key: client.ObjectKey{Name: "p1"}, app: client.ObjectKey{Name: "a1"}}
	if ok, _ := q.take(first); !ok {
		t.Fatal("a free slot was refused")
	}
	now = now.Add(time.Hour)
	for _, writing := range []bool{true, false} {
		q.writing(first.app, writing)
		next := claim{key: client.ObjectKey{Name: "p2"}, app: client.ObjectKey{Name: "a2"}}
		if ok, _ := q.take(next); ok == writing {
			t.Errorf("objects are written: %t, and another got a turn: %t", writing, ok)
		}
	}
	q.writing(client.ObjectKey{Name: "gone"}, true)
}

// One that asks no more, as its object was removed, keeps nobody waiting.
func TestTurnsForgetWhoLeft(t *testing.T) {
	now := noon
	q := newTurns(1, 0, func() time.Time { return now })
	first := claim{key: client.ObjectKey{Name: "first"}, app: client.ObjectKey{Name: "a"}}
	urgent := claim{key: client.ObjectKey{Name: "urgent"}, app: client.ObjectKey{Name: "b"}, due: noon.Add(-time.Hour)}
	late := claim{key: client.ObjectKey{Name: "late"}, app: client.ObjectKey{Name: "c"}, due: noon}
	if ok, _ := q.take(first); !ok {
		t.Fatal("a free slot was refused")
	}
	q.take(urgent)
	q.release(first)
	if ok, ahead := q.take(late); ok || ahead != 1 {
		t.Fatalf("took %v with %d ahead, want to wait for the more urgent one", ok, ahead)
	}
	now = now.Add(forgotten + time.Second)
	if ok, _ := q.take(late); !ok {
		t.Error("waits for one that is gone")
	}
}

func TestClaimOf(t *testing.T) {
	duration := func(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }
	app := func(newest time.Time) *v1alpha1.Application {
		a := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(noon.AddDate(0, -1, 0))}}
		if !newest.IsZero() {
			a.Status.NewestInstant = &metav1.Time{Time: newest}
		}
		return a
	}
	policy := &v1alpha1.ProtectionPolicy{Spec: v1alpha1.ProtectionPolicySpec{Schedule: v1alpha1.Schedule{Every: duration(time.Minute)}}}
	strict := &v1alpha1.ProtectionPolicy{Spec: v1alpha1.ProtectionPolicySpec{Objectives: v1alpha1.Objectives{RPO: duration(time.Hour)}}}
	scheduled := &v1alpha1.RecoveryPoint{Spec: v1alpha1.RecoveryPointSpec{Trigger: v1alpha1.TriggerSchedule}}
	asked := &v1alpha1.RecoveryPoint{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(noon)}}
	for want, c := range map[time.Time]claim{
		noon.AddDate(0, -1, 0):     claimOf(scheduled, app(time.Time{}), policy),
		noon.Add(-9 * time.Minute): claimOf(scheduled, app(noon.Add(-10*time.Minute)), policy),
		noon.Add(50 * time.Minute): claimOf(scheduled, app(noon.Add(-10*time.Minute)), strict),
		noon:                       claimOf(asked, app(time.Time{}), policy),
	} {
		if !c.due.Equal(want) {
			t.Errorf("due at %s, want %s", c.due, want)
		}
	}
	if !claimOf(asked, app(noon), policy).before(claimOf(scheduled, app(time.Time{}), policy)) {
		t.Error("a person waits behind the schedule")
	}
}
