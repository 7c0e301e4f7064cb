// Package copies keeps a second copy of a vault: the sealed objects of its
// recovery points, byte for byte, in another store. Whatever it does can be
// broken off and begun again, by any site. Epochs and signs of life stay in the
// first vault: nothing is decided in a copy. See docs/formats/vault.md.
package copies

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/promotion"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/listed"
	"davit.dev/davit/internal/vault/relay"
	"davit.dev/davit/internal/vault/reserve"
	"davit.dev/davit/internal/volume"
)

// rememberBytes bounds what is remembered of the copy's manifests and marks.
const rememberBytes = 32 << 20

// Options are a Copier's parts.
type Options struct {
	// First is the project in the first vault. Listing is the same for looking
	// at all its points again and again; nil means First.
	First, Listing *vault.Project
	// Store is the copy's, for writing.
	Store vault.Store
	// Volumes says how a site's repository in the first vault is opened.
	Volumes func(p *vault.Project, site string) volume.Options
	// Reserve keeps room in the copy for deleting when it is full.
	Reserve bool
	// ObjectTimeout bounds each object; zero means 10 minutes.
	ObjectTimeout time.Duration
	// Now tells the time. Nil means time.Now.
	Now func() time.Time
	// Logger; nil means none.
	Logger *slog.Logger
}

// Copier brings one project into one second copy.
type Copier struct {
	opts  Options
	in    *vault.Project // the project in the copy, for writing
	list  *vault.Project // the same, for listing
	carry relay.Carrier
	log   *slog.Logger
	now   func() time.Time

	mirrored map[string]time.Time // repositories brought over whole, by site
}

