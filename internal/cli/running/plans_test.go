package running

import (
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// TestAPlanIsShownWithoutItsPromises: one epoch is damaged, or the facts of the sites are not there to be read. The
// control is a vault in which nothing is.
func TestAPlanIsShownWithoutItsPromises(t *testing.T) {
	for _, damaged := range []bool{true, false} {
		key, err := vault.NewIdentity()
		if err != nil {
			t.Fatal(err)
		}
		p, err := vault.CreateProject(t.Context(), mem.New(time.Now), "default", key.Recipient())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := lease.New(p).Claim(t.Context(), "shop", 1, lease.Claim{Site: "east", Request: "r", At: time.Now()}); err != nil {
			t.Fatal(err)
		}
		if damaged {
			var epoch string
			if err := p.Store().List(t.Context(), p.Root()+"epochs/", func(o vault.ObjectInfo) error {
				epoch = o.Key
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if err := p.Store().Put(t.Context(), epoch, strings.NewReader("damaged"), 7); err != nil {
				t.Fatal(err)
			}
		}
		shown := Shown{now: time.Now(), document: []byte("{}")}
		shown.unread = shown.ask(t.Context(), p, &plan.Plan{Name: "p", Applications: []plan.Application{{Name: "shop"}}, Fence: plan.Fence{Promises: true}})
		var text output.Text
		shown.promises(&text)
		if got := text.String(); strings.Contains(got, "Promises: could not be read: ") != damaged || strings.Contains(got, "nobody: no lease") == damaged {
			t.Errorf("damaged %t: %s", damaged, got)
		}
	}
}
