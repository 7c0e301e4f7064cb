// Package tracker asks a CSI driver which blocks of a volume were changed between
// two of its snapshots, through the service that external-snapshot-metadata
// offers beside the driver (KEP 3314). What it is told is checked for being an
// answer, and for nothing else: see package changes.
package tracker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/internal/volume/changes"
)

// ErrNoService says that the volume's driver does not tell what was changed.
var ErrNoService = errors.New("the driver does not tell which blocks were changed")

// Kind is that of the objects by which drivers say where they are asked.
var Kind = schema.GroupVersionKind{Group: "cbt.storage.k8s.io", Version: "v1beta1", Kind: "SnapshotMetadataService"}

const (
	// askFor bounds the whole of an answer: reading everything takes not much longer.
	askFor = 2 * time.Minute
	// atOnce is how many ranges a message may have, so that it stays small.
	atOnce = 4096
	// tokenFor is how long a token is good, in seconds; no API server gives less.
	tokenFor = 600
)

// Tracker asks drivers. It is safe for use by several goroutines.
type Tracker struct {
	// Client reads the drivers' objects and asks for tokens.
	Client client.Client
	// Account is whom a driver is to know the asker as.
	Account client.ObjectKey
	// Own returns the token by which the API server knows this process; empty where
	// it uses none.
	Own func() (string, error)
}

// Question asks what was changed between two snapshots of one volume.
type Question struct {
	Driver string
	// Base is what the driver calls the older one.
	Base string
	// Namespace and Target name the VolumeSnapshot of the younger one.
	Namespace, Target string
}

// service is where a driver is asked.
type service struct {
	audience, address string
	authority         []byte
}

// Offers returns an error where the driver does not say that it can be asked.
func (t *Tracker) Offers(ctx context.Context, driver string) error {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	_, err := t.service(ctx, driver)
	return err
}

// Delta returns what was changed. An error means that nothing is known.
func (t *Tracker) Delta(ctx context.Context, q Question) (*changes.Delta, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askFor, fmt.Errorf("no whole answer within %s", askFor))
	defer cancel()
	d, err := t.delta(ctx, q)
	if err != nil && ctx.Err() != nil {
		err = errors.Join(err, context.Cause(ctx))
	}
	if err != nil {
		return nil, fmt.Errorf("ask driver %s which blocks were changed: %w", q.Driver, err)
	}
	return d, nil
}

func (t *Tracker) delta(ctx context.Context, q Question) (*changes.Delta, error) {
	s, err := t.service(ctx, q.Driver)
	if err != nil {
		return nil, err
	}
	token, err := t.token(ctx, s.audience)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(s.authority) {
		return nil, fmt.Errorf("%s %s: its caCert holds no certificate", Kind.Kind, q.Driver)
	}
	trust := credentials.NewTLS(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})
	conn, err := grpc.NewClient(s.address, grpc.WithTransportCredentials(trust), grpc.WithDefaultCallOptions(grpc.ForceCodec(codec{})))
	if err != nil {
		return nil, fmt.Errorf("reach %s: %w", s.address, err)
	}
	defer conn.Close() //nolint:errcheck // nothing more is asked
	r := &request{token: token, namespace: q.Namespace, base: q.Base, target: q.Target, most: atOnce}
	return ask(ctx, conn, r)
}

// ask goes on asking from where the last answer ended, until one says nothing
// more: there are drivers that end an answer at some number of ranges as if it
// were whole.
func ask(ctx context.Context, conn grpc.ClientConnInterface, r *request) (*changes.Delta, error) {
	var g gathering
	for {
		before := g.end
		if err := g.gather(ctx, conn, r); err != nil {
			return nil, err
		}
		if g.end == before || g.end >= g.capacity {
			break
		}
		r.from = g.end
	}
	if g.delta == nil {
		return nil, fmt.Errorf("%w: it is empty, and does not even say how large the volume is", changes.ErrAnswer)
	}
	return g.delta, nil
}

// gathering puts answers together.
type gathering struct {
	delta                    *changes.Delta
	kind, capacity, end, one int64
}

func (g *gathering) gather(ctx context.Context, conn grpc.ClientConnInterface, r *request) error {
	ctx, cancel := context.WithCancel(ctx) // an answer that is not read to its end is called off
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, deltaMethod)
	if err != nil {
		return err
	}
	if err := errors.Join(stream.SendMsg(r), stream.CloseSend()); err != nil && !errors.Is(err, io.EOF) { // then the answer says why
		return err
	}
	for first := true; ; {
		var a answer
		switch err := stream.RecvMsg(&a); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := g.take(a, r.from, &first); err != nil {
			return err
		}
	}
}

