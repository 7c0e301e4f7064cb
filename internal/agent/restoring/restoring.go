// Package restoring restores at a site what a project's console asks for, by making
// Restores, and says beforehand what one would do. Whether it may be, the rules of
// every restore decide, and those of the site that are looked at here: a console
// takes over nothing, and makes copies in namespaces that are not there yet.
package restoring

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/failover/name"
	"davit.dev/davit/internal/install"
	"davit.dev/davit/internal/reconcile/restore"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/uplink/dial"
	"davit.dev/davit/internal/vault"
)

const (
	// planning is how long a dry run may take, and atOnce how many run at once.
	planning = 10 * time.Minute
	atOnce   = 2
	// queued is how long a restore may wait at the site for others before it begins.
	queued = time.Hour
	// beginLimit is how long it may take to begin a restore.
	beginLimit = 45 * time.Second
	// lookEvery is between two looks at a restore, and sayEvery how often it is said
	// how far it is where nothing else changed.
	lookEvery = time.Second
	sayEvery  = 10 * time.Second
)

// Account is whose rights a restore has that a console asked for.
const Account = install.RestoreName

// RequestedBy and Reason are annotations of Restores that somebody asked for at a
// console: who, and what for.
const (
	RequestedBy = "davit.dev/requested-by"
	Reason      = "davit.dev/reason"
)

// Access makes what a dry run works with.
type Access interface {
	Recovery(ctx context.Context, vaultName, namespace, serviceAccount string) (recovery.Deps, error)
}

// Turns are what dry runs of all projects share.
type Turns chan struct{}

// NewTurns makes them.
func NewTurns() Turns { return make(Turns, atOnce) }

// Restorer restores for the console of one project.
type Restorer struct {
	Client client.Client
	// Reader asks the API server itself.
	Reader  client.Reader
	Access  Access
	Site    string
	Project string
	Turns   Turns
	Now     func() time.Time
	// LookEvery is between two looks at a restore, and BeginLimit how long it may
	// take to begin one; 0: as usual.
	LookEvery, BeginLimit time.Duration

	beginning sync.Mutex // one is begun or taken back at a time
	made      []string   // ids of requests that were begun here, the newest last
	canceled  []string   // and of those that were taken back
}

// remembered is how many requests of each kind are remembered: none may be begun
// much later than it was asked for.
const remembered = 1000

func remember(all []string, id string) []string {
	return append(all[max(0, len(all)-remembered):], id)
}

// Restore implements dial.Restores.
func (r *Restorer) Restore(ctx context.Context, of uplink.Restore, refuse dial.Refusal, say func(uplink.Restored)) error {
	if why := r.malformed(of); why != "" {
		say(refused(why, ""))
		return nil
	}
	var in string
	var made *v1alpha1.Restore
	var said *uplink.Restored
	var err error
	if of.Cancel {
		made, said, err = r.cancel(ctx, of)
	} else {
		in, made, said, err = r.begin(ctx, of, refuse)
	}
	switch {
	case err != nil:
		return err
	case said != nil:
		say(*said)
		return nil
	case made == nil:
		return r.preview(ctx, of, in, say)
	}
	return r.follow(ctx, of, made, say)
}

