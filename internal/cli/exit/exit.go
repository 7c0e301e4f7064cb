// Package exit is how commands end: the exit codes, the errors that carry one
// and a hint at what to do next, and the judgement of errors that carry none.
package exit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"syscall"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"

	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/reading"
	"davit.dev/davit/internal/vault/s3"
	"davit.dev/davit/internal/volume"
)

// The exit codes. `davit help exit-codes` explains them.
const (
	OK         = 0
	Failed     = 1
	BadUsage   = 2
	Refused    = 3
	Warnings   = 4
	Vault      = 5
	Damaged    = 6
	TestFailed = 7
)

// Help explains the exit codes.
const Help = `Every command ends with one of these:

  0  done
  1  failed: something went wrong on the way; the message says how far it came
  2  usage: the command line is not valid; nothing was changed
  3  refused: a rule or a check forbids it; nothing was changed
  4  done, with warnings: everything essential is there, and something needs a look
  5  the vault cannot be reached or lets nobody in; what was asked did not happen
  6  damaged data was found: something in the vault is missing or not as it was written
  7  tested and failed: the copy of a recovery point did not come up or failed a probe; its bytes may be whole

Scripts may rely on them. "status" ends with 0 whenever it can answer, whatever the answer is.`

// Error is an error with an exit code and what to do next.
type Error struct {
	Code int
	Err  error // nil: all was said already
	Hint string
}

// Error implements error.
func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Usage says that the command line is not valid.
func Usage(hint, format string, args ...any) error {
	return &Error{BadUsage, fmt.Errorf(format, args...), hint}
}

// Refuse says that something is forbidden, and that nothing was changed.
func Refuse(hint, format string, args ...any) error {
	return &Error{Refused, fmt.Errorf(format, args...), hint}
}

// Hint adds what to do next to an error, whose code stays.
func Hint(err error, hint string) error {
	if err == nil {
		return nil
	}
	code, _ := Verdict(err)
	return &Error{code, err, hint}
}

// Code is the exit code of an error.
func Code(err error) int {
	code, _ := Verdict(err)
	return code
}

// OfVault judges an error of a vault that is not known by its kind as the
// vault's, where Verdict would take a broken connection for the cluster's.
func OfVault(err error) error {
	code, hint := Verdict(err)
	if code == Failed && !errors.Is(err, ErrInterrupted) && !errors.Is(err, ErrTimeout) {
		code, hint = Vault, "check address, credentials and, for a private CA, --ca-file"
	}
	return &Error{code, err, hint}
}

// Quietly ends the command with a code after it has said everything.
func Quietly(code int) error {
	if code == OK {
		return nil
	}
	return &Error{Code: code}
}

// ErrTimeout is the cause of a context that --timeout ended.
var ErrTimeout = errors.New("gave up")

// ErrInterrupted is the cause of a context that a signal ended.
var ErrInterrupted = errors.New("interrupted")

// rule maps errors of one sort to a code and a hint.
type rule struct {
	is   func(error) bool
	code int
	hint string
}

func isAny(targets ...error) func(error) bool {
	return func(err error) bool {
		for _, target := range targets {
			if errors.Is(err, target) {
				return true
			}
		}
		return false
	}
}

