package proof

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/utils/ptr"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/volume"
)

// repository is one in which snapshots are whole and blobs maybe not.
type repository struct {
	protection.Repository
	damaged  []volume.Damage
	compared []volume.VerifyOptions
}

func (r *repository) Verify(context.Context, point.Snapshot, volume.VerifyOptions) (volume.VerifyReport, error) {
	return volume.VerifyReport{}, nil
}

func (r *repository) VerifyBlobs(_ context.Context, _ []string, opts volume.VerifyOptions) (volume.VerifyReport, error) {
	r.compared = append(r.compared, opts)
	return volume.VerifyReport{Blobs: 7, Damaged: r.damaged}, nil
}

func (r *repository) Close(context.Context) error { return nil }

// TestDamagedBlobsAreTold although the points are whole, stay told until all
// were compared again, and are compared once a run.
func TestDamagedBlobsAreTold(t *testing.T) {
	spec := hourly()
	spec.Blobs, spec.Sample, spec.Newest = true, ptr.To[int32](10), ptr.To[int32](2)
	s := newSite(t, spec)
	s.volumes = &repository{damaged: []volume.Damage{{Blob: "p12", Err: errors.New("does not match its SHA-256")}}}
	s.publish("p1")
	s.publish("p2")
	got := s.look()
	if len(got.DamagedBlobs) != 1 || !strings.Contains(got.DamagedBlobs[0], "p12") || len(got.Damaged) != 0 || got.Blobs != 7 || !slices.Equal(got.Points, []string{"p2", "p1"}) || len(s.volumes.compared) != 1 {
		t.Errorf("compared %+v, status %+v", s.volumes.compared, got)
	}
	if e := s.events(); !strings.Contains(e, "Warning Damaged 1 blobs of volume data are not as they were written") {
		t.Errorf("events %q", e)
	}
	s.now, s.volumes.damaged = noon.Add(2*time.Hour), nil
	if got := s.look(); len(got.DamagedBlobs) != 0 {
		t.Errorf("mended, and still told: %+v", got)
	}
	if c := s.volumes.compared; c[0].Sample != 10 || c[1].Sample != 0 {
		t.Errorf("the run after damage compared %+v", c)
	}
}
