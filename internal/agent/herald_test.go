package agent

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/preflight"
)

// TestAbreast: a vault that does not answer keeps nobody from the others, however many there
// are; and nobody looks at one that is being looked at.
func TestAbreast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &herald{said: map[string]*heard{}, hands: make(chan struct{}, heraldAbreast)}
		answers := make(chan struct{})
		var mu sync.Mutex
		looked := map[string]int{}
		look := func(name string, wait bool) {
			h.beside(t.Context(), name, func(context.Context, *heard) {
				mu.Lock()
				looked[name]++
				mu.Unlock()
				if wait {
					<-answers
				}
			})
		}
		const others = 3 * heraldAbreast
		for range 2 { // ticks
			look("silent", true)
			for i := range others {
				look(fmt.Sprint("vault-", i), false)
			}
			synctest.Wait()
		}
		if looked["silent"] != 1 {
			t.Errorf("the silent vault was begun %d times, want once: it has not answered", looked["silent"])
		}
		for i := range others {
			if n := looked[fmt.Sprint("vault-", i)]; n != 2 {
				t.Errorf("vault-%d was looked at %d times, want at each tick", i, n)
			}
		}
		close(answers)
		h.wait()
		look("silent", false)
		h.wait()
		if looked["silent"] != 2 {
			t.Error("the vault that was silent is not looked at any more")
		}
	})
}

// TestAccountsThatPlansName are asked about once each, of what their plans take.
func TestAccountsThatPlansName(t *testing.T) {
	of := func(account string, command bool, apps ...string) *v1alpha1.RecoveryPlan {
		p := &v1alpha1.RecoveryPlan{}
		p.Spec.ServiceAccountName = account
		for _, app := range apps {
			p.Spec.Applications = append(p.Spec.Applications, v1alpha1.PlanApplication{Name: app})
		}
		if command {
			p.Spec.Steps = []v1alpha1.PlanStep{{Kind: "command", Command: &v1alpha1.PlanCommand{Image: "x"}}}
		}
		return p
	}
	plans := []*v1alpha1.RecoveryPlan{of("", true, "shop"), of("mover", false, "shop"), of("davit-restore", true, "till"), of("mover", true, "shop", "till"), of("other", false, "bank")}
	var needs []preflight.Need
	for _, app := range []string{"shop", "till", "bank"} {
		needs = append(needs, preflight.Need{Application: app})
	}
	got, err := named(plans, needs, func(string) (*kube.Clients, error) { return nil, nil }) //nolint:nilnil // they are not used
	if err != nil || len(got) != 2 || got[0].Name != "mover" || len(got[0].Needs) != 2 || len(got[0].Steps) == 0 || got[1].Name != "other" || len(got[1].Needs) != 1 || len(got[1].Steps) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}
