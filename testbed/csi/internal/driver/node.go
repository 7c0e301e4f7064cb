package driver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"davit.dev/davit/testbed/csi/internal/disk"
	"davit.dev/davit/testbed/csi/internal/pool"
)

// maxVolumes keeps one node below the number of loop devices that are still comfortable.
const maxVolumes = 200

// NodeGetCapabilities lists what the node does.
func (d *Driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	var list []*csi.NodeServiceCapability
	for _, t := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		list = append(list, &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{
			Rpc: &csi.NodeServiceCapability_RPC{Type: t},
		}})
	}
	return &csi.NodeGetCapabilitiesResponse{Capabilities: list}, nil
}

// NodeGetInfo says who and where this node is.
func (d *Driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.node, MaxVolumesPerNode: maxVolumes, AccessibleTopology: d.topology()}, nil
}

// NodeStageVolume attaches the image and mounts what is inside.
func (d *Driver) NodeStageVolume(ctx context.Context, req *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	volume, leave, err := d.enterNode(req.GetVolumeId(), req.GetStagingTargetPath(), req.GetVolumeCapability())
	if err != nil {
		return nil, err
	}
	defer leave()
	if volume.FSType == "" {
		loop, err := d.pool.Attach(volume)
		if err != nil {
			return nil, err
		}
		return &csi.NodeStageVolumeResponse{}, loop.Close()
	}
	if err := d.stage(ctx, volume, req); err != nil {
		return nil, err
	}
	return &csi.NodeStageVolumeResponse{}, nil
}

// enterNode checks what stage and publish have in common and keeps other calls off the volume until leave is called.
func (d *Driver) enterNode(id, path string, c *csi.VolumeCapability) (volume pool.Volume, leave func(), err error) {
	if id == "" {
		return volume, nil, invalid("volume id is missing")
	}
	if path == "" {
		return volume, nil, invalid("path is missing")
	}
	if err := checkCapability(c); err != nil {
		return volume, nil, err
	}
	if leave, err = d.busy.enter(id); err != nil {
		return volume, nil, err
	}
	volume, err = d.pool.Volume(id)
	if err == nil && (c.GetBlock() != nil) != (volume.FSType == "") {
		err = invalid("volume %s is not of the kind asked for: mount or block", id)
	}
	if asked := c.GetMount().GetFsType(); err == nil && asked != "" && asked != volume.FSType {
		err = invalid("volume %s holds %s, not %s", id, volume.FSType, asked)
	}
	if err != nil {
		leave()
		return volume, nil, err
	}
	return volume, leave, nil
}

func (d *Driver) stage(ctx context.Context, volume pool.Volume, req *csi.NodeStageVolumeRequest) error {
	staging, capability := req.GetStagingTargetPath(), req.GetVolumeCapability()
	mounted, err := d.isMounted(volume, staging)
	if err != nil || mounted {
		return err
	}
	if err := os.MkdirAll(staging, 0o750); err != nil {
		return fmt.Errorf("make staging directory: %w", err)
	}
	loop, err := d.pool.Attach(volume)
	if err != nil {
		return err
	}
	defer loop.Close()
	if err := d.growBeforeMount(ctx, volume, loop.Path); err != nil {
		return err
	}
	options := slices.Concat(disk.MountOptions(volume.FSType), capability.GetMount().GetMountFlags())
	if readsOnly(capability) {
		options = append(options, "ro")
	}
	if err := disk.MountDevice(ctx, loop.Path, staging, volume.FSType, options); err != nil {
		return err
	}
	if volume.FSType != disk.XFS || readsOnly(capability) {
		return nil
	}
	return d.pool.GrowMounted(ctx, volume, staging)
}

// growBeforeMount grows what can grow now, unless the volume is mounted elsewhere already.
func (d *Driver) growBeforeMount(ctx context.Context, volume pool.Volume, device string) error {
	mounts, err := d.pool.MountsOf(volume.ID)
	if err != nil || len(mounts) > 0 {
		return err
	}
	return d.pool.Grow(ctx, volume, device)
}

// isMounted says whether target carries this volume; something else there is an error, never silently used.
func (d *Driver) isMounted(volume pool.Volume, target string) (bool, error) {
	m, mounted, err := disk.MountAt(target)
	if err != nil || !mounted {
		return false, err
	}
	mounts, err := d.pool.MountsOf(volume.ID)
	if err != nil {
		return false, err
	}
	if slices.ContainsFunc(mounts, func(m disk.Mount) bool { return m.Target == target }) {
		return true, nil
	}
	return false, fmt.Errorf("use %s for volume %s: %s is mounted there", target, volume.ID, m.Source)
}

