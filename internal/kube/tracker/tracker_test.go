package tracker

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"davit.dev/davit/internal/volume/changes"
)

// sidecar answers as a driver's sidecar does.
type sidecar struct {
	answer func(call int, r request, send func(answer) error) error
	calls  int
	got    []request
}

// serverCodec is codec from the other side.
type serverCodec struct{ codec }

func (serverCodec) Marshal(v any) ([]byte, error) {
	a := v.(*answer)
	var b []byte
	number := func(b []byte, field protowire.Number, n int64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), uint64(n))
	}
	b = number(number(b, 1, a.kind), 2, a.capacity)
	for _, r := range a.blocks {
		b = protowire.AppendTag(b, 3, protowire.BytesType)
		b = protowire.AppendBytes(b, number(number(nil, 1, r.offset), 2, r.size))
	}
	return protowire.AppendBytes(protowire.AppendTag(b, 15, protowire.BytesType), []byte("of a later version")), nil
}

func (serverCodec) Unmarshal(data []byte, v any) error {
	r := v.(*request)
	text := map[protowire.Number]*string{1: &r.token, 2: &r.namespace, 3: &r.base, 4: &r.target}
	return fields(data, func(field protowire.Number, n int64, sub []byte) error {
		switch {
		case text[field] != nil:
			*text[field] = string(sub)
		case field == 5:
			r.from = n
		case field == 6:
			r.most = int32(n)
		}
		return nil
	})
}

// serve starts the service, and returns a tracker of a cluster that names it.
func serve(t *testing.T, s *sidecar) *Tracker {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	server := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&cert)), grpc.ForceServerCodec(serverCodec{}))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "snapshotmetadata.SnapshotMetadata", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "GetMetadataDelta", ServerStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
			var r request
			if err := stream.RecvMsg(&r); err != nil {
				return err
			}
			s.calls++
			s.got = append(s.got, r)
			return s.answer(s.calls, r, func(a answer) error { return stream.SendMsg(&a) })
		}}},
	}, s)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return clusterWith(t, listener.Addr().String(), authority)
}

func clusterWith(t *testing.T, address string, authority []byte) *Tracker {
	t.Helper()
	o := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{
		"address": address, "audience": "backup", "caCert": base64.StdEncoding.EncodeToString(authority),
	}}}
	o.SetGroupVersionKind(Kind)
	o.SetName("disk.example.com")
	c := fake.NewClientBuilder().WithObjects(o).WithInterceptorFuncs(interceptor.Funcs{
		SubResourceCreate: func(_ context.Context, _ client.Client, sub string, of, body client.Object, _ ...client.SubResourceCreateOption) error {
			if sub != "token" || of.GetNamespace()+"/"+of.GetName() != "davit-system/davit-node" {
				return fmt.Errorf("%s of %s/%s was asked for", sub, of.GetNamespace(), of.GetName())
			}
			req := body.(*authenticationv1.TokenRequest)
			if b := req.Spec.BoundObjectRef; b == nil || b.Kind != "Pod" || b.Name != "davit-node-x" || b.UID != "u" {
				return fmt.Errorf("a token was asked for that outlives its pod: %+v", b)
			}
			req.Status.Token = jwt(req.Spec.Audiences[0])
			return nil
		},
	}).Build()
	return &Tracker{
		Client: c, Account: client.ObjectKey{Namespace: "davit-system", Name: "davit-node"},
		Own: func() (string, error) { return jwt("https://kubernetes.default.svc"), nil },
	}
}

