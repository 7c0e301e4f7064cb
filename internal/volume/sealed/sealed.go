// Package sealed opens contents on their way out of a pack. kopia does that, too, and
// copies each byte six times, into memory that is new each time: of a large file that was
// a third of all that a restore computed.
package sealed

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/kopia/kopia/repo/compression"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/encryption"
)

// How kopia stores contents.
const (
	algorithm    = "AES256-GCM-HMAC-SHA256"
	purpose      = "encryption" // of the key
	keyBytes     = 32
	nonceBytes   = 12      // before what is encrypted
	headerBytes  = 4       // before what is compressed: how it is
	contentBytes = 1 << 20 // contents of files are no larger
)

// page is what memory for data begins at, so that it can be written past the page cache.
const page = 4 << 10

// Opener opens the contents of one repository. It is safe for use by several
// goroutines.
type Opener struct {
	keys sync.Pool // hash.Hash: a content's key is the hash of its name
}

// NewOpener returns the opener of a repository, or nil where its encryption is not davit's.
func NewOpener(format encryption.Parameters) *Opener {
	if format.GetEncryptionAlgorithm() != algorithm {
		return nil
	}
	secret, err := hkdf.Key(sha256.New, format.GetMasterKey(), []byte(purpose), "", keyBytes)
	if err != nil {
		return nil
	}
	return &Opener{keys: sync.Pool{New: func() any { return hmac.New(sha256.New, secret) }}}
}

// Memory is where contents are opened, one after the other.
type Memory struct {
	packed []byte // the nonce lies before the second page, what is encrypted begins there
	data   []byte
}

// memories are used again: to clear a megabyte for each content takes as long as to decrypt it.
// The runtime begins allocations of this size at a page; were it to stop that, what is
// written from them would be copied once more.
var memories = sync.Pool{New: func() any {
	return &Memory{packed: make([]byte, page+contentBytes+page), data: make([]byte, 0, contentBytes+page)}
}}

// NewMemory returns memory to open contents in, 2 MiB, until Free.
func NewMemory() *Memory { return memories.Get().(*Memory) }

// Free gives the memory to others.
func (m *Memory) Free() { memories.Put(m) }

// decoders check zstd's own hash of the data, too.
var decoders = sync.Pool{New: func() any {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true))
	if err != nil { // only for bad options
		panic(err)
	}
	return d
}}

// Open reads a content as it lies in its pack and returns its data, which is the memory's
// until that is used again. ok is false where the content is damaged, or stored in a way
// that is not davit's: kopia then opens it, or says what is wrong. err is the reader's.
func (o *Opener) Open(m *Memory, info content.Info, r io.Reader) (data []byte, ok bool, err error) {
	packed := m.packed[page-nonceBytes:]
	if int(info.PackedLength) > len(packed) {
		_, err = io.CopyN(io.Discard, r, int64(info.PackedLength))
		return nil, false, err
	}
	packed = packed[:info.PackedLength]
	if _, err := io.ReadFull(r, packed); err != nil {
		return nil, false, err
	}
	name := info.ContentID.Hash()
	if info.EncryptionKeyID != 0 || len(packed) < nonceBytes || len(name) < aes.BlockSize {
		return nil, false, nil
	}
	plain, ok := o.decrypt(name[len(name)-aes.BlockSize:], packed)
	if ok && info.CompressionHeaderID != 0 {
		plain, ok = inflate(m.data, info.CompressionHeaderID, plain)
	}
	return plain, ok, nil
}

// decrypt leaves the data where it is encrypted.
func (o *Opener) decrypt(name, packed []byte) (plain []byte, ok bool) {
	aead, err := o.aead(name)
	if err != nil {
		return nil, false
	}
	nonce, encrypted := packed[:nonceBytes], packed[nonceBytes:]
	plain, err = aead.Open(encrypted[:0], nonce, encrypted, name)
	return plain, err == nil
}

func (o *Opener) aead(name []byte) (cipher.AEAD, error) {
	h := o.keys.Get().(hash.Hash)
	defer o.keys.Put(h)
	h.Reset()
	_, _ = h.Write(name) // never fails
	block, err := aes.NewCipher(h.Sum(nil))
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func inflate(into []byte, header compression.HeaderID, plain []byte) (data []byte, ok bool) {
	if header != compression.HeaderZstdFastest || len(plain) < headerBytes || compression.HeaderID(binary.BigEndian.Uint32(plain)) != header {
		return nil, false
	}
	d := decoders.Get().(*zstd.Decoder)
	defer decoders.Put(d)
	data, err := d.DecodeAll(plain[headerBytes:], into)
	return data, err == nil
}
