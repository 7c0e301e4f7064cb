package restore

import (
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"davit.dev/davit/internal/restore/shape"
)

// A Service whose node port is taken at the target must come up all the same.
func TestTakenNodePortIsReplaced(t *testing.T) {
	r := newRig()
	r.c.fail = func(verb string, obj *unstructured.Unstructured) error {
		if verb != "create" || obj.GetKind() != "Service" {
			return nil
		}
		for _, port := range shape.Items(obj.Object, "spec", "ports") {
			if port["nodePort"] != nil {
				return apierrors.NewInvalid(schema.GroupKind{Kind: "Service"}, obj.GetName(), field.ErrorList{
					field.Invalid(field.NewPath("spec", "ports").Index(0).Child("nodePort"), port["nodePort"], "provided port is already allocated"),
				})
			}
		}
		return nil
	}
	res := run(t, r, Options{PreserveNodePorts: true})
	if len(res.Failures) > 0 {
		t.Fatalf("failures: %v", res.Failures)
	}
	var warned bool
	for _, w := range res.Warnings {
		warned = warned || strings.Contains(w.Message, "node ports cannot be had")
	}
	if !warned {
		t.Errorf("no warning names the node port: %v", res.Warnings)
	}
	if r.c.get("Service", "shop", "db") == nil {
		t.Error("the Service was not restored")
	}
}
