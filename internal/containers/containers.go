// Package containers is the adapter to a node's container runtime, over CRI:
// what runs here, and making it stop. It needs no API server.
package containers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxAnswer bounds an answer of the runtime.
const maxAnswer = 16 << 20

// Runtime is a node's container runtime.
type Runtime struct {
	conn   *grpc.ClientConn
	client runtimeapi.RuntimeServiceClient
}

// Dial names a runtime by its socket. Nothing is asked yet; a runtime that
// comes back later is found again.
func Dial(socket string) (*Runtime, error) {
	conn, err := grpc.NewClient("unix://"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return nil, fmt.Errorf("dial container runtime at %s: %w", socket, err)
	}
	return &Runtime{conn: conn, client: runtimeapi.NewRuntimeServiceClient(conn)}, nil
}

// Close lets go of the runtime.
func (r *Runtime) Close() error { return r.conn.Close() }

// Sandbox is a pod on this node.
type Sandbox struct {
	ID                   string
	Namespace, Name, UID string
	Labels, Annotations  map[string]string
	// Ready says that it has a network, and containers may start in it.
	Ready bool
}

// Sandboxes are all pods that the runtime knows.
func (r *Runtime) Sandboxes(ctx context.Context) ([]Sandbox, error) {
	answer, err := r.client.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return nil, fmt.Errorf("list pods of the container runtime: %w", err)
	}
	all := make([]Sandbox, 0, len(answer.GetItems()))
	for _, s := range answer.GetItems() {
		m := s.GetMetadata()
		all = append(all, Sandbox{
			ID: s.GetId(), Namespace: m.GetNamespace(), Name: m.GetName(), UID: m.GetUid(),
			Labels: s.GetLabels(), Annotations: s.GetAnnotations(), Ready: s.GetState() == runtimeapi.PodSandboxState_SANDBOX_READY,
		})
	}
	return all, nil
}

// Container is one that runs, or that may be about to.
type Container struct {
	ID, Sandbox, Name string
	// Created says that it has not been started yet.
	Created bool
}

// Live are the containers that have not ended.
func (r *Runtime) Live(ctx context.Context) ([]Container, error) {
	answer, err := r.client.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var all []Container
	for _, c := range answer.GetContainers() {
		if c.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED {
			all = append(all, Container{
				ID: c.GetId(), Sandbox: c.GetPodSandboxId(), Name: c.GetMetadata().GetName(),
				Created: c.GetState() == runtimeapi.ContainerState_CONTAINER_CREATED,
			})
		}
	}
	return all, nil
}

// Stop ends a container: it is asked, and killed when the grace is over. One
// that has not started yet is removed, so that whoever made it cannot start it.
func (r *Runtime) Stop(ctx context.Context, c Container, grace time.Duration) error {
	var err error
	if c.Created {
		_, err = r.client.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: c.ID})
	} else {
		_, err = r.client.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: c.ID, Timeout: int64((grace + time.Second - 1) / time.Second)})
	}
	if err != nil && status.Code(err) != codes.NotFound {
		return fmt.Errorf("stop container %s: %w", c.Name, err)
	}
	return nil
}

// ErrNoNetwork says that the runtime does not tell where a pod's network is.
var ErrNoNetwork = errors.New("the container runtime names no network of the pod")

// Network is where a pod's network is.
type Network struct {
	// Host says that it is the node's own.
	Host bool
	// Path and PID lead to the network namespace, as the node sees it; either
	// may be empty.
	Path string
	PID  int
}

// Network asks where a pod's network is.
func (r *Runtime) Network(ctx context.Context, sandbox string) (Network, error) {
	answer, err := r.client.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: sandbox, Verbose: true})
	if err != nil {
		return Network{}, fmt.Errorf("ask for the network of a pod: %w", err)
	}
	if answer.GetStatus().GetLinux().GetNamespaces().GetOptions().GetNetwork() == runtimeapi.NamespaceMode_NODE {
		return Network{Host: true}, nil
	}
	return decodeNetwork(answer.GetInfo()["info"])
}

// decodeNetwork reads what containerd and CRI-O say in so many words.
func decodeNetwork(info string) (Network, error) {
	var said struct {
		PID         int `json:"pid"`
		RuntimeSpec struct {
			Linux struct {
				Namespaces []struct {
					Type string `json:"type"`
					Path string `json:"path"`
				} `json:"namespaces"`
			} `json:"linux"`
		} `json:"runtimeSpec"`
	}
	if err := json.Unmarshal([]byte(info), &said); err != nil {
		return Network{}, fmt.Errorf("%w: %w", ErrNoNetwork, err)
	}
	n := Network{PID: said.PID}
	for _, ns := range said.RuntimeSpec.Linux.Namespaces {
		if ns.Type == "network" {
			n.Path = ns.Path
		}
	}
	if n.Path == "" && n.PID <= 0 {
		return Network{}, ErrNoNetwork
	}
	return n, nil
}
