package source

import (
	"context"
	"errors"
	"fmt"

	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/kube"
)

// CheckVolumes says, before anything is protected, which of the claims could
// not be captured and what to do: ErrNoSnapshots or ErrSnapshotClass, with
// every such claim named. It changes nothing.
func CheckVolumes(ctx context.Context, clients *kube.Clients, claims []capture.Claim, opts capture.VolumeOptions) error {
	v := NewVolumes(clients, clients, nil, VolumeOptions{})
	var errs []error
	for _, c := range claims {
		if _, err := v.Plan(ctx, c, opts); err != nil {
			errs = append(errs, fmt.Errorf("claim %s: %w", c.Key(), err))
		}
	}
	return errors.Join(errs...)
}
