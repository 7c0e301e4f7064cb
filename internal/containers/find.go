package containers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Root is where the node's own files are, for a process that sees the node's
// processes: its parent is the runtime's, and lives outside of the container.
func Root() string { return filepath.Join("/proc", strconv.Itoa(os.Getppid()), "root") }

// usual are the sockets of runtimes, as distributions have them.
var usual = []string{
	"/run/containerd/containerd.sock", "/run/k3s/containerd/containerd.sock", "/var/run/crio/crio.sock",
	"/var/snap/microk8s/common/run/containerd.sock", "/run/k0s/containerd.sock",
}

// ErrNotFound says that no runtime was found that runs the pod.
var ErrNotFound = errors.New("container runtime of this node not found")

// Find dials the runtime that runs a pod: another one of the same machine is
// not this node's. A socket that is given is the only one that is tried.
func Find(ctx context.Context, socket, podUID string) (*Runtime, error) {
	try := []string{socket}
	if socket == "" {
		try = usual
		if found := ofParent("/proc", os.Getppid()); found != "" {
			try = append([]string{found}, usual...)
		}
	}
	errs := []error{ErrNotFound}
	for _, s := range try {
		path := filepath.Join(Root(), s)
		if _, err := os.Stat(path); err != nil {
			if socket != "" || !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
			continue
		}
		r, err := runs(ctx, path, podUID)
		if err == nil {
			return r, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", s, err))
	}
	return nil, fmt.Errorf("%w: install with --cri-socket", errors.Join(errs...))
}

func runs(ctx context.Context, path, podUID string) (*Runtime, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := Dial(path)
	if err != nil {
		return nil, err
	}
	all, err := r.Sandboxes(ctx)
	if err == nil && !slices.ContainsFunc(all, func(s Sandbox) bool { return s.UID == podUID }) {
		err = errors.New("does not run this very pod")
	}
	if err != nil {
		_ = r.Close()
		return nil, err
	}
	return r, nil
}

// ofParent is the runtime's socket as the parent process knows it: containerd
// starts it with the address of its own.
func ofParent(proc string, parent int) string {
	line, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(parent), "cmdline"))
	if err != nil {
		return ""
	}
	args := splitZero(line)
	for i, arg := range args {
		if (arg == "-address" || arg == "--address") && i+1 < len(args) && filepath.IsAbs(args[i+1]) {
			return filepath.Clean(args[i+1])
		}
	}
	return ""
}

func splitZero(line []byte) []string {
	var all []string
	start := 0
	for i, b := range line {
		if b == 0 {
			all = append(all, string(line[start:i]))
			start = i + 1
		}
	}
	return all
}

// Late is a runtime that is found when it is first needed, and looked for anew
// when it is not there to list its pods.
type Late struct {
	// Socket is where it is; empty means to look for it. PodUID is this pod's.
	Socket, PodUID string

	mu    sync.Mutex
	found *Runtime
}

func (l *Late) get(ctx context.Context) (*Runtime, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.found != nil {
		return l.found, nil
	}
	var err error
	l.found, err = Find(ctx, l.Socket, l.PodUID)
	return l.found, err
}

// lost lets go of a runtime that is not there any more: a connection that is kept would wait for longer and
// longer, up to two minutes, before it tries again.
func (l *Late) lost(r *Runtime, err error) {
	if status.Code(err) != codes.Unavailable {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.found == r {
		l.found = nil
		_ = r.Close()
	}
}

// Sandboxes is Runtime.Sandboxes.
func (l *Late) Sandboxes(ctx context.Context) ([]Sandbox, error) {
	r, err := l.get(ctx)
	if err != nil {
		return nil, err
	}
	all, err := r.Sandboxes(ctx)
	l.lost(r, err)
	return all, err
}

// Live is Runtime.Live.
func (l *Late) Live(ctx context.Context) ([]Container, error) {
	r, err := l.get(ctx)
	if err != nil {
		return nil, err
	}
	return r.Live(ctx)
}

// Stop is Runtime.Stop.
func (l *Late) Stop(ctx context.Context, c Container, grace time.Duration) error {
	r, err := l.get(ctx)
	if err != nil {
		return err
	}
	return r.Stop(ctx, c, grace)
}

// Network is Runtime.Network.
func (l *Late) Network(ctx context.Context, sandbox string) (Network, error) {
	r, err := l.get(ctx)
	if err != nil {
		return Network{}, err
	}
	return r.Network(ctx, sandbox)
}
