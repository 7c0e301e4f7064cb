package packed

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"

	"davit.dev/davit/internal/vault/seal"
)

// zstdWindow bounds the memory of either direction, in bytes.
const zstdWindow = 4 << 20

// encoders are streaming ones that start no goroutines. The fastest level takes half of
// the default one's time, which is most of what a capture computes, and stores a twelfth
// more of YAML and the like. No checksum of zstd's: what it seals vouches for each byte.
var encoders = sync.Pool{New: func() any {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(zstdWindow),
		zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
	if err != nil { // only for bad options
		panic(err)
	}
	return e
}}

func compress(dst io.Writer, plain []byte) error {
	e := encoders.Get().(*zstd.Encoder)
	defer func() {
		e.Reset(nil) // hold on to no output
		encoders.Put(e)
	}()
	e.ResetContentSize(dst, int64(len(plain)))
	if _, err := e.Write(plain); err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	if err := e.Close(); err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	return nil
}

// inflater is a pooled streaming decoder that reports broken input as damage.
type inflater struct {
	d   *zstd.Decoder
	src *witness
}

// witness remembers what reading the source came to: that is no damage of what
// was compressed.
type witness struct {
	io.Reader
	err error
}

// Read implements io.Reader.
func (w *witness) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}

var decoders = sync.Pool{New: func() any {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
	if err != nil { // only for bad options
		panic(err)
	}
	return d
}}

func decompress(src io.Reader) (io.ReadCloser, error) {
	i := &inflater{decoders.Get().(*zstd.Decoder), &witness{Reader: src}}
	if err := i.d.Reset(i.src); err != nil {
		return nil, i.explain(err)
	}
	return i, nil
}

// Read implements io.Reader.
func (i *inflater) Read(p []byte) (int, error) {
	n, err := i.d.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = i.explain(err)
	}
	return n, err
}

// Close gives the decoder back.
func (i *inflater) Close() error {
	if i.d == nil {
		return nil
	}
	if err := i.d.Reset(nil); err != nil {
		return fmt.Errorf("reset zstd decoder: %w", err)
	}
	decoders.Put(i.d)
	i.d = nil
	return nil
}

// explain keeps what the source said and calls all else damage.
func (i *inflater) explain(err error) error {
	if i.src.err != nil {
		return i.src.err
	}
	return fmt.Errorf("%w: zstd: %w", seal.ErrDamaged, err)
}