func jwt(audience string) string {
	return "x." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"aud":[%q],"kubernetes.io":{"pod":{"name":"davit-node-x","uid":"u"}}}`, audience)) + ".x"
}

var question = Question{Driver: "disk.example.com", Base: "snap-1", Namespace: "davit-system", Target: "davit-2"}

func told(kind, capacity int64, blocks ...block) answer { return answer{kind, capacity, blocks} }

// TestAnswersArePutTogether: several messages are one answer, and an answer is asked for until nothing more
// comes, as some drivers end it early.
func TestAnswersArePutTogether(t *testing.T) {
	const size = 1 << 30
	s := &sidecar{answer: func(call int, r request, send func(answer) error) error {
		switch call {
		case 1:
			return errors.Join(send(told(variableLength, size, block{0, 4096}, block{1 << 20, 8192})), send(told(variableLength, size, block{5 << 20, 1 << 20})))
		case 2:
			return send(told(variableLength, size, block{5<<20 + 4096, 1<<20 + 4096}, block{size - 4096, 4096})) // begins before where it ended
		}
		return send(told(variableLength, size))
	}}
	d, err := serve(t, s).Delta(t.Context(), question)
	if err != nil {
		t.Fatal(err)
	}
	if d.Size() != size || d.Empty() {
		t.Errorf("a delta of %d bytes, empty %t", d.Size(), d.Empty())
	}
	for _, r := range []block{{0, 1}, {1<<20 + 8191, 1}, {6<<20 + 4096, 1}, {size - 1, 1}, {0, size}} {
		if d.Same(r.offset, r.size) {
			t.Errorf("%v is called the same", r)
		}
	}
	for _, r := range []block{{4096, 1<<20 - 4096}, {6<<20 + 8192, size/2 - 8<<20}} {
		if !d.Same(r.offset, r.size) {
			t.Errorf("%v is called changed", r)
		}
	}
	if s.calls != 2 || s.got[1].from != 6<<20 || s.got[0].token != jwt("backup") || s.got[0].base != "snap-1" || s.got[0].target != "davit-2" || s.got[0].namespace != "davit-system" || s.got[0].most != atOnce {
		t.Errorf("it was asked %d times: %+v", s.calls, s.got)
	}
}

// TestWhatIsNoAnswerIsAnError: then all is read.
func TestWhatIsNoAnswerIsAnError(t *testing.T) {
	const size = 1 << 30
	for name, c := range map[string]struct {
		answer func(call int, r request, send func(answer) error) error
		want   string
	}{
		"nothing at all": {func(int, request, func(answer) error) error { return nil }, "makes no sense"},
		"an error": {func(int, request, func(answer) error) error {
			return status.Error(codes.NotFound, "no snapshot snap-1")
		}, "no snapshot snap-1"},
		"half and then error": {func(_ int, _ request, send func(answer) error) error {
			return errors.Join(send(told(variableLength, size, block{0, 4096})), status.Error(codes.Internal, "lost"))
		}, "lost"},
		"later answers fail": {func(call int, _ request, send func(answer) error) error {
			if call > 1 {
				return status.Error(codes.Internal, "lost")
			}
			return send(told(variableLength, size, block{0, 4096}))
		}, "lost"},
		"other sizes": {func(_ int, _ request, send func(answer) error) error {
			return errors.Join(send(told(variableLength, size, block{0, 4096})), send(told(variableLength, size/2, block{8192, 4096})))
		}, "makes no sense"},
		"an unknown kind": {func(_ int, _ request, send func(answer) error) error { return send(told(0, size, block{0, 4096})) }, "makes no sense"},
		"no order": {func(_ int, _ request, send func(answer) error) error {
			return send(told(variableLength, size, block{8192, 4096}, block{0, 4096}))
		}, "makes no sense"},
		"overlaps": {func(_ int, _ request, send func(answer) error) error {
			return send(told(variableLength, size, block{0, 8192}, block{4096, 8192}))
		}, "makes no sense"},
		"of no size": {func(_ int, _ request, send func(answer) error) error {
			return send(told(variableLength, size, block{0, 0}))
		}, "makes no sense"},
		"beyond the end": {func(_ int, _ request, send func(answer) error) error {
			return send(told(variableLength, size, block{size, 4096}))
		}, "makes no sense"},
		"two fixed sizes": {func(_ int, _ request, send func(answer) error) error {
			return send(told(fixedLength, size, block{0, 4096}, block{8192, 8192}))
		}, "makes no sense"},
		"a negative place": {func(_ int, _ request, send func(answer) error) error {
			return send(told(variableLength, size, block{-4096, 8192}))
		}, "makes no sense"},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := serve(t, &sidecar{answer: c.answer}).Delta(t.Context(), question)
			if d != nil || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, %v", d, err)
			}
		})
	}
}

// TestADriverWithoutTheServiceIsNotAsked: nor one whose object would have this process's own token.
func TestADriverWithoutTheServiceIsNotAsked(t *testing.T) {
	s := &sidecar{answer: func(int, request, func(answer) error) error { return nil }}
	tr := serve(t, s)
	other := question
	other.Driver = "none.example.com"
	if _, err := tr.Delta(t.Context(), other); !errors.Is(err, ErrNoService) {
		t.Error(err)
	}
	if none, one := tr.Offers(t.Context(), other.Driver), tr.Offers(t.Context(), question.Driver); !errors.Is(none, ErrNoService) || one != nil {
		t.Error(none, one)
	}
	tr.Own = func() (string, error) { return jwt("backup"), nil }
	if _, err := tr.Delta(t.Context(), question); !errors.Is(err, ErrNoService) {
		t.Error(err)
	}
	if _, err := clusterWith(t, "127.0.0.1:1", []byte("none")).Delta(t.Context(), question); err == nil {
		t.Error("a service that nothing vouches for was asked")
	}
	if s.calls > 0 {
		t.Errorf("it was asked %d times", s.calls)
	}
}

// TestAudiencesMayBeOneOrMany.
func TestAudiencesMayBeOneOrMany(t *testing.T) {
	token := func(text string) string { return "x." + base64.RawURLEncoding.EncodeToString([]byte(text)) + ".x" }
	for text, want := range map[string]string{`{"aud":"one"}`: "[one]", `{"aud":["one","two"]}`: "[one two]", `{}`: "[]", `{"aud":1}`: "[]", `x`: "[]"} {
		if got := fmt.Sprint(claimsOf(token(text)).Audiences); got != want {
			t.Errorf("%s: %s", text, got)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	data, err := serverCodec{}.Marshal(&answer{variableLength, 1 << 30, []block{{0, 4096}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte{0x1a, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		var a answer
		if err := a.unmarshal(data); err != nil && !errors.Is(err, errWire) {
			t.Error(err)
		}
		var g gathering
		first := true
		if err := g.take(a, 0, &first); err != nil && !errors.Is(err, changes.ErrAnswer) {
			t.Error(err)
		}
	})
}
