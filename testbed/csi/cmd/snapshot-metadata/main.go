// Command snapshot-metadata tells Kubernetes clients which blocks of a volume were changed between two snapshots. It
// speaks the service of external-snapshot-metadata v1 and asks the driver beside it by the CSI.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"davit.dev/davit/testbed/csi/internal/metadata"
)

func main() {
	driver := flag.String("driver", "reflink.csi.davit.dev", "the driver's name")
	socket := flag.String("csi-address", "/csi/csi.sock", "the driver's socket")
	address := flag.String("address", "", "IP and port to serve on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *driver, *socket, *address, slog.New(slog.NewTextHandler(os.Stderr, nil))); err != nil {
		fmt.Fprintln(os.Stderr, "snapshot-metadata:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, driver, socket, address string, log *slog.Logger) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("check address: %w", err)
	}
	cert, authority, err := metadata.Certificate(host, time.Now())
	if err != nil {
		return err
	}
	cluster, err := metadata.InCluster()
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("reach the driver: %w", err)
	}
	defer conn.Close()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&cert)), grpc.ForceServerCodec(metadata.Codec{}))
	s := &metadata.Server{Driver: driver, Cluster: cluster, CSI: csi.NewSnapshotMetadataClient(conn), Log: log}
	s.Register(server)
	stopped := context.AfterFunc(ctx, server.Stop)
	defer stopped()
	go announce(ctx, s, address, authority, log)
	log.Info("serving", "address", address)
	if err := server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// announce says where it is asked, again and again until the cluster has taken note.
func announce(ctx context.Context, s *metadata.Server, address string, authority []byte, log *slog.Logger) {
	for {
		err := s.Announce(ctx, address, authority)
		if err == nil {
			return
		}
		log.Warn("announce", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(2 * time.Second):
		}
	}
}
