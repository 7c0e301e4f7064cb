package vault

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// zstdWindow bounds the memory of either direction, in bytes.
const zstdWindow = 4 << 20

// encoders are streaming ones that start no goroutines.
var encoders = sync.Pool{New: func() any {
	e, err := zstd.NewWriter(nil, zstd.WithWindowSize(zstdWindow), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	if err != nil { // only for bad options
		panic(err)
	}
	return e
}}

func compress(plain []byte) ([]byte, error) {
	e := encoders.Get().(*zstd.Encoder)
	defer encoders.Put(e)
	out := bytes.NewBuffer(make([]byte, 0, len(plain)/3+64))
	e.ResetContentSize(out, int64(len(plain)))
	if _, err := e.Write(plain); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	if err := e.Close(); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	e.Reset(nil) // hold on to no output
	return out.Bytes(), nil
}

// inflater is a pooled streaming decoder that reports broken input as damage.
type inflater struct{ d *zstd.Decoder }

var decoders = sync.Pool{New: func() any {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
	if err != nil { // only for bad options
		panic(err)
	}
	return d
}}

func decompress(src io.Reader) (io.ReadCloser, error) {
	d := decoders.Get().(*zstd.Decoder)
	if err := d.Reset(src); err != nil {
		return nil, inflateError(err)
	}
	return &inflater{d}, nil
}

// Read implements io.Reader.
func (i *inflater) Read(p []byte) (int, error) {
	n, err := i.d.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = inflateError(err)
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

// inflateError keeps what the source below said and calls all else damage.
func inflateError(err error) error {
	for _, known := range []error{ErrDamaged, ErrUnavailable, ErrNotFound, ErrDenied} {
		if errors.Is(err, known) {
			return err
		}
	}
	return fmt.Errorf("%w: zstd: %w", ErrDamaged, err)
}
