package halt

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/json" // whole numbers stay such, as the API server's do

	"davit.dev/davit/internal/restore/shape"
)

// What a roll-back stops is found again as it was by who restores or releases
// it: the marks are those of a fence, and no claim is lost.
func TestWhatIsStoppedCanStartAgain(t *testing.T) {
	for name, test := range map[string]struct{ have, want string }{
		"runs":            {`{"spec":{"replicas":3}}`, `{"metadata":{"annotations":{"davit.dev/replicas-before-fence":"3"}},"spec":{"replicas":0}}`},
		"runs by default": {`{"spec":{}}`, `{"metadata":{"annotations":{"davit.dev/replicas-before-fence":"1"}},"spec":{"replicas":0}}`},
		"is at rest":      {`{"spec":{"replicas":0}}`, `null`},
		"would lose its claims": {
			`{"spec":{"replicas":2,"persistentVolumeClaimRetentionPolicy":{"whenScaled":"Delete"}}}`,
			`{"metadata":{"annotations":{"davit.dev/claims-when-scaled-before-fence":"Delete","davit.dev/replicas-before-fence":"2"}},"spec":{"persistentVolumeClaimRetentionPolicy":{"whenScaled":"Retain"},"replicas":0}}`,
		},
	} {
		u := &unstructured.Unstructured{}
		if err := json.Unmarshal([]byte(test.have), &u.Object); err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(toZero(u))
		if err != nil || string(got) != test.want {
			t.Errorf("%s: %s, %v; want %s", name, got, err, test.want)
		}
	}
	// A point that is captured meanwhile is restored as before.
	d := shape.Document{}
	err := json.Unmarshal([]byte(`{"metadata":{"name":"db"},"spec":{"replicas":2,"persistentVolumeClaimRetentionPolicy":{"whenScaled":"Delete"}}}`), &d)
	if err != nil {
		t.Fatal(err)
	}
	stopped := shape.Document{}
	shape.Merge(stopped, d)
	patch, err := json.Marshal(toZero(&unstructured.Unstructured{Object: d}))
	if err != nil {
		t.Fatal(err)
	}
	sent := shape.Document{}
	if err := json.Unmarshal(patch, &sent); err != nil {
		t.Fatal(err)
	}
	shape.Merge(stopped, sent)
	shape.Strip(shape.KindStatefulSet, stopped, shape.Options{})
	want, _ := json.Marshal(d)
	if got, err := json.Marshal(stopped); err != nil || string(got) != string(want) {
		t.Errorf("restored as %s, %v; it was %s", got, err, want)
	}
}
