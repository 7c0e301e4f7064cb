// Package images looks after the container images of an application: where
// they can be had, and copying them into a registry that survives the site.
// It speaks the OCI distribution protocol by go-containerregistry.
package images

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"davit.dev/davit/internal/point"
)

// Errors that callers decide by.
var (
	// ErrAbsent says that the registry answered and has no such image.
	ErrAbsent = errors.New("no such image in the registry")
	// ErrDenied says that the registry answered and does not let the caller in.
	ErrDenied = errors.New("registry denies access")
	// ErrNoDigest says that it is not known which image of a name ran: its
	// nodes got it in another way than from a registry.
	ErrNoDigest = errors.New("the image's digest is not known")
	// ErrOther says that a registry has another image under the name.
	ErrOther = errors.New("the registry has another image under this name")
)

// Registries is how registries are spoken to.
type Registries struct {
	// Keys are the credentials by registry; nil means those of the person's
	// own container configuration (~/.docker/config.json).
	Keys authn.Keychain
	// Insecure are registries, host[:port], that may be spoken to without TLS.
	// The loopback address always may.
	Insecure  []string
	Transport http.RoundTripper // nil for the default one
}

func (r Registries) options(ctx context.Context) []remote.Option {
	keys := r.Keys
	if keys == nil {
		keys = authn.DefaultKeychain
	}
	opts := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(keys)}
	if r.Transport != nil {
		opts = append(opts, remote.WithTransport(r.Transport))
	}
	return opts
}

// parse reads a reference as container runtimes do: "nginx" is
// index.docker.io/library/nginx:latest.
func (r Registries) parse(reference string) (name.Reference, error) {
	var opts []name.Option
	if host, _, ok := strings.Cut(reference, "/"); ok && slices.Contains(r.Insecure, host) {
		opts = append(opts, name.Insecure)
	}
	ref, err := name.ParseReference(reference, opts...)
	if err != nil {
		return nil, fmt.Errorf("read image name: %w", err)
	}
	return ref, nil
}

// source is what an image is pulled as: by digest wherever that is known, so
// that it is the one that ran, whatever its tag means by now.
func (r Registries) source(image point.Image) (name.Reference, error) {
	ref, err := r.parse(image.Reference)
	if err != nil || image.Digest == "" {
		return ref, err
	}
	return ref.Context().Digest(image.Digest), nil
}

// Has asks the image's own registry for it: nil means that it is there.
// ErrAbsent, ErrDenied and ErrOther are answers; any other error is none.
func (r Registries) Has(ctx context.Context, image point.Image) error {
	ref, err := r.source(image)
	if err != nil {
		return err
	}
	return r.head(ctx, ref, image.Digest)
}

func (r Registries) head(ctx context.Context, ref name.Reference, digest string) error {
	found, err := remote.Head(ref, r.options(ctx)...)
	if err != nil {
		return fmt.Errorf("ask %s: %w", ref.Context().RegistryStr(), meaning(err))
	}
	if digest != "" && found.Digest.String() != digest {
		return fmt.Errorf("%w: %s is %s", ErrOther, ref, found.Digest)
	}
	return nil
}

// meaning gives a registry's answer one of this package's errors.
func meaning(err error) error {
	var answer *transport.Error
	if !errors.As(err, &answer) {
		return err
	}
	switch answer.StatusCode {
	case http.StatusNotFound:
		return ErrAbsent
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w (HTTP %d)", ErrDenied, answer.StatusCode)
	}
	return err
}

// Mirror is a place in a registry that keeps copies of images.
type Mirror struct {
	// Base is the registry and, if wanted, a path in it: host[:port][/path].
	Base string
	Registries
}

// Check tells whether the base can be one.
func (m Mirror) Check() error {
	host, _, _ := strings.Cut(m.Base, "/")
	_, err := m.parse(m.Base + "/x")
	if err != nil || strings.Contains(m.Base, "@") || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return fmt.Errorf("%q is no registry: want host[:port][/path], such as registry.example.com/mirror", m.Base)
	}
	return nil
}

