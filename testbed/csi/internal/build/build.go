// Package build makes the storage driver's image from source and keeps it in a cache outside of the repository.
package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// sidecars are the commands of the nested module that the image carries besides the driver.
var sidecars = []string{
	"github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner",
	"github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer",
	"github.com/kubernetes-csi/external-snapshotter/v8/cmd/csi-snapshotter",
	"github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller",
}

// crdModule holds the CRDs of snapshots and of group snapshots.
const crdModule = "github.com/kubernetes-csi/external-snapshotter/client/v8"

// Builder builds from a module directory into a cache.
type Builder struct {
	// Source is the directory of the module davit.dev/davit/testbed/csi.
	Source string
	// Cache is where results are kept.
	Cache string
	// Progress hears what takes time.
	Progress io.Writer
}

// CacheDir is the bed's cache: $DAVIT_CACHE, else davit in the user's cache directory.
func CacheDir() (string, error) {
	if dir := os.Getenv("DAVIT_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache directory: %w; set DAVIT_CACHE", err)
	}
	return filepath.Join(dir, "davit"), nil
}

// SourceDir finds the module this command is run in.
func SourceDir(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find module: %w", err)
	}
	dir := filepath.Dir(strings.TrimSpace(string(out)))
	if _, err := os.Stat(filepath.Join(dir, "sidecars", "go.mod")); err != nil {
		return "", fmt.Errorf("find module: %s is not testbed/csi; use go run -C testbed/csi ./cmd/csi-build", dir)
	}
	return dir, nil
}

// Result is a finished image.
type Result struct {
	Ref string `json:"ref"`
	Tar string `json:"tar"`
}

// Plan names the image of the present sources without building it.
func (b Builder) Plan() (Result, error) {
	key, err := hashTree(b.Source)
	if err != nil {
		return Result{}, err
	}
	return Result{
		Ref: "bed.davit.dev/csi:" + key,
		Tar: filepath.Join(b.Cache, "images", "csi-"+key+".tar"),
	}, nil
}

// Image builds the image of the present sources, unless the cache has it.
func (b Builder) Image(ctx context.Context) (Result, error) {
	result, err := b.Plan()
	if err != nil {
		return result, err
	}
	if _, err := os.Stat(result.Tar); err == nil {
		return result, nil
	}
	unlock, err := b.lock()
	if err != nil {
		return result, err
	}
	defer unlock()
	if _, err := os.Stat(result.Tar); err == nil {
		return result, nil // somebody else built it while we waited
	}
	files, err := b.sidecars(ctx)
	if err != nil {
		return result, err
	}
	driver, err := os.MkdirTemp(b.Cache, ".driver-*")
	if err != nil {
		return result, fmt.Errorf("create build directory: %w", err)
	}
	defer os.RemoveAll(driver)
	if err := b.goBuild(ctx, b.Source, driver, "./cmd/reflink-csi", "./cmd/snapshot-metadata"); err != nil {
		return result, err
	}
	files = append(files, filepath.Join(driver, "reflink-csi"), filepath.Join(driver, "snapshot-metadata"))
	return result, pack(result, files)
}

// lock keeps two builds from doing the same work at once.
func (b Builder) lock() (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Join(b.Cache, "bin"), 0o755); err != nil {
		return nil, fmt.Errorf("create cache: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(b.Cache, "csi.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock cache: %w", err), file.Close())
	}
	return func() { _ = file.Close() }, nil
}

// sidecars returns the paths of the built sidecars. Their versions are their module's go.mod, so that is the key.
func (b Builder) sidecars(ctx context.Context) ([]string, error) {
	module := filepath.Join(b.Source, "sidecars")
	key, err := hashFiles([]string{filepath.Join(module, "go.mod"), filepath.Join(module, "go.sum")})
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.Cache, "bin", "csi-sidecars-"+key)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		if err := b.buildSidecars(ctx, module, dir); err != nil {
			return nil, err
		}
	}
	var files []string
	for _, pkg := range sidecars {
		files = append(files, filepath.Join(dir, filepath.Base(pkg)))
	}
	return files, nil
}

func (b Builder) buildSidecars(ctx context.Context, module, dir string) error {
	start := time.Now()
	fmt.Fprintln(b.Progress, "building the CSI sidecars from source, some minutes the first time")
	// The go command of a build that was killed may go on, and the lock is free by then: it has
	// a directory of its own, which the next build takes away.
	old, err := filepath.Glob(dir + ".new*")
	if err != nil {
		return fmt.Errorf("find unfinished builds: %w", err)
	}
	for _, unfinished := range old {
		if err := os.RemoveAll(unfinished); err != nil {
			return fmt.Errorf("clear unfinished build: %w", err)
		}
	}
	fresh, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".new-*")
	if err != nil {
		return fmt.Errorf("create build directory: %w", err)
	}
	if err := b.goBuild(ctx, module, fresh, sidecars...); err != nil {
		return err
	}
	if err := os.Rename(fresh, dir); err != nil {
		return fmt.Errorf("publish sidecars: %w", err)
	}
	fmt.Fprintf(b.Progress, "built the CSI sidecars in %s\n", time.Since(start).Round(time.Second))
	return nil
}

func (b Builder) goBuild(ctx context.Context, module, dir string, packages ...string) error {
	args := append([]string{"build", "-trimpath", "-ldflags", "-s -w", "-o", dir + "/"}, packages...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	cmd.Stdout, cmd.Stderr = b.Progress, b.Progress
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s: %w", strings.Join(packages, " "), err)
	}
	return nil
}

// CRDs reads the CRDs of snapshots and group snapshots out of the module that defines them.
func (b Builder) CRDs(ctx context.Context) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", crdModule)
	cmd.Dir = filepath.Join(b.Source, "sidecars")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("download %s: %w: %s", crdModule, err, out)
	}
	cmd = exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", crdModule)
	cmd.Dir = filepath.Join(b.Source, "sidecars")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", crdModule, err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "config", "crd", "*snapshot.storage.k8s.io_*.yaml"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("find CRDs: none in %s", crdModule)
	}
	var all []byte
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read CRD: %w", err)
		}
		all = append(append(all, "---\n"...), data...)
	}
	return all, nil
}

// hashTree keys the image by everything it is built from.
func hashTree(root string) (string, error) {
	var files []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		name := entry.Name()
		if err == nil && !entry.IsDir() && !strings.HasSuffix(name, "_test.go") &&
			(filepath.Ext(name) == ".go" || name == "go.mod" || name == "go.sum") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("list sources: %w", err)
	}
	return hashFiles(files)
}

func hashFiles(files []string) (string, error) {
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version(), runtime.GOARCH)
	slices.Sort(files)
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("read source: %w", err)
		}
		fmt.Fprintln(sum, filepath.Base(path), len(data))
		sum.Write(data)
	}
	return hex.EncodeToString(sum.Sum(nil))[:12], nil
}
