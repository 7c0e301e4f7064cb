package restore

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// How long a call that may succeed later is tried again.
const (
	firstPause = 100 * time.Millisecond
	longPause  = 5 * time.Second
	attempts   = 9 // about 25 s in all
)

// retrying tries calls again that failed for a reason that may pass: a busy or
// restarting API server, a lost connection, a write conflict.
type retrying struct {
	Cluster
	clock Clock
}

// transient tells whether the same call may succeed later.
func transient(err error) bool {
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return false
	case apierrors.IsTooManyRequests(err), apierrors.IsServerTimeout(err), apierrors.IsTimeout(err),
		apierrors.IsServiceUnavailable(err), apierrors.IsInternalError(err), apierrors.IsUnexpectedServerError(err):
		return true
	case status(err) >= 500:
		return true
	case apierrors.IsNotFound(err) && strings.Contains(err.Error(), "could not find the requested resource"):
		return true // one of several API servers does not serve a new kind yet
	}
	if status(err) != 0 {
		return false
	}
	var netErr net.Error
	var urlErr *url.Error
	return errors.As(err, &netErr) || errors.As(err, &urlErr) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET)
}

func status(err error) int32 {
	var s apierrors.APIStatus
	if errors.As(err, &s) {
		return s.Status().Code
	}
	return 0
}

// webhookFailed tells whether an admission or conversion webhook that did not
// answer is the reason. What serves it may be among what is restored later.
func webhookFailed(err error) bool {
	if err == nil {
		return false
	}
	msg := err.Error()
	return strings.Contains(msg, "failed calling webhook") || strings.Contains(msg, "conversion webhook") ||
		strings.Contains(msg, "failed to call webhook")
}

// terminating tells whether the namespace is being deleted.
func terminating(err error) bool { return apierrors.HasStatusCause(err, "NamespaceTerminating") }

// again runs call until it succeeds, fails for good or was tried often enough.
// A webhook that does not answer is given up sooner: the engine comes back.
func again[T any](ctx context.Context, clock Clock, call func() (T, error)) (T, error) {
	pause := firstPause
	for n := 1; ; n++ {
		got, err := call()
		if !transient(err) || n == attempts || (webhookFailed(err) && n == 3) {
			return got, err
		}
		wait := pause
		if s, ok := apierrors.SuggestsClientDelay(err); ok {
			wait = max(wait, min(time.Duration(s)*time.Second, longPause))
		}
		if sleepErr := clock.Sleep(ctx, wait); sleepErr != nil {
			return got, err
		}
		pause = min(2*pause, longPause)
	}
}

// Get implements Cluster.
func (r *retrying) Get(ctx context.Context, at Served, namespace, name string) (*unstructured.Unstructured, error) {
	return again(ctx, r.clock, func() (*unstructured.Unstructured, error) {
		return r.Cluster.Get(ctx, at, namespace, name)
	})
}

// Create implements Cluster. A try whose answer was lost may have succeeded;
// the next one then says AlreadyExists, and the caller looks at what is there.
func (r *retrying) Create(ctx context.Context, at Served, obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	return again(ctx, r.clock, func() (*unstructured.Unstructured, error) {
		return r.Cluster.Create(ctx, at, obj)
	})
}

// Update implements Cluster. Conflicts are the caller's.
func (r *retrying) Update(ctx context.Context, at Served, obj *unstructured.Unstructured, sub string) (*unstructured.Unstructured, error) {
	return again(ctx, r.clock, func() (*unstructured.Unstructured, error) {
		return r.Cluster.Update(ctx, at, obj, sub)
	})
}

// Apply implements Cluster.
func (r *retrying) Apply(ctx context.Context, at Served, obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	return again(ctx, r.clock, func() (*unstructured.Unstructured, error) {
		return r.Cluster.Apply(ctx, at, obj)
	})
}

// Patch implements Cluster.
func (r *retrying) Patch(ctx context.Context, at Served, namespace, name string, patch []byte) (*unstructured.Unstructured, error) {
	return again(ctx, r.clock, func() (*unstructured.Unstructured, error) {
		return r.Cluster.Patch(ctx, at, namespace, name, patch)
	})
}

// Serves implements Cluster.
func (r *retrying) Serves(ctx context.Context, kind schema.GroupKind) ([]Served, error) {
	return again(ctx, r.clock, func() ([]Served, error) { return r.Cluster.Serves(ctx, kind) })
}

// May implements Cluster.
func (r *retrying) May(ctx context.Context, verb string, at Served, namespace string) (bool, string, error) {
	type answer struct {
		ok     bool
		reason string
	}
	got, err := again(ctx, r.clock, func() (answer, error) {
		ok, reason, err := r.Cluster.May(ctx, verb, at, namespace)
		return answer{ok, reason}, err
	})
	return got.ok, got.reason, err
}

// explain puts what to do next to errors that people meet.
func explain(err error) error {
	switch {
	case terminating(err):
		return hint(err, "the namespace is being deleted: wait until it is gone and restore again")
	case apierrors.IsForbidden(err):
		return hint(err, "the caller's rights do not suffice")
	case webhookFailed(err):
		return hint(err, "an admission or conversion webhook does not answer: see its configuration")
	}
	return err
}

type hinted struct {
	err  error
	text string
}

func hint(err error, text string) error { return &hinted{err, text} }

// Error implements error.
func (h *hinted) Error() string { return h.err.Error() + ": " + h.text }

// Unwrap returns the error itself.
func (h *hinted) Unwrap() error { return h.err }
