package documents

import (
	"context"
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// ledgers are vaults by the names of their objects.
type ledgers struct {
	t        testing.TB
	projects map[string]*vault.Project
	silent   map[string]bool
}

func newLedgers(t testing.TB) *ledgers {
	t.Helper()
	return &ledgers{t: t, projects: map[string]*vault.Project{}, silent: map[string]bool{}}
}

func (l *ledgers) project(name string) *vault.Project {
	l.t.Helper()
	if l.projects[name] == nil {
		key, err := vault.NewIdentity()
		if err != nil {
			l.t.Fatal(err)
		}
		if l.projects[name], err = vault.CreateProject(l.t.Context(), mem.New(time.Now), "acme", key.Recipient()); err != nil {
			l.t.Fatal(err)
		}
	}
	return l.projects[name]
}

// Protector implements Vaults.
func (l *ledgers) Protector(_ context.Context, name string) (*protection.Protector, error) {
	if l.silent[name] {
		return nil, fmt.Errorf("open vault: %w", vault.ErrUnavailable)
	}
	return protection.New(protection.Options{Project: l.project(name), Site: "east", ClusterID: "one"}), nil
}

// claim writes the next epochs, one for each claim.
func (l *ledgers) claim(name string, claims ...lease.Claim) {
	l.t.Helper()
	for i, c := range claims {
		c.Request = fmt.Sprint(name, i)
		if _, err := lease.New(l.project(name)).Claim(l.t.Context(), "shop", int64(i+1), c); err != nil {
			l.t.Fatal(err)
		}
	}
}

func gone(d uplink.Document, revision int64) uplink.Document {
	return uplink.Document{Key: d.Key, UID: d.UID, Revision: revision, Gone: true}
}

// An application goes at a console's word only if the vaults say at that moment
// that no other site ever took it: its status may be older than that.
func TestTakenStays(t *testing.T) {
	east, west := lease.Claim{Site: "east", Cluster: "one"}, lease.Claim{Site: "west", Cluster: "two"}
	namesake := lease.Claim{Site: "east", Cluster: "three"}
	for name, c := range map[string]struct {
		role        v1alpha1.Role
		vault       string
		claims      []lease.Claim
		silent      string
		annotation  string
		copies      bool
		state, says string
	}{
		"nobody ever held it":      {state: uplink.Gone},
		"only this site held it":   {role: v1alpha1.RoleActive, claims: []lease.Claim{east}, state: uplink.Gone},
		"a copy is silent":         {role: v1alpha1.RoleActive, claims: []lease.Claim{east}, copies: true, silent: "copy", state: uplink.Gone},
		"known to be superseded":   {role: v1alpha1.RoleSuperseded, silent: "main", state: uplink.Conflict, says: "another site has taken it over"},
		"superseded, status old":   {role: v1alpha1.RoleActive, claims: []lease.Claim{east, west}, state: uplink.Conflict, says: "site west took it over with epoch 2"},
		"superseded, status empty": {claims: []lease.Claim{east, west}, state: uplink.Conflict, says: "epoch 2"},
		"after a failback":         {role: v1alpha1.RoleActive, claims: []lease.Claim{east, west, east}, state: uplink.Conflict, says: "epoch 2"},
		"by another of its name":   {role: v1alpha1.RoleActive, claims: []lease.Claim{east, namesake}, state: uplink.Conflict, says: "epoch 2"},
		"in the project's other":   {role: v1alpha1.RoleActive, vault: "second", claims: []lease.Claim{east, west}, state: uplink.Conflict, says: "Vault second"},
		"the vault is silent":      {role: v1alpha1.RoleActive, claims: []lease.Claim{east}, silent: "main", state: uplink.Waiting, says: "Vault main gives no answer"},
		"the other is silent":      {role: v1alpha1.RoleActive, vault: "second", silent: "second", state: uplink.Waiting, says: "Vault second gives no answer"},
		"a run holds it":           {role: v1alpha1.RoleActive, annotation: v1alpha1.AnnotationHeldBy, state: uplink.Waiting, says: "in hand"},
		"a restore makes it":       {annotation: v1alpha1.AnnotationRestoring, state: uplink.Waiting, says: "in hand"},
	} {
		t.Run(name, func(t *testing.T) {
			var more []client.Object
			if c.vault == "" {
				c.vault = "main"
			} else {
				more = append(more, vaultOf(c.vault, "acme", ""))
			}
			if c.copies {
				more = append(more, vaultOf("copy", "acme", "main"))
			}
			k := newKeeper(t, more...)
			l := newLedgers(t)
			k.Vaults, l.silent[c.silent] = l, true
			l.claim(c.vault, c.claims...)
			k.took(t, shop(3, "hourly"), uplink.Applied, "")
			a := k.app(t, "shop")
			a.Status.Role = c.role
			if err := k.Client.Status().Update(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			if c.annotation != "" {
				a = k.app(t, "shop")
				a.Annotations[c.annotation] = "run"
				if err := k.Client.Update(t.Context(), a); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // also at the next try
				k.took(t, gone(shop(0, ""), 5), c.state, c.says)
			}
			if there := k.app(t, "shop") != nil; there != (c.state != uplink.Gone) {
				t.Errorf("there: %v", there)
			}
		})
	}
}

// A word that waited while the vault was silent is not carried out when it answers
// that another took the application meanwhile, nor after its failback.
func TestWaitedTooLong(t *testing.T) {
	k, l := newKeeper(t), newLedgers(t)
	k.Vaults = l
	k.took(t, shop(3, "hourly"), uplink.Applied, "")
	l.silent["main"] = true
	k.took(t, gone(shop(0, ""), 5), uplink.Waiting, "no answer")
	l.silent["main"] = false
	l.claim("main", lease.Claim{Site: "east", Cluster: "one"}, lease.Claim{Site: "west", Cluster: "two"})
	k.took(t, gone(shop(0, ""), 5), uplink.Conflict, "site west")
	if _, err := lease.New(l.project("main")).Claim(t.Context(), "shop", 3, lease.Claim{Site: "east", Cluster: "one", Request: "back"}); err != nil {
		t.Fatal(err)
	}
	k.took(t, gone(shop(0, ""), 5), uplink.Conflict, "site west")
	if k.app(t, "shop") == nil {
		t.Error("it was taken away")
	}
}

// A policy stays for as long as an application of its namespace goes by it, whoever
// made that one.
func TestNamedPolicyStays(t *testing.T) {
	named := func(namespace, name, policy string) client.Object {
		return &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: v1alpha1.ApplicationSpec{Vault: "main", Policy: policy}}
	}
	k := newKeeper(t, named("davit-system", "wiki", "hourly"), named("davit-system", "other", "daily"), named("elsewhere", "far", "hourly"))
	policy := document("ProtectionPolicy", "hourly", 2, `{}`)
	k.took(t, policy, uplink.Applied, "")
	k.took(t, shop(3, "hourly"), uplink.Applied, "")
	k.took(t, gone(policy, 5), uplink.Waiting, "go by it: shop, wiki.")
	k.took(t, gone(shop(0, ""), 5), uplink.Gone, "")
	k.took(t, gone(policy, 5), uplink.Waiting, "go by it: wiki.")
	if err := k.Client.Delete(t.Context(), k.app(t, "wiki")); err != nil {
		t.Fatal(err)
	}
	var p v1alpha1.ProtectionPolicy
	key := client.ObjectKey{Namespace: "davit-system", Name: "hourly"}
	if err := k.Client.Get(t.Context(), key, &p); err != nil {
		t.Fatal(err)
	}
	k.took(t, gone(policy, 5), uplink.Gone, "")
	if err := k.Client.Get(t.Context(), key, &p); client.IgnoreNotFound(err) != nil || err == nil {
		t.Errorf("it is still there: %v", err)
	}
}

func vaultOf(name, project, copyOf string) *v1alpha1.Vault {
	v := vaultObject(name, project)
	v.Spec.CopyOf = copyOf
	return v
}
