// Package answer knows what an API server's refusals mean: which pass by
// themselves, and what a person should do about the others.
package answer

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"regexp"
	"strings"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// How long a call that may succeed later is tried again.
const (
	firstPause = 100 * time.Millisecond
	longPause  = 5 * time.Second

	// Attempts is how often in all, about 25 s.
	Attempts = 9
)

// Sleeper waits. It is the engine's clock.
type Sleeper interface {
	Sleep(ctx context.Context, d time.Duration) error
}

// IgnoreNotFound is err unless it says that the object is not there.
func IgnoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// Transient tells whether the same call may succeed later.
func Transient(err error) bool {
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return false
	case apierrors.IsTooManyRequests(err), apierrors.IsServerTimeout(err), apierrors.IsTimeout(err),
		apierrors.IsServiceUnavailable(err), apierrors.IsInternalError(err), apierrors.IsUnexpectedServerError(err):
		return true
	case Status(err) >= 500:
		return true
	case apierrors.IsNotFound(err) && strings.Contains(err.Error(), "could not find the requested resource"):
		return true // one of several API servers does not serve a new kind yet
	}
	if Status(err) != 0 {
		return false
	}
	var netErr net.Error
	var urlErr *url.Error
	return errors.As(err, &netErr) || errors.As(err, &urlErr) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET)
}

// Status is the code of an API server's answer, 0 if the error is none.
func Status(err error) int32 {
	var s apierrors.APIStatus
	if errors.As(err, &s) {
		return s.Status().Code
	}
	return 0
}

// WebhookFailed tells whether an admission or conversion webhook that did not
// answer is the reason. What serves it may be among what is restored later.
func WebhookFailed(err error) bool {
	if err == nil {
		return false
	}
	msg := err.Error()
	return strings.Contains(msg, "failed calling webhook") || strings.Contains(msg, "conversion webhook") ||
		strings.Contains(msg, "failed to call webhook")
}

// ErrImmutable says that an object that exists cannot be changed so.
var ErrImmutable = errors.New("field is immutable")

// blob is a value that an API server repeats in its refusal, as a Job's whole template.
var blob = regexp.MustCompile(`Invalid value: \{.{200,}\}: `)

// Brief is the error without values that nobody reads.
func Brief(err error) error {
	text := blob.ReplaceAllString(err.Error(), "")
	if text == err.Error() {
		return err
	}
	return &brief{err, text}
}

type brief struct {
	err  error
	text string
}

// Error implements error.
func (b *brief) Error() string { return b.text }

// Unwrap returns the error itself.
func (b *brief) Unwrap() error { return b.err }

// Immutable tells whether an update is refused because of what cannot change
// in an object that exists.
func Immutable(err error) bool {
	if errors.Is(err, ErrImmutable) {
		return true
	}
	if !apierrors.IsInvalid(err) {
		return false
	}
	text := err.Error()
	for _, said := range []string{"immutable", "may not be changed", "may not change", "cannot be changed", "cannot change roleRef", "updates to statefulset spec for fields other than", "are forbidden"} {
		if strings.Contains(text, said) {
			return true
		}
	}
	return false
}

// terminating tells whether the namespace is being deleted.
func terminating(err error) bool { return apierrors.HasStatusCause(err, "NamespaceTerminating") }

// Again runs call until it succeeds, fails for good or was tried often enough.
// A webhook that does not answer is given up sooner: the engine comes back.
func Again[T any](ctx context.Context, clock Sleeper, call func() (T, error)) (T, error) {
	pause := firstPause
	for n := 1; ; n++ {
		got, err := call()
		if !Transient(err) || n == Attempts || (WebhookFailed(err) && n == 3) {
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

// Explain puts what to do next to errors that people meet.
func Explain(err error) error {
	switch {
	case terminating(err):
		return hint(err, "the namespace is being deleted: wait until it is gone and restore again")
	case apierrors.IsForbidden(err) && !QuotaExceeded(err):
		return hint(err, "the caller's rights do not suffice")
	case WebhookFailed(err):
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

// PortRefused tells whether node ports are taken, or outside this cluster's range.
func PortRefused(err error) bool {
	return apierrors.IsInvalid(err) && (strings.Contains(err.Error(), "provided port is already allocated") ||
		strings.Contains(err.Error(), "provided port is not in the valid range"))
}

// FamiliesRefused tells whether a Service asks for address families that the
// cluster does not have.
func FamiliesRefused(err error) bool {
	return apierrors.IsInvalid(err) && (strings.Contains(err.Error(), "ipFamil") || strings.Contains(err.Error(), "dual-stack"))
}

// FamilyFixed tells whether a Service that exists has an address of another family
// than its new version wants first: that one cannot change.
func FamilyFixed(err error) bool {
	return FamiliesRefused(err) && strings.Contains(err.Error(), "as indicated by `ipFamilies[0]`")
}

// QuotaExceeded tells whether a quota leaves no room for an object.
func QuotaExceeded(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota")
}
