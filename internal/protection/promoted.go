package protection

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"davit.dev/davit/internal/promotion"
)

// inherited returns which volume repositories came with the copy that this vault
// was before: they are read, and never written. A site that has not heard of the
// promotion may still copy into them, and two of those who write hold no lease
// against each other.
func (p *Protector) inherited(ctx context.Context) (func(repository string) bool, error) {
	if !p.opts.Project.WasCopy() {
		return func(string) bool { return false }, nil
	}
	record, err := promotion.Read(ctx, p.opts.Project.Store())
	if err != nil {
		return nil, fmt.Errorf("see which volume repositories came with the copy: %w", err)
	}
	return func(repository string) bool {
		_, version, later := strings.Cut(repository, "_")
		n, err := strconv.ParseInt(version, 10, 64)
		return !later || err != nil || n < record.KeyVersion
	}, nil
}
