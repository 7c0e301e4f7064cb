package cli_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/enrolment"
	"davit.dev/davit/internal/process"
)

// The first vault of a project does not come to a site that takes all documents of
// another project's console.
func TestBeside(t *testing.T) {
	ways := func(data map[string]string) client.Object {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: v1alpha1.ConsoleSecret}, Data: bytesOf(data)}
	}
	vault := func(name, project string) client.Object {
		return &v1alpha1.Vault{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.VaultSpec{Project: project}}
	}
	const everything, some = `{"urls":["https://c"],"documents":["*"]}`, `{"urls":["https://c"],"documents":["shop"]}`
	for name, c := range map[string]struct {
		objects []client.Object
		refused bool
	}{
		"no console":             {objects: []client.Object{vault("main", "acme")}},
		"some namespaces":        {objects: []client.Object{vault("main", "acme"), ways(map[string]string{"acme": some})}},
		"none":                   {objects: []client.Object{vault("main", "acme"), ways(map[string]string{"acme": `{"urls":["https://c"]}`})}},
		"its own takes all":      {objects: []client.Object{ways(map[string]string{"other": everything})}},
		"another's takes all":    {objects: []client.Object{vault("main", "acme"), ways(map[string]string{"acme": everything})}, refused: true},
		"both take all":          {objects: []client.Object{vault("main", "acme"), ways(map[string]string{"acme": everything, "other": everything})}, refused: true},
		"before any vault":       {objects: []client.Object{ways(map[string]string{"acme": everything})}, refused: true},
		"beside one that is bad": {objects: []client.Object{ways(map[string]string{"acme": everything, "bad": "{"})}, refused: true},
		"it was here when said":  {objects: []client.Object{vault("main", "acme"), vault("second", "other"), ways(map[string]string{"acme": everything})}},
	} {
		t.Run(name, func(t *testing.T) {
			k := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(c.objects...).Build()
			err := enrolment.Beside(t.Context(), k, "other")
			if (err != nil) != c.refused {
				t.Fatalf("refused: %v, want %v", err, c.refused)
			}
			if c.refused && !strings.Contains(err.Error(), "project acme") {
				t.Errorf("it does not say whose console: %v", err)
			}
		})
	}
}

func bytesOf(data map[string]string) map[string][]byte {
	out := map[string][]byte{}
	for key, value := range data {
		out[key] = []byte(value)
	}
	return out
}
