package obstacle

import (
	"context"
	"errors"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"davit.dev/davit/internal/restore/answer"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/shape"
)

// refused is what API servers (1.34, one of one family and one of both) say of a Service.
func refused(path, value, said string) error {
	return apierrors.NewInvalid(schema.GroupKind{Kind: "Service"}, "web", field.ErrorList{field.Invalid(field.NewPath("spec").Child(path), value, said)})
}

var (
	noFamily = refused("ipFamilies[1]", "IPv6", "not configured on this cluster")
	noDual   = refused("ipFamilyPolicy", "RequireDualStack", "this cluster is not configured for dual-stack services")
	primary  = refused("clusterIPs[0]", "10.97.104.44", "expected an IPv6 value as indicated by `ipFamilies[0]`")
)

// TestAServiceOfTwoFamilies, captured in a cluster that has both, in one that does not:
// what it only prefers, or was given, it gives up; what it requires is an error. In
// another cluster of both it keeps families, order and policy, and gets new addresses.
func TestAServiceOfTwoFamilies(t *testing.T) {
	for name, tt := range map[string]struct {
		policy string
		err    error
		yields bool
	}{
		"prefers two":              {"PreferDualStack", noFamily, true},
		"was given another":        {"SingleStack", noFamily, true},
		"requires two":             {"RequireDualStack", noDual, false},
		"has another first":        {"PreferDualStack", primary, true},
		"is refused for something": {"PreferDualStack", refused("ports", "0", "must be between 1 and 65535"), false},
	} {
		t.Run(name, func(t *testing.T) {
			d := shape.Document{"metadata": shape.Document{"name": "web"}, "spec": shape.Document{
				"clusterIP": "fd00::1", "clusterIPs": []any{"fd00::1", "10.0.0.1"}, "ipFamilies": []any{"IPv6", "IPv4"}, "ipFamilyPolicy": tt.policy,
			}}
			shape.Strip(shape.KindService, d, shape.Options{})
			spec := shape.Child(d, "spec")
			if spec["clusterIP"] != nil || spec["clusterIPs"] != nil || len(spec["ipFamilies"].([]any)) != 2 || spec["ipFamilyPolicy"] != tt.policy {
				t.Errorf("it comes as %v", spec)
			}
			if gave := Yield(d, tt.err); (gave != "") != tt.yields || (spec["ipFamilies"] == nil) != tt.yields || spec["ipFamilyPolicy"] != tt.policy {
				t.Errorf("it gave up %q and is %v", gave, spec)
			}
			if again := Yield(d, tt.err); tt.yields && again != "" {
				t.Errorf("it gives up the same again: %q", again)
			}
		})
	}
}

// tries is a cluster that answers dry runs.
type tries struct {
	port.Cluster
	err error
	got *unstructured.Unstructured
}

func (c *tries) Try(_ context.Context, _ port.Served, obj *unstructured.Unstructured) error {
	c.got = obj
	return c.err
}

// TestTheFirstFamilyIsFixed in a Service that exists: where the cluster has the other
// one too, only a Service made anew gets it. The controls: a cluster that lacks it, and
// other errors.
func TestTheFirstFamilyIsFixed(t *testing.T) {
	exists := apierrors.NewAlreadyExists(schema.GroupResource{Resource: "services"}, "web")
	for name, tt := range map[string]struct {
		err, dry  error
		immutable bool
	}{
		"the cluster has both":   {primary, exists, true},
		"the cluster has one":    {primary, noFamily, false},
		"its node port is its":   {primary, refused("ports[0].nodePort", "30080", "provided port is already allocated"), true},
		"the cluster is silent":  {primary, apierrors.NewTimeoutError("try again", 1), false},
		"it may not be made":     {primary, apierrors.NewForbidden(schema.GroupResource{Resource: "services"}, "web", errors.New("no right")), false},
		"it is not about that":   {noFamily, exists, false},
		"it was not refused":     {nil, exists, false},
		"it changed in between":  {apierrors.NewConflict(schema.GroupResource{Resource: "services"}, "web", nil), exists, false},
		"nobody knows the other": {errors.New("broken"), exists, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := &tries{err: tt.dry}
			obj := &unstructured.Unstructured{Object: shape.Document{"metadata": shape.Document{"name": "web", "uid": "u", "resourceVersion": "7"}}}
			got := Fixed(t.Context(), c, port.Served{}, obj, tt.err)
			if answer.Immutable(got) != tt.immutable || !tt.immutable && !errors.Is(got, tt.err) {
				t.Errorf("it is %v", got)
			}
			if tt.immutable && (answer.FamiliesRefused(got) || c.got.GetUID() != "" || obj.GetUID() == "") {
				t.Errorf("%v, tried with %v", got, c.got)
			}
		})
	}
}
