// Package seal is how a vault's objects are encrypted: the data key, and blobs
// that open only with it, whole, and under the name they were sealed for.
package seal

import (
	"bufio"
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
	magic   = "DAVIT\x1aB\n"
	version = 1

	saltSize    = 32
	prefixSize  = len(magic) + 2 + KeyIDSize // what enters the key derivation as it is
	sealedChunk = ChunkSize + TagSize

	info = "davit.dev/vault/v1/blob\x00"
)

// Sizes of a blob's parts, in bytes.
const (
	KeyIDSize  = 16
	HeaderSize = prefixSize + saltSize
	ChunkSize  = 64 << 10 // of plain bytes
	TagSize    = 16       // what sealing adds to a chunk
)

// Codecs, by which a blob says how its bytes were packed before they were sealed.
const (
	Plain byte = 0
	Zstd  byte = 1
)

// KeyID names a data key. It is derived from the key, so a key can be checked
// against its name.
type KeyID [KeyIDSize]byte

// String is the id in hex.
func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// Key is a data key: a project's secret, from which every other key comes.
type Key [32]byte

// Derive returns 32 bytes for one purpose.
func (k *Key) Derive(salt []byte, info string) []byte {
	derived, err := hkdf.Key(sha256.New, k[:], salt, info, 32)
	if err != nil { // only for absurd lengths
		panic(err)
	}
	return derived
}

// ID names the key.
func (k *Key) ID() (id KeyID) {
	copy(id[:], k.Derive(nil, "davit.dev/vault/v1/key-id"))
	return id
}

// Finder returns the data key of an id, or an error that says why there is none.
type Finder func(id KeyID) (*Key, error)

// Only finds this key and calls a blob of any other damaged.
func (k *Key) Only(id KeyID) (*Key, error) {
	if own := k.ID(); id != own {
		return nil, fmt.Errorf("%w: sealed with key %s, this is key %s", ErrDamaged, id, own)
	}
	return k, nil
}

// header is the start of a sealed blob.
type header struct {
	codec byte
	key   KeyID
	salt  [saltSize]byte
}

func (h header) bytes() []byte {
	b := make([]byte, 0, HeaderSize)
	b = append(b, magic...)
	b = append(b, version, h.codec)
	b = append(b, h.key[:]...)
	return append(b, h.salt[:]...)
}

func parseHeader(b []byte) (h header, err error) {
	if len(b) < HeaderSize {
		return h, fmt.Errorf("%w: header of %d bytes, want %d", ErrDamaged, len(b), HeaderSize)
	}
	if string(b[:len(magic)]) != magic {
		return h, fmt.Errorf("%w: not a sealed blob", ErrDamaged)
	}
	written, codec := b[len(magic)], b[len(magic)+1]
	if written != version {
		return h, fmt.Errorf("%w: blob version %d, this davit reads %d", ErrDamaged, written, version)
	}
	if codec > Zstd {
		return h, fmt.Errorf("%w: unknown codec %d", ErrDamaged, codec)
	}
	h.codec = codec
	copy(h.key[:], b[len(magic)+2:])
	copy(h.salt[:], b[prefixSize:])
	return h, nil
}

// aead makes the cipher of the one blob with this header under the vault key
// name. Every header byte and the name take part, so that none can change.
func (h header) aead(k *Key, name string) (cipher.AEAD, error) {
	block, err := aes.NewCipher(k.Derive(h.salt[:], info+string(h.bytes()[:prefixSize])+name))
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

// Writer encrypts what is written to it. Close writes the last chunk.
type Writer struct {
	dst   io.Writer
	aead  cipher.AEAD
	chunk uint64
	plain []byte
	out   []byte
}

// NewWriter starts the blob that will be stored under name.
func NewWriter(dst io.Writer, k *Key, name string, codec byte) (*Writer, error) {
	h := header{codec: codec, key: k.ID()}
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
	return &Writer{dst: dst, aead: aead, plain: make([]byte, 0, ChunkSize)}, nil
}

// Write implements io.Writer. A full chunk leaves only when more follows,
// because the last one is sealed differently.
func (w *Writer) Write(p []byte) (int, error) {
	written := len(p)
	for len(p) > 0 {
		if len(w.plain) == ChunkSize {
			if err := w.flush(false); err != nil {
				return 0, err
			}
		}
		n := min(len(p), ChunkSize-len(w.plain))
		w.plain = append(w.plain, p[:n]...)
		p = p[n:]
	}
	return written, nil
}

// Close seals the last chunk. It does not close the destination.
func (w *Writer) Close() error { return w.flush(true) }

func (w *Writer) flush(last bool) error {
	n := makeNonce(w.chunk, last)
	w.out = w.aead.Seal(w.out[:0], n[:], w.plain, nil)
	w.chunk, w.plain = w.chunk+1, w.plain[:0]
	if _, err := w.dst.Write(w.out); err != nil {
		return fmt.Errorf("write blob: %w", err)
	}
	return nil
}

// Reader decrypts a blob. It releases only bytes of chunks that proved
// genuine, and io.EOF only after the chunk that was sealed as the last.
type Reader struct {
	src    *bufio.Reader
	aead   cipher.AEAD
	codec  byte
	chunk  uint64
	sealed []byte
	plain  []byte // what of the present chunk is not yet read
	done   error  // io.EOF after the last chunk, or what went wrong
}

// NewReader opens a blob that was stored under name, with the key that the blob
// names. ErrDamaged says that it was not stored so, or sealed with another key.
func NewReader(src io.Reader, find Finder, name string) (*Reader, error) {
	size := sealedChunk + 1
	if whole, ok := src.(interface{ Len() int }); ok { // most objects are small, and read a thousand times
		size = min(size, whole.Len())
	}
	r := &Reader{src: bufio.NewReaderSize(src, size)}
	var raw [HeaderSize]byte
	n, err := io.ReadFull(r.src, raw[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("read blob header: %w", err)
	}
	h, err := parseHeader(raw[:n])
	if err != nil {
		return nil, err
	}
	k, err := find(h.key)
	if err != nil {
		return nil, err
	}
	if r.aead, err = h.aead(k, name); err != nil {
		return nil, err
	}
	r.codec, r.sealed = h.codec, make([]byte, min(sealedChunk, size))
	return r, nil
}

// Codec says how the bytes were packed before they were sealed.
func (r *Reader) Codec() byte { return r.codec }

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	for len(r.plain) == 0 && r.done == nil {
		r.next()
	}
	if len(r.plain) > 0 {
		n := copy(p, r.plain)
		r.plain = r.plain[n:]
		return n, nil
	}
	return 0, r.done
}

// next opens one more chunk into plain, or sets done.
func (r *Reader) next() {
	n, err := io.ReadFull(r.src, r.sealed)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		r.done = fmt.Errorf("read blob: %w", err)
		return
	}
	_, err = r.src.Peek(1)
	if err != nil && !errors.Is(err, io.EOF) {
		r.done = fmt.Errorf("read blob: %w", err)
		return
	}
	last := err != nil
	if n < TagSize || (last && n == TagSize && r.chunk > 0) {
		r.done = fmt.Errorf("%w: chunk %d has %d bytes", ErrDamaged, r.chunk, n)
		return
	}
	at := makeNonce(r.chunk, last)
	plain, err := r.aead.Open(r.sealed[:0], at[:], r.sealed[:n], nil)
	if err != nil {
		r.done = fmt.Errorf("%w: chunk %d does not authenticate", ErrDamaged, r.chunk)
		return
	}
	r.chunk, r.plain = r.chunk+1, plain
	if last {
		r.done = io.EOF
	}
}
