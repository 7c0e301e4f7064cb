package documents

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/testkit/kubefake"
	"davit.dev/davit/internal/uplink"
)

func vaultObject(name, project string) *v1alpha1.Vault {
	return &v1alpha1.Vault{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.VaultSpec{Project: project}}
}

// scheme is made once: what is fuzzed makes thousands of keepers.
var scheme = process.Scheme()

func newKeeper(t testing.TB, objects ...client.Object) *Keeper {
	t.Helper()
	c := kubefake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&v1alpha1.Application{}).
		WithObjects(append(objects, vaultObject("main", "acme"), vaultObject("theirs", "other"))...).Build()
	return &Keeper{Client: c, Reader: c, Vaults: newLedgers(t), Site: "east", Project: "acme"}
}

func document(kind, name string, revision int64, spec string) uplink.Document {
	d := uplink.Document{Key: uplink.Key{Kind: kind, Namespace: "davit-system", Name: name}, UID: "uid-" + name, Revision: revision, Generation: 1}
	if kind == "RecoveryPlan" {
		d.Namespace = ""
	}
	d.Body = json.RawMessage(`{"metadata":{"labels":{"team":"shop","davit.dev/console":"other"},"annotations":{"davit.dev/restoring":"x","gate.davit.dev/a":"x","note":"y"}},"spec":` + spec + `}`)
	return d
}

func shop(revision int64, policy string) uplink.Document {
	return document("Application", "shop", revision, fmt.Sprintf(`{"vault":"main","policy":%q}`, policy))
}

func (k *Keeper) took(t *testing.T, d uplink.Document, state, why string) {
	t.Helper()
	told := k.Take(t.Context(), d)
	if told.State != state || !strings.Contains(told.Why, why) {
		t.Errorf("%s of version %d is %s (%s), want %s (%s)", d.Name, d.Revision, told.State, told.Why, state, why)
	}
}

func (k *Keeper) app(t *testing.T, name string) *v1alpha1.Application {
	t.Helper()
	var a v1alpha1.Application
	err := k.Client.Get(t.Context(), client.ObjectKey{Namespace: "davit-system", Name: name}, &a)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return &a
}

// What a console says is made, changed and taken away; what people changed of it
// goes back; nothing that means something to Davit comes from a document.
func TestKept(t *testing.T) {
	k := newKeeper(t)
	k.took(t, shop(3, "hourly"), uplink.Applied, "")
	a := k.app(t, "shop")
	if a == nil || a.Spec.Policy != "hourly" || a.Labels["team"] != "shop" || a.Labels[v1alpha1.LabelConsole] != "acme" || a.Annotations["note"] != "y" ||
		len(a.Annotations) != 2 || a.Annotations[v1alpha1.AnnotationDocument] != "east/uid-shop/3/1" {
		t.Fatalf("%+v", a)
	}
	a.Spec.Policy = "never"
	if err := k.Client.Update(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	k.took(t, shop(3, "hourly"), uplink.Applied, "")
	if a = k.app(t, "shop"); a.Spec.Policy != "hourly" {
		t.Errorf("the policy is %s", a.Spec.Policy)
	}
	k.took(t, shop(4, "daily"), uplink.Applied, "")
	k.took(t, shop(3, "hourly"), uplink.Conflict, "the site has version 4")
	if a = k.app(t, "shop"); a.Spec.Policy != "daily" {
		t.Errorf("an older version was obeyed: %s", a.Spec.Policy)
	}
	gone := uplink.Document{Key: shop(0, "").Key, UID: "uid-shop", Revision: 5, Gone: true}
	older, another := gone, gone
	older.Revision, another.UID = 3, "uid-other"
	k.took(t, older, uplink.Conflict, "version 4")
	k.took(t, another, uplink.Gone, "")
	if k.app(t, "shop") == nil {
		t.Fatal("it was taken away by an older word, or another document's")
	}
	k.took(t, gone, uplink.Gone, "")
	if k.app(t, "shop") != nil {
		t.Error("it is still there")
	}
	k.took(t, gone, uplink.Gone, "")
}

// What others made is not fought, nor taken away.
func TestOthers(t *testing.T) {
	made := func(name string, labels, annotations map[string]string) client.Object {
		return &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "davit-system", Labels: labels, Annotations: annotations}, Spec: v1alpha1.ApplicationSpec{Vault: "main", Policy: "own"}}
	}
	mine := map[string]string{v1alpha1.LabelConsole: "acme"}
	git := map[string]string{"argocd.argoproj.io/tracking-id": "shops:davit.dev/Application:davit-system/git", v1alpha1.AnnotationDocument: "east/uid-git/1/1"}
	k := newKeeper(t,
		made("hand", nil, nil), made("git", mine, git), made("other", map[string]string{v1alpha1.LabelConsole: "other"}, nil), made("given", mine, nil),
		made("restored", mine, map[string]string{v1alpha1.AnnotationDocument: "west/uid-restored/1/1"}),
		made("restoring", mine, map[string]string{v1alpha1.AnnotationRestoring: "r"}),
	)
	for name, want := range map[string][2]string{
		"hand":  {uplink.Conflict, "kubectl label application -n davit-system hand davit.dev/console=acme"},
		"git":   {uplink.Conflict, "from git"},
		"other": {uplink.Conflict, "of project other"}, "restoring": {uplink.Waiting, "restore r"},
	} {
		k.took(t, document("Application", name, 9, `{"vault":"main","policy":"forced"}`), want[0], want[1])
		k.took(t, uplink.Document{Key: uplink.Key{Kind: "Application", Namespace: "davit-system", Name: name}, UID: "uid-" + name, Revision: 10, Gone: true}, uplink.Gone, "")
		if a := k.app(t, name); a == nil || a.Spec.Policy != "own" {
			t.Errorf("%s was fought: %+v", name, a)
		}
	}
	// Brought here by a restore, it is another site's to take away.
	k.took(t, uplink.Document{Key: uplink.Key{Kind: "Application", Namespace: "davit-system", Name: "restored"}, UID: "uid-restored", Revision: 10, Gone: true}, uplink.Gone, "")
	if k.app(t, "restored") == nil {
		t.Error("what a restore brought was taken away")
	}
	for _, name := range []string{"given", "restored"} { // the label hands it over
		k.took(t, document("Application", name, 9, `{"vault":"main","policy":"console"}`), uplink.Applied, "")
		if a := k.app(t, name); a.Spec.Policy != "console" {
			t.Errorf("%s: %+v", name, a.Spec)
		}
	}
}

