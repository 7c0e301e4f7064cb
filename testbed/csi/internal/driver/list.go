package driver

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"davit.dev/davit/testbed/csi/internal/pool"
)

// place is where an entry stands in a list that is sorted by age. A token names the last entry that was returned, so
// that entries removed or added between two pages shift nothing.
type place struct {
	created time.Time
	id      string
}

func (p place) token() string { return fmt.Sprintf("%d/%s", p.created.UnixNano(), p.id) }

func (p place) after(other place) bool {
	if c := p.created.Compare(other.created); c != 0 {
		return c > 0
	}
	return p.id > other.id
}

func parseToken(token string) (place, error) {
	nanos, id, ok := strings.Cut(token, "/")
	n, err := strconv.ParseInt(nanos, 10, 64)
	if !ok || err != nil {
		return place{}, status.Errorf(codes.Aborted, "starting token %q is not one of ours; list from the start", token)
	}
	return place{created: time.Unix(0, n), id: id}, nil
}

// page cuts one page out of a sorted list and returns the token of the next, if there is one.
func page[T any](list []T, at func(T) place, token string, limit int32) ([]T, string, error) {
	if limit < 0 {
		return nil, "", invalid("max entries is negative: %d", limit)
	}
	if token != "" {
		from, err := parseToken(token)
		if err != nil {
			return nil, "", err
		}
		for len(list) > 0 && !at(list[0]).after(from) {
			list = list[1:]
		}
	}
	if limit == 0 || len(list) <= int(limit) {
		return list, "", nil
	}
	list = list[:limit]
	return list, at(list[limit-1]).token(), nil
}

// ListVolumes lists volumes, oldest first.
func (d *Driver) ListVolumes(_ context.Context, req *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	all, err := d.pool.Volumes()
	if err != nil {
		return nil, err
	}
	list, next, err := page(all, func(v pool.Volume) place { return place{v.Created, v.ID} },
		req.GetStartingToken(), req.GetMaxEntries())
	if err != nil {
		return nil, err
	}
	resp := &csi.ListVolumesResponse{NextToken: next}
	for _, v := range list {
		resp.Entries = append(resp.Entries, &csi.ListVolumesResponse_Entry{Volume: d.describe(v)})
	}
	return resp, nil
}

// ListSnapshots lists snapshots, oldest first, all or those of one volume or the one with an id.
func (d *Driver) ListSnapshots(_ context.Context, req *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	all, err := d.findSnapshots(req.GetSnapshotId(), req.GetSourceVolumeId())
	if err != nil {
		return nil, err
	}
	list, next, err := page(all, func(s pool.Snapshot) place { return place{s.Created, s.ID} },
		req.GetStartingToken(), req.GetMaxEntries())
	if err != nil {
		return nil, err
	}
	resp := &csi.ListSnapshotsResponse{NextToken: next}
	for _, s := range list {
		resp.Entries = append(resp.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: describeSnapshot(s)})
	}
	return resp, nil
}

// findSnapshots treats an id nobody knows as an empty answer, as the CSI asks.
func (d *Driver) findSnapshots(id, volume string) ([]pool.Snapshot, error) {
	var found []pool.Snapshot
	if id != "" {
		s, err := d.pool.Snapshot(id)
		if errors.Is(err, pool.ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		found = []pool.Snapshot{s}
	} else {
		all, err := d.pool.Snapshots()
		if err != nil {
			return nil, err
		}
		found = all
	}
	var kept []pool.Snapshot
	for _, s := range found {
		if volume == "" || s.VolumeID == volume {
			kept = append(kept, s)
		}
	}
	return kept, nil
}

func describeSnapshot(s pool.Snapshot) *csi.Snapshot {
	return &csi.Snapshot{
		SnapshotId: s.ID, SourceVolumeId: s.VolumeID, SizeBytes: s.Bytes,
		CreationTime: timestamppb.New(s.Created), ReadyToUse: true, GroupSnapshotId: s.Group,
	}
}

// GetSnapshot returns one snapshot.
func (d *Driver) GetSnapshot(_ context.Context, req *csi.GetSnapshotRequest) (*csi.GetSnapshotResponse, error) {
	if req.GetSnapshotId() == "" {
		return nil, invalid("snapshot id is missing")
	}
	s, err := d.pool.Snapshot(req.GetSnapshotId())
	if err != nil {
		return nil, err
	}
	return &csi.GetSnapshotResponse{Snapshot: describeSnapshot(s)}, nil
}

// CreateSnapshot takes a snapshot that is ready at once.
func (d *Driver) CreateSnapshot(ctx context.Context, req *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	if req.GetName() == "" {
		return nil, invalid("snapshot name is missing")
	}
	if req.GetSourceVolumeId() == "" {
		return nil, invalid("source volume id is missing")
	}
	id := pool.SnapshotID(req.GetName())
	leave, err := d.busy.enter(id, req.GetSourceVolumeId())
	if err != nil {
		return nil, err
	}
	defer leave()
	have, err := d.pool.Snapshot(id)
	switch {
	case err == nil && have.VolumeID != req.GetSourceVolumeId():
		return nil, status.Errorf(codes.AlreadyExists, "snapshot %q exists, of volume %s", have.Name, have.VolumeID)
	case errors.Is(err, pool.ErrNotFound):
		have, err = d.takeSnapshot(ctx, req)
	}
	if err != nil {
		return nil, err
	}
	return &csi.CreateSnapshotResponse{Snapshot: describeSnapshot(have)}, nil
}

func (d *Driver) takeSnapshot(ctx context.Context, req *csi.CreateSnapshotRequest) (pool.Snapshot, error) {
	volume, err := d.pool.Volume(req.GetSourceVolumeId())
	if err != nil {
		return pool.Snapshot{}, err
	}
	leave, err := d.slow.enter(ctx, req.GetParameters())
	if err != nil {
		return pool.Snapshot{}, err
	}
	defer leave()
	start := time.Now()
	snap, err := d.pool.CreateLying(req.GetName(), volume, req.GetParameters()[liesKey] == "true")
	if err == nil {
		d.log.InfoContext(ctx, "snapshot taken", "snapshot", snap.ID, "volume", volume.ID, "frozen", snap.Frozen,
			"took", time.Since(start))
	}
	return snap, err
}

// DeleteSnapshot removes a snapshot; one that is gone already is fine.
func (d *Driver) DeleteSnapshot(_ context.Context, req *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	if req.GetSnapshotId() == "" {
		return nil, invalid("snapshot id is missing")
	}
	leave, err := d.busy.enter(req.GetSnapshotId())
	if err != nil {
		return nil, err
	}
	defer leave()
	if have, err := d.pool.Snapshot(req.GetSnapshotId()); err == nil && have.Group != "" {
		return nil, invalid("snapshot %s is part of group snapshot %s; delete that", have.ID, have.Group)
	}
	return &csi.DeleteSnapshotResponse{}, d.pool.DeleteSnapshot(req.GetSnapshotId())
}
