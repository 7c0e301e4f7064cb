package vault

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// ErrDamaged says that an object is not what was written under its key: a byte
// differs, it was cut short, or it belongs under another name. Trying again
// does not help; another recovery point or a second copy of the vault does.
var ErrDamaged = errors.New("object damaged")

// A sealed blob is a 58-byte header and a STREAM (Hoang, Reyhanitabar,
// Rogaway, Vizár: "Online Authenticated-Encryption and its Nonce-Reuse
// Misuse-Resistance", CRYPTO 2015) of AES-256-GCM chunks under a key that is
// this blob's alone. docs/formats/vault.md gives it byte by byte.
const (
	blobMagic   = "DAVIT\x1aB\n"
	blobVersion = 1

	codecPlain = 0
	codecZstd  = 1

	keyIDSize   = 16
	saltSize    = 32
	blobPrefix  = len(blobMagic) + 2 + keyIDSize // what enters the key derivation as it is
	headerSize  = blobPrefix + saltSize
	chunkSize   = 64 << 10 // plain bytes
	tagSize     = 16
	sealedChunk = chunkSize + tagSize

	blobInfo = "davit.dev/vault/v1/blob\x00"
)

// keyID names a data key. It is derived from the key, so a key can be checked
// against its name.
type keyID [keyIDSize]byte

func (id keyID) String() string { return hex.EncodeToString(id[:]) }

// dataKey is a project's secret, from which every other key comes.
type dataKey [32]byte

// derive returns 32 bytes for one purpose.
func (k *dataKey) derive(salt []byte, info string) []byte {
	derived, err := hkdf.Key(sha256.New, k[:], salt, info, 32)
	if err != nil { // only for absurd lengths
		panic(err)
	}
	return derived
}

func (k *dataKey) id() (id keyID) {
	copy(id[:], k.derive(nil, "davit.dev/vault/v1/key-id"))
	return id
}

// header is the start of a sealed blob.
type header struct {
	codec byte
	key   keyID
	salt  [saltSize]byte
}

func (h header) bytes() []byte {
	b := make([]byte, 0, headerSize)
	b = append(b, blobMagic...)
	b = append(b, blobVersion, h.codec)
	b = append(b, h.key[:]...)
	return append(b, h.salt[:]...)
}

func parseHeader(b []byte) (h header, err error) {
	if len(b) < headerSize {
		return h, fmt.Errorf("%w: header of %d bytes, want %d", ErrDamaged, len(b), headerSize)
	}
	if string(b[:len(blobMagic)]) != blobMagic {
		return h, fmt.Errorf("%w: not a sealed blob", ErrDamaged)
	}
	version, codec := b[len(blobMagic)], b[len(blobMagic)+1]
	if version != blobVersion {
		return h, fmt.Errorf("%w: blob version %d, this davit reads %d", ErrDamaged, version, blobVersion)
	}
	if codec > codecZstd {
		return h, fmt.Errorf("%w: unknown codec %d", ErrDamaged, codec)
	}
	h.codec = codec
	copy(h.key[:], b[len(blobMagic)+2:])
	copy(h.salt[:], b[blobPrefix:])
	return h, nil
}

// aead makes the cipher of the one blob with this header under the vault key
// name. Every header byte and the name take part, so that none can change.
func (h header) aead(k *dataKey, name string) (cipher.AEAD, error) {
	info := blobInfo + string(h.bytes()[:blobPrefix]) + name
	block, err := aes.NewCipher(k.derive(h.salt[:], info))
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	return gcm, nil
}

// nonce is STREAM's: an 11-byte counter and a byte that marks the last chunk.
type nonce [12]byte

func makeNonce(chunk uint64, last bool) (n nonce) {
	binary.BigEndian.PutUint64(n[3:11], chunk)
	if last {
		n[11] = 1
	}
	return n
}

// sealer encrypts what is written to it. Close writes the last chunk.
type sealer struct {
	dst   io.Writer
	aead  cipher.AEAD
	chunk uint64
	plain []byte
	out   []byte
}

func newSealer(dst io.Writer, k *dataKey, name string, codec byte) (*sealer, error) {
	h := header{codec: codec, key: k.id()}
	if _, err := rand.Read(h.salt[:]); err != nil {
		return nil, fmt.Errorf("read random salt: %w", err)
	}
	aead, err := h.aead(k, name)
	if err != nil {
		return nil, err
	}
	if _, err := dst.Write(h.bytes()); err != nil {
		return nil, fmt.Errorf("write blob header: %w", err)
	}
	return &sealer{dst: dst, aead: aead, plain: make([]byte, 0, chunkSize)}, nil
}