// begin makes the Restore, or finds that which was made before; of a dry run it says
// only where it is to look. It has a limit: whether it is too late was decided before
// it, and what hangs here and goes on much later would be begun when nobody expects
// it any more.
func (r *Restorer) begin(ctx context.Context, of uplink.Restore, refuse dial.Refusal) (in string, made *v1alpha1.Restore, said *uplink.Restored, err error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(r.BeginLimit, beginLimit))
	defer cancel()
	if !of.DryRun {
		r.beginning.Lock()
		defer r.beginning.Unlock()
		if slices.Contains(r.canceled, of.ID) {
			return "", nil, &uplink.Restored{State: uplink.Canceled}, nil
		}
		if made, err = r.known(ctx, of); err != nil || made != nil {
			return "", made, nil, err
		}
		if of.Begun || slices.Contains(r.made, of.ID) {
			return "", nil, &uplink.Restored{State: uplink.Failed, Why: errRemoved.Error()}, nil
		}
	}
	if refuse != (dial.Refusal{}) {
		no := refused(refuse.Why, refuse.Do)
		return "", nil, &no, nil
	}
	if in, said, err = r.place(ctx, of); err != nil || said != nil || of.DryRun {
		return in, nil, said, err
	}
	made = r.object(of, in)
	err = r.Client.Create(ctx, made)
	switch {
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsForbidden(err):
		no := refused(err.Error(), "")
		return "", nil, &no, nil
	case err != nil: // one that is there by now is looked at once more
		return "", nil, nil, fmt.Errorf("make restore %s: %w", of.Name, err)
	}
	r.made = remember(r.made, of.ID)
	return in, made, nil, nil
}

// cancel takes back what has not begun. What has begun goes on, and is followed.
func (r *Restorer) cancel(ctx context.Context, of uplink.Restore) (*v1alpha1.Restore, *uplink.Restored, error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(r.BeginLimit, beginLimit))
	defer cancel()
	r.beginning.Lock()
	defer r.beginning.Unlock()
	back := &uplink.Restored{State: uplink.Canceled, Why: "it was taken back before it began: nothing was changed"}
	if slices.Contains(r.canceled, of.ID) {
		return nil, back, nil
	}
	rs, err := r.known(ctx, of)
	switch {
	case err != nil:
		return nil, nil, err
	case rs == nil && (of.Begun || slices.Contains(r.made, of.ID)):
		return nil, &uplink.Restored{State: uplink.Failed, Why: errRemoved.Error()}, nil
	case rs != nil && (rs.Annotations[v1alpha1.AnnotationRequest] != r.mark(of) || rs.Status.StartedAt != nil || rs.Status.Phase == v1alpha1.RestoreRunning || ended(rs)):
		return rs, nil, nil
	case rs != nil: // whoever takes it up writes into it first
		err = r.Client.Delete(ctx, rs, client.Preconditions{UID: &rs.UID, ResourceVersion: &rs.ResourceVersion})
	}
	if client.IgnoreNotFound(err) != nil { // it is looked at again
		return nil, nil, fmt.Errorf("take restore %s back: %w", of.Name, err)
	}
	r.canceled = remember(r.canceled, of.ID)
	return nil, back, nil
}

func (r *Restorer) wasCanceled(id string) bool {
	r.beginning.Lock()
	defer r.beginning.Unlock()
	return slices.Contains(r.canceled, id)
}

func refused(why, do string) uplink.Restored {
	return uplink.Restored{State: uplink.Refused, Why: clip(why), Do: clip(do)}
}

// clip bounds a text.
func clip(text string) string {
	const most = 1024
	if r := []rune(text); len(r) > most {
		return string(r[:most]) + "…"
	}
	return text
}

// policies are the words for what happens to what is there.
var policies = map[string]v1alpha1.ExistingPolicy{
	"": v1alpha1.ExistingSkip, "skip": v1alpha1.ExistingSkip, "update": v1alpha1.ExistingUpdate, "replace": v1alpha1.ExistingReplace, "exact": v1alpha1.ExistingExact,
}

// maxNames bounds how many namespaces and storage classes are mapped.
const maxNames = 256

