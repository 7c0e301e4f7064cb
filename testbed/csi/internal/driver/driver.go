// Package driver speaks the Container Storage Interface for a pool: identity, controller and node in one process.
package driver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"davit.dev/davit/testbed/csi/internal/disk"
	"davit.dev/davit/testbed/csi/internal/pool"
)

// Name is the driver's name in StorageClasses.
const Name = "reflink.csi.davit.dev"

// Version is reported to whoever asks for the plugin's identity.
const Version = "1.0.0"

// TopologyKey is the node label that says where volumes can be used.
const TopologyKey = "topology." + Name + "/node"

// stopLimit is how long calls in flight may take when the driver is told to stop.
const stopLimit = 10 * time.Second

// Driver serves one node's pool.
type Driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer
	csi.UnimplementedGroupControllerServer
	csi.UnimplementedSnapshotMetadataServer

	pool *pool.Pool
	node string
	log  *slog.Logger
	busy busySet
	slow pace
}

// New returns the driver of the node.
func New(p *pool.Pool, node string, log *slog.Logger) *Driver {
	return &Driver{pool: p, node: node, log: log, slow: newPace()}
}

// Serve answers on the unix socket until ctx ends.
func (d *Driver) Serve(ctx context.Context, socket string) error {
	listener, err := listenUnix(socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(d.intercept))
	csi.RegisterIdentityServer(server, d)
	csi.RegisterControllerServer(server, d)
	csi.RegisterNodeServer(server, d)
	csi.RegisterGroupControllerServer(server, d)
	csi.RegisterSnapshotMetadataServer(server, d)
	return serveUntil(ctx, server, listener)
}

// listenUnix replaces the socket that a killed predecessor left.
func listenUnix(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return listener, nil
}

func serveUntil(ctx context.Context, server *grpc.Server, listener net.Listener) error {
	stop := context.AfterFunc(ctx, func() {
		force := time.AfterFunc(stopLimit, server.Stop)
		defer force.Stop()
		server.GracefulStop()
	})
	defer stop()
	if err := server.Serve(listener); err != nil {
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	}
	return nil
}

// intercept turns panics and plain errors into gRPC statuses, and logs what went wrong or changed something.
func (d *Driver) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (resp any, err error) {
	start := time.Now()
	defer func() {
		if p := recover(); p != nil {
			d.log.Error("call panicked", "method", info.FullMethod, "panic", p, "stack", string(debug.Stack()))
			err = status.Errorf(codes.Internal, "%s panicked: %v", info.FullMethod, p)
		}
		level := slog.LevelDebug
		if err != nil {
			level = slog.LevelWarn
		}
		d.log.Log(ctx, level, "call", "method", info.FullMethod, "took", time.Since(start), "err", err)
	}()
	resp, err = handle(ctx, req)
	return resp, statusOf(err)
}

// statusOf gives the errors of the layers below the code the caller acts upon.
func statusOf(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	switch {
	case errors.Is(err, pool.ErrNotFound):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, pool.ErrInUse), errors.Is(err, pool.ErrAlone), errors.Is(err, disk.ErrGrowOffline):
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, disk.ErrFreezeLimit):
		return status.Error(codes.DeadlineExceeded, err.Error())
	}
	return status.Error(codes.Internal, err.Error())
}

func invalid(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format, args...)
}

// busySet refuses a second call about something while the first one runs, as the CSI allows; callers come back.
type busySet struct {
	mu   sync.Mutex
	keys map[string]bool
}

func (b *busySet) enter(keys ...string) (leave func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	keys = slices.DeleteFunc(keys, func(key string) bool { return key == "" }) // a volume without a source, say
	for _, key := range keys {
		if b.keys[key] {
			return nil, status.Errorf(codes.Aborted, "another call about %s is under way; try again", key)
		}
	}
	if b.keys == nil {
		b.keys = make(map[string]bool)
	}
	for _, key := range keys {
		b.keys[key] = true
	}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, key := range keys {
			delete(b.keys, key)
		}
	}, nil
}
