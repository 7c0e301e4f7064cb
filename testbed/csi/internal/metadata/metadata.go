// Package metadata is a small stand-in for the sidecar external-snapshot-metadata: it knows clients by their tokens, asks
// the cluster whether they may see the snapshot, and passes on what the driver tells of it.
package metadata

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// audience is whom clients' tokens must be for.
const audience = "reflink-snapshot-metadata"

// Server serves snapshotmetadata.SnapshotMetadata.
type Server struct {
	Driver  string
	Cluster *Cluster
	CSI     csi.SnapshotMetadataClient
	Log     *slog.Logger
}

// request is a GetMetadataDeltaRequest of the Kubernetes service.
type request struct {
	token, namespace, base, target string
	from                           int64
	most                           int32
}

func (r *request) unmarshal(data []byte) error {
	for len(data) > 0 {
		field, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		var text []byte
		var number uint64
		switch kind {
		case protowire.BytesType:
			text, n = protowire.ConsumeBytes(data)
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(data)
		default:
			n = protowire.ConsumeFieldValue(field, kind, data)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		switch field {
		case 1:
			r.token = string(text)
		case 2:
			r.namespace = string(text)
		case 3:
			r.base = string(text)
		case 4:
			r.target = string(text)
		case 5:
			r.from = int64(number)
		case 6:
			r.most = int32(number)
		}
	}
	return nil
}

// Codec reads requests of the Kubernetes service, whose answers have the fields of the CSI's.
type Codec struct{}

// Name implements encoding.Codec.
func (Codec) Name() string { return "proto" }

// Marshal implements encoding.Codec.
func (Codec) Marshal(v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("encode %T", v)
	}
	return proto.Marshal(m)
}

// Unmarshal implements encoding.Codec.
func (Codec) Unmarshal(data []byte, v any) error {
	r, ok := v.(*request)
	if !ok {
		return fmt.Errorf("decode %T", v)
	}
	return r.unmarshal(data)
}

// Register adds the service to a server, which must use Codec.
func (s *Server) Register(server *grpc.Server) {
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "snapshotmetadata.SnapshotMetadata", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "GetMetadataDelta", ServerStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
			err := s.delta(stream)
			if err != nil {
				s.Log.Warn("GetMetadataDelta", "error", err)
			}
			return err
		}}},
	}, s)
}

func (s *Server) delta(stream grpc.ServerStream) error {
	var r request
	if err := stream.RecvMsg(&r); err != nil {
		return err
	}
	if r.token == "" || r.namespace == "" || r.base == "" || r.target == "" {
		return status.Error(codes.InvalidArgument, "security_token, namespace, base_snapshot_id and target_snapshot_name are needed")
	}
	ctx := stream.Context()
	if err := s.Cluster.admit(ctx, r.token, r.namespace); err != nil {
		return err
	}
	handle, err := s.Cluster.snapshot(ctx, r.namespace, r.target, s.Driver)
	if err != nil {
		return err
	}
	answers, err := s.CSI.GetMetadataDelta(ctx, &csi.GetMetadataDeltaRequest{
		BaseSnapshotId: r.base, TargetSnapshotId: handle, StartingOffset: r.from, MaxResults: r.most,
	})
	if err != nil {
		return err
	}
	for {
		answer, err := answers.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.SendMsg(answer); err != nil {
			return err
		}
	}
}

// Announce says in the cluster where the service is. There is one for a driver, and each node of this one knows its own
// snapshots alone: the first node that says so stays the one that is asked, and others that join later say nothing.
func (s *Server) Announce(ctx context.Context, address string, authority []byte) error {
	const path = "/apis/cbt.storage.k8s.io/v1beta1/snapshotmetadataservices"
	o := map[string]any{
		"apiVersion": "cbt.storage.k8s.io/v1beta1", "kind": "SnapshotMetadataService",
		"metadata": map[string]any{"name": s.Driver},
		"spec":     map[string]any{"address": address, "audience": audience, "caCert": base64.StdEncoding.EncodeToString(authority)},
	}
	manager := "reflink-csi-" + strings.ReplaceAll(address, ":", "-")
	err := s.Cluster.do(ctx, "PATCH", path+"/"+s.Driver+"?fieldManager="+manager, o, nil)
	if errors.Is(err, errConflict) {
		s.Log.Info("another node is asked", "answer", err)
		return nil
	}
	return err
}
