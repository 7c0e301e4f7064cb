package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	"davit.dev/davit/internal/vault"
)

// SilentAfter is how long a cluster has not given a sign of life before a
// person may take its name for another: ten heartbeats.
const SilentAfter = 5 * time.Minute

// ErrNameTaken says that the site's name is borne by another cluster. The
// error is a *NameTakenError.
var ErrNameTaken = errors.New("site name belongs to another cluster")

// NameTakenError says which cluster bears the name.
type NameTakenError struct {
	Sign vault.SiteStatus // that cluster's newest sign of life
}

// Error implements error.
func (e *NameTakenError) Error() string {
	return fmt.Sprintf("%s: site %s is cluster %s, whose newest sign of life is of %s: give this cluster a name of its own (davit uninstall, then install --site and vault add --join), or, if that one is lost and this one replaces it, vault add --join --replace --replace-lost-site",
		ErrNameTaken, e.Sign.Site, e.Sign.Cluster, e.Sign.Written.UTC().Format(time.RFC3339))
}

// Is makes errors.Is(err, ErrNameTaken) true.
func (e *NameTakenError) Is(target error) bool { return target == ErrNameTaken }

// Identity is who a site is: the name that it bears in the vault, and the
// cluster. A lost cluster's name may pass to the one that replaces it; its
// epochs do not, they are taken over like any other site's.
type Identity struct {
	Site string
	// Cluster is the UID of the cluster's kube-system namespace, which lives
	// as long as the cluster. Empty where it is not known.
	Cluster string
}

// Made tells whether this cluster made the claim. A claim without a cluster is
// of a version that knew none: it counts for whoever bears the name.
func (id Identity) Made(c Claim) bool {
	return c.Site == id.Site && (c.Cluster == "" || c.Cluster == id.Cluster)
}

// Name says for people who made a claim.
func (id Identity) Name(c Claim) string {
	if c.Site != id.Site || id.Made(c) {
		return "site " + c.Site
	}
	return fmt.Sprintf("another cluster (%s) under this site's name %s", c.Cluster, c.Site)
}

// CheckName returns a *NameTakenError if the newest sign of life under the
// site's name is another cluster's, however old it is: only a person gives a
// name away. A name that nobody bears, or that an older version bears, is free.
func CheckName(ctx context.Context, p *vault.Project, id Identity) error {
	_, err := bearer(ctx, p, id)
	return err
}

// bearer returns the newest sign of life under the name, the zero one if there
// is none.
func bearer(ctx context.Context, p *vault.Project, id Identity) (vault.SiteStatus, error) {
	sign, err := p.Site(ctx, id.Site)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return vault.SiteStatus{}, nil
	case err != nil:
		return sign, fmt.Errorf("look who bears the site's name: %w", err)
	case sign.Cluster != "" && sign.Cluster != id.Cluster:
		return sign, &NameTakenError{Sign: sign}
	}
	return sign, nil
}

// Bearer is the cluster that bears a site's name, by its newest sign of life; without one where the vault cannot tell.
func Bearer(ctx context.Context, p *vault.Project, site string) (Identity, error) {
	sign, err := p.Site(ctx, site)
	if err != nil && !errors.Is(err, vault.ErrNotFound) && !errors.Is(err, vault.ErrDamaged) {
		return Identity{}, fmt.Errorf("look who bears the name %s: %w", site, err)
	}
	return Identity{Site: site, Cluster: sign.Cluster}, nil
}

// Beat gives the site's sign of life, unless another cluster bears the name.
// Two clusters that begin at the same moment may both succeed once: the later
// one's sign stays, and the other is told at its next beat.
func Beat(ctx context.Context, p *vault.Project, sign vault.SiteStatus) error {
	old, err := bearer(ctx, p, Identity{Site: sign.Site, Cluster: sign.Cluster})
	if err != nil {
		return err
	}
	sign.Replaces = old.Replaces
	return p.Heartbeat(ctx, sign)
}

// Replace gives the name of a cluster that is lost to the one of the sign. It
// refuses with a *NameTakenError while that cluster may live: when its newest
// sign of life is younger than SilentAfter, by the vault's clock. The lost
// cluster's epochs stay its own.
func Replace(ctx context.Context, p *vault.Project, sign vault.SiteStatus) error {
	_, err := bearer(ctx, p, Identity{Site: sign.Site, Cluster: sign.Cluster})
	var taken *NameTakenError
	if !errors.As(err, &taken) {
		if err != nil {
			return err
		}
		return Beat(ctx, p, sign)
	}
	silent, err := Silence(ctx, p, taken.Sign)
	if err != nil {
		return err
	}
	if silent < SilentAfter {
		return taken
	}
	if err := allNamed(ctx, p, sign.Site); err != nil {
		return err
	}
	sign.Replaces = taken.Sign.Cluster
	return p.Heartbeat(ctx, sign)
}

// allNamed refuses when the site holds an epoch by its name alone: it would
// pass to the new cluster with the name.
func allNamed(ctx context.Context, p *vault.Project, site string) error {
	apps, err := p.Apps(ctx)
	if err != nil {
		return fmt.Errorf("look at the epochs of site %s: %w", site, err)
	}
	for _, app := range apps {
		current, err := New(p).Current(ctx, app)
		if err != nil {
			return err
		}
		if current.Claim.Site == site && current.Claim.Cluster == "" {
			return fmt.Errorf("%w: site %s claimed epoch %d of %s with a version that did not note its cluster: install this one under another name and take %s over there",
				ErrNameTaken, site, current.Number, app, app)
		}
	}
	return nil
}

// Silence is how old a sign of life is, by the vault's clock.
func Silence(ctx context.Context, p *vault.Project, sign vault.SiteStatus) (time.Duration, error) {
	now, err := p.Clock(ctx)
	if err != nil {
		return 0, fmt.Errorf("look how long site %s is silent: %w", sign.Site, err)
	}
	return now.Sub(sign.Written), nil
}
