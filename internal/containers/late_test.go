package containers

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// oneRuns is a runtime that has one pod.
type oneRuns struct {
	runtimeapi.UnimplementedRuntimeServiceServer
}

func (oneRuns) ListPodSandbox(context.Context, *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	return &runtimeapi.ListPodSandboxResponse{Items: []*runtimeapi.PodSandbox{{Id: "a", Metadata: &runtimeapi.PodSandboxMetadata{Uid: "me"}}}}, nil
}

// TestARuntimeThatStartsAnew is found at once, however often it was looked for meanwhile.
func TestARuntimeThatStartsAnew(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	serve := func() *grpc.Server {
		lis, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		s := grpc.NewServer()
		runtimeapi.RegisterRuntimeServiceServer(s, oneRuns{})
		go s.Serve(lis) //nolint:errcheck // it is stopped
		return s
	}
	late := &Late{Socket: socket, PodUID: "me"}
	first := serve()
	if all, err := late.Sandboxes(t.Context()); err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	first.Stop()
	for range 3 {
		if _, err := late.Sandboxes(t.Context()); err == nil {
			t.Fatal("answered although it is gone")
		}
	}
	defer serve().Stop()
	if all, err := late.Sandboxes(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("it is there again: %v, %v", all, err)
	}
}
