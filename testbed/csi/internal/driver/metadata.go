package driver

import (
	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"davit.dev/davit/testbed/csi/internal/pool"
)

// rangesAtOnce is how many ranges a message has where the caller does not say.
const rangesAtOnce = 1024

// GetMetadataAllocated tells what was ever written of a snapshot.
func (d *Driver) GetMetadataAllocated(req *csi.GetMetadataAllocatedRequest, stream csi.SnapshotMetadata_GetMetadataAllocatedServer) error {
	if req.GetSnapshotId() == "" {
		return invalid("snapshot id is missing")
	}
	s, err := d.pool.Snapshot(req.GetSnapshotId())
	if err != nil {
		return statusOf(err)
	}
	all, err := d.pool.Allocated(s)
	if err != nil {
		return statusOf(err)
	}
	return tell(all, s.Bytes, req.GetStartingOffset(), req.GetMaxResults(), func(list []*csi.BlockMetadata) error {
		return stream.Send(&csi.GetMetadataAllocatedResponse{
			BlockMetadataType: csi.BlockMetadataType_VARIABLE_LENGTH, VolumeCapacityBytes: s.Bytes, BlockMetadata: list,
		})
	})
}

// GetMetadataDelta tells what differs between two snapshots of a volume.
func (d *Driver) GetMetadataDelta(req *csi.GetMetadataDeltaRequest, stream csi.SnapshotMetadata_GetMetadataDeltaServer) error {
	if req.GetBaseSnapshotId() == "" || req.GetTargetSnapshotId() == "" {
		return invalid("snapshot id is missing")
	}
	base, err := d.pool.Snapshot(req.GetBaseSnapshotId())
	if err != nil {
		return statusOf(err)
	}
	target, err := d.pool.Snapshot(req.GetTargetSnapshotId())
	if err != nil {
		return statusOf(err)
	}
	if base.VolumeID != target.VolumeID {
		return invalid("snapshots %s and %s are of two volumes", base.ID, target.ID)
	}
	all, err := d.pool.Changed(base, target)
	if err != nil {
		return statusOf(err)
	}
	return tell(all, target.Bytes, req.GetStartingOffset(), req.GetMaxResults(), func(list []*csi.BlockMetadata) error {
		return stream.Send(&csi.GetMetadataDeltaResponse{
			BlockMetadataType: csi.BlockMetadataType_VARIABLE_LENGTH, VolumeCapacityBytes: target.Bytes, BlockMetadata: list,
		})
	})
}

// tell sends what ends after the starting offset, some ranges at a time. Without any it sends the capacity alone.
func tell(all []pool.Range, capacity, from int64, most int32, send func([]*csi.BlockMetadata) error) error {
	if from < 0 || from > 0 && from >= capacity {
		return status.Errorf(codes.OutOfRange, "starting offset %d is not within %d bytes", from, capacity)
	}
	if most <= 0 {
		most = rangesAtOnce
	}
	var list []*csi.BlockMetadata
	for _, r := range all {
		if r.Offset+r.Length <= from {
			continue
		}
		list = append(list, &csi.BlockMetadata{ByteOffset: r.Offset, SizeBytes: min(r.Length, capacity-r.Offset)})
		if len(list) == int(most) {
			if err := send(list); err != nil {
				return err
			}
			list = nil
		}
	}
	return send(list)
}
