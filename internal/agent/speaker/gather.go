package speaker

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/plans"
	"davit.dev/davit/internal/restore/gitops"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/uplink"
)

// gather says how the objects of a project stand.
func (s *Speaker) gather(ctx context.Context, project string) ([]uplink.Object, error) {
	var vaults v1alpha1.VaultList
	var policies v1alpha1.ProtectionPolicyList
	var sites v1alpha1.SiteList
	var apps v1alpha1.ApplicationList
	var planned v1alpha1.RecoveryPlanList
	var runs v1alpha1.RunList
	for _, list := range []client.ObjectList{&sites, &apps, &planned, &runs, &vaults, &policies} {
		if err := s.Client.List(ctx, list); err != nil {
			return nil, fmt.Errorf("list objects: %w", err)
		}
	}
	of := of(project, vaults.Items)
	var all []uplink.Object
	for i := range sites.Items {
		if o := &sites.Items[i]; o.Name == s.Site {
			all = append(all, stands("Site", o, o.Status.Conditions, v1alpha1.ConditionReady))
		}
	}
	for i := range vaults.Items {
		if o := &vaults.Items[i]; of[o.Name] {
			all = append(all, reach(o))
		}
	}
	named := map[client.ObjectKey]bool{}
	for i := range apps.Items {
		if o := &apps.Items[i]; of[o.Spec.Vault] {
			all = append(all, told(project, application(o), o, o.Spec))
			named[client.ObjectKey{Namespace: o.Namespace, Name: o.Spec.Policy}] = true
		}
	}
	for i := range policies.Items { // those that the project's applications go by
		if o := &policies.Items[i]; named[client.ObjectKeyFromObject(o)] {
			all = append(all, told(project, object("ProtectionPolicy", o), o, o.Spec))
		}
	}
	planVault := map[string]string{}
	for i := range planned.Items {
		o := &planned.Items[i]
		planVault[o.Name] = keptIn(vaults.Items, o)
		if of[planVault[o.Name]] {
			said := stands("RecoveryPlan", o, o.Status.Conditions, v1alpha1.ConditionReady)
			said.Holder = o.Status.At
			all = append(all, told(project, said, o, o.Spec))
		}
	}
	for i := range runs.Items {
		o := &runs.Items[i]
		vault := o.Spec.Vault
		if vault == "" {
			vault = planVault[o.Spec.Plan]
		}
		if of[vault] {
			said := object("Run", o)
			said.State, said.Why = o.Status.Phase, clip(o.Status.Why)
			all = append(all, said)
		}
	}
	fit(all)
	return all, nil
}

// keptIn is the Vault that keeps a plan; empty where nobody can say, as that one's status
// does.
func keptIn(vaults []v1alpha1.Vault, p *v1alpha1.RecoveryPlan) string {
	name, err := plans.Among(vaults, p)
	if err != nil {
		return ""
	}
	return name
}

// told adds what an object says, unless the project's console made it: that one knows. No
// Secret is among these kinds, and nothing of a metadata is told.
func told(project string, said uplink.Object, o client.Object, spec any) uplink.Object {
	by := o.GetLabels()[v1alpha1.LabelConsole]
	if by == uplink.ProjectLabel(project) && said.Git == "" {
		return said
	}
	said.Foreign, said.Console = true, by
	if data, err := json.Marshal(spec); err == nil && len(data) <= uplink.MaxSpec {
		said.Spec = data
	}
	return said
}

