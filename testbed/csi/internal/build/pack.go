package build

import (
	"archive/tar"
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

// pack puts static binaries into /bin of an image with one layer.
func pack(result Result, files []string) error {
	if err := os.MkdirAll(filepath.Dir(result.Tar), 0o755); err != nil {
		return fmt.Errorf("create image directory: %w", err)
	}
	layerFile, err := writeLayer(filepath.Dir(result.Tar), files)
	if err != nil {
		return err
	}
	defer os.Remove(layerFile)
	layer, err := tarball.LayerFromFile(layerFile)
	if err != nil {
		return fmt.Errorf("read layer: %w", err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return fmt.Errorf("assemble image: %w", err)
	}
	image, err = mutate.ConfigFile(image, config(image))
	if err != nil {
		return fmt.Errorf("configure image: %w", err)
	}
	tag, err := name.NewTag(result.Ref)
	if err != nil {
		return fmt.Errorf("parse reference: %w", err)
	}
	fresh := result.Tar + ".new"
	if err := tarball.WriteToFile(fresh, tag, image); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	return os.Rename(fresh, result.Tar)
}

func config(image v1.Image) *v1.ConfigFile {
	c, err := image.ConfigFile()
	if err != nil {
		c = &v1.ConfigFile{}
	}
	c = c.DeepCopy()
	c.OS, c.Architecture = "linux", runtime.GOARCH
	c.Created = v1.Time{Time: time.Unix(0, 0).UTC()}
	c.Config.Env = []string{"PATH=/bin"}
	return c
}

func writeLayer(dir string, files []string) (path string, err error) {
	file, err := os.CreateTemp(dir, ".layer-*")
	if err != nil {
		return "", fmt.Errorf("create layer: %w", err)
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			_ = os.Remove(file.Name())
		}
	}()
	w := tar.NewWriter(file)
	for _, dir := range []string{"bin/", "csi/", "tmp/"} {
		if err := w.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			return "", fmt.Errorf("write layer: %w", err)
		}
	}
	for _, source := range files {
		if err := addBinary(w, source); err != nil {
			return "", fmt.Errorf("add %s: %w", source, err)
		}
	}
	return file.Name(), w.Close()
}

func addBinary(w *tar.Writer, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	header := &tar.Header{Name: "bin/" + filepath.Base(path), Typeflag: tar.TypeReg, Mode: 0o755, Size: info.Size()}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(w, file)
	return err
}
