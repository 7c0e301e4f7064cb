package application

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/protection"
)

// A superseded site that cannot stop what it should has much to say. The API server would refuse a
// condition of more than 32768 characters, and with it that the site is superseded: whoever asks it
// would hear that it is active.
func TestMuchToSay(t *testing.T) {
	var all []error
	for i := range 1000 {
		all = append(all, fmt.Errorf("stop Deployment shop/web-%d: admission webhook \"müde.example.com\" denied the request: %s", i, strings.Repeat("é", 60)))
	}
	many := errors.Join(all...)
	s := &scope{
		app: &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "shop"}}, now: time.Unix(1, 0), memory: &memory{},
		standing: protection.Standing{Role: v1alpha1.RoleSuperseded, Current: lease.Epoch{Number: 2, Claim: lease.Claim{Site: "west"}}},
	}
	s.app.Status.Role = v1alpha1.RoleSuperseded
	s.rest(fenced{}, many)
	s.fail(v1alpha1.ReasonSuperseded, fmt.Errorf("site west holds epoch 2, and not everything could be stopped here: %w", many))
	(&Reconciler{Site: "east"}).summarize(s)
	for _, c := range s.app.Status.Conditions {
		if n := utf8.RuneCountInString(c.Message); n > 32768 || !utf8.ValidString(c.Message) {
			t.Errorf("condition %s has %d characters", c.Type, n)
		}
		if c.Type == v1alpha1.ConditionReady && !strings.HasPrefix(c.Message, "site west holds epoch 2") {
			t.Errorf("%.100s", c.Message)
		}
	}
	if data, err := json.Marshal(s.app); err != nil || len(data) > 256<<10 || s.app.Status.Rest.Stopped {
		t.Errorf("%d bytes, %v", len(data), err)
	}
}