// An application is not taken from under its fence: with another vault it would have no
// epochs, and be active beside whoever took it over.
func TestFenceIsNotMoved(t *testing.T) {
	for name, c := range map[string]struct {
		role             v1alpha1.Role
		vault            string
		state, says, now string
	}{
		"in its vault":  {v1alpha1.RoleActive, "main", uplink.Applied, "", "forced"},
		"another vault": {v1alpha1.RoleActive, "spare", uplink.Conflict, `a console does not move it to "spare"`, "own"},
		"not known yet": {"", "spare", uplink.Conflict, "does not move it", "own"},
		"it is fenced":  {v1alpha1.RoleSuperseded, "main", uplink.Waiting, "another site has taken it over", "own"},
	} {
		k := newKeeper(t, vaultObject("spare", "acme"), &v1alpha1.Application{
			ObjectMeta: metav1.ObjectMeta{Name: "shop", Namespace: "davit-system", Labels: map[string]string{v1alpha1.LabelConsole: "acme"}},
			Spec:       v1alpha1.ApplicationSpec{Vault: "main", Policy: "own"}, Status: v1alpha1.ApplicationStatus{Role: c.role},
		})
		k.took(t, document("Application", "shop", 9, `{"vault":"`+c.vault+`","policy":"forced"}`), c.state, c.says)
		if a := k.app(t, "shop"); a.Spec.Policy != c.now || a.Spec.Vault != "main" {
			t.Errorf("%s: %+v", name, a.Spec)
		}
	}
}

// A console may make three kinds, for vaults of its project, and nothing else.
func TestRefused(t *testing.T) {
	k := newKeeper(t, &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "secret", Namespace: "davit-system"}, Spec: v1alpha1.ApplicationSpec{Vault: "theirs", Policy: "shared"}})
	secret := document("Secret", "s", 1, `{}`)
	homeless := shop(1, "x")
	homeless.Namespace = ""
	placed := document("RecoveryPlan", "p", 1, `{"vault":"main"}`)
	placed.Namespace = "davit-system"
	marked := shop(1, "x")
	marked.Body = json.RawMessage(`{"metadata":{"annotations":{"argocd.argoproj.io/tracking-id":"a:davit.dev/Application:davit-system/shop"}},"spec":{"vault":"main"}}`)
	torn := shop(1, "x")
	torn.Body = json.RawMessage(`{`)
	for why, d := range map[string]uplink.Document{
		"may not make a Secret": secret, "fit a Application": homeless, "fit a RecoveryPlan": placed, "marks of": marked, "cannot be read": torn,
		"not of project acme": document("Application", "b", 1, `{"vault":"theirs"}`),
		"is not of project":   document("RecoveryPlan", "b", 1, `{"vault":"theirs"}`),
	} {
		k.took(t, d, uplink.Refused, why)
	}
	k.took(t, document("Application", "c", 1, `{"vault":"absent"}`), uplink.Waiting, "no Vault absent")
	k.took(t, document("RecoveryPlan", "c", 1, `{}`), uplink.Waiting, "2 vaults")
	k.took(t, document("ProtectionPolicy", "shared", 1, `{}`), uplink.Conflict, "another project")
	k.took(t, document("ProtectionPolicy", "own", 1, `{}`), uplink.Applied, "")
	k.took(t, document("RecoveryPlan", "own", 1, `{"vault":"main"}`), uplink.Applied, "")
	var apps v1alpha1.ApplicationList
	if err := k.Client.List(t.Context(), &apps); err != nil || len(apps.Items) != 1 {
		t.Errorf("%d applications, %v", len(apps.Items), err)
	}
}

func FuzzTake(f *testing.F) {
	f.Add("Application", "davit-system", "shop", []byte(`{"spec":{"vault":"main"}}`))
	// What a process makes once, the fake cluster's schemas, is a hundred times the work of an input, and no part of the
	// first one's ten seconds.
	newKeeper(f).Take(f.Context(), shop(1, "hourly"))
	f.Fuzz(func(t *testing.T, kind, namespace, name string, body []byte) {
		k := newKeeper(t)
		k.Take(t.Context(), uplink.Document{Key: uplink.Key{Kind: kind, Namespace: namespace, Name: name}, UID: "u", Revision: 1, Body: body})
	})
}