// malformed says what is no request of this project's console.
func (r *Restorer) malformed(of uplink.Restore) string {
	_, known := policies[of.Existing]
	names := slices.Concat(slices.Collect(maps.Keys(of.Namespaces)), slices.Collect(maps.Values(of.Namespaces)), slices.Collect(maps.Keys(of.StorageClasses)), slices.Collect(maps.Values(of.StorageClasses)))
	bad := slices.ContainsFunc(names, func(name string) bool { return vault.CheckName(name) != nil })
	switch {
	case of.ID == "" || len(of.ID) > 64 || vault.CheckName(of.Name) != nil || vault.CheckName(of.Application) != nil || vault.CheckName(of.Point) != nil:
		return "it has no id, application or point, or no name that a restore can have"
	case !known:
		return fmt.Sprintf("what is there cannot be treated as %.32q says", of.Existing)
	case bad || len(names) > 4*maxNames:
		return "it maps names that no namespace or storage class can have"
	case of.Clone == (len(of.Namespaces) == 0):
		return "a copy has other namespaces than the original, and what comes back in place has the same"
	case of.Cancel && of.DryRun:
		return "a dry run changes nothing that could be taken back"
	case of.Clone && policies[of.Existing] != v1alpha1.ExistingSkip:
		return "a copy that a console asks for overwrites nothing"
	case !name.OfConsole(of.By, r.Project):
		return fmt.Sprintf("it is asked for in the name of %.64q, who is nobody of the console of project %s", of.By, r.Project)
	}
	return ""
}

// mark says which request a Restore was made of.
func (r *Restorer) mark(of uplink.Restore) string { return r.Project + "/" + of.ID }

// known is the Restore of the name, if there is one.
func (r *Restorer) known(ctx context.Context, of uplink.Restore) (*v1alpha1.Restore, error) {
	var rs v1alpha1.Restore
	err := r.Reader.Get(ctx, client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: of.Name}, &rs)
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // it is not there
	}
	if err != nil {
		return nil, fmt.Errorf("look for restore %s: %w", of.Name, err)
	}
	return &rs, nil
}

// place finds the Vault to restore from, and refuses what the site does not do.
func (r *Restorer) place(ctx context.Context, of uplink.Restore) (in string, said *uplink.Restored, err error) {
	if in, said, err = r.vaultOf(ctx, of.Application); err != nil || said != nil {
		return "", said, err
	}
	if said, err = r.busy(ctx, of); err != nil || said != nil {
		return "", said, err
	}
	said, err = r.taken(ctx, of)
	return in, said, err
}

// vaultOf is the Vault that the application is kept in, which must be one of this
// project, and no second copy.
func (r *Restorer) vaultOf(ctx context.Context, app string) (string, *uplink.Restored, error) {
	var vaults v1alpha1.VaultList
	if err := r.Reader.List(ctx, &vaults); err != nil {
		return "", nil, fmt.Errorf("list vaults: %w", err)
	}
	var own []string
	for _, v := range vaults.Items {
		if v.Spec.Project == r.Project && v.Spec.CopyOf == "" {
			own = append(own, v.Name)
		}
	}
	switch len(own) {
	case 0:
		said := refused("the site has no vault of project "+r.Project, "`davit vault add` there")
		return "", &said, nil
	case 1:
		return own[0], nil, nil
	}
	var apps v1alpha1.ApplicationList
	if err := r.Reader.List(ctx, &apps); err != nil {
		return "", nil, fmt.Errorf("list applications: %w", err)
	}
	for i := range apps.Items {
		if a := &apps.Items[i]; a.VaultName() == app && slices.Contains(own, a.Spec.Vault) {
			return a.Spec.Vault, nil, nil
		}
	}
	said := refused(fmt.Sprintf("the site has several vaults of project %s, %v, and no application %s that says in which it is", r.Project, own, app), "restore there, with --vault")
	return "", &said, nil
}

// busy refuses a restore beside another of the application that is under way here.
// A dry run may look meanwhile, and sees what is there at the moment.
func (r *Restorer) busy(ctx context.Context, of uplink.Restore) (*uplink.Restored, error) {
	if of.DryRun {
		return nil, nil //nolint:nilnil // nothing is in the way
	}
	var all v1alpha1.RestoreList
	if err := r.Reader.List(ctx, &all); err != nil {
		return nil, fmt.Errorf("list restores: %w", err)
	}
	for i := range all.Items {
		rs := &all.Items[i]
		if rs.Spec.Application == of.Application && !ended(rs) && rs.DeletionTimestamp.IsZero() {
			said := refused(fmt.Sprintf("restore %s of %s is under way here", rs.Name, of.Application), "wait until it is over")
			return &said, nil
		}
	}
	return nil, nil //nolint:nilnil // nothing is in the way
}

