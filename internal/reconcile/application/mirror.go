package application

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/fence"
	"davit.dev/davit/internal/vault"
)

// lastApplied is kubectl's own note, of no use at another site.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// mirror puts the Application and its policy into the vault when they changed,
// so that a site that never saw them can take over.
func (r *Reconciler) mirror(ctx context.Context, s *scope) error {
	if s.standing.Role != v1alpha1.RoleActive {
		return nil
	}
	objects, err := documents(s.app, s.policy)
	if err != nil {
		return err
	}
	digest := digestOf(objects)
	if digest == s.memory.documents {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, standTimeout)
	defer cancel()
	p, err := r.Vaults.Project(ctx, s.app.Spec.Vault)
	if err == nil {
		_, err = p.PutDocument(ctx, vault.Document{Application: s.app.VaultName(), Site: r.Site, At: s.now.UTC(), Objects: objects})
	}
	if err != nil {
		s.fail(reasonOf(err), fmt.Errorf("mirror the application's documents into the vault: %w", err))
		return nil
	}
	s.memory.documents = digest
	return nil
}

// documents are the objects as a person would write them.
func documents(app *v1alpha1.Application, policy *v1alpha1.ProtectionPolicy) ([]json.RawMessage, error) {
	bare := []any{v1alpha1.Application{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Application"},
		ObjectMeta: bareMeta(app.ObjectMeta),
		Spec:       app.Spec,
	}}
	if policy != nil {
		bare = append(bare, v1alpha1.ProtectionPolicy{
			TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "ProtectionPolicy"},
			ObjectMeta: bareMeta(policy.ObjectMeta),
			Spec:       policy.Spec,
		})
	}
	var out []json.RawMessage
	for _, o := range bare {
		data, err := json.Marshal(o)
		if err != nil {
			return nil, fmt.Errorf("encode document: %w", err)
		}
		out = append(out, data)
	}
	return out, nil
}

func bareMeta(m metav1.ObjectMeta) metav1.ObjectMeta {
	annotations := maps.Clone(m.Annotations)
	delete(annotations, lastApplied)
	delete(annotations, v1alpha1.AnnotationRestoring)
	delete(annotations, v1alpha1.AnnotationHeldBy)
	fence.Unmark(annotations)
	return metav1.ObjectMeta{Namespace: m.Namespace, Name: m.Name, Labels: m.Labels, Annotations: annotations}
}

func digestOf(objects []json.RawMessage) string {
	h := sha256.New()
	for _, o := range objects {
		h.Write(o)
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil))
}
