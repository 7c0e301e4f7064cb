package install

import (
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
)

func render(t *testing.T, opts Options) []unstructured.Unstructured {
	t.Helper()
	objects, err := Render(opts)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func TestRenderIsComplete(t *testing.T) {
	objects := render(t, Options{SiteName: "east", Registry: "registry.local:5000/mirror/", Image: "davit.dev/davit:v1", Replicas: 2})
	var got []string
	for _, o := range objects {
		if o.GetAPIVersion() == "" || o.GetName() == "" {
			t.Errorf("object without kind or name: %v", o.Object)
		}
		if o.GetLabels()[PartOfLabel] != partOf {
			t.Errorf("%s %s lacks the label %s", o.GetKind(), o.GetName(), PartOfLabel)
		}
		got = append(got, o.GetKind()+"/"+o.GetName())
	}
	for _, want := range []string{
		"Namespace/davit-system", "CustomResourceDefinition/volumetasks.davit.dev", "ServiceAccount/davit-agent", "ServiceAccount/davit-node",
		"ServiceAccount/davit-capture", "ServiceAccount/davit-restore", "Deployment/davit-agent", "DaemonSet/davit-node", "Site/east",
		"ConfigMap/davit-alerts", "PodDisruptionBudget/davit-agent",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is missing from %v", want, got)
		}
	}
	for _, o := range objects {
		if o.GetKind() != "Deployment" && o.GetKind() != "DaemonSet" {
			continue
		}
		containers, _, _ := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
		if image := containers[0].(map[string]any)["image"]; image != "registry.local:5000/mirror/davit:v1" {
			t.Errorf("%s runs %v", o.GetName(), image)
		}
	}
}

func TestRenderRefusesBadOptions(t *testing.T) {
	for name, opts := range map[string]Options{
		"no site":     {},
		"bad site":    {SiteName: "East!"},
		"relative":    {SiteName: "east", KubeletRoot: "var/lib/kubelet"},
		"runtime":     {SiteName: "east", RuntimeSocket: "containerd.sock"},
		"disk":        {SiteName: "east", DiskRead: "fast"},
		"slow disk":   {SiteName: "east", DiskWrite: "1Ki"},
		"whole host":  {SiteName: "east", HostPathRoots: []string{"/"}},
		"dots":        {SiteName: "east", HostPathRoots: []string{"/srv/../etc"}},
		"pull policy": {SiteName: "east", ImagePullPolicy: "Sometimes"},
		"log level":   {SiteName: "east", LogLevel: "loud"},
		"replicas":    {SiteName: "east", Replicas: 9},
	} {
		if _, err := Render(opts); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// rulesOf collects every role's rules by the role's kind and name.
func rulesOf(t *testing.T, objects []unstructured.Unstructured) map[string][]rbacv1.PolicyRule {
	t.Helper()
	out := map[string][]rbacv1.PolicyRule{}
	for _, o := range objects {
		if o.GetKind() != "ClusterRole" && o.GetKind() != "Role" {
			continue
		}
		var role rbacv1.ClusterRole
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &role); err != nil {
			t.Fatal(err)
		}
		out[o.GetKind()+"/"+o.GetName()] = role.Rules
	}
	return out
}

// TestNothingOfDavitsIsCapturedWithACluster: what is installed outside of all
// namespaces would come back over another version's, with a whole cluster.
func TestNothingOfDavitsIsCapturedWithACluster(t *testing.T) {
	kinds := map[string]int{}
	for _, o := range render(t, Options{SiteName: "east"}) {
		// Capture knows Davit's own kinds and their definitions; what is in its namespace is no application's.
		if o.GetNamespace() != "" || slices.Contains([]string{"Namespace", "CustomResourceDefinition"}, o.GetKind()) || o.GroupVersionKind().Group == v1alpha1.GroupVersion.Group {
			continue
		}
		kinds[o.GetKind()]++
		if o.GetLabels()[capture.LabelExclude] != "true" {
			t.Errorf("%s %s would come along", o.GetKind(), o.GetName())
		}
	}
	if kinds["ClusterRole"] == 0 || kinds["ValidatingAdmissionPolicy"] == 0 || kinds["ValidatingAdmissionPolicyBinding"] == 0 {
		t.Errorf("looked at %v", kinds)
	}
}

func TestNoAccountMayDoEverything(t *testing.T) {
	if found := tooWide(rulesOf(t, render(t, Options{SiteName: "east"}))); len(found) > 0 {
		t.Errorf("too wide: %s", strings.Join(found, "; "))
	}
	// The check itself must find what it looks for.
	for name, bad := range map[string]rbacv1.PolicyRule{
		"verbs":   {Verbs: []string{"*"}, APIGroups: []string{""}, Resources: []string{"pods"}},
		"groups":  {Verbs: []string{"get"}, APIGroups: []string{"*"}, Resources: []string{"pods"}},
		"secrets": {Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"secrets"}},
		"anyone":  {Verbs: []string{"impersonate"}, APIGroups: []string{""}, Resources: []string{"serviceaccounts"}},
	} {
		if len(tooWide(map[string][]rbacv1.PolicyRule{"ClusterRole/davit-agent": {bad}})) == 0 {
			t.Errorf("%s: not found", name)
		}
	}
	write := rbacv1.PolicyRule{Verbs: []string{"get", "delete"}, APIGroups: []string{"*"}, Resources: []string{"*"}}
	if len(tooWide(map[string][]rbacv1.PolicyRule{"ClusterRole/davit-capture": {write}})) == 0 {
		t.Error("capture may delete anything: not found")
	}
}