// taken refuses a copy into a namespace that is there and is not its own: what is in
// that is somebody's. One that was interrupted finds the namespaces that it made.
func (r *Restorer) taken(ctx context.Context, of uplink.Restore) (*uplink.Restored, error) {
	id := shape.ID(of.Point, string(v1alpha1.RestoreClone), of.Namespaces)
	for _, name := range slices.Sorted(maps.Values(of.Namespaces)) {
		var ns corev1.Namespace
		err := r.Reader.Get(ctx, client.ObjectKey{Name: name}, &ns)
		switch {
		case apierrors.IsNotFound(err), err == nil && ns.Labels[shape.LabelRestore] == id:
			continue
		case err != nil:
			return nil, fmt.Errorf("look for namespace %s: %w", name, err)
		}
		said := refused(fmt.Sprintf("namespace %s is there already, and a copy that a console asks for goes into new ones", name), "choose another, or restore there, with the site's kubeconfig")
		return &said, nil
	}
	return nil, nil //nolint:nilnil // nothing is in the way
}

func (r *Restorer) spec(of uplink.Restore, in string) v1alpha1.RestoreSpec {
	s := v1alpha1.RestoreSpec{
		Vault: in, Application: of.Application, Point: of.Point, Mode: v1alpha1.RestoreInPlace, Existing: policies[of.Existing],
		NamespaceMapping: of.Namespaces, StorageClassMapping: of.StorageClasses, Epoch: &of.Seen, ServiceAccountName: Account,
	}
	if of.Clone {
		s.Mode = v1alpha1.RestoreClone
	}
	return s
}

// object is the Restore.
func (r *Restorer) object(of uplink.Restore, in string) *v1alpha1.Restore {
	notes := map[string]string{
		v1alpha1.AnnotationRequest: r.mark(of), RequestedBy: of.By, restore.AnnotationBeginBy: r.Now().Add(queued).UTC().Format(time.RFC3339),
	}
	if of.Reason != "" {
		notes[Reason] = of.Reason
	}
	return &v1alpha1.Restore{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: of.Name, Annotations: notes}, Spec: r.spec(of, in)}
}

// preview says what a restore would do.
func (r *Restorer) preview(ctx context.Context, of uplink.Restore, in string, say func(uplink.Restored)) error {
	select {
	case r.Turns <- struct{}{}:
		defer func() { <-r.Turns }()
	case <-ctx.Done():
		return ctx.Err()
	}
	limited, cancel := context.WithTimeoutCause(ctx, planning, fmt.Errorf("a dry run that a console asks for may take %s: `davit restore --dry-run` at the site takes its time", planning))
	defer cancel()
	report, err := r.plan(limited, of, in)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case recovery.Refused(err):
		say(refused(err.Error(), ""))
		return nil
	case err != nil:
		if why := context.Cause(limited); why != nil {
			err = why
		}
		say(uplink.Restored{State: uplink.Failed, Why: clip("nothing was changed: " + err.Error())})
		return nil
	}
	said, err := result(uplink.Planned, bound(show(report)))
	if err != nil {
		return err
	}
	say(said)
	return nil
}

func (r *Restorer) plan(ctx context.Context, of uplink.Restore, in string) (recovery.Report, error) {
	deps, err := r.Access.Recovery(ctx, in, v1alpha1.SystemNamespace, Account)
	if err != nil {
		return recovery.Report{}, err
	}
	deps.Now, deps.Holder = r.Now, of.By
	opts := recovery.FromSpec(r.spec(of, in))
	opts.Namespace, opts.Diff = v1alpha1.SystemNamespace, true
	return recovery.Plan(ctx, opts, deps)
}

