// Command lighthouse is the bed's own operator, small but with everything that makes operators hard to bring back: a
// chain of owners (Beacon, Lamp with a generated name, StatefulSet), a finalizer, and a validating webhook that it
// serves itself with a certificate that it makes and keeps in a Secret.
//
// It talks to the API server over plain HTTP and looks every half second: nothing here but what it is for.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil && ctx.Err() == nil {
		slog.Error("lighthouse ends", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	k, err := inCluster()
	if err != nil {
		return err
	}
	cert, bundle, err := k.servingCert(ctx)
	if err != nil {
		return fmt.Errorf("get serving certificate: %w", err)
	}
	server := &http.Server{
		Addr: ":8443", Handler: webhook(k.account()), ReadHeaderTimeout: 5 * time.Second,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
	}
	served := make(chan error, 1)
	go func() { served <- server.ListenAndServeTLS("", "") }()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		if !k.trusted {
			k.trusted = k.trust(ctx, bundle) == nil // there is no configuration yet when the operator is back before it
		}
		if err := k.reconcile(ctx); err != nil && ctx.Err() == nil {
			slog.Warn("look again", "error", err)
		}
		select {
		case <-ctx.Done():
			return server.Close()
		case err := <-served:
			return errors.Join(errors.New("webhook ended"), err)
		case <-tick.C:
		}
	}
}
