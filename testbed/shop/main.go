// Command shop is the application that the test bed protects: a writer that places orders in PostgreSQL without pause,
// a web page that counts them, and a ledger outside the clusters that knows which ones were acknowledged.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"davit.dev/davit/testbed/shop/internal/ledger"
	"davit.dev/davit/testbed/shop/internal/setting"
	"davit.dev/davit/testbed/shop/internal/web"
	"davit.dev/davit/testbed/shop/internal/writer"
	"davit.dev/davit/testbed/shop/order"
)

const usage = `usage: shop writer | web | ledger

All are configured by environment variables.

writer  DB_HOST DB_PORT DB_NAME DB_USER DB_PASSWORD_FILE (or DB_PASSWORD),
        LEDGER_URL (empty: report to nobody), ORDERS_PER_SECOND (50)
web     the same DB_ variables, LISTEN (:8080), SHOP_TITLE, POD_NAME
ledger  LEDGER_FILE (ledger.jsonl), LISTEN (:8090)`

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	commands := map[string]func(context.Context, *slog.Logger) error{"writer": runWriter, "web": runWeb, "ledger": runLedger}
	run, ok := commands[os.Args[1]]
	if !ok {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	if err := run(ctx, log); err != nil {
		fmt.Fprintln(os.Stderr, "shop:", err)
		os.Exit(1)
	}
}

func runWriter(ctx context.Context, log *slog.Logger) error {
	database, err := setting.Database()
	if err != nil {
		return err
	}
	rate, err := setting.Float("ORDERS_PER_SECOND", 50)
	if err != nil {
		return err
	}
	w := &writer.Writer{Database: database, PerSecond: rate, Log: log, Report: func(order.Ack) {}}
	ledgerURL := os.Getenv("LEDGER_URL")
	if ledgerURL == "" {
		w.Run(ctx)
		return nil
	}
	reporter := writer.NewReporter(ledgerURL, log)
	w.Report = reporter.Report
	// The reporter ends after the writer, so that the last order is reported too.
	reporting, stopReporting := context.WithCancel(context.WithoutCancel(ctx))
	reported := make(chan struct{})
	go func() {
		defer close(reported)
		reporter.Run(reporting)
	}()
	w.Run(ctx)
	stopReporting()
	<-reported
	if left := reporter.Waiting(); left > 0 {
		return fmt.Errorf("report to ledger: %d acknowledgements were never sent; is LEDGER_URL right?", left)
	}
	return nil
}

func runWeb(ctx context.Context, log *slog.Logger) error {
	database, err := setting.Database()
	if err != nil {
		return err
	}
	config, err := pgxpool.ParseConfig("pool_max_conns=4")
	if err != nil {
		return fmt.Errorf("configure pool: %w", err)
	}
	config.ConnConfig = database
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("make pool: %w", err)
	}
	defer pool.Close()
	shop := &web.Shop{
		Database: pool, Log: log,
		Title: setting.Get("SHOP_TITLE", "Shop"), Pod: setting.Get("POD_NAME", "nobody in particular"),
	}
	return serve(ctx, setting.Get("LISTEN", ":8080"), shop.Handler(), log)
}

func runLedger(ctx context.Context, log *slog.Logger) error {
	l, err := ledger.Open(setting.Get("LEDGER_FILE", "ledger.jsonl"))
	if err != nil {
		return err
	}
	err = serve(ctx, setting.Get("LISTEN", ":8090"), l.Handler(), log)
	return errors.Join(err, l.Close())
}

// serve answers until ctx ends and lets requests under way finish.
func serve(ctx context.Context, address string, handler http.Handler, log *slog.Logger) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		stopped <- server.Shutdown(limit)
	})
	defer stop()
	log.Info("serving", "address", listener.Addr().String())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return <-stopped
}
