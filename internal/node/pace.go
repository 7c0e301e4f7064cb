package node

import (
	"context"
	"fmt"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/api/resource"

	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/volume"
)

// paceBurst is the most bytes that pass at once.
const paceBurst = 1 << 20

// paceOf bounds the bytes per second of all volumes of the node together, that many
// of them as the text says, such as 100Mi. Nothing said is no bound.
func paceOf(text string) (volume.Pace, error) {
	if text == "" {
		return nil, nil
	}
	q, err := resource.ParseQuantity(text)
	if err != nil || q.Value() < vaults.MinBandwidth {
		return nil, fmt.Errorf("%q is no bound: write bytes per second, such as 100Mi, at least 64Ki", text)
	}
	burst := int(min(q.Value(), paceBurst))
	limit := rate.NewLimiter(rate.Limit(q.Value()), burst)
	return func(ctx context.Context, bytes int) error {
		for ; bytes > 0; bytes -= burst {
			if err := limit.WaitN(ctx, min(bytes, burst)); err != nil {
				return err
			}
		}
		return nil
	}, nil
}
