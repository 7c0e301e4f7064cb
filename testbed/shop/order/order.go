// Package order defines the orders of the shop. An order can be checked by itself: its payload follows from its number
// and time, and its checksum from its payload.
package order

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// Schema makes the table. An order is never changed.
const Schema = `create table if not exists orders (
	id bigint primary key,
	placed_at timestamptz not null,
	payload text not null,
	checksum text not null
)`

// payloadLines sets the size of a payload, about 450 bytes: a real row, not a bare number.
const payloadLines = 6

// Order is one row.
type Order struct {
	ID       int64
	PlacedAt time.Time
	Payload  string
	Checksum string
}

// New makes the order with a number. Because its time goes into the payload, an order that was lost and placed again
// under the same number has another checksum, and can be told apart.
func New(id int64, at time.Time) Order {
	at = at.UTC().Truncate(time.Microsecond) // what PostgreSQL keeps
	payload := payload(id, at)
	return Order{ID: id, PlacedAt: at, Payload: payload, Checksum: Checksum(payload)}
}

func payload(id int64, at time.Time) string {
	var b strings.Builder
	line := fmt.Sprintf("order %d placed %s", id, at.Format(time.RFC3339Nano))
	b.WriteString(line)
	for range payloadLines {
		line = Checksum(line)
		b.WriteByte('\n')
		b.WriteString(line)
	}
	return b.String()
}

// Checksum is the SHA-256 of a payload in hexadecimal digits, as PostgreSQL's encode(sha256(payload::bytea), 'hex').
func Checksum(payload string) string {
	sum := sha256.Sum256([]byte(payload))
	return hex.EncodeToString(sum[:])
}

// Valid says whether the order is as it was made.
func (o Order) Valid() bool { return New(o.ID, o.PlacedAt) == o.utc() }

func (o Order) utc() Order {
	o.PlacedAt = o.PlacedAt.UTC().Truncate(time.Microsecond)
	return o
}

// Ack is an order whose commit the database has acknowledged.
type Ack struct {
	ID       int64     `json:"id"`
	At       time.Time `json:"at"` // when the acknowledgement arrived
	Checksum string    `json:"checksum"`
}
