package history

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"davit.dev/davit/internal/vault"
)

// ErrDestroys says that whoever has these credentials can destroy what is in
// the store.
var ErrDestroys = errors.New("these credentials can destroy what is in the vault")

// Prove tries to destroy an object of its own with the store's credentials, and
// says how that was prevented; the error is ErrDestroys where it was not. What
// it writes lies under selftest/, and stays there as former versions.
func Prove(ctx context.Context, store vault.Store) (string, error) {
	keeper, ok := Of(store)
	if !ok {
		return "", fmt.Errorf("%w: %s keeps no former versions: use a bucket that does", ErrDestroys, store)
	}
	on, err := keeper.KeepsVersions(ctx)
	if err != nil && !errors.Is(err, vault.ErrDenied) {
		return "", err
	}
	if err == nil && !on {
		return "", fmt.Errorf("%w: the bucket keeps no former versions: switch versioning on", ErrDestroys)
	}
	var suffix [8]byte
	if _, err := rand.Read(suffix[:]); err != nil {
		return "", fmt.Errorf("name an object: %w", err)
	}
	key := "selftest/" + hex.EncodeToString(suffix[:]) + "/kept"
	first, err := overwritten(ctx, store, keeper, key)
	if err != nil {
		return "", err
	}
	for _, attempt := range []struct {
		what, remedy string
		try          func() error
	}{
		{"destroy a former version", "deny them s3:DeleteObjectVersion", func() error { return keeper.DeleteVersion(ctx, key, first.ID) }},
		{"change whether versions are kept", "deny them s3:PutBucketVersioning", func() error { return keeper.SetVersions(ctx) }},
		{"change the bucket's policy", "deny them s3:PutBucketPolicy", func() error { return keeper.RewritePolicy(ctx) }},
	} {
		switch err := attempt.try(); {
		case err == nil:
			return "", fmt.Errorf("%w: they may %s: %s", ErrDestroys, attempt.what, attempt.remedy)
		case !errors.Is(err, vault.ErrDenied):
			return "", fmt.Errorf("try to %s: %w", attempt.what, err)
		}
	}
	if err := unharmed(ctx, keeper, first); err != nil {
		return "", err
	}
	return "the store keeps what is overwritten or deleted, and refuses to destroy it", nil
}

const firstText, secondText = "written first", "written over it"

// overwritten overwrites and deletes an object, and returns its first version.
func overwritten(ctx context.Context, store vault.Store, keeper Keeper, key string) (Version, error) {
	for _, text := range []string{firstText, secondText} {
		if err := store.Put(ctx, key, strings.NewReader(text), int64(len(text))); err != nil {
			return Version{}, err
		}
	}
	if err := store.Delete(ctx, key); err != nil {
		return Version{}, err
	}
	var oldest Version
	err := keeper.ListVersions(ctx, key, func(v Version) error {
		if v.Key == key && !v.Marker {
			oldest = v
		}
		return nil
	})
	if err != nil {
		return Version{}, err
	}
	if oldest.ID == "" || oldest.Size != int64(len(firstText)) {
		return Version{}, fmt.Errorf("%w: what was overwritten and deleted is gone", ErrDestroys)
	}
	return oldest, nil
}

func unharmed(ctx context.Context, keeper Keeper, v Version) error {
	in, err := keeper.GetVersion(ctx, v.Key, v.ID, 0, -1)
	if err != nil {
		return fmt.Errorf("read a former version: %w", err)
	}
	defer in.Close() //nolint:errcheck // only read
	data, err := io.ReadAll(in)
	if err == nil && string(data) != firstText {
		err = fmt.Errorf("%w: a former version is not what was written", ErrDestroys)
	}
	return err
}