func result(state string, of any) (uplink.Restored, error) {
	data, err := json.Marshal(of)
	if err != nil {
		return uplink.Restored{}, fmt.Errorf("write what a restore does: %w", err)
	}
	return uplink.Restored{State: state, Result: data}, nil
}

func ended(rs *v1alpha1.Restore) bool {
	switch rs.Status.Phase {
	case v1alpha1.RestoreCompleted, v1alpha1.RestoreWarned, v1alpha1.RestoreFailed:
		return true
	}
	return false
}

// errRemoved says that a Restore was taken away under way.
var errRemoved = errors.New("somebody removed the Restore before it was over: what it had made is there")

// follow says how a Restore stands until it is over.
func (r *Restorer) follow(ctx context.Context, of uplink.Restore, rs *v1alpha1.Restore, say func(uplink.Restored)) error {
	if rs.Annotations[v1alpha1.AnnotationRequest] != r.mark(of) {
		say(refused(fmt.Sprintf("the site has a restore %s, which this request did not make", of.Name), "look at that; ask again, if another is wanted"))
		return nil
	}
	tick := time.NewTicker(cmp.Or(r.LookEvery, lookEvery))
	defer tick.Stop()
	var last string
	var at time.Time
	for uid := rs.UID; ; {
		if now := r.Now(); ended(rs) || rs.Status.Step != last || at.IsZero() || now.Sub(at) >= sayEvery {
			said, err := stands(rs)
			if err != nil {
				return err
			}
			say(said)
			last, at = rs.Status.Step, now
		}
		if ended(rs) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		now, err := r.known(ctx, of)
		switch {
		case err != nil:
			return err
		case (now == nil || now.UID != uid) && r.wasCanceled(of.ID): // who took it back says so
			return nil
		case now == nil || now.UID != uid:
			say(uplink.Restored{State: uplink.Failed, Why: errRemoved.Error()})
			return nil
		}
		rs = now
	}
}

// stands says how a Restore stands.
func stands(rs *v1alpha1.Restore) (uplink.Restored, error) {
	st := &rs.Status
	out := uplink.Outcome{Step: st.Step, Restored: st.Restored, Skipped: st.Skipped, Pruned: st.Pruned, Failed: st.FailedObjects, Bytes: st.VolumeBytes}
	if st.StartedAt != nil {
		out.Started = st.StartedAt.UTC()
	}
	if st.FinishedAt != nil {
		out.Finished = st.FinishedAt.UTC()
	}
	if st.RPO != nil {
		out.RPO = st.RPO.Milliseconds()
	}
	if st.RTO != nil {
		out.RTO = st.RTO.Milliseconds()
	}
	const most = 20
	for _, w := range st.WarningList[:min(len(st.WarningList), most)] {
		out.Warnings = append(out.Warnings, clip(w))
	}
	out.More = max(0, st.Warnings-int64(len(out.Warnings)))
	said, err := result(uplink.Running, out)
	switch st.Phase {
	case v1alpha1.RestoreCompleted:
		said.State = uplink.Completed
	case v1alpha1.RestoreWarned:
		said.State = uplink.Warned
	case v1alpha1.RestoreFailed:
		said.State, said.Why = uplink.Failed, clip(why(rs))
		said.Do = "`davit logs restore " + rs.Name + "` at the site tells more"
		if meta.IsStatusConditionTrue(st.Conditions, v1alpha1.ConditionUntouched) {
			said.State = uplink.Refused // before anything was changed
		}
	case v1alpha1.RestorePending, v1alpha1.RestoreRunning, "":
	}
	return said, err
}

// why is what a Restore says of its failure.
func why(rs *v1alpha1.Restore) string {
	for _, c := range rs.Status.Conditions {
		if c.Type == v1alpha1.ConditionReady {
			return strings.TrimSpace(c.Message)
		}
	}
	return ""
}
