package copies

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
)

// clocked is a store whose clock says what it is told.
type clocked struct {
	vault.Store
	at time.Time
}

func (c clocked) Stat(ctx context.Context, key string) (vault.ObjectInfo, error) {
	info, err := c.Store.Stat(ctx, key)
	if strings.HasSuffix(key, "/clock") {
		info.Modified = c.at
	}
	return info, err
}

// readOnly is a store that takes nothing.
type readOnly struct{ vault.Store }

func (readOnly) Put(context.Context, string, io.ReadSeeker, int64) error { return vault.ErrDenied }

func (readOnly) PutIfAbsent(context.Context, string, io.ReadSeeker, int64) error {
	return vault.ErrDenied
}

// TestClockThatJumpsExpiresNothing: a copier's clock that is set a year forward makes no
// point of the copy old. The control: when the copy's clock says so too, the old one goes,
// whether or not the first vault takes anything.
func TestClockThatJumpsExpiresNothing(t *testing.T) {
	r := newRig(t)
	old := r.publish("shop-1", 1, false)
	r.publish("shop-2", 1, false)
	r.pass(app())
	before := r.now
	r.now = r.now.Add(365 * 24 * time.Hour)
	for _, at := range []time.Time{before, r.now} {
		a := app()
		a.Expire, a.Rules = true, point.Retention{MaxAge: 30 * 24 * time.Hour}
		report, err := r.copier(readOnly{r.first}, clocked{r.second, at}).Pass(t.Context(), []App{a})
		if err != nil || report.Apps["shop"].Err != nil {
			t.Fatal(err, report.Apps["shop"].Err)
		}
		if gone := report.Apps["shop"].Deleted; (len(gone) > 0) != at.Equal(r.now) || len(gone) > 1 || len(gone) == 1 && gone[0] != old.ID {
			t.Errorf("at %s by the copy's clock: %v are gone", at, gone)
		}
	}
}