// fit leaves specs out for which there is no room, always the same ones.
func fit(all []uplink.Object) {
	slices.SortFunc(all, func(a, b uplink.Object) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	size := 0
	for i := range all {
		if o := &all[i]; size+len(o.Spec) > uplink.MaxSpecs {
			o.Spec = nil
		}
		size += len(all[i].Spec)
	}
}

// reach says how the site reaches a vault.
func reach(v *v1alpha1.Vault) uplink.Object {
	o := stands("Vault", v, v.Status.Conditions, v1alpha1.ConditionReady)
	st := &v.Status
	o.Vault = &uplink.Reach{CopyOf: v.Spec.CopyOf, KeyVersion: st.KeyVersion}
	if st.LastChecked != nil {
		o.Vault.Checked = st.LastChecked.UTC()
	}
	if st.Latency != nil {
		o.Vault.RoundTrip = st.Latency.Microseconds()
	}
	if c := st.Copy; c != nil {
		o.Vault.Pending, o.Vault.Fault = c.Pending, clip(c.Error)
		if c.PendingSince != nil {
			o.Vault.Since = c.PendingSince.UTC()
		}
	}
	return o
}

func application(a *v1alpha1.Application) uplink.Object {
	o := stands("Application", a, a.Status.Conditions, v1alpha1.ConditionProtected)
	o.VaultName, o.Role, o.Epoch, o.Holder = a.VaultName(), string(a.Status.Role), a.Status.Epoch, a.Status.EpochSite
	o.Point, o.Points = a.Status.NewestPoint, a.Status.Points
	if at := a.Status.NewestInstant; at != nil {
		o.Instant = at.UTC()
	}
	return o
}

// object names an object, and what makes it from git.
func object(kind string, o client.Object) uplink.Object {
	said := uplink.Object{Key: uplink.Key{Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName()}}
	var h shape.Head
	h.Metadata.Name, h.Metadata.Namespace, h.Metadata.Labels, h.Metadata.Annotations = o.GetName(), o.GetNamespace(), o.GetLabels(), o.GetAnnotations()
	none := func(string) bool { return false } // the oldest label says too little
	if r, ok := gitops.Of(schema.GroupKind{Group: v1alpha1.GroupVersion.Group, Kind: kind}, h, none); ok {
		said.Git = r.String()
	}
	return said
}

// stands says how an object stands by one of its conditions.
func stands(kind string, o client.Object, conditions []metav1.Condition, by string) uplink.Object {
	said := object(kind, o)
	if c := meta.FindStatusCondition(conditions, by); c != nil {
		said.State = c.Reason
		if c.Status == metav1.ConditionTrue {
			said.State = by
		} else {
			said.Why = clip(c.Message)
		}
	}
	return said
}

// clip bounds a text.
func clip(text string) string {
	const most = 512
	if r := []rune(text); len(r) > most {
		return string(r[:most]) + "…"
	}
	return text
}

// recorder records events in the cluster, as its agent does, and tells the
// consoles of them.
type recorder struct {
	record.EventRecorder
	speaker *Speaker
}

// Recorder returns a recorder that also tells the consoles. It never waits: what
// finds no room is counted.
func (s *Speaker) Recorder(of record.EventRecorder) record.EventRecorder { return recorder{of, s} }

// Event implements record.EventRecorder.
func (r recorder) Event(o runtime.Object, kind, reason, message string) {
	r.EventRecorder.Event(o, kind, reason, message)
	r.tell(o, kind, reason, message)
}

// Eventf implements record.EventRecorder.
func (r recorder) Eventf(o runtime.Object, kind, reason, format string, args ...any) {
	r.EventRecorder.Eventf(o, kind, reason, format, args...)
	r.tell(o, kind, reason, fmt.Sprintf(format, args...))
}

// AnnotatedEventf implements record.EventRecorder.
func (r recorder) AnnotatedEventf(o runtime.Object, annotations map[string]string, kind, reason, format string, args ...any) {
	r.EventRecorder.AnnotatedEventf(o, annotations, kind, reason, format, args...)
	r.tell(o, kind, reason, fmt.Sprintf(format, args...))
}

func (r recorder) tell(o runtime.Object, kind, reason, message string) {
	h := happening{Event: uplink.Event{At: r.speaker.Now().UTC(), Type: kind, Reason: reason, Message: clip(message)}}
	switch o := o.(type) {
	case *v1alpha1.Site:
		h.site, h.Object = true, uplink.Key{Kind: "Site", Name: o.Name}
	case *v1alpha1.Vault:
		h.vault, h.Object = o.Name, uplink.Key{Kind: "Vault", Name: o.Name}
	case *v1alpha1.Application:
		h.vault, h.Object = o.Spec.Vault, uplink.Key{Kind: "Application", Namespace: o.Namespace, Name: o.Name}
	case *v1alpha1.RecoveryPoint:
		h.application = client.ObjectKey{Namespace: o.Namespace, Name: o.Spec.Application}
		h.Object = uplink.Key{Kind: "RecoveryPoint", Namespace: o.Namespace, Name: o.Name}
	case *v1alpha1.Restore:
		h.vault, h.Object = o.Spec.Vault, uplink.Key{Kind: "Restore", Namespace: o.Namespace, Name: o.Name}
	case *v1alpha1.RecoveryPlan:
		h.vault, h.plan, h.Object = o.Spec.Vault, o.Name, uplink.Key{Kind: "RecoveryPlan", Name: o.Name}
	case *v1alpha1.Run:
		h.vault, h.plan, h.Object = o.Spec.Vault, o.Spec.Plan, uplink.Key{Kind: "Run", Name: o.Name}
	default:
		return
	}
	select {
	case r.speaker.queue() <- h:
	default:
		r.speaker.dropped.Add(1)
	}
}
