package recovery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/sequence"
	"davit.dev/davit/internal/vault"
)

// catalog is what the vault says of an application: its points, oldest first
// and with quarantine decided, and its epochs.
type catalog struct {
	infos   []vault.PointInfo
	points  []point.Point // parallel to infos
	history []lease.Epoch
}

// readCatalog reads the points first and the epochs after them, as deciding
// on quarantine demands.
func readCatalog(ctx context.Context, p *vault.Project, app string) (*catalog, error) {
	infos, err := p.Points(ctx, app)
	if err != nil {
		return nil, fmt.Errorf("read recovery points of %s: %w", app, err)
	}
	history, err := lease.New(p).History(ctx, app)
	if err != nil {
		return nil, err
	}
	points := make([]point.Point, len(infos))
	for i, info := range infos {
		points[i] = info.Point()
	}
	return &catalog{infos: infos, points: point.Quarantine(points, lease.Summaries(history)), history: history}, nil
}

// current is the newest epoch; number 0 if the application was never claimed.
func (c *catalog) current() lease.Epoch {
	if len(c.history) == 0 {
		return lease.Epoch{}
	}
	return c.history[len(c.history)-1]
}

// choose finds the point that is asked for, and refuses one that must not be
// restored without a person's word.
func (c *catalog) choose(opts Options) (*point.Manifest, error) {
	if opts.Point != "" && !opts.AsOf.IsZero() {
		return nil, fmt.Errorf("%w: give a point or a time, not both", ErrRefused)
	}
	if opts.Point != "" {
		return c.named(opts)
	}
	usable := slices.Clone(c.points)
	if !opts.AcceptFuzzy {
		usable = slices.DeleteFunc(usable, func(p point.Point) bool { return p.Consistency == point.Fuzzy })
	}
	newest, ok := point.Newest(usable, opts.AsOf)
	if !ok {
		return nil, c.nothing(opts)
	}
	for _, info := range c.infos {
		if info.ID == newest.ID {
			return info.Manifest, nil
		}
	}
	return nil, c.nothing(opts)
}

// named takes the point that a person named, if the rules let it.
func (c *catalog) named(opts Options) (*point.Manifest, error) {
	i := slices.IndexFunc(c.infos, func(info vault.PointInfo) bool { return info.ID == opts.Point })
	if i < 0 {
		return nil, fmt.Errorf("%w: %s has no point %s: davit points %s lists them", ErrNoPoint, opts.Application, opts.Point, opts.Application)
	}
	info, p := c.infos[i], c.points[i]
	switch {
	case info.Manifest == nil:
		return nil, fmt.Errorf("%w: point %s cannot be read, choose another: %w", ErrRefused, info.ID, info.Err)
	case p.Deleting:
		return nil, fmt.Errorf("%w: point %s is being deleted: choose another", ErrRefused, info.ID)
	case damage(info) != "" && !opts.Force:
		return nil, fmt.Errorf("%w: point %s is %s: choose another, or take what is left of it with --accept-damaged", ErrRefused, info.ID, damage(info))
	case p.Quarantined && damage(info) == "" && !opts.AcceptQuarantined:
		return nil, fmt.Errorf("%w: point %s is quarantined: it was written under epoch %d after that was superseded, so it may miss what happened elsewhere; choose another, or accept it with --accept-quarantined",
			ErrRefused, info.ID, p.Epoch)
	case info.Err != nil && !opts.Force:
		return nil, fmt.Errorf("%w: point %s is damaged, choose another, or take what is left of it with --accept-damaged: %w", ErrRefused, info.ID, info.Err)
	}
	return info.Manifest, nil
}

// damage is what a verification found wrong with the point, or empty.
func damage(info vault.PointInfo) string {
	for _, mark := range info.Quarantines() {
		if strings.HasPrefix(mark.Note, "damaged: ") {
			return mark.Note
		}
	}
	return ""
}

// nothing says why there is no point to offer.
func (c *catalog) nothing(opts Options) error {
	if len(c.points) == 0 {
		return fmt.Errorf("%w: the vault holds none of %s: davit points lists what it holds", ErrNoPoint, opts.Application)
	}
	var fuzzy, bad, later int
	for _, p := range c.points {
		switch {
		case !p.Good():
			bad++
		case !opts.AsOf.IsZero() && p.Instant.After(opts.AsOf):
			later++
		case p.Consistency == point.Fuzzy:
			fuzzy++
		}
	}
	hint := "restore one by its name to see why"
	switch {
	case fuzzy > 0:
		hint = "volumes read while being written are accepted with --accept-fuzzy"
	case later > 0:
		hint = fmt.Sprintf("the oldest usable one is of %s", c.oldest().Format(time.RFC3339))
	}
	return fmt.Errorf("%w of %s may be offered: of %d, %s: %s", ErrNoPoint, opts.Application, len(c.points), reasons(bad, later, fuzzy), hint)
}

