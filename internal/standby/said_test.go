package standby

import (
	"context"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/recovery"
)

// TestWhatAJobSaidIsKeptWithoutItsSecrets, also where one was replaced meanwhile, by an act
// and by a look. Where a Secret cannot be read nothing is kept. The control: a step that is given
// none.
func TestWhatAJobSaidIsKeptWithoutItsSecrets(t *testing.T) {
	const password, newer = "hunter2-and-more", "hunter3-and-more"
	secret := func(value string) string {
		return `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"cloud","namespace":"davit-system"},"data":{"PASSWORD":"` + base64.StdEncoding.EncodeToString([]byte(value)) + `"}}`
	}
	said := "\x1b[31mlogin\x1b[0m hunter2\x1b[1m-and-more " + newer + "\ndone\n"
	for name, tc := range map[string]struct {
		secrets            []string
		end, act, look, is string
	}{
		"done":      {[]string{"cloud"}, "Complete", "login *** ***\ndone", "login " + password + " ***\ndone", secret(password)},
		"failed":    {[]string{"cloud"}, "Failed", "login *** ***\ndone", "login " + password + " ***\ndone", secret(password)},
		"not known": {[]string{"cloud", "other"}, "Failed", "[not kept", "[not kept", secret(password)},
		"has none":  {nil, "Complete", "login " + password + " " + newer + "\ndone", "login " + password + " " + newer + "\ndone", secret(password)},
		"and fails": {nil, "Failed", "login " + password + " " + newer + "\ndone", "login " + password + " " + newer + "\ndone", secret(password)},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory(t, tc.is)
			m.changed = func(u *unstructured.Unstructured) {
				if u.GetKind() != "Job" {
					return
				}
				u.Object["status"] = map[string]any{"conditions": []any{map[string]any{"type": tc.end, "status": "True"}}}
				for _, o := range m.objects {
					if o.GetKind() == "Secret" {
						o.Object["data"] = map[string]any{"PASSWORD": base64.StdEncoding.EncodeToString([]byte(newer))}
					}
				}
			}
			s := New(Options{Recovery: recovery.Deps{Cluster: m}, JobLog: func(context.Context, string, string) (string, error) { return said, nil }})
			o := execute.Order{Action: failover.Act, Run: "r", Step: plan.Step{Name: "mail", Timeout: time.Minute, Command: &plan.Command{Image: "i", Secrets: tc.secrets}}}
			act := commands(t.Context(), s, o)
			o.Action = failover.Look
			look := commands(t.Context(), s, o)
			if !strings.HasPrefix(act.Said, tc.act) || !strings.HasPrefix(look.Said, tc.look) {
				t.Errorf("an act: %+v, and a look: %+v", act, look)
			}
			for _, part := range []string{"hunter2", "hunter3"} {
				told := strings.Contains(act.Note, part)
				if told != (tc.secrets == nil && tc.end == "Failed") {
					t.Errorf("the note says it, or does not: %s", act.Note)
				}
			}
		})
	}
}
