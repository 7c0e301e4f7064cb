package driver

import (
	"context"
	"errors"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"davit.dev/davit/testbed/csi/internal/disk"
	"davit.dev/davit/testbed/csi/internal/pool"
)

func outOfRange(format string, args ...any) error {
	return status.Errorf(codes.OutOfRange, format, args...)
}

// ControllerGetCapabilities lists what the controller does.
func (d *Driver) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	var list []*csi.ControllerServiceCapability
	for _, t := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES,
		csi.ControllerServiceCapability_RPC_GET_VOLUME,
		csi.ControllerServiceCapability_RPC_GET_CAPACITY,
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
		csi.ControllerServiceCapability_RPC_GET_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		list = append(list, &csi.ControllerServiceCapability{Type: &csi.ControllerServiceCapability_Rpc{
			Rpc: &csi.ControllerServiceCapability_RPC{Type: t},
		}})
	}
	return &csi.ControllerGetCapabilitiesResponse{Capabilities: list}, nil
}

// CreateVolume makes an empty volume or a clone.
func (d *Driver) CreateVolume(ctx context.Context, req *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if req.GetName() == "" {
		return nil, invalid("volume name is missing")
	}
	fsType, err := wantedFSType(req.GetVolumeCapabilities(), req.GetParameters())
	if err != nil {
		return nil, err
	}
	if err := d.checkTopology(req.GetAccessibilityRequirements()); err != nil {
		return nil, err
	}
	want := pool.Volume{
		ID: pool.VolumeID(req.GetName()), Name: req.GetName(), FSType: fsType,
		Alone: req.GetParameters()[groupParameter] == groupNone,
	}
	leave, err := d.busy.enter(want.ID, req.GetVolumeContentSource().GetVolume().GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer leave()
	have, err := d.pool.Volume(want.ID)
	switch {
	case err == nil:
		err = checkSame(have, want, req)
	case errors.Is(err, pool.ErrNotFound):
		have, err = d.create(ctx, want, req)
	}
	if err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: d.describe(have)}, nil
}

// checkSame says whether the volume that exists under the name is the one asked for.
func checkSame(have, want pool.Volume, req *csi.CreateVolumeRequest) error {
	required, limit := req.GetCapacityRange().GetRequiredBytes(), req.GetCapacityRange().GetLimitBytes()
	switch {
	case have.Bytes < required || limit > 0 && have.Bytes > limit:
		return status.Errorf(codes.AlreadyExists, "volume %q exists with %d bytes", have.Name, have.Bytes)
	case have.FSType != want.FSType:
		return status.Errorf(codes.AlreadyExists, "volume %q exists with file system %q", have.Name, have.FSType)
	case have.Source != sourceID(req.GetVolumeContentSource()):
		return status.Errorf(codes.AlreadyExists, "volume %q exists with source %q", have.Name, have.Source)
	}
	return nil
}

func sourceID(source *csi.VolumeContentSource) string {
	if id := source.GetSnapshot().GetSnapshotId(); id != "" {
		return id
	}
	return source.GetVolume().GetVolumeId()
}

func (d *Driver) create(ctx context.Context, want pool.Volume, req *csi.CreateVolumeRequest) (pool.Volume, error) {
	source := req.GetVolumeContentSource()
	switch {
	case source == nil:
		return d.createEmpty(ctx, want, req.GetCapacityRange())
	case source.GetSnapshot() != nil:
		from, err := d.pool.Snapshot(source.GetSnapshot().GetSnapshotId())
		if err != nil {
			return want, err
		}
		want.Bytes, err = d.cloneBytes(want, from.FSType, from.Bytes, req.GetCapacityRange())
		if err != nil {
			return want, err
		}
		return d.pool.CloneSnapshot(want, from)
	case source.GetVolume() != nil:
		from, err := d.pool.Volume(source.GetVolume().GetVolumeId())
		if err != nil {
			return want, err
		}
		want.Bytes, err = d.cloneBytes(want, from.FSType, from.Bytes, req.GetCapacityRange())
		if err != nil {
			return want, err
		}
		return d.pool.CloneVolume(want, from)
	}
	return want, invalid("volume content source is neither a snapshot nor a volume")
}

func (d *Driver) createEmpty(ctx context.Context, want pool.Volume, r *csi.CapacityRange) (pool.Volume, error) {
	size, err := wantedBytes(r, disk.MinBytes(want.FSType))
	if err != nil {
		return want, err
	}
	if err := d.checkRoom(size); err != nil {
		return want, err
	}
	want.Bytes = size
	return d.pool.CreateVolume(ctx, want)
}

