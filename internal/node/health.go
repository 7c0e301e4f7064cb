package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"
)

// health answers the kubelet from the first moment on: a process that waits
// for the API server lives, and must not be killed for it.
type health struct {
	ready atomic.Pointer[func(context.Context) error]
}

// serve answers on an address until stop is called. Alive is answering at all.
func (h *health) serve(ctx context.Context, address string) (stop func(), err error) {
	if address == "" || address == "0" {
		return func() {}, nil
	}
	var l net.ListenConfig
	listener, err := l.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for health: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) {
		err := errors.New("the API server does not answer")
		if check := h.ready.Load(); check != nil {
			err = (*check)(r.Context())
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(listener) }) // it ends when it is closed
	return func() { _ = server.Close(); running.Wait() }, nil
}

// readyWith says that ready is seeing tasks and mounts.
func (h *health) readyWith(mgr ctrl.Manager, opts Options) {
	check := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if !mgr.GetCache().WaitForCacheSync(ctx) {
			return errors.New("volume tasks are not listed yet")
		}
		if _, err := os.Stat(opts.KubeletRoot); err != nil {
			return fmt.Errorf("kubelet directory: %w", err)
		}
		return nil
	}
	h.ready.Store(&check)
}
