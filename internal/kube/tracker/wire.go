package tracker

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// The messages of the service snapshotmetadata.SnapshotMetadata that are needed here, as
// the Kubernetes API of external-snapshot-metadata v1 numbers their fields.

const deltaMethod = "/snapshotmetadata.SnapshotMetadata/GetMetadataDelta"

// request is a GetMetadataDeltaRequest.
type request struct {
	token, namespace, base, target string
	from                           int64
	most                           int32
}

func (r *request) marshal() []byte {
	var b []byte
	text := func(field protowire.Number, s string) {
		b = protowire.AppendTag(b, field, protowire.BytesType)
		b = protowire.AppendString(b, s)
	}
	number := func(field protowire.Number, n uint64) {
		if n != 0 {
			b = protowire.AppendTag(b, field, protowire.VarintType)
			b = protowire.AppendVarint(b, n)
		}
	}
	text(1, r.token)
	text(2, r.namespace)
	text(3, r.base) // the driver's own name of the snapshot
	text(4, r.target)
	number(5, uint64(r.from)) //nolint:gosec // never negative
	number(6, uint64(r.most)) //nolint:gosec // never negative
	return b
}

// Kinds of an answer.
const (
	fixedLength    = 1
	variableLength = 2
)

// answer is a GetMetadataDeltaResponse.
type answer struct {
	kind, capacity int64
	blocks         []block
}

type block struct{ offset, size int64 }

var errWire = errors.New("not an answer of the service")

func (a *answer) unmarshal(data []byte) error {
	*a = answer{}
	return fields(data, func(field protowire.Number, n int64, sub []byte) error {
		switch field {
		case 1:
			a.kind = n
		case 2:
			a.capacity = n
		case 3:
			var b block
			err := fields(sub, func(field protowire.Number, n int64, _ []byte) error {
				switch field {
				case 1:
					b.offset = n
				case 2:
					b.size = n
				}
				return nil
			})
			if err != nil {
				return err
			}
			a.blocks = append(a.blocks, b)
		}
		return nil
	})
}

// fields calls fn with each number and each message of a message.
func fields(data []byte, fn func(field protowire.Number, n int64, sub []byte) error) error {
	for len(data) > 0 {
		field, kind, size := protowire.ConsumeTag(data)
		if size < 0 {
			return fmt.Errorf("%w: %w", errWire, protowire.ParseError(size))
		}
		data = data[size:]
		var n uint64
		var sub []byte
		switch kind {
		case protowire.VarintType:
			n, size = protowire.ConsumeVarint(data)
		case protowire.BytesType:
			sub, size = protowire.ConsumeBytes(data)
		default:
			size = protowire.ConsumeFieldValue(field, kind, data)
		}
		if size < 0 {
			return fmt.Errorf("%w: %w", errWire, protowire.ParseError(size))
		}
		data = data[size:]
		if err := fn(field, int64(n), sub); err != nil { //nolint:gosec // as the format means it
			return err
		}
	}
	return nil
}

// codec speaks these two messages.
type codec struct{}

// Name implements encoding.Codec.
func (codec) Name() string { return "proto" }

// Marshal implements encoding.Codec.
func (codec) Marshal(v any) ([]byte, error) {
	r, ok := v.(*request)
	if !ok {
		return nil, fmt.Errorf("encode %T: %w", v, errWire)
	}
	return r.marshal(), nil
}

// Unmarshal implements encoding.Codec.
func (codec) Unmarshal(data []byte, v any) error {
	a, ok := v.(*answer)
	if !ok {
		return fmt.Errorf("decode %T: %w", v, errWire)
	}
	return a.unmarshal(data)
}
