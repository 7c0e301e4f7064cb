// Package documents does at a site what the documents of a project's console ask
// for. It makes and changes objects by server-side apply, and takes away only
// what that console made: what git makes, or people, or another project's
// console, it leaves alone and says so.
package documents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/restore/gitops"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/uplink"
)

// FieldManager owns the fields that a console's documents say.
const FieldManager = "davit-console"

// limit is how long one document may take.
const limit = 30 * time.Second

// Keeper keeps the documents of one project's console at a site.
type Keeper struct {
	Client client.Client
	// Reader asks the API server itself.
	Reader  client.Reader
	Vaults  Vaults
	Site    string
	Project string
}

// kinds are all that a console may have made, and whether they are namespaced.
var kinds = map[string]bool{"Application": true, "ProtectionPolicy": true, "RecoveryPlan": false}

// problem is why a document is not as it should be.
type problem struct{ state, why string }

func (p *problem) Error() string { return p.state + ": " + p.why }

func fault(state, format string, args ...any) error {
	return &problem{state, fmt.Sprintf(format, args...)}
}

// Take implements dial.Hands.
func (k *Keeper) Take(ctx context.Context, d uplink.Document) uplink.Told {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	did, do := uplink.Applied, k.apply
	if d.Gone {
		did, do = uplink.Gone, k.remove
	}
	var p *problem
	err := k.check(d)
	if err == nil {
		err = do(ctx, d)
	}
	switch {
	case err == nil:
		return uplink.Told{State: did}
	case errors.As(err, &p):
		return uplink.Told{State: p.state, Why: clip(p.why)}
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return uplink.Told{State: uplink.Refused, Why: clip(err.Error())}
	}
	return uplink.Told{State: uplink.Waiting, Why: clip(err.Error())}
}

// clip bounds a text.
func clip(text string) string {
	const most = 512
	if r := []rune(text); len(r) > most {
		return string(r[:most]) + "…"
	}
	return text
}

// check refuses whatever is no document of a console, before anything is asked.
func (k *Keeper) check(d uplink.Document) error {
	namespaced, ok := kinds[d.Kind]
	switch {
	case !ok:
		return fault(uplink.Refused, "a console may not make a %.64s", d.Kind)
	case namespaced != (d.Namespace != ""):
		return fault(uplink.Refused, "the namespace %q does not fit a %s", d.Namespace, d.Kind)
	case d.UID == "" || strings.Contains(d.UID, "/") || d.Name == "":
		return fault(uplink.Refused, "it has no uid or no name")
	}
	return nil
}

// body is what there is of a document.
type body struct {
	Metadata struct {
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec map[string]any `json:"spec"`
}

// apply makes or changes the object.
func (k *Keeper) apply(ctx context.Context, d uplink.Document) error {
	var b body
	if err := json.Unmarshal(d.Body, &b); err != nil {
		return fault(uplink.Refused, "it cannot be read: %v", err)
	}
	if err := k.ours(ctx, d, b.Spec); err != nil {
		return err
	}
	want := k.object(d, b)
	if git := madeBy(want); git != "" {
		return fault(uplink.Refused, "it carries the marks of %s: take them out of the document", git)
	}
	live, err := k.live(ctx, d)
	if err != nil {
		return err
	}
	options := []client.PatchOption{client.FieldOwner(FieldManager)}
	if live != nil {
		if err := k.mayChange(d, live); err != nil {
			return err
		}
		if err := standsBy(want, live); err != nil {
			return err
		}
		// What has changed since it was looked at is looked at again.
		want.SetResourceVersion(live.GetResourceVersion())
		options = append(options, client.ForceOwnership)
	}
	err = k.Client.Patch(ctx, want, client.Apply, options...)
	if apierrors.IsNotFound(err) && d.Namespace != "" {
		return fault(uplink.Waiting, "there is no namespace %s here yet", d.Namespace)
	}
	return err
}

// object is the object of a document: nothing but its labels, its annotations
// and its spec is the document's, and none that mean something to Davit.
func (k *Keeper) object(d uplink.Document, b body) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(d.Kind))
	u.SetNamespace(d.Namespace)
	u.SetName(d.Name)
	labels, annotations := plain(b.Metadata.Labels), plain(b.Metadata.Annotations)
	labels[v1alpha1.LabelConsole] = uplink.ProjectLabel(k.Project)
	annotations[v1alpha1.AnnotationDocument] = mark{k.Site, d.UID, d.Revision, d.Generation}.String()
	u.SetLabels(labels)
	u.SetAnnotations(annotations)
	u.Object["spec"] = b.Spec
	return u
}

