package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"

	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/volume"
)

// The exit codes. `davit help exit-codes` explains them.
const (
	exitOK       = 0
	exitFailed   = 1
	exitUsage    = 2
	exitRefused  = 3
	exitWarnings = 4
	exitVault    = 5
	exitDamaged  = 6
)

const exitCodesHelp = `Every command ends with one of these:

  0  done
  1  failed: something went wrong on the way; the message says how far it came
  2  usage: the command line is not valid; nothing was changed
  3  refused: a rule or a check forbids it; nothing was changed
  4  done, with warnings: everything essential is there, and something needs a look
  5  the vault cannot be reached or lets nobody in; what was asked did not happen
  6  damaged data was found: something in the vault is missing or not as it was written

Scripts may rely on them. "status" ends with 0 whenever it can answer, whatever the answer is.`

// codeError is an error with an exit code and what to do next.
type codeError struct {
	code int
	err  error // nil: all was said already
	hint string
}

func (e *codeError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *codeError) Unwrap() error { return e.err }

func usageError(hint, format string, args ...any) error {
	return &codeError{exitUsage, fmt.Errorf(format, args...), hint}
}

func refuse(hint, format string, args ...any) error {
	return &codeError{exitRefused, fmt.Errorf(format, args...), hint}
}

func hinted(err error, hint string) error {
	if err == nil {
		return nil
	}
	code, _ := verdict(err)
	return &codeError{code, err, hint}
}

// quietly ends the command with a code after it has said everything.
func quietly(code int) error {
	if code == exitOK {
		return nil
	}
	return &codeError{code: code}
}

// errTimeout is the cause of a context that --timeout ended.
var errTimeout = errors.New("gave up")

// errInterrupted is the cause of a context that a signal ended.
var errInterrupted = errors.New("interrupted")

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
	{isAny(errInterrupted), exitFailed, "give the same command again: what was begun is continued, not repeated"},
	{isAny(recovery.ErrBusy, protection.ErrBusy), exitRefused, "wait for it, and look with `status`"},
	{isAny(recovery.ErrNoPoint), exitRefused, "`points APP --all` lists every recovery point and says why it is not offered"},
	{isAny(recovery.ErrRefused, recovery.ErrPreflight), exitRefused, ""},
	{isAny(protection.ErrFailureDomain), exitRefused, "use a vault in another failure domain"},
	{isAny(protection.ErrLastGood, protection.ErrInvalid), exitRefused, ""},
	{isAny(vault.ErrPinned), exitRefused, "`points unpin ID` takes the pin off"},
	{isAny(lease.ErrSuperseded, lease.ErrLost), exitRefused, "another site may write; `restore APP --take-over` moves the right to write here"},
	{isAny(vault.ErrDamaged, volume.ErrDamaged, protection.ErrDamaged), exitDamaged, "an older point may be whole: `points APP`, `verify POINT`"},
	{isAny(vault.ErrDenied), exitVault, "check the vault's credentials and its bucket policy: `vault check`"},
	{isAny(vault.ErrUnavailable), exitVault, "check address, network and credentials: `vault check`"},
	{isAny(vault.ErrKey, volume.ErrPassword), exitRefused, "use the recovery key that was exported when this project was made"},
	{isAny(errTimeout, context.DeadlineExceeded), exitFailed, "allow more time with --timeout"},
	{meta.IsNoMatchError, exitRefused, "Davit's kinds are not known to this cluster: `install` first"},
	{apierrors.IsForbidden, exitFailed, "your kubeconfig's user lacks this right"},
	{apierrors.IsUnauthorized, exitFailed, "the cluster does not accept your kubeconfig's credentials"},
	{isUnreachable, exitFailed, "is this the right cluster? choose with --kubeconfig and --context"},
}

// isUnreachable says that a connection to the cluster came to nothing.
func isUnreachable(err error) bool {
	var netErr *net.OpError
	var urlErr *url.Error
	return errors.As(err, &netErr) || errors.As(err, &urlErr)
}

// verdict finds an error's exit code and hint.
func verdict(err error) (code int, hint string) {
	if err == nil {
		return exitOK, ""
	}
	var coded *codeError
	if errors.As(err, &coded) {
		return coded.code, coded.hint
	}
	for _, r := range rules {
		if r.is(err) {
			return r.code, r.hint
		}
	}
	return exitFailed, ""
}
