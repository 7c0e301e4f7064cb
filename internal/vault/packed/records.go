package packed

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"davit.dev/davit/internal/vault/seal"
)

// Sizes of packs, in plain bytes.
const (
	Target    = 4 << 20  // a pack is full from here on
	maxRecord = 16 << 20 // the API server's own limit is far below
	Max       = Target + maxRecord + 4
)

// AppendRecord adds one record: its length in 4 bytes, big-endian, and its bytes.
func AppendRecord(pack, record []byte) ([]byte, error) {
	if len(record) == 0 || len(record) > maxRecord {
		return pack, fmt.Errorf("pack object: %d bytes, want 1 to %d", len(record), maxRecord)
	}
	pack = binary.BigEndian.AppendUint32(pack, uint32(len(record)))
	return append(pack, record...), nil
}

// ReadRecords calls fn with every record of a pack's plain bytes. The slice is
// fn's only until it returns.
func ReadRecords(src io.Reader, fn func([]byte) error) (count int64, err error) {
	r := bufio.NewReader(src)
	var record []byte
	for {
		record, err = readRecord(r, record)
		if errors.Is(err, io.EOF) {
			return count, nil
		}
		if err != nil {
			return count, err
		}
		count++
		if err := fn(record); err != nil {
			return count, err
		}
	}
}

// readRecord reads the next record into buf, which it may replace. It returns
// io.EOF only between records.
func readRecord(r io.Reader, buf []byte) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return buf, recordError(err)
	}
	n := binary.BigEndian.Uint32(length[:])
	if n == 0 || n > maxRecord {
		return buf, fmt.Errorf("%w: record of %d bytes", seal.ErrDamaged, n)
	}
	if uint32(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return buf, recordError(err)
	}
	return buf, nil
}

func recordError(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: a record is cut short", seal.ErrDamaged)
	}
	return err
}
