package driver

import (
	"maps"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"davit.dev/davit/testbed/csi/internal/disk"
)

// fsTypeParameter is the StorageClass parameter that chooses what is inside a volume.
const fsTypeParameter = "fsType"

// groupParameter is the one that says whether volumes may be part of group snapshots: "none" says that they may not.
const (
	groupParameter = "group"
	groupNone      = "none"
)

// sidecarPrefix marks parameters that belong to the provisioner.
const sidecarPrefix = "csi.storage.k8s.io/"

// accessModes are those one node can keep. A volume lives on one node, so readers on many nodes means on this one.
var accessModes = []csi.VolumeCapability_AccessMode_Mode{
	csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
	csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY,
	csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY,
	csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
	csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER,
}

func readsOnly(c *csi.VolumeCapability) bool {
	mode := c.GetAccessMode().GetMode()
	return mode == csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY ||
		mode == csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
}

// checkCapability says why a capability cannot be had, or nil.
func checkCapability(c *csi.VolumeCapability) error {
	if c == nil {
		return invalid("volume capability is missing")
	}
	if c.GetMount() == nil && c.GetBlock() == nil {
		return invalid("volume capability says neither mount nor block")
	}
	if mode := c.GetAccessMode().GetMode(); !slices.Contains(accessModes, mode) {
		return invalid("access mode %s is not supported: a volume lives on one node", mode)
	}
	if fsType := c.GetMount().GetFsType(); fsType != "" && !disk.Supported(fsType) {
		return invalid("file system %q is not supported; use ext4 or xfs", fsType)
	}
	return nil
}

// wantedFSType folds capabilities and parameters into one answer; "" means raw block.
func wantedFSType(caps []*csi.VolumeCapability, parameters map[string]string) (string, error) {
	if len(caps) == 0 {
		return "", invalid("volume capabilities are missing")
	}
	fsType, err := parameterFSType(parameters)
	if err != nil {
		return "", err
	}
	var mount, block bool
	for _, c := range caps {
		if err := checkCapability(c); err != nil {
			return "", err
		}
		block = block || c.GetBlock() != nil
		mount = mount || c.GetMount() != nil
		asked := c.GetMount().GetFsType()
		if asked != "" && fsType != "" && asked != fsType {
			return "", invalid("file systems %q and %q are asked for at once", fsType, asked)
		}
		if asked != "" {
			fsType = asked
		}
	}
	switch {
	case mount && block:
		return "", invalid("a volume is either mounted or raw, not both")
	case block:
		return "", nil
	case fsType == "":
		return disk.Ext4, nil
	}
	return fsType, nil
}

func parameterFSType(parameters map[string]string) (string, error) {
	var fsType string
	for _, key := range slices.Sorted(maps.Keys(parameters)) {
		switch {
		case key == fsTypeParameter:
			fsType = parameters[key]
		case key == groupParameter && parameters[key] == groupNone:
		case strings.HasPrefix(key, sidecarPrefix):
		default:
			return "", invalid("parameter %s=%q is unknown; there are %s, and %s=%s", key, parameters[key], fsTypeParameter, groupParameter, groupNone)
		}
	}
	if fsType != "" && !disk.Supported(fsType) {
		return "", invalid("file system %q is not supported; use ext4 or xfs", fsType)
	}
	return fsType, nil
}

// Sizes of volumes.
const (
	defaultBytes = 1 << 30
	roundBytes   = 1 << 20
)

// wantedBytes chooses a size within the range, at least floor.
func wantedBytes(r *csi.CapacityRange, floor int64) (int64, error) {
	required, limit := r.GetRequiredBytes(), r.GetLimitBytes()
	if required < 0 || limit < 0 {
		return 0, invalid("capacity range is negative: required %d, limit %d", required, limit)
	}
	if limit > 0 && required > limit {
		return 0, outOfRange("required size %d is above the limit %d", required, limit)
	}
	size := max(required, floor)
	if required == 0 && floor < defaultBytes {
		size = defaultBytes
		if limit > 0 {
			size = max(min(size, limit), floor)
		}
	}
	size = (size + roundBytes - 1) / roundBytes * roundBytes
	if limit > 0 && size > limit {
		return 0, outOfRange("the smallest possible size is %d, above the limit %d", size, limit)
	}
	return size, nil
}
