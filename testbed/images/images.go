// Package images builds the test bed's workload images from Debian packages and from source, as tars that
// 'ctr -n k8s.io images import' takes. Results are cached under a hash of their recipe.
package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"davit.dev/davit/testbed/build"
)

// registry is the name under which the images are known; nothing is pulled from it.
const registry = "bed.davit.dev/"

// Image is a finished image.
type Image struct {
	Tar string // path of the tar to import
	Ref string // reference to use in manifests, with imagePullPolicy: Never
}

// Names lists the images that Build knows.
func Names() []string {
	var names []string
	for _, r := range recipes {
		names = append(names, r.name)
	}
	return names
}

// Build returns the image with a name and makes it when the cache does not have it. Progress hears what takes time.
func Build(ctx context.Context, cacheDir, name string, progress io.Writer) (Image, error) {
	for _, r := range recipes {
		if r.name == name {
			return r.make(ctx, cacheDir, progress)
		}
	}
	return Image{}, fmt.Errorf("find image %q: there are %s", name, strings.Join(Names(), ", "))
}

func (r recipe) make(ctx context.Context, cacheDir string, progress io.Writer) (Image, error) {
	source, err := build.SourceDir()
	if err != nil {
		return Image{}, err
	}
	key, err := r.key(source)
	if err != nil {
		return Image{}, fmt.Errorf("hash recipe of %s: %w", r.name, err)
	}
	dir := filepath.Join(cacheDir, "images")
	image := Image{Tar: filepath.Join(dir, r.name+"-"+key+".tar"), Ref: registry + r.name + ":" + key}
	unlock, err := lock(dir, r.name)
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	if _, err := os.Stat(image.Tar); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return image, err
	}
	start := time.Now()
	fmt.Fprintf(progress, "building image %s ...\n", r.name)
	if err := r.write(ctx, source, image, progress); err != nil {
		return Image{}, fmt.Errorf("build image %s: %w", r.name, err)
	}
	fmt.Fprintf(progress, "built image %s in %s\n", r.name, time.Since(start).Round(time.Second))
	return image, nil
}

// lock makes a second builder wait for the first and then find its result.
func lock(dir, name string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create image cache: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, "."+name+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open image lock: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock image cache: %w", err), file.Close())
	}
	return func() { _ = file.Close() }, nil
}

// write gathers the layers in a scratch directory beside the result and renames the result into place.
func (r recipe) write(ctx context.Context, source string, image Image, progress io.Writer) error {
	scratch, err := os.MkdirTemp(filepath.Dir(image.Tar), "."+r.name+"-*")
	if err != nil {
		return fmt.Errorf("create scratch directory: %w", err)
	}
	defer os.RemoveAll(scratch)
	var layers []string
	if len(r.packages) > 0 {
		path := filepath.Join(scratch, "debian.tar")
		if err := r.debootstrap(ctx, path, progress); err != nil {
			return err
		}
		layers = append(layers, path)
	}
	path := filepath.Join(scratch, "own.tar")
	if err := r.ownLayer(ctx, source, scratch, path); err != nil {
		return err
	}
	fresh := filepath.Join(scratch, "image.tar")
	if err := writeImage(fresh, image.Ref, append(layers, path), r.config); err != nil {
		return err
	}
	return os.Rename(fresh, image.Tar)
}
