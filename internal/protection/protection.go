// Package protection is the use case of keeping one application protected at
// one site: capture it under its epoch and publish the point, let points
// expire, delete and verify them, and say where the site stands. The agent
// calls it on schedule, the command line for single points; both get the same
// checks.
package protection

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/quiesce"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/reserve"
)

// Errors that callers may decide on.
var (
	// ErrBusy says that a capture of the application is already going on here.
	ErrBusy = errors.New("a capture of this application is already running")
	// ErrInvalid says that the application's spec cannot work.
	ErrInvalid = errors.New("application not valid")
	// ErrFailureDomain says that vault and site would be lost together.
	ErrFailureDomain = errors.New("vault shares the site's failure domain")
	// ErrDamaged says that verification found missing or changed bytes.
	ErrDamaged = errors.New("recovery point damaged")
	// ErrRestoring says that the application is not whole here yet, and so is
	// not captured.
	ErrRestoring = errors.New("application is being restored")
	// ErrUnaccounted says that a point needs a volume snapshot that the site's
	// repository does not list.
	ErrUnaccounted = errors.New("volume snapshot not in the repository")
	// ErrRemoved says that a point's removal has begun: it is too late to take
	// the deletion back.
	ErrRemoved = errors.New("recovery point is being removed")
	// ErrLastGood says that the point is the application's last good one.
	ErrLastGood = errors.New("last good recovery point")
)

// Options are a Protector's parts.
type Options struct {
	// Project is the open project of the vault.
	Project *vault.Project
	// Listing is the same project for looking at all its points again and
	// again; see package listed. Nil means Project.
	Listing *vault.Project
	// Site is this site's name in the vault, and ClusterID the cluster that
	// bears it; see lease.Identity.
	Site, ClusterID string
	// VaultDomain and SiteDomain are the failure domains; equal ones that are
	// not empty are refused.
	VaultDomain, SiteDomain string
	// DeletionDelay is how long a deleted point stays, and may be undeleted.
	DeletionDelay time.Duration
	// Cluster, Volumes and Hooks are the ports of capture. All may be nil
	// where nothing is captured, as in the command line.
	Cluster capture.Cluster
	Volumes capture.Volumes
	Hooks   quiesce.Runner
	// Ledger may be nil: then nobody undoes what a capture that died has done.
	Ledger quiesce.Ledger
	// Freezer may be nil: then volumes are cut one by one.
	Freezer capture.Freezer
	// OpenVolumes opens a site's volume repository. Nil means the one in the
	// project's own store.
	OpenVolumes OpenVolumes
	// Capture says how the engine works; its clock, logger and progress are
	// set by the Protector.
	Capture capture.Options
	// Now tells the time. Nil means time.Now.
	Now func() time.Time
	// Logger; nil means none.
	Logger *slog.Logger
}

// Protector protects the applications of one project at one site. It is safe
// for use by several goroutines.
type Protector struct {
	opts   Options
	epochs *lease.Epochs
	// freeing is the project for deleting: it spends the reserve.
	freeing     *vault.Project
	freeVolumes OpenVolumes
	now         func() time.Time
	log         *slog.Logger

	mu     sync.Mutex
	busy   map[string]bool                      // applications whose capture runs
	newest map[string]map[string]point.Snapshot // of each application, by claim
	full   map[string]time.Time                 // when applications could not be cut while cuts of them were kept
}

