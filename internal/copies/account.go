package copies

import (
	"context"
	"slices"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
)

// accounted tells whether every point that the copy has with volumes of the
// site is in the first vault too, and is not on its way out there without the
// copy knowing. All applications have part in a site's repository, so it looks
// at all of them, also at those that another site copies. If one is not
// accounted for, the first vault may have lost it, and what its inventories
// call deleted may be what the copy's point needs. What cannot be read is not
// accounted for: that costs room in the copy, and nothing else.
func (c *Copier) accounted(ctx context.Context, site string) bool {
	apps, err := c.list.Apps(ctx)
	if err != nil {
		c.log.Warn("Nothing is deleted from a copy: its applications could not be listed.", "site", site, "error", err)
		return false
	}
	for _, app := range apps {
		whole, err := c.accountedApp(ctx, app, site)
		if err != nil {
			c.log.Warn("Nothing is deleted from a copy: its points could not be compared.", "site", site, "application", app, "error", err)
		}
		if err != nil || !whole {
			return false
		}
	}
	return true
}

func (c *Copier) accountedApp(ctx context.Context, app, site string) (bool, error) {
	copied, err := c.list.Points(ctx, app)
	if err != nil {
		return false, err
	}
	copied = slices.DeleteFunc(copied, func(i vault.PointInfo) bool { return !mayNeed(i, site) })
	if len(copied) == 0 {
		return true, nil
	}
	first, err := c.opts.Listing.Points(ctx, app)
	if err != nil {
		return false, err
	}
	stays := map[string]vault.PointInfo{}
	for _, info := range first {
		stays[info.ID] = info
	}
	for _, info := range copied {
		now, there := stays[info.ID]
		if !there || now.Err != nil || now.Deleting() && !info.Deleting() {
			return false, nil
		}
	}
	return true, nil
}

// mayNeed tells whether a point has volumes in the site's repository. Of one
// whose manifest cannot be read, nobody knows.
func mayNeed(info vault.PointInfo, site string) bool {
	return info.Manifest == nil || slices.ContainsFunc(info.Manifest.Volumes, func(v point.Volume) bool { return v.Snapshot.Repository == site })
}
