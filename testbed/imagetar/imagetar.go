// Package imagetar packs static binaries into one-layer image tars that 'ctr images import' takes.
// The same input gives the same bytes.
package imagetar

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Entry is one thing in the image. Exactly one of File, Link and Dir is used; Data stands for an inline file.
type Entry struct {
	Path string // inside the image, without a leading slash
	File string // on the host
	Link string // symbolic link target
	Data string
	Dir  bool
	Mode int64
}

// Image says what to pack.
type Image struct {
	Ref        string
	Entries    []Entry
	Entrypoint []string
	Env        []string
}

// Write packs the image into the tar at path, in one step.
func Write(path string, img Image) error {
	var layer bytes.Buffer
	if err := writeLayer(&layer, img.Entries); err != nil {
		return fmt.Errorf("pack %s: %w", img.Ref, err)
	}
	built, err := assemble(layer.Bytes(), img)
	if err != nil {
		return fmt.Errorf("assemble %s: %w", img.Ref, err)
	}
	tag, err := name.NewTag(img.Ref)
	if err != nil {
		return fmt.Errorf("parse reference: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("create image directory: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".image-*")
	if err != nil {
		return fmt.Errorf("create image: %w", err)
	}
	defer os.Remove(tmp.Name())
	err = errors.Join(tarball.Write(tag, built, tmp), tmp.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(tmp.Name(), path)
}

func assemble(layer []byte, img Image) (v1.Image, error) {
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer)), nil })
	if err != nil {
		return nil, err
	}
	built, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		return nil, err
	}
	cfg, err := built.ConfigFile()
	if err != nil {
		return nil, err
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", runtime.GOARCH
	cfg.Created = v1.Time{Time: time.Unix(0, 0).UTC()}
	cfg.Config.Entrypoint = img.Entrypoint
	cfg.Config.Env = append([]string{"PATH=/usr/local/bin:/usr/bin:/bin:/sbin"}, img.Env...)
	return mutate.ConfigFile(built, cfg)
}

func writeLayer(w io.Writer, entries []Entry) error {
	tw := tar.NewWriter(w)
	for _, e := range entries {
		if err := writeEntry(tw, e); err != nil {
			return fmt.Errorf("add %s: %w", e.Path, err)
		}
	}
	return tw.Close()
}

func writeEntry(tw *tar.Writer, e Entry) error {
	hdr := &tar.Header{Name: e.Path, Mode: e.Mode, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	if hdr.Mode == 0 {
		hdr.Mode = 0o755
	}
	switch {
	case e.Dir:
		hdr.Typeflag, hdr.Name = tar.TypeDir, e.Path+"/"
		return tw.WriteHeader(hdr)
	case e.Link != "":
		hdr.Typeflag, hdr.Linkname = tar.TypeSymlink, e.Link
		return tw.WriteHeader(hdr)
	}
	data := []byte(e.Data)
	if e.File != "" {
		var err error
		if data, err = os.ReadFile(e.File); err != nil {
			return err
		}
	}
	hdr.Typeflag, hdr.Size = tar.TypeReg, int64(len(data))
	if err := tw.WriteHeader(hdr); err != nil {
		return err
	}
	_, err := tw.Write(data)
	return err
}
