package driver

import (
	"context"
	"fmt"
	"log/slog"

	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// registrar answers the kubelet's plugin watcher. The usual sidecar for this does nothing more.
type registrar struct {
	registration.UnimplementedRegistrationServer
	endpoint string
	log      *slog.Logger
}

// Register makes the kubelet find the driver's socket: it listens on socket, in the kubelet's registry directory,
// until ctx ends.
func Register(ctx context.Context, socket, endpoint string, log *slog.Logger) error {
	listener, err := listenUnix(socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	registration.RegisterRegistrationServer(server, &registrar{endpoint: endpoint, log: log})
	return serveUntil(ctx, server, listener)
}

// GetInfo tells the kubelet what to register.
func (r *registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: Name, Endpoint: r.endpoint, SupportedVersions: []string{"1.0.0"},
	}, nil
}

// NotifyRegistrationStatus hears how it went. A refusal stops the driver, so that the kubelet's restart tries again.
func (r *registrar) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if !s.GetPluginRegistered() {
		r.log.Error("kubelet refused the driver", "err", s.GetError())
		return nil, fmt.Errorf("register with kubelet: %s", s.GetError())
	}
	r.log.Info("registered with kubelet", "endpoint", r.endpoint)
	return &registration.RegistrationStatusResponse{}, nil
}
