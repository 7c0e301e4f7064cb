// Package history is a vault in a store that keeps former versions: proving
// that the credentials at hand cannot destroy any, reading the vault as it was,
// bringing back what somebody overwrote or deleted, and freeing what has been
// hidden for long enough.
package history

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/lock"
)

// Version is one version of an object, or the mark that says that it was deleted.
type Version struct {
	Key      string
	ID       string
	Size     int64
	ETag     string
	Modified time.Time // by the store's clock
	Latest   bool
	Marker   bool // the object was deleted
}

// Keeper is a store that keeps what is overwritten and deleted.
type Keeper interface {
	// KeepsVersions tells whether it does so now.
	KeepsVersions(ctx context.Context) (bool, error)
	// ListVersions calls fn for every version of every key with the prefix. Of
	// one key, newer versions come before older ones, and newer marks before
	// older ones.
	ListVersions(ctx context.Context, prefix string, fn func(Version) error) error
	// GetVersion is Store.Get of one version.
	GetVersion(ctx context.Context, key, id string, offset, length int64) (io.ReadCloser, error)
	// DeleteVersion destroys one version.
	DeleteVersion(ctx context.Context, key, id string) error
	// SetVersions switches the keeping of versions on, where it is on already.
	// vault.ErrDenied is what a site's credentials should get.
	SetVersions(ctx context.Context) error
	// RewritePolicy puts the bucket's policy as it is. vault.ErrDenied is what
	// a site's credentials should get; so does who may not read it.
	RewritePolicy(ctx context.Context) error
}

// Of finds the store that keeps versions below its decorators.
func Of(store vault.Store) (Keeper, bool) {
	for store != nil {
		if k, ok := store.(Keeper); ok {
			return k, true
		}
		below, ok := store.(interface{ Unwrap() vault.Store })
		if !ok {
			return nil, false
		}
		store = below.Unwrap()
	}
	return nil, false
}

// keeperOf is Of, for what cannot do without.
func keeperOf(store vault.Store) (Keeper, error) {
	keeper, ok := Of(store)
	if !ok {
		return nil, fmt.Errorf("%s keeps no former versions: %w", store, vault.ErrDenied)
	}
	return keeper, nil
}

// newestFirst orders the versions of one key. Of one instant, the latest is the
// newest, and else the order of the listing stays.
func newestFirst(a, b Version) int {
	if a.Latest != b.Latest {
		if a.Latest {
			return -1
		}
		return 1
	}
	return b.Modified.Compare(a.Modified)
}

// kind is what a key's object is to whoever brings the vault's past back.
type kind int

const (
	passing kind = iota // says what is under way: its past must not come back
	living              // replaced by design: only what is no longer genuine comes back
	decided             // never replaced, and numbered: where it was deleted, a site may have written the number anew
	once                // never replaced
)

// kinds are those of a project's directories beside what locks cover.
var kinds = map[string]kind{
	"epochs": decided, "kept": decided, "stopped": decided, "moved": decided, "apps": decided, "plans": decided, "runs": decided,
	"ended": once, "abandoned": once, "reports": once, "signing": once, "indexes": once,
	"authorities": once, "consoles": once, "console": once,
	"sites": living, "facts": living, "vantage": living,
}

func kindOf(key string) kind {
	parts := strings.Split(key, "/")
	if len(parts) == 6 && parts[2] == "console" && parts[4] == "beats" { // a sign of life
		return passing
	}
	if len(parts) > 3 && parts[0] == "projects" && kinds[parts[2]] != passing {
		return kinds[parts[2]]
	}
	switch {
	case lock.Covers(key) || strings.HasPrefix(key, "consoles/"):
		return once
	case len(parts) == 5 && parts[2] == "volumes" && strings.HasPrefix(parts[4], "kopia."):
		return living
	}
	return passing
}

// manifest tells whether the object makes a recovery point visible: it comes
// back after all that it needs.
func manifest(key string) bool {
	parts := strings.Split(key, "/")
	return len(parts) == 5 && parts[2] == "manifests"
}

// manifestsOf is the directory of the manifests of a manifest's project.
func manifestsOf(key string) string {
	parts := strings.SplitN(key, "/", 4)
	return strings.Join(parts[:3], "/") + "/"
}