// take checks a message for what the service promises, and takes note of it.
func (g *gathering) take(a answer, from int64, first *bool) error {
	if g.delta == nil {
		var err error
		if g.delta, err = changes.NewDelta(a.capacity); err != nil {
			return err
		}
		g.kind, g.capacity = a.kind, a.capacity
	}
	if a.capacity != g.capacity || a.kind != g.kind || a.kind != fixedLength && a.kind != variableLength {
		return fmt.Errorf("%w: a volume of %d bytes and kind %d, after one of %d and kind %d", changes.ErrAnswer, a.capacity, a.kind, g.capacity, g.kind)
	}
	for _, b := range a.blocks {
		goesOn := *first && b.offset >= 0 && b.offset+b.size > from // it may begin before where it was asked for
		if b.size <= 0 || b.offset < g.end && !goesOn {
			return fmt.Errorf("%w: %d bytes at %d after others up to %d", changes.ErrAnswer, b.size, b.offset, g.end)
		}
		if g.one == 0 {
			g.one = b.size
		}
		if g.kind == fixedLength && b.size != g.one && b.offset+b.size < g.capacity {
			return fmt.Errorf("%w: blocks of %d and of %d bytes are not of one length", changes.ErrAnswer, g.one, b.size)
		}
		if err := g.delta.Change(b.offset, b.size); err != nil {
			return err
		}
		g.end, *first = b.offset+b.size, false
	}
	return nil
}

// service finds where a driver is asked.
func (t *Tracker) service(ctx context.Context, driver string) (service, error) {
	var s service
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(Kind)
	err := t.Client.Get(ctx, client.ObjectKey{Name: driver}, o)
	if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
		return s, fmt.Errorf("%w: there is no %s %s of %s", ErrNoService, Kind.Kind, driver, Kind.GroupVersion())
	}
	if err != nil {
		return s, fmt.Errorf("get %s: %w", Kind.Kind, err)
	}
	s.address, _, _ = unstructured.NestedString(o.Object, "spec", "address")
	s.audience, _, _ = unstructured.NestedString(o.Object, "spec", "audience")
	authority, _, _ := unstructured.NestedString(o.Object, "spec", "caCert")
	if s.authority, err = base64.StdEncoding.DecodeString(authority); err != nil || s.address == "" || s.audience == "" {
		return s, fmt.Errorf("%w: %s %s names no address, audience or certificate", ErrNoService, Kind.Kind, driver)
	}
	return s, nil
}

// token asks for one that is good for the service and for nobody else: were it good for
// the API server too, whoever made the service's object could act as this process.
func (t *Tracker) token(ctx context.Context, audience string) (string, error) {
	own, err := t.Own()
	if err != nil {
		return "", fmt.Errorf("read own token: %w", err)
	}
	if slices.Contains(claimsOf(own).Audiences, audience) {
		return "", fmt.Errorf("%w: its audience %q is the API server's", ErrNoService, audience)
	}
	req := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}, ExpirationSeconds: new(int64)}}
	*req.Spec.ExpirationSeconds = tokenFor
	if pod := claimsOf(own).Kubernetes.Pod; pod.Name != "" { // it ends with this process, as the own one does
		req.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: t.Account.Namespace, Name: t.Account.Name}}
	if err := t.Client.SubResource("token").Create(ctx, account, req); err != nil {
		return "", fmt.Errorf("get token for the service: %w", err)
	}
	if got := claimsOf(req.Status.Token).Audiences; !slices.Equal(got, audiences{audience}) {
		return "", fmt.Errorf("get token for the service: it is for %q, not for %q alone", got, audience)
	}
	return req.Status.Token, nil
}

// claims are what a token says of itself.
type claims struct {
	Audiences  audiences `json:"aud"`
	Kubernetes struct {
		Pod struct {
			Name string    `json:"name"`
			UID  types.UID `json:"uid"`
		} `json:"pod"`
	} `json:"kubernetes.io"`
}

// audiences are several, or one by itself.
type audiences []string

// UnmarshalJSON implements json.Unmarshaler.
func (a *audiences) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*a = audiences{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(a))
}

// claimsOf reads a token, as far as it can be read.
func claimsOf(token string) claims {
	var c claims
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return c
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(data, &c) != nil {
		return claims{}
	}
	return c
}