// cloneBytes refuses a clone that could not hold its source, or whose file system would not be the one asked for.
func (d *Driver) cloneBytes(want pool.Volume, fsType string, size int64, r *csi.CapacityRange) (int64, error) {
	if want.FSType != fsType {
		return 0, invalid("the source holds file system %q, not %q; use a StorageClass with the same", fsType, want.FSType)
	}
	if required := r.GetRequiredBytes(); required > 0 && required < size {
		return 0, outOfRange("the source has %d bytes, more than the %d required", size, required)
	}
	bytes, err := wantedBytes(r, size)
	if r.GetRequiredBytes() == 0 && err == nil {
		bytes = size
	}
	if err != nil {
		return 0, err
	}
	return bytes, d.checkRoom(bytes)
}

// checkRoom refuses what can never fit. Images are sparse, so promising more than is free is allowed.
func (d *Driver) checkRoom(size int64) error {
	usage, err := d.pool.Usage()
	if err != nil {
		return err
	}
	if size > usage.TotalBytes {
		return outOfRange("%d bytes never fit: the outer file system has %d", size, usage.TotalBytes)
	}
	return nil
}

// checkTopology refuses volumes that must be reachable from elsewhere only.
func (d *Driver) checkTopology(req *csi.TopologyRequirement) error {
	if req == nil || len(req.GetRequisite()) == 0 {
		return nil
	}
	for _, t := range req.GetRequisite() {
		if d.isHere(t) {
			return nil
		}
	}
	return status.Errorf(codes.ResourceExhausted, "none of the topologies asked for is node %q", d.node)
}

func (d *Driver) isHere(t *csi.Topology) bool {
	node, ok := t.GetSegments()[TopologyKey]
	return !ok || node == d.node
}

func (d *Driver) topology() *csi.Topology {
	return &csi.Topology{Segments: map[string]string{TopologyKey: d.node}}
}

func (d *Driver) describe(v pool.Volume) *csi.Volume {
	volume := &csi.Volume{
		VolumeId: v.ID, CapacityBytes: v.Bytes, AccessibleTopology: []*csi.Topology{d.topology()},
	}
	switch {
	case v.Source == "":
	case pool.IsSnapshotID(v.Source):
		volume.ContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
			Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: v.Source},
		}}
	default:
		volume.ContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
			Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: v.Source},
		}}
	}
	return volume
}

// DeleteVolume removes a volume; one that is gone already is fine.
func (d *Driver) DeleteVolume(_ context.Context, req *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, invalid("volume id is missing")
	}
	leave, err := d.busy.enter(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer leave()
	return &csi.DeleteVolumeResponse{}, d.pool.DeleteVolume(req.GetVolumeId())
}

// ValidateVolumeCapabilities confirms what the volume can do.
func (d *Driver) ValidateVolumeCapabilities(_ context.Context, req *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, invalid("volume id is missing")
	}
	if len(req.GetVolumeCapabilities()) == 0 {
		return nil, invalid("volume capabilities are missing")
	}
	volume, err := d.pool.Volume(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	fsType, err := wantedFSType(req.GetVolumeCapabilities(), req.GetParameters())
	if err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: err.Error()}, nil
	}
	if (fsType == "") != (volume.FSType == "") {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: "the volume is not of this kind: mount or block"}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext: req.GetVolumeContext(), VolumeCapabilities: req.GetVolumeCapabilities(), Parameters: req.GetParameters(),
	}}, nil
}

// ControllerGetVolume returns one volume.
func (d *Driver) ControllerGetVolume(_ context.Context, req *csi.ControllerGetVolumeRequest) (*csi.ControllerGetVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, invalid("volume id is missing")
	}
	volume, err := d.pool.Volume(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &csi.ControllerGetVolumeResponse{
		Volume: d.describe(volume),
		Status: &csi.ControllerGetVolumeResponse_VolumeStatus{},
	}, nil
}

// GetCapacity reports what the outer file system has left.
func (d *Driver) GetCapacity(_ context.Context, req *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	if t := req.GetAccessibleTopology(); t != nil && !d.isHere(t) {
		return &csi.GetCapacityResponse{}, nil
	}
	usage, err := d.pool.Usage()
	if err != nil {
		return nil, err
	}
	return &csi.GetCapacityResponse{AvailableCapacity: usage.FreeBytes}, nil
}

// ControllerExpandVolume makes the image larger; the node grows what is inside.
func (d *Driver) ControllerExpandVolume(_ context.Context, req *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, invalid("volume id is missing")
	}
	if req.GetCapacityRange() == nil {
		return nil, invalid("capacity range is missing")
	}
	leave, err := d.busy.enter(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer leave()
	volume, err := d.pool.Volume(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	size, err := wantedBytes(req.GetCapacityRange(), volume.Bytes)
	if err != nil {
		return nil, err
	}
	if err := d.checkRoom(size); err != nil {
		return nil, err
	}
	if size > volume.Bytes {
		if volume, err = d.pool.Resize(volume, size); err != nil {
			return nil, err
		}
	}
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: volume.Bytes, NodeExpansionRequired: true}, nil
}
