package vault

import (
	"bytes"
	"fmt"
	"io"

	"davit.dev/davit/internal/vault/seal"
)

// ErrDamaged says that an object is not what was written under its key: a byte
// differs, it was cut short, or it belongs under another name. Trying again
// does not help; another recovery point or a second copy of the vault does.
var ErrDamaged = seal.ErrDamaged

// sealBlob compresses plain and seals it under the vault key name.
func sealBlob(k *seal.Key, name string, plain []byte) ([]byte, error) {
	packed, err := compress(plain)
	if err != nil {
		return nil, err
	}
	size := seal.HeaderSize + len(packed) + (len(packed)/seal.ChunkSize+1)*seal.TagSize
	out := bytes.NewBuffer(make([]byte, 0, size))
	s, err := seal.NewWriter(out, k, name, seal.Zstd)
	if err != nil {
		return nil, err
	}
	if _, err := s.Write(packed); err != nil {
		return nil, err
	}
	if err := s.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// openBlob returns a reader of the plain bytes; Close frees its decoder.
func openBlob(src io.Reader, k *seal.Key, name string) (io.ReadCloser, error) {
	u, err := seal.NewReader(src, k, name)
	if err != nil {
		return nil, err
	}
	if u.Codec() == seal.Plain {
		return io.NopCloser(u), nil
	}
	return decompress(u)
}

// unsealBlob opens a whole blob, at most limit plain bytes of it.
func unsealBlob(k *seal.Key, name string, sealed []byte, limit int64) ([]byte, error) {
	r, err := openBlob(bytes.NewReader(sealed), k, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	plain, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(plain)) > limit {
		return nil, fmt.Errorf("%w: more than %d plain bytes", ErrDamaged, limit)
	}
	return plain, nil
}