// New makes a Copier. It is for one goroutine.
func New(opts Options) *Copier {
	c := &Copier{opts: opts, log: opts.Logger, now: opts.Now, mirrored: map[string]time.Time{}}
	if c.now == nil {
		c.now = time.Now
	}
	if c.log == nil {
		c.log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if c.opts.Listing == nil {
		c.opts.Listing = opts.First
	}
	c.in = opts.First.Over(func(vault.Store) vault.Store { return opts.Store })
	c.in = c.in.Over(reserve.Of(c.in).Spender)
	c.list = opts.First.Over(func(vault.Store) vault.Store { return listed.New(opts.Store, rememberBytes) })
	c.carry = relay.Carrier{From: opts.First.Store(), To: opts.Store, Timeout: opts.ObjectTimeout}
	return c
}

// App is one application whose points are to be copied.
type App struct {
	Name string
	// Held is the epoch that this site holds: a superseded one copies nothing.
	Held int64
	// Rules say what the copy keeps; Expire that they are applied.
	Rules  point.Retention
	Expire bool
	// DeletionDelay is how long a point that is on its way out stays.
	DeletionDelay time.Duration
	// LookOnly copies nothing: another site does.
	LookOnly bool
}

// Report is what a pass did, and how the copy is now.
type Report struct {
	Apps   map[string]AppReport
	Copied int   // objects
	Bytes  int64 // of them
	// Damaged names what the first vault has that cannot be copied, for it is
	// not what was written.
	Damaged []string
}

// AppReport is how the copy of one application is.
type AppReport struct {
	Points  []string // ids, oldest first
	Newest  time.Time
	Deleted []string
	// Pending are points of the first vault that the copy should have and does
	// not have yet; OldestPending is the instant of the oldest.
	Pending       int
	OldestPending time.Time
	Err           error // what keeps it from being copied
}

// Bootstrap makes the store a copy, and brings over what opens the project.
func Bootstrap(ctx context.Context, first *vault.Project, store vault.Store) error {
	marker, err := vault.ReadMarker(ctx, first.Store())
	if err != nil {
		return err
	}
	if err := vault.InitCopy(ctx, store, marker); err != nil {
		return err
	}
	return New(Options{First: first, Store: store}).bootstrap(ctx)
}

// bootstrap brings over the wrapped keys and then project.json, which makes the
// project there.
func (c *Copier) bootstrap(ctx context.Context) error {
	root := c.opts.First.Root()
	if err := c.opts.First.VerifyKeys(ctx); err != nil {
		return err
	}
	// Versions of the key that are there now, after what is wrapped of them: a
	// rotation that comes between is left to the next pass.
	versions, err := sizes(ctx, c.opts.First.Store(), root+"keyring/")
	if err != nil {
		return err
	}
	report := &Report{}
	parts := append(append([]string{root + "keys/"}, sorted(versions)...), root+"project.json")
	for _, prefix := range parts {
		if err := c.carryNew(ctx, prefix, relay.Any, report); err != nil {
			return err
		}
	}
	return nil
}

// carryNew brings over what is under the prefix and not in the copy.
func (c *Copier) carryNew(ctx context.Context, prefix string, accept relay.Accept, report *Report) error {
	there, err := sizes(ctx, c.opts.Store, prefix)
	if err != nil {
		return err
	}
	here, err := sizes(ctx, c.opts.First.Store(), prefix)
	if err != nil {
		return err
	}
	for _, key := range sorted(here) {
		if size, copied := there[key]; copied && size == here[key] {
			continue
		}
		n, err := c.carry.Carry(ctx, key, accept)
		if errors.Is(err, vault.ErrNotFound) { // gone since
			continue
		}
		if err != nil {
			return err
		}
		report.Copied++
		report.Bytes += n
	}
	return nil
}

func sizes(ctx context.Context, store vault.Store, prefix string) (map[string]int64, error) {
	all := map[string]int64{}
	err := store.List(ctx, prefix, func(o vault.ObjectInfo) error {
		all[o.Key] = o.Size
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	return all, nil
}

func sorted(all map[string]int64) []string {
	keys := make([]string, 0, len(all))
	for key := range all {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// Pass brings the copy up to date once. One application's trouble does not keep
// it from the others; an error is for what concerns all of them.
func (c *Copier) Pass(ctx context.Context, apps []App) (Report, error) {
	report := Report{Apps: map[string]AppReport{}}
	if err := c.belongs(ctx); err != nil {
		return report, err
	}
	if err := c.bootstrap(ctx); err != nil {
		return report, fmt.Errorf("copy keys: %w", err)
	}
	if c.opts.Reserve {
		if err := reserve.Of(c.in).Begin(ctx); err != nil {
			return report, err
		}
	}
	for _, app := range apps {
		if err := Halted(ctx, c.opts.Store); err != nil {
			return report, err
		}
		a := &appPass{c: c, app: app, report: &report}
		a.done.Err = a.run(ctx)
		report.Apps[app.Name] = a.done
		if ctx.Err() != nil {
			return report, fmt.Errorf("copy: %w", context.Cause(ctx))
		}
		if vaultSilent(a.done.Err) {
			return report, fmt.Errorf("copy %s: %w", app.Name, a.done.Err)
		}
	}
	return report, nil
}

// MakeRoom lays down what is missing of the room for deleting when the copy is full, after
// a pass: points come first, as it takes as long as some of them where the way is
// slow. It ends after a piece when it took longer than patience, and is called again
// after the next pass, as it is after an error, which the log has.
func (c *Copier) MakeRoom(ctx context.Context, patience time.Duration) {
	if !c.opts.Reserve {
		return
	}
	began := c.now()
	err := Halted(ctx, c.opts.Store)
	if err == nil {
		err = reserve.Of(c.in).FillUntil(ctx, func() bool { return c.now().Sub(began) >= patience })
	}
	if err != nil && ctx.Err() == nil {
		c.log.Warn("keep room for deleting in the copy", "copy", c.opts.Store, "error", err)
	}
}

// belongs says why nothing may be written into the copy: it is not one of this
// vault, or is to be the vault.
func (c *Copier) belongs(ctx context.Context) error {
	marker, copied, err := vault.Identify(ctx, c.opts.Store)
	if err != nil {
		return fmt.Errorf("look at the copy: %w", err)
	}
	if err := Halted(ctx, c.opts.Store); err != nil {
		return err
	}
	first, err := vault.ReadMarker(ctx, c.opts.First.Store())
	if err != nil {
		return fmt.Errorf("look at the first vault: %w", err)
	}
	if !copied || marker.ID != first.ID {
		return fmt.Errorf("copy into %s: %w: it is not a copy of vault %s", c.opts.Store, vault.ErrKey, first.ID)
	}
	return nil
}

// Halted returns promotion.ErrPromoting when the copy in the store is to be the
// vault, or is.
func Halted(ctx context.Context, store vault.Store) error {
	record, err := promotion.Read(ctx, store)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("look at the copy: %w", err)
	}
	return fmt.Errorf("copy into %s: %w (begun at site %s on %s): if this vault is lost, `davit vault promote` moves this site to it; if it is not, see \"begun and not ended\" in docs/vaults.md",
		store, promotion.ErrPromoting, record.Site, record.Created.Format(time.DateTime))
}

// vaultSilent tells trouble that all applications share.
func vaultSilent(err error) bool {
	return errors.Is(err, vault.ErrUnavailable) || errors.Is(err, vault.ErrDenied)
}

// known is one side's points of an application.
type known struct {
	infos  map[string]vault.PointInfo
	points []point.Point // oldest first
}

func look(ctx context.Context, p *vault.Project, app string, epochs *lease.Epochs) (known, error) {
	k := known{infos: map[string]vault.PointInfo{}}
	infos, err := p.Points(ctx, app)
	if err != nil {
		return k, err
	}
	for _, info := range infos {
		k.infos[info.ID] = info
		k.points = append(k.points, info.Point())
	}
	if epochs == nil {
		return k, nil
	}
	history, err := epochs.History(ctx, app) // after the manifests: see point.Quarantined
	k.points = point.Quarantine(k.points, lease.Summaries(history))
	return k, err
}
