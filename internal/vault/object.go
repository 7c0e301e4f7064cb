package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"davit.dev/davit/internal/vault/packed"
)

// Limits on what is read whole into memory, in bytes. More than that is not
// something davit wrote.
const (
	maxDocument = 64 << 20 // sealed documents, manifests above all
	maxPlain    = 1 << 20  // marker, project and wrapped keys
)

// readAll gets a whole object of at most limit bytes.
func readAll(ctx context.Context, store Store, key string, limit int64) ([]byte, error) {
	r, err := store.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("read %s: %w: more than %d bytes", key, ErrDamaged, limit)
	}
	return data, nil
}

// putOnce writes bytes under a key that must be free.
func putOnce(ctx context.Context, store Store, key string, data []byte) error {
	if err := store.PutIfAbsent(ctx, key, bytes.NewReader(data), int64(len(data))); err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return nil
}

// ReadSealed reads and opens the object under key, which must start with the
// project's own prefix. Objects are at most 64 MiB.
func (p *Project) ReadSealed(ctx context.Context, key string) ([]byte, error) {
	sealed, err := readAll(ctx, p.store, key, maxDocument)
	if err != nil {
		return nil, err
	}
	plain, err := packed.Unseal(p.finder(ctx), key, sealed, maxDocument)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", key, err)
	}
	return plain, nil
}

// WriteSealed seals plain for key and writes it; a second write replaces the first.
func (p *Project) WriteSealed(ctx context.Context, key string, plain []byte) error {
	sealed, err := p.Seal(key, plain)
	if err != nil {
		return err
	}
	if err := p.store.Put(ctx, key, bytes.NewReader(sealed), int64(len(sealed))); err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return nil
}

// WriteSealedOnce seals plain for key and writes it, or returns ErrExists.
func (p *Project) WriteSealedOnce(ctx context.Context, key string, plain []byte) error {
	sealed, err := p.Seal(key, plain)
	if err != nil {
		return err
	}
	return putOnce(ctx, p.store, key, sealed)
}

// Seal compresses and encrypts plain for the one key it will be stored under.
func (p *Project) Seal(key string, plain []byte) ([]byte, error) {
	if !strings.HasPrefix(key, p.at.root()) {
		return nil, fmt.Errorf("seal %s: %w: outside project %s", key, ErrName, p.name)
	}
	sealed, err := packed.Seal(p.ring.newestKey(), key, plain)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", key, err)
	}
	return sealed, nil
}

// Unseal is Seal's inverse, for at most limit plain bytes. It returns
// ErrDamaged unless sealed is what Seal returned for this key.
func (p *Project) Unseal(key string, sealed []byte, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), refreshTimeout) // only if the key is not known yet
	defer cancel()
	plain, err := packed.Unseal(p.finder(ctx), key, sealed, limit)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", key, err)
	}
	return plain, nil
}

// readJSON reads a sealed JSON document into v.
func (p *Project) readJSON(ctx context.Context, key string, v any) error {
	plain, err := p.ReadSealed(ctx, key)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(plain, v); err != nil {
		return fmt.Errorf("read %s: %w: %w", key, ErrDamaged, err)
	}
	return nil
}

// writeJSONOnce writes v as a sealed JSON document under a free key.
func (p *Project) writeJSONOnce(ctx context.Context, key string, v any) error {
	plain, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	return p.WriteSealedOnce(ctx, key, plain)
}

// listKeys returns what follows prefix in every key that starts with it.
func listKeys(ctx context.Context, store Store, prefix string) ([]string, error) {
	var tails []string
	err := store.List(ctx, prefix, func(o ObjectInfo) error {
		tails = append(tails, strings.TrimPrefix(o.Key, prefix))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	return tails, nil
}

// deleteAll removes every object under the prefix but those to keep.
func deleteAll(ctx context.Context, store Store, prefix string, keep func(tail string) bool) error {
	tails, err := listKeys(ctx, store, prefix)
	if err != nil {
		return err
	}
	var errs []error
	for _, tail := range tails {
		if keep != nil && keep(tail) {
			continue
		}
		if err := store.Delete(ctx, prefix+tail); err != nil {
			errs = append(errs, fmt.Errorf("delete %s: %w", prefix+tail, err))
		}
	}
	return errors.Join(errs...)
}
