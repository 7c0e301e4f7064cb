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

// TestWhatIsFoundOfStorageStaysOnTheApplication until a point is made that has the volume and says nothing of it, or
// a person has one made without the option. A point that lacks the volume says nothing.
func TestWhatIsFoundOfStorageStaysOnTheApplication(t *testing.T) {
	s := newSite(t, request("p1", ""))
	lied := func(claim string) error {
		return fmt.Errorf("capture shop: %w", &protection.LiedError{Volumes: map[string]string{claim: "db"}, Err: errors.New("broken")})
	}
	whole := func(distrusted string) *point.Manifest {
		return &point.Manifest{Volumes: []point.Volume{{Namespace: "shop", Claim: "a", Snapshot: point.Snapshot{Blocks: &point.Blocks{Distrusted: distrusted}}}, {Namespace: "shop", Claim: "c"}}}
	}
	const on, off = v1alpha1.ChangedBlocksAuto, v1alpha1.ChangedBlocksNever
	for i, step := range []struct {
		mode   v1alpha1.ChangedBlocksMode
		m      *point.Manifest
		failed error
		want   map[string]string
	}{
		{on, nil, errors.New("broken"), nil},
		{on, nil, lied("shop/a"), map[string]string{"shop/a": "db"}},
		{on, nil, errors.New("broken"), map[string]string{"shop/a": "db"}},
		{on, nil, lied("shop/b"), map[string]string{"shop/a": "db", "shop/b": "db"}},
		{on, whole("again"), nil, map[string]string{"shop/a": "again", "shop/b": "db"}},
		{on, whole(""), nil, map[string]string{"shop/b": "db"}},
		{on, &point.Manifest{}, nil, map[string]string{"shop/b": "db"}},
		{off, nil, errors.New("broken"), map[string]string{"shop/b": "db"}},
		{off, whole("once more"), nil, map[string]string{"shop/a": "once more"}},
		{off, &point.Manifest{}, nil, nil},
	} {
		sub := &subject{}
		key := client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: "shop"}
		if err := s.Reader.Get(t.Context(), key, &sub.app); err != nil {
			t.Fatal(err)
		}
		sub.app.Spec.Volumes.ChangedBlocks = step.mode
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
	if told != 5 {
		t.Errorf("%d events", told)
	}
}
