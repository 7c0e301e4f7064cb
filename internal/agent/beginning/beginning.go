// Package beginning begins at a site the runs that a project's console asks for,
// by making Runs. What of those is carried out, and whether it can be, whoever
// carries them decides, as of any other Run.
package beginning

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/failover/name"
	"davit.dev/davit/internal/kube/plans"
	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/uplink/dial"
	"davit.dev/davit/internal/vault"
)

const (
	// accepting is how long it is waited for whoever carries the run to take it up
	// or refuse it, and lookEvery between two looks.
	accepting = 15 * time.Second
	lookEvery = 250 * time.Millisecond
)

// Beginner begins runs for the console of one project.
type Beginner struct {
	Client client.Client
	// Reader asks the API server itself.
	Reader  client.Reader
	Site    string
	Project string
	// Accepting is how long it is waited for the run to be taken up; 0: as usual.
	Accepting time.Duration
}

// verbs are those that a console may ask for, and which of them move applications.
var verbs = map[string]bool{"failover": true, "switchover": true, "failback": true, "drill": false}

// Begin implements dial.Begins.
func (b *Beginner) Begin(ctx context.Context, of uplink.Begin, refuse dial.Refusal) (uplink.Begun, error) {
	if why := b.malformed(of); why != "" {
		return refused(why, ""), nil
	}
	var run v1alpha1.Run
	err := b.Reader.Get(ctx, client.ObjectKey{Name: of.Run}, &run)
	switch {
	case err == nil:
		return b.there(ctx, of, &run)
	case !apierrors.IsNotFound(err):
		return uplink.Begun{}, fmt.Errorf("look for run %s: %w", of.Run, err)
	case refuse != (dial.Refusal{}):
		return refused(refuse.Why, refuse.Do), nil
	}
	in, said, err := b.vaultOf(ctx, of.Plan)
	if err != nil || said != nil {
		return value(said), err
	}
	if said, err = b.busy(ctx, of); err != nil || said != nil {
		return value(said), err
	}
	made := b.object(of, in)
	err = b.Client.Create(ctx, made)
	switch {
	case apierrors.IsAlreadyExists(err):
		return uplink.Begun{}, fmt.Errorf("make run %s: %w", of.Run, err) // looked at once more
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsForbidden(err):
		return refused(err.Error(), ""), nil
	case err != nil:
		return uplink.Begun{}, fmt.Errorf("make run %s: %w", of.Run, err)
	}
	return b.there(ctx, of, made)
}

func refused(why, do string) uplink.Begun {
	return uplink.Begun{State: uplink.Refused, Why: clip(why), Do: clip(do)}
}

func value(said *uplink.Begun) uplink.Begun {
	if said == nil {
		return uplink.Begun{}
	}
	return *said
}

// clip bounds a text.
func clip(text string) string {
	const most = 512
	if r := []rune(text); len(r) > most {
		return string(r[:most]) + "…"
	}
	return text
}

// malformed says what is no request of this project's console.
func (b *Beginner) malformed(of uplink.Begin) string {
	_, known := verbs[of.Verb]
	switch {
	case !known:
		return fmt.Sprintf("a console may not ask for a %.32q", of.Verb)
	case of.ID == "" || len(of.ID) > 64 || vault.CheckName(of.Run) != nil || of.Plan == "":
		return "it has no id, no plan, or no name that a run can have"
	case !name.OfConsole(of.By, b.Project):
		return fmt.Sprintf("it is asked for in the name of %.64q, who is nobody of the console of project %s", of.By, b.Project)
	}
	return ""
}

// mark says which request a Run was made of.
func (b *Beginner) mark(of uplink.Begin) string { return b.Project + "/" + of.ID }

// there says of a Run that is there what became of it, once whoever carries it has
// looked at it.
func (b *Beginner) there(ctx context.Context, of uplink.Begin, run *v1alpha1.Run) (uplink.Begun, error) {
	if run.Annotations[v1alpha1.AnnotationRequest] != b.mark(of) {
		return refused(fmt.Sprintf("the site has a run %s, which this request did not make", of.Run), "look at that; ask again, if another is wanted"), nil
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(b.Accepting, accepting))
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		switch {
		case meta.IsStatusConditionFalse(run.Status.Conditions, v1alpha1.ConditionAccepted):
			return refused(run.Status.Why, run.Status.Next), nil
		case run.Status.Sequence > 0:
			return uplink.Begun{State: uplink.Created}, nil
		}
		select {
		case <-ctx.Done():
			return uplink.Begun{State: uplink.Created, Why: "the site has the Run, and had not begun to carry it yet"}, nil
		case <-tick.C:
		}
		var now v1alpha1.Run
		if err := b.Reader.Get(ctx, client.ObjectKey{Name: of.Run}, &now); err == nil && now.UID == run.UID {
			run = &now
		}
	}
}

