// Package build makes the binaries of the test bed from Go modules and keeps them in a cache keyed by version.
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
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Versions of what the bed runs.
const (
	Kubernetes = "v1.34.4"
	Etcd       = "v3.6.5"
	VersityGW  = "v1.8.0"
	CoreDNS    = "v1.15.0"
	LocalPath  = "v0.0.30"
)

// binary is one executable: where it comes from and where it is kept.
type binary struct {
	name    string
	dir     string // below <cache>/bin
	module  string // source module below testbed/, or "" for 'go install'
	pkg     string
	ldflags string
	sources bool // key the directory by a hash of the module's own sources
}

func binaries() []binary {
	kube := "-s -w -X k8s.io/component-base/version.gitVersion=" + Kubernetes +
		" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=" + strings.Split(Kubernetes, ".")[1]
	var list []binary
	for _, name := range []string{"kubelet", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubectl"} {
		list = append(list, binary{name: name, dir: "k8s-" + Kubernetes, module: "k8s", pkg: "k8s.io/kubernetes/cmd/" + name, ldflags: kube})
	}
	list = append(list,
		binary{name: "etcd", dir: "etcd-" + Etcd, module: "k8s", pkg: "go.etcd.io/etcd/server/v3"},
		binary{name: "versitygw", dir: "versitygw-" + VersityGW, pkg: "github.com/versity/versitygw/cmd/versitygw@" + VersityGW},
		binary{name: "coredns", dir: "coredns-" + CoreDNS, pkg: "github.com/coredns/coredns@" + CoreDNS},
		binary{name: "local-path-provisioner", dir: "local-path-provisioner-" + LocalPath, pkg: "github.com/rancher/local-path-provisioner@" + LocalPath},
	)
	for _, name := range []string{"bed-pause", "bed-registry", "bed-tls"} {
		list = append(list, binary{name: name, dir: "testbed", module: ".", pkg: "./cmd/" + name, sources: true})
	}
	return list
}

// Set finds binaries by name after Build.
type Set map[string]string

// Path returns where a binary is; it panics on a name that Build does not know, which is a mistake in the bed's own code.
func (s Set) Path(name string) string {
	path, ok := s[name]
	if !ok {
		panic("no such binary: " + name)
	}
	return path
}

// CacheDir is where binaries and images are kept: $DAVIT_CACHE, else davit in the user's cache directory.
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

// SourceDir finds the directory testbed of a checkout: the bed builds from its own sources.
func SourceDir() (string, error) {
	var tried []string
	if dir := os.Getenv("DAVIT_TESTBED"); dir != "" {
		tried = append(tried, dir)
	}
	if _, file, _, ok := runtime.Caller(0); ok && filepath.IsAbs(file) {
		tried = append(tried, filepath.Dir(filepath.Dir(file)))
	}
	if wd, err := os.Getwd(); err == nil {
		for dir := wd; dir != "/"; dir = filepath.Dir(dir) {
			tried = append(tried, filepath.Join(dir, "testbed"), dir)
		}
	}
	for _, dir := range tried {
		if _, err := os.Stat(filepath.Join(dir, "k8s", "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("find the test bed's sources: run inside a checkout, or set DAVIT_TESTBED to its directory 'testbed'")
}

// All builds what is missing in the cache and returns where everything is. Progress goes to log.
func All(ctx context.Context, log io.Writer) (Set, error) {
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	unlock, err := lock(filepath.Join(cache, "bin"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	src, err := SourceDir()
	if err != nil {
		return nil, err
	}
	hash, err := hashSources(src)
	if err != nil {
		return nil, err
	}
	set := Set{}
	for _, b := range binaries() {
		dir := filepath.Join(cache, "bin", b.dir)
		if b.sources {
			dir += "-" + hash
		}
		set[b.name] = filepath.Join(dir, b.name)
		if _, err := os.Stat(set[b.name]); err == nil {
			continue
		}
		if err := b.build(ctx, src, dir, log); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// lock keeps two builds from doing the same eight minutes of work twice.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create cache: %w; set DAVIT_CACHE to a directory you may write", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open cache lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock cache: %w", err)
	}
	return func() { _ = f.Close() }, nil
}

// build leaves the finished binary in dir in one step: an interrupted build leaves nothing that looks finished.
func (b binary) build(ctx context.Context, src, dir string, log io.Writer) error {
	if err := checkGo(ctx); err != nil {
		return err
	}
	start := time.Now()
	fmt.Fprintf(log, "building %s ...\n", b.name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("create cache: %w", err)
	}
	tmp, err := os.MkdirTemp(dir, ".build-")
	if err != nil {
		return fmt.Errorf("create build directory: %w", err)
	}
	defer os.RemoveAll(tmp)
	cmd := b.command(ctx, src, tmp)
	stop := heartbeat(log, b.name, start)
	out, err := cmd.CombinedOutput()
	stop()
	if err != nil {
		return fmt.Errorf("build %s: %w: %s", b.name, err, strings.TrimSpace(string(out)))
	}
	if err := os.Rename(filepath.Join(tmp, b.name), filepath.Join(dir, b.name)); err != nil {
		return fmt.Errorf("store %s: %w", b.name, err)
	}
	fmt.Fprintf(log, "built %s in %s\n", b.name, time.Since(start).Round(time.Second))
	return nil
}

// minGo is the minor version of Go that the modules need.
const minGo = 26

func checkGo(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "go", "env", "GOVERSION").Output()
	if err != nil {
		return fmt.Errorf("find Go: %w; install Go 1.%d or newer and put it on PATH", err, minGo)
	}
	var minor int
	version := strings.TrimSpace(string(out))
	if _, err := fmt.Sscanf(version, "go1.%d", &minor); err == nil && minor < minGo {
		return fmt.Errorf("check Go: %s is too old; install Go 1.%d or newer", version, minGo)
	}
	return nil
}

func (b binary) command(ctx context.Context, src, out string) *exec.Cmd {
	ldflags := b.ldflags
	if ldflags == "" {
		ldflags = "-s -w"
	}
	args := []string{"install", "-trimpath", "-ldflags", ldflags, b.pkg}
	if b.module != "" {
		args = []string{"build", "-trimpath", "-ldflags", ldflags, "-o", filepath.Join(out, b.name), b.pkg}
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOBIN="+out)
	cmd.Dir = out
	if b.module != "" {
		cmd.Dir = filepath.Join(src, b.module)
	}
	return cmd
}

// heartbeat shows that a long build is alive.
func heartbeat(log io.Writer, name string, start time.Time) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(20 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case now := <-tick.C:
				fmt.Fprintf(log, "still building %s (%s)\n", name, now.Sub(start).Round(time.Second))
			}
		}
	}()
	return func() { close(done); <-ended }
}

// hashSources covers what the bed's own small binaries are made of.
func hashSources(src string) (string, error) {
	h := sha256.New()
	paths := []string{"go.sum"}
	for _, dir := range []string{"cmd/bed-pause", "cmd/bed-registry", "cmd/bed-tls"} {
		found, err := filepath.Glob(filepath.Join(src, dir, "*.go"))
		if err != nil {
			return "", fmt.Errorf("list sources: %w", err)
		}
		for _, f := range found {
			rel, _ := filepath.Rel(src, f)
			paths = append(paths, rel)
		}
	}
	for _, rel := range paths {
		data, err := os.ReadFile(filepath.Join(src, rel))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("hash sources: %w", err)
		}
		fmt.Fprintf(h, "%s %d\n", rel, len(data))
		h.Write(data)
	}
	return hex.EncodeToString(h.Sum(nil))[:12], nil
}
