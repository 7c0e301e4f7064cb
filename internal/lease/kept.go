package lease

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"davit.dev/davit/internal/vault"
)

// Versions of statements. One of terms with peers is of a later one: a version that knows no
// promises must not go by it, as its runs hold nothing.
const (
	keptFormat     = 1
	promisedFormat = 2
)

// Kept is a site's statement that every one of its nodes keeps the lease under
// which it claimed an epoch. Terms in a claim are a wish; nobody may go by them
// before this is in the vault: a node that was cut off before it heard of them
// would write on.
type Kept struct {
	FormatVersion int      `json:"formatVersion"`
	Application   string   `json:"application"`
	Epoch         int64    `json:"epoch"`
	Site          string   `json:"site"`
	Cluster       string   `json:"cluster"`
	Nodes         []string `json:"nodes"`
	// Peers are those of the terms, by name, in format 2: from then on nodes ask them.
	Peers []string `json:"peers,omitempty"`
	// At is the site's time, for people.
	At time.Time `json:"at"`
}

func keptKey(p *vault.Project, app string, n int64) string {
	return fmt.Sprintf("%skept/%s/%020d", p.Root(), app, n)
}

// StateKept writes the statement. To state it again is as good as once. One that is there and
// damaged, which counts for nothing, gives way to it.
func StateKept(ctx context.Context, p *vault.Project, k Kept) error {
	if err := errors.Join(vault.CheckName(k.Application), vault.CheckName(k.Site)); err != nil {
		return fmt.Errorf("state lease: %w", err)
	}
	k.FormatVersion = keptFormat
	if len(k.Peers) > 0 {
		k.FormatVersion = promisedFormat
	}
	if k.Epoch < 1 || k.Cluster == "" || len(k.Nodes) == 0 {
		return fmt.Errorf("state lease of epoch %d of %s: epoch, cluster and nodes must be set", k.Epoch, k.Application)
	}
	data, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("encode lease of %s: %w", k.Application, err)
	}
	key := keptKey(p, k.Application, k.Epoch)
	err = p.WriteSealedOnce(ctx, key, data)
	if errors.Is(err, vault.ErrExists) {
		there, read := ReadKept(ctx, p, k.Application, k.Epoch)
		if errors.Is(read, vault.ErrDamaged) {
			err = p.WriteSealed(ctx, key, data)
		} else if err = read; err == nil && (there.Site != k.Site || there.Cluster != k.Cluster) {
			err = fmt.Errorf("%w: it is of site %s", vault.ErrDamaged, there.Site)
		}
	}
	if err != nil {
		return fmt.Errorf("state lease of epoch %d of %s: %w", k.Epoch, k.Application, err)
	}
	return nil
}

// ReadKept reads the statement about an epoch, or returns vault.ErrNotFound.
func ReadKept(ctx context.Context, p *vault.Project, app string, n int64) (Kept, error) {
	if err := vault.CheckName(app); err != nil {
		return Kept{}, fmt.Errorf("read lease: %w", err)
	}
	data, err := p.ReadSealed(ctx, keptKey(p, app, n))
	if err != nil {
		return Kept{}, fmt.Errorf("read lease of epoch %d of %s: %w", n, app, err)
	}
	k, err := parseKept(data)
	if err == nil && (k.Application != app || k.Epoch != n) {
		err = fmt.Errorf("%w: it is of epoch %d of %s", vault.ErrDamaged, k.Epoch, k.Application)
	}
	if err != nil {
		return Kept{}, fmt.Errorf("read lease of epoch %d of %s: %w", n, app, err)
	}
	return k, nil
}

func parseKept(data []byte) (Kept, error) {
	var k Kept
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&k); err != nil {
		return k, fmt.Errorf("%w: %w", vault.ErrDamaged, err)
	}
	if k.FormatVersion != keptFormat && k.FormatVersion != promisedFormat {
		return k, fmt.Errorf("it has format %d, this davit knows %d: %w", k.FormatVersion, promisedFormat, ErrFormat)
	}
	if k.Epoch < 1 || k.Site == "" || k.Cluster == "" || len(k.Nodes) == 0 || len(k.Peers) > 0 != (k.FormatVersion == promisedFormat) {
		return k, fmt.Errorf("%w: a field is missing", vault.ErrDamaged)
	}
	return k, nil
}

// Leased tells under which terms a site that once held an application has put
// its nodes: those of its newest claim, if the vault holds the statement that
// every node keeps them. Otherwise no wait proves anything of it: also where
// clusters bore the site's name one after the other, as the older one may run, and where
// the statement is damaged or of a newer version, or where the terms have peers and target, which wants it
// over, is none of them, nor a later cluster of a peer's name: runs ask people then. What
// a cluster ran under in a lost vault counts for nothing (see Moved), unless it held
// the application since: all its nodes keep that lease.
func Leased(ctx context.Context, p *vault.Project, app, site string, target Identity, history []Epoch, movers []Mover) (terms Terms, kept bool, err error) {
	last := slices.IndexFunc(history, func(e Epoch) bool { return e.Claim.Site == site })
	if last < 0 {
		return Terms{}, false, nil
	}
	cluster := history[last].Claim.Cluster
	for i, e := range history {
		if e.Claim.Site != site {
			continue
		}
		if e.Claim.Cluster != cluster {
			return Terms{}, false, nil
		}
		last = i
	}
	if slices.ContainsFunc(movers, func(m Mover) bool { return m.Site == site && m.Cluster != cluster }) {
		return Terms{}, false, nil
	}
	newest := history[last]
	if newest.Claim.Terms == nil || newest.Claim.Terms.LeaseMillis <= 0 || cluster == "" || !newest.Claim.Terms.Ends(target) {
		return Terms{}, false, nil
	}
	k, err := ReadKept(ctx, p, app, newest.Number)
	switch {
	case errors.Is(err, vault.ErrNotFound), errors.Is(err, vault.ErrDamaged), errors.Is(err, ErrFormat):
		return Terms{}, false, nil
	case err != nil:
		return Terms{}, false, err
	case k.Site != site || k.Cluster != cluster:
		return Terms{}, false, nil
	}
	return *newest.Claim.Terms, true, nil
}

// Written is when an epoch was written, by the clock of the vault's store.
func Written(ctx context.Context, p *vault.Project, app string, n int64) (time.Time, error) {
	info, err := p.Store().Stat(ctx, fmt.Sprintf("%sepochs/%s/%020d", p.Root(), app, n))
	if err != nil {
		return time.Time{}, fmt.Errorf("look when epoch %d of %s was written: %w", n, app, err)
	}
	return info.Modified, nil
}