// rules are asked in order; the first that fits decides.
var rules = []rule{
	{isAny(ErrInterrupted), Failed, "give the same command again: what was begun is continued, not repeated"},
	{isAny(recovery.ErrBusy, protection.ErrBusy), Refused, "wait for it, and look with `status`"},
	{isAny(lease.ErrNameTaken), Refused, ""},
	{isAny(recovery.ErrNoPoint), Refused, "`points --all` lists every recovery point and says why it is not offered"},
	{isAny(recovery.ErrRefused, recovery.ErrPreflight), Refused, ""},
	{isAny(protection.ErrFailureDomain), Refused, "use a vault in another failure domain"},
	{isAny(protection.ErrLastGood), Refused, "it is the newest one that can be restored: `backup APP --wait` makes a newer one, and --last-good deletes it all the same"},
	{isAny(protection.ErrInvalid), Refused, ""},
	{isAny(reading.ErrRead), Refused, "wait until that ends, or stop it; of one that died the vault's note ends by itself; --while-read deletes the point all the same, and what reads it fails"},
	{isAny(vault.ErrPinned), Refused, "`points unpin ID` takes the pin off"},
	{isAny(lease.ErrSuperseded, lease.ErrLost), Refused, "another site may write; `restore APP --take-over` moves the right to write here"},
	{isAny(vault.ErrDamaged, volume.ErrDamaged, protection.ErrDamaged), Damaged, "an older point may be whole: `points APP`, `verify POINT`"},
	{isAny(vault.ErrFull), Vault, "give the vault more room, or delete what is not needed: `points delete`"},
	{isAny(vault.ErrDenied), Vault, "check the vault's credentials and its bucket policy: `vault check`"},
	{isAny(s3.ErrUntrusted), Vault, "for a private CA give --ca-file FILE; else check the endpoint"},
	{isAny(vault.ErrUnavailable), Vault, "check address, network and credentials: `vault check`"},
	{isAny(vault.ErrKey, volume.ErrPassword), Refused, "use the recovery key that was exported when this project was made"},
	{isAny(kube.ErrKubeconfig), Failed, "give one with --kubeconfig, or set KUBECONFIG; --context chooses among the contexts of one"},
	{cannotDial, Failed, "is the cluster up, and is it the right one? choose with --kubeconfig and --context"},
	{isAny(ErrTimeout, context.DeadlineExceeded), Failed, "allow more time with --timeout"},
	{meta.IsNoMatchError, Refused, "Davit's kinds are not known to this cluster: `install` first"},
	{apierrors.IsForbidden, Failed, "your kubeconfig's user lacks this right"},
	{apierrors.IsUnauthorized, Failed, "the cluster does not accept your kubeconfig's credentials"},
	{isUnreachable, Failed, "is this the right cluster? choose with --kubeconfig and --context"},
}

// cannotDial says that nobody answers at the address at all.
func cannotDial(err error) bool {
	var netErr *net.OpError
	return errors.As(err, &netErr) && netErr.Op == "dial"
}

// isUnreachable says that a connection to the cluster came to nothing.
func isUnreachable(err error) bool {
	var netErr *net.OpError
	var urlErr *url.Error
	return errors.As(err, &netErr) || errors.As(err, &urlErr)
}

// Verdict finds an error's exit code and hint.
func Verdict(err error) (code int, hint string) {
	if err == nil {
		return OK, ""
	}
	var coded *Error
	if errors.As(err, &coded) {
		return coded.Code, coded.Hint
	}
	for _, r := range rules {
		if r.is(err) {
			return r.code, r.hint
		}
	}
	return Failed, ""
}

// AsUsage makes an error of the command line one with that exit code.
func AsUsage(err error) error {
	if err == nil {
		return nil
	}
	return &Error{Code: BadUsage, Err: err}
}

// IsUsage tells whether the error is one of Usage.
func IsUsage(err error) bool {
	var coded *Error
	return errors.As(err, &coded) && coded.Code == BadUsage
}

// IsRefusal tells whether the error is one of Refuse.
func IsRefusal(err error) bool {
	var coded *Error
	return errors.As(err, &coded) && coded.Code == Refused
}

// NewFile makes a file for its owner's eyes that must not be there yet: it is refused, as
// what a person kept is never written over.
func NewFile(path, what string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, os.ErrExist):
		return nil, Refuse("name a new file", "%s: %s exists and is not overwritten", what, path)
	case err != nil:
		return nil, notMade(err, what)
	}
	return f, nil
}

// notMade tells a disk that fails, of which the command line knows nothing, from a name that is none.
func notMade(err error, what string) error {
	err = fmt.Errorf("%s: %w", what, err)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EIO) {
		return &Error{Code: Failed, Err: err, Hint: "make room there, or name a file on another disk"}
	}
	return AsUsage(err)
}