// Name is what the copy of an image is called: the base, and then the whole
// name with its registry, so that two registries' images never meet. A port's
// colon, which a path cannot have, becomes a dash.
func (m Mirror) Name(image point.Image) (string, error) {
	ref, err := m.parse(image.Reference)
	if err != nil {
		return "", err
	}
	full := Prefix(m.Base, ref.Context().RegistryStr()) + "/" + ref.Context().RepositoryStr()
	if tag, ok := ref.(name.Tag); ok {
		return full + ":" + tag.TagStr(), nil
	}
	return full + "@" + ref.Identifier(), nil
}

// Prefix is where a mirror keeps what came from one registry.
func Prefix(base, registry string) string {
	return strings.TrimSuffix(base, "/") + "/" + strings.ReplaceAll(registry, ":", "-")
}

// Registry is the registry that an image's name means.
func Registry(reference string) (string, error) {
	ref, err := name.ParseReference(reference)
	if err != nil {
		return "", fmt.Errorf("read image name: %w", err)
	}
	return ref.Context().RegistryStr(), nil
}

// Has tells whether the mirror has the image, as Registries.Has does.
func (m Mirror) Has(ctx context.Context, image point.Image) error {
	ref, err := m.target(image)
	if err != nil {
		return err
	}
	return m.head(ctx, ref, image.Digest)
}

// Present is Has for who only wants to know: an error is no answer.
func (m Mirror) Present(ctx context.Context, image point.Image) (bool, error) {
	err := m.Has(ctx, image)
	if errors.Is(err, ErrAbsent) || errors.Is(err, ErrOther) {
		return false, nil
	}
	return err == nil, err
}

func (m Mirror) target(image point.Image) (name.Reference, error) {
	to, err := m.Name(image)
	if err != nil {
		return nil, err
	}
	return m.parse(to)
}

// Copied is what a copy took.
type Copied struct {
	Name    string // what the copy is called
	Digest  string // its digest, the same as the original's
	Present bool   // it was there already: nothing was copied
}

// Copy brings an image into the mirror, with all its platforms, under the same
// digest, and asks the mirror for it afterwards. from says how to speak to the
// image's own registry. Without a known digest it refuses with ErrNoDigest: a
// tag may mean another image by now.
func (m Mirror) Copy(ctx context.Context, image point.Image, from Registries) (Copied, error) {
	if image.Digest == "" {
		return Copied{}, ErrNoDigest
	}
	to, err := m.target(image)
	if err != nil {
		return Copied{}, err
	}
	done := Copied{Name: to.String(), Digest: image.Digest}
	if m.head(ctx, to, image.Digest) == nil {
		done.Present = true
		return done, nil
	}
	source, err := from.source(image)
	if err != nil {
		return Copied{}, err
	}
	found, err := remote.Get(source, from.options(ctx)...)
	if err != nil {
		return Copied{}, fmt.Errorf("read %s: %w", source, meaning(err))
	}
	if err := m.write(ctx, to, found); err != nil {
		return Copied{}, fmt.Errorf("write %s: %w", to, meaning(err))
	}
	if err := m.head(ctx, to, image.Digest); err != nil {
		return Copied{}, fmt.Errorf("look for the copy: %w", err)
	}
	return done, nil
}

// write copies one image, or an index with all images it lists. Layers that
// the registry has are not sent again.
func (m Mirror) write(ctx context.Context, to name.Reference, found *remote.Descriptor) error {
	if found.MediaType.IsIndex() {
		index, err := found.ImageIndex()
		if err != nil {
			return err
		}
		return remote.WriteIndex(to, index, m.options(ctx)...)
	}
	image, err := found.Image()
	if err != nil {
		return err
	}
	return remote.Write(to, image, m.options(ctx)...)
}
