package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/vault"
)

// movedFormat is the version of facts that this version writes and reads.
const movedFormat = 1

// Moved is what a site that comes over to a promoted vault says of an application
// that it held in the lost one and does not go on with: it may still write it, on a
// node that does not hear of it. So it is a former holder like those that claimed an
// epoch of this vault (docs/decisions/0037-moved-sites.md).
type Moved struct {
	FormatVersion int    `json:"formatVersion"`
	Application   string `json:"application"`
	Site          string `json:"site"`
	Cluster       string `json:"cluster"`
	// Lost is the id of the lost vault, Request names the promotion, as in the claims
	// that it made.
	Lost    string `json:"lost"`
	Request string `json:"request"`
	// Held is the newest epoch of the lost vault that the site held, Seen the newest
	// that it knew.
	Held int64 `json:"held"`
	Seen int64 `json:"seen"`
	// Leased says that it ran under a lease there. Nobody goes by that: the lost vault
	// may answer a node that hears of nothing else, and renew it.
	Leased bool      `json:"leased,omitempty"`
	At     time.Time `json:"at"` // by the site's clock, for people
}

// Mover is the cluster that a fact of an application is of.
type Mover struct{ Site, Cluster string }

func movedKey(p *vault.Project, app string, m Mover) string {
	return p.Root() + "moved/" + app + "/" + m.Site + "/" + m.Cluster
}

// parseMover reads what follows "moved/" in the name of a fact.
func parseMover(tail string) (app string, m Mover, ok bool) {
	parts := strings.Split(tail, "/")
	if len(parts) != 3 || slices.ContainsFunc(parts, func(part string) bool { return vault.CheckName(part) != nil }) {
		return "", Mover{}, false
	}
	return parts[0], Mover{parts[1], parts[2]}, true
}

// Note writes a fact. To note it again is as good as once: what was said first stands.
// One that is there and damaged, which counts all the same, gives way to it.
func Note(ctx context.Context, p *vault.Project, m Moved) error {
	if err := errors.Join(vault.CheckName(m.Application), vault.CheckName(m.Site), vault.CheckName(m.Cluster)); err != nil {
		return fmt.Errorf("note what site %s ran: %w", m.Site, err)
	}
	m.FormatVersion, m.At = movedFormat, m.At.UTC()
	if err := m.valid(); err != nil {
		return fmt.Errorf("note that site %s ran %s: %w", m.Site, m.Application, err)
	}
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode what site %s ran: %w", m.Site, err)
	}
	key := movedKey(p, m.Application, m.mover())
	err = p.WriteSealedOnce(ctx, key, data)
	if errors.Is(err, vault.ErrExists) {
		there, read := ReadMoved(ctx, p, m.Application, m.mover())
		switch {
		case errors.Is(read, vault.ErrDamaged):
			err = p.WriteSealed(ctx, key, data)
		case read != nil:
			return read
		case there.Lost == m.Lost && there.Request == m.Request:
			return nil
		default:
			err = fmt.Errorf("%w: what is noted there is of another promotion", vault.ErrDamaged)
		}
	}
	if err != nil {
		return fmt.Errorf("note that site %s ran %s: %w", m.Site, m.Application, err)
	}
	return nil
}

func (m Moved) mover() Mover { return Mover{m.Site, m.Cluster} }

// valid says what no fact says.
func (m Moved) valid() error {
	if m.Held < 1 || m.Seen < m.Held || m.Lost == "" || m.Request == "" {
		return fmt.Errorf("%w: epoch %d held, %d known, lost vault %q", vault.ErrDamaged, m.Held, m.Seen, m.Lost)
	}
	return nil
}

// ReadMoved reads a fact; vault.ErrNotFound says that there is none.
func ReadMoved(ctx context.Context, p *vault.Project, app string, of Mover) (Moved, error) {
	var m Moved
	data, err := p.ReadSealed(ctx, movedKey(p, app, of))
	if err != nil {
		return m, fmt.Errorf("read what site %s ran: %w", of.Site, err)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("read what site %s ran: %w: %w", of.Site, vault.ErrDamaged, err)
	}
	if m.FormatVersion != movedFormat {
		return m, fmt.Errorf("read what site %s ran: it has format %d, this davit knows %d: %w", of.Site, m.FormatVersion, movedFormat, ErrFormat)
	}
	err = m.valid()
	if err == nil && (m.Application != app || m.mover() != of) {
		err = fmt.Errorf("%w: it is of %s at site %s, cluster %s", vault.ErrDamaged, m.Application, m.Site, m.Cluster)
	}
	if err != nil {
		return m, fmt.Errorf("read what site %s ran: %w", of.Site, err)
	}
	return m, nil
}

// Movers are the sites that came over from a lost vault and did not go on with an
// application, by application; of one, or of all if its name is empty. They go by the
// names of the facts alone: who damages one hides no former holder. A vault that was
// never promoted has none.
func Movers(ctx context.Context, p *vault.Project, app string) (map[string][]Mover, error) {
	root := p.Root() + "moved/"
	prefix := root
	if app != "" {
		prefix += app + "/"
	}
	all := map[string][]Mover{}
	err := p.Store().List(ctx, prefix, func(o vault.ObjectInfo) error {
		if of, m, ok := parseMover(strings.TrimPrefix(o.Key, root)); ok {
			all[of] = append(all[of], m)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list sites that came over from a lost vault: %w", err)
	}
	return all, nil
}

// HeldLost is the newest epoch of a lost vault that a cluster says it held, if it came
// over to this one without going on with the application; 0 if it says nothing. A fact
// that cannot be read says that it did.
func HeldLost(ctx context.Context, p *vault.Project, app string, id Identity) (int64, error) {
	of := Mover(id)
	if vault.CheckName(of.Site) != nil || vault.CheckName(of.Cluster) != nil {
		return 0, nil // of such a one nothing is noted
	}
	m, err := ReadMoved(ctx, p, app, of)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return 0, nil
	case errors.Is(err, vault.ErrDamaged), errors.Is(err, ErrFormat):
		return 1, nil
	case err != nil:
		return 0, err
	}
	return m.Held, nil
}

// Holders are the sites that may have written an application: those that ever claimed
// an epoch, and those that held it in a lost vault, sorted.
func Holders(history []Epoch, movers []Mover) []string {
	var sites []string
	for _, e := range history {
		sites = append(sites, e.Claim.Site)
	}
	for _, m := range movers {
		sites = append(sites, m.Site)
	}
	slices.Sort(sites)
	return slices.Compact(sites)
}
