// Package packed is what a vault's objects hold: records in packs, compressed,
// and sealed under the object's own key.
package packed

import (
	"bytes"
	"fmt"
	"io"

	"davit.dev/davit/internal/vault/seal"
)

// Seal compresses plain and seals it under the vault key name.
func Seal(k *seal.Key, name string, plain []byte) ([]byte, error) {
	// Keys and tokens in base64 come down to three quarters, what else there is to less.
	most := len(plain) - len(plain)/4
	out := bytes.NewBuffer(make([]byte, 0, seal.HeaderSize+most+(most/seal.ChunkSize+1)*seal.TagSize))
	s, err := seal.NewWriter(out, k, name, seal.Zstd)
	if err != nil {
		return nil, err
	}
	if err := compress(s, plain); err != nil {
		return nil, err
	}
	if err := s.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Open returns a reader of the plain bytes; Close frees its decoder.
func Open(src io.Reader, find seal.Finder, name string) (io.ReadCloser, error) {
	u, err := seal.NewReader(src, find, name)
	if err != nil {
		return nil, err
	}
	if u.Codec() == seal.Plain {
		return io.NopCloser(u), nil
	}
	return decompress(u)
}

// Unseal opens a whole blob, at most limit plain bytes of it.
func Unseal(find seal.Finder, name string, sealed []byte, limit int64) ([]byte, error) {
	r, err := Open(bytes.NewReader(sealed), find, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	plain, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(plain)) > limit {
		return nil, fmt.Errorf("%w: more than %d plain bytes", seal.ErrDamaged, limit)
	}
	return plain, nil
}