// vaultOf is the Vault that the plan is of, which must be one of this project.
func (b *Beginner) vaultOf(ctx context.Context, plan string) (string, *uplink.Begun, error) {
	var vaults v1alpha1.VaultList
	if err := b.Reader.List(ctx, &vaults); err != nil {
		return "", nil, fmt.Errorf("list vaults: %w", err)
	}
	var own []string
	for _, v := range vaults.Items {
		if v.Spec.Project == b.Project && v.Spec.CopyOf == "" {
			own = append(own, v.Name)
		}
	}
	var p v1alpha1.RecoveryPlan
	err := b.Reader.Get(ctx, client.ObjectKey{Name: plan}, &p)
	if client.IgnoreNotFound(err) != nil {
		return "", nil, fmt.Errorf("read RecoveryPlan %s: %w", plan, err)
	}
	named, ambiguous := "", error(nil)
	if err == nil {
		named, ambiguous = plans.Among(vaults.Items, &p)
	}
	switch {
	case ambiguous != nil: // whose the object is nobody says, and it goes before what the vault keeps
		said := refused(fmt.Sprintf("the site's plan %s names no vault: %v", plan, ambiguous), "say spec.vault in the plan")
		return "", &said, nil
	case named != "" && !slices.Contains(own, named):
		said := refused(fmt.Sprintf("the site's plan %s is kept in vault %s, which is none of project %s", plan, named, b.Project), "")
		return "", &said, nil
	case named != "":
		return named, nil, nil
	case len(own) == 1:
		return own[0], nil, nil
	case len(own) == 0:
		said := refused("the site has no vault of project "+b.Project, "`davit vault add` there")
		return "", &said, nil
	}
	said := refused(fmt.Sprintf("the site has several vaults of project %s: %v", b.Project, own), "say spec.vault in the plan")
	return "", &said, nil
}

// busy refuses a run beside one of the same plan that is under way. A move waits
// for no drill. What the site cannot see here, whoever carries the run refuses.
func (b *Beginner) busy(ctx context.Context, of uplink.Begin) (*uplink.Begun, error) {
	var runs v1alpha1.RunList
	if err := b.Reader.List(ctx, &runs); err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}
	for _, r := range runs.Items {
		passed := verbs[of.Verb] && r.Spec.Verb == "drill" || of.Verb == "drill" && r.Spec.Verb == "drill" && r.Spec.To != b.Site
		if r.Spec.Plan == of.Plan && !failover.Phase(r.Status.Phase).Over() && !passed {
			said := refused(fmt.Sprintf("run %s, a %s of plan %s, is under way", r.Name, r.Spec.Verb, of.Plan), "wait until it is over, or end it")
			return &said, nil
		}
	}
	return nil, nil //nolint:nilnil // nothing is in the way
}

// object is the Run.
func (b *Beginner) object(of uplink.Begin, in string) *v1alpha1.Run {
	run := &v1alpha1.Run{
		ObjectMeta: metav1.ObjectMeta{Name: of.Run, Annotations: map[string]string{v1alpha1.AnnotationRequest: b.mark(of)}},
		Spec: v1alpha1.RunSpec{
			Plan: of.Plan, Vault: in, Verb: v1alpha1.PlanVerb(of.Verb), To: b.Site, RequestedBy: of.By, Reason: of.Reason, Lost: of.Lost,
		},
	}
	if of.Asked {
		run.Spec.AcceptFence = v1alpha1.AcceptAsked
	}
	for app, id := range of.Points {
		if run.Spec.Points == nil {
			run.Spec.Points = map[string]v1alpha1.PointName{}
		}
		run.Spec.Points[app] = v1alpha1.PointName(id)
	}
	if !of.AsOf.IsZero() {
		run.Spec.AsOf = &metav1.Time{Time: of.AsOf}
	}
	return run
}
