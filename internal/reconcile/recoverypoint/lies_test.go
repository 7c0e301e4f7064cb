package recoverypoint

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/protection"
)

// TestWhatIsFoundOfStorageStaysOnTheApplication until a point is made that says nothing of it.
func TestWhatIsFoundOfStorageStaysOnTheApplication(t *testing.T) {
	s := newSite(t, request("p1", ""))
	lied := func(claim string) error {
		return fmt.Errorf("capture shop: %w", &protection.LiedError{Volumes: map[string]string{claim: "db"}, Err: errors.New("broken")})
	}
	whole := func(distrusted string) *point.Manifest {
		return &point.Manifest{Volumes: []point.Volume{{Namespace: "shop", Claim: "a", Snapshot: point.Snapshot{Blocks: &point.Blocks{Distrusted: distrusted}}}, {Namespace: "shop", Claim: "c"}}}
	}
	for i, step := range []struct {
		m      *point.Manifest
		failed error
		want   map[string]string
	}{
		{nil, errors.New("broken"), nil},
		{nil, lied("shop/a"), map[string]string{"shop/a": "db"}},
		{nil, errors.New("broken"), map[string]string{"shop/a": "db"}},
		{nil, lied("shop/b"), map[string]string{"shop/a": "db", "shop/b": "db"}},
		{whole("again"), nil, map[string]string{"shop/a": "again"}},
		{whole(""), nil, nil},
	} {
		sub := &subject{}
		key := client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: "shop"}
		if err := s.Reader.Get(t.Context(), key, &sub.app); err != nil {
			t.Fatal(err)
		}
		rp := s.all()["p1"]
		s.noteLies(t.Context(), &rp, sub, step.m, step.failed)
		if err := s.Reader.Get(t.Context(), key, &sub.app); err != nil {
			t.Fatal(err)
		}
		if got := sub.app.Distrusted(); !maps.Equal(got, step.want) {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
	told := 0
	for len(s.events.Events) > 0 {
		if strings.Contains(<-s.events.Events, "StorageLied") {
			told++
		}
	}
	if told != 4 {
		t.Errorf("%d events", told)
	}
}