// plain are the labels or annotations that mean nothing to Davit.
func plain(all map[string]string) map[string]string {
	out := map[string]string{}
	for key, value := range all {
		domain, _, _ := strings.Cut(key, "/")
		if group := v1alpha1.GroupVersion.Group; domain != group && !strings.HasSuffix(domain, "."+group) {
			out[key] = value
		}
	}
	return out
}

// ours refuses what is for a vault of another project.
func (k *Keeper) ours(ctx context.Context, d uplink.Document, spec map[string]any) error {
	name, _ := spec["vault"].(string)
	var vaults v1alpha1.VaultList
	if err := k.Reader.List(ctx, &vaults); err != nil {
		return fmt.Errorf("list vaults: %w", err)
	}
	if d.Kind == "ProtectionPolicy" {
		return k.unused(ctx, d, vaults.Items)
	}
	if name == "" { // of a plan: the only one that is no copy
		var all []string
		for _, v := range vaults.Items {
			if v.Spec.CopyOf == "" {
				all = append(all, v.Name)
			}
		}
		if len(all) != 1 {
			return fault(uplink.Waiting, "this site has %d vaults: name one in spec.vault", len(all))
		}
		name = all[0]
	}
	for _, v := range vaults.Items {
		if v.Name != name {
			continue
		}
		if v.Spec.Project != k.Project {
			return fault(uplink.Refused, "the Vault %s of this site is not of project %s", name, k.Project)
		}
		return nil
	}
	return fault(uplink.Waiting, "this site has no Vault %s: `davit vault add %s`", name, name)
}

// unused refuses a policy that an application of another project goes by.
func (k *Keeper) unused(ctx context.Context, d uplink.Document, vaults []v1alpha1.Vault) error {
	theirs := map[string]bool{}
	for _, v := range vaults {
		theirs[v.Name] = v.Spec.Project != k.Project
	}
	var apps v1alpha1.ApplicationList
	if err := k.Reader.List(ctx, &apps, client.InNamespace(d.Namespace)); err != nil {
		return fmt.Errorf("list applications: %w", err)
	}
	for i := range apps.Items {
		if a := &apps.Items[i]; a.Spec.Policy == d.Name && theirs[a.Spec.Vault] {
			return fault(uplink.Conflict, "an application of another project goes by the policy of that name here")
		}
	}
	return nil
}

// live is the object as it is now; nil: there is none.
func (k *Keeper) live(ctx context.Context, d uplink.Document) (*unstructured.Unstructured, error) {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(d.Kind))
	err := k.Reader.Get(ctx, client.ObjectKey{Namespace: d.Namespace, Name: d.Name}, u)
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // there is none
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", d.Kind, err)
	}
	return u, nil
}

// mayChange says whether an object that is there is the console's to change.
func (k *Keeper) mayChange(d uplink.Document, live *unstructured.Unstructured) error {
	if git := madeBy(live); git != "" {
		return fault(uplink.Conflict, "%s makes it from git here", git)
	}
	switch owner := live.GetLabels()[v1alpha1.LabelConsole]; owner {
	case uplink.ProjectLabel(k.Project):
	case "":
		return fault(uplink.Conflict, "it is here already, and the console has not made it. To have the console keep it: kubectl label %s%s %s %s=%s",
			strings.ToLower(d.Kind), inNamespace(d), d.Name, v1alpha1.LabelConsole, uplink.ProjectLabel(k.Project))
	default:
		return fault(uplink.Conflict, "it is here already, of the console of project %s", owner)
	}
	was, ok := markOf(live)
	if ok && was.uid == d.UID && was.revision > d.Revision {
		return fault(uplink.Conflict, "the site has version %d of it, the console says %d: was the console brought back from a backup? Write the document again", was.revision, d.Revision)
	}
	if live.GetDeletionTimestamp() != nil {
		return fault(uplink.Waiting, "the one that is here is being deleted")
	}
	if id := live.GetAnnotations()[v1alpha1.AnnotationRestoring]; id != "" {
		return fault(uplink.Waiting, "restore %s is making it", id)
	}
	return nil
}

