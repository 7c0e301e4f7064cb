// Package suspect keeps, in the vault, which packs of volume data were found
// damaged. A repository goes by names of contents: what it once had in such a
// pack it would refer to for ever, and each new snapshot would be as damaged as
// the last. Whoever writes one stores what is in a suspect pack anew.
// See docs/formats/volumes.md.
package suspect

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"

	"davit.dev/davit/internal/vault"
)

// prefixOf is where the suspects of the repository at a prefix are:
// projects/<project>/suspects/<repository>/.
func prefixOf(repository string) string {
	volumes, name := path.Split(strings.TrimSuffix(repository, "/"))
	return path.Join(path.Dir(strings.TrimSuffix(volumes, "/")), "suspects", name) + "/"
}

// is tells whether what is damaged is a pack: an index blob or an inventory is not listed.
func is(blob string) bool {
	return (strings.HasPrefix(blob, "p") || strings.HasPrefix(blob, "q")) && !strings.Contains(blob, "/")
}

// Note says of packs, among other blobs, of the repository at a prefix that they are damaged.
func Note(ctx context.Context, store vault.Store, repository string, blobs []string) error {
	for _, blob := range blobs {
		if !is(blob) {
			continue
		}
		err := store.PutIfAbsent(ctx, prefixOf(repository)+blob, strings.NewReader(""), 0)
		if err != nil && !errors.Is(err, vault.ErrExists) {
			return fmt.Errorf("note damaged pack %s: %w", blob, err)
		}
	}
	return nil
}

// Clear says that packs are whole again.
func Clear(ctx context.Context, store vault.Store, repository string, blobs []string) error {
	for _, blob := range blobs {
		if !is(blob) {
			continue
		}
		if err := store.Delete(ctx, prefixOf(repository)+blob); err != nil && !errors.Is(err, vault.ErrNotFound) {
			return fmt.Errorf("clear pack %s, which is whole again: %w", blob, err)
		}
	}
	return nil
}

// Readable are those of packs in which every content can be read that the repository has there.
// One may be as it was written, and damaged all the same: in memory, before its SHA-256 was taken.
// outage tells a store that gives no answer, which is an error, from damage.
func Readable(ctx context.Context, rep repo.DirectRepository, packs []string, outage func(error) bool) ([]string, error) {
	whole := map[string]bool{}
	for _, pack := range packs {
		whole[pack] = true
	}
	err := rep.Refresh(ctx)
	if err == nil {
		contents := rep.ContentReader()
		err = contents.IterateContents(ctx, content.IterateOptions{}, func(c content.Info) error {
			if !whole[string(c.PackBlobID)] {
				return nil
			}
			if _, err := contents.GetContent(ctx, c.ContentID); err != nil {
				if outage(err) {
					return fmt.Errorf("read content %s: %w", c.ContentID, err)
				}
				whole[string(c.PackBlobID)] = false
			}
			return nil
		})
	}
	switch {
	case err == nil:
		return slices.DeleteFunc(slices.Clone(packs), func(pack string) bool { return !whole[pack] }), nil
	case outage(err):
		return nil, err
	}
	return nil, nil // the index is damaged: what is in a pack nobody knows
}

// List returns the packs that were noted; an empty map is no error.
func List(ctx context.Context, store vault.Store, repository string) (map[string]bool, error) {
	packs, prefix := map[string]bool{}, prefixOf(repository)
	err := store.List(ctx, prefix, func(o vault.ObjectInfo) error {
		packs[strings.TrimPrefix(o.Key, prefix)] = true
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list damaged packs: %w", err)
	}
	return packs, nil
}