// New makes a Protector.
func New(opts Options) *Protector {
	p := &Protector{opts: opts, epochs: lease.New(opts.Project), now: opts.Now, log: opts.Logger, busy: map[string]bool{}}
	if p.now == nil {
		p.now = time.Now
	}
	if p.log == nil {
		p.log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if p.opts.Listing == nil {
		p.opts.Listing = p.opts.Project
	}
	p.freeing = opts.Project
	if opts.Project != nil && !opts.Project.IsCopy() {
		p.freeing = opts.Project.Over(reserve.Of(opts.Project).Spender)
	}
	p.freeVolumes = p.opts.OpenVolumes
	if p.opts.OpenVolumes == nil {
		p.opts.OpenVolumes, p.freeVolumes = ProjectVolumes(opts.Project, p.log), ProjectVolumes(p.freeing, p.log)
	}
	return p
}

// Standing is where a site stands with an application.
type Standing struct {
	Role v1alpha1.Role
	// Current is the newest epoch; number 0 when nobody ever claimed it.
	Current lease.Epoch
	// Held is the newest epoch this site ever held; 0 if none. Of a site that claimed
	// none here, and came over from a lost vault, the newest that it held there.
	Held int64
}

// Standing reads the application's epochs. A vault that gives no answer is an
// error, with role Unknown: silence never fences.
func (p *Protector) Standing(ctx context.Context, app string) (Standing, error) {
	s := Standing{Role: v1alpha1.RoleStandby}
	err := p.epochs.Back(ctx, app, func(e lease.Epoch) bool {
		if s.Current.Number == 0 {
			s.Current = e
		}
		if p.Identity().Made(e.Claim) {
			s.Held = e.Number
		}
		return s.Held == 0
	})
	if err != nil {
		return Standing{Role: v1alpha1.RoleUnknown}, fmt.Errorf("read standing of %s: %w", app, err)
	}
	switch {
	case s.Held > 0 && s.Held == s.Current.Number:
		s.Role = v1alpha1.RoleActive
	case s.Held > 0:
		s.Role = v1alpha1.RoleSuperseded
	case s.Current.Number > 0:
		return p.moved(ctx, app, s)
	}
	return s, nil
}

// Other is the newest epoch that another than this site ever held; number 0: nobody
// else ever did.
func (p *Protector) Other(ctx context.Context, app string) (other lease.Epoch, err error) {
	err = p.epochs.Back(ctx, app, func(e lease.Epoch) bool {
		if !p.Identity().Made(e.Claim) {
			other = e
		}
		return other.Number == 0
	})
	if err != nil {
		return lease.Epoch{}, fmt.Errorf("look who else held %s: %w", app, err)
	}
	return other, nil
}

// moved makes a site superseded that ran the application in a lost vault and came over
// from it without a claim: what it ran has to stop, and to be proven to have.
func (p *Protector) moved(ctx context.Context, app string, s Standing) (Standing, error) {
	held, err := lease.HeldLost(ctx, p.opts.Project, app, p.Identity())
	if err != nil {
		s.Role = v1alpha1.RoleUnknown
		return s, fmt.Errorf("read standing of %s: %w", app, err)
	}
	if held > 0 {
		s.Role, s.Held = v1alpha1.RoleSuperseded, min(held, s.Current.Number-1) // numbers go on above the lost vault's
	}
	return s, nil
}

// Identity is who this site is.
func (p *Protector) Identity() lease.Identity {
	return lease.Identity{Site: p.opts.Site, Cluster: p.opts.ClusterID}
}

// Holder names for people who holds the newest epoch.
func (p *Protector) Holder(s Standing) string { return p.Identity().Name(s.Current.Claim) }

// CheckName returns lease.ErrNameTaken when another cluster bears this site's
// name in the vault.
func (p *Protector) CheckName(ctx context.Context) error {
	return lease.CheckName(ctx, p.opts.Project, p.Identity())
}

// ClaimFirst makes this site the application's one writer if nobody ever was,
// and returns where it stands then. holder says who acts, for people. Calling
// it again changes nothing. With lease.ErrNameTaken it claims nothing; the
// standing is valid all the same.
func (p *Protector) ClaimFirst(ctx context.Context, app, holder string) (Standing, error) {
	s, err := p.Standing(ctx, app)
	if err != nil || s.Current.Number > 0 {
		return s, err
	}
	if err := p.CheckName(ctx); err != nil {
		return s, fmt.Errorf("claim first epoch of %s: %w", app, err)
	}
	claim := lease.Claim{
		Site: p.opts.Site, Cluster: p.opts.ClusterID, Holder: holder, Reason: "protected for the first time",
		At: p.now().UTC(), Request: "first-" + p.opts.Site,
	}
	_, err = p.epochs.Claim(ctx, app, 1, claim)
	if err != nil && !errors.Is(err, lease.ErrLost) && !errors.Is(err, lease.ErrSuperseded) {
		return s, fmt.Errorf("claim first epoch: %w", err)
	}
	return p.Standing(ctx, app) // whoever won
}

// Restoring is ErrRestoring for an application whose restore here has begun and
// not ended well.
func Restoring(app *v1alpha1.Application) error {
	id := app.Annotations[v1alpha1.AnnotationRestoring]
	if id == "" {
		return nil
	}
	return fmt.Errorf("%w: restore %s runs, or did not end well: restore again until it does, or remove the annotation %s from the Application to capture it as it is",
		ErrRestoring, id, v1alpha1.AnnotationRestoring)
}

// Preflight says whether the application can be protected with this vault at
// all, without asking either.
func (p *Protector) Preflight(app *v1alpha1.Application) error {
	if d := p.opts.VaultDomain; d != "" && d == p.opts.SiteDomain {
		return fmt.Errorf("%w: both are in %q and would be lost together: use a vault elsewhere, or correct failureDomain of the Vault or Site", ErrFailureDomain, d)
	}
	if p.opts.Project != nil && p.opts.Project.IsCopy() {
		return fmt.Errorf("%w: %s: its vault is a second copy of another one: protect it with that one", ErrInvalid, app.Name)
	}
	_, err := specOf(app)
	return err
}
