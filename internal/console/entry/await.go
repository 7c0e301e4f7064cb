package entry

import (
	"context"
	"time"

	"davit.dev/davit/internal/console/store"
)

// Await looks at what a site was asked for until it is open no more, or the patience
// is over, and returns what it is then. look is called again whenever the project
// changes.
func Await[T interface{ Open(now time.Time) bool }](ctx context.Context, d *Door, p *store.Project, patience time.Duration, look func(context.Context) (T, error)) (T, error) {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		changed := p.Changed() // before the look, which may be the older
		now, err := look(ctx)
		if err != nil || !now.Open(d.Now()) {
			return now, err
		}
		select {
		case <-limited.Done():
			return now, ctx.Err()
		case <-changed:
		}
	}
}
