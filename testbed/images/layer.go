package images

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
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

// ownLayer packs what is ours, on top of Debian or alone: scripts and the program.
func (r recipe) ownLayer(ctx context.Context, source, scratch, path string) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("create layer: %w", err)
	}
	w := tar.NewWriter(file)
	err = errors.Join(r.fillLayer(ctx, w, source, scratch), w.Close(), file.Close())
	if err != nil {
		return fmt.Errorf("write layer: %w", err)
	}
	return nil
}

func (r recipe) fillLayer(ctx context.Context, w *tar.Writer, source, scratch string) error {
	if len(r.packages) == 0 {
		for _, dir := range []string{"usr/", "usr/local/", "usr/local/bin/", "etc/"} {
			if err := w.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
				return err
			}
		}
		if err := w.WriteHeader(&tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}); err != nil {
			return err
		}
	}
	for _, script := range r.scripts {
		data, err := files.ReadFile("files/" + script)
		if err != nil {
			return err
		}
		if err := addFile(w, script, data); err != nil {
			return err
		}
	}
	if r.program == "" {
		return nil
	}
	path, err := r.compile(ctx, source, scratch)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return addFile(w, filepath.Base(path), data)
}

func addFile(w *tar.Writer, name string, data []byte) error {
	header := &tar.Header{Name: "usr/local/bin/" + name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(data))}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

// writeImage puts the layers together under the reference.
func writeImage(path, ref string, layers []string, config v1.Config) error {
	image := empty.Image
	for _, file := range layers {
		layer, err := tarball.LayerFromFile(file, tarball.WithCompressionLevel(gzip.BestSpeed))
		if err != nil {
			return fmt.Errorf("read layer: %w", err)
		}
		if image, err = mutate.AppendLayers(image, layer); err != nil {
			return fmt.Errorf("append layer: %w", err)
		}
	}
	whole, err := image.ConfigFile()
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	whole = whole.DeepCopy()
	whole.OS, whole.Architecture = "linux", runtime.GOARCH
	whole.Created = v1.Time{Time: time.Unix(0, 0).UTC()}
	whole.Config = config
	if image, err = mutate.ConfigFile(image, whole); err != nil {
		return fmt.Errorf("configure image: %w", err)
	}
	tag, err := name.NewTag(ref)
	if err != nil {
		return fmt.Errorf("parse reference: %w", err)
	}
	if err := tarball.WriteToFile(path, tag, image); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	return nil
}
