package lead

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/vault"
)

// formatVersion is what this code writes, and the highest that it reads.
const formatVersion = 1

// maxSize bounds a claim or a beat, in bytes.
const maxSize = 1 << 16

// InVault is the ledger of a console in its home. What it writes is sealed for
// consoles and the recovery key: a site can neither claim nor name an address to
// which people are sent.
type InVault struct {
	Project   *vault.Project
	Authority *authority.Authority
	Console   string // id
}

var _ Ledger = InVault{}

func (l InVault) root() string { return l.Project.Root() + "console/" + l.Console + "/" }

func (l InVault) claimKey(n int64) string { return fmt.Sprintf("%sepochs/%020d", l.root(), n) }
func (l InVault) beatKey(n int64) string  { return fmt.Sprintf("%sbeats/%020d", l.root(), n) }

// Newest implements Ledger.
func (l InVault) Newest(ctx context.Context) (Claim, error) {
	prefix, n := l.root()+"epochs/", int64(0)
	err := l.Project.Store().List(ctx, prefix, func(o vault.ObjectInfo) error {
		number, err := strconv.ParseInt(strings.TrimPrefix(o.Key, prefix), 10, 64)
		if err != nil || o.Key != l.claimKey(number) {
			return fmt.Errorf("list epochs of the console: %w: %s", vault.ErrDamaged, o.Key)
		}
		n = max(n, number)
		return nil
	})
	if err != nil || n == 0 {
		return Claim{}, err
	}
	var c Claim
	if err := l.read(ctx, l.claimKey(n), &c); err != nil {
		return Claim{}, err
	}
	if c.Number != n || c.FormatVersion != formatVersion {
		return Claim{}, fmt.Errorf("read %s: %w: it says %d", l.claimKey(n), vault.ErrDamaged, c.Number)
	}
	return c, nil
}

// Claim implements Ledger.
func (l InVault) Claim(ctx context.Context, c Claim) error {
	c.FormatVersion = formatVersion
	sealed, err := l.seal(l.claimKey(c.Number), c)
	if err != nil {
		return err
	}
	return l.Project.WriteSealedOnce(ctx, l.claimKey(c.Number), sealed)
}

// Beat implements Ledger.
func (l InVault) Beat(ctx context.Context, b Beat) error {
	b.FormatVersion = formatVersion
	sealed, err := l.seal(l.beatKey(b.Epoch), b)
	if err != nil {
		return err
	}
	return l.Project.WriteSealed(ctx, l.beatKey(b.Epoch), sealed)
}

// ReadBeat implements Ledger.
func (l InVault) ReadBeat(ctx context.Context, epoch int64) (Beat, error) {
	var b Beat
	if err := l.read(ctx, l.beatKey(epoch), &b); err != nil {
		return Beat{}, err
	}
	if b.Epoch != epoch || b.FormatVersion != formatVersion {
		return Beat{}, fmt.Errorf("read %s: %w: it says %d", l.beatKey(epoch), vault.ErrDamaged, b.Epoch)
	}
	return b, nil
}

func (l InVault) seal(key string, v any) ([]byte, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", key, err)
	}
	return l.Authority.Seal(key, plain)
}

func (l InVault) read(ctx context.Context, key string, into any) error {
	sealed, err := l.Project.ReadSealed(ctx, key)
	if err != nil {
		return err
	}
	plain, err := l.Authority.Unseal(key, sealed, maxSize)
	if err != nil {
		return err
	}
	if err := json.NewDecoder(bytes.NewReader(plain)).Decode(into); err != nil {
		return fmt.Errorf("read %s: %w", key, errors.Join(vault.ErrDamaged, err))
	}
	return nil
}
