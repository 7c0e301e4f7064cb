package driver

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"davit.dev/davit/testbed/csi/internal/pool"
)

// GroupControllerGetCapabilities lists what the group controller does.
func (d *Driver) GroupControllerGetCapabilities(context.Context, *csi.GroupControllerGetCapabilitiesRequest) (*csi.GroupControllerGetCapabilitiesResponse, error) {
	return &csi.GroupControllerGetCapabilitiesResponse{Capabilities: []*csi.GroupControllerServiceCapability{{
		Type: &csi.GroupControllerServiceCapability_Rpc{Rpc: &csi.GroupControllerServiceCapability_RPC{
			Type: csi.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT,
		}},
	}}}, nil
}

// CreateVolumeGroupSnapshot takes snapshots of all volumes at one instant; they are ready at once.
func (d *Driver) CreateVolumeGroupSnapshot(ctx context.Context, req *csi.CreateVolumeGroupSnapshotRequest) (*csi.CreateVolumeGroupSnapshotResponse, error) {
	if req.GetName() == "" {
		return nil, invalid("group snapshot name is missing")
	}
	volumes := slices.Clone(req.GetSourceVolumeIds())
	slices.Sort(volumes)
	if volumes = slices.Compact(volumes); len(volumes) == 0 {
		return nil, invalid("source volume ids are missing")
	}
	id := pool.GroupID(req.GetName())
	leave, err := d.busy.enter(append([]string{id}, volumes...)...)
	if err != nil {
		return nil, err
	}
	defer leave()
	group, err := d.pool.Group(id)
	if errors.Is(err, pool.ErrNotFound) {
		group, err = d.takeGroup(ctx, req, volumes)
	}
	if err != nil {
		return nil, err
	}
	described, err := d.describeGroup(group)
	if err != nil {
		return nil, err
	}
	if !sameVolumes(described, volumes) {
		return nil, status.Errorf(codes.AlreadyExists, "group snapshot %q exists, of other volumes", group.Name)
	}
	return &csi.CreateVolumeGroupSnapshotResponse{GroupSnapshot: described}, nil
}

func (d *Driver) takeGroup(ctx context.Context, req *csi.CreateVolumeGroupSnapshotRequest, ids []string) (pool.Group, error) {
	var from []pool.Volume
	for _, id := range ids {
		v, err := d.pool.Volume(id)
		if err != nil {
			return pool.Group{}, err
		}
		from = append(from, v)
	}
	leave, err := d.slow.enter(ctx, req.GetParameters())
	if err != nil {
		return pool.Group{}, err
	}
	defer leave()
	start := time.Now()
	group, err := d.pool.CreateGroup(req.GetName(), from)
	if err == nil {
		d.log.InfoContext(ctx, "group snapshot taken", "group", group.ID, "volumes", ids, "took", time.Since(start))
	}
	return group, err
}

func (d *Driver) describeGroup(group pool.Group) (*csi.VolumeGroupSnapshot, error) {
	out := &csi.VolumeGroupSnapshot{GroupSnapshotId: group.ID, CreationTime: timestamppb.New(group.Created), ReadyToUse: true}
	for _, id := range group.Snapshots {
		s, err := d.pool.Snapshot(id)
		if err != nil {
			return nil, err
		}
		out.Snapshots = append(out.Snapshots, describeSnapshot(s))
	}
	return out, nil
}

func sameVolumes(group *csi.VolumeGroupSnapshot, want []string) bool {
	var have []string
	for _, s := range group.GetSnapshots() {
		have = append(have, s.GetSourceVolumeId())
	}
	slices.Sort(have)
	return slices.Equal(have, want)
}

// GetVolumeGroupSnapshot returns one group snapshot.
func (d *Driver) GetVolumeGroupSnapshot(_ context.Context, req *csi.GetVolumeGroupSnapshotRequest) (*csi.GetVolumeGroupSnapshotResponse, error) {
	if req.GetGroupSnapshotId() == "" {
		return nil, invalid("group snapshot id is missing")
	}
	group, err := d.pool.Group(req.GetGroupSnapshotId())
	if err != nil {
		return nil, err
	}
	if err := checkMembers(group, req.GetSnapshotIds()); err != nil {
		return nil, err
	}
	described, err := d.describeGroup(group)
	if err != nil {
		return nil, err
	}
	return &csi.GetVolumeGroupSnapshotResponse{GroupSnapshot: described}, nil
}

// checkMembers refuses a list of snapshots, where one is given, that are not the group's.
func checkMembers(group pool.Group, ids []string) error {
	have, want := slices.Sorted(slices.Values(group.Snapshots)), slices.Sorted(slices.Values(ids))
	if len(want) > 0 && !slices.Equal(have, want) {
		return invalid("group snapshot %s has snapshots %v, not %v", group.ID, have, want)
	}
	return nil
}

// DeleteVolumeGroupSnapshot removes a group snapshot with its snapshots; one that is gone already is fine.
func (d *Driver) DeleteVolumeGroupSnapshot(_ context.Context, req *csi.DeleteVolumeGroupSnapshotRequest) (*csi.DeleteVolumeGroupSnapshotResponse, error) {
	if req.GetGroupSnapshotId() == "" {
		return nil, invalid("group snapshot id is missing")
	}
	leave, err := d.busy.enter(append([]string{req.GetGroupSnapshotId()}, req.GetSnapshotIds()...)...)
	if err != nil {
		return nil, err
	}
	defer leave()
	group, err := d.pool.Group(req.GetGroupSnapshotId())
	if errors.Is(err, pool.ErrNotFound) {
		return &csi.DeleteVolumeGroupSnapshotResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := checkMembers(group, req.GetSnapshotIds()); err != nil {
		return nil, err
	}
	return &csi.DeleteVolumeGroupSnapshotResponse{}, d.pool.DeleteGroup(group)
}