// Write implements io.Writer. A full chunk leaves only when more follows,
// because the last one is sealed differently.
func (s *sealer) Write(p []byte) (int, error) {
	written := len(p)
	for len(p) > 0 {
		if len(s.plain) == chunkSize {
			if err := s.flush(false); err != nil {
				return 0, err
			}
		}
		n := min(len(p), chunkSize-len(s.plain))
		s.plain = append(s.plain, p[:n]...)
		p = p[n:]
	}
	return written, nil
}

// Close seals the last chunk. It does not close the destination.
func (s *sealer) Close() error { return s.flush(true) }

func (s *sealer) flush(last bool) error {
	n := makeNonce(s.chunk, last)
	s.out = s.aead.Seal(s.out[:0], n[:], s.plain, nil)
	s.chunk, s.plain = s.chunk+1, s.plain[:0]
	if _, err := s.dst.Write(s.out); err != nil {
		return fmt.Errorf("write blob: %w", err)
	}
	return nil
}

// unsealer decrypts a blob. It releases only bytes of chunks that proved
// genuine, and io.EOF only after the chunk that was sealed as the last.
type unsealer struct {
	src    *bufio.Reader
	aead   cipher.AEAD
	codec  byte
	chunk  uint64
	sealed []byte
	plain  []byte // what of the present chunk is not yet read
	done   error  // io.EOF after the last chunk, or what went wrong
}

func newUnsealer(src io.Reader, k *dataKey, name string) (*unsealer, error) {
	u := &unsealer{src: bufio.NewReaderSize(src, sealedChunk+1)}
	var raw [headerSize]byte
	n, err := io.ReadFull(u.src, raw[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("read blob header: %w", err)
	}
	h, err := parseHeader(raw[:n])
	if err != nil {
		return nil, err
	}
	if id := k.id(); h.key != id {
		return nil, fmt.Errorf("%w: sealed with key %s, this is key %s", ErrDamaged, h.key, id)
	}
	if u.aead, err = h.aead(k, name); err != nil {
		return nil, err
	}
	u.codec, u.sealed = h.codec, make([]byte, sealedChunk)
	return u, nil
}

// Read implements io.Reader.
func (u *unsealer) Read(p []byte) (int, error) {
	for len(u.plain) == 0 && u.done == nil {
		u.next()
	}
	if len(u.plain) > 0 {
		n := copy(p, u.plain)
		u.plain = u.plain[n:]
		return n, nil
	}
	return 0, u.done
}

// next opens one more chunk into plain, or sets done.
func (u *unsealer) next() {
	n, err := io.ReadFull(u.src, u.sealed)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		u.done = fmt.Errorf("read blob: %w", err)
		return
	}
	_, err = u.src.Peek(1)
	if err != nil && !errors.Is(err, io.EOF) {
		u.done = fmt.Errorf("read blob: %w", err)
		return
	}
	last := err != nil
	if n < tagSize || (last && n == tagSize && u.chunk > 0) {
		u.done = fmt.Errorf("%w: chunk %d has %d bytes", ErrDamaged, u.chunk, n)
		return
	}
	at := makeNonce(u.chunk, last)
	plain, err := u.aead.Open(u.sealed[:0], at[:], u.sealed[:n], nil)
	if err != nil {
		u.done = fmt.Errorf("%w: chunk %d does not authenticate", ErrDamaged, u.chunk)
		return
	}
	u.chunk, u.plain = u.chunk+1, plain
	if last {
		u.done = io.EOF
	}
}

// seal compresses plain and seals it under the vault key name.
func seal(k *dataKey, name string, plain []byte) ([]byte, error) {
	packed, err := compress(plain)
	if err != nil {
		return nil, err
	}
	size := headerSize + len(packed) + (len(packed)/chunkSize+1)*tagSize
	out := bytes.NewBuffer(make([]byte, 0, size))
	s, err := newSealer(out, k, name, codecZstd)
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
func openBlob(src io.Reader, k *dataKey, name string) (io.ReadCloser, error) {
	u, err := newUnsealer(src, k, name)
	if err != nil {
		return nil, err
	}
	if u.codec == codecPlain {
		return io.NopCloser(u), nil
	}
	return decompress(u)
}

// unseal opens a whole blob, at most limit plain bytes of it.
func unseal(k *dataKey, name string, sealed []byte, limit int64) ([]byte, error) {
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
