package source

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/capture"
)

func class(name, driver string, isDefault bool) unstructured.Unstructured {
	o := unstructured.Unstructured{Object: map[string]any{"driver": driver}}
	o.SetName(name)
	if isDefault {
		o.SetAnnotations(map[string]string{defaultClass: "true"})
	}
	return o
}

func TestPickClass(t *testing.T) {
	a, b, other := class("a", "d", false), class("b", "d", true), class("o", "x", true)
	second := class("c", "d", false)
	for _, tt := range []struct {
		name    string
		classes []unstructured.Unstructured
		asked   string
		want    string
		err     error
		says    string
	}{
		{"only one", []unstructured.Unstructured{a, other}, "", "a", nil, ""},
		{"default", []unstructured.Unstructured{a, b, other}, "", "b", nil, ""},
		{"asked", []unstructured.Unstructured{a, b}, "a", "a", nil, ""},
		{"none at all", nil, "", "", ErrNoSnapshots, "driver: d"},
		{"none of the driver", []unstructured.Unstructured{other}, "", "", ErrNoSnapshots, "SnapshotOrLive"},
		{"ambiguous", []unstructured.Unstructured{a, second}, "", "", ErrSnapshotClass, "has a, c"},
		{"asked of another driver", []unstructured.Unstructured{a, other}, "o", "", ErrSnapshotClass, "is for driver x"},
		{"asked and missing", []unstructured.Unstructured{a}, "z", "", ErrSnapshotClass, "there are: a"},
	} {
		got, err := pickClass(tt.classes, "d", tt.asked)
		if got != tt.want || !errors.Is(err, tt.err) || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: pickClass = %q, %v; want %q, %v that says %q", tt.name, got, err, tt.want, tt.err, tt.says)
		}
	}
}

func TestNamesAreOfPointAndClaim(t *testing.T) {
	plan := func(point, claim string) capture.VolumePlan {
		return capture.VolumePlan{Claim: capture.Claim{Namespace: "n", Name: claim}, Options: capture.VolumeOptions{Point: point}}
	}
	first, again := name(plan("p", "c")), name(plan("p", "c"))
	if first != again || first == name(plan("p", "d")) || first == name(plan("q", "c")) {
		t.Error("names do not follow point and claim")
	}
	for what, of := range map[string]func(capture.VolumePlan) string{"claims": name, "groups": groupName} {
		made := func(application string) string {
			return of(capture.VolumePlan{
				Driver: "d", Claim: capture.Claim{Namespace: "n", Name: "c"},
				Options: capture.VolumeOptions{Application: application, Point: "p"},
			})
		}
		if first, again := made("shop"), made("shop"); first != again || first == made("all") {
			t.Errorf("what is made for %s of two applications' points of one name has one name", what)
		}
	}
	if long := PointLabel(strings.Repeat("x", 200)); len(long) > 63 {
		t.Errorf("label of %d bytes", len(long))
	}
}

func TestNodeOf(t *testing.T) {
	pv := func(key string, values ...string) *corev1.PersistentVolume {
		return &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: corev1.NodeSelectorOpIn, Values: values}}}},
		}}}}
	}
	if got := nodeOf(pv(corev1.LabelHostname, "east")); got != "east" {
		t.Errorf("nodeOf = %q", got)
	}
	for _, v := range []*corev1.PersistentVolume{{}, pv("zone", "a"), pv(corev1.LabelHostname, "a", "b")} {
		if got := nodeOf(v); got != "" {
			t.Errorf("nodeOf = %q, want none", got)
		}
	}
}

func TestGoOn(t *testing.T) {
	expired := func(token string) error {
		err := apierrors.NewResourceExpired("too old")
		err.ErrStatus.Continue = token
		return err
	}
	if next, ok := goOn(expired(""), cursor{exact: "5"}); !ok || next.exact != "" {
		t.Errorf("a lost revision: %+v, %t: want a list of now", next, ok)
	}
	if next, ok := goOn(expired("on"), cursor{token: "old"}); !ok || next.token != "on" {
		t.Errorf("a lost revision midway: %+v, %t: want the server's token", next, ok)
	}
	for _, tt := range []struct {
		err error
		at  cursor
	}{{nil, cursor{exact: "5"}}, {expired(""), cursor{token: "old"}}, {expired("old"), cursor{token: "old"}}, {expired(""), cursor{}}, {errors.New("x"), cursor{exact: "5"}}} {
		if next, ok := goOn(tt.err, tt.at); ok {
			t.Errorf("goOn(%v, %+v) goes on with %+v", tt.err, tt.at, next)
		}
	}
}

func TestNextLimit(t *testing.T) {
	items := make([]map[string]any, 100)
	for _, c := range []struct{ size, limit, want int }{
		{100 * 1024, maxPage, maxPage},
		{100 << 20, 100, 2},
		{100 << 24, 100, 1},
		{100 * 1024, firstPage, 2 * firstPage}, // it guesses wrong by twice at most
	} {
		if got := after(&page{Items: items, size: c.size, limit: c.limit}).limit; got != c.want {
			t.Errorf("the limit after %d bytes for %d = %d, want %d", c.size, c.limit, got, c.want)
		}
	}
}