// reasons counts why points are not offered; a reason of none is left out.
func reasons(bad, later, fuzzy int) string {
	var said []string
	for _, r := range []struct {
		n    int
		text string
	}{{bad, "quarantined, damaged or being deleted"}, {later, "of after the time"}, {fuzzy, "fuzzy"}} {
		if r.n > 0 {
			said = append(said, fmt.Sprintf("%d %s", r.n, r.text))
		}
	}
	return strings.Join(said, ", ")
}

func (c *catalog) oldest() time.Time {
	for _, p := range c.points {
		if p.Good() {
			return p.Instant
		}
	}
	return time.Time{}
}

// checkMode applies the rules of who may write, before anything is looked at.
func checkMode(opts Options, m *point.Manifest, current lease.Epoch, self lease.Identity) error {
	elsewhere := current.Number > 0 && !self.Made(current.Claim)
	switch opts.Mode {
	case v1alpha1.RestoreClone:
		return checkClone(opts, m)
	case v1alpha1.RestoreTakeOver, v1alpha1.RestoreInPlace:
		if opts.Isolation != nil {
			return fmt.Errorf("%w: only a clone can be isolated", ErrRefused)
		}
	}
	if opts.Ahead && (opts.Mode != v1alpha1.RestoreTakeOver || opts.To != sequence.Data || !elsewhere) {
		return fmt.Errorf("%w: data alone comes ahead of a take-over, and only while another site holds the epoch of %s", ErrRefused, opts.Application)
	}
	switch opts.Mode {
	case v1alpha1.RestoreTakeOver:
		if len(opts.NamespaceMapping) > 0 {
			return fmt.Errorf("%w: take-over keeps the namespaces: use --as-clone to rename them", ErrRefused)
		}
		return nil
	case v1alpha1.RestoreInPlace:
		if elsewhere {
			return fmt.Errorf("%w: %s holds epoch %d of %s and may be writing: use --take-over if this site is to run it from now on, or --as-clone with a namespace mapping for a copy",
				ErrRefused, self.Name(current.Claim), current.Number, opts.Application)
		}
		return nil
	}
	return fmt.Errorf("%w: unknown mode %q", ErrRefused, opts.Mode)
}

func checkClone(opts Options, m *point.Manifest) error {
	for _, policy := range append(slices.Collect(maps.Values(opts.ExistingKinds)), opts.Existing) {
		if policy == v1alpha1.ExistingExact {
			return fmt.Errorf("%w: a clone prunes nothing: --existing exact is for the application's own namespaces", ErrRefused)
		}
	}
	var own, flags []string
	for _, ns := range m.Namespaces {
		if to, ok := opts.NamespaceMapping[ns]; !ok || to == ns {
			own, flags = append(own, ns), append(flags, "--map-namespace "+ns+"=<another>")
		}
	}
	switch give := strings.Join(flags, " "); {
	case len(own) == 0:
		return nil
	case len(opts.NamespaceMapping) == 0:
		return fmt.Errorf("%w: a clone needs a namespace mapping, so that it cannot be taken for the original: %s", ErrRefused, give)
	case len(own) < len(m.Namespaces):
		return fmt.Errorf("%w: a clone must not share a namespace with the original, and brings all of the point back, also %s: give %s too, and delete of the copy what you do not need",
			ErrRefused, strings.Join(own, ", "), give)
	default:
		return fmt.Errorf("%w: a clone must not share a namespace with the original: %s", ErrRefused, give)
	}
}

// checkSeen refuses an order that events have overtaken: whoever gave it did
// not know who holds the epoch now. Epochs that the order itself claimed count
// as seen.
func (r *recovery) checkSeen() error {
	if r.opts.SeenEpoch == nil || r.opts.Mode == v1alpha1.RestoreClone {
		return nil
	}
	seen, current := *r.opts.SeenEpoch, r.catalog.current()
	for _, e := range r.catalog.history {
		if e.Number > seen && !r.attempted(e) {
			return fmt.Errorf("%w: %w: it was ordered under epoch %d of %s, and %s claimed epoch %d at %s: look which site runs it now, and order anew if it is still wanted",
				ErrRefused, ErrOvertaken, seen, r.opts.Application, r.self().Name(e.Claim), e.Number, e.Claim.At.UTC().Format(time.RFC3339))
		}
	}
	if current.Number < seen {
		return fmt.Errorf("%w: %w: it was ordered under epoch %d of %s, and the vault's newest is %d", ErrRefused, ErrOvertaken, seen, r.opts.Application, current.Number)
	}
	return nil
}

// errClaim wraps what went wrong with the epoch.
func errClaim(err error) error {
	if errors.Is(err, lease.ErrLost) || errors.Is(err, lease.ErrSuperseded) {
		return fmt.Errorf("%w: another site was faster: %w", ErrRefused, err)
	}
	return err
}