// NodeUnstageVolume unmounts and detaches the volume.
func (d *Driver) NodeUnstageVolume(_ context.Context, req *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, invalid("volume id is missing")
	}
	if req.GetStagingTargetPath() == "" {
		return nil, invalid("staging path is missing")
	}
	leave, err := d.busy.enter(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := disk.Unmount(req.GetStagingTargetPath()); err != nil {
		return nil, err
	}
	// Other mounts of it, say in a second staging directory, keep the device.
	if err := d.pool.Detach(req.GetVolumeId()); err != nil && !errors.Is(err, pool.ErrInUse) {
		return nil, err
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

// NodePublishVolume shows the staged volume to a pod.
func (d *Driver) NodePublishVolume(_ context.Context, req *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if req.GetStagingTargetPath() == "" {
		return nil, invalid("staging path is missing")
	}
	volume, leave, err := d.enterNode(req.GetVolumeId(), req.GetTargetPath(), req.GetVolumeCapability())
	if err != nil {
		return nil, err
	}
	defer leave()
	mounted, err := d.isMounted(volume, req.GetTargetPath())
	if err != nil || mounted {
		return &csi.NodePublishVolumeResponse{}, err
	}
	if err := d.checkSingleWriter(req); err != nil {
		return nil, err
	}
	if volume.FSType == "" {
		return &csi.NodePublishVolumeResponse{}, d.publishBlock(volume, req)
	}
	return &csi.NodePublishVolumeResponse{}, d.publishMount(volume, req)
}

func (d *Driver) publishMount(volume pool.Volume, req *csi.NodePublishVolumeRequest) error {
	staged, err := d.isMounted(volume, req.GetStagingTargetPath())
	if err != nil {
		return err
	}
	if !staged {
		return status.Errorf(codes.FailedPrecondition, "volume %s is not staged on %s", volume.ID, req.GetStagingTargetPath())
	}
	if err := os.MkdirAll(req.GetTargetPath(), 0o750); err != nil {
		return fmt.Errorf("make target directory: %w", err)
	}
	readOnly := req.GetReadonly() || readsOnly(req.GetVolumeCapability())
	return disk.Bind(req.GetStagingTargetPath(), req.GetTargetPath(), readOnly)
}

// checkSingleWriter refuses a second target for a volume that only one pod may write.
func (d *Driver) checkSingleWriter(req *csi.NodePublishVolumeRequest) error {
	if req.GetVolumeCapability().GetAccessMode().GetMode() != csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER {
		return nil
	}
	mounts, err := d.pool.MountsOf(req.GetVolumeId())
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if m.Target != req.GetStagingTargetPath() && m.Target != req.GetTargetPath() {
			return status.Errorf(codes.FailedPrecondition, "volume %s has its single writer on %s", req.GetVolumeId(), m.Target)
		}
	}
	return nil
}

func (d *Driver) publishBlock(volume pool.Volume, req *csi.NodePublishVolumeRequest) error {
	devices, err := disk.LoopsOf(d.pool.Image(volume.ID))
	if err != nil {
		return err
	}
	if len(devices) == 0 {
		return status.Errorf(codes.FailedPrecondition, "volume %s is not staged", volume.ID)
	}
	if err := os.MkdirAll(filepath.Dir(req.GetTargetPath()), 0o750); err != nil {
		return fmt.Errorf("make target directory: %w", err)
	}
	file, err := os.OpenFile(req.GetTargetPath(), os.O_CREATE|os.O_RDONLY, 0o640)
	if err != nil {
		return fmt.Errorf("make target file: %w", err)
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("make target file: %w", err)
	}
	return disk.Bind(devices[0], req.GetTargetPath(), req.GetReadonly())
}

// NodeUnpublishVolume takes the volume away from a pod.
func (d *Driver) NodeUnpublishVolume(_ context.Context, req *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, invalid("volume id is missing")
	}
	if req.GetTargetPath() == "" {
		return nil, invalid("target path is missing")
	}
	leave, err := d.busy.enter(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := disk.Unmount(req.GetTargetPath()); err != nil {
		return nil, err
	}
	// Remove, not RemoveAll: what is left there is not ours to delete.
	if err := os.Remove(req.GetTargetPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove target: %w", err)
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

// NodeExpandVolume grows the file system after its image has grown.
func (d *Driver) NodeExpandVolume(ctx context.Context, req *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, invalid("volume id is missing")
	}
	if req.GetVolumePath() == "" {
		return nil, invalid("volume path is missing")
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
	if err := d.checkPublished(volume, req.GetVolumePath()); err != nil {
		return nil, err
	}
	if err := d.pool.GrowMounted(ctx, volume, req.GetVolumePath()); err != nil {
		return nil, err
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: volume.Bytes}, nil
}

func (d *Driver) checkPublished(volume pool.Volume, path string) error {
	mounted, err := d.isMounted(volume, path)
	if err != nil || !mounted {
		return status.Errorf(codes.NotFound, "volume %s is not mounted on %s", volume.ID, path)
	}
	return nil
}

// NodeGetVolumeStats reports how full the volume is.
func (d *Driver) NodeGetVolumeStats(_ context.Context, req *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, invalid("volume id is missing")
	}
	if req.GetVolumePath() == "" {
		return nil, invalid("volume path is missing")
	}
	volume, err := d.pool.Volume(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if err := d.checkPublished(volume, req.GetVolumePath()); err != nil {
		return nil, err
	}
	if volume.FSType == "" {
		return blockStats(req.GetVolumePath())
	}
	usage, err := disk.UsageOf(req.GetVolumePath())
	if err != nil {
		return nil, err
	}
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
		{Unit: csi.VolumeUsage_BYTES, Total: usage.TotalBytes, Available: usage.FreeBytes, Used: usage.UsedBytes},
		{Unit: csi.VolumeUsage_INODES, Total: usage.TotalInodes, Available: usage.FreeInodes, Used: usage.UsedInodes},
	}}, nil
}

func blockStats(path string) (*csi.NodeGetVolumeStatsResponse, error) {
	device, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open volume: %w", err)
	}
	defer device.Close()
	size, err := device.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("measure volume: %w", err)
	}
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{{Unit: csi.VolumeUsage_BYTES, Total: size}}}, nil
}
