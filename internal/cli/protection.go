package cli

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/protect"
	"davit.dev/davit/internal/cli/view"
)

// protecting is an application and its policy, as they are and as they shall
// be.
type protecting struct {
	app, oldApp       *v1alpha1.Application // oldApp is nil for one to make
	policy, oldPolicy *v1alpha1.ProtectionPolicy
	shared            bool // the policy has a name of its own, and stays as it is
}

// protectionOf reads what is there of an application, and changes in it what
// the flags say.
func (e *env) protectionOf(ctx context.Context, c client.Client, name string, o *protect.Flags) (*protecting, error) {
	p, err := readProtection(ctx, c, name)
	if err != nil {
		return nil, err
	}
	if p.shared && o.GivesPolicy() {
		return nil, exit.Refuse("change that policy itself: other applications may follow it",
			"application %s follows policy %s, which `protect` does not change", name, p.app.Spec.Policy)
	}
	if err := o.Apply(p.app, p.policy); err != nil {
		return nil, err
	}
	if err := o.Check(p.app, p.policy, e.now()); err != nil {
		return nil, err
	}
	wanted := e.global.vault
	if wanted == "" {
		wanted = p.app.Spec.Vault
	}
	v, err := access.ChooseVault(ctx, c, wanted)
	if err != nil {
		return nil, err
	}
	if v.Spec.CopyOf != "" {
		return nil, exit.Refuse("protect it with vault "+v.Spec.CopyOf, "vault %s is a second copy: nothing is captured into it", v.Name)
	}
	p.app.Spec.Vault = v.Name
	return p, nil
}

func readProtection(ctx context.Context, c client.Client, name string) (*protecting, error) {
	p := &protecting{}
	var err error
	if p.app, p.policy, err = protect.New(name); err != nil {
		return nil, err
	}
	var app v1alpha1.Application
	switch err := c.Get(ctx, client.ObjectKeyFromObject(p.app), &app); {
	case err == nil:
		app.TypeMeta = p.app.TypeMeta
		p.app, p.oldApp = app.DeepCopy(), &app
	case !apierrors.IsNotFound(err):
		return nil, fmt.Errorf("read application %s: %w", name, err)
	}
	if p.app.Spec.Policy == "" {
		p.app.Spec.Policy = name
	}
	p.shared = p.app.Spec.Policy != name
	p.policy.Name = p.app.Spec.Policy
	var policy v1alpha1.ProtectionPolicy
	switch err := c.Get(ctx, client.ObjectKeyFromObject(p.policy), &policy); {
	case err == nil:
		policy.TypeMeta = p.policy.TypeMeta
		p.policy, p.oldPolicy = policy.DeepCopy(), &policy
	case !apierrors.IsNotFound(err):
		return nil, fmt.Errorf("read policy %s: %w", p.policy.Name, err)
	case p.shared:
		return nil, exit.Refuse("make that policy, or name another in the application", "application %s follows policy %s, which is not there", name, p.policy.Name)
	}
	return p, nil
}

// save writes both: only what differs, for the agent writes status all the
// time, and others may change what the flags do not speak of.
func (p *protecting) save(ctx context.Context, c client.Client) error {
	if !p.shared {
		if err := save(ctx, c, p.policy, p.oldPolicy, p.oldPolicy == nil); err != nil {
			return fmt.Errorf("write policy %s: %w", p.policy.Name, err)
		}
	}
	if err := save(ctx, c, p.app, p.oldApp, p.oldApp == nil); err != nil {
		return fmt.Errorf("write application %s: %w", p.app.Name, err)
	}
	return nil
}

func save(ctx context.Context, c client.Client, object, old client.Object, isNew bool) error {
	if isNew {
		return c.Create(ctx, object)
	}
	return c.Patch(ctx, object, client.MergeFrom(old))
}

// dryRun is what would be made, as it goes into a file.
func (p *protecting) dryRun() view.Protected {
	app := &v1alpha1.Application{TypeMeta: p.app.TypeMeta, ObjectMeta: metaForFile(p.app.ObjectMeta), Spec: p.app.Spec}
	policy := &v1alpha1.ProtectionPolicy{TypeMeta: p.policy.TypeMeta, ObjectMeta: metaForFile(p.policy.ObjectMeta), Spec: p.policy.Spec}
	return view.Protected{Application: app, Policy: policy, DryRun: true}
}

// metaForFile leaves out what belongs to the cluster.
func metaForFile(m metav1.ObjectMeta) metav1.ObjectMeta {
	kept := metav1.ObjectMeta{Namespace: m.Namespace, Name: m.Name, Labels: m.Labels}
	for key, value := range m.Annotations {
		if key != corev1.LastAppliedConfigAnnotation {
			metav1.SetMetaDataAnnotation(&kept, key, value)
		}
	}
	return kept
}
