// Command reflink-csi is the CSI driver of the test bed: controller, node and identity in one process.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"davit.dev/davit/testbed/csi/internal/driver"
	"davit.dev/davit/testbed/csi/internal/pool"
)

type options struct {
	socket     string
	registry   string
	state      string
	node       string
	outerBytes int64
	hostMounts bool
	debug      bool
}

func main() {
	var o options
	flag.StringVar(&o.socket, "socket", "", "unix socket to serve the CSI on")
	flag.StringVar(&o.registry, "registry", "", "kubelet's plugins_registry directory; empty: do not register")
	flag.StringVar(&o.state, "state", "", "directory for the outer file system and its records")
	flag.StringVar(&o.node, "node", "", "name of the node")
	flag.Int64Var(&o.outerBytes, "outer-bytes", 40<<30, "size of the outer file system when it has to be made")
	flag.BoolVar(&o.hostMounts, "host-mounts", false, "move into the mount namespace of the parent process (needs hostPID)")
	flag.BoolVar(&o.debug, "debug", false, "log every call")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "reflink-csi:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	if o.socket == "" || o.state == "" || o.node == "" {
		return errors.New("check flags: -socket, -state and -node are needed")
	}
	if o.hostMounts {
		if err := enterHostMounts(); err != nil {
			return err
		}
	}
	level := slog.LevelInfo
	if o.debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return serve(ctx, o, log)
}

func serve(ctx context.Context, o options, log *slog.Logger) error {
	p, err := pool.Open(ctx, pool.Config{Dir: o.state, OuterBytes: o.outerBytes})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(o.socket), 0o750); err != nil {
		return fmt.Errorf("make socket directory: %w", err)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if o.registry != "" {
		if err := os.MkdirAll(o.registry, 0o750); err != nil {
			return fmt.Errorf("make registry directory: %w", err)
		}
		go func() {
			stop(driver.Register(ctx, filepath.Join(o.registry, driver.Name+"-reg.sock"), o.socket, log))
		}()
	}
	log.Info("serving", "socket", o.socket, "state", o.state, "node", o.node)
	if err := driver.New(p, o.node, log).Serve(ctx, o.socket); err != nil {
		return err
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
