// Command image makes Davit's container image without a container runtime: one
// layer with the static binary, CA certificates if there are any, and what a
// process expects of a root directory. The same inputs give the same bytes.
//
//	go run ./build/image --binary bin/davit --tag davit.dev/davit:dev \
//	    --output dist/davit-image.tar [--push REGISTRY]
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Where things are in the image.
const (
	binaryPath = "usr/local/bin/davit"
	certsPath  = "etc/ssl/certs/ca-certificates.crt"
	user       = "65532:65532"
)

// epoch is the time of every file and of the image itself.
var epoch = time.Unix(0, 0).UTC()

type options struct {
	binary, tag, output, push, certs, arch string
	insecure                               bool
}

func main() {
	var o options
	flag.StringVar(&o.binary, "binary", "bin/davit", "static davit binary")
	flag.StringVar(&o.tag, "tag", "davit.dev/davit:dev", "the image's name")
	flag.StringVar(&o.output, "output", "", "write the image here, as a tar that container runtimes load")
	flag.StringVar(&o.push, "push", "", "also push it to this registry, host[:port][/path]")
	flag.StringVar(&o.certs, "ca-certificates", "/"+certsPath, "PEM file with the CA certificates to put in; none if it is missing")
	flag.StringVar(&o.arch, "arch", runtime.GOARCH, "the binary's architecture")
	flag.BoolVar(&o.insecure, "insecure", false, "push over plain HTTP")
	flag.Parse()
	if err := run(o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(o options, out io.Writer) error {
	if o.output == "" && o.push == "" {
		return errors.New("nothing to do: give --output or --push")
	}
	if err := checkStatic(o.binary); err != nil {
		return err
	}
	data, err := layerTar(o)
	if err != nil {
		return err
	}
	was := origin(data, o)
	if digest, ok := made(o.output, was); ok && o.push == "" {
		fmt.Fprintf(out, "%s %s in %s\n", o.tag, digest, o.output)
		return nil
	}
	image, err := build(data, o)
	if err != nil {
		return err
	}
	digest, err := image.Digest()
	if err != nil {
		return fmt.Errorf("digest image: %w", err)
	}
	if o.output != "" {
		if err := save(image, o); err != nil {
			return err
		}
		if err := note(o.output, was, digest.String()); err != nil { // only of one that is there: an older one is not this one
			return err
		}
		fmt.Fprintf(out, "%s %s in %s\n", o.tag, digest, o.output)
	}
	if o.push != "" {
		ref, err := pushed(image, o)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s@%s pushed\n", ref, digest)
	}
	return nil
}

// checkStatic refuses a binary that needs a dynamic linker: the image has none.
func checkStatic(binary string) error {
	f, err := elf.Open(binary)
	if err != nil {
		return fmt.Errorf("read binary: %w", err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is dynamically linked: build it with CGO_ENABLED=0", binary)
		}
	}
	return nil
}

// origin says in short what an image is made of: what is in it, its name, and the program that makes it.
func origin(layer []byte, o options) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s %s %x\n", o.tag, o.arch, sha256.Sum256(layer))
	if self, err := os.Executable(); err == nil {
		if program, err := os.ReadFile(self); err == nil {
			_, _ = h.Write(program)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// noted is where it is written down what an image was made of.
func noted(output string) string { return output + ".origin" }

// made tells whether the image is there already, and its digest: to make it again takes seconds, and who has loaded
// the tar would take it for another one.
func made(output, was string) (digest string, ok bool) {
	text, err := os.ReadFile(noted(output))
	if err != nil {
		return "", false
	}
	var size, modified int64
	var before string
	if n, _ := fmt.Sscan(string(text), &before, &digest, &size, &modified); n < 4 || before != was {
		return "", false
	}
	st, err := os.Stat(output)
	return digest, err == nil && st.Size() == size && st.ModTime().UnixNano() == modified
}

// note writes down what the image that was just made is made of.
func note(output, was, digest string) error {
	st, err := os.Stat(output)
	if err != nil {
		return fmt.Errorf("find image: %w", err)
	}
	if err := os.WriteFile(noted(output), fmt.Appendf(nil, "%s %s %d %d\n", was, digest, st.Size(), st.ModTime().UnixNano()), 0o600); err != nil {
		return fmt.Errorf("note what the image is made of: %w", err)
	}
	return nil
}

func build(data []byte, o options) (v1.Image, error) {
	// It is compressed for its digest, and not a second time when it is written.
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	}, tarball.WithCompressedCaching)
	if err != nil {
		return nil, fmt.Errorf("make layer: %w", err)
	}
	image, err := mutate.Append(empty.Image, mutate.Addendum{Layer: layer, History: v1.History{CreatedBy: "davit build/image", Created: v1.Time{Time: epoch}}})
	if err != nil {
		return nil, fmt.Errorf("make image: %w", err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("configure image: %w", err)
	}
	file = file.DeepCopy()
	file.Architecture, file.OS, file.Created = o.arch, "linux", v1.Time{Time: epoch}
	file.Config = v1.Config{
		Entrypoint: []string{"/" + binaryPath},
		User:       user,
		WorkingDir: "/",
		Env:        []string{"PATH=/usr/local/bin", "SSL_CERT_FILE=/" + certsPath, "HOME=/tmp"},
		Labels: map[string]string{
			"org.opencontainers.image.title":       "davit",
			"org.opencontainers.image.description": "Disaster recovery for Kubernetes",
			"org.opencontainers.image.licenses":    "Apache-2.0",
		},
	}
	image, err = mutate.ConfigFile(image, file)
	if err != nil {
		return nil, fmt.Errorf("configure image: %w", err)
	}
	return image, nil
}

// entry is one file or directory of the layer.
type entry struct {
	name string
	mode int64
	data []byte // nil for a directory
}

func layerTar(o options) ([]byte, error) {
	binary, err := os.ReadFile(o.binary)
	if err != nil {
		return nil, fmt.Errorf("read binary: %w", err)
	}
	entries := []entry{
		{name: "etc/", mode: 0o755},
		{name: "etc/group", mode: 0o644, data: []byte("root:x:0:\ndavit:x:65532:\n")},
		{name: "etc/passwd", mode: 0o644, data: []byte("root:x:0:0:root:/:/none\ndavit:x:65532:65532:davit:/tmp:/none\n")},
		{name: "etc/ssl/", mode: 0o755},
		{name: "etc/ssl/certs/", mode: 0o755},
	}
	certs, err := os.ReadFile(o.certs)
	switch {
	case err == nil:
		entries = append(entries, entry{name: certsPath, mode: 0o644, data: certs})
	case !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("read CA certificates: %w", err)
	}
	entries = append(entries,
		entry{name: "tmp/", mode: 0o1777},
		entry{name: "usr/", mode: 0o755},
		entry{name: "usr/local/", mode: 0o755},
		entry{name: "usr/local/bin/", mode: 0o755},
		entry{name: binaryPath, mode: 0o755, data: binary},
	)
	return writeTar(entries)
}

func writeTar(entries []entry) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: e.mode, ModTime: epoch, Format: tar.FormatPAX, Typeflag: tar.TypeReg, Size: int64(len(e.data))}
		if e.data == nil {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("write layer: %w", err)
		}
		if _, err := w.Write(e.data); err != nil {
			return nil, fmt.Errorf("write layer: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("write layer: %w", err)
	}
	return out.Bytes(), nil
}

// save writes the tar beside its final name first, so that a half-written one
// is never loaded.
func save(image v1.Image, o options) error {
	tag, err := name.NewTag(o.tag)
	if err != nil {
		return fmt.Errorf("read tag: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(o.output), 0o755); err != nil {
		return fmt.Errorf("make output directory: %w", err)
	}
	part, err := os.CreateTemp(filepath.Dir(o.output), filepath.Base(o.output)+".*") // others may build the same
	if err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	err = errors.Join(tarball.Write(tag, image, part), part.Chmod(0o644), part.Close())
	if err == nil {
		err = os.Rename(part.Name(), o.output)
	}
	if err != nil {
		return fmt.Errorf("write image: %w", errors.Join(err, os.Remove(part.Name())))
	}
	return nil
}

// pushed pushes the image under its last name and tag, as davit install
// --registry looks for it.
func pushed(image v1.Image, o options) (string, error) {
	var opts []name.Option
	if o.insecure {
		opts = append(opts, name.Insecure)
	}
	ref, err := name.ParseReference(o.push+"/"+path.Base(o.tag), opts...)
	if err != nil {
		return "", fmt.Errorf("read registry: %w", err)
	}
	if err := remote.Write(ref, image); err != nil {
		return "", fmt.Errorf("push image: %w", err)
	}
	return ref.String(), nil
}