// tooWide lists the rules that no account of Davit's may have.
func tooWide(roles map[string][]rbacv1.PolicyRule) []string {
	var found []string
	for name, rules := range roles {
		for _, r := range rules {
			wild := slices.Contains(r.APIGroups, "*") || slices.Contains(r.Resources, "*")
			reads := !slices.ContainsFunc(r.Verbs, func(v string) bool { return !slices.Contains(readVerbs, v) })
			cluster := strings.HasPrefix(name, "ClusterRole/")
			switch {
			case slices.Contains(r.Verbs, "*"):
				found = append(found, name+": verb *")
			case wild && name != "ClusterRole/davit-restore" && (name != "ClusterRole/davit-capture" || !reads):
				found = append(found, name+": wildcard resources")
			case slices.Contains(r.Resources, "secrets") && cluster:
				found = append(found, name+": secrets everywhere")
			case slices.Contains(r.Verbs, "impersonate") && cluster && name != "ClusterRole/"+ImpersonatorName:
				found = append(found, name+": impersonates anyone")
			}
		}
	}
	return found
}

func TestAgentRunsUnprivileged(t *testing.T) {
	for _, o := range render(t, Options{SiteName: "east"}) {
		if o.GetKind() != "Deployment" {
			continue
		}
		containers, _, _ := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
		security := containers[0].(map[string]any)["securityContext"].(map[string]any)
		if security["readOnlyRootFilesystem"] != true || security["allowPrivilegeEscalation"] != false || security["privileged"] != nil {
			t.Errorf("agent's security context: %v", security)
		}
		nonRoot, _, _ := unstructured.NestedBool(o.Object, "spec", "template", "spec", "securityContext", "runAsNonRoot")
		if !nonRoot {
			t.Error("agent may run as root")
		}
	}
}

// TestATokenOfANodeProcessIsItsPods: the API server refuses one that would outlive who asked for it. The policy
// is for tokens of that account alone: those of all other pods come without it.
func TestATokenOfANodeProcessIsItsPods(t *testing.T) {
	for _, o := range render(t, Options{SiteName: "east"}) {
		if o.GetKind() != "ValidatingAdmissionPolicy" || o.GetName() != NodeTokenName {
			continue
		}
		var p admissionv1.ValidatingAdmissionPolicy
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &p); err != nil {
			t.Fatal(err)
		}
		of := p.Spec.MatchConstraints.ResourceRules[0]
		if !slices.Equal(of.Resources, []string{"serviceaccounts/token"}) || !slices.Equal(of.ResourceNames, []string{NodeName}) || !slices.Equal(of.Operations, []admissionv1.OperationType{admissionv1.Create}) {
			t.Errorf("it is asked of %+v", of)
		}
		if e := p.Spec.Validations[0].Expression; !strings.Contains(e, "!= 'system:serviceaccount:davit-system:davit-node' ||") || !strings.Contains(e, "boundObjectRef.uid == request.userInfo.extra['authentication.kubernetes.io/pod-uid'][0]") {
			t.Error(e)
		}
		return
	}
	t.Error("tokens of node processes are bound to nothing")
}
