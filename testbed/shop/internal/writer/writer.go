// Package writer places orders in the database without pause and reports each acknowledged one to the ledger.
package writer

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"davit.dev/davit/testbed/shop/order"
)

const (
	// commitLimit bounds one order: a database that answers no more must not hold the writer for ever.
	commitLimit = 5 * time.Second
	retryFirst  = 100 * time.Millisecond
	retryMost   = time.Second
)

// Writer places orders.
type Writer struct {
	Database *pgx.ConnConfig
	// PerSecond is how many orders to place.
	PerSecond float64
	// Report hears of each acknowledged order; it must not block.
	Report func(order.Ack)
	Log    *slog.Logger
}

// Run places orders until ctx ends. It rides out any failure of the database.
func (w *Writer) Run(ctx context.Context) {
	pause := retryFirst
	for ctx.Err() == nil {
		placed, err := w.session(ctx)
		if ctx.Err() != nil {
			return
		}
		w.Log.Warn("database session ended", "placed", placed, "err", err)
		if placed > 0 {
			pause = retryFirst
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, retryMost)
	}
}

// session places orders over one connection until something fails. The number of the first is looked up each time,
// because after a failure nobody knows whether the last order was committed.
func (w *Writer) session(ctx context.Context) (placed int64, err error) {
	conn, next, err := w.open(ctx)
	if err != nil {
		return 0, err
	}
	defer func() {
		// The caller's context may be over, and a dead peer must not hold us here.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	w.Log.Info("placing orders", "from", next, "host", w.Database.Host)
	tick := time.NewTicker(time.Duration(float64(time.Second) / w.PerSecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return placed, ctx.Err()
		case <-tick.C:
		}
		if err := w.place(ctx, conn, next); err != nil {
			return placed, err
		}
		placed++
		next++
	}
}

func (w *Writer) open(ctx context.Context) (*pgx.Conn, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, commitLimit)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, w.Database)
	if err != nil {
		return nil, 0, fmt.Errorf("connect to database: %w", err)
	}
	if _, err := conn.Exec(ctx, order.Schema); err != nil {
		_ = conn.Close(ctx)
		return nil, 0, fmt.Errorf("make table: %w", err)
	}
	var last int64
	if err := conn.QueryRow(ctx, "select coalesce(max(id), 0) from orders").Scan(&last); err != nil {
		_ = conn.Close(ctx)
		return nil, 0, fmt.Errorf("find last order: %w", err)
	}
	return conn, last + 1, nil
}

func (w *Writer) place(ctx context.Context, conn *pgx.Conn, id int64) error {
	// A commit that was begun is seen through when we are told to stop, so that it is reported.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitLimit)
	defer cancel()
	o := order.New(id, time.Now())
	_, err := conn.Exec(ctx, "insert into orders (id, placed_at, payload, checksum) values ($1, $2, $3, $4)",
		o.ID, o.PlacedAt, o.Payload, o.Checksum)
	if err != nil {
		return fmt.Errorf("place order %d: %w", id, err)
	}
	w.Report(order.Ack{ID: id, At: time.Now().UTC(), Checksum: o.Checksum})
	return nil
}
