package source

import (
	"errors"
	"maps"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	discoveryfake "k8s.io/client-go/discovery/fake"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	k8stesting "k8s.io/client-go/testing"

	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/kube"
)

func groupClass(name, driver string, isDefault bool, parameters ...string) unstructured.Unstructured {
	o := unstructured.Unstructured{Object: map[string]any{"driver": driver}}
	o.SetAPIVersion(groupAPI + "/v1beta2")
	o.SetKind("VolumeGroupSnapshotClass")
	o.SetName(name)
	if isDefault {
		o.SetAnnotations(map[string]string{defaultGroup: "true"})
	}
	for i := 0; i < len(parameters); i += 2 {
		_ = unstructured.SetNestedField(o.Object, parameters[i+1], "parameters", parameters[i])
	}
	return o
}

const secretName = secretParameter + "group-snapshotter-secret-name"

func TestPickGroups(t *testing.T) {
	a, b, c := groupClass("a", "d", false), groupClass("b", "d", true), groupClass("c", "d", true)
	other := groupClass("o", "x", false)
	for _, tt := range []struct {
		name    string
		classes []unstructured.Unstructured
		asked   string
		want    map[string]string
		says    string
	}{
		{name: "none", want: map[string]string{}},
		{name: "the only one of each", classes: []unstructured.Unstructured{a, other}, want: map[string]string{"d": "a", "x": "o"}},
		{name: "the default", classes: []unstructured.Unstructured{a, b}, want: map[string]string{"d": "b"}},
		{name: "no default among two", classes: []unstructured.Unstructured{a, groupClass("z", "d", false)}, want: map[string]string{}},
		{name: "two defaults", classes: []unstructured.Unstructured{b, c}, want: map[string]string{}},
		{name: "asked", classes: []unstructured.Unstructured{a, b, other}, asked: "a", want: map[string]string{"d": "a"}},
		{name: "asked and missing", classes: []unstructured.Unstructured{a}, asked: "q", says: "q does not exist"},
		{name: "asked of another driver", classes: []unstructured.Unstructured{groupClass("y", "other", true)}, asked: "y", says: "is for driver other"},
		{name: "a secret by a template", classes: []unstructured.Unstructured{groupClass("t", "d", true, secretName, "${volumegroupsnapshot.name}"), a}, want: map[string]string{"d": "a"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := pickGroups(tt.classes, []string{"d", "x"}, tt.asked)
			if tt.says != "" {
				if !errors.Is(err, ErrSnapshotClass) || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("got %v, want %q", err, tt.says)
				}
				return
			}
			if err != nil || !maps.Equal(got, tt.want) {
				t.Errorf("got %v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

// groupCluster serves the API of group snapshots in one version, "" for none,
// with a driver that gives contents the status as soon as they are made.
func groupCluster(t *testing.T, version string, status map[string]any, classes ...unstructured.Unstructured) (*Volumes, *dynamicfake.FakeDynamicClient) {
	t.Helper()
	kinds := map[schema.GroupVersionResource]string{}
	served := &k8stesting.Fake{}
	if version != "" {
		gv := schema.GroupVersion{Group: groupAPI, Version: version}
		kinds[gv.WithResource("volumegroupsnapshotclasses")] = "VolumeGroupSnapshotClassList"
		kinds[gv.WithResource("volumegroupsnapshotcontents")] = "VolumeGroupSnapshotContentList"
		served.Resources = []*metav1.APIResourceList{{GroupVersion: gv.String(), APIResources: []metav1.APIResource{
			{Name: "volumegroupsnapshotclasses"}, {Name: "volumegroupsnapshotcontents"},
		}}}
	}
	var objects []runtime.Object
	for i := range classes {
		objects = append(objects, &classes[i])
	}
	client := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), kinds, objects...)
	client.PrependReactor("create", "volumegroupsnapshotcontents", func(a k8stesting.Action) (bool, runtime.Object, error) {
		a.(k8stesting.CreateAction).GetObject().(*unstructured.Unstructured).Object["status"] = runtime.DeepCopyJSON(status)
		return false, nil, nil
	})
	clients := &kube.Clients{Dynamic: client, Discovery: &discoveryfake.FakeDiscovery{Fake: served}}
	return NewVolumes(clients, clients, nil, VolumeOptions{Vault: "v", Site: "east"}), client
}

func groupPlans() []capture.VolumePlan {
	var plans []capture.VolumePlan
	for _, n := range []string{"a", "b"} {
		plans = append(plans, capture.VolumePlan{
			Claim: capture.Claim{Namespace: "shop", Name: n}, Driver: "d", Handle: "vol-" + n, Class: "c", Group: "g",
			Options: capture.VolumeOptions{Application: "shop", Point: "shop-1"},
		})
	}
	return plans
}

func groupStatus(volumes ...string) map[string]any {
	var list []any
	for _, v := range volumes {
		list = append(list, map[string]any{"volumeHandle": v, "snapshotHandle": "snap-of-" + v, "restoreSize": int64(7)})
	}
	return map[string]any{
		"volumeGroupSnapshotHandle": "group-1", "creationTime": "2026-01-02T03:04:05Z", "readyToUse": true, "volumeSnapshotInfoList": list,
	}
}

func TestCutGroup(t *testing.T) {
	class := groupClass("g", "d", true, secretName, "key", secretParameter+"group-snapshotter-secret-namespace", "vault")
	v, client := groupCluster(t, "v1beta2", groupStatus("vol-a", "vol-b"), class)
	cuts, err := v.CutGroup(t.Context(), "g", groupPlans())
	if err != nil || len(cuts) != 2 || cuts[0].Handle == cuts[1].Handle {
		t.Fatalf("cuts are %+v: %v", cuts, err)
	}
	gvr := schema.GroupVersionResource{Group: groupAPI, Version: "v1beta2", Resource: "volumegroupsnapshotcontents"}
	content, err := client.Resource(gvr).Get(t.Context(), groupName(groupPlans()[0]), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	handles, _, _ := unstructured.NestedStringSlice(content.Object, "spec", "source", "volumeHandles")
	uid, _, _ := unstructured.NestedString(content.Object, "spec", "volumeGroupSnapshotRef", "uid")
	marks := content.GetAnnotations()
	if strings.Join(handles, " ") != "vol-a vol-b" || uid == "" || len(content.GetFinalizers()) != 1 || marks[beingDeleted] == "" ||
		marks[groupMarks+"deletion-secret-name"] != "key" || marks[groupMarks+"deletion-secret-namespace"] != "vault" {
		t.Errorf("asked for %+v", content.Object)
	}
	cuts[1].Plan.Method = capture.MethodGroup
	snap, err := v.readyMember(t.Context(), cuts[1])
	if err != nil || snap.handle != "snap-of-vol-b" || snap.size != 7 {
		t.Errorf("snapshot is %+v: %v", snap, err)
	}
	if _, err := v.CutGroup(t.Context(), "g", groupPlans()); !apierrors.IsAlreadyExists(err) {
		t.Errorf("a group that was there before was taken for one cut now: %v", err)
	}
	if err := v.releaseGroup(t.Context(), cuts[0].Plan); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Resource(gvr).Get(t.Context(), groupName(groupPlans()[0]), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the group is left: %v", err)
	}
}

func TestCutGroupThatIsNone(t *testing.T) {
	for name, tt := range map[string]struct {
		version string
		status  map[string]any
		says    string
	}{
		"the driver refuses":   {"v1", map[string]any{"readyToUse": false, "error": map[string]any{"message": "not in one pool"}}, "not in one pool"},
		"a volume is missing":  {"v1", groupStatus("vol-a"), "lacks claim shop/b"},
		"the API went":         {"", nil, "not served"},
		"only an old API":      {"v1alpha1", nil, "not served"},
		"the class is another": {"v1", groupStatus("vol-a", "vol-b"), "get group snapshot class"},
	} {
		t.Run(name, func(t *testing.T) {
			class := groupClass("g", "d", true)
			if name == "the class is another" {
				class = groupClass("h", "d", true)
			}
			class.SetAPIVersion(groupAPI + "/v1")
			v, _ := groupCluster(t, tt.version, tt.status, class)
			if _, err := v.CutGroup(t.Context(), "g", groupPlans()); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
		})
	}
}

func TestGroupClassesWhereNoneAreServed(t *testing.T) {
	v, _ := groupCluster(t, "", nil)
	if got, err := v.GroupClasses(t.Context(), []string{"d"}, ""); err != nil || len(got) > 0 {
		t.Errorf("got %v, %v, want none", got, err)
	}
	if _, err := v.GroupClasses(t.Context(), []string{"d"}, "g"); !errors.Is(err, ErrSnapshotClass) {
		t.Errorf("got %v for a class that was asked for, want %v", err, ErrSnapshotClass)
	}
}