// standsBy refuses what would take an application from under its fence: in another vault
// it has no epochs yet, and would be active at once; and what is superseded is fenced as
// it was when it was taken over.
func standsBy(want, live *unstructured.Unstructured) error {
	if live.GetKind() != "Application" {
		return nil
	}
	vault := func(u *unstructured.Unstructured) string {
		name, _, _ := unstructured.NestedString(u.Object, "spec", "vault")
		return name
	}
	if is, to := vault(live), vault(want); is != to {
		return fault(uplink.Conflict, "it is in vault %q here, and its epochs with it: a console does not move it to %q. Protect it anew, under another name or by hand", is, to)
	}
	if role, _, _ := unstructured.NestedString(live.Object, "status", "role"); role == string(v1alpha1.RoleSuperseded) {
		return fault(uplink.Waiting, "another site has taken it over: it is fenced here as it was then")
	}
	return nil
}

func inNamespace(d uplink.Document) string {
	if d.Namespace == "" {
		return ""
	}
	return " -n " + d.Namespace
}

// remove takes away what the console had made here. What is not its own any more
// stays, and the console is rid of it.
func (k *Keeper) remove(ctx context.Context, d uplink.Document) error {
	live, err := k.live(ctx, d)
	if live == nil || err != nil {
		return err
	}
	was, ok := markOf(live)
	if !ok || live.GetLabels()[v1alpha1.LabelConsole] != uplink.ProjectLabel(k.Project) || was.uid != d.UID || was.site != k.Site || madeBy(live) != "" {
		return nil
	}
	if was.revision > d.Revision {
		return fault(uplink.Conflict, "the site has version %d of it, the console deleted version %d", was.revision, d.Revision)
	}
	if err := k.unneeded(ctx, d, live); err != nil {
		return err
	}
	uid, version := live.GetUID(), live.GetResourceVersion()
	err = k.Client.Delete(ctx, live, client.Preconditions{UID: &uid, ResourceVersion: &version}, client.PropagationPolicy(metav1.DeletePropagationBackground))
	return client.IgnoreNotFound(err)
}

// madeBy names what makes an object from git; "" is nothing.
func madeBy(o client.Object) string {
	var h shape.Head
	h.Metadata.Name, h.Metadata.Namespace, h.Metadata.Labels, h.Metadata.Annotations = o.GetName(), o.GetNamespace(), o.GetLabels(), o.GetAnnotations()
	none := func(string) bool { return false } // the oldest label says too little
	kind := schema.GroupKind{Group: v1alpha1.GroupVersion.Group, Kind: o.GetObjectKind().GroupVersionKind().Kind}
	if r, ok := gitops.Of(kind, h, none); ok {
		return r.String()
	}
	return ""
}

// mark is which document an object was made of, and for which site: a restore
// elsewhere brings it along.
type mark struct {
	site, uid            string
	revision, generation int64
}

func (m mark) String() string {
	return fmt.Sprintf("%s/%s/%d/%d", m.site, m.uid, m.revision, m.generation)
}

func markOf(o client.Object) (mark, bool) {
	parts := strings.Split(o.GetAnnotations()[v1alpha1.AnnotationDocument], "/")
	if len(parts) != 4 {
		return mark{}, false
	}
	revision, err := strconv.ParseInt(parts[2], 10, 64)
	generation, also := strconv.ParseInt(parts[3], 10, 64)
	return mark{parts[0], parts[1], revision, generation}, err == nil && also == nil
}
